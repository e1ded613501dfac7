"""Audio out: to a file of any format that appears when it is complete, in blocks.

C channels, T samples.
"""

from __future__ import annotations

import contextlib
import os
import struct
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from ..errors import OutputError
from ..progress import Progress, in_stage
from .channels import layout_name, means_default, roles_of, to_vorbis_order
from .coders import CODERS, layout_of
from .cover import Cover
from .film import FilmWriter
from .formats import WriteOptions, audio_format
from .m4a import M4aError, M4aFile
from .output import (
    AtomicFile,
    DirectFile,
    Sink,
    cannot_write,
    check_target,
    commit_together,
    is_special,
    refuse_terminal,
)
from .signals import signals_wait
from .tagging import add_tags
from .wav import StreamResampler, Wav, to_16_bit, to_24_bit

TAGS = ("title", "artist", "album", "date", "tracknumber", "genre", "comment", "copyright", "license")
"""Names of the tags that files get."""

HELD_SAMPLES = 1 << 18
"""Of each channel that are read back at once, of audio that was held back."""


_MAX_RIFF_BYTES = 2**32 - 4096
"""Of a WAV file; a longer one is RF64."""

_UNKNOWN_SIZE = 2**32 - 1
"""What a WAV header says of a size that is not known yet, as FFmpeg writes it."""

_ENCODER_ERRORS = (soundfile.LibsndfileError, AssertionError, M4aError)
"""AssertionError comes from soundfile, on a short write."""

_PCM_GUID = bytes.fromhex("0100000000001000800000aa00389b71")


def wav_header(sample_rate: int, channels: int, num_samples: int | None, channel_mask: int | None) -> bytes:
    """All that comes before the samples of a WAV file of 16 bits; `num_samples` is None where it is not known."""
    bytes_per_sample = 2 * channels
    format = struct.pack("<HIIHH", channels, sample_rate, sample_rate * bytes_per_sample, bytes_per_sample, 16)
    if channels > 2:
        format = struct.pack("<H", 0xFFFE) + format + struct.pack("<HHI", 22, 16, channel_mask or 0) + _PCM_GUID
    else:
        format = struct.pack("<H", 1) + format
    chunks = b"fmt " + struct.pack("<I", len(format)) + format
    begin, sizes = b"RIFF", b""
    riff = data = _UNKNOWN_SIZE
    if num_samples is not None and num_samples * bytes_per_sample <= _MAX_RIFF_BYTES:
        data = num_samples * bytes_per_sample
        riff = 4 + len(chunks) + 8 + data
    elif num_samples is not None:  # EBU Tech 3306: sizes of 64 bits, and in their places -1
        long = num_samples * bytes_per_sample
        begin, sizes = (
            b"RF64",
            struct.pack("<4sIQQQI", b"ds64", 28, 4 + 36 + len(chunks) + 8 + long, long, num_samples, 0),
        )
    return struct.pack("<4sI4s", begin, riff, b"WAVE") + sizes + chunks + struct.pack("<4sI", b"data", data)


class AudioWriter:
    """Audio to a file that appears under its name only when it is complete.

    The format is that of the options, or follows the suffix: `.wav` and `.flac` (16 bit), `.ogg` (Vorbis), `.opus`,
    `.mp3`, `.m4a` (AAC); `-` is WAV on standard output. Where a format does not take the sample rate, audio is
    resampled to the next higher one that it takes. On any exception, Ctrl-C included, nothing is left behind and an
    existing file stays as it was.

    Args:
        target: a path, or `-`.
        sample_rate: in Hz.
        channels: how many each block has, in the order of WAV files.
        overwrite: replace an existing file.
        num_samples: how many samples per channel will come. A WAV file that would pass 4 GiB becomes RF64. If None,
            room for the RF64 header is kept, and it becomes one only if it has to.
        channel_mask: what each channel is for, see `channels`; None if that is not known.
        tags: such as `title`, by the names of `TAGS`; others are left out, and so are all of what is written at once.
        cover: a picture. WAV holds none, which a note says.
        at_once: write every block to standard output, a pipe or a device as soon as it comes, and not all of them in
            the end. A header is then written first, and says that the length is unknown where `num_samples` is None. Of
            16 bit WAV that is not rescaled.
        write: format, bitrate, and what becomes of samples beyond full scale.

    Raises:
        OutputError: the target exists, cannot be written, or its format cannot hold these channels or has no such
            bitrate.
    """

    clipped: int
    """Samples beyond full scale so far, which were limited to it."""
    peak: float
    """The largest sample so far, full scale being 1."""
    scale: float
    """What all samples were multiplied by, as `WriteOptions.rescale` asks; known at the end."""
    notes: tuple[str, ...]
    """Anything worth saying about the file."""

    def __init__(
        self,
        target: str | Path,
        sample_rate: int,
        channels: int,
        *,
        overwrite: bool = False,
        num_samples: int | None = None,
        channel_mask: int | None = None,
        tags: Mapping[str, str] | None = None,
        cover: Cover | None = None,
        at_once: bool = False,
        write: WriteOptions | None = None,
    ) -> None:
        write = write or WriteOptions()
        self.clipped, self.peak, self.scale, self.notes = 0, 0.0, 1.0, ()
        self.rescales = write.rescale
        self._tags = {name: text for name, text in (tags or {}).items() if name in TAGS}
        self._target = str(target)
        self._channels = channels
        self._overwrite = overwrite
        check_target(target, overwrite=overwrite)
        self._kind = kind = audio_format(target, write)
        self._rates = sample_rate, kind.rate_for(sample_rate)
        self._resampler = None
        if self._rates[0] != self._rates[1]:
            self._resampler = StreamResampler(*self._rates, channels)
            self.notes = (f"written at {self._rates[1]} Hz, because {kind.label} does not take {sample_rate}",)
        self._coder = CODERS[kind.subtype.lower()] if kind.container == "M4A" else None
        self._level: float | None = None
        self._bitrate = 0
        if self._coder is not None or write.bitrate is not None:
            try:
                if self._coder is not None:
                    self._bitrate = self._coder.bitrate_for(write.bitrate, self._rates[1], channels)
                elif write.bitrate is not None:
                    self._level = kind.compression_level(write.bitrate, self._rates[1], channels)
            except ValueError as error:
                raise OutputError(
                    f"{target}: {kind.label} of {channels} channel(s) at {self._rates[1]} Hz takes {error}, not "
                    f"{write.bitrate:g}"
                ) from error
        self._format, self._subtype = kind.container, kind.subtype
        self._cover = None if kind.container == "WAV" else cover
        if cover is not self._cover:
            self.notes += (f"{kind.label} holds no cover, so that of the input is left out",)
        self._direct: DirectFile | None = None
        self._at_once = at_once and (self._target == "-" or is_special(Path(target)))
        self._at_once = self._at_once and (self._format, self._subtype) == ("WAV", "PCM_16") and not write.rescale
        size = None if num_samples is None else num_samples * channels * kind.sample_bytes
        if self._format == "WAV" and (size is None or size > _MAX_RIFF_BYTES):
            self._format = "RF64"
        elif self._format == "WAV" and channels > 2:
            self._format = "WAVEX"
        self._mask = channel_mask
        if channel_mask is not None and self._format in ("FLAC", "OGG") and not means_default(channel_mask):
            raise OutputError(
                f"{target}: {'FLAC' if self._format == 'FLAC' else 'Ogg'} cannot say that its channels are "
                f"{' '.join(roles_of(channel_mask))} ({layout_name(channel_mask)}); write .wav instead"
            )
        # Where it is not known what channels are for, the same order brings each of them back to its place.
        self._order = to_vorbis_order(channels) if self._format == "OGG" else list(range(channels))
        self._may_shrink = num_samples is None
        self._limit = num_samples
        self._count = self._given = 0  # samples per channel that came, and that went on at the file's own rate
        self._sound: Any = None
        self._held: IO[bytes] | None = None

    def __enter__(self) -> AudioWriter:
        self._open()
        return self

    def _open(self) -> None:
        if self._target == "-":
            refuse_terminal()
        if self._at_once:
            self._direct = DirectFile(self._target)
            self._direct.write(wav_header(self._rates[1], self._channels, self._limit, self._mask))
            return
        file: AtomicFile | None = None
        try:
            with signals_wait():
                self._file = file = AtomicFile(self._target, overwrite=self._overwrite)
                self._sink = Sink(file.file)
                if self.rescales:
                    self._held = _hidden_file(self._target)
                self._sound = self._encoder()
                if self._format in ("FLAC", "OGG"):  # in MP3, libsndfile garbles all letters but those of English
                    self._tag()
        except BaseException as error:
            if file is None:
                raise
            self._discard()
            if self._sink.error is not None:
                raise cannot_write(self._target, self._sink.error) from error
            if isinstance(error, soundfile.LibsndfileError | M4aError):
                raise self._refused() from error
            raise

    def _encoder(self) -> Any:
        """What samples are given to: libsndfile, or FFmpeg in its likeness."""
        if self._coder is not None:
            layout = layout_of(self._channels, self._mask)
            if layout is None:
                raise self._refused()
            return M4aFile(self._sink, self._coder, self._rates[1], layout, self._bitrate, self._tags)
        return soundfile.SoundFile(
            self._sink,
            "w",
            self._rates[1],
            self._channels,
            self._subtype,
            format=self._format,
            compression_level=self._level,
            bitrate_mode="CONSTANT" if self._level is not None and self._format == "MP3" else None,
        )

    def _tag(self) -> None:
        for name, text in self._tags.items():
            setattr(self._sound, name, text)

    def write(self, wav: Wav) -> None:
        """Append a block `[C, T]`."""
        if wav.shape[0] != self._channels:
            raise ValueError(f"expected {self._channels} channels, got {wav.shape[0]}")
        self._count += wav.shape[1]
        if self._limit is not None and self._count > self._limit:
            raise ValueError(f"more samples than the {self._limit} announced")
        self._take(wav if self._resampler is None else self._resampler.push(wav))

    def _take(self, wav: Wav) -> None:
        """Samples at the file's own rate: to the encoder, or held back until their factor is known."""
        self._given += wav.shape[1]
        self.peak = max(self.peak, float(np.abs(wav).max(initial=0)))
        if self._held is None:
            self._encode(wav)
            return
        try:
            self._held.write(np.ascontiguousarray(wav.T, dtype=np.float32).tobytes())
        except OSError as error:
            raise cannot_write(self._target, error) from error

    def _encode(self, wav: Wav) -> None:
        if self._subtype != "FLOAT":
            over = np.abs(wav) > 1
            if over.any():
                self.clipped += int(over.sum())
                wav = np.clip(wav, -1, 1)
        block: NDArray[Any] = np.ascontiguousarray(wav[self._order].T)
        if self._direct is not None:
            self._direct.write(to_16_bit(block).astype("<i2", copy=False).tobytes())
            return
        # Not left to libsndfile, whose conversion rounds towards −inf; so such a file comes back bit for bit.
        if self._subtype in ("PCM_16", "ALAC"):
            block = to_16_bit(block)
        elif self._subtype == "PCM_24":
            block = to_24_bit(block)
        # libsndfile's Vorbis encoder takes stack space in proportion to what it gets at once.
        for begin in range(0, len(block), 1 << 16):
            self._guard(lambda part=block[begin : begin + (1 << 16)]: self._sound.write(part))  # type: ignore[misc]

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        try:
            if kind is None:
                _finish_together([self])
                if self._direct is None:
                    self._file.commit()
        finally:
            self._discard()

    def _end(self) -> None:
        """Take what the resampler still has: all in all as much as lasts as long as what came in."""
        if self._resampler is None:
            return
        in_rate, out_rate = self._rates
        missing = -(-self._count * out_rate // in_rate) - self._given
        rest = self._resampler.flush()[:, : max(0, missing)]
        # Two roundings can leave a resampled length some samples short.
        self._take(np.pad(rest, ((0, 0), (0, max(0, missing - rest.shape[1])))))

    def _finish(self, tell: Callable[[float], None] | None = None) -> None:
        """Write what was held back and the end of the file, after which it only needs its name.

        `tell` is called with the seconds of each block that was held back.
        """
        if self._direct is not None:
            return
        for wav in self._read_back():
            self._encode(wav * np.float32(self.scale))
            if tell:
                tell(wav.shape[1] / self._rates[1])
        if self._format in ("WAV", "WAVEX", "RF64"):
            self._guard(self._tag)  # behind the samples, so that the header has its usual length
        self._guard(self._sound.close)
        try:
            add_tags(self._file.file, self._format, self._tags, self._cover)
            if self._format in ("WAVEX", "RF64"):
                self._state_mask()
            if self._subtype == "FLOAT":
                self._forget_time()
            if self._format == "RF64" and self._may_shrink:
                self._shrink()
        except OSError as error:
            raise cannot_write(self._target, error) from error

    def _read_back(self) -> Iterator[Wav]:
        if self._held is None:
            return
        try:
            self._held.seek(0)
            while data := self._held.read(HELD_SAMPLES * self._channels * 4):
                yield np.frombuffer(data, np.float32).reshape(-1, self._channels).T
        except OSError as error:
            raise cannot_write(self._target, error) from error

    def _discard(self) -> None:
        """Close the encoder, which still writes the end of the file, and only then remove the file."""
        if self._direct is not None:
            self._direct.close()
            return
        try:
            if self._sound is not None:
                with contextlib.suppress(*_ENCODER_ERRORS), signals_wait():
                    self._sound.close()
        finally:
            if self._held is not None:
                self._held.close()
            self._file.discard()

    def _guard(self, call: Callable[[], None]) -> None:
        """Run a call into an encoder; raise an OutputError if the file it writes to has failed meanwhile."""
        problem: Exception | None = None
        try:
            with signals_wait():
                call()
        except _ENCODER_ERRORS as error:
            problem = error
        cause = self._sink.error or problem
        if cause is not None:
            raise cannot_write(self._target, cause) from cause

    def _refused(self) -> OutputError:
        return OutputError(
            f"{self._target}: {self._kind.label} cannot hold {self._channels} channel(s) at {self._rates[1]} Hz; "
            "write .wav or .flac instead"
        )

    def _state_mask(self) -> None:
        """Put the channel mask into the header, where libsndfile puts a guess that is wrong for 7.1."""
        file = self._file.file
        file.seek(0)
        # Behind the identifier and its length, 20 bytes into WAVEFORMATEXTENSIBLE.
        file.seek(file.read(4096).index(b"fmt ") + 8 + 20)
        file.write(struct.pack("<I", self._mask or 0))

    def _forget_time(self) -> None:
        """Take the time out of the `PEAK` chunk, so that the same audio is the same file."""
        file = self._file.file
        file.seek(0)
        place = file.read(4096).find(b"PEAK")
        if place >= 0:
            file.seek(place + 12)  # behind its identifier, length and version
            file.write(bytes(4))

    def _shrink(self) -> None:
        """Turn an RF64 file below 4 GiB into a plain WAV: its `ds64` chunk becomes `JUNK` (EBU Tech 3306)."""
        file = self._file.file
        size = file.seek(0, os.SEEK_END)
        if size > _MAX_RIFF_BYTES:
            return
        file.seek(0)
        header = file.read(4096)
        data = header.index(b"data")
        for offset, value in (
            (0, b"RIFF"),
            (4, struct.pack("<I", size - 8)),
            (12, b"JUNK"),
            (data + 4, struct.pack("<I", self._count * self._channels * self._kind.sample_bytes)),
        ):
            file.seek(offset)
            file.write(value)


@contextlib.contextmanager
def written_together(writers: Sequence[AudioWriter | FilmWriter], progress: Progress | None = None) -> Iterator[None]:
    """Open writers for the block; their files appear when it ends without an exception, all of them or none.

    `progress` hears of what is written only then, if it knows stages.
    """
    with contextlib.ExitStack() as stack:
        for writer in writers:
            writer._open()
            stack.callback(writer._discard)
        yield
        _finish_together(writers, progress)
        commit_together(
            [writer._file for writer in writers if isinstance(writer, FilmWriter) or writer._direct is None]
        )


def _finish_together(writers: Sequence[AudioWriter | FilmWriter], progress: Progress | None = None) -> None:
    """Write the ends of files, those that are rescaled multiplied by one and the same factor."""
    audio = [writer for writer in writers if isinstance(writer, AudioWriter)]
    for writer in audio:
        writer._end()
    rescaled = [writer for writer in audio if writer.rescales]
    peak = max((writer.peak for writer in rescaled), default=0.0)
    total, done = sum(writer._given / writer._rates[1] for writer in rescaled), 0.0
    heard = in_stage(progress, "writing", main=False) if total else None

    def tell(seconds: float) -> None:
        nonlocal done
        done += seconds
        if heard:
            heard(done, total)

    for writer in rescaled if peak > 1 else ():
        # Rounded down, so that the peak itself is not beyond full scale by a rounding.
        writer.scale = float(np.nextafter(np.float32(1 / peak), np.float32(0)))
    for each in writers:
        if isinstance(each, AudioWriter):
            each._finish(tell)
        else:
            each._finish()


def _hidden_file(target: str) -> IO[bytes]:
    """A file without a name where there will be room for the output, which is gone as soon as it is closed."""
    folder = None if target == "-" or is_special(Path(target)) else Path(os.path.realpath(target)).parent
    try:
        return tempfile.TemporaryFile(dir=folder)
    except OSError as error:
        raise cannot_write(target, error) from error
