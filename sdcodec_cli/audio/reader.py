"""Audio in: from any file, pipe or standard input, in blocks, so that memory does not grow with its length.

C channels, T samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..stop import stop_if_asked
from .channels import downmix
from .cover import find_cover
from .ffmpeg import FFmpegDecoder, missing_track
from .libsndfile import LibsndfileDecoder, NotForLibsndfile
from .source import AudioInfo, Decoder, Source
from .wav import StreamResampler, Wav

LIBSNDFILE_SUFFIXES = frozenset(
    {".wav", ".wave", ".bwf", ".rf64", ".w64", ".flac", ".ogg", ".oga", ".opus", ".mp3"}
    | {".aif", ".aiff", ".aifc", ".au", ".snd", ".caf"}
)
"""Files that training can read crops from: only libsndfile starts exactly at a sample in the middle."""

READ_SUFFIXES = LIBSNDFILE_SUFFIXES | frozenset(
    {".mp4", ".m4a", ".m4b", ".m4v", ".mov", ".3gp", ".3g2", ".mkv", ".mka", ".webm", ".avi", ".flv", ".ogv"}
    | {".wmv", ".wma", ".asf", ".ts", ".m2ts", ".mts", ".mpg", ".mpeg", ".vob", ".mp2", ".mpga", ".aac", ".ac3"}
    | {".eac3", ".ec3", ".dts", ".wv", ".ape", ".tta", ".amr", ".voc"}
)
"""What a search of a folder takes for audio. A file named outright is read whatever its suffix."""

_MAX_BLOCK_VALUES = 2**24  # caps a block at 64 MiB, whatever rate and channel count a header claims
_MAX_SAMPLE = 1e10  # squares and products with a gain stay far inside what 32-bit floats hold


class AudioReader:
    """Audio of one track of a file, a pipe or standard input, block by block and as often as wanted.

    What cannot be sought in (`-`, named pipes) is copied to a temporary file first; `TMPDIR` says where. Channels come
    in the order of WAV files. Films and what else libsndfile does not read, or not rightly, FFmpeg decodes; a track
    that starts late begins with silence.

    Args:
        source: a path, `-`, or either as a `Source` that is open, and stays so
        track: which audio track, from 1

    Raises:
        InputError: the source is missing, empty, cut short, damaged, not audio, or has no such track
        ValueError: the track is below 1
    """

    info: AudioInfo

    def __init__(self, source: str | Path | Source, *, track: int = 1) -> None:
        if track < 1:
            raise ValueError(f"track must be at least 1, got {track}")
        self._given, self._track = source, track

    def __enter__(self) -> AudioReader:
        self._source = self._given if isinstance(self._given, Source) else Source(str(self._given))
        try:
            self._decoder = self._choose()
            self.info = self._decoder.info
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks for people, complete once the audio was read to its end."""
        return self._decoder.notes

    def cover(self) -> bytes | None:
        """The picture that the file has as its cover, of whatever kind; None if it has none."""
        return find_cover(self._source.path)

    def close(self) -> None:
        """Remove the temporary copy, if it made one."""
        if self._source is not self._given:
            self._source.close()

    def blocks(self, seconds: float = 10.0, *, start: float = 0.0, duration: float | None = None) -> Iterator[Wav]:
        """Yield the audio as `[C, T]` blocks of at most `seconds`; every call reads from the beginning again.

        `start` and `duration` are in seconds; what lies beyond the end is left out.

        Raises:
            InputError: the file is damaged or cut short, holds no samples or samples that are not finite,
                or ends before `start`.
        """
        rate, channels = self.info.sample_rate, self.info.channels
        length = max(1, min(round(seconds * rate), _MAX_BLOCK_VALUES // channels))
        first = round(start * rate)
        last = None if duration is None else first + round(duration * rate)
        if last == first:
            return
        end = 0
        for position, block in self._decoder.blocks(length, first):
            check_samples(block, position, self.info)
            end = position + block.shape[1]
            wanted = block[:, max(0, first - position) : block.shape[1] if last is None else last - position]
            if wanted.shape[1]:
                stop_if_asked()
                yield np.ascontiguousarray(wanted)
            if last is not None and end >= last:
                return
        if end == 0 and first:
            end = self.info.num_samples or 0  # where a decoder that can seek goes at most
        if end == 0:
            raise InputError(f"{self.info.name}: contains no samples; nothing to do")
        if first >= end:
            raise InputError(
                f"{self.info.name}: ends at {end / rate:.3f} s, so nothing starts at {start:.3f} s; start earlier"
            )

    def _choose(self) -> Decoder:
        source = self._source
        if source.path.stat().st_size == 0:
            raise InputError(f"{source.name}: is empty (0 bytes); nothing to read")
        with source.path.open("rb") as file:
            if file.read(4) == b"\x89SDC":
                raise InputError(f"{source.name}: is a .sdc file, not audio; turn it into audio with sdc decode")
        try:
            decoder = LibsndfileDecoder(source)
        except NotForLibsndfile as answer:
            return FFmpegDecoder(source, self._track, recognised=answer.recognised)
        if self._track > 1:
            raise missing_track(source.name, self._track, 1)
        return decoder


def check_samples(block: Wav, position: int, info: AudioInfo) -> None:
    """Raise an `InputError` unless the samples of a block `[C, T]`, which begins at `position`, can be used."""
    if not np.isfinite(block).all():
        bad = position + int(np.argmin(np.isfinite(block).all(axis=0)))
        raise InputError(
            f"{info.name}: has samples that are not numbers (NaN or infinite), the first at "
            f"{bad / info.sample_rate:.3f} s; export it again, or repair it in an audio editor"
        )
    if block.size and float(np.abs(block).max()) > _MAX_SAMPLE:
        raise InputError(
            f"{info.name}: has samples more than 200 dB beyond full scale; export it again, or repair it in an audio "
            "editor"
        )


def read_mono(source: str | Path, sample_rate: int) -> Wav:
    """A whole file, mixed down and resampled: `[T]`.

    Raises:
        InputError: see `AudioReader`
    """
    with AudioReader(source) as reader:
        resampler = StreamResampler(reader.info.sample_rate, sample_rate, 1)
        pieces = [resampler.push(downmix(block, reader.info.channel_mask)) for block in reader.blocks()]
        pieces.append(resampler.flush())
    return np.asarray(np.concatenate(pieces, axis=1)[0], dtype=np.float32)
