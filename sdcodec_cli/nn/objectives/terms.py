"""The terms of the training objective that are not distances between signals in general (`nn.distances`).

Legend: B batch, T samples, N domains, F frames, H numbers that a teacher says of a frame.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ...audio.activity import ABOVE_LEVEL, LEVEL, active_frames
from ...audio.masks import HOP_LENGTH, WINDOW_LENGTH
from ..distances import MEL_SCALES, decibels, magnitudes, power, spectrum


def masked_negative_snr(
    estimates: Tensor, stems: Tensor, examples: Tensor, count: int, *, ceiling: float = 30.0
) -> Tensor:
    """`negative_snr` of what ratio masks, made of decoded stems, take out of the mixture.

    The masks are those of `audio.masks`; the ratio is taken between spectra, before the overlap-add, which would
    take away another few tenths of a dB of the noise. A stem that is alone in its mixture gets all of it.

    Args:
        estimates: decoded stems, `[S, T]`
        stems: what they should be, `[S, T]`
        examples: int64 `[S]`, of which mixture each is; stems of the same number add up to one
        count: how many mixtures there are

    Returns:
        `[S]`
    """
    with torch.no_grad():
        wanted = spectrum(stems, WINDOW_LENGTH, HOP_LENGTH)
        mixture = wanted.new_zeros(count, *wanted.shape[1:]).index_add(0, examples, wanted).index_select(0, examples)
        energy = power(wanted)
        mixture_energy, product = power(mixture), (mixture * wanted.conj()).real
    magnitude = magnitudes(estimates, WINDOW_LENGTH, HOP_LENGTH, offset=1e-8)
    total = magnitude.new_zeros(count, *magnitude.shape[1:]).index_add(0, examples, magnitude)
    mask = magnitude / total.index_select(0, examples)
    # |mask * mixture - wanted|², multiplied out: nothing complex is left on the way back.
    noise_energy = (energy + mask * (mask * mixture_energy - 2 * product)).sum((1, 2))
    return decibels(noise_energy, energy.sum((1, 2)), -ceiling)


def leakage(estimate: Tensor, mixture: Tensor, *, floor: float = -30.0) -> Tensor:
    """Level in dB of what a domain that is not active puts out, relative to the mixture: two `[B, T]` to `[B]`.

    The loss for silent targets, softly limited at `floor` (as in "What's all the fuss about free universal sound
    separation data?", arXiv:2011.00803).
    """
    return decibels(estimate.square().sum(-1), mixture.square().sum(-1), floor)


def activity_targets(stems: Tensor, hop_length: int, *, level: float = LEVEL) -> Tensor:
    """Targets of the activity head: stems `[B, N, T]` to 0 or 1 in `[B, N, F]`.

    A domain counts as active up to ten frames before and after those of `frame_activity`.
    """
    return F.max_pool1d(frame_activity(stems, hop_length, level=level).float(), kernel_size=21, stride=1, padding=10)


def has_anything(wavs: Tensor) -> Tensor:
    """Which signals that have only what is above a band have anything: `[..., T]` to bool `[...]`."""
    return wavs.square().mean(-1) > 10 ** (ABOVE_LEVEL / 10)


def frame_activity(stems: Tensor, hop_length: int, *, level: float = LEVEL) -> Tensor:
    """In which frames each domain is active, by `active_frames`: stems `[B, N, T]` to bool `[B, N, F]`.

    Zeros are added to make the last frame whole.
    """
    stems = F.pad(stems, (0, -stems.shape[-1] % hop_length))
    return active_frames(stems.unfold(-1, hop_length, hop_length), level=level)


def teaching(told: Tensor, guide: Tensor, active: Tensor, *, probabilities: bool) -> Tensor:
    """How far what a codebook tells is from what a teacher says: two `[B, F, H]` to `[B]`.

    Of vectors it is `-log sigmoid` of the cosine between the two (DeCodec, arXiv:2509.09201), of probabilities their
    Kullback-Leibler divergence from those that are told as logits, in nats. Averaged over the frames that count: those
    that are `active`, bool `[B, F]`, and of which the teacher says something, which zeros are not.
    """
    counts, guide = active & guide.any(-1), guide.to(told.dtype)
    if probabilities:
        distance = F.kl_div(told.log_softmax(-1), guide, reduction="none").sum(-1)
    else:
        distance = F.softplus(-F.cosine_similarity(told, guide, dim=-1))
    return (distance * counts).sum(1) / counts.sum(1).clamp_min(1)


def draw(probability: float, *, seed: int, step: int) -> bool:
    """Whether something that happens so often happens in a step, the same in all processes."""
    generator = torch.Generator().manual_seed(seed * 2**32 + step + 2**31)
    return bool(torch.rand((), generator=generator) < probability)


def draw_scales(count: int, *, seed: int, step: int) -> list[tuple[int, int]]:
    """Mel scales of a step, the same in all processes."""
    generator = torch.Generator().manual_seed(seed * 2**32 + step)
    order = torch.randperm(len(MEL_SCALES), generator=generator).tolist()
    return [MEL_SCALES[i] for i in sorted(order[:count])]
