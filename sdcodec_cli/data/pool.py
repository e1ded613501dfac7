"""All the audio of a data root in memory, one long array per domain: for corpora of some hours.

The layout is `ROOT/<domain>/**`, any format that `audio.AudioReader` reads.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..audio import READ_SUFFIXES, read_mono
from ..errors import InputError


@dataclass(frozen=True)
class Clips:
    """The clips of one domain, end to end."""

    samples: NDArray[np.int16]
    """`[T]`, at the pool's rate."""
    starts: NDArray[np.int64]
    """First sample of each clip, and the end of the last: `[num_clips + 1]`."""


@dataclass(frozen=True)
class Pool:
    """Clips of every domain at one rate."""

    sample_rate: int
    clips: dict[str, Clips]

    def seconds(self, domain: str) -> float:
        """How much audio there is of a domain."""
        return len(self.clips[domain].samples) / self.sample_rate


def load_pool(
    root: Path,
    *,
    domains: Sequence[str],
    sample_rate: int,
    cache: Path | None = None,
    report: Callable[[str], None] = lambda message: None,
) -> Pool:
    """Read a data root, down-mixed and resampled; a `cache` folder keeps the result for the next run.

    Files that cannot be read are reported and left out.

    Raises:
        InputError: a domain has no folder, or no readable audio
    """
    clips = {}
    for domain in domains:
        files = sorted(p for p in (root / domain).rglob("*") if p.suffix.lower() in READ_SUFFIXES)
        if not files:
            raise InputError(
                f"{root / domain}: no audio files; a data root has one folder per domain: {', '.join(domains)}"
            )
        stamp = json.dumps([sample_rate, [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in files]])
        kept = cache / f"pool-{domain}-{hashlib.sha256(stamp.encode()).hexdigest()[:16]}.npz" if cache else None
        if kept and kept.exists():
            with np.load(kept) as arrays:
                clips[domain] = Clips(arrays["samples"], arrays["starts"])
            continue
        pieces = []
        for path in files:
            try:
                pieces.append(_read(path, sample_rate))
            except InputError as error:
                report(f"{error} (left out)")
        pieces = [piece for piece in pieces if len(piece)]
        if not pieces:
            raise InputError(f"{root / domain}: none of its {len(files)} files could be read")
        starts = np.cumsum([0, *map(len, pieces)])
        clips[domain] = Clips(np.concatenate(pieces), starts)
        if kept:
            kept.parent.mkdir(parents=True, exist_ok=True)
            partial = kept.with_suffix(".partial.npz")
            try:
                np.savez(partial, samples=clips[domain].samples, starts=starts)
                partial.replace(kept)
            finally:
                partial.unlink(missing_ok=True)
    return Pool(sample_rate, clips)


def _read(path: Path, sample_rate: int) -> NDArray[np.int16]:
    return np.asarray(np.clip(np.rint(read_mono(path, sample_rate) * 32767), -32768, 32767), dtype=np.int16)
