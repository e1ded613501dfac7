"""The terms of the training objective.

Legend: B batch, T samples, M mel bands, N domains, F frames.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence

import torch
import torch.nn.functional as F
import torchaudio
from torch import Tensor

from ..masks import HOP_LENGTH, WINDOW_LENGTH

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
    return bank


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
    window = torch.hann_window(window_length, device=wav.device)
    spectrum = torch.stft(wav, window_length, window_length // 4, window=window, return_complex=True)
    # The tiny offset keeps the gradient of the root finite at exact zeros.
    magnitude = (torch.view_as_real(spectrum).square().sum(-1) + 1e-14).sqrt()
    bank = mel_bank(window_length, bands, sample_rate).to(wav.device)
    return (magnitude.transpose(1, 2) @ bank).clamp_min(FLOOR).log10()


def negative_snr(estimate: Tensor, target: Tensor, *, ceiling: float = 30.0) -> Tensor:
    """Negative signal-to-noise ratio in dB of each row, softly limited at `ceiling`: two `[B, T]` to `[B]`.

    Unlike SI-SDR it also asks for the right level.
    """
    return _decibels((estimate - target).square().sum(-1), target.square().sum(-1), -ceiling)


def masked_negative_snr(
    estimates: Tensor, stems: Tensor, examples: Tensor, count: int, *, ceiling: float = 30.0
) -> Tensor:
    """`negative_snr` of what ratio masks, made of decoded stems, take out of the mixture.

    The masks are those of `engine.masks`; the ratio is taken between spectra, before the overlap-add, which would
    take away another few tenths of a dB of the noise. A stem that is alone in its mixture gets all of it.

    Args:
        estimates: decoded stems, `[S, T]`
        stems: what they should be, `[S, T]`
        examples: int64 `[S]`, of which mixture each is; stems of the same number add up to one
        count: how many mixtures there are

    Returns:
        `[S]`
    """
    window = torch.hann_window(WINDOW_LENGTH, device=stems.device)

    def spectrum(wav: Tensor) -> Tensor:
        return torch.stft(wav, WINDOW_LENGTH, HOP_LENGTH, window=window, return_complex=True)

    def add_up(rows: Tensor) -> Tensor:
        total = rows.new_zeros(count, *rows.shape[1:]).index_add(0, examples, rows)
        return total.index_select(0, examples)

    magnitude = (torch.view_as_real(spectrum(estimates)).square().sum(-1) + 1e-8).sqrt()
    wanted = spectrum(stems)
    noise = (magnitude / add_up(magnitude)) * add_up(wanted) - wanted
    noise_energy, energy = (torch.view_as_real(part).square().sum((1, 2, 3)) for part in (noise, wanted))
    return _decibels(noise_energy, energy, -ceiling)


def leakage(estimate: Tensor, mixture: Tensor, *, floor: float = -30.0) -> Tensor:
    """Level in dB of what an absent domain puts out, relative to the mixture: two `[B, T]` to `[B]`.

    The loss for silent targets, softly limited at `floor` (as in "What's all the fuss about free universal sound
    separation data?", arXiv:2011.00803).
    """
    return _decibels(estimate.square().sum(-1), mixture.square().sum(-1), floor)


def _decibels(energy: Tensor, reference: Tensor, floor: float) -> Tensor:
    """A ratio of energies in dB, softly limited from below."""
    return 10 * torch.log10(energy / (reference + 1e-6) + 10 ** (floor / 10))


def activity_targets(stems: Tensor, hop_length: int) -> Tensor:
    """Which domains can be heard: stems `[B, N, T]` to 0 or 1 in `[B, N, F]`.

    A domain counts as present up to ten frames before and after `heard_frames`.
    """
    return F.max_pool1d(heard_frames(stems, hop_length).float(), kernel_size=21, stride=1, padding=10)


def heard_frames(stems: Tensor, hop_length: int) -> Tensor:
    """In which frames each domain can be heard: stems `[B, N, T]` to bool `[B, N, F]`.

    That is where it is above −60 dBFS and within 40 dB of the mixture.
    """
    energy = stems.unfold(-1, hop_length, hop_length).square().mean(-1)
    mixture = stems.sum(1, keepdim=True).unfold(-1, hop_length, hop_length).square().mean(-1)
    return (energy > 1e-6) & (energy > 1e-4 * mixture)
