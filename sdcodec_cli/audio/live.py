"""Audio in as it comes: WAV from a pipe, of which nothing is kept and nothing is read twice.

C channels, T samples.
"""

from __future__ import annotations

import contextlib
import struct
import sys
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import cast

import numpy as np

from ..errors import InputError
from .channels import checked_mask, default_mask
from .reader import check_samples
from .signals import EndingSignals
from .source import AudioInfo
from .structure import size_is_unknown
from .wav import Wav

PIECE_BYTES = 65_536
"""Most that is read at once."""

LEAST_SECONDS = 0.01
"""Of a block: what comes in smaller pieces is put together first."""

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
"""Codings of WAVE (Microsoft, "Multimedia Data Standards Update", 1994, and WAVEFORMATEXTENSIBLE)."""


class LiveReader:
    """Audio of a WAV file while it is still being written, from standard input, a pipe, a device or a file.

    Sizes in its header may be unknown, as `ffmpeg -f wav -`, `arecord` and `sox` leave them. Ctrl-C (SIGINT), SIGTERM
    and SIGHUP end it as its own end would; a second one acts as ever.

    Args:
        source: a path, or `-`

    Raises:
        InputError: it is missing, or no WAV file of numbers
    """

    info: AudioInfo
    """`num_samples` is None: the source may end earlier than it says."""

    def __init__(self, source: str | Path) -> None:
        self._given = str(source)
        self._name = "stdin" if self._given == "-" else self._given
        self._ends = contextlib.ExitStack()
        self.problem: str | None = None
        """Why it ended too early, complete once the audio was read to its end."""

    def __enter__(self) -> LiveReader:
        try:
            self._file = self._opened()
            self._signals = self._ends.enter_context(EndingSignals())
            self._read_header()
        except BaseException:
            self._ends.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self._ends.close()

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks for people."""
        return ()

    def blocks(self) -> Iterator[Wav]:
        """Yield the audio once, as `[C, T]` blocks of whatever has come.

        Raises:
            InputError: there is no sample at all, or the first ones are no finite numbers
        """
        width, rate = self._width, self.info.sample_rate
        least = max(1, round(LEAST_SECONDS * rate)) * width
        waiting, position, left = b"", 0, self._num_bytes
        while left is None or left:
            piece = self._piece(PIECE_BYTES if left is None else min(left, PIECE_BYTES))
            left = None if left is None else left - len(piece)
            waiting += piece
            if len(waiting) < least and piece and left != 0:
                continue
            whole = len(waiting) // width * width
            block = self._samples(waiting[:whole])
            waiting = waiting[whole:]
            try:
                check_samples(block, position, self.info)
            except InputError as error:
                if not position:
                    raise
                self.problem = str(error)
                break
            if whole:
                yield block
            position += block.shape[1]
            if not piece:
                break
        if left and self.problem is None and not self._signals.came:
            self.problem = f"{self._name}: stops after {position / rate:.3f} s, before the end that its header states"
        if position == 0:
            raise InputError(f"{self._name}: contains no samples; nothing to do")

    def _opened(self) -> BufferedReader:
        if self._given == "-":
            if sys.stdin.isatty():
                raise InputError("stdin: refusing to read audio from the terminal; pipe it in or name a file")
            return cast(BufferedReader, sys.stdin.buffer)
        try:
            return self._ends.enter_context(open(self._given, "rb"))
        except OSError as error:
            raise InputError(f"{self._given}: cannot be read: {error.strerror}; check its name") from error

    def _piece(self, count: int) -> bytes:
        """The next bytes, at least one; none at the end, after a signal, or after an error, which is noted."""
        try:
            return self._signals.read(lambda: self._file.read1(count))
        except OSError as error:
            self.problem = f"{self._name}: cannot be read further: {error.strerror}"
            return b""

    def _exactly(self, count: int) -> bytes:
        """So many bytes of the header."""
        data = b""
        while len(data) < count:
            piece = self._piece(count - len(data))
            if not piece:
                raise self._no_wav()
            data += piece
        return data

    def _skip(self, count: int) -> None:
        while count:
            count -= len(self._exactly(min(count, PIECE_BYTES)))

    def _read_header(self) -> None:
        riff, _, wave = struct.unpack("<4sI4s", self._exactly(12))
        if riff not in (b"RIFF", b"RF64") or wave != b"WAVE":
            raise self._no_wav()
        format, long_size = b"", None
        while True:
            kind, size = struct.unpack("<4sI", self._exactly(8))
            if kind == b"data":
                break
            if kind in (b"fmt ", b"ds64") and size <= 1024:
                body = self._exactly(size + size % 2)
                if kind == b"fmt ":
                    format = body
                elif size >= 16:
                    long_size = int.from_bytes(body[8:16], "little")
            else:
                self._skip(size + size % 2)
        if riff == b"RF64" and long_size:
            self._num_bytes: int | None = long_size
        else:
            self._num_bytes = None if size_is_unknown(size) else size
        self._read_format(format)

    def _read_format(self, body: bytes) -> None:
        if len(body) < 16:
            raise self._no_wav()
        coding, channels, rate, _, width, _ = struct.unpack("<HHIIHH", body[:16])
        mask = default_mask(channels) if channels <= 2 else None
        if coding == _EXTENSIBLE and len(body) >= 40:
            coding = int.from_bytes(body[24:26], "little")
            mask = checked_mask(int.from_bytes(body[20:24], "little"), channels) if channels > 2 else mask
        if not channels or not rate or width % channels:
            raise self._no_wav()
        known = {(_PCM, 1): "u1", (_PCM, 2): "<i2", (_PCM, 3): "i3", (_PCM, 4): "<i4", (_FLOAT, 4): "<f4"}
        kind = {**known, (_FLOAT, 8): "<f8"}.get((coding, width // channels))
        if kind is None:
            raise InputError(f"{self._name}: its coding is not one that --live reads; {self._hint()}")
        self._kind, self._width = kind, width
        subtype = f"{'FLOAT' if coding == _FLOAT else 'PCM'}_{8 * width // channels}"
        self.info = AudioInfo(self._name, rate, channels, None, "WAV", subtype, channel_mask=mask)

    def _samples(self, data: bytes) -> Wav:
        """Samples `[C, T]` of whole moments."""
        if self._kind == "i3":
            upper = np.zeros((len(data) // 3, 4), dtype=np.uint8)
            upper[:, 1:] = np.frombuffer(data, dtype=np.uint8).reshape(-1, 3)
            values = upper.view("<i4")[:, 0] / np.float32(2**31)
        else:
            given = np.frombuffer(data, dtype=self._kind)
            values = given.astype(np.float32)
            if self._kind == "u1":
                values = (values - 128) / 128
            elif given.dtype.kind == "i":
                values = values / np.float32(2 ** (8 * given.dtype.itemsize - 1))
        return np.ascontiguousarray(values.astype(np.float32).reshape(-1, self.info.channels).T)

    def _no_wav(self) -> InputError:
        if self._signals.came:
            return InputError(f"{self._name}: contains no samples; nothing to do")
        return InputError(f"{self._name}: is not WAV, which --live needs; {self._hint()}")

    def _hint(self) -> str:
        return "put e.g. ffmpeg -i INPUT -f wav - before it"
