"""Finds the units of a stream by their bytes, and makes sure that they are what they seem."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass

from .header import Header
from .segment import (
    END,
    END_BYTES,
    INDEX,
    SYNC,
    EndUnit,
    Index,
    SegmentHead,
    max_head_bytes,
    parse_end,
    parse_index,
    parse_segment,
)
from .source import PIECE, Source
from .wire import MAX_VARINT_BYTES, Cursor

SCAN_BYTES = 4096
"""Looked at in one go while searching for the next unit; two seconds of a live stream, roughly."""
_LANDMARK = re.compile(b"|".join((SYNC, INDEX, END)))


@dataclass(frozen=True)
class SegmentAt:
    """A segment with an intact head, and where it is."""

    head: SegmentHead
    payload: int
    """Offset of the first chunk."""

    @property
    def stop(self) -> int:
        return self.payload + self.head.payload_bytes


@dataclass(frozen=True)
class UnitAt:
    """A unit with an intact head that is neither segment nor end. Its body is not yet looked at."""

    kind: bytes
    body: int
    """Offset of the body."""
    num_bytes: int
    """Of the body."""
    num_head_bytes: int
    """From the type to the checksum."""

    @property
    def stop(self) -> int:
        return self.body + self.num_bytes + 4


class Scanner:
    """Looks for units at offsets from the start of a stream."""

    def __init__(self, source: Source, header: Header, first_unit: int) -> None:
        self._source = source
        self._header = header
        self._first_unit = first_unit
        self._max_head_bytes = max_head_bytes(header)

    def unit_at(self, offset: int) -> SegmentAt | UnitAt | EndUnit | None:
        """What starts at `offset`; None if nothing intact does. The end counts as intact with its body only."""
        start = self._source.read(offset, 5)
        if start[4:] >= b"\x80":  # The length takes more than one byte, thus at least 128 bytes follow.
            start = self._source.read(offset, 4 + MAX_VARINT_BYTES)
        cursor = Cursor(start)
        try:
            kind, length = cursor.take(4), cursor.varint()
            if kind == SYNC:
                if length > self._max_head_bytes:
                    return None
                fields = self._checked(offset, cursor.position + length)[cursor.position :]
                return SegmentAt(parse_segment(fields, self._header), offset + cursor.position + length + 4)
            if not (kind.isalpha() and kind.isascii()):
                return None
            self._checked(offset, cursor.position)
            unit = UnitAt(kind, offset + cursor.position + 4, length, cursor.position + 4)
            if kind != END:
                return unit
            if unit.stop - offset != END_BYTES:
                return None
            return parse_end(self._checked(unit.body, length), self._header)
        except ValueError:
            return None

    def next_unit(self, offset: int) -> int | None:
        """Offset of the first segment, index or end from `offset` on; None if there is no more."""
        while True:
            data = self._source.read(offset, SCAN_BYTES)
            for match in _LANDMARK.finditer(data):
                if self.unit_at(offset + match.start()) is not None:
                    return offset + match.start()
            if len(data) < SCAN_BYTES:
                return None
            offset += SCAN_BYTES - 3
            self._source.forget(offset)

    def is_whole(self, unit: UnitAt) -> bool:
        """Whether the body of a unit is intact. Passes over it piece by piece, forgetting all but the last one."""
        offset, stop, checksum = unit.body, unit.stop - 4, 0
        while data := self._source.read(offset, min(PIECE, stop - offset)):
            checksum = zlib.crc32(data, checksum)
            offset += len(data)
            self._source.forget(offset - PIECE)
        return self._source.read(offset, 4) == checksum.to_bytes(4, "little")

    def body_of(self, unit: UnitAt) -> bytes | None:
        """The body of a small unit; None if it is damaged."""
        try:
            return self._checked(unit.body, unit.num_bytes)
        except ValueError:
            return None

    def last_end(self) -> EndUnit | None:
        """The end, if the input can seek and its last bytes are the end of this very stream."""
        if self._source.size is None:
            return None
        offset = self._source.size - END_BYTES
        found = self.unit_at(offset) if offset >= self._first_unit else None
        return found if isinstance(found, EndUnit) and found.end_offset == offset else None

    def index_of(self, unit: EndUnit) -> Index | None:
        """The index that the end names, if there is one and the two agree."""
        found = self.unit_at(unit.index_offset) if unit.index_offset >= self._first_unit else None
        if not isinstance(found, UnitAt) or found.kind != INDEX:
            return None
        body = self.body_of(found)
        try:
            index = parse_index(body, self._header, unit.index_offset) if body is not None else None
        except ValueError:
            return None
        return index if index and index.total_frames == unit.end.total_frames else None

    def _checked(self, offset: int, num_bytes: int) -> bytes:
        """Bytes in front of their checksum. `ValueError` if it does not match, or not all of them are there."""
        data = self._source.read(offset, num_bytes + 4)
        if len(data) < num_bytes + 4 or zlib.crc32(data[:-4]) != int.from_bytes(data[-4:], "little"):
            raise ValueError("checksum mismatch")
        return data[:-4]
