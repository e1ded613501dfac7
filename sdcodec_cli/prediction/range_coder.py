"""A range coder for many chunks at once: integers of 64 bits in numpy, so that bytes are the same on every machine.

The arithmetic is that of G. N. N. Martin, "Range encoding", 1979; `docs/format.md` describes it. All chunks take a step
together: one value each, which is known by the frequencies before it, their sum and its own.
"""

# Legend: C chunks, W words, V values

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]

WORD = 16
"""Bits that are read or written at once."""

STATE_WORDS = 3
"""Words that the coder looks at."""

LOWEST = 1 << 32
"""The width of what is left of the range is at least this between two steps."""


class RangeEncoder:
    """Collects the values of C chunks."""

    def __init__(self, num_chunks: int) -> None:
        self._width = np.full(num_chunks, 1 << WORD * STATE_WORDS, dtype=np.int64)
        self._position = np.zeros(num_chunks, dtype=np.int64)
        self._steps: list[tuple[NDArray[np.intp], Integers, Integers]] = []

    def put(self, chunks: NDArray[np.intp], low: Integers, frequency: Integers, total: Integers) -> None:
        """One value of each of some chunks: the sum of frequencies before it, its own, and that of all, each `[C]`."""
        width = self._width[chunks]
        share = width // total
        self._steps.append((chunks, self._position[chunks], share * low))
        width = share * frequency
        while np.count_nonzero(short := width < LOWEST):
            width = np.where(short, width << WORD, width)
            self._position[chunks] += short
        self._width[chunks] = width

    def finish(self) -> list[bytes]:
        """The bytes of every chunk."""
        num_chunks, length = len(self._width), STATE_WORDS + int(self._position.max(initial=0))
        sums = np.zeros(num_chunks * length)
        if self._steps:
            chunks, position, added = (np.concatenate(each) for each in zip(*self._steps, strict=True))
            place = chunks * length + position
            for word in range(STATE_WORDS):
                part = added >> WORD * (STATE_WORDS - 1 - word) & (1 << WORD) - 1
                sums += np.bincount(place + word, weights=part, minlength=len(sums))
        words = sums.astype(np.int64).reshape(num_chunks, length)  # exact: sums of some thousand numbers of 16 bits
        carried, kept = (part.astype(">u2") for part in (words >> WORD, words & (1 << WORD) - 1))
        return [
            _shortest(
                (int.from_bytes(carry.tobytes(), "big") << WORD) + int.from_bytes(rest.tobytes(), "big"),
                int(width) << WORD * (length - STATE_WORDS - int(position)),
                2 * length,
            )
            for carry, rest, width, position in zip(carried, kept, self._width, self._position, strict=True)
        ]


def _shortest(low: int, width: int, num_bytes: int) -> bytes:
    """Of the numbers from `low` to below `low + width`, the one with most zeros at its end, without these."""
    bits = width.bit_length() - 1
    number = -(-low >> bits) << bits
    return number.to_bytes(num_bytes, "big").rstrip(b"\0")


class RangeDecoder:
    """Gives the values of C chunks back."""

    def __init__(self, chunks: Sequence[bytes]) -> None:
        longest = max((len(data) for data in chunks), default=0)
        # Zeros follow the bytes of a chunk, as many as are asked for.
        self._num_words = max(STATE_WORDS, -(-longest // 2)) + 1
        padded = b"".join(data.ljust(2 * self._num_words, b"\0") for data in chunks)
        self._words = np.frombuffer(padded, dtype=">u2").astype(np.int64)
        self._first = np.arange(len(chunks)) * self._num_words
        self._lengths = np.array([len(data) for data in chunks])
        first = self._words.reshape(len(chunks), -1)[:, :STATE_WORDS]
        self._code: Integers = first @ (1 << WORD * np.arange(STATE_WORDS)[::-1])
        self._width = np.full(len(chunks), 1 << WORD * STATE_WORDS, dtype=np.int64)
        self._position = np.full(len(chunks), STATE_WORDS)
        self._damaged = np.zeros(len(chunks), dtype=bool)

    def take(self, chunks: NDArray[np.intp] | slice, bounds: Integers) -> Integers:
        """The next value of each of some chunks, `[C]`; `bounds` are sums of frequencies up to each, `[C, V + 1]`."""
        code, width = self._code[chunks], self._width[chunks]
        total = bounds[:, -1]
        share = width // total
        target = code // share
        if np.count_nonzero(beyond := target >= total):
            self._damaged[chunks] |= beyond
            target = np.minimum(target, total - 1)
        values: Integers = (bounds[:, 1:] <= target[:, None]).sum(-1)
        rows = np.arange(len(bounds))
        low = bounds[rows, values]
        width = share * (bounds[rows, values + 1] - low)
        code = np.minimum(code - share * low, width - 1)
        while np.count_nonzero(short := width < LOWEST):
            position = self._position[chunks]
            word = self._words[self._first[chunks] + np.minimum(position, self._num_words - 1)]
            code = np.where(short, code << WORD | word, code)
            width = np.where(short, width << WORD, width)
            self._position[chunks] = position + short
        self._code[chunks], self._width[chunks] = code, width
        return values

    @property
    def damaged(self) -> NDArray[np.bool_]:
        """Which chunks stand for no values, or have bytes that were not asked for, `[C]`."""
        return self._damaged | (self._lengths > 2 * self._position)


def bounds_of(frequencies: NDArray[Any]) -> Integers:
    """Sums of the frequencies before each value, and of all: `[..., V]` to `[..., V + 1]`."""
    bounds = np.zeros((*frequencies.shape[:-1], frequencies.shape[-1] + 1), dtype=np.int64)
    np.cumsum(frequencies, axis=-1, out=bounds[..., 1:])
    return bounds
