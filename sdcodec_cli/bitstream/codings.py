"""How integers become bytes: a registry of codings, for codes and for band gains.

A coding turns an array of integers below some number into bytes and back, exactly and by itself on every machine: with
integers only, and tables that ship with the package.
"""

# Legend: R rows, n columns, B bands

from __future__ import annotations

import functools
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from .packing import pack, unpack

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

RAW = 0
RANGE = 1
"""Numbers of codings, of gains and of codes."""
LOST = 15
"""Number of no coding, of gains and of codes: they were damaged where they were copied from, and have no bytes here."""

PRECISION = 12
"""Bits of the frequencies in a table; those of a context add up to `2 ** PRECISION`."""


class Coding(Protocol):
    """One way from integers to bytes and back."""

    def encode(self, values: NDArray[np.integer[Any]], size: int) -> bytes:
        """Integers `[R, n]`, from 0 to `size - 1`, as bytes."""
        ...

    def decode(self, data: bytes, shape: tuple[int, int], size: int) -> NDArray[np.int64]:
        """Integers of this shape. `ValueError` if the bytes are not those of any."""
        ...


class Raw:
    """Each integer in as many bits as the largest one needs, row by row."""

    def encode(self, values: NDArray[np.integer[Any]], size: int) -> bytes:
        """See `Coding`."""
        return pack(values, (size - 1).bit_length())

    def decode(self, data: bytes, shape: tuple[int, int], size: int) -> NDArray[np.int64]:
        """See `Coding`."""
        bits = (size - 1).bit_length()
        values = unpack(data, shape[0] * shape[1], bits)
        if size < 1 << bits and int(values.max(initial=0)) >= size:
            raise ValueError(f"an integer of {values.max()} where {size - 1} is the largest")
        return values.reshape(shape)


class GainKind:
    """Band gains of one kind: which values they can have, and how likely each is in its place.

    Args:
        lowest: value, in steps
        count: of values, from the lowest one up
        absent: value of all gains where none are stored
        tables: file beside this one with the frequencies of all values in all contexts, a line each
        context: see `Context`
    """

    def __init__(self, lowest: int, count: int, absent: int, tables: str, context: Context) -> None:
        self.lowest, self.count, self.absent, self.context = lowest, count, absent, context
        self.tables = Path(__file__).with_name(tables)
        self.codings: Mapping[int, Coding] = {RAW: Raw(), RANGE: RangeCoding(self)}
        """By the number that a unit has of them."""

    @functools.cached_property
    def frequencies(self) -> list[list[int]]:
        """Of every value in every context, out of `2 ** PRECISION`."""
        return [[int(entry) for entry in line.split(",")] for line in self.tables.read_text(encoding="ascii").split()]

    @functools.cached_property
    def bounds(self) -> list[list[int]]:
        """Sums of the frequencies before each value, and of all."""
        return [[sum(row[:value]) for value in range(self.count + 1)] for row in self.frequencies]


class Context(Protocol):
    """Which table a gain has, from those that are known before it."""

    def __call__(self, band: int, num_bands: int, before: Sequence[int] | None, column: Sequence[int]) -> int:
        """The number of a row.

        Args:
            band: its own
            num_bands: B
            before: all gains of the column before, from 0; None for the first column
            column: gains of its own column, at least those of lower bands
        """
        ...


class RangeCoding:
    """Band gains, column by column, each as its neighbours make it likely: the one before, and that of the band below.

    A range coder (G. N. N. Martin, 1979) with 32 bits and frequencies of 12; `docs/format.md` has the arithmetic.
    """

    def __init__(self, kind: GainKind) -> None:
        self._kind = kind

    def encode(self, values: NDArray[np.integer[Any]], size: int) -> bytes:
        """See `Coding`."""
        bounds_of, context = self._bounds(size), self._kind.context
        low, width, shift = 0, 1 << 32, 0
        before: Sequence[int] | None = None
        for column in values.T.tolist():
            for band, value in enumerate(column):
                bounds = bounds_of[context(band, len(column), before, column)]
                share = width >> PRECISION
                low += share * bounds[value]
                width = share * (bounds[value + 1] - bounds[value])
                while width < 1 << 24:
                    low, width, shift = low << 8, width << 8, shift + 8
            before = column
        # Of all numbers that stand for these gains, the one with most zeros at its end, which need not be stored.
        bits = width.bit_length() - 1
        number = -(-low >> bits) << bits
        return number.to_bytes(shift // 8 + 4, "big").rstrip(b"\0")

    def decode(self, data: bytes, shape: tuple[int, int], size: int) -> NDArray[np.int64]:
        """See `Coding`."""
        import numpy as np

        bounds_of, context, num_bands = self._bounds(size), self._kind.context, shape[0]
        code, position, width = int.from_bytes(data[:4].ljust(4, b"\0"), "big"), 4, 1 << 32
        columns: list[list[int]] = []
        for _ in range(shape[1]):
            column: list[int] = []
            for band in range(num_bands):
                bounds = bounds_of[context(band, num_bands, columns[-1] if columns else None, column)]
                share = width >> PRECISION
                value = bisect_right(bounds, code // share) - 1
                if value >= size:
                    raise ValueError("bytes that stand for no gains")
                column.append(value)
                code -= share * bounds[value]
                width = share * (bounds[value + 1] - bounds[value])
                while width < 1 << 24:
                    code = code << 8 | (data[position] if position < len(data) else 0)
                    width, position = width << 8, position + 1
            columns.append(column)
        if len(data) > position:
            raise ValueError("bytes after the last gain")
        return np.array(columns, dtype=np.int64).T.reshape(shape)

    def _bounds(self, size: int) -> list[list[int]]:
        if size != self._kind.count:
            raise ValueError(f"range coding is for {self._kind.count} gains, not {size}")
        return self._kind.bounds


ENVELOPE_NEIGHBOURS = (-2, 4)
"""A neighbour's gain, in steps, counts as the nearest of these where it is below or above."""

NUM_CLASSES = 4
"""Low, middle and high bands of an envelope have tables of their own."""


def envelope_context(band: int, num_bands: int, before: Sequence[int] | None, column: Sequence[int]) -> int:
    """See `Context`: by the gain before, the one of the band below, and how high the band is."""
    lowest, highest = ENVELOPE_NEIGHBOURS
    num_neighbours = highest - lowest + 1
    below = min(max(column[band - 1] + ENVELOPE_GAINS.lowest, lowest), highest) - lowest if band else -lowest
    past = (
        num_neighbours if before is None else min(max(before[band] + ENVELOPE_GAINS.lowest, lowest), highest) - lowest
    )
    return (past * num_neighbours + below) * NUM_CLASSES + NUM_CLASSES * band // num_bands


MAX_WIDTH = 8
"""The most that a width of a place can be; the least is 0."""

NUM_CHANGES = 6
"""How the band below has changed: by -2 or less, -1, 0, 1, 2 or more, or there is none."""


def treble_context(band: int, num_bands: int, before: Sequence[int] | None, column: Sequence[int]) -> int:
    """See `Context`: by the gain before, and how the one of the band below has changed since."""
    if before is None:
        return column[band - 1] if band else TREBLE_GAINS.count
    change = min(max(column[band - 1] - before[band - 1], -2), 2) + 2 if band else NUM_CHANGES - 1
    return TREBLE_GAINS.count + 1 + before[band] * NUM_CHANGES + change


def stereo_context(band: int, num_bands: int, before: Sequence[int] | None, column: Sequence[int]) -> int:
    """See `Context`: as that of treble, once for level differences, in the lower half, and once for widths."""
    half, count = num_bands // 2, STEREO_GAINS.count
    first = (count + 1 + count * NUM_CHANGES) * (band >= half)
    has_below = band % half > 0
    if before is None:
        return first + (column[band - 1] if has_below else count)
    change = min(max(column[band - 1] - before[band - 1], -2), 2) + 2 if has_below else NUM_CHANGES - 1
    return first + count + 1 + before[band] * NUM_CHANGES + change


def places_fit(places: NDArray[np.integer[Any]]) -> bool:
    """Whether widths, the lower half of places `[2 B, n]`, are what they can be."""
    return int(places[len(places) // 2 :].min(initial=0)) >= 0


CODINGS: Mapping[int, Coding] = {RAW: Raw()}
"""Of codes, by the number that a chunk has of them, as far as they need nothing else; `RANGE` needs the tables of a
model, see `prediction`."""

ENVELOPE_GAINS = GainKind(lowest=-3, count=9, absent=0, tables="band_gains.csv", context=envelope_context)
"""Of the bands that a model codes."""

TREBLE_GAINS = GainKind(lowest=-12, count=19, absent=-12, tables="treble_gains.csv", context=treble_context)
"""Of the bands above them; the lowest one stands for nothing at all."""

STEREO_GAINS = GainKind(
    lowest=-MAX_WIDTH, count=2 * MAX_WIDTH + 1, absent=0, tables="stereo_gains.csv", context=stereo_context
)
"""Of places of domains: level differences of all bands, and then widths, which are never below 0."""
