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


each_kind = pytest.mark.parametrize("kind", KINDS, ids=["envelope", "treble"])


@st.composite
def gains(draw: st.DrawFn) -> tuple[GainKind, Values]:
    """Any gains at all, from 0: of few bands or many, for a long time or a short one."""
    kind = draw(st.sampled_from(KINDS))
    shape = draw(st.integers(1, 64)), draw(st.integers(1, 12))
    lowest, highest = sorted(draw(st.tuples(st.integers(0, kind.count - 1), st.integers(0, kind.count - 1))))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    return kind, rng.integers(lowest, highest + 1, shape)


def likely_gains(kind: GainKind, num_bands: int, num_columns: int, seed: int = 0) -> tuple[Values, float]:
    """Gains drawn from the very tables, and the bits that Shannon gives them."""
    chance, columns, bits = random.Random(seed), [], 0.0
    for _ in range(num_columns):
        column: list[int] = []
        for band in range(num_bands):
            row = kind.frequencies[kind.context(band, num_bands, columns[-1] if columns else None, column)]
            column.append(chance.choices(range(kind.count), row)[0])
            bits -= math.log2(row[column[-1]] / 2**PRECISION)
        columns.append(column)
    return np.array(columns).T, bits


def encode(kind: GainKind, values: Values) -> bytes:
    return RangeCoding(kind).encode(values, kind.count)


def decode(kind: GainKind, data: bytes, shape: tuple[int, int]) -> Values:
    return RangeCoding(kind).decode(data, shape, kind.count)


@settings(max_examples=150, deadline=None)
@given(gains(), st.sampled_from([RAW, RANGE]))
def test_any_gains_come_back(given: tuple[GainKind, Values], coding: int) -> None:
    kind, values = given
    data = kind.codings[coding].encode(values, kind.count)
    back = kind.codings[coding].decode(data, values.shape, kind.count)
    assert np.array_equal(back, values)
    assert back.dtype == np.int64


@each_kind
@pytest.mark.parametrize("highest", [False, True])
def test_gains_that_are_all_the_least_or_the_greatest_come_back(kind: GainKind, highest: bool) -> None:
    """The ends of every interval, where a carry runs through all bytes."""
    values = np.full((64, 200), highest * (kind.count - 1))
    assert np.array_equal(decode(kind, encode(kind, values), values.shape), values)


@each_kind
def test_zeros_at_the_end_are_not_stored(kind: GainKind) -> None:
    """The first interval begins at 0, so nothing at all stands for the lowest gains."""
    assert encode(kind, np.zeros((16, 50), dtype=int)) == b""
    values, _ = likely_gains(kind, 16, 50)
    data = encode(kind, values)
    assert not data.endswith(b"\0")
    assert np.array_equal(decode(kind, data + b"\0", values.shape), values)


def read(kind: GainKind, data: bytes, shape: tuple[int, int]) -> Values | None:
    """Gains, which have to be some; None where the bytes are refused."""
    try:
        values = decode(kind, data, shape)
    except ValueError:
        return None
    assert values.shape == shape
    assert values.min() >= 0
    assert values.max() < kind.count
    return values


@each_kind
def test_every_flipped_bit_is_refused_or_gives_other_gains(kind: GainKind) -> None:
    values, _ = likely_gains(kind, 8, 25)
    data = encode(kind, values)
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        found = read(kind, bytes(damaged), values.shape)
        # Of the last byte, the lowest bits need not count.
        assert found is None or bit // 8 == len(data) - 1 or not np.array_equal(found, values)


@each_kind
def test_bytes_cut_anywhere_are_refused_or_give_gains(kind: GainKind) -> None:
    values, _ = likely_gains(kind, 8, 25)
    data = encode(kind, values)
    for size in range(len(data)):
        read(kind, data[:size], values.shape)
        read(kind, data[size:], values.shape)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(KINDS), st.binary(max_size=200), st.integers(1, 64), st.integers(1, 8))
def test_bytes_of_any_kind_are_refused_or_give_gains(
    kind: GainKind, data: bytes, num_bands: int, num_columns: int
) -> None:
    read(kind, data, (num_bands, num_columns))


@each_kind
def test_bytes_after_the_last_gain_are_refused(kind: GainKind) -> None:
    with pytest.raises(ValueError, match="after the last gain"):
        decode(kind, bytes(9), (1, 1))


@each_kind
def test_every_context_has_a_table_in_which_every_gain_is_possible(kind: GainKind) -> None:
    assert len(kind.frequencies) == band_gains.NUM_CONTEXTS[kind] == (224 if kind is ENVELOPE_GAINS else 134)
    for row in kind.frequencies:
        assert len(row) == kind.count
        assert min(row) >= 1
        assert sum(row) == 2**PRECISION == 4096


def test_contexts_of_an_envelope_are_counted_by_the_neighbours_and_the_place_of_the_band() -> None:
    gains_from_0 = range(ENVELOPE_GAINS.count)
    found = {
        envelope_context(band, 8, None if past is None else [past] * 8, [below] * band)
        for band in range(8)
        for past in (None, *gains_from_0)
        for below in gains_from_0
    }
    assert found == set(range(224))
    zero = -ENVELOPE_GAINS.lowest
    # (gain before, from −2) · 28 + (gain below, from −2) · 4 + class; both zero here, and -3 counts as -2, 5 as 4.
    assert envelope_context(0, 16, [zero] * 16, []) == 2 * 28 + 2 * 4
    assert envelope_context(15, 16, [zero] * 16, [zero] * 15) == 2 * 28 + 2 * 4 + 3
    assert envelope_context(4, 16, [0] * 16, [8] * 4) == 0 * 28 + 6 * 4 + 1
    assert envelope_context(0, 16, None, []) == 7 * 28 + 2 * 4


def test_contexts_of_treble_are_counted_by_the_gain_before_and_the_change_of_the_band_below() -> None:
    every = range(TREBLE_GAINS.count)
    found = {
        treble_context(band, 2, None if past is None else [was, past], [below][:band])
        for band in range(2)
        for past in (None, *every)
        for was in every
        for below in every
    }
    # 19 · 6 + 20: without a time before, the band below counts, and there is none below the first band.
    assert found == set(range(134))
    assert treble_context(0, 8, None, []) == 19
    assert treble_context(3, 8, None, [1, 2, 7]) == 7
    # 20 + 6 · before + change, from -2 or less to 2 or more; 5 for the lowest band.
    assert treble_context(0, 8, [11] * 8, []) == 20 + 6 * 11 + 5
    assert [treble_context(1, 8, [10, 4], [now]) for now in (0, 8, 9, 10, 11, 12, 18)] == [
        20 + 6 * 4 + change for change in (0, 0, 1, 2, 3, 4, 4)
    ]


@pytest.mark.parametrize("counts", [[1] * 9, [0.3] * 9, [1e9] + [0] * 8, [0.3] * 4 + [1e4] + [0.3] * 4, range(1, 10)])
def test_frequencies_of_any_counts_add_up_and_leave_everything_possible(counts: Any) -> None:
    made = band_gains.frequencies(np.asarray(counts, dtype=float))
    assert sum(made) == 4096
    assert min(made) >= 1
    assert made.index(max(made)) == int(np.argmax(counts))


@each_kind
@pytest.mark.parametrize("num_bands", [1, 5, 16, 64])
def test_gains_take_as_many_bits_as_the_tables_give_them(kind: GainKind, num_bands: int) -> None:
    values, bits = likely_gains(kind, num_bands, 10_000 // num_bands)
    taken = 8 * len(encode(kind, values))
    # Less than a thousandth for integers, and the last bytes.
    assert bits - 8 < taken < 1.001 * bits + 32


def test_likely_gains_take_half_of_what_raw_ones_do() -> None:
    values, _ = likely_gains(ENVELOPE_GAINS, 16, 50)
    sizes = {coding: len(ENVELOPE_GAINS.codings[coding].encode(values, 9)) for coding in (RAW, RANGE)}
    assert sizes[RANGE] < 0.6 * sizes[RAW]


def test_raw_integers_take_as_many_bits_as_the_largest_needs() -> None:
    values = np.array([[1, 2, 3], [8, 0, 5]])
    # 4 bits each, the first in the lowest: 1 | 2 << 4, 3 | 8 << 4, 0 | 5 << 4.
    assert Raw().encode(values, ENVELOPE_GAINS.count) == bytes([0x21, 0x83, 0x50])
    assert np.array_equal(Raw().decode(bytes([0x21, 0x83, 0x50]), (2, 3), ENVELOPE_GAINS.count), values)
    assert len(Raw().encode(np.zeros((8, 50), dtype=int), TREBLE_GAINS.count)) == 8 * 50 * 5 // 8
    assert len(Raw().encode(np.zeros((4, 100), dtype=int), 1024)) == 4 * 100 * 10 // 8


@pytest.mark.parametrize("data", [bytes([0x21, 0x83]), bytes([0x21, 0x83, 0x50, 0]), bytes([0x21, 0x93, 0x50])])
def test_raw_integers_of_another_number_or_size_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        Raw().decode(data, (2, 3), ENVELOPE_GAINS.count)


@each_kind
def test_range_coding_is_for_gains_of_one_kind_only(kind: GainKind) -> None:
    assert RANGE not in CODINGS
    for size in (1024, *({9, 19} - {kind.count})):
        with pytest.raises(ValueError, match=f"range coding is for {kind.count} gains, not {size}"):
            RangeCoding(kind).encode(np.zeros((1, 1), dtype=int), size)
        with pytest.raises(ValueError, match=f"range coding is for {kind.count} gains, not {size}"):
            RangeCoding(kind).decode(b"", (1, 1), size)
