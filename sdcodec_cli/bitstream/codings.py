"""How integers become bytes: a registry of codings, for codes and for band gains.

A coding turns an array of integers below some number into bytes and back, exactly and by itself on every machine: with
integers only, and tables that ship with the package.
"""

# Legend: R rows, n columns, B bands

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from .packing import pack, unpack

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

RAW = 0
RANGE = 1

NUM_GAINS = 9
"""Values that a band gain can have, in steps: `LOWEST_GAIN` and those above it."""

LOWEST_GAIN = -3

PRECISION = 12
"""Bits of the frequencies in a table; those of a context add up to `2 ** PRECISION`."""

NUM_CLASSES = 4
"""Low, middle and high bands have tables of their own."""

NEIGHBOURS = (-2, 4)
"""A neighbour's gain counts as the nearest of these where it is below or above."""

TABLES = Path(__file__).with_name("band_gains.csv")


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


class RangeCoding:
    """Band gains, column by column, each as its neighbours make it likely: the one before, and that of the band below.

    A range coder (G. N. N. Martin, 1979) with 32 bits and frequencies of 12; `docs/format.md` has the arithmetic.
    """

    def encode(self, values: NDArray[np.integer[Any]], size: int) -> bytes:
        """See `Coding`."""
        _check_gains(size)
        bounds_of = _bounds()
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

        _check_gains(size)
        bounds_of, num_bands = _bounds(), shape[0]
        code, position, width = int.from_bytes(data[:4].ljust(4, b"\0"), "big"), 4, 1 << 32
        columns: list[list[int]] = []
        for _ in range(shape[1]):
            column: list[int] = []
            for band in range(num_bands):
                bounds = bounds_of[context(band, num_bands, columns[-1] if columns else None, column)]
                share = width >> PRECISION
                target = code // share
                value = next((value for value in range(NUM_GAINS) if target < bounds[value + 1]), None)
                if value is None:
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


CODINGS: Mapping[int, Coding] = {RAW: Raw()}
"""Of codes, by the number that a chunk has of them."""

GAIN_CODINGS: Mapping[int, Coding] = {RAW: Raw(), RANGE: RangeCoding()}
"""Of band gains, by the number that an envelope has of them."""


def context(band: int, num_bands: int, before: Sequence[int] | None, column: Sequence[int]) -> int:
    """Which table a gain has.

    Args:
        band: its own
        num_bands: B
        before: all gains of the column before, from 0; None for the first column
        column: gains of its own column, at least those of lower bands
    """
    lowest, highest = NEIGHBOURS
    num_neighbours = highest - lowest + 1
    below = min(max(column[band - 1] + LOWEST_GAIN, lowest), highest) - lowest if band else -lowest
    past = num_neighbours if before is None else min(max(before[band] + LOWEST_GAIN, lowest), highest) - lowest
    return (past * num_neighbours + below) * NUM_CLASSES + NUM_CLASSES * band // num_bands


@functools.cache
def frequencies() -> list[list[int]]:
    """Of every gain in every context, out of `2 ** PRECISION`; see `context`."""
    return [[int(entry) for entry in line.split(",")] for line in TABLES.read_text(encoding="ascii").split()]


@functools.cache
def _bounds() -> list[list[int]]:
    """Sums of the frequencies before each gain, and of all."""
    return [[sum(row[:value]) for value in range(NUM_GAINS + 1)] for row in frequencies()]


def _check_gains(size: int) -> None:
    if size != NUM_GAINS:
        raise ValueError(f"range coding is for {NUM_GAINS} gains, not {size}")
