"""Panned mixtures of mono audio: voices in the middle, music wide, effects anywhere.

Legend: T samples.
"""

from __future__ import annotations

import csv
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr


def wide(wav: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
    """Music as a stage and a room: bands of an octave at different places, and 60 ms of another tail on each side.

    `[T]` to `[2, T]`.
    """
    spectrum = np.fft.rfft(wav, n=2 * len(wav))
    octaves = np.log2(np.maximum(np.fft.rfftfreq(2 * len(wav), 1 / rate), 40) / 40)
    angles = np.interp(octaves, np.arange(12), rng.uniform(0.15, 0.85, 12)) * np.pi / 2
    sides = []
    for gains in (np.cos(angles), np.sin(angles)):
        tail = rng.standard_normal(int(0.06 * rate)) * np.exp(-np.arange(int(0.06 * rate)) / (0.015 * rate))
        tail *= 0.6 / np.sqrt(np.square(tail).sum())
        tail[0] += 1
        filtered = np.fft.irfft(spectrum * gains * np.fft.rfft(tail, n=2 * len(wav)))
        sides.append(filtered[: len(wav)])
    return np.stack(sides).astype(np.float32)


def panned(wav: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An effect at any place, or one that passes from one to another, `[T]` to `[2, T]`."""
    ends = rng.uniform(0, np.pi / 2, 2)
    angles = np.linspace(ends[0], ends[1] if rng.random() < 0.5 else ends[0], len(wav))
    return np.stack([wav * np.cos(angles), wav * np.sin(angles)]).astype(np.float32)


def clips(root: Path, split: str, domain: str, rate: int, seconds: float, rng: random.Random) -> Iterator[np.ndarray]:
    """Excerpts of a corpus, `[T]` each, at one level, in an order that `rng` says, with no end."""
    rows = [
        row
        for row in csv.DictReader((root / "manifest.csv").open(encoding="utf-8"))
        if (row["split"], row["domain"]) == (split, domain) and float(row["seconds"]) > 4
    ]
    while True:
        for row in rng.sample(rows, len(rows)):
            wav, own = soundfile.read(root / row["path"], dtype="float32", always_2d=True)
            wav = soxr.resample(wav.mean(1), own, rate)
            length = int(seconds * rate)
            start = rng.randrange(max(1, len(wav) - length))
            wav = np.resize(wav[start:], length)
            yield (wav * 0.05 / np.sqrt(np.square(wav).mean() + 1e-9)).clip(-1, 1)


def mixtures(root: Path, split: str, rate: int, seconds: float, seed: int) -> Iterator[dict[str, np.ndarray]]:
    """Stems `[2, T]` of mixtures, with no end: three of five have all domains, the others one or two."""
    rng, chance = random.Random(seed), np.random.default_rng(seed)
    sources = {domain: clips(root, split, domain, rate, seconds, rng) for domain in ("speech", "music", "sfx")}
    for number in range(10**9):
        names = [("speech", "music", "sfx")] * 3 + [("speech", "music"), (("music",), ("sfx",))[number // 5 % 2]]
        stems = {}
        for domain in names[number % 5]:
            wav = next(sources[domain]) * np.float32(rng.uniform(0.5, 1.4))
            place = {
                "speech": lambda wav: np.stack([wav, wav]) * np.float32(0.7),
                "music": lambda wav: wide(wav, rate, chance),
            }
            stems[domain] = place.get(domain, lambda wav: panned(wav, chance))(wav)
        yield stems
