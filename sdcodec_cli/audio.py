"""Read, write, resample and measure audio in blocks, so that memory does not grow with the length of a file.

Everything here works on numpy arrays and needs no torch. A `wav` is float32 `[C, T]`, full scale ±1.
"""

# C channels, T samples

from __future__ import annotations

import contextlib
import io
import math
import os
import re
import secrets
import shlex
import shutil
import stat
import struct
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from .errors import InputError, OutputError

Wav = NDArray[np.float32]

READ_SUFFIXES = frozenset(
    {".wav", ".wave", ".bwf", ".rf64", ".w64", ".flac", ".ogg", ".oga", ".opus", ".mp3"}
    | {".aif", ".aiff", ".aifc", ".au", ".snd", ".caf", ".voc"}
)
"""What a search of a folder takes for audio. A file named outright is read whatever its suffix."""

_WRITE_FORMATS = {
    ".wav": ("WAV", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".ogg": ("OGG", "VORBIS"),
    ".opus": ("OGG", "OPUS"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
}

SILENCE = 1e-4
"""Peak of audio that counts as silent, −80 dBFS."""

_UNKNOWN_FRAMES = 2**63 - 1  # libsndfile's SF_COUNT_MAX: a stream that does not say how long it is
_MAX_BLOCK_VALUES = 2**24  # caps a block at 64 MiB, whatever rate and channel count a header claims
_MAX_SAMPLE = 1e10  # squares and products with a gain stay far inside what 32-bit floats hold
_MP3_CODEC_DELAY = 4 * 1152  # samples by which encoders' own counts disagree, without anything being lost


# --------------------------------------------------------------------------------------------------------------------
# Reading
# --------------------------------------------------------------------------------------------------------------------


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
        return None if sound.frames == _UNKNOWN_FRAMES else int(sound.frames)

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


def downmix(wav: Wav) -> Wav:
    """The mean of the channels: `[C, T]` to `[1, T]`."""
    if len(wav) == 1:
        return wav
    mean: Wav = wav.mean(axis=0, keepdims=True, dtype=np.float32)
    return mean


# --------------------------------------------------------------------------------------------------------------------
# Resampling and loudness
# --------------------------------------------------------------------------------------------------------------------


class StreamResampler:
    """Change the sample rate of audio that arrives in blocks; the result does not depend on how it was cut.

    Shape:
        push: `[C, T]` to `[C, T']`, where T' may be 0 while the filter fills; flush: the rest `[C, T']`
    """

    def __init__(self, in_rate: int, out_rate: int, channels: int) -> None:
        self._channels = channels
        self._stream = None
        if in_rate != out_rate:
            self._stream = soxr.ResampleStream(in_rate, out_rate, channels, dtype="float32", quality="HQ")

    def push(self, wav: Wav) -> Wav:
        """Take a block, return what is ready."""
        if self._stream is None or wav.shape[1] == 0:
            return wav
        return self._run(wav, last=False)

    def flush(self) -> Wav:
        """Return what is still inside; call it once, at the end."""
        empty = np.zeros((self._channels, 0), np.float32)
        return empty if self._stream is None else self._run(empty, last=True)

    def _run(self, wav: Wav, *, last: bool) -> Wav:
        assert self._stream is not None
        block = np.ascontiguousarray(wav.T, dtype=np.float32)
        return np.ascontiguousarray(self._stream.resample_chunk(block, last=last).T)


class LoudnessMeter:
    """Integrated loudness of audio that arrives in blocks, after ITU-R BS.1770-4.

    Keeps one energy per 100 ms, and uses the K-weighting filters of pyloudnorm. The order of channels is left, right,
    centre, left surround, right surround; of those beyond, for which the standard has no weights, each counts as front.
    """

    def __init__(self, sample_rate: int, channels: int = 1) -> None:
        # Pulls in much, which takes longer to import than a short file takes to decode.
        import scipy.signal

        self._sample_rate = sample_rate
        self._filter = scipy.signal.sosfilt
        self._sos = k_weighting(sample_rate)
        self._state = np.zeros((len(self._sos), channels, 2))
        self._weights = np.ones(channels)
        self._weights[3:5] = 1.41
        self._energies: list[float] = []  # of the complete 100 ms, channels weighted and summed
        self._open_energy = 0.0  # of the 100 ms that are still arriving
        self._peak = 0.0
        self._count = 0

    def push(self, wav: Wav) -> None:
        """Take a block `[C, T]`."""
        if wav.shape[1] == 0:
            return
        self._peak = max(self._peak, float(np.abs(wav).max()))
        weighted, self._state = self._filter(self._sos, wav.astype(np.float64), axis=-1, zi=self._state)
        power = self._weights @ np.square(weighted)
        begin = self._count
        self._count += len(power)
        # Boundaries at whole samples: with 11,025 Hz a step is 1,102 or 1,103 samples.
        edges: list[int] = []
        while (edge := self._edge(len(self._energies) + len(edges) + 1)) <= self._count:
            edges.append(edge - begin)
        parts = np.split(power, edges)
        for part in parts[:-1]:
            self._energies.append(self._open_energy + float(part.sum()))
            self._open_energy = 0.0
        self._open_energy += float(parts[-1].sum())

    def integrated(self) -> float:
        """Loudness in LUFS of everything so far; −inf for silence, which is nothing above −80 dBFS.

        Gating needs 0.4 s, and more than −70 LUFS. Of what is shorter or quieter, this is the loudness ungated.
        """
        if self._peak < SILENCE:
            return -math.inf
        seconds = self._count / self._sample_rate
        ungated = _lufs((sum(self._energies) + self._open_energy) / self._count)
        if seconds < 0.4:
            return ungated
        num_blocks = int(np.round((seconds - 0.4) / 0.1) + 1)
        # The last block may reach past the end by half a step.
        energies = np.array([*self._energies, self._open_energy])[: num_blocks + 3]
        energies = np.pad(energies, (0, num_blocks + 3 - len(energies)))
        power = np.convolve(energies, np.ones(4), mode="valid") / (0.4 * self._sample_rate)
        with np.errstate(divide="ignore"):
            loudness = -0.691 + 10 * np.log10(power)
        audible = loudness >= -70
        if not audible.any():
            return ungated
        threshold = _lufs(float(power[audible].mean())) - 10
        return _lufs(float(power[audible & (loudness > threshold)].mean()))

    def _edge(self, index: int) -> int:
        return index * self._sample_rate // 10


def k_weighting(sample_rate: int) -> NDArray[np.float64]:
    """The weighting filter of ITU-R BS.1770-4 as second-order sections `[2, 6]`; pyloudnorm's.

    Where half the sample rate is below the frequency of a section, that section does nothing: it would not be stable.
    """
    import pyloudnorm

    nothing = [1.0, 0.0, 0.0, 1.0, 0.0, 0.0]
    with np.errstate(all="ignore"):
        sections = [[*stage.b, *stage.a] for stage in pyloudnorm.Meter(sample_rate)._filters.values()]
    return np.array([row if np.isfinite(row).all() and _is_stable(row[4:]) else nothing for row in sections])


def _is_stable(feedback: Sequence[float]) -> bool:
    """Whether both poles of `1 + a z⁻¹ + b z⁻²` are inside of the unit circle."""
    a, b = feedback
    return abs(b) < 1 and abs(a) < 1 + b


def integrated_loudness(wav: Wav, sample_rate: int) -> float:
    """Integrated loudness of a whole signal `[C, T]` in LUFS; see `LoudnessMeter`."""
    meter = LoudnessMeter(sample_rate, len(wav))
    meter.push(wav)
    return meter.integrated()


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


def _lufs(power: float) -> float:
    return -0.691 + 10 * math.log10(power) if power > 0 else -math.inf


# --------------------------------------------------------------------------------------------------------------------
# Writing
# --------------------------------------------------------------------------------------------------------------------


def check_target(target: str | Path, *, overwrite: bool) -> None:
    """Refuse an output that cannot be written, before any work is done for it.

    Raises:
        OutputError: it exists and `overwrite` is false, is a folder, or its folder is missing or not writable.
    """
    path = Path(target)
    if str(target) == "-" or _is_special(path):
        return
    if os.path.isdir(path):  # unlike Path.is_dir, False for a name that is too long
        raise OutputError(f"{target}: is a folder; name a file in it")
    if os.path.lexists(path) and not overwrite:
        raise OutputError(f"{target} exists; pass --force to overwrite it")
    folder = path.parent
    if not folder.is_dir():
        raise OutputError(f"{target}: there is no folder {folder}; create it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"{target}: the folder {folder} is not writable; choose another with -o")


def audio_format(target: str | Path) -> tuple[str, str]:
    """Format and subtype (libsndfile's names) of an output, from its suffix; WAV for `-` and devices.

    Raises:
        OutputError: the suffix stands for no format that can be written.
    """
    suffix = Path(target).suffix.lower()
    if str(target) == "-" or _is_special(Path(target)):
        return _WRITE_FORMATS[".wav"]
    if suffix not in _WRITE_FORMATS:
        known = ", ".join(_WRITE_FORMATS)
        raise OutputError(f"{target}: cannot write {suffix or 'a file without suffix'}; use one of {known}")
    return _WRITE_FORMATS[suffix]


def refuse_terminal() -> None:
    """Raise OutputError if standard output is a terminal."""
    if sys.stdout.isatty():
        raise OutputError("stdout: refusing to write binary data to the terminal; redirect it (> file) or pass -o FILE")


class AudioWriter:
    """Audio to a file that appears under its name only when it is complete.

    The format follows the suffix: `.wav` and `.flac` (16 bit), `.ogg` (Vorbis), `.opus`, `.mp3`; `-` is WAV on standard
    output. On any exception, Ctrl-C included, nothing is left behind and an existing file stays as it was.

    Args:
        target: a path, or `-`.
        sample_rate: in Hz.
        channels: how many each block has.
        overwrite: replace an existing file.
        num_samples: how many samples per channel will come. A WAV file that would pass 4 GiB becomes RF64. If None,
            room for the RF64 header is kept, and it becomes one only if it has to.

    Raises:
        OutputError: the target exists, cannot be written, or its format cannot hold this rate or channel count.
    """

    clipped: int
    """Samples beyond full scale so far, which were limited to it."""

    def __init__(
        self,
        target: str | Path,
        sample_rate: int,
        channels: int,
        *,
        overwrite: bool = False,
        num_samples: int | None = None,
    ) -> None:
        self.clipped = 0
        self._target = str(target)
        self._sample_rate, self._channels = sample_rate, channels
        self._overwrite = overwrite
        check_target(target, overwrite=overwrite)
        self._format, self._subtype = audio_format(target)
        if self._format == "WAV" and (num_samples is None or num_samples * channels * 2 > 2**32 - 4096):
            self._format = "RF64"
        self._may_shrink = num_samples is None
        self._limit = num_samples
        self._count = 0

    def __enter__(self) -> AudioWriter:
        if self._target == "-":
            refuse_terminal()
        self._file = _AtomicFile(self._target, overwrite=self._overwrite)
        self._sink = _Sink(self._file.file)
        try:
            self._sound = soundfile.SoundFile(
                self._sink, "w", self._sample_rate, self._channels, self._subtype, format=self._format
            )
        except BaseException as error:
            self._file.discard()
            if self._sink.error is not None:
                raise _cannot_write(self._target, self._sink.error) from error
            if isinstance(error, soundfile.LibsndfileError):
                raise self._refused() from error
            raise
        return self

    def write(self, wav: Wav) -> None:
        """Append a block `[C, T]`."""
        if wav.shape[0] != self._channels:
            raise ValueError(f"expected {self._channels} channels, got {wav.shape[0]}")
        self._count += wav.shape[1]
        if self._limit is not None and self._count > self._limit:
            raise ValueError(f"more samples than the {self._limit} announced")
        over = np.abs(wav) > 1
        if over.any():
            self.clipped += int(over.sum())
            wav = np.clip(wav, -1, 1)
        block: NDArray[Any] = np.ascontiguousarray(wav.T)
        if self._subtype == "PCM_16":
            # Not left to libsndfile, whose conversion rounds towards −inf; so a 16-bit file comes back bit for bit.
            block = np.clip(np.rint(block * 32768.0), -32768, 32767).astype(np.int16)
        # libsndfile's Vorbis encoder takes stack space in proportion to what it gets at once.
        for begin in range(0, len(block), 1 << 16):
            self._guard(lambda part=block[begin : begin + (1 << 16)]: self._sound.write(part))  # type: ignore[misc]

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        try:
            self._guard(self._sound.close)
            if kind is None:
                if self._format == "RF64" and self._may_shrink:
                    self._shrink()
                self._file.commit()
        finally:
            self._file.discard()

    def _guard(self, call: Callable[[], None]) -> None:
        """Run a call into libsndfile; if the file behind it failed meanwhile, say so in the system's words."""
        problem: Exception | None = None
        try:
            call()
        except (soundfile.LibsndfileError, AssertionError) as error:  # AssertionError: soundfile, on a short write
            problem = error
        cause = self._sink.error or problem
        if cause is not None:
            raise _cannot_write(self._target, cause) from cause

    def _refused(self) -> OutputError:
        name = {"VORBIS": "Ogg Vorbis", "OPUS": "Opus", "MPEG_LAYER_III": "MP3"}.get(self._subtype, self._format)
        rates = " (it takes 8, 12, 16, 24 and 48 kHz)" if self._subtype == "OPUS" else ""
        return OutputError(
            f"{self._target}: {name} cannot hold {self._channels} channel(s) at {self._sample_rate} Hz{rates}; "
            "write .wav or .flac instead"
        )

    def _shrink(self) -> None:
        """Turn an RF64 file below 4 GiB into a plain WAV: its `ds64` chunk becomes `JUNK` (EBU Tech 3306)."""
        file = self._file.file
        size = file.seek(0, os.SEEK_END)
        if size > 2**32 - 4096:
            return
        file.seek(0)
        header = file.read(4096)
        data = header.index(b"data")
        for offset, value in (
            (0, b"RIFF"),
            (4, struct.pack("<I", size - 8)),
            (12, b"JUNK"),
            (data + 4, struct.pack("<I", self._count * self._channels * 2)),
        ):
            file.seek(offset)
            file.write(value)


@contextlib.contextmanager
def atomic_output(target: str | Path, *, overwrite: bool) -> Iterator[BinaryIO]:
    """A binary file that appears under its name only when the block ends without an exception.

    `-` and devices such as `/dev/null` are written directly, as a stream.

    Raises:
        OutputError: the target exists, cannot be written, or is a terminal.
    """
    if str(target) == "-":
        refuse_terminal()
        with io.BufferedWriter(_Named(sys.stdout.buffer, target)) as stream:
            yield cast(BinaryIO, stream)
        sys.stdout.buffer.flush()
        return
    if _is_special(Path(target)):
        with open(target, "wb", buffering=0) as device, io.BufferedWriter(_Named(device, target)) as stream:
            yield cast(BinaryIO, stream)
        return
    output = _AtomicFile(target, overwrite=overwrite)
    try:
        with io.BufferedWriter(_Named(output.file, target)) as stream:
            yield cast(BinaryIO, stream)
        output.commit()
    finally:
        output.discard()


class _AtomicFile:
    """A nameless or hidden file that `commit` turns into the target, and `discard` removes."""

    def __init__(self, target: str | Path, *, overwrite: bool) -> None:
        check_target(target, overwrite=overwrite)
        self._target, self._overwrite = str(target), overwrite
        self._copied = self._target == "-" or _is_special(Path(target))
        self.file: IO[bytes]
        try:
            if self._copied:
                self.file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
                return
            # Beside the file that a link leads to, so that the rename stays on one file system and keeps the link.
            self._path = Path(os.path.realpath(target))
            self._temporary = self._path.with_name(f".sdc-{secrets.token_hex(8)}.part")
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
            self.file = open(os.open(self._temporary, flags, 0o666), "w+b", buffering=0)  # noqa: SIM115
            if os.path.exists(self._path):
                self._temporary.chmod(stat.S_IMODE(self._path.stat().st_mode))
        except OSError as error:
            raise _cannot_write(target, error) from error

    def commit(self) -> None:
        try:
            if not self._copied:
                self.file.close()
                check_target(self._target, overwrite=self._overwrite)
                os.replace(self._temporary, self._path)
                return
            self.file.seek(0)
            if self._target == "-":
                shutil.copyfileobj(self.file, sys.stdout.buffer, 1 << 20)
                sys.stdout.buffer.flush()
            else:
                with open(self._target, "wb") as device:
                    shutil.copyfileobj(self.file, device, 1 << 20)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise _cannot_write(self._target, error) from error

    def discard(self) -> None:
        """Remove what has not been committed."""
        self.file.close()
        if not self._copied:
            self._temporary.unlink(missing_ok=True)


class _Named(io.RawIOBase):
    """The writing end of a file; its failures become OutputErrors that name the target."""

    def __init__(self, file: IO[bytes], target: str | Path) -> None:
        self._file, self._target = file, target

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        try:
            return self._file.write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise _cannot_write(self._target, error) from error


class _Sink:
    """What libsndfile writes into: an exception cannot pass through its C code, so the first one is kept."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.error: OSError | None = None
        self.seek, self.tell, self.read = file.seek, file.tell, file.read

    def write(self, data: bytes) -> int:
        done = 0
        try:
            while done < len(data):  # an unbuffered file may take less than it is given
                done += self._file.write(data[done:])
        except OSError as error:
            self.error = self.error or error
        return done


def _is_special(path: Path) -> bool:
    """A device or pipe: something to write into, never to replace."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def _cannot_write(target: str | Path, error: BaseException) -> OutputError:
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    name = "stdout" if str(target) == "-" else target
    return OutputError(f"{name}: cannot be written: {reason}; free some space or choose another place with -o")
