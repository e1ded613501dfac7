"""The two primitives that everything in a stream is made of: little-endian integers and varints."""

from __future__ import annotations

MAX_VARINT_BYTES = 9


def varint(value: int) -> bytes:
    """LEB128: seven bits per byte, lowest first, the top bit set on all bytes but the last.

    >>> varint(300).hex()
    'ac02'
    """
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


class Cursor:
    """Takes fields off the front of `data`; a field that is not there or malformed is a `ValueError`."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0

    @property
    def at_end(self) -> bool:
        return self.position == len(self.data)

    def take(self, count: int) -> bytes:
        if count > len(self.data) - self.position:
            raise ValueError(f"{count} bytes announced, {len(self.data) - self.position} left")
        self.position += count
        return self.data[self.position - count : self.position]

    def uint(self, count: int) -> int:
        """A little-endian unsigned integer of `count` bytes."""
        return int.from_bytes(self.take(count), "little")

    def varint(self) -> int:
        """An unsigned integer below 2**63 in its shortest LEB128 form."""
        value = 0
        for index, byte in enumerate(self.data[self.position : self.position + MAX_VARINT_BYTES]):
            value |= (byte & 0x7F) << 7 * index
            if byte < 0x80:
                if byte == 0 and index > 0:
                    raise ValueError("a varint is longer than necessary")
                self.position += index + 1
                return value
        raise ValueError(f"a varint has no end within {MAX_VARINT_BYTES} bytes")
