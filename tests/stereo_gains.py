"""Makes stereo_gains.csv in sdcodec_cli/bitstream, the frequencies of places of domains in their contexts.

usage: python tests/stereo_gains.py DATA_ROOT [MIXTURES]

Of mixtures of audio for training, 40 by default, see stereo_mixtures.py. Streams name the tables by the number of their
coding: other tables need another number, and these stay.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from unittest import mock

import numpy as np
from band_gains import PRIOR, frequencies, use
from stereo_mixtures import mixtures

from sdcodec_cli import load_codec
from sdcodec_cli.bitstream import codings
from sdcodec_cli.engine import envelope, stereo

SECONDS = 8
NUM_CONTEXTS = 2 * (codings.STEREO_GAINS.count * (1 + codings.NUM_CHANGES) + 1)
ROUNDS = 4
KIND = codings.STEREO_GAINS


def tables(places: list[np.ndarray]) -> list[list[int]]:
    """Frequencies of all contexts, in which no width is below 0."""
    counts = np.full((NUM_CONTEXTS, KIND.count), PRIOR)
    for each in places:
        before = None
        for column in (each.T - KIND.lowest).tolist():
            for band, value in enumerate(column):
                counts[KIND.context(band, len(column), before, column), value] += 1
            before = column
    half = NUM_CONTEXTS // 2
    differences = [frequencies(row) for row in counts[:half]]
    return differences + [[0] * -KIND.lowest + frequencies(row[-KIND.lowest :]) for row in counts[half:]]


def main() -> None:
    root, count = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 40
    codec, found = load_codec().at_effort(0), []

    def keep(wanted: np.ndarray, max_bits: float, kind: codings.GainKind, weights: np.ndarray, price: float) -> None:
        found.append((wanted, weights))

    with mock.patch.object(stereo, "choose_gains", keep):
        for stems in itertools.islice(mixtures(root, "train", codec.sample_rate, SECONDS, seed=5), count):
            left, right = sum(stems.values())
            encoder = codec.stereo_encoder()
            sides = np.stack([(left + right) / 2, (left - right) / 2]) * np.float32(10 ** (codec.gain_for(-26) / 20))
            encoder.push(sides)
            encoder.finish()
    # What does not matter is 0 at first.
    chosen = [
        np.clip(np.round(wanted) * (weights > 0), KIND.lowest, KIND.lowest + KIND.count - 1).astype(np.int64)
        for wanted, weights in found
    ]
    for _ in range(ROUNDS):
        use(tables(chosen), KIND)
        all_chosen = [envelope.choose_gains(wanted, 1e9, KIND, weights, stereo.PRICE) for wanted, weights in found]
        chosen = [each for each in all_chosen if each is not None]
        sizes = [len(KIND.codings[codings.RANGE].encode(each - KIND.lowest, KIND.count)) for each in chosen]
        print(
            f"{len(sizes)} of {len(found)} domains in segments, {8 * np.mean(sizes) / 2:.0f} bit/s where there are any"
        )


if __name__ == "__main__":
    main()
