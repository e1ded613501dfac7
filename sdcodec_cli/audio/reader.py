"""Audio in: from any file, pipe or standard input, in blocks, so that memory does not grow with its length.

C channels, T samples.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import stat
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, BinaryIO

import numpy as np
import soundfile

from ..errors import InputError
from .wav import StreamResampler, Wav, downmix

READ_SUFFIXES = frozenset(
    {".wav", ".wave", ".bwf", ".rf64", ".w64", ".flac", ".ogg", ".oga", ".opus", ".mp3"}
    | {".aif", ".aiff", ".aifc", ".au", ".snd", ".caf", ".voc"}
)
"""What a search of a folder takes for audio. A file named outright is read whatever its suffix."""

UNKNOWN_FRAMES = 2**63 - 1
"""Length that libsndfile gives a stream which does not say how long it is, its SF_COUNT_MAX."""

_MAX_BLOCK_VALUES = 2**24  # caps a block at 64 MiB, whatever rate and channel count a header claims
_MAX_SAMPLE = 1e10  # squares and products with a gain stay far inside what 32-bit floats hold
_MP3_CODEC_DELAY = 4 * 1152  # samples by which encoders' own counts disagree, without anything being lost


@dataclass(frozen=True)
class AudioInfo:
    """What a file says about itself."""

    name: str
    """The file as the user named it; `stdin` for `-`."""
    sample_rate: int
    """In Hz."""
    channels: int
    num_samples: int | None
    """Per channel; None if the container does not say. Streams are counted as they are read, so trust the blocks."""
    format: str
    """libsndfile's name of the container, such as `WAV`."""
    subtype: str
    """libsndfile's name of the coding, such as `PCM_16`."""
    tags: dict[str, str] = field(default_factory=dict)
    """`title`, `artist` and so on, as far as the file has them."""

    @property
    def seconds(self) -> float | None:
        """Length, if known."""
        return None if self.num_samples is None else self.num_samples / self.sample_rate


class AudioReader:
    """Audio from a file, a pipe or standard input, block by block and as often as wanted.

    What cannot be sought in (`-`, named pipes) is copied to a temporary file first; `TMPDIR` says where.

    Raises:
        InputError: the source is missing, empty, cut short, damaged, or not audio that libsndfile reads.
    """

    info: AudioInfo

    def __init__(self, source: str | Path) -> None:
        self._source = str(source)
        self._name = "stdin" if self._source == "-" else self._source
        self._spooled: Path | None = None

    def __enter__(self) -> AudioReader:
        try:
            self._path = self._find()
            self.info = self._read_info()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the temporary copy, if there is one."""
        if self._spooled is not None:
            self._spooled.unlink(missing_ok=True)
            self._spooled = None

    def blocks(self, seconds: float = 10.0, *, start: float = 0.0, duration: float | None = None) -> Iterator[Wav]:
        """Yield the audio as `[C, T]` blocks of at most `seconds`; every call reads from the beginning again.

        `start` and `duration` are in seconds; what lies beyond the end is left out.

        Raises:
            InputError: the file is damaged or cut short, holds no samples or samples that are not finite,
                or ends before `start`.
        """
        rate, channels = self.info.sample_rate, self.info.channels
        step = max(1, min(round(seconds * rate), _MAX_BLOCK_VALUES // channels))
        first = round(start * rate)
        last = None if duration is None else first + round(duration * rate)
        position = 0
        with self._open() as file:
            if first and self.info.subtype.startswith("PCM"):
                # Exact in WAV, AIFF, FLAC; lossy decoders start differently after a seek, so those are read through.
                position = file.seek(min(first, self._known_length(file) or first))
            while last is None or position < last:
                block = self._read(file, step, position)
                end = position + len(block)
                if len(block) == 0:
                    break
                wanted = block[max(0, first - position) : len(block) if last is None else last - position]
                position = end
                if len(wanted):
                    yield np.ascontiguousarray(wanted.T)
            else:
                return
            self._check_length(file, position)
        if position == 0:
            raise InputError(f"{self._name}: contains no samples; nothing to do")
        if first >= position:
            raise InputError(
                f"{self._name}: ends at {position / rate:.3f} s, so nothing starts at {start:.3f} s; start earlier"
            )

    def _find(self) -> Path:
        """The source as a file that can be read twice."""
        if self._source == "-":
            if sys.stdin.isatty():
                raise InputError("stdin: refusing to read audio from the terminal; pipe it in or name a file")
            return self._spool(sys.stdin.buffer)
        path = Path(self._source)
        try:
            mode = path.stat().st_mode
            if stat.S_ISDIR(mode):
                raise InputError(f"{self._name}: is a folder; name a file in it")
            if not stat.S_ISREG(mode):
                with path.open("rb") as pipe:
                    return self._spool(pipe)
            with path.open("rb"):
                pass
        except FileNotFoundError:
            raise InputError(f"{self._name}: no such file; check the name") from None
        except OSError as error:
            raise InputError(f"{self._name}: cannot be read: {error.strerror}; check its permissions") from error
        return path

    def _spool(self, stream: IO[bytes]) -> Path:
        try:
            with tempfile.NamedTemporaryFile(prefix="sdc-", delete=False) as copy:
                self._spooled = Path(copy.name)
                shutil.copyfileobj(stream, copy, 1 << 20)
        except OSError as error:
            raise InputError(
                f"{self._name}: cannot be copied to {tempfile.gettempdir()}: {error.strerror}; "
                "set TMPDIR to a folder with more room"
            ) from error
        return self._spooled

    def _read_info(self) -> AudioInfo:
        size = self._path.stat().st_size
        if size == 0:
            raise InputError(f"{self._name}: is empty (0 bytes); nothing to read")
        with self._path.open("rb") as file:
            magic = file.read(4)
            if magic == b"\x89SDC":
                raise InputError(f"{self._name}: is a .sdc file, not audio; turn it into audio with sdc decode")
            if magic == b"OggS":
                self._check_ogg(file)
        self._mp3 = False
        try:
            with _Sequential(_named(self._path)) as sound:
                tags = {name: text for name, text in sound.copy_metadata().items() if name != "software"}
                self._mp3 = sound.format == "MP3"
                self._check_cut(sound)
                sample_rate, channels = sound.samplerate, sound.channels
                format, subtype = sound.format, sound.subtype
        except (soundfile.LibsndfileError, TypeError) as error:  # TypeError: soundfile on a headerless .raw
            raise self._unreadable(error) from error
        with self._open() as sound:
            num_samples = self._known_length(sound)
        if num_samples == 0 and format == "WAV" and size > 1000:
            raise InputError(
                f"{self._name}: its header says 0 samples, as a recorder that was cut off leaves it; "
                f"repair it first: {self._ffmpeg('.repaired.wav', '-ignore_length 1 ')}"
            )
        if num_samples == 0:
            raise InputError(f"{self._name}: contains no samples; nothing to do")
        return AudioInfo(self._name, sample_rate, channels, num_samples, format, subtype, tags)

    def _unreadable(self, error: Exception) -> InputError:
        known = self._path.suffix.lower() in READ_SUFFIXES
        if known and getattr(error, "code", 1) != 1:  # 1: libsndfile does not recognise the container at all
            return self._damaged()
        return InputError(
            f"{self._name}: not audio that sdc reads (wav, flac, ogg, opus, mp3, aiff, ...); "
            f"convert it first, e.g. {self._ffmpeg('.wav')}"
        )

    def _damaged(self, seconds: float | None = None) -> InputError:
        where = "" if seconds is None else f" after {seconds:.3f} s"
        return InputError(
            f"{self._name}: is damaged or cut short{where}; to use what is left: {self._ffmpeg('.repaired.wav')}"
        )

    def _ffmpeg(self, suffix: str, option: str = "") -> str:
        """A command that makes a file out of the source that can be read."""
        path = Path("input") if self._spooled else Path(self._source)
        if path.suffix == suffix:
            suffix = f".converted{suffix}"
        return f"ffmpeg {option}-i {shlex.quote(str(path))} {shlex.quote(path.stem + suffix)}"

    @contextlib.contextmanager
    def _open(self) -> Iterator[_Sequential]:
        try:
            if not self._mp3:
                with _Sequential(_named(self._path)) as sound:
                    yield sound
                return
            # Given a file, libsndfile estimates the length of an mp3 that does not state it, and stops there: a
            # variable bitrate file loses its end. Given a pipe, it reads until the data ends.
            with _feed(self._path) as pipe, _Sequential(pipe, closefd=False) as sound:
                yield sound
        except soundfile.LibsndfileError as error:
            raise self._damaged() from error

    def _known_length(self, sound: soundfile.SoundFile) -> int | None:
        return None if sound.frames == UNKNOWN_FRAMES else int(sound.frames)

    def _read(self, sound: soundfile.SoundFile, count: int, position: int) -> Wav:
        try:
            block: Wav = sound.read(count, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise self._damaged(position / self.info.sample_rate) from error
        if not np.isfinite(block).all():
            bad = position + int(np.argmin(np.isfinite(block).all(axis=1)))
            raise InputError(
                f"{self._name}: has samples that are not numbers (NaN or infinite), the first at "
                f"{bad / self.info.sample_rate:.3f} s; export it again, or repair it in an audio editor"
            )
        if len(block) and float(np.abs(block).max()) > _MAX_SAMPLE:
            raise InputError(
                f"{self._name}: has samples more than 200 dB beyond full scale; export it again, or repair it in an "
                "audio editor"
            )
        return block

    def _check_length(self, sound: soundfile.SoundFile, position: int) -> None:
        promised = self._known_length(sound)
        tolerance = _MP3_CODEC_DELAY if self._mp3 else 0
        if promised is not None and position < promised - tolerance:
            raise self._damaged(position / self.info.sample_rate)

    def _check_cut(self, sound: soundfile.SoundFile) -> None:
        """Compare the length in the header of an uncompressed file with the bytes that are there.

        libsndfile notices the difference, writes it to its log and goes on. Writers that cannot seek back leave
        0xFFFFFFFF (ffmpeg) or about 2^31 (sox, arecord) in the header: that means unknown, not cut.
        """
        chunk = {"WAV": "data", "WAVEX": "data", "AIFF": "SSND", "AU": "Data Size", "W64": "riff", "RF64": "Riff size"}
        label = chunk.get(sound.format)
        found = label and re.search(rf"^\s*{label}\s*: (\d+) \(should be (\d+)\)", sound.extra_info, re.MULTILINE)
        if found:
            promised, there = int(found[1]), int(found[2])
            unknown = 0x7FFFF000 <= promised <= 0x80000000 or promised >= 0xFFFFFF00
            if promised > there + 1 and not unknown:
                raise self._damaged(sound.frames / sound.samplerate)

    def _check_ogg(self, file: BinaryIO) -> None:
        """Walk over the pages: the last stream must have ended, and libsndfile decodes only the first of a chain."""
        file.seek(0)
        ended = False
        while len(header := file.read(27)) == 27 and header[:4] == b"OggS":
            begins, ends = header[5] & 2, header[5] & 4
            if begins and ended:
                raise InputError(
                    f"{self._name}: several Ogg streams in a row, of which only the first can be read; "
                    f"join them first, e.g. {self._ffmpeg('.joined.wav')}"
                )
            ended = ended or bool(ends)
            file.seek(sum(file.read(header[26])), os.SEEK_CUR)
        if not ended:
            raise self._damaged()


def read_mono(source: str | Path, sample_rate: int) -> Wav:
    """A whole file, mixed down and resampled: `[T]`.

    Raises:
        InputError: see `AudioReader`
    """
    with AudioReader(source) as reader:
        resampler = StreamResampler(reader.info.sample_rate, sample_rate, 1)
        pieces = [resampler.push(downmix(block)) for block in reader.blocks()]
        pieces.append(resampler.flush())
    return np.asarray(np.concatenate(pieces, axis=1)[0], dtype=np.float32)


def _named(path: Path) -> str | bytes:
    """A file's name for soundfile, which takes text for UTF-8; on POSIX names are any bytes."""
    return os.fsencode(path) if os.name == "posix" else str(path)


class _Sequential(soundfile.SoundFile):  # type: ignore[misc]
    """A SoundFile that is read from front to back: it takes all there is, whatever length the header claims.

    soundfile otherwise seeks after every read, which fails on a FLAC file that was written to a pipe.
    """

    def seekable(self) -> bool:
        return False


@contextlib.contextmanager
def _feed(path: Path) -> Iterator[int]:
    """The reading end of a pipe through which a thread pushes an mp3 file, without its ID3v2 tag.

    libsndfile cannot skip a long tag (cover art) in a pipe.
    """
    reading, writing = os.pipe()

    def push() -> None:
        with path.open("rb") as file, contextlib.suppress(BrokenPipeError), open(writing, "wb") as pipe:
            header = file.read(10)
            if header[:3] == b"ID3":
                # Four bytes of seven bits each; bit 4 of the flags announces a footer of ten bytes (ID3v2.4, 3.1).
                size = sum(byte << shift for byte, shift in zip(header[6:], (21, 14, 7, 0), strict=True))
                file.seek(10 + size + (10 if header[5] & 0x10 else 0))
            else:
                file.seek(0)
            shutil.copyfileobj(file, pipe, 1 << 16)

    thread = threading.Thread(target=push, daemon=True)
    thread.start()
    try:
        yield reading
    finally:
        os.close(reading)
        thread.join()
