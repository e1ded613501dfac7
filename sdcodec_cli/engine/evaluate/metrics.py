"""Measures of how close audio is to a reference.

Legend: B batch, T samples, F frames.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...nn.distances import FLOOR, mel_bank

EPS = 1e-8

DAC_SCALES = ((2048, 150), (512, 80))
"""Window length in samples and mel bands of each scale that DAC is evaluated at; the hop is a quarter of the window."""


def si_sdr(estimate: Tensor, reference: Tensor) -> Tensor:
    """Scale-invariant signal-to-distortion ratio in dB, computed in float64: two `[..., T]` to `[...]`.

    Zero-mean, with the three offsets of 1e-8 of SD-Codec's published evaluation (arXiv:1811.02508 defines the measure).
    A silent reference gives −80; callers leave such clips out of averages.
    """
    estimate, reference = estimate.double(), reference.double()
    estimate = estimate - estimate.mean(-1, keepdim=True)
    reference = reference - reference.mean(-1, keepdim=True)
    scale = (estimate * reference).sum(-1, keepdim=True) / (reference.square().sum(-1, keepdim=True) + EPS)
    target = scale * reference
    noise = estimate - target
    return 10 * torch.log10(target.square().sum(-1) / (noise.square().sum(-1) + EPS) + EPS)


def mel_distance_dac(estimate: Tensor, reference: Tensor, sample_rate: int) -> Tensor:
    """Mel distance as DAC is evaluated with (arXiv:2306.06546), in float32: two `[..., T]` to `[...]`; 0 is best.

    Not the training objective's: two scales, and beside the logarithms of the squared magnitudes also the magnitudes.
    DAC's numbers are for audio resampled to 44.1 kHz; at another rate the same bands are spread up to half of that.
    T has to be above 1024.
    """
    total = torch.zeros((), device=estimate.device)
    for window_length, bands in DAC_SCALES:
        bank = mel_bank(window_length, bands, sample_rate).to(estimate.device)
        total = total + _distance(
            _magnitudes(estimate, window_length) @ bank, _magnitudes(reference, window_length) @ bank
        )
    return total.reshape(estimate.shape[:-1])


def stft_distance(estimate: Tensor, reference: Tensor) -> Tensor:
    """As `mel_distance_dac`, of the spectra themselves: two `[..., T]` to `[...]`."""
    total = torch.zeros((), device=estimate.device)
    for window_length, _ in DAC_SCALES:
        total = total + _distance(_magnitudes(estimate, window_length), _magnitudes(reference, window_length))
    return total.reshape(estimate.shape[:-1])


def _magnitudes(wav: Tensor, window_length: int) -> Tensor:
    """`[..., T]` to `[B, F, window_length / 2 + 1]`."""
    wav = wav.float().reshape(-1, wav.shape[-1])
    window = torch.hann_window(window_length, device=wav.device)
    spectrum = torch.stft(wav, window_length, window_length // 4, window=window, return_complex=True)
    return spectrum.abs().transpose(1, 2)


def _distance(estimate: Tensor, reference: Tensor) -> Tensor:
    """Of magnitudes, two `[B, F, bands]` to `[B]`."""
    logs = [2 * wav.clamp_min(FLOOR).log10() for wav in (estimate, reference)]
    return (logs[0] - logs[1]).abs().mean((1, 2)) + (estimate - reference).abs().mean((1, 2))
