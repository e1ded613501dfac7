"""Bytes by their offset from the start of a stream, from a file or from a pipe."""

from __future__ import annotations

import io
from typing import BinaryIO

PIECE = 65_536
"""Most bytes asked for at once: a length field that lies must not cause an allocation."""


class Source:
    """Random access to a binary input: to all of it if it can seek, else from the byte last given to `forget` on.

    Never asks a pipe for a byte before it is needed: the next one may not have been produced yet.
    """

    def __init__(self, fo: BinaryIO) -> None:
        self._fo = fo
        self._base = fo.tell() if fo.seekable() else 0
        self.size = fo.seek(0, io.SEEK_END) - self._base if fo.seekable() else None
        """Bytes from the start of the stream to the end of the file; None for input that cannot seek."""
        self.oldest = 0
        """Offset of the first byte that can still be read."""
        self.bytes_read = 0
        """Offset behind the last byte that was read."""
        self._window = bytearray()

    def read(self, offset: int, count: int) -> bytes:
        """Bytes from `offset`, fewer than `count` only at the end of the input. Blocks until they are there."""
        if self.size is not None:
            # An offset taken from the stream can be more than the system accepts.
            self._fo.seek(self._base + min(offset, self.size))
            data = self._pull(count)
            if data:
                self.bytes_read = max(self.bytes_read, offset + len(data))
            return data
        missing = offset + count - self.bytes_read
        if missing > 0:
            data = self._pull(missing)
            self._window += data
            self.bytes_read += len(data)
        return bytes(self._window[offset - self.oldest : offset - self.oldest + count])

    def forget(self, offset: int) -> None:
        """Bytes before `offset` will not be asked for again."""
        if self.size is None and offset > self.oldest:
            del self._window[: offset - self.oldest]
            self.oldest = min(offset, self.bytes_read)

    def _pull(self, count: int) -> bytes:
        """The next bytes of the input; one read may bring fewer than it was asked for without being the last."""
        piece = self._fo.read(min(count, PIECE))
        if len(piece) == count or not piece:
            return piece
        data = bytearray(piece)
        while piece and len(data) < count:
            piece = self._fo.read(min(count - len(data), PIECE))
            data += piece
        return bytes(data)
