"""Makes sdcodec_cli/engine/treble_guess.csv, by which gains of treble are guessed from the levels below.

usage: python tests/treble_guess.py DATA_ROOT [DATA_ROOT ...]

Of audio for training of 32 kHz and more, up to CLIPS of each domain. A linear regression in which domains weigh the
same, of what has something above 8 kHz, to a quantile of the gains. Validation clips say how far the guess is off.
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
from sdcodec_cli.engine.treble_guess import HOP_LENGTH, LAYOUT, SAMPLE_RATE, WEIGHTS, shapes_of, treble

DOMAINS = ("speech", "music", "sfx")
CLIPS, SECONDS = 150, 8
QUANTILE = 0.3
"""Of likely gains, this one is guessed: in mel distance it is as good as the median, and less is too loud."""

ROUNDS, CLOSE, RIDGE = 7, 0.3, 50.0
"""Of weighted least squares, whose weights are one over the error, at least CLOSE steps; RIDGE is added to the sums of
squares of the levels, of which there are tens of thousands."""

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
    shapes, gains = (np.concatenate(arrays) for arrays in zip(*data, strict=True))
    total = len(shapes) / len(data)
    weights = np.concatenate([np.full(len(shapes), total / len(shapes)) for shapes, _ in data])
    inputs = np.c_[shapes, np.ones(len(shapes))]
    ridge = RIDGE * np.eye(inputs.shape[1])
    bands = []
    for wanted in gains.T:
        slopes = weights
        for _ in range(ROUNDS):
            weighted = (inputs * slopes[:, None]).T
            found = np.linalg.solve(weighted @ inputs + ridge, weighted @ wanted)
            missing = wanted - inputs @ found
            slopes = weights * np.where(missing > 0, QUANTILE, 1 - QUANTILE) / np.maximum(np.abs(missing), CLOSE)
        bands.append(found)
    return np.stack(bands, axis=1)


def main() -> None:
    roots, rng = [Path(name) for name in sys.argv[1:]], random.Random(5)
    weights = regression([clips(roots, "train", domain, rng) for domain in DOMAINS])
    np.savetxt(WEIGHTS, weights, delimiter=",", fmt="%.4f")
    for domain in DOMAINS:
        shapes, gains = clips(roots, "valid", domain, rng)
        guessed = np.clip(shapes @ weights[:-1] + weights[-1], TREBLE_GAINS.lowest, 6)
        off = LAYOUT.step_db * (guessed - gains)
        print(f"{domain}: gains are off by {np.abs(off).mean():.1f} dB, {off.mean():+.1f} dB on the mean")


if __name__ == "__main__":
    main()
