"""Integers as bytes and back, exactly: codes raw, band gains raw or by a range coder with the tables of the package."""

from __future__ import annotations

import math
import random
from typing import Any

import band_gains
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sdcodec_cli.bitstream.codings import (
    CODINGS,
    ENVELOPE_GAINS,
    PRECISION,
    RANGE,
    RAW,
    TREBLE_GAINS,
    GainKind,
    RangeCoding,
    Raw,
    envelope_context,
    treble_context,
)

KINDS = [ENVELOPE_GAINS, TREBLE_GAINS]

Values = NDArray[np.int64]


@st.composite
def gains(draw: st.DrawFn) -> Values:
    """Any gains at all, from 0: of few bands or many, for a long time or a short one."""
    shape = draw(st.integers(1, 64)), draw(st.integers(1, 12))
    lowest, highest = sorted(draw(st.tuples(st.integers(0, NUM_GAINS - 1), st.integers(0, NUM_GAINS - 1))))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    return rng.integers(lowest, highest + 1, shape)


def likely_gains(num_bands: int, num_columns: int, seed: int = 0) -> tuple[Values, float]:
    """Gains drawn from the very tables, and the bits that Shannon gives them."""
    chance, columns, bits = random.Random(seed), [], 0.0
    for _ in range(num_columns):
        column: list[int] = []
        for band in range(num_bands):
            row = frequencies()[context(band, num_bands, columns[-1] if columns else None, column)]
            column.append(chance.choices(range(NUM_GAINS), row)[0])
            bits -= math.log2(row[column[-1]] / 2**PRECISION)
        columns.append(column)
    return np.array(columns).T, bits


@settings(max_examples=150, deadline=None)
@given(gains(), st.sampled_from([RAW, RANGE]))
def test_any_gains_come_back(values: Values, coding: int) -> None:
    data = GAIN_CODINGS[coding].encode(values, NUM_GAINS)
    back = GAIN_CODINGS[coding].decode(data, values.shape, NUM_GAINS)
    assert np.array_equal(back, values)
    assert back.dtype == np.int64


@pytest.mark.parametrize("value", [0, NUM_GAINS - 1])
def test_gains_that_are_all_the_least_or_the_greatest_come_back(value: int) -> None:
    """The ends of every interval, where a carry runs through all bytes."""
    values = np.full((64, 500), value)
    data = RangeCoding().encode(values, NUM_GAINS)
    assert np.array_equal(RangeCoding().decode(data, values.shape, NUM_GAINS), values)


def test_zeros_at_the_end_are_not_stored() -> None:
    """The first interval begins at 0, so nothing at all stands for the lowest gains."""
    assert RangeCoding().encode(np.zeros((16, 50), dtype=int), NUM_GAINS) == b""
    values, _ = likely_gains(16, 50)
    data = RangeCoding().encode(values, NUM_GAINS)
    assert not data.endswith(b"\0")
    assert np.array_equal(RangeCoding().decode(data + b"\0", values.shape, NUM_GAINS), values)


def read(data: bytes, shape: tuple[int, int]) -> Values | None:
    """Gains, which have to be some; None where the bytes are refused."""
    try:
        values = RangeCoding().decode(data, shape, NUM_GAINS)
    except ValueError:
        return None
    assert values.shape == shape
    assert values.min() >= 0
    assert values.max() < NUM_GAINS
    return values


def test_every_flipped_bit_is_refused_or_gives_other_gains() -> None:
    values, _ = likely_gains(16, 50)
    data = RangeCoding().encode(values, NUM_GAINS)
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        found = read(bytes(damaged), values.shape)
        # Of the last byte, the lowest bits need not count.
        assert found is None or bit // 8 == len(data) - 1 or not np.array_equal(found, values)


def test_bytes_cut_anywhere_are_refused_or_give_gains() -> None:
    values, _ = likely_gains(16, 50)
    data = RangeCoding().encode(values, NUM_GAINS)
    for size in range(len(data)):
        read(data[:size], values.shape)
        read(data[size:], values.shape)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200), st.integers(1, 64), st.integers(1, 8))
def test_bytes_of_any_kind_are_refused_or_give_gains(data: bytes, num_bands: int, num_columns: int) -> None:
    read(data, (num_bands, num_columns))


def test_bytes_after_the_last_gain_are_refused() -> None:
    with pytest.raises(ValueError, match="after the last gain"):
        RangeCoding().decode(bytes(9), (1, 1), NUM_GAINS)


def test_every_context_has_a_table_in_which_every_gain_is_possible() -> None:
    assert len(frequencies()) == band_gains.NUM_CONTEXTS == 224
    for row in frequencies():
        assert len(row) == NUM_GAINS
        assert min(row) >= 1
        assert sum(row) == 2**PRECISION == 4096


def test_contexts_are_counted_by_the_neighbours_and_the_place_of_the_band() -> None:
    gains_from_0 = range(NUM_GAINS)
    found = {
        context(band, 8, None if past is None else [past] * 8, [below] * band)
        for band in range(8)
        for past in (None, *gains_from_0)
        for below in gains_from_0
    }
    assert found == set(range(224))
    zero = -LOWEST_GAIN
    # (gain before, from −2) · 28 + (gain below, from −2) · 4 + class; both zero here, and -3 counts as -2, 5 as 4.
    assert context(0, 16, [zero] * 16, []) == 2 * 28 + 2 * 4
    assert context(15, 16, [zero] * 16, [zero] * 15) == 2 * 28 + 2 * 4 + 3
    assert context(4, 16, [0] * 16, [8] * 4) == 0 * 28 + 6 * 4 + 1
    assert context(0, 16, None, []) == 7 * 28 + 2 * 4


@pytest.mark.parametrize("counts", [[1] * 9, [0.3] * 9, [1e9] + [0] * 8, [0.3] * 4 + [1e4] + [0.3] * 4, range(1, 10)])
def test_frequencies_of_any_counts_add_up_and_leave_everything_possible(counts: Any) -> None:
    made = band_gains.frequencies(np.asarray(counts, dtype=float))
    assert sum(made) == 4096
    assert min(made) >= 1
    assert made.index(max(made)) == int(np.argmax(counts))


@pytest.mark.parametrize("num_bands", [1, 5, 16, 64])
def test_gains_take_as_many_bits_as_the_tables_give_them(num_bands: int) -> None:
    values, bits = likely_gains(num_bands, 40_000 // num_bands)
    taken = 8 * len(RangeCoding().encode(values, NUM_GAINS))
    # Less than a thousandth for integers, and the last bytes.
    assert bits - 8 < taken < 1.001 * bits + 32


def test_likely_gains_take_half_of_what_raw_ones_do() -> None:
    values, _ = likely_gains(16, 50)
    assert len(GAIN_CODINGS[RANGE].encode(values, NUM_GAINS)) < 0.6 * len(GAIN_CODINGS[RAW].encode(values, NUM_GAINS))


def test_raw_integers_take_as_many_bits_as_the_largest_needs() -> None:
    values = np.array([[1, 2, 3], [8, 0, 5]])
    # 4 bits each, the first in the lowest: 1 | 2 << 4, 3 | 8 << 4, 0 | 5 << 4.
    assert Raw().encode(values, NUM_GAINS) == bytes([0x21, 0x83, 0x50])
    assert np.array_equal(Raw().decode(bytes([0x21, 0x83, 0x50]), (2, 3), NUM_GAINS), values)
    assert len(Raw().encode(np.zeros((4, 100), dtype=int), 1024)) == 4 * 100 * 10 // 8


@pytest.mark.parametrize("data", [bytes([0x21, 0x83]), bytes([0x21, 0x83, 0x50, 0]), bytes([0x21, 0x93, 0x50])])
def test_raw_integers_of_another_number_or_size_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        Raw().decode(data, (2, 3), NUM_GAINS)


def test_range_coding_is_for_gains_only() -> None:
    assert RANGE not in CODINGS
    with pytest.raises(ValueError, match="range coding is for 9 gains, not 1024"):
        RangeCoding().encode(np.zeros((1, 1), dtype=int), 1024)
    with pytest.raises(ValueError, match="range coding is for 9 gains, not 1024"):
        RangeCoding().decode(b"", (1, 1), 1024)
