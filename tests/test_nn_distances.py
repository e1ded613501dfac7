"""Distances in bands, and envelopes in training: signals with known answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sdcodec_cli.audio.bands import band_bank, envelope_edges, erb_edges
from sdcodec_cli.nn.distances import band_negative_snr, level_distance, negative_snr
from sdcodec_cli.nn.envelope import with_envelope

RATE, HOP = 16_000, 320


def noise(rows: int = 3, seconds: float = 2.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return 0.05 * torch.randn(rows, round(seconds * RATE), generator=generator)


def below(wav: torch.Tensor, hertz: float) -> torch.Tensor:
    spectrum = torch.fft.rfft(wav)
    spectrum[:, round(hertz * wav.shape[-1] / RATE) :] = 0
    return torch.fft.irfft(spectrum, n=wav.shape[-1])


def test_levels_of_audio_that_is_6_db_too_quiet_are_6_db_away():
    wav = noise()
    assert level_distance(0.5 * wav, wav, sample_rate=RATE).numpy() == pytest.approx([6.02] * 3, abs=0.01)
    assert level_distance(wav, wav, sample_rate=RATE).numpy() == pytest.approx([0.0] * 3)


def test_the_ratio_in_bands_counts_each_band_as_much_as_the_others():
    wav = noise()
    # Half of the amplitude is missing everywhere: 6 dB in every band, and so in all.
    assert band_negative_snr(0.5 * wav, wav, sample_rate=RATE).numpy() == pytest.approx([-6.0] * 3, abs=0.05)
    # All is right up to 1 kHz, and nothing is there above: 12 of 21 bands have 0 dB, the others the ceiling.
    bands = band_negative_snr(below(wav, 1000), wav, sample_rate=RATE)
    assert bands.numpy() == pytest.approx([-30 * 9 / 21] * 3, abs=1.5)
    assert negative_snr(below(wav, 1000), wav).numpy() == pytest.approx([-0.58] * 3, abs=0.1)


def test_bands_in_which_nothing_is_heard_do_not_count():
    low = below(noise(), 900)
    assert band_negative_snr(0.5 * low, low, sample_rate=RATE).numpy() == pytest.approx([-6.0] * 3, abs=0.7)
    silence = torch.zeros_like(low)
    assert band_negative_snr(silence, silence, sample_rate=RATE).tolist() == [0.0] * 3


def test_gradients_of_distances_in_bands_are_finite_for_silence_too():
    for distance in (level_distance, band_negative_snr):
        estimate = torch.zeros(2, RATE, requires_grad=True)
        distance(estimate, noise(2, 1.0), sample_rate=RATE).sum().backward()
        assert estimate.grad is not None
        assert estimate.grad.isfinite().all()


def test_an_envelope_of_right_levels_changes_nothing():
    wav = noise()
    out = with_envelope(wav, wav, hop_length=HOP, sample_rate=RATE, share=1.0)
    assert (out - wav).abs().max() < 1e-6


def test_an_envelope_brings_bands_to_the_levels_that_are_wanted_in_steps_of_4_db():
    wav = noise()
    out = with_envelope(10 ** (-8 / 20) * wav, wav, hop_length=HOP, sample_rate=RATE, share=1.0)
    # Four of the 21 bands are below 320 Hz and have no gain.
    assert level_distance(out, wav, sample_rate=RATE).mean() == pytest.approx(8 * 4 / 21, abs=0.2)
    half = with_envelope(10 ** (-8 / 20) * wav, wav, hop_length=HOP, sample_rate=RATE, share=0.5)
    assert level_distance(half, wav, sample_rate=RATE).mean() == pytest.approx(8 * 4 / 21 + 4 * 17 / 21, abs=0.3)


def test_bands_of_envelopes_are_in_the_same_places_at_all_rates():
    edges = envelope_edges(16_000)
    assert (len(edges), edges[0], edges[-1]) == (17, 320, 8000)
    assert envelope_edges(32_000)[:17] == edges
    assert envelope_edges(8_000)[:12] == edges[:12]


def test_a_bank_takes_the_mean_of_the_bins_of_each_band():
    edges = erb_edges(21, 50, 8000)
    bank = band_bank(edges, 1280, RATE)
    assert bank.shape == (641, 21)
    assert np.allclose(bank.sum(0), 1)
    assert ((bank > 0).sum(1) <= 1).all()
