"""The discriminators: DAC's size and spectrum, any length, rows apart."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from sdcodec_cli.nn.discriminator import Discriminators, PeriodDiscriminator, SpectralDiscriminator
from sdcodec_cli.recipe import DiscriminatorFields

from audiotools_values import VALUES


def small() -> Discriminators:
    torch.manual_seed(0)
    return Discriminators(periods=(2, 5), window_lengths=(512, 256), band_edges=(0.1, 0.25, 0.5, 0.75), width=4)


def test_the_default_sizes_have_as_many_weights_as_dacs():
    """By hand, from the layers of DAC's published discriminator: descript-audio-codec, dac/model/discriminator.py.

    A layer has its weights and, per output, a bias and weight norm's magnitude. Period networks: kernels of 5, then 3,
    over 1, 32, 128, 512, 1024, 1024, 1 channels. Spectral ones: in each of five bands kernels of 3 × 9, 3 × 9, 3 × 9,
    3 × 9 and 3 × 3 over 2 and then always 32 channels; on top of the bands one of 3 × 3 to a single output.
    """
    period = 5 * (1 * 32 + 32 * 128 + 128 * 512 + 512 * 1024 + 1024 * 1024) + 3 * 1024
    period += 2 * (32 + 128 + 512 + 1024 + 1024 + 1)
    band = 27 * (2 * 32 + 3 * 32 * 32) + 9 * 32 * 32 + 2 * (5 * 32)
    spectral = 5 * band + 9 * 32 + 2 * 1
    fields = DiscriminatorFields()
    discriminators = Discriminators(
        periods=fields.periods,
        window_lengths=fields.window_lengths,
        band_edges=fields.band_edges,
        width=fields.width,
    )
    assert sum(p.numel() for p in discriminators.parameters()) == 5 * period + 3 * spectral == 42_519_760


@torch.no_grad()
def test_the_spectrum_is_the_one_that_dac_takes():
    values = load_file(VALUES)
    ours = SpectralDiscriminator(512, (0.5,), 1).spectrum(values["noise"].float()[:, :, :5001])
    torch.testing.assert_close(ours.permute(0, 2, 3, 1), values["spectrum"], atol=1e-4, rtol=0)


@torch.no_grad()
def test_a_period_network_convolves_the_columns_of_the_folded_waveform():
    torch.manual_seed(0)
    network = PeriodDiscriminator(3, 2)
    wav = torch.randn(2, 1, 300)
    picture = wav.view(2, 1, 100, 3)
    for layer, mapped in zip(network.layers, network(wav), strict=False):
        assert isinstance(layer, nn.Conv1d)
        picture = F.conv2d(picture, layer.weight[..., None], layer.bias, (layer.stride[0], 1), (2, 0))
        picture = torch.where(picture > 0, picture, 0.1 * picture)
        torch.testing.assert_close(mapped, picture.permute(0, 3, 1, 2))


def test_every_network_gives_its_layers_and_then_its_scores():
    maps = small()(torch.randn(3, 1, 1000))
    assert [len(m) for m in maps] == [6, 6, 26, 26]
    assert all(m.shape[0] == 3 for layers in maps for m in layers)
    # 1000 samples are 500 pairs, which strides of 81 leave 7 of; and 8 or 16 hops, with 25 + 39 + 64 + 64 + 65 bins of
    # 257, or 12 + 20 + 32 + 32 + 33 of 129, of which three strides of 2 leave an eighth, rounded up in each band.
    shapes = [tuple(layers[-1].shape) for layers in maps]
    assert shapes == [(3, 2, 1, 7), (3, 5, 1, 3), (3, 1, 8, 34), (3, 1, 16, 18)]


@torch.no_grad()
@pytest.mark.parametrize("length", [2, 3, 11, 63, 64, 1001])
def test_any_length_will_do(length):
    maps = small()(torch.randn(1, 1, length))
    assert all(bool(torch.isfinite(m).all()) and m.numel() for layers in maps for m in layers)


def test_a_single_sample_is_refused():
    with pytest.raises(ValueError, match="at least 2 samples, got 1"):
        small()(torch.randn(1, 1, 1))


def test_a_band_of_a_few_bins_is_refused():
    with pytest.raises(ValueError, match="fewer than 9 bins in a band of window_length 64"):
        Discriminators(periods=(), window_lengths=(64,), band_edges=(0.01,), width=1)


@torch.no_grad()
def test_what_is_past_the_end_is_the_mirror_image():
    network = PeriodDiscriminator(5, 2)
    wav = torch.randn(1, 1, 12)
    mirrored = torch.cat([wav, wav[..., [10, 9, 8]]], dim=-1)
    for ours, wanted in zip(network(wav), network(mirrored), strict=True):
        torch.testing.assert_close(ours, wanted)


@torch.no_grad()
def test_a_row_knows_nothing_of_the_others():
    discriminators, wav = small(), torch.randn(4, 1, 1000)
    other = torch.randn(4, 1, 1000) * 30 + 2
    other[2] = wav[2]
    for ours, theirs in zip(discriminators(wav), discriminators(other), strict=True):
        for one, same in zip(ours, theirs, strict=True):
            assert torch.equal(one[2], same[2])
            assert not torch.equal(one[1], same[1])
    for ours, alone in zip(discriminators(wav), discriminators(wav[2:3]), strict=True):
        torch.testing.assert_close(ours[-1][2:3], alone[-1])


@torch.no_grad()
def test_neither_level_nor_offset_of_a_row_makes_a_difference():
    discriminators, wav = small(), torch.randn(2, 1, 1000)
    for plain, moved in zip(discriminators(wav), discriminators(0.01 * wav + 0.3), strict=True):
        torch.testing.assert_close(plain[-1], moved[-1], atol=1e-4, rtol=0)


def test_rows_peak_at_four_fifths_and_near_silence_stays_near_silence():
    seen = []
    discriminators = small()
    discriminators.networks[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    wav = torch.stack([torch.randn(1, 1000), 1e-6 * torch.randn(1, 1000).clamp(-1, 1), torch.zeros(1, 1000)])
    wav.requires_grad_()
    maps = discriminators(wav)
    peaks = seen[0].detach().abs().amax(-1)
    assert float(peaks[0]) == pytest.approx(0.8)
    assert float(peaks[1]) < 0.02
    assert float(peaks[2]) == 0
    torch.stack([layers[-1].mean() for layers in maps]).sum().backward()
    assert wav.grad is not None
    assert bool(torch.isfinite(wav.grad).all())
    assert float(wav.grad[2].abs().max()) < 1e4


def test_bfloat16_changes_little_and_leaves_the_spectrum_exact():
    discriminators, wav = small(), torch.randn(2, 1, 1000)
    seen = []
    for network in discriminators.networks:
        if isinstance(network, SpectralDiscriminator):
            network.bands[0][0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    exact = discriminators(wav)
    with torch.autocast("cpu", torch.bfloat16):
        maps = discriminators(wav)
    for layers, wanted in zip(maps, exact, strict=True):
        assert layers[-1].dtype == torch.bfloat16
        torch.testing.assert_close(layers[-1].float(), wanted[-1], atol=0.05, rtol=0)
    assert all(torch.equal(one, other) for one, other in zip(seen[:2], seen[2:], strict=True))
    torch.stack([layers[-1].float().mean() for layers in maps]).sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in discriminators.parameters())


@torch.no_grad()
def test_pictures_stay_in_channels_last_order_from_the_spectrum_on():
    network = SpectralDiscriminator(256, (0.25, 0.5), 4)
    wav = torch.randn(2, 1, 2000)
    assert all(m.is_contiguous(memory_format=torch.channels_last) for m in [network.spectrum(wav), *network(wav)])
