"""The frame-domain backbone: lengths, lag, context."""

from __future__ import annotations

import pytest
import torch

from sdcodec_cli.nn.spectral import SpectralDecoder, SpectralEncoder

SIZES = {"window_length": 640, "hop_length": 320, "width": 8, "dilations": (1, 2), "latent_dim": 6}
CONTEXTS = [0, 1600, 2048]


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("frames", [1, 2, 25])
def test_frames_and_samples_come_out_in_exact_numbers(frames, context):
    torch.manual_seed(0)
    latent = SpectralEncoder(**SIZES, context_window_length=context)(torch.randn(2, 1, frames * 320))
    assert latent.shape == (2, 6, frames)
    assert SpectralDecoder(**SIZES)(latent).shape == (2, 1, frames * 320)


@torch.no_grad()
def test_the_two_transforms_without_a_network_between_them_give_the_waveform_back_without_lag():
    """Compressed spectrum in, compressed spectrum out: only the offsets of the compression remain."""
    encoder, decoder = SpectralEncoder(**SIZES), SpectralDecoder(**SIZES)
    wav = torch.randn(1, 1, 3200) * 0.1
    spectra = []
    encoder.embed.register_forward_pre_hook(lambda module, inputs: spectra.append(inputs[0]))
    encoder(wav)
    decoder.project.register_forward_hook(lambda module, inputs, output: spectra[0])
    rebuilt = decoder(torch.zeros(1, 6, 10))
    assert float((rebuilt - wav).square().mean() / wav.square().mean()) < 1e-4


@torch.no_grad()
def test_a_long_window_tells_harmonics_apart_that_a_short_one_does_not():
    """Two tones 20 Hz apart make one peak in 40 ms and two in 128 ms."""
    encoder = SpectralEncoder(**SIZES, context_window_length=2048)
    time = torch.arange(16_000) / 16_000
    seen = []
    encoder.embed_context.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    encoder((torch.sin(2 * torch.pi * 500 * time) + torch.sin(2 * torch.pi * 520 * time))[None, None])
    magnitude = seen[0][0, 25]
    peaks = (magnitude[1:-1] > magnitude[:-2]) & (magnitude[1:-1] > magnitude[2:]) & (magnitude[1:-1] > 5)
    # Bins are 7.8 Hz wide.
    assert [round((int(bin_) + 1) * 16_000 / 2048 / 20) * 20 for bin_ in peaks.nonzero()[:, 0]] == [500, 520]


@pytest.mark.parametrize("long_window", CONTEXTS)
@torch.no_grad()
def test_no_sample_beyond_the_declared_context_reaches_a_frame(long_window):
    torch.manual_seed(0)
    encoder = SpectralEncoder(**SIZES, context_window_length=long_window).double()
    decoder = SpectralDecoder(**SIZES).double()
    frame = 30
    wav, context = torch.randn(1, 1, 61 * 320), encoder.context_frames
    near, far = wav.clone(), wav.clone()
    far[..., : (frame - context) * 320] = 0
    far[..., (frame + context + 1) * 320 :] = 0
    near[..., (frame + context) * 320 :] = 0
    whole = encoder(wav)[..., frame]
    torch.testing.assert_close(encoder(far)[..., frame], whole, atol=1e-12, rtol=0)
    assert float((encoder(near)[..., frame] - whole).abs().max()) > 1e-9
    latent, context = torch.randn(1, 6, 61, dtype=torch.float64), decoder.context_frames
    far = latent.clone()
    far[..., : frame - context] = 0
    far[..., frame + context + 1 :] = 0
    span = slice(frame * 320, (frame + 1) * 320)
    torch.testing.assert_close(decoder(far)[..., span], decoder(latent)[..., span], atol=1e-12, rtol=0)
