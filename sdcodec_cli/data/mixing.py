"""Mixtures of stems on loudness targets, as the paper trains on them.

Every example is a pure function of (seed, index), so that any number of processes draw the same sequence, and a
resumed run continues it.

Legend: N domains, T samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..audio import integrated_loudness
from ..recipe import MixingFields
from .pool import Clips, Pool

TRIES = 20
"""Crops that are drawn before a domain is taken to have nothing but silence."""


@dataclass(frozen=True)
class Example:
    """A mixture and what it is made of."""

    stems: NDArray[np.float32]
    """`[N, T]`; an absent domain is all zeros. The mixture is their sum."""
    present: NDArray[np.bool_]
    """`[N]`."""


def draw(pool: Pool, fields: MixingFields, *, seed: int, index: int) -> Example:
    """Example number `index` of the sequence that `seed` stands for."""
    rng = np.random.default_rng([seed, index])
    domains = list(pool.clips)
    tracks = 1 + int(rng.choice(len(fields.track_probabilities), p=fields.track_probabilities))
    chosen = rng.permutation(len(domains))[:tracks]
    length = round(fields.seconds * pool.sample_rate)
    stems = np.zeros((len(domains), length), dtype=np.float32)
    present = np.zeros(len(domains), dtype=bool)
    for domain in sorted(chosen):
        target = fields.loudness[domain] + rng.uniform(-1, 1) * fields.loudness_range
        for _ in range(TRIES):
            crop = _crop(pool.clips[domains[domain]], length, rng)
            level = integrated_loudness(crop[None], pool.sample_rate)
            if level > -math.inf:
                stems[domain] = leveled(crop, target - level, fields.peak)
                present[domain] = True
                break
    level = integrated_loudness(stems.sum(0)[None], pool.sample_rate)
    if level > -math.inf:
        target = fields.mix_loudness + rng.uniform(-1, 1) * fields.loudness_range
        if rng.random() < fields.quiet_probability:
            target -= rng.uniform(0, fields.quiet_range)
        stems *= np.float32(10 ** ((target - level) / 20))
    return Example(stems, present)


def leveled(stem: NDArray[np.float32], gain_db: float, peak: float) -> NDArray[np.float32]:
    """A stem with a gain, and then with less of it if its peak would exceed `peak` dBFS."""
    louder = stem * np.float32(10 ** (gain_db / 20))
    return louder * np.float32(min(1.0, 10 ** (peak / 20) / float(np.abs(louder).max())))


def _crop(clips: Clips, length: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """A stretch of one clip; every second of the pool is equally likely, and short clips are placed in silence."""
    clip = int(np.searchsorted(clips.starts, rng.integers(clips.starts[-1]), side="right")) - 1
    start, stop = int(clips.starts[clip]), int(clips.starts[clip + 1])
    crop = np.zeros(length, dtype=np.float32)
    if stop - start >= length:
        first = int(rng.integers(start, stop - length + 1))
        crop[:] = clips.samples[first : first + length]
    else:
        offset = int(rng.integers(length - (stop - start) + 1))
        crop[offset : offset + stop - start] = clips.samples[start:stop]
    return crop / np.float32(32768)
