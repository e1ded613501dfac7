"""Metrics against published values and audiotools."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from sdcodec_cli.engine.metrics import mel_distance_dac, si_sdr, stft_distance

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
