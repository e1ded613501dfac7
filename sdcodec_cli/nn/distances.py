"""Distances between signals, with gradients, by which training and analysis by synthesis go.

Legend: B batch, T samples, W window length, F frames, K = W / 2 + 1 bins, M mel bands.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..audio import mel
from ..audio.bands import HIGHEST, LOWEST, NUM_LEVELS, band_bank, erb_edges
from .fourier import cut_frames, rfft
from .tracing import is_for_graph

MEL_SCALES = ((32, 5), (64, 10), (128, 20), (256, 40), (512, 80), (1024, 160), (2048, 320))
"""Window length in samples and mel bands of each scale (DAC, arXiv:2306.06546); the hop is a quarter of the window."""

LEVEL_WINDOW, BAND_WINDOW = 1280, 640
"""Window lengths in samples of levels of bands, and of signal-to-noise ratios in them."""

LEVEL_FLOOR = 1e-9
"""Power of a sample of noise below which nothing is heard."""


@functools.lru_cache
@torch.inference_mode(False)
def mel_bank(window_length: int, bands: int, sample_rate: int, lowest: float = 0.0) -> Tensor:
    """`audio.mel.mel_bank` as a tensor, of the bands that peak above a frequency in Hz; of the last one always."""
    peaks = mel.mel_edges(bands, sample_rate)[1:-1]
    bank = mel.mel_bank(window_length, bands, sample_rate)
    return torch.from_numpy(bank[:, peaks >= min(lowest, peaks[-1])])


def mel_distance(
    estimate: Tensor,
    target: Tensor,
    *,
    sample_rate: int,
    scales: Sequence[tuple[int, int]] = MEL_SCALES,
    lowest: float = 0.0,
) -> Tensor:
    """Mean absolute difference of log10 mel magnitudes, summed over scales, of each row: two `[B, T]` to `[B]`.

    Fewer scales than `MEL_SCALES` are scaled up to the sum of all, of which they are then a sample. Bands that peak
    below `lowest`, in Hz, do not count.
    """
    total = estimate.new_zeros(len(estimate))
    for window_length, bands in scales:
        bank = mel_bank(window_length, bands, sample_rate, lowest).to(estimate.device)
        with torch.no_grad():
            wanted = log_mel(target, bank)
        total = total + (log_mel(estimate, bank) - wanted).abs().mean((1, 2))
    return total * (len(MEL_SCALES) / len(scales))


def log_mel(wav: Tensor, bank: Tensor) -> Tensor:
    """Log10 of mel magnitudes: `[B, T]` and a `mel_bank` to `[B, F, M]`."""
    window_length = 2 * (len(bank) - 1)
    # The tiny offset keeps the gradient of the root finite at exact zeros.
    magnitude = magnitudes(wav, window_length, window_length // 4, offset=1e-14)
    return (magnitude @ bank).clamp_min(mel.FLOOR).log10()


def spectrum(wav: Tensor, window_length: int, hop_length: int) -> Tensor:
    """What `torch.stft` makes with a Hann window, frame by frame: `[B, T]` to complex `[B, F, K]`."""
    window = _hann(window_length, wav.dtype, wav.device)
    return _transformed(_reflected(wav, window_length), window, hop_length)


def power(spectrum: Tensor) -> Tensor:
    """Squared magnitudes of a complex tensor."""
    return torch.addcmul(spectrum.real.square(), spectrum.imag, spectrum.imag)


def magnitudes(wav: Tensor, window_length: int, hop_length: int, *, offset: float) -> Tensor:
    """The root of a spectrum's squared magnitudes plus `offset`, for gradients: `[B, T]` to `[B, F, K]`.

    The hop divides the window, which is even.
    """
    window = _hann(window_length, wav.dtype, wav.device)
    if is_for_graph():
        real, imag = rfft(cut_frames(_reflected(wav, window_length), window_length, hop_length) * window)
        # The exporter leaves out adding a constant below 1e-8; the gradient of a root of zero is no number.
        return (real.square() + imag.square()).clamp_min(offset).sqrt()
    magnitude: Tensor = _Magnitudes.apply(_reflected(wav, window_length), window, hop_length, offset)
    return magnitude


@functools.lru_cache
@torch.inference_mode(False)
def _hann(length: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.hann_window(length, dtype=dtype, device=device)


def _reflected(wav: Tensor, window_length: int) -> Tensor:
    margin = window_length // 2
    if is_for_graph():  # the gradient of the padding is no operation that graphs have
        return torch.cat([wav[:, 1 : margin + 1].flip(1), wav, wav[:, -margin - 1 : -1].flip(1)], dim=1)
    return F.pad(wav[:, None], (margin, margin), mode="reflect")[:, 0]


def _transformed(wav: Tensor, window: Tensor, hop_length: int) -> Tensor:
    transformed: Tensor = torch.fft.rfft(wav.unfold(-1, len(window), hop_length) * window)
    return transformed


class _Magnitudes(torch.autograd.Function):
    """`magnitudes` with a way back through a real transform.

    torch's own goes through a complex one of twice the size, which on a CPU takes seven times as long.
    """

    @staticmethod
    def forward(ctx: Any, wav: Tensor, window: Tensor, hop_length: int, offset: float) -> Tensor:
        spectrum = _transformed(wav, window, hop_length)
        magnitude = power(spectrum).add_(offset).sqrt_()
        ctx.save_for_backward(spectrum, magnitude, window)
        ctx.hop_length, ctx.length = hop_length, wav.shape[-1]
        return magnitude

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        spectrum, magnitude, window = ctx.saved_tensors
        share = gradient / magnitude
        # The inverse transform counts every bin twice, as itself and as its mirror image, but the first and the last.
        share[..., 1:-1] *= 0.5
        frames = torch.fft.irfft(spectrum * share, n=len(window), norm="forward") * window
        hops = frames.unflatten(-1, (-1, ctx.hop_length))
        num_frames, overlap = hops.shape[1:3]
        added = hops.new_zeros(len(hops), num_frames + overlap - 1, ctx.hop_length)
        for shift in range(overlap):
            added[:, shift : shift + num_frames] += hops[:, :, shift]
        # What is left of the signal after the last frame has no part in it.
        wav = F.pad(added.flatten(1), (0, ctx.length - added[0].numel()))
        return wav, None, None, None


def level_distance(estimate: Tensor, target: Tensor, *, sample_rate: int) -> Tensor:
    """Mean absolute difference in dB of levels of bands as wide as the ear's, of each row: two `[B, T]` to `[B]`."""
    bank = erb_bank(LEVEL_WINDOW, sample_rate).to(estimate.device)
    with torch.no_grad():
        wanted = _levels(target, bank)
    return (_levels(estimate, bank) - wanted).abs().mean((1, 2))


def _levels(wav: Tensor, bank: Tensor) -> Tensor:
    """In dB of bands: `[B, T]` to `[B, F, bands]`."""
    window_length = 2 * (len(bank) - 1)
    power = magnitudes(wav, window_length, window_length // 4, offset=1e-14).square()
    return 10 * torch.log10(power @ bank + LEVEL_FLOOR * window_length)


def band_negative_snr(estimate: Tensor, target: Tensor, *, sample_rate: int, ceiling: float = 30.0) -> Tensor:
    """`negative_snr` in each band by itself, averaged over bands that are not silent: two `[B, T]` to `[B]`."""
    window_length = BAND_WINDOW
    bank = erb_bank(window_length, sample_rate).to(estimate.device)
    power = [
        magnitudes(wav, window_length, window_length // 2, offset=1e-14).square() for wav in (estimate - target, target)
    ]
    error, reference = ((each @ bank).mean(1) for each in power)
    heard = (reference > LEVEL_FLOOR * window_length).float()
    return (decibels(error, reference, -ceiling) * heard).sum(1) / heard.sum(1).clamp_min(1)


@functools.lru_cache
@torch.inference_mode(False)
def erb_bank(window_length: int, sample_rate: int) -> Tensor:
    """Means over 21 bands from 50 Hz to half of the rate, at most 8 kHz: `[K, 21]`."""
    edges = erb_edges(NUM_LEVELS, LOWEST, min(HIGHEST, sample_rate / 2))
    return torch.from_numpy(band_bank(edges, window_length, sample_rate))


def negative_snr(estimate: Tensor, target: Tensor, *, ceiling: float = 30.0) -> Tensor:
    """Negative signal-to-noise ratio in dB of each row, softly limited at `ceiling`: two `[B, T]` to `[B]`.

    Unlike SI-SDR it also asks for the right level.
    """
    return decibels((estimate - target).square().sum(-1), target.square().sum(-1), -ceiling)


def decibels(energy: Tensor, reference: Tensor, floor: float) -> Tensor:
    """A ratio of energies in dB, softly limited from below."""
    return 10 * torch.log10(energy / (reference + 1e-6) + 10 ** (floor / 10))
