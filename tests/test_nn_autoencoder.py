"""Strided convolutions: lengths, lags, context."""

from __future__ import annotations

import math

import pytest
import torch

from sdcodec_cli.nn.autoencoder import ConvDecoder, ConvEncoder
from sdcodec_cli.nn.layers import add_weight_norm, fold_weights, pad_to_multiple
from sdcodec_cli.nn.lstm import WindowedLSTM

STRIDES = [(2, 4, 5, 8), (3, 5, 7), (5,)]


@pytest.mark.parametrize("strides", STRIDES)
def test_frames_and_samples_come_out_in_exact_numbers(strides):
    torch.manual_seed(0)
    hop = math.prod(strides)
    encoder = ConvEncoder(width=2, strides=strides, latent_dim=6)
    decoder = ConvDecoder(width=32, strides=strides[::-1], latent_dim=6)
    for frames in (1, 2, 9):
        latent = encoder(torch.randn(2, 1, frames * hop))
        assert latent.shape == (2, 6, frames)
        assert decoder(latent).shape == (2, 1, frames * hop)


def _centre(response: torch.Tensor) -> float:
    """Where the energy of a response is centred, in samples."""
    energy = response.double().square().flatten()
    return float((energy * torch.arange(len(energy))).sum() / energy.sum())


@pytest.mark.parametrize("stride", [2, 3, 5, 8])
def test_an_exact_stage_gives_back_what_its_mirror_image_took_at_the_same_place(stride):
    """The transposed convolution with the encoder's own kernel is its adjoint: up(down(x)) is centred where x is."""
    down = torch.nn.Conv1d(1, 1, 2 * stride, stride=stride, padding=math.ceil(stride / 2), bias=False)
    decoder = ConvDecoder(width=2, strides=(stride,), latent_dim=1)
    up = decoder.stages[0].up
    assert up.padding == down.padding
    up = torch.nn.ConvTranspose1d(
        1, 1, 2 * stride, stride=stride, padding=up.padding, output_padding=up.output_padding, bias=False
    )
    torch.nn.init.ones_(down.weight)
    torch.nn.init.ones_(up.weight)
    length = 40 * stride
    centres = []
    # Averaged over all phases of the grid, lag is what is left.
    for offset in range(stride):
        impulse = torch.zeros(1, 1, length)
        impulse[..., 20 * stride + offset] = 1
        centres.append(_centre(up(down(impulse)).detach()) - (20 * stride + offset))
    assert abs(sum(centres) / len(centres)) < 1e-6


@pytest.mark.parametrize(("upsampling", "lag"), [("exact", 0), ("dac", 0), ("sdcodec", 8)])
def test_the_published_padding_of_sdcodec_is_eight_samples_late(upsampling, lag):
    torch.manual_seed(0)
    exact = ConvDecoder(width=64, strides=(8, 5, 4, 2), latent_dim=4)
    other = ConvDecoder(width=64, strides=(8, 5, 4, 2), latent_dim=4, upsampling=upsampling)
    other.load_state_dict(exact.state_dict())
    latent = torch.randn(1, 4, 60)
    reference, wav = exact(latent)[0, 0], other(latent)[0, 0]
    middle = slice(6000, 12000)
    assert wav.shape == reference.shape
    torch.testing.assert_close(wav[6000 + lag : 12000 + lag], reference[middle], atol=1e-5, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("layers", [0, 2])
@pytest.mark.parametrize("causal", [False, True])
def test_no_sample_beyond_the_declared_context_reaches_a_frame(causal, layers):
    torch.manual_seed(0)
    upsampling = "causal" if causal else "exact"
    lstms = [WindowedLSTM(channels=4, layers=layers, context=3, causal=causal) if layers else None for _ in range(2)]
    encoder = ConvEncoder(width=2, strides=(2, 4, 5, 8), latent_dim=4, causal=causal, lstm=lstms[0]).double()
    decoder = ConvDecoder(width=32, strides=(8, 5, 4, 2), latent_dim=4, upsampling=upsampling, lstm=lstms[1]).double()
    frame, context = 30, encoder.context_frames
    wav = torch.randn(1, 1, 61 * 320, dtype=torch.float64)
    near, far = wav.clone(), wav.clone()
    far[..., : (frame - context) * 320] = 0
    far[..., (frame + context + 1) * 320 :] = 0
    near[..., : (frame - context + 1) * 320] = 0
    assert torch.equal(encoder(far)[..., frame], encoder(wav)[..., frame])
    assert not torch.equal(encoder(near)[..., frame], encoder(wav)[..., frame])
    latent, context = torch.randn(1, 4, 61, dtype=torch.float64), decoder.context_frames
    far = latent.clone()
    far[..., : frame - context] = 0
    far[..., frame + context + 1 :] = 0
    span = slice(frame * 320, (frame + 1) * 320)
    assert torch.equal(decoder(far)[..., span], decoder(latent)[..., span])


def test_causal_networks_see_nothing_of_what_comes_after_a_frame():
    hop, cut = 40, 12
    encoder = ConvEncoder(width=4, strides=(2, 4, 5), latent_dim=8, causal=True).eval()
    decoder = ConvDecoder(width=32, strides=(5, 4, 2), latent_dim=8, upsampling="causal").eval()
    wav = torch.randn(1, 1, 20 * hop, generator=torch.Generator().manual_seed(0))
    changed = torch.cat([wav[..., : cut * hop], torch.zeros(1, 1, 8 * hop)], dim=-1)
    with torch.no_grad():
        latent, other = encoder(wav), encoder(changed)
        decoded, after = decoder(latent), decoder(other)
    assert (latent.shape, decoded.shape) == ((1, 8, 20), (1, 1, 20 * hop))
    for one, two, first in ((latent, other, cut), (decoded, after, cut * hop)):
        assert torch.equal(one[..., :first], two[..., :first])
        assert not torch.allclose(one[..., first : first + 1], two[..., first : first + 1])


@torch.no_grad()
def test_weight_norm_can_be_added_and_folded_without_changing_what_a_network_does():
    torch.manual_seed(0)
    encoder = ConvEncoder(width=2, strides=(2, 5), latent_dim=3)
    wav = torch.randn(1, 1, 200)
    plain, names = encoder(wav), set(encoder.state_dict())
    add_weight_norm(encoder)
    assert any("original" in name for name in encoder.state_dict())
    torch.testing.assert_close(encoder(wav), plain)
    fold_weights(encoder)
    assert set(encoder.state_dict()) == names
    torch.testing.assert_close(encoder(wav), plain)


@pytest.mark.parametrize(("length", "padded"), [(0, 320), (1, 320), (320, 320), (321, 640)])
def test_padding_goes_up_to_whole_frames_and_at_least_one(length, padded):
    assert pad_to_multiple(torch.ones(1, length), 320).shape == (1, padded)
