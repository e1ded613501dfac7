"""Makes sdcodec_cli/bitstream/band_gains.csv, the frequencies of band gains in their contexts, from audio for training.

usage: python tests/band_gains.py DATA_ROOT [CLIPS]     CLIPS of each domain, and mixtures of them; 40 by default

Streams name the tables by the number of their coding: other tables need another number, and these stay.
"""

from __future__ import annotations

import csv
import random
import sys
from pathlib import Path

import numpy as np
import soundfile
import soxr

from sdcodec_cli import load_codec
from sdcodec_cli.bitstream import codings
from sdcodec_cli.engine import envelope
from sdcodec_cli.engine.codec import Codec
from sdcodec_cli.engine.stream import SEGMENT_FRAMES

SECONDS = 8
NUM_CONTEXTS = (
    (codings.NEIGHBOURS[1] - codings.NEIGHBOURS[0] + 2)
    * (codings.NEIGHBOURS[1] - codings.NEIGHBOURS[0] + 1)
    * codings.NUM_CLASSES
)
ROUNDS = 3
"""Gains are chosen by the tables that are made of them, so both are made several times."""

PRIOR = 0.3
"""Added to every count."""


def wanted_gains(codec: Codec, wav: np.ndarray, active: list[str] | None) -> list[np.ndarray]:
    """Of each segment, what `choose_gains` is given."""
    codes = codec.encode(wav, active=active, envelope=False)
    bands = envelope.Bands(codec.envelope_layout(), codec.sample_rate, codec.hop_length)
    level = 10 ** (codes.gain_db[0] / 20)
    hop = codec.hop_length
    both = [np.pad(level * each, (hop // 2, 2 * hop)).astype(np.float32) for each in (wav, codec.decode(codes))]
    length = SEGMENT_FRAMES * hop
    return [
        bands.wanted(*(each[start : start + min(length, len(wav) // hop * hop - start) + hop] for each in both))
        for start in range(0, len(wav) // hop * hop, length)
    ]


def tables(wanted: list[np.ndarray]) -> list[list[int]]:
    """Frequencies of all contexts."""
    counts = np.full((NUM_CONTEXTS, codings.NUM_GAINS), PRIOR)
    for segment in wanted:
        chosen = envelope.choose_gains(segment, max_bits=1e9)
        if chosen is None:
            continue
        before = None
        for column in (chosen.T - codings.LOWEST_GAIN).tolist():
            for band, gain in enumerate(column):
                counts[codings.context(band, len(column), before, column), gain] += 1
            before = column
    return [frequencies(row) for row in counts]


def frequencies(counts: np.ndarray) -> list[int]:
    """Counts as frequencies, each at least one, that add up to `2 ** PRECISION`."""
    rounded = np.maximum(1, np.round(counts / counts.sum() * 2**codings.PRECISION)).astype(int)
    rounded[rounded.argmax()] += 2**codings.PRECISION - rounded.sum()
    found: list[int] = rounded.tolist()
    return found


def use(rows: list[list[int]]) -> None:
    """Write tables down, and have them used."""
    codings.TABLES.write_text("".join(",".join(map(str, row)) + "\n" for row in rows), encoding="ascii")
    for cached in (codings.frequencies, codings._bounds, envelope._costs):
        cached.cache_clear()


def main() -> None:
    root, count = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 40
    codec, rng = load_codec(), random.Random(5)
    rows = list(csv.DictReader((root / "manifest.csv").open(encoding="utf-8")))

    def clip(row: dict[str, str]) -> np.ndarray:
        wav, rate = soundfile.read(root / row["path"], always_2d=True)
        wav = soxr.resample(wav.mean(1), rate, codec.sample_rate)
        start = rng.randrange(max(1, len(wav) - SECONDS * codec.sample_rate))
        wav = np.resize(wav[start:], SECONDS * codec.sample_rate)
        return (wav * 0.05 / np.sqrt(np.square(wav).mean() + 1e-9)).clip(-1, 1)

    clips, wanted = {}, []
    for domain in codec.domains:
        own = [row for row in rows if (row["split"], row["domain"]) == ("train", domain) and float(row["seconds"]) > 4]
        clips[domain] = [clip(row) for row in rng.sample(own, count)]
        wanted += [segment for wav in clips[domain] for segment in wanted_gains(codec, wav, [domain])]
    for stems in zip(*clips.values(), strict=True):
        wanted += wanted_gains(codec, sum(stem * rng.uniform(0.4, 1.3) for stem in stems), None)
    use([frequencies(np.ones(codings.NUM_GAINS))] * NUM_CONTEXTS)
    for _ in range(ROUNDS):
        use(tables(wanted))


if __name__ == "__main__":
    main()
