"""Losses and masks against published values and audiotools; metrics are in test_metrics.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sdcodec_cli.audio import masks
from sdcodec_cli.audio.masks import HOP_LENGTH, WINDOW_LENGTH, mask_mixture, ratio_masks
from sdcodec_cli.nn.distances import magnitudes, mel_distance, negative_snr, spectrum
from sdcodec_cli.nn.objectives.terms import activity_targets, leakage, masked_negative_snr

from audiotools_values import VALUES

GOLDEN = load_file(Path(__file__).parent / "data" / "official_metrics.io.safetensors")


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def test_masked_stems_are_the_published_codes():
    stems = mask_mixture(GOLDEN["mask.mix"][0, 0].numpy(), GOLDEN["mask.stems"][0, :, 0].numpy())[:, 0]
    np.testing.assert_allclose(stems, GOLDEN["mask.out"][0, :, 0].numpy(), atol=1e-4, rtol=0)


def test_masks_add_up_to_one_even_where_nothing_is_left_to_divide():
    shares = ratio_masks(np.complex64([[[0, 1, 0]], [[0, 3j, 0]]]))
    assert shares.tolist() == [[[0.5, 0.25, 0.5]], [[0.5, 0.75, 0.5]]]


def test_the_masks_of_several_views_count_alike_however_loud_each_view_is():
    mixture, one, two = noise(2, 5000), noise(3, 5000, seed=1), noise(3, 5000, seed=2)
    mean = (mask_mixture(mixture, one) + mask_mixture(mixture, two)) / 2
    np.testing.assert_allclose(mask_mixture(mixture, one, -8 * two), mean, atol=1e-5, rtol=0)


@pytest.mark.parametrize("length", [1, 100, 511, 513, 5000])
def test_masked_stems_add_up_to_the_mixture_at_any_length(length):
    mixture, stems = noise(2, length), noise(3, length, seed=1)
    found = mask_mixture(mixture, stems)
    assert (found.shape, found.dtype) == ((3, 2, length), np.float32)
    np.testing.assert_allclose(found.sum(0), mixture, atol=1e-4, rtol=0)


@pytest.mark.parametrize("length", [1024, 5000, 16_000])
def test_the_spectrum_that_masks_are_made_of_is_torchs_and_so_is_its_way_back(length):
    wav = noise(2, length)
    window = torch.hann_window(WINDOW_LENGTH)
    theirs = torch.stft(torch.from_numpy(wav), WINDOW_LENGTH, HOP_LENGTH, window=window, return_complex=True)
    found = masks.spectrum(wav)
    assert found.dtype == np.complex64
    np.testing.assert_allclose(found, theirs.transpose(1, 2).numpy(), atol=1e-4, rtol=0)
    changed = found * np.linspace(0, 1, found.shape[-1], dtype=np.float32)
    back = torch.istft(torch.from_numpy(changed).transpose(1, 2), WINDOW_LENGTH, HOP_LENGTH, window=window)
    reached = back.shape[-1]  # torch gives what whole hops reach to
    np.testing.assert_allclose(masks.inverse(changed, length)[:, :reached], back.numpy(), atol=1e-5, rtol=0)


def test_the_mel_distance_is_the_published_codes_at_the_rate_that_it_took():
    """The published code measures 16 kHz audio with a filter bank for 44.1 kHz, and adds the scales up."""
    distance = mel_distance(GOLDEN["est"][:, 0], GOLDEN["ref"][:, 0], sample_rate=44_100)
    torch.testing.assert_close(distance.mean(), GOLDEN["mel_loss"][0], atol=1e-4, rtol=0)


def test_the_mel_distance_is_audiotools():
    values = load_file(VALUES)
    estimate, target = values["noise"].float()[:, 0].split(1)
    ours = mel_distance(estimate, target, sample_rate=16_000)
    torch.testing.assert_close(ours.mean(), values["seven mel scales"], rtol=1e-3, atol=0)


@pytest.mark.parametrize("length", [8000, 8191, 8192])
@pytest.mark.parametrize(("window", "hop"), [(32, 8), (1024, 256), (2048, 512)])
def test_magnitudes_and_their_gradients_are_those_of_torchs_short_time_transform(window, hop, length):
    torch.manual_seed(0)
    wav = torch.randn(2, length, dtype=torch.float64, requires_grad=True)
    hann = torch.hann_window(window, dtype=torch.float64)
    theirs = torch.stft(wav, window, hop, window=hann, return_complex=True).transpose(1, 2)
    torch.testing.assert_close(spectrum(wav, window, hop), theirs)
    theirs = (theirs.abs().square() + 1e-6).sqrt()
    ours = magnitudes(wav, window, hop, offset=1e-6)
    torch.testing.assert_close(ours, theirs)
    towards = torch.randn_like(ours)
    gradients = [torch.autograd.grad((found * towards).sum(), wav)[0] for found in (ours, theirs)]
    torch.testing.assert_close(*gradients)


def test_the_snr_of_a_perfect_estimate_is_the_ceiling_and_of_silence_zero():
    target = torch.randn(2, 8000)
    assert negative_snr(target, target).tolist() == pytest.approx([-30.0, -30.0], abs=0.01)
    assert negative_snr(torch.zeros(2, 8000), target).tolist() == pytest.approx([0.0, 0.0], abs=0.01)


def test_the_mask_loss_is_the_snr_of_what_separation_would_give():
    torch.manual_seed(0)
    stems = torch.randn(3, 32_000) * torch.tensor([[0.1], [0.05], [0.02]])
    estimates = stems + 0.03 * torch.randn(3, 32_000)
    separated = torch.from_numpy(mask_mixture(stems.sum(0, keepdim=True).numpy(), estimates.numpy())[:, 0])
    difference = masked_negative_snr(estimates, stems, torch.tensor([1, 1, 1]), 2) - negative_snr(separated, stems)
    # The overlap-add that follows takes some of the noise away.
    assert bool(((difference > 0) & (difference < 0.5)).all())


def test_the_mask_loss_has_the_gradient_of_the_masks_themselves():
    torch.manual_seed(0)
    stems = torch.randn(3, 8000, dtype=torch.float64)
    estimates = (stems + torch.randn_like(stems)).requires_grad_(True)
    ours = masked_negative_snr(estimates, stems, torch.tensor([0, 0, 0]), 1)
    wanted = spectrum(stems, WINDOW_LENGTH, HOP_LENGTH)
    magnitude = spectrum(estimates, WINDOW_LENGTH, HOP_LENGTH).abs()
    noise = magnitude / magnitude.sum(0) * wanted.sum(0) - wanted
    ratio = noise.abs().square().sum((1, 2)) / wanted.abs().square().sum((1, 2))
    theirs = 10 * torch.log10(ratio + 1e-3)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=0)
    gradients = [torch.autograd.grad(loss.sum(), estimates)[0] for loss in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-8)


def test_the_mask_loss_of_each_mixture_is_its_own_and_a_stem_alone_loses_nothing():
    torch.manual_seed(0)
    stems, estimates = torch.randn(3, 8000), torch.randn(3, 8000)
    together = masked_negative_snr(estimates, stems, torch.tensor([0, 1, 0]), 2)
    pair = masked_negative_snr(estimates[[0, 2]], stems[[0, 2]], torch.tensor([0, 0]), 1)
    torch.testing.assert_close(together, torch.stack([pair[0], torch.tensor(-30.0), pair[1]]))


def test_leakage_is_the_level_relative_to_the_mixture_down_to_a_floor():
    mixture = torch.randn(1, 8000)
    assert float(leakage(0.1 * mixture, mixture)) == pytest.approx(-20, abs=0.5)
    assert float(leakage(0 * mixture, mixture)) == pytest.approx(-30, abs=0.01)


def test_losses_have_gradients_at_silence():
    estimate = torch.zeros(1, 8000, requires_grad=True)
    target = torch.zeros(1, 8000)
    masked = masked_negative_snr(estimate, target, torch.zeros(1, dtype=torch.int64), 1)
    (mel_distance(estimate, target, sample_rate=16_000) + negative_snr(estimate, target) + masked).sum().backward()
    assert estimate.grad is not None
    assert bool(torch.isfinite(estimate.grad).all())


def test_a_domain_is_active_around_where_it_is_heard():
    stems = torch.zeros(1, 2, 320 * 100)
    stems[0, 0] = 0.1 * torch.randn(320 * 100)
    stems[0, 1, 320 * 50 : 320 * 51] = 0.1
    active = activity_targets(stems, 320)
    assert active.shape == (1, 2, 100)
    assert bool((active[0, 0] == 1).all())
    assert active[0, 1].nonzero()[:, 0].tolist() == list(range(40, 61))
    stems[0, 1] *= 1e-3
    assert float(activity_targets(stems, 320)[0, 1].max()) == 0
