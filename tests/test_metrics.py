"""Metrics against published values and audiotools."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from sdcodec_cli.engine.metrics import (
    BAND_EDGES,
    TREBLE_BANDS,
    UPPER_BANDS,
    WIDE_EDGES,
    band_errors,
    band_power,
    band_sdr,
    mel_distance_dac,
    si_sdr,
    stft_distance,
)

from audiotools_values import SAMPLE_RATES, SIGNALS, VALUES, signals

GOLDEN = load_file(Path(__file__).parent / "data" / "official_metrics.io.safetensors")
ESTIMATE, REFERENCE = GOLDEN["est"][:, 0], GOLDEN["ref"][:, 0]


def test_si_sdr_is_the_published_codes():
    np.testing.assert_allclose(si_sdr(ESTIMATE, REFERENCE), GOLDEN["si_sdr"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("level", [-10.0, 0.0, 10.0, 30.0])
def test_si_sdr_of_orthogonal_noise_is_its_level(level):
    time = np.arange(16_000) / 16_000
    reference = np.sin(2 * math.pi * 440 * time)
    noise = np.sin(2 * math.pi * 700 * time) * 10 ** (-level / 20)
    assert float(si_sdr(3 * (reference + noise), reference)) == pytest.approx(level, abs=1e-3)


def test_si_sdr_does_not_see_a_constant_that_is_added():
    assert si_sdr(ESTIMATE + np.float32(0.25), REFERENCE) == pytest.approx(si_sdr(ESTIMATE, REFERENCE), abs=1e-3)


def test_the_stft_distance_is_the_published_codes():
    assert stft_distance(ESTIMATE, REFERENCE).mean() == pytest.approx(GOLDEN["stft_loss"][0], abs=1e-4)


@pytest.mark.parametrize("sample_rate", SAMPLE_RATES)
@pytest.mark.parametrize("kind", SIGNALS)
def test_distances_are_audiotools_with_its_defaults(kind, sample_rate):
    """Which are what DAC's `scripts/evaluate.py` takes."""
    values = load_file(VALUES)
    estimate, reference = signals(values["noise"].astype(np.float32))[kind]
    mel, stft = mel_distance_dac(estimate, reference, sample_rate).mean(), stft_distance(estimate, reference).mean()
    assert mel == pytest.approx(values[f"mel {kind} {sample_rate}"], abs=1e-4)
    assert stft == pytest.approx(values[f"stft {kind} {sample_rate}"], abs=1e-4)


def test_a_signal_is_at_no_distance_from_itself_whatever_it_is():
    for wav in (REFERENCE, np.zeros((2, 8000), np.float32)):
        assert mel_distance_dac(wav, wav, 16_000).tolist() == [0.0] * len(wav)
        assert stft_distance(wav, wav).tolist() == [0.0] * len(wav)


def test_a_signal_ten_times_too_loud_is_two_decades_of_power_away_at_each_scale():
    """And nine times its magnitude, which for white noise under a Hann window is known: √(3/8 N σ² π/4)."""
    wav = 0.01 * np.random.default_rng(0).standard_normal(160_000)
    magnitudes = sum(0.01 * math.sqrt(3 / 8 * window_length * math.pi / 4) for window_length in (2048, 512))
    assert float(stft_distance(10 * wav, wav)) == pytest.approx(4 + 9 * magnitudes, rel=5e-3)


def test_every_row_is_measured_by_itself_in_double_precision():
    rows = np.stack([ESTIMATE, REFERENCE])
    others = np.stack([REFERENCE, ESTIMATE]).astype(np.float64)
    for distance in (lambda *wavs: mel_distance_dac(*wavs, 16_000), stft_distance, si_sdr):
        together = distance(rows, others)
        assert together.shape == (2, 3)
        assert together.dtype == np.float64
        alone = [[float(distance(rows[i, j], others[i, j])) for j in range(3)] for i in range(2)]
        np.testing.assert_allclose(together, alone, atol=1e-9, rtol=0)
        assert len(set(together[0].tolist())) == 3


def tones(sample_rate: int = 16_000, **gains: float) -> np.ndarray:
    """Two seconds of a tone in each band that a rate has room for; gains in dB by `band_N`."""
    time = np.arange(2 * sample_rate) / sample_rate
    wav = np.zeros_like(time)
    for band, (low, high) in enumerate(itertools.pairwise(BAND_EDGES)):
        frequency = 12.5 * round((low + high) / 2 / 12.5)
        if frequency < sample_rate / 2:
            wav += 0.01 * 10 ** (gains.get(f"band_{band}", 0.0) / 20) * np.sin(2 * math.pi * frequency * time)
    return wav


def test_bands_go_from_50_hz_to_8_khz_and_twelve_are_above_1_khz():
    assert (len(BAND_EDGES), BAND_EDGES[0], BAND_EDGES[-1]) == (22, 50, 8000)
    # All have the same number of ERBs: one is 24.7 (1 + 0.00437 f) Hz (Glasberg and Moore, 1990).
    centres = np.convolve(BAND_EDGES, [0.5, 0.5], "valid")
    widths = np.diff(BAND_EDGES) / (24.7 * (1 + 0.00437 * centres))
    np.testing.assert_allclose(widths, widths.mean(), rtol=1e-6)
    assert np.flatnonzero(centres > 1000).tolist() == list(range(21))[UPPER_BANDS]


@pytest.mark.parametrize("band", [0, 8, 9, 20])
def test_a_gain_in_one_band_is_bias_there_and_spread_nowhere(band):
    bias, spread = band_errors(tones(**{f"band_{band}": 6.0}), tones(), 16_000)
    np.testing.assert_allclose(bias, np.where(np.arange(21) == band, 6.0, 0.0), atol=0.01)
    np.testing.assert_allclose(spread, 0.0, atol=0.02)


def test_what_alternates_by_3_db_up_and_down_is_spread_and_no_bias():
    reference = np.random.default_rng(0).standard_normal((3, 16_000 * 64))
    signs = np.repeat([1, -1] * 4, 16_000 * 8)
    bias, spread = band_errors(reference * 10 ** (signs * 3 / 20), reference, 16_000)
    assert bias.shape == spread.shape == (3, 21)
    np.testing.assert_allclose(bias, 0.0, atol=0.02)
    np.testing.assert_allclose(spread, 3.0, atol=0.02)


def test_errors_of_bands_are_those_of_their_definition():
    """Frame by frame and band by band, as docs/evaluation.md has it."""
    rng = np.random.default_rng(0)
    reference = rng.standard_normal(12_345) * np.linspace(0.5, 0, 12_345)
    estimate = reference + 0.05 * rng.standard_normal(12_345)

    def levels(wav: np.ndarray) -> np.ndarray:
        frequencies, window = np.arange(641) * 12.5, 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(1280) / 1279)
        rows = []
        for start in range(0, len(wav) - 1280 + 1, 320):
            power = np.abs(np.fft.fft(wav[start : start + 1280] * window)[:641]) ** 2
            # The last band has both of its ends.
            bands = zip(BAND_EDGES, [*BAND_EDGES[1:-1], 8001], strict=False)
            rows.append([power[(frequencies >= low) & (frequencies < high)].mean() for low, high in bands])
        return 10 * np.log10(np.array(rows) + 1e-7)

    difference = levels(estimate) - levels(reference)
    bias, spread = band_errors(estimate, reference, 16_000)
    np.testing.assert_allclose(bias, difference.mean(0), atol=1e-6)
    np.testing.assert_allclose(spread, difference.std(0), atol=1e-6)


@pytest.mark.parametrize(("sample_rate", "bands"), [(8000, 16), (22_050, 21), (24_000, 21), (44_100, 21), (48_000, 21)])
def test_bands_and_their_levels_are_the_same_at_any_rate_that_has_them(sample_rate, bands):
    # So quiet that what is added to a band's power counts.
    loud, quiet = 1e-2, 1e-4
    bias, spread = band_errors(quiet * tones(sample_rate), loud * tones(sample_rate), sample_rate)
    expected = band_errors(quiet * tones(), loud * tones(), 16_000)
    assert bias.shape == spread.shape == (bands,)
    np.testing.assert_allclose(bias, expected.bias[:bands], atol=0.05)
    np.testing.assert_allclose(spread, 0.0, atol=0.05)


def sines(*levels_and_frequencies: tuple[float, float], sample_rate: int = 32_000) -> np.ndarray:
    time = np.arange(2 * sample_rate) / sample_rate
    return sum(level * np.sin(2 * math.pi * frequency * time) for level, frequency in levels_and_frequencies)


def test_power_of_a_band_is_that_of_the_tones_in_it_and_of_no_other():
    wav = sines((0.5, 1_000.3), (0.01, 12_000)) + 0.1
    # Half of the square of an amplitude, less what is faded: 5/8 of two fades of 20 ms in 2 s.
    kept = 1 - 5 / 8 * 0.02
    assert float(band_power(wav, 32_000, 0, 8_000)) == pytest.approx((0.5**2 / 2 + 0.1**2) * kept, rel=1e-4)
    assert float(band_power(wav, 32_000, 8_000, 16_000)) == pytest.approx(0.01**2 / 2 * kept, rel=1e-4)
    assert float(band_power(sines((0.5, 1_000.3)) + 0.1, 32_000, 8_000, 16_000)) < 1e-10


def test_sdr_of_a_band_that_is_lost_is_0_db_and_of_one_that_is_too_quiet_what_it_lacks():
    reference = sines((0.5, 1_000), (0.1, 7_500), (0.2, 12_000))
    lost = sines((0.5, 1_000), (0.1, 7_500))
    assert float(band_sdr(lost, reference, 32_000, 8_000, 16_000)) == pytest.approx(0.0, abs=1e-6)
    assert float(band_sdr(lost, reference, 32_000, 0, 8_000)) > 80
    # A gain of 0.9 in everything leaves a tenth wrong; twice as much of one tone has it wrong by itself.
    for band in ((0, 8_000), (7_000, 9_000), (8_000, 16_000)):
        assert float(band_sdr(0.9 * reference, reference, 32_000, *band)) == pytest.approx(20.0, abs=1e-6)
    twice = reference + sines((0.1, 7_500))
    assert float(band_sdr(twice, reference, 32_000, 7_000, 9_000)) == pytest.approx(0.0, abs=1e-3)
    assert float(band_sdr(twice, reference, 32_000, 0, 8_000)) == pytest.approx(10 * math.log10(26), abs=1e-3)


def test_a_mel_distance_above_a_frequency_hears_nothing_below():
    reference = 0.1 * np.random.default_rng(0).standard_normal(64_000)
    assert float(mel_distance_dac(reference + sines((0.1, 5_000)), reference, 32_000, lowest=8_000)) < 1e-3
    assert float(mel_distance_dac(reference + sines((0.1, 5_000)), reference, 32_000)) > 0.02
    high = reference + sines((0.1, 12_000))
    assert float(mel_distance_dac(high, reference, 32_000, lowest=8_000)) > 0.02


def test_bands_above_8_khz_follow_those_below_and_are_about_as_wide():
    assert WIDE_EDGES[: len(BAND_EDGES)] == BAND_EDGES
    assert (len(WIDE_EDGES[1:][TREBLE_BANDS]), WIDE_EDGES[-1]) == (4, 16_000)
    centres = np.convolve(WIDE_EDGES, [0.5, 0.5], "valid")
    widths = np.diff(WIDE_EDGES) / (24.7 * (1 + 0.00437 * centres))
    np.testing.assert_allclose(widths, widths.mean(), rtol=0.05)


def test_a_gain_above_8_khz_is_bias_of_the_bands_there():
    reference = 0.1 * np.random.default_rng(0).standard_normal(64_000)
    spectrum = np.fft.rfft(reference)
    spectrum[len(spectrum) // 2 :] *= 10 ** (-6 / 20)
    bias, spread = band_errors(np.fft.irfft(spectrum), reference, 32_000, WIDE_EDGES)
    np.testing.assert_allclose(bias, np.where(np.arange(25) < 21, 0.0, -6.0), atol=0.1)
    np.testing.assert_allclose(spread, 0.0, atol=0.2)
    np.testing.assert_allclose(bias[:21], band_errors(np.fft.irfft(spectrum), reference, 32_000).bias)
