"""Loudness is what pyloudnorm measures, however audio was cut into blocks."""

from __future__ import annotations

import math

import numpy as np
import pyloudnorm
import pytest
from audio_examples import RATE, noise

from sdcodec_cli.audio import LoudnessMeter, Wav, k_weighting, loudness_weights


def loudness(wav: Wav, rate: int, size: int, weights: list[float] | None = None) -> float:
    meter = LoudnessMeter(rate, weights or [1.0] * len(wav))
    for begin in range(0, wav.shape[1], size):
        meter.push(wav[:, begin : begin + size])
    return meter.integrated()


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("seconds", [0.4, 0.449, 0.451, 1.0, 3.337])
@pytest.mark.parametrize("size", [997, 10**9])
def test_loudness_equals_that_of_pyloudnorm(rate: int, seconds: float, size: int) -> None:
    wav = noise(seconds, rate, channels=2)
    expected = pyloudnorm.Meter(rate).integrated_loudness(wav.T.astype(np.float64))
    assert loudness(wav, rate, size) == pytest.approx(expected, abs=0.01)


def test_gated_material_is_measured_as_pyloudnorm_measures_it() -> None:
    # Loud, 20 dB softer (the relative gate drops it), nearly silent (the absolute gate drops it), and loud again.
    parts = [
        noise(s, level=level, seed=n) for n, (s, level) in enumerate([(2, 0.1), (5, 0.01), (4, 1e-5), (1.33, 0.2)])
    ]
    wav = np.concatenate(parts, axis=1)
    expected = pyloudnorm.Meter(RATE).integrated_loudness(wav[0].astype(np.float64))
    assert loudness(wav, RATE, 12_345) == pytest.approx(expected, abs=0.01)
    ungated = 10 * math.log10(np.mean(np.square(wav)))
    assert expected > ungated + 2  # the gates matter here


def test_five_channels_are_weighted_as_pyloudnorm_weights_them() -> None:
    wav = noise(1.0, channels=5)
    expected = pyloudnorm.Meter(RATE).integrated_loudness(wav.T.astype(np.float64))
    assert loudness(wav, RATE, 4000, loudness_weights(0x37, 5)) == pytest.approx(expected, abs=0.01)
    # 5.1: the LFE is the fourth channel, and counts nothing however loud it is.
    film = np.insert(wav, 3, noise(1.0, level=1.0), axis=0)
    assert loudness(film, RATE, 4000, loudness_weights(0x3F, 6)) == pytest.approx(expected, abs=0.01)


def test_a_sine_at_48_khz_has_the_loudness_the_standard_gives_it() -> None:
    # BS.1770-4, Annex 1: 997 Hz at 0 dBFS in one front channel reads -3.01 LKFS; pyloudnorm's design is 0.04 LU lower.
    wav = np.sin(2 * np.pi * 997 * np.arange(48_000 * 2) / 48_000).astype(np.float32)[None]
    assert loudness(wav, 48_000, 48_000) == pytest.approx(-3.01, abs=0.06)


def test_silence_and_nothing_are_minus_infinity() -> None:
    assert loudness(np.zeros((1, RATE), np.float32), RATE, 1000) == -math.inf
    assert loudness(noise(1.0, level=1e-6), RATE, 1000) == -math.inf
    assert loudness(np.zeros((1, 100), np.float32), RATE, 1000) == -math.inf
    assert LoudnessMeter(RATE).integrated() == -math.inf


def test_what_is_quieter_than_the_absolute_gate_is_measured_ungated() -> None:
    assert loudness(noise(1.0, level=1e-4), RATE, 1000) == pytest.approx(loudness(noise(1.0), RATE, 1000) - 60, abs=0.1)


@pytest.mark.parametrize(
    "rate", [3_001, 8_000, 11_025, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000, 384_000]
)
def test_the_weighting_is_that_of_pyloudnorm(rate: int) -> None:
    theirs = [[*stage.b, *stage.a] for stage in pyloudnorm.Meter(rate)._filters.values()]
    np.testing.assert_allclose(k_weighting(rate), theirs, rtol=1e-13, atol=1e-15)


def test_sections_above_half_the_sample_rate_do_nothing() -> None:
    nothing = [1.0, 0.0, 0.0, 1.0, 0.0, 0.0]
    assert [row.tolist() == nothing for row in k_weighting(3000)] == [True, False]
    assert [row.tolist() == nothing for row in k_weighting(1400)] == [True, False]
    assert [row.tolist() == nothing for row in k_weighting(76)] == [True, True]


@pytest.mark.parametrize("rate", [11_025, 48_000])
def test_how_audio_is_cut_changes_no_bit_of_the_result(rate: int) -> None:
    wav = noise(3.337, rate, channels=2)
    sizes = np.random.default_rng(0).integers(1, 9000, size=200)
    meter, begin = LoudnessMeter(rate, (1.0, 1.0)), 0
    for size in sizes:
        meter.push(wav[:, begin : begin + size])
        begin += size
    assert begin > wav.shape[1]
    assert meter.integrated() == loudness(wav, rate, 10**9) == loudness(wav, rate, 4096) == loudness(wav, rate, 997)


def test_asking_on_the_way_changes_nothing_of_what_comes() -> None:
    wav = noise(2.0)
    meter = LoudnessMeter(RATE)
    for begin in range(0, wav.shape[1], 1700):
        meter.push(wav[:, begin : begin + 1700])
        so_far = wav[:, : begin + 1700]
        assert meter.integrated() == meter.integrated() == loudness(so_far, RATE, 10**9)


@pytest.mark.parametrize("rate", [60, 1400, 1600, 2000, 3000])
def test_weighting_is_stable_at_any_sample_rate(rate: int) -> None:
    wav = noise(30.0, rate)
    assert loudness(wav, rate, 1000) == pytest.approx(10 * math.log10(np.mean(np.square(wav))) - 0.691, abs=3)


def test_less_than_a_gating_block_is_measured_ungated() -> None:
    assert loudness(noise(0.3), RATE, 1000) == pytest.approx(loudness(noise(3.0), RATE, 1000), abs=0.5)
