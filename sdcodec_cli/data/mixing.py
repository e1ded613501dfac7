"""Mixtures of stems on loudness targets, as the paper trains on them.

Every example is a pure function of (seed, index), so that any number of processes draw the same sequence, and a
resumed run continues it. Processes that read files draw the crops (`draw`); the device that trains levels and adds them
(`mix`), a batch at a time.

Legend: B batch, N domains, T samples, F frames, R rows, H numbers that a teacher says of a frame.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..audio import LUFS_OFFSET, Wav, db_to_amplitude, db_to_power, k_weighting
from ..errors import InputError
from ..recipe import AugmentationFields, MixingFields
from .augment import augment, change_speed, gain_db, layer, pause, speed_factor
from .manifest import ACTIVE
from .pool import TRIES, Clips, Pool, clip_length
from .targets import Rows, Targets

LAYERS = 2
"""Number of the first generator for second layers, of which each domain has one; 0 and 1 are taken, see `batches`."""

PAUSES, RATIO = 2**16, 2**17
"""The same for pauses, and of the generator for the ratio of the first domain to the others."""

SHORT = 0.4
"""Seconds that a loudness measurement needs; shorter clips are used, in silence, and counted."""


@dataclass(frozen=True)
class Trouble:
    """How often a draw could not be used as it was."""

    silent: int = 0
    """Crops of silence, drawn again."""
    short: int = 0
    """Clips shorter than 0.4 s, placed in silence."""
    broken: int = 0
    """Files that could not be read, others drawn instead."""

    def __add__(self, other: Trouble) -> Trouble:
        return Trouble(self.silent + other.silent, self.short + other.short, self.broken + other.broken)


@dataclass(frozen=True)
class Example:
    """The crops of a mixture, and the loudness that they should get."""

    crops: Wav
    """`[N, T]`, as in the files; zeros for domains that are not in the example."""
    active: NDArray[np.bool_]
    """Which domains are in the example, `[N]`."""
    targets: NDArray[np.float32]
    """Loudness of each domain before mixing, in LUFS: `[N]`."""
    mix_target: float
    """Loudness of the mixture, in LUFS."""
    trouble: Trouble
    problem: str | None
    """Why a domain that was drawn is missing."""
    guide: Rows | None
    """What a teacher says of the crop of its domain, `[F, H]`, zeros where it says nothing; None without one."""


def draw(
    pool: Pool,
    fields: MixingFields,
    *,
    seed: int,
    index: int,
    augmentation: AugmentationFields | None = None,
) -> Example:
    """Example number `index` of the sequence of a seed."""
    rng = np.random.default_rng([seed, index])
    augmentation = augmentation or AugmentationFields()
    domains = list(pool.clips)
    chosen = _chosen(len(domains), fields, rng)
    crops = np.zeros((len(domains), round(fields.seconds * pool.sample_rate)), dtype=np.float32)
    active = np.zeros(len(domains), dtype=bool)
    targets = np.zeros(len(domains), dtype=np.float32)
    trouble, problem = Trouble(), None
    # Nothing is said of an example without speech.
    guide = next((each.nothing(crops.shape[1]) for each in pool.targets.values()), None)
    for domain in sorted(chosen):
        targets[domain] = fields.loudness[domain] + rng.uniform(-1, 1) * fields.loudness_range
        targets[domain] += gain_db(augmentation, rng)
        crop, place, met, problem_here = _active_crop(pool, domains[domain], crops.shape[1], augmentation, rng)
        trouble, problem = trouble + met, problem_here or problem
        if place and domains[domain] in pool.targets:
            guide = place.asked(pool.targets[domains[domain]], crops.shape[1])
        if crop is not None and augmentation.layering:
            # A generator of its own, so that everything else is drawn as it is without layers.
            own = np.random.default_rng([seed, index, LAYERS + domain])
            if own.random() < augmentation.layering[domain]:
                other, _, met, _ = _active_crop(pool, domains[domain], crops.shape[1], augmentation, own)
                trouble += met
                crop = crop if other is None else layer(crop, other, own)
                if guide is not None and domains[domain] in pool.targets:
                    guide[:] = 0  # two voices at once are nobody's
        if crop is not None and augmentation.pauses:
            own = np.random.default_rng([seed, index, PAUSES + domain])
            if own.random() < augmentation.pauses:
                crop = pause(crop, pool.sample_rate, own)
        if crop is not None:
            crops[domain], active[domain] = crop, True
    if fields.snr_range and active[0] and active[1:].any():
        ratio = np.random.default_rng([seed, index, RATIO]).uniform(fields.snr_range[0], fields.snr_range[1])
        others = 10 * math.log10(np.power(10.0, targets[1:][active[1:]] / 10).sum())
        targets[1:] += targets[0] - ratio - others
    mix_target = fields.mix_loudness + rng.uniform(-1, 1) * fields.loudness_range
    if rng.random() < fields.quiet_probability:
        mix_target -= rng.uniform(0, fields.quiet_range)
    return Example(crops, active, targets, mix_target, trouble, problem, guide)


def _chosen(count: int, fields: MixingFields, rng: np.random.Generator) -> NDArray[np.int64]:
    """Which of so many domains an example has."""
    if fields.domain_probabilities:
        probabilities = np.array(fields.domain_probabilities)
        chosen = np.flatnonzero(rng.random(count) < probabilities)
        return chosen if len(chosen) else np.array([probabilities.argmax()])
    # The recipe's may be rounded more than numpy accepts.
    tracks = np.array(fields.track_probabilities) / sum(fields.track_probabilities)
    return rng.permutation(count)[: 1 + int(rng.choice(len(tracks), p=tracks))]


def _active_crop(
    pool: Pool, domain: str, length: int, augmentation: AugmentationFields, rng: np.random.Generator
) -> tuple[Wav | None, _Place | None, Trouble, str | None]:
    """A crop `[T]` that is active somewhere and its place, or None; what was met on the way; and why there is none."""
    trouble = Trouble()
    problem = f"{domain}: {TRIES} draws in a row were silent; check its audio files"
    for _ in range(TRIES):
        factor = speed_factor(augmentation, rng)
        try:
            crop, place, short = _crop(pool, domain, round(length * factor), rng)
        except InputError as error:
            trouble, problem = trouble + Trouble(broken=1), str(error)
            continue
        trouble += Trouble(short=int(short))
        if factor != 1.0:
            crop = change_speed(crop, length)
        crop = augment(crop, pool.sample_rate, augmentation, rng)
        if _is_active(crop, pool.sample_rate):
            return crop, place, trouble, None
        trouble += Trouble(silent=1)
    return None, None, trouble, problem


@dataclass(frozen=True)
class _Place:
    """Where a crop is from."""

    clip: int
    start: int
    """In samples; below 0 if silence was put before the clip."""
    length: int
    """In samples of the clip; of the crop they are more or fewer where its speed was changed."""

    def asked(self, targets: Targets, length: int) -> Rows:
        """What a teacher says of it, `[F, H]`, once it is `length` samples long."""
        return targets.at(self.clip, self.start, self.length / length, targets.num_frames(length))


def _crop(pool: Pool, domain: str, length: int, rng: np.random.Generator) -> tuple[Wav, _Place, bool]:
    """A stretch of one clip; every second of the pool is equally likely, and short clips are placed in silence."""
    clips: Clips = pool.clips[domain]
    clip = int(np.searchsorted(clips.ends, rng.integers(clips.ends[-1]), side="right"))
    available = clip_length(clips, clip)
    if available >= length:
        start = int(rng.integers(available - length + 1))
        return clips.read(clip, start, length), _Place(clip, start, length), False
    crop = np.zeros(length, dtype=np.float32)
    offset = int(rng.integers(length - available + 1))
    crop[offset : offset + available] = clips.read(clip, 0, available)
    return crop, _Place(clip, -offset, length), available < SHORT * pool.sample_rate


def _is_active(crop: Wav, sample_rate: int) -> bool:
    step = sample_rate // 10
    blocks = crop[: len(crop) // step * step].reshape(-1, step).astype(np.float64)
    return bool((blocks.var(axis=1) > ACTIVE).any())


@torch.no_grad()
def mix(
    crops: Tensor, active: Tensor, targets: Tensor, mix_targets: Tensor, *, sample_rate: int, peak: float
) -> Tensor:
    """Bring each crop to its loudness target, then all of an example together, for that of the mixture.

    Args:
        crops: `[B, N, T]`
        active: which domains are in each example, bool `[B, N]`; the others come out as zeros
        targets: LUFS, `[B, N]`
        mix_targets: LUFS, `[B]`
        sample_rate: in Hz
        peak: dBFS that no stem exceeds before mixing

    Returns:
        stems `[B, N, T]`, whose sum is the mixture
    """
    rows = crops.flatten(0, 1)
    gain = _gain(targets.flatten() - loudness(rows, sample_rate))
    ceiling = db_to_amplitude(peak) / rows.abs().amax(-1).clamp_min(1e-9)
    gain = torch.minimum(gain, ceiling).view_as(active) * active
    stems = crops * gain[..., None]
    return stems * _gain(mix_targets - loudness(stems.sum(1), sample_rate))[:, None, None]


def _gain(decibels: Tensor) -> Tensor:
    return torch.pow(10.0, decibels / 20)


def loudness(wav: Tensor, sample_rate: int) -> Tensor:
    """Integrated loudness after ITU-R BS.1770-4 of short signals of equal length: `[R, T]` to LUFS `[R]`.

    As `audio.LoudnessMeter`, for a batch and on any device; nothing is below −70, the gate. Signals shorter than 0.4 s
    count as if silence followed.
    """
    step = sample_rate // 10
    length = max(wav.shape[-1] // step, 4) * step
    # Zeros keep the end of the filter's response from wrapping around to the beginning.
    points = length + step
    spectrum = torch.fft.rfft(wav[..., :length].float(), n=points) * _k_response(sample_rate, points).to(wav.device)
    weighted = torch.fft.irfft(spectrum, n=points)[..., :length]
    power = weighted.square().unflatten(-1, (-1, step)).mean(-1).unfold(-1, 4, 1).mean(-1)
    gate = db_to_power(-70 - LUFS_OFFSET)
    ungated = _mean_above(power, torch.full_like(power[:, :1], gate))
    gated = _mean_above(power, (0.1 * ungated).clamp_min(gate)[:, None])
    return (LUFS_OFFSET + 10 * gated.clamp_min(gate).log10()).clamp_min(-70)


def _mean_above(power: Tensor, threshold: Tensor) -> Tensor:
    kept = power >= threshold
    return (power * kept).sum(-1) / kept.sum(-1).clamp_min(1)


@functools.lru_cache(maxsize=8)
def _k_response(sample_rate: int, points: int) -> Tensor:
    """Response of the K-weighting at the frequencies of an FFT, complex `[points / 2 + 1]`."""
    delay = np.exp(-2j * math.pi * np.arange(points // 2 + 1) / points)
    powers = np.stack([np.ones_like(delay), delay, delay**2])
    response = np.ones_like(delay)
    for section in k_weighting(sample_rate):
        response *= (section[:3] @ powers) / (section[3:] @ powers)
    return torch.from_numpy(response.astype(np.complex64))
