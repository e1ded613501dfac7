"""Makes sdcodec_cli/engine/treble_guess.csv, by which gains of treble are guessed from the levels below.

usage: python tests/treble_guess.py DATA_ROOT [DATA_ROOT ...]

Of audio for training of 32 kHz and more, up to CLIPS of each domain. A ridge regression in which domains weigh the
same, of what has something above 8 kHz. The same for validation clips says how far the guess is off.
"""

from __future__ import annotations

import csv
import random
import sys
from pathlib import Path

import numpy as np
import soundfile

from sdcodec_cli.audio import resampled
from sdcodec_cli.bitstream.codings import TREBLE_GAINS
from sdcodec_cli.engine.treble import FACTOR
from sdcodec_cli.engine.treble_guess import HOP_LENGTH, LAYOUT, SAMPLE_RATE, WEIGHTS, guessed_gains, shapes_of, treble

DOMAINS = ("speech", "music", "sfx")
CLIPS, SECONDS = 150, 8
RIDGE = 50.0
"""Added to the sums of squares of the levels, of which there are tens of thousands."""

Pairs = tuple[np.ndarray, np.ndarray]
"""Shapes below `[n, B]`, and gains above in steps `[n, 8]`."""


def pairs(wav: np.ndarray) -> Pairs:
    """Of audio at 32 kHz; only where most bands above have something."""
    unit = FACTOR * HOP_LENGTH * LAYOUT.frames
    wav = wav[: len(wav) // unit * unit].astype(np.float32)
    margin = HOP_LENGTH // 2
    below = np.pad(resampled(wav, FACTOR * SAMPLE_RATE, SAMPLE_RATE), margin)
    highest = TREBLE_GAINS.lowest + TREBLE_GAINS.count - 1
    gains = treble().wanted(np.pad(wav, FACTOR * margin), below).T.clip(TREBLE_GAINS.lowest, highest)
    there = (gains > TREBLE_GAINS.lowest + 1).mean(1) > 0.5
    return shapes_of(below)[there], gains[there]


def clips(roots: list[Path], split: str, domain: str, rng: random.Random) -> Pairs:
    """Of a domain, from the files that manifests name."""
    files = [
        root / row["path"]
        for root in roots
        for row in csv.DictReader((root / "manifest.csv").open(encoding="utf-8"))
        if (row["split"], row["domain"]) == (split, domain)
        and int(row["sample_rate"]) >= FACTOR * SAMPLE_RATE
        and float(row["seconds"]) > 2
    ]
    found = []
    for path in rng.sample(files, min(CLIPS, len(files))):
        wav, rate = soundfile.read(path, frames=SECONDS * soundfile.info(path).samplerate, always_2d=True)
        found.append(pairs(resampled(wav.mean(1), rate, FACTOR * SAMPLE_RATE)))
    shapes, gains = zip(*found, strict=True)
    return np.concatenate(shapes), np.concatenate(gains)


def regression(data: list[Pairs]) -> np.ndarray:
    """Weights of the levels, and in the last row what is added: `[B + 1, 8]`."""
    squares, products = RIDGE * np.eye(data[0][0].shape[1] + 1), 0
    total = sum(len(shapes) for shapes, _ in data)
    for shapes, gains in data:
        inputs = np.c_[shapes, np.ones(len(shapes))] * np.sqrt(total / len(data) / len(shapes))
        squares = squares + inputs.T @ inputs
        products = products + inputs.T @ (gains * np.sqrt(total / len(data) / len(shapes)))
    return np.linalg.solve(squares, products)


def main() -> None:
    roots, rng = [Path(name) for name in sys.argv[1:]], random.Random(5)
    weights = regression([clips(roots, "train", domain, rng) for domain in DOMAINS])
    np.savetxt(WEIGHTS, weights, delimiter=",", fmt="%.4f")
    for domain in DOMAINS:
        shapes, gains = clips(roots, "valid", domain, rng)
        guessed = np.clip(shapes @ weights[:-1] + weights[-1], TREBLE_GAINS.lowest, 6)
        off = LAYOUT.step_db * (guessed - gains)
        print(f"{domain}: off by {np.abs(off).mean():.1f} dB, {off.mean():+.1f} dB too loud")


if __name__ == "__main__":
    main()
