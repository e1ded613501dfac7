"""Bands as wide as the ear's, on the scale of equivalent rectangular bandwidths (Glasberg and Moore, 1990), and what is
the same about envelopes where they are computed and where networks are trained for them.

Legend: K bins, B bands.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

NUM_BANDS, NUM_FINE_BANDS, LOWEST, HIGHEST = 20, 32, 50.0, 8000.0
"""Bands of envelopes, and of fine ones: so many would lie in this range in Hz."""

NUM_LEVELS = 21
"""Bands in that range in which levels are compared, by `sdc eval` and in training."""

FIRST = 300.0
"""Bands of envelopes that begin below are left out: codes have them right."""

STEP_DB, LOWEST_DB, HIGHEST_DB = 4.0, -12.0, 20.0
"""Of gains in dB: the step, the least and the most."""

SECONDS, FINE_SECONDS = 0.04, 0.02
"""Each gain is for about so long, and in fine envelopes."""

SHARE = 0.6
"""Of the gains that a decoder applies by default: 1 would give the levels of the original, 0 is nearest to its
waveform. On validation clips ViSQOL hardly rises beyond this, while SI-SDR falls ever faster."""

NUM_TREBLE_BANDS = 8
"""Above a model's band, up to twice as high."""

TREBLE_BEGIN = 0.95
"""Of a model's band: above this little is left in it, as filters of resamplers fall off there."""

TREBLE_RATES = 24_000
"""Models of up to so many Hz code audio that has something to add above half of that."""

FLOOR = 4e-10
"""Added to the mean power of a band's bins before it is a level: 94 dB below full scale nothing is heard."""


def erb_edges(count: int, lowest: float, highest: float) -> NDArray[np.float64]:
    """Edges of `count` bands of equal width on that scale, in Hz: `[count + 1]`."""
    return np.array([_hertz(place) for place in np.linspace(_place(lowest), _place(highest), count + 1)])


def frames_per_gain(sample_rate: int, hop_length: int, *, fine: bool = False) -> int:
    """How many frames of a model a gain is for."""
    return max(1, round((FINE_SECONDS if fine else SECONDS) * sample_rate / hop_length))


def envelope_edges(sample_rate: int, *, fine: bool = False) -> tuple[int, ...]:
    """Edges of the bands of envelopes in whole Hz, in the same places for all rates, up to half of each."""
    width = (_place(HIGHEST) - _place(LOWEST)) / (NUM_FINE_BANDS if fine else NUM_BANDS)
    count = max(1, round((_place(sample_rate / 2) - _place(LOWEST)) / width))
    edges = erb_edges(count, LOWEST, _hertz(_place(LOWEST) + count * width))[:-1]
    return (*([round(edge) for edge in edges if edge >= FIRST] or [0]), sample_rate // 2)


def treble_edges(sample_rate: int, hop_length: int) -> tuple[int, ...] | None:
    """Edges in whole Hz of the bands above a model's band, all equally wide on a scale of octaves.

    Above the first one are a multiple of four bins of a transform of two hops, so that either copy is moved by an even
    number of them, which is a whole number of periods in a hop. None where such bins are never at whole Hz.
    """
    highest = int(TREBLE_BEGIN * hop_length)
    firsts = range(highest - (highest - 2 * hop_length) % 4, 0, -4)
    lows = (first * sample_rate // (2 * hop_length) for first in firsts if first * sample_rate % (2 * hop_length) == 0)
    low = next(lows, None)
    if low is None:
        return None
    places = np.linspace(math.log2(low), math.log2(sample_rate), NUM_TREBLE_BANDS + 1)
    return tuple(round(2**place) for place in places.tolist())


def band_bank(
    edges: Sequence[float] | NDArray[np.float64], window_length: int, sample_rate: int
) -> NDArray[np.float32]:
    """What takes powers of bins to their means over bands: `[K, B]`; a band without bins has zeros.

    Args:
        edges: of the bands, in Hz; a band has all frequencies from its edge to below the next
        window_length: in samples
        sample_rate: in Hz
    """
    bins = np.fft.rfftfreq(window_length, 1 / sample_rate)[:, None]
    members = (bins >= np.asarray(edges)[:-1]) & (bins < np.asarray(edges)[1:])
    return np.asarray(members / np.maximum(members.sum(0), 1), dtype=np.float32)


def _place(hertz: float) -> float:
    return 21.4 * math.log10(1 + 0.00437 * hertz)


def _hertz(place: float) -> float:
    return (10 ** (place / 21.4) - 1) / 0.00437
