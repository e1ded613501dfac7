"""Audio out: to a file of any format that appears when it is complete, in blocks.

C channels, T samples.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from ..errors import OutputError
from .channels import layout_name, means_default, roles_of, to_vorbis_order
from .film import FilmWriter
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
from .wav import Wav, to_16_bit

_WRITE_FORMATS = {
    ".wav": ("WAV", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".ogg": ("OGG", "VORBIS"),
    ".opus": ("OGG", "OPUS"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
}


def audio_format(target: str | Path) -> tuple[str, str]:
    """Format and subtype (libsndfile's names) of an output, from its suffix; WAV for `-` and devices.

    Raises:
        OutputError: the suffix stands for no format that can be written.
    """
    suffix = Path(target).suffix.lower()
    if str(target) == "-" or is_special(Path(target)):
        return _WRITE_FORMATS[".wav"]
    if suffix not in _WRITE_FORMATS:
        known = ", ".join(_WRITE_FORMATS)
        raise OutputError(f"{target}: cannot write {suffix or 'a file without suffix'}; use one of {known}")
    return _WRITE_FORMATS[suffix]


_MAX_RIFF_BYTES = 2**32 - 4096
"""Of a WAV file; a longer one is RF64."""

_UNKNOWN_SIZE = 2**32 - 1
"""What a WAV header says of a size that is not known yet, as FFmpeg writes it."""

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

    The format follows the suffix: `.wav` and `.flac` (16 bit), `.ogg` (Vorbis), `.opus`, `.mp3`; `-` is WAV on standard
    output. On any exception, Ctrl-C included, nothing is left behind and an existing file stays as it was.

    Args:
        target: a path, or `-`.
        sample_rate: in Hz.
        channels: how many each block has, in the order of WAV files.
        overwrite: replace an existing file.
        num_samples: how many samples per channel will come. A WAV file that would pass 4 GiB becomes RF64. If None,
            room for the RF64 header is kept, and it becomes one only if it has to.
        channel_mask: what each channel is for, see `channels`; None if that is not known.
        at_once: write every block to standard output, a pipe or a device as soon as it comes, and not all of them in
            the end. A header is then written first, and says that the length is unknown where `num_samples` is None.

    Raises:
        OutputError: the target exists, cannot be written, or its format cannot hold this rate or these channels.
    """

    clipped: int
    """Samples beyond full scale so far, which were limited to it."""
    notes: tuple[str, ...] = ()
    """Of what a `FilmWriter` could not take along; here there is nothing."""

    def __init__(
        self,
        target: str | Path,
        sample_rate: int,
        channels: int,
        *,
        overwrite: bool = False,
        num_samples: int | None = None,
        channel_mask: int | None = None,
        at_once: bool = False,
    ) -> None:
        self.clipped = 0
        self._target = str(target)
        self._sample_rate, self._channels = sample_rate, channels
        self._overwrite = overwrite
        check_target(target, overwrite=overwrite)
        self._format, self._subtype = audio_format(target)
        self._direct: DirectFile | None = None
        self._at_once = at_once and (self._target == "-" or is_special(Path(target)))
        if self._format == "WAV" and (num_samples is None or num_samples * channels * 2 > _MAX_RIFF_BYTES):
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
        self._count = 0
        self._sound: Any = None

    def __enter__(self) -> AudioWriter:
        self._open()
        return self

    def _open(self) -> None:
        if self._target == "-":
            refuse_terminal()
        if self._at_once:
            self._direct = DirectFile(self._target)
            self._direct.write(wav_header(self._sample_rate, self._channels, self._limit, self._mask))
            return
        file: AtomicFile | None = None
        try:
            with signals_wait():
                self._file = file = AtomicFile(self._target, overwrite=self._overwrite)
                self._sink = Sink(file.file)
                self._sound = soundfile.SoundFile(
                    self._sink, "w", self._sample_rate, self._channels, self._subtype, format=self._format
                )
        except BaseException as error:
            if file is None:
                raise
            self._discard()
            if self._sink.error is not None:
                raise cannot_write(self._target, self._sink.error) from error
            if isinstance(error, soundfile.LibsndfileError):
                raise self._refused() from error
            raise

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
        block: NDArray[Any] = np.ascontiguousarray(wav[self._order].T)
        if self._direct is not None:
            self._direct.write(to_16_bit(block).astype("<i2", copy=False).tobytes())
            return
        if self._subtype == "PCM_16":
            # Not left to libsndfile, whose conversion rounds towards −inf; so a 16-bit file comes back bit for bit.
            block = to_16_bit(block)
        # libsndfile's Vorbis encoder takes stack space in proportion to what it gets at once.
        for begin in range(0, len(block), 1 << 16):
            self._guard(lambda part=block[begin : begin + (1 << 16)]: self._sound.write(part))  # type: ignore[misc]

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        try:
            if kind is None:
                self._finish()
                if self._direct is None:
                    self._file.commit()
        finally:
            self._discard()

    def _finish(self) -> None:
        """Write the end of the file, after which it only needs its name."""
        if self._direct is not None:
            return
        self._guard(self._sound.close)
        if self._format in ("WAVEX", "RF64"):
            try:
                self._state_mask()
                if self._format == "RF64" and self._may_shrink:
                    self._shrink()
            except OSError as error:
                raise cannot_write(self._target, error) from error

    def _discard(self) -> None:
        """Close the encoder, which still writes the end of the file, and only then remove the file."""
        if self._direct is not None:
            self._direct.close()
            return
        try:
            if self._sound is not None:
                with contextlib.suppress(soundfile.LibsndfileError, AssertionError), signals_wait():
                    self._sound.close()
        finally:
            self._file.discard()

    def _guard(self, call: Callable[[], None]) -> None:
        """Run a call into libsndfile; raise an OutputError if the file it writes to has failed meanwhile."""
        problem: Exception | None = None
        try:
            with signals_wait():
                call()
        except (soundfile.LibsndfileError, AssertionError) as error:  # AssertionError: soundfile, on a short write
            problem = error
        cause = self._sink.error or problem
        if cause is not None:
            raise cannot_write(self._target, cause) from cause

    def _refused(self) -> OutputError:
        name = {"VORBIS": "Ogg Vorbis", "OPUS": "Opus", "MPEG_LAYER_III": "MP3"}.get(self._subtype, self._format)
        rates = " (it takes 8, 12, 16, 24 and 48 kHz)" if self._subtype == "OPUS" else ""
        return OutputError(
            f"{self._target}: {name} cannot hold {self._channels} channel(s) at {self._sample_rate} Hz{rates}; "
            "write .wav or .flac instead"
        )

    def _state_mask(self) -> None:
        """Put the channel mask into the header, where libsndfile puts a guess that is wrong for 7.1."""
        file = self._file.file
        file.seek(0)
        # Behind the identifier and its length, 20 bytes into WAVEFORMATEXTENSIBLE.
        file.seek(file.read(4096).index(b"fmt ") + 8 + 20)
        file.write(struct.pack("<I", self._mask or 0))

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
            (data + 4, struct.pack("<I", self._count * self._channels * 2)),
        ):
            file.seek(offset)
            file.write(value)


@contextlib.contextmanager
def written_together(writers: Sequence[AudioWriter | FilmWriter]) -> Iterator[None]:
    """Open writers for the block; their files appear when it ends without an exception, all of them or none."""
    with contextlib.ExitStack() as stack:
        for writer in writers:
            writer._open()
            stack.callback(writer._discard)
        yield
        for writer in writers:
            writer._finish()
        commit_together([writer._file for writer in writers if writer._direct is None])
