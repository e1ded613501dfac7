"""What the tests of live audio share: standard input that comes in pieces, and how late it comes out again."""

from __future__ import annotations

import io
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sdcodec_cli.audio.writer import wav_header
from sdcodec_cli.engine.codec import Codec
from sdcodec_cli.engine.compress import compress
from sdcodec_cli.engine.decode import decode

HEADER_BYTES = 44


def live_wav(wav: NDArray[np.floating[Any]], rate: int = 16_000, channel_mask: int | None = None) -> bytes:
    """WAV `[T, C]` or `[T]` of 16 bits as FFmpeg writes it into a pipe, with unknown sizes."""
    channels = 1 if wav.ndim == 1 else wav.shape[1]
    pcm = np.rint(np.clip(wav, -1, 1) * 32767).astype("<i2")
    return wav_header(rate, channels, None, channel_mask) + pcm.tobytes()


class Feed(io.RawIOBase):
    """Input that comes `step` bytes at a time, counts them, and does something at the end."""

    def __init__(self, data: bytes, step: int = 640, at_end: Callable[[], object] = lambda: None) -> None:
        self.data, self.step, self.at_end = data, step, at_end
        self.count = 0

    def read1(self, size: int) -> bytes:
        piece = self.data[self.count : self.count + min(size, self.step)]
        self.count += len(piece)
        if not piece:
            self.at_end()
        return piece


class Sink(io.RawIOBase):
    """Output that notes what a clock shows whenever something is written."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self.clock, self.pieces = clock, list[tuple[int, bytes]]()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.pieces.append((self.clock(), bytes(data)))
        return len(data)

    @property
    def data(self) -> bytes:
        return b"".join(piece for _, piece in self.pieces)


class Replay(io.RawIOBase):
    """What a sink was given, as a pipe; knows what the sink's clock showed when what has been read was written."""

    def __init__(self, pieces: Sequence[tuple[int, bytes]]) -> None:
        self._times = [time for time, _ in pieces]
        self._ends = np.cumsum([len(data) for _, data in pieces])
        self._data, self._at = b"".join(data for _, data in pieces), 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        piece = self._data[self._at : self._at + size]
        self._at += len(piece)
        return piece

    def clock(self) -> int:
        return self._times[int(np.searchsorted(self._ends, self._at))] if self._at else 0


def standard(monkeypatch: pytest.MonkeyPatch, stdin: Any, stdout: Any = None) -> None:
    """Put these in the places of standard input and output."""
    monkeypatch.setattr("sys.stdin", types.SimpleNamespace(buffer=stdin, isatty=lambda: False))
    if stdout is not None:
        monkeypatch.setattr("sys.stdout", types.SimpleNamespace(buffer=stdout, isatty=lambda: False))


def compress_live(codec: Codec, feed: Feed, target: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Any:
    standard(monkeypatch, feed)
    return compress("-", target, codec=codec, live=True, overwrite=True, **options)


def delays(codec: Codec, wav: bytes, rate: int, monkeypatch: pytest.MonkeyPatch, **options: Any) -> list[float]:
    """Seconds that the first sample of each decoded piece comes later than it went in, before the input ended.

    Both ways are counted in samples, so that no clock has a part in it: what is measured is how much has to be heard,
    and not how fast it is computed.
    """
    feed = Feed(wav, step=2 * (rate // 50))
    stream = Sink(lambda: feed.count)
    with monkeypatch.context() as patch:
        standard(patch, feed, stream)
        compress("-", "-", codec=codec, live=True, **options)
    pipe = Replay(stream.pieces)
    decoded = Sink(pipe.clock)
    with monkeypatch.context() as patch:
        standard(patch, pipe, decoded)
        decode("-", {"mix": "-"}, codec=codec)
    assert len(decoded.data) == len(wav)
    found, done = [], 0
    for count, piece in decoded.pieces:
        if done and count < len(wav):
            found.append((count - done) / (2 * rate))
        done += len(piece)
    return found
