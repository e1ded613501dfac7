"""Distances of spectra against published values and audiotools; SI-SDR is in test_losses_and_metrics.py."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sdcodec_cli.engine.evaluate.metrics import mel_distance_dac, stft_distance

from audiotools_values import SAMPLE_RATES, SIGNALS, VALUES, signals

GOLDEN = load_file(Path(__file__).parent / "data" / "official_metrics.io.safetensors")


def test_the_stft_distance_is_the_published_codes():
    distances = stft_distance(GOLDEN["est"][:, 0], GOLDEN["ref"][:, 0])
    torch.testing.assert_close(distances.mean(), GOLDEN["stft_loss"][0], atol=1e-4, rtol=0)


@pytest.mark.parametrize("sample_rate", SAMPLE_RATES)
@pytest.mark.parametrize("kind", SIGNALS)
def test_distances_are_audiotools_with_its_defaults(kind, sample_rate):
    """Which are what DAC's `scripts/evaluate.py` takes."""
    values = load_file(VALUES)
    estimate, reference = signals(values["noise"].float())[kind]
    mel, stft = mel_distance_dac(estimate, reference, sample_rate).mean(), stft_distance(estimate, reference).mean()
    torch.testing.assert_close(mel, values[f"mel {kind} {sample_rate}"], atol=1e-4, rtol=0)
    torch.testing.assert_close(stft, values[f"stft {kind} {sample_rate}"], atol=1e-4, rtol=0)


def test_a_signal_is_at_no_distance_from_itself_whatever_it_is():
    for wav in (GOLDEN["ref"][:, 0], torch.zeros(2, 8000)):
        assert mel_distance_dac(wav, wav, 16_000).tolist() == [0.0] * len(wav)
        assert stft_distance(wav, wav).tolist() == [0.0] * len(wav)


def test_a_signal_ten_times_too_loud_is_two_decades_of_power_away_at_each_scale():
    """And nine times its magnitude, which for white noise under a Hann window is known: √(3/8 N σ² π/4)."""
    torch.manual_seed(0)
    wav = 0.01 * torch.randn(160_000)
    magnitudes = sum(0.01 * math.sqrt(3 / 8 * window_length * math.pi / 4) for window_length in (2048, 512))
    assert float(stft_distance(10 * wav, wav)) == pytest.approx(4 + 9 * magnitudes, rel=5e-3)


def test_every_row_is_measured_by_itself_in_single_precision():
    rows = torch.stack([GOLDEN["est"][:, 0], GOLDEN["ref"][:, 0]])
    others = torch.stack([GOLDEN["ref"][:, 0], GOLDEN["est"][:, 0]]).double()
    for distance in (lambda *wavs: mel_distance_dac(*wavs, 16_000), stft_distance):
        together = distance(rows, others)
        assert together.shape == (2, 3)
        assert together.dtype == torch.float32
        alone = torch.stack([torch.stack([distance(rows[i, j], others[i, j]) for j in range(3)]) for i in range(2)])
        assert alone.shape == (2, 3)
        torch.testing.assert_close(together, alone, atol=1e-6, rtol=0)
        assert len(set(together[0].tolist())) == 3
