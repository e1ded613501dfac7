"""Makes band_gains.csv and treble_gains.csv in sdcodec_cli/bitstream, the frequencies of gains in their contexts.

usage: python tests/band_gains.py envelope|treble DATA_ROOT [CLIPS]

Of audio for training: CLIPS of each domain, 40 by default, and mixtures of them; for treble, of 32 kHz and more.
Streams name the tables by the number of their coding: other tables need another number, and these stay.
"""

from __future__ import annotations

import csv
import random
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import soundfile
import soxr

from sdcodec_cli import load_codec
from sdcodec_cli.bitstream import codings
from sdcodec_cli.engine import envelope, stream_encoder
from sdcodec_cli.engine.codec import Codec

SECONDS = 8
NUM_CONTEXTS = {
    codings.ENVELOPE_GAINS: (codings.ENVELOPE_NEIGHBOURS[1] - codings.ENVELOPE_NEIGHBOURS[0] + 2)
    * (codings.ENVELOPE_NEIGHBOURS[1] - codings.ENVELOPE_NEIGHBOURS[0] + 1)
    * codings.NUM_CLASSES,
    codings.TREBLE_GAINS: codings.TREBLE_GAINS.count * (1 + codings.NUM_CHANGES) + 1,
}
ROUNDS = 3
"""Gains are chosen by the tables that are made of them, so both are made several times."""

PRIOR = 0.3
"""Added to every count."""


def wanted_gains(codec: Codec, kind: codings.GainKind, wav: np.ndarray, active: list[str] | None) -> list[np.ndarray]:
    """Of each segment, what `choose_gains` is given; `wav` is at the codec's rate, or for treble at twice that."""
    found: list[np.ndarray] = []

    def keep(wanted: np.ndarray, max_bits: float, kind: codings.GainKind = codings.ENVELOPE_GAINS) -> None:
        found.append(wanted)

    treble = kind is codings.TREBLE_GAINS
    with mock.patch.object(stream_encoder, "choose_gains", keep):
        codec.encode(wav, sample_rate=codec.wide_rate if treble else None, active=active, envelope=not treble)
    return found


def tables(wanted: list[np.ndarray], kind: codings.GainKind) -> list[list[int]]:
    """Frequencies of all contexts."""
    counts = np.full((NUM_CONTEXTS[kind], kind.count), PRIOR)
    for segment in wanted:
        chosen = envelope.choose_gains(segment, max_bits=1e9, kind=kind)
        if chosen is None:
            continue
        before = None
        for column in (chosen.T - kind.lowest).tolist():
            for band, gain in enumerate(column):
                counts[kind.context(band, len(column), before, column), gain] += 1
            before = column
    return [frequencies(row) for row in counts]


def frequencies(counts: np.ndarray) -> list[int]:
    """Counts as frequencies, each at least one, that add up to `2 ** PRECISION`."""
    rounded = np.maximum(1, np.round(counts / counts.sum() * 2**codings.PRECISION)).astype(int)
    rounded[rounded.argmax()] += 2**codings.PRECISION - rounded.sum()
    found: list[int] = rounded.tolist()
    return found


def use(rows: list[list[int]], kind: codings.GainKind) -> None:
    """Write tables down, and have them used."""
    kind.tables.write_text("".join(",".join(map(str, row)) + "\n" for row in rows), encoding="ascii")
    for cached in ("frequencies", "bounds"):
        kind.__dict__.pop(cached, None)
    envelope._costs.cache_clear()


def main() -> None:
    kind = {"envelope": codings.ENVELOPE_GAINS, "treble": codings.TREBLE_GAINS}[sys.argv[1]]
    root, count = Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 40
    codec, rng = load_codec().at_effort(0 if kind is codings.TREBLE_GAINS else 4), random.Random(5)
    rate = (codec.wide_rate if kind is codings.TREBLE_GAINS else None) or codec.sample_rate
    rows = list(csv.DictReader((root / "manifest.csv").open(encoding="utf-8")))

    def clip(row: dict[str, str]) -> np.ndarray:
        wav, own = soundfile.read(root / row["path"], always_2d=True)
        wav = soxr.resample(wav.mean(1), own, rate)
        start = rng.randrange(max(1, len(wav) - SECONDS * rate))
        wav = np.resize(wav[start:], SECONDS * rate)
        return (wav * 0.05 / np.sqrt(np.square(wav).mean() + 1e-9)).clip(-1, 1)

    clips, wanted = {}, []
    for domain in codec.domains:
        own = [
            row
            for row in rows
            if (row["split"], row["domain"]) == ("train", domain)
            and float(row["seconds"]) > 4
            and (rate == codec.sample_rate or int(row["sample_rate"]) >= rate)
        ]
        clips[domain] = [clip(row) for row in rng.sample(own, count)]
        wanted += [segment for wav in clips[domain] for segment in wanted_gains(codec, kind, wav, [domain])]
    for stems in zip(*clips.values(), strict=True):
        wanted += wanted_gains(codec, kind, sum(stem * rng.uniform(0.4, 1.3) for stem in stems), None)
    use([frequencies(np.ones(kind.count))] * NUM_CONTEXTS[kind], kind)
    for _ in range(ROUNDS):
        use(tables(wanted, kind), kind)
        chosen = [envelope.choose_gains(segment, max_bits=1e9, kind=kind) for segment in wanted]
        sizes = [
            len(kind.codings[codings.RANGE].encode(found - kind.lowest, kind.count))
            for found in chosen
            if found is not None
        ]
        print(f"{len(sizes)} of {len(wanted)} segments, {8 * np.mean(sizes) / 2:.0f} bit/s where there are gains")


if __name__ == "__main__":
    main()
