"""Codes and numbers as bits and bytes."""

from __future__ import annotations

import numpy as np
import pytest

from sdcodec_cli.bitstream.packing import pack, packed_bytes, unpack
from sdcodec_cli.bitstream.wire import Cursor, varint


@pytest.mark.parametrize("bits", [1, 2, 3, 7, 8, 9, 10, 13, 16])
@pytest.mark.parametrize("num_codes", [1, 7, 8, 401])
def test_codes_survive_packing_at_any_width(bits: int, num_codes: int) -> None:
    codes = np.random.default_rng(bits).integers(0, 1 << bits, num_codes)
    data = pack(codes, bits)
    assert len(data) == packed_bytes(num_codes, bits)
    assert np.array_equal(unpack(data, num_codes, bits), codes)


def test_packing_is_one_long_little_endian_number() -> None:
    codes = np.random.default_rng(0).integers(0, 1024, 37)
    number = sum(int(code) << 10 * position for position, code in enumerate(codes))
    assert pack(codes, bits=10) == number.to_bytes(packed_bytes(37, 10), "little")


def test_codebooks_follow_one_another_in_a_chunk() -> None:
    assert pack(np.array([[1, 2], [3, 4]]), bits=8) == bytes([1, 2, 3, 4])


def test_padding_that_is_not_zero_is_refused() -> None:
    data = bytearray(pack(np.array([1, 2, 3]), bits=10))
    data[-1] |= 0x40
    with pytest.raises(ValueError, match="padding"):
        unpack(bytes(data), 3, bits=10)


def test_a_wrong_number_of_bytes_is_refused() -> None:
    with pytest.raises(ValueError, match="do not take 5 bytes"):
        unpack(bytes(5), 3, bits=10)


@pytest.mark.parametrize(
    ("value", "data"),
    # 624485 and 127, 128 are the examples of DWARF 5, section 7.6, where LEB128 is defined.
    [
        (0, "00"),
        (2, "02"),
        (127, "7f"),
        (128, "8001"),
        (12857, "b964"),
        (624485, "e58e26"),
        (2**63 - 1, "ff" * 8 + "7f"),
    ],
)
def test_varints_are_leb128(value: int, data: str) -> None:
    assert varint(value).hex() == data
    cursor = Cursor(bytes.fromhex(data))
    assert cursor.varint() == value
    assert cursor.at_end


@pytest.mark.parametrize("data", ["", "80", "8000", "ff" * 9, "ff" * 9 + "01"])
def test_a_varint_without_end_too_long_or_padded_is_refused(data: str) -> None:
    with pytest.raises(ValueError, match="varint"):
        Cursor(bytes.fromhex(data)).varint()
