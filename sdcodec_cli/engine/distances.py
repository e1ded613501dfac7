"""Distances between signals, with gradients, by which training and analysis by synthesis go.

Legend: B batch, T samples, M mel bands.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence

import torch
import torchaudio
from torch import Tensor

MEL_SCALES = ((32, 5), (64, 10), (128, 20), (256, 40), (512, 80), (1024, 160), (2048, 320))
"""Window length in samples and mel bands of each scale (DAC, arXiv:2306.06546); the hop is a quarter of the window."""

FLOOR = 1e-5
"""Magnitude below which a mel band counts as silent."""


@functools.lru_cache
@torch.inference_mode(False)
def mel_bank(window_length: int, bands: int, sample_rate: int) -> Tensor:
    """Slaney-normalized triangles, `[window_length / 2 + 1, bands]`, as librosa and audiotools make them."""
    with warnings.catch_warnings():
        # At small windows the lowest triangles fall between two bins and stay empty; the published loss has them too.
        warnings.simplefilter("ignore")
        bank: Tensor = torchaudio.functional.melscale_fbanks(
            window_length // 2 + 1, 0.0, sample_rate / 2, bands, sample_rate, norm="slaney", mel_scale="slaney"
        )
    return bank.to(torch.float32)


def mel_distance(
    estimate: Tensor, target: Tensor, *, sample_rate: int, scales: Sequence[tuple[int, int]] = MEL_SCALES
) -> Tensor:
    """Mean absolute difference of log10 mel magnitudes, summed over scales, of each row: two `[B, T]` to `[B]`.

    Fewer scales than `MEL_SCALES` are scaled up to the sum of all, of which they are then a sample.
    """
    total = estimate.new_zeros(len(estimate))
    for window_length, bands in scales:
        with torch.no_grad():
            wanted = _log_mel(target, window_length, bands, sample_rate)
        total = total + (_log_mel(estimate, window_length, bands, sample_rate) - wanted).abs().mean((1, 2))
    return total * (len(MEL_SCALES) / len(scales))


def _log_mel(wav: Tensor, window_length: int, bands: int, sample_rate: int) -> Tensor:
    """`[B, T]` to `[B, frames, M]`."""
    window = torch.hann_window(window_length, dtype=wav.dtype, device=wav.device)
    spectrum = torch.stft(wav, window_length, window_length // 4, window=window, return_complex=True)
    # The tiny offset keeps the gradient of the root finite at exact zeros.
    magnitude = (torch.view_as_real(spectrum).square().sum(-1) + 1e-14).sqrt()
    bank = mel_bank(window_length, bands, sample_rate).to(wav.device)
    return (magnitude.transpose(1, 2) @ bank).clamp_min(FLOOR).log10()


def negative_snr(estimate: Tensor, target: Tensor, *, ceiling: float = 30.0) -> Tensor:
    """Negative signal-to-noise ratio in dB of each row, softly limited at `ceiling`: two `[B, T]` to `[B]`.

    Unlike SI-SDR it also asks for the right level.
    """
    return decibels((estimate - target).square().sum(-1), target.square().sum(-1), -ceiling)


def decibels(energy: Tensor, reference: Tensor, floor: float) -> Tensor:
    """A ratio of energies in dB, softly limited from below."""
    return 10 * torch.log10(energy / (reference + 1e-6) + 10 ** (floor / 10))
