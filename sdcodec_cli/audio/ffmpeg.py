"""Audio that FFmpeg decodes, through PyAV: films, MP3, AAC and whatever else libsndfile does not read.

C channels, T samples.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np

from ..errors import InputError
from .channels import mask_of, to_wav_order
from .cover import is_cover
from .source import AudioInfo, Source
from .structure import is_cut, mpeg_samples, mpeg_start, tag_size
from .wav import Wav

if TYPE_CHECKING:
    from av import AudioCodecContext, AudioFrame, AudioStream
    from av.container import InputContainer

_TAGS = {"track": "tracknumber"} | {
    name: name for name in ("title", "artist", "album", "date", "comment", "genre", "copyright", "license")
}
"""FFmpeg's names of the tags that libsndfile knows, and what libsndfile calls them."""

_LIBSNDFILE_READS = {
    **dict.fromkeys(("wav", "w64", "aiff", "au", "caf"), ("pcm_",)),
    "flac": ("flac",),
    "ogg": ("vorbis", "opus"),
}
"""Codings that libsndfile reads, by container. Such a file that it refuses is damaged, and FFmpeg is not tried."""

_EXACT = {"flac", "wv", "tta", "ape", "tak", "caf", "aiff", "w64"}
"""Containers of audio alone whose header counts the samples."""

_FILM_LENGTH = {"asf", "flv", "avi"}
"""Containers whose header states the length of the film."""

_RECORDINGS = {"mpegts", "mpeg"}
"""Recordings of broadcasts begin and end in the middle of a frame, and their clocks jump."""

_CODEC_DELAY = 4 * 1152  # samples by which encoders' own counts disagree, without anything being lost
_GAP = Fraction(1, 10)
"""Seconds by which the clock must be ahead of the samples for silence to be put in, as FFmpeg's async does."""
_MAX_GAP = 3600
"""Most seconds of silence that are put in; a forged clock would fill the disk with it."""
_CLOCK_JUMP = 10
"""Seconds from which on a broadcast's clock was set anew, and nothing is missing; FFmpeg's dts_delta_threshold."""

_MAX_PLANES = 8
"""From 8 planes on PyAV (18.1) reads past the end of its list of planes, so as many channels are interleaved first."""

_SCALES = {"u8": 2**7, "s16": 2**15, "s32": 2**31, "flt": 1, "dbl": 1}


class FFmpegDecoder:
    """One audio track of a file that FFmpeg reads, in time with the film that it belongs to.

    Raises:
        InputError: there is no such track, its coding is unknown, or the file is damaged, cut short, or not audio
    """

    def __init__(self, source: Source, track: int, *, recognised: bool) -> None:
        self._source, self._track = source, track
        self._start = 0  # where FFmpeg begins to read
        self._filled = Fraction(0)  # seconds of silence within the track
        self._stated: Fraction | None = None  # seconds of the packet that was decoded last
        tags: dict[str, str] = {}
        with source.path.open("rb") as file:
            mpeg = mpeg_start(file)
            self._promised = None if mpeg is None else mpeg_samples(file, mpeg)
        if is_cut(source.path):
            raise source.damaged()
        if mpeg:
            # FFmpeg overlooks the first frame, which counts the others, unless it follows a tag at once.
            with contextlib.suppress(InputError), self._opened(recognised) as container:
                tags = _tags(container, None)
            self._start = mpeg
        with self._opened(recognised) as container:
            stream = self._find(container)
            name = container.format.name
            codec = stream.codec_context.name
            if recognised and codec.startswith(_LIBSNDFILE_READS.get(name, ("?",))):
                raise source.damaged()
            frame = next(self._decoded(container, stream), None)
            if frame is None:
                raise InputError(f"{source.name}: contains no samples; nothing to do")
            roles = self._roles
            mask = mask_of(roles)
            self._order = list(range(len(roles))) if mask is None else to_wav_order(roles)
            self.info = AudioInfo(
                source.name,
                frame.sample_rate,
                len(roles),
                None,
                name,
                codec,
                tags or _tags(container, stream),
                mask,
                None if container.duration is None else container.duration / 1e6,
            )

    @property
    def notes(self) -> tuple[str, ...]:
        """See `Decoder`."""
        if not self._filled:
            return ()
        return (f"{float(self._filled):.1f} s are missing in the middle of the track, and are silence",)

    def blocks(self, length: int, first: int) -> Iterator[tuple[int, Wav]]:
        """See `Decoder`. Lossy decoders start differently after a seek, so everything is read."""
        pieces: list[Wav] = []
        position = held = 0
        for piece in self._pieces(length):
            pieces.append(piece)
            held += piece.shape[1]
            while held >= length:
                joined = np.concatenate(pieces, axis=1)
                yield position, np.ascontiguousarray(joined[:, :length])
                position += length
                pieces, held = [joined[:, length:]], held - length
        if held:
            yield position, np.concatenate(pieces, axis=1)

    @contextlib.contextmanager
    def _opened(self, recognised: bool = False) -> Iterator[InputContainer]:
        import av

        with self._source.path.open("rb") as file:
            try:
                # Without a name, so that only the content counts; and playlists must not lead to other files.
                container = av.open(
                    _Part(file, self._start),
                    metadata_errors="replace",
                    container_options={"protocol_whitelist": "none"},
                )
            except (av.error.FFmpegError, ValueError) as error:
                known = recognised or self._start or _is_container(file)
                raise self._source.damaged() if known else self._not_audio() from error
            try:
                yield cast("InputContainer", container)
            finally:
                container.close()

    def _not_audio(self) -> InputError:
        source = self._source
        return InputError(
            f"{source.name}: not audio that sdc reads (wav, flac, mp3, m4a, mp4, mkv, ...); "
            f"convert it first, e.g. {source.ffmpeg('.wav')}"
        )

    def _find(self, container: InputContainer) -> AudioStream:
        tracks = [stream for stream in container.streams if stream.type == "audio"]
        name = self._source.name
        if not tracks:
            if container.format.name.endswith("_pipe") or container.format.name in ("image2", "gif"):
                raise InputError(f"{name}: is a picture, not audio; name a file with sound")
            if not container.streams.video:
                raise self._not_audio()
            raise InputError(f"{name}: has no sound, only pictures; name a file with an audio track")
        if self._track > len(tracks):
            raise missing_track(name, self._track, len(tracks))
        stream = tracks[self._track - 1]
        # None where FFmpeg has no decoder.
        context = cast("AudioCodecContext | None", stream.codec_context)
        if context is None:
            raise self._source.unsupported()
        context.thread_count = 1
        self._roles = _roles(context)
        return cast("AudioStream", stream)

    def _decoded(self, container: InputContainer, stream: AudioStream) -> Iterator[AudioFrame]:
        """Frames of the track. Packets of all tracks are read: their end shows whether the film was cut short."""
        import av

        name = container.format.name
        end = decoded = Fraction(0)
        broken, tag_end = False, 0
        packets = container.demux()
        while True:
            frames: list[AudioFrame] = []
            packet = None
            was_broken = broken
            try:
                packet = next(packets, None)
                if packet is None:
                    break
                if packet.pts is not None and packet.time_base:
                    end = max(end, (packet.pts + (packet.duration or 0)) * packet.time_base)
                if packet.stream.index != stream.index:  # of the last, empty packets stream_index says nothing
                    continue
                if _is_encrypted(packet):
                    raise InputError(
                        f"{self._source.name}: is encrypted, so sdc cannot read it; get a copy without protection"
                    )
                broken = packet.is_corrupt
                frames = cast("list[AudioFrame]", packet.decode())
            except av.error.FFmpegError as error:
                broken = True
                if packet is None:  # nothing more can be read
                    raise self._damaged(decoded) from error
                if name == "mp3":
                    # The tag of a stream that was joined to the first, in as many packets as it takes.
                    here = packet.pos or 0
                    tag_end = max(tag_end, here + tag_size(bytes(packet)[:10]))
                    broken = here >= tag_end
            # A recording begins and ends where somebody switched it on and off, and not with a frame.
            ragged = name in _RECORDINGS or name == "mp3"
            if (broken and not ragged) or (was_broken and not broken and frames and decoded):
                raise self._damaged(decoded)
            for frame in frames:
                self._stated = packet.duration * packet.time_base if packet.duration and packet.time_base else None
                decoded += Fraction(frame.samples, frame.sample_rate)
                yield frame
        self._check_end(container, stream, decoded, end)

    def _check_end(self, container: InputContainer, stream: AudioStream, decoded: Fraction, end: Fraction) -> None:
        """Raise an InputError if the file is shorter than its header says."""
        name, rate = container.format.name, stream.codec_context.sample_rate
        if name == "mp3" and self._promised is not None and decoded * rate < self._promised - _CODEC_DELAY:
            raise self._source.damaged()
        if name in _EXACT and stream.duration and stream.time_base:
            stated = stream.duration * stream.time_base
            if decoded < stated - Fraction(_CODEC_DELAY, rate):
                raise self._damaged(decoded)
        if name in _FILM_LENGTH and container.duration and end < Fraction(container.duration, 10**6) - 1:
            raise self._damaged(decoded)

    def _damaged(self, decoded: Fraction) -> InputError:
        return self._source.damaged(f"after {float(decoded):.3f} s" if decoded else "at its beginning")

    def _pieces(self, length: int) -> Iterator[Wav]:
        """Samples `[C, T]` as they come, and silence where there are none."""
        rate = self.info.sample_rate
        with self._opened() as container:
            stream = self._find(container)
            # Below zero lies what an encoder puts before the beginning, which decoders leave out again.
            base = Fraction(max(container.start_time or 0, 0), 10**6)
            position = 0
            self._filled = Fraction(0)
            # Of sound alone in MPEG-4, the last packet says how much of it is filling, which FFmpeg does not cut off.
            exact = container.format.name.startswith("mov") and all(map(is_cover, container.streams.video))
            held: Wav | None = None
            for frame in self._decoded(container, stream):
                wav = self._samples(frame, position)
                if frame.pts is not None:
                    gap = (frame.pts * (frame.time_base or 1) - base) - Fraction(position, rate)
                    jumps = container.format.name in _RECORDINGS and gap > _CLOCK_JUMP
                    if position and (gap < -_GAP or jumps):
                        base += gap  # a clock that was set anew, as where recordings are joined
                    elif gap > (_GAP if position else 0):
                        if gap > _MAX_GAP:
                            raise self._source.damaged(f"after {position / rate:.3f} s, where its clock jumps")
                        if held is not None:
                            yield held
                            held = None
                        missing = round(gap * rate)
                        self._filled += gap if position else 0
                        position += missing
                        for begin in range(0, missing, length):
                            yield np.zeros((len(wav), min(length, missing - begin)), np.float32)
                position += wav.shape[1]
                if held is not None:
                    yield held
                held = wav
            if held is not None:
                yield held[:, : round(self._stated * rate)] if exact and self._stated else held

    def _samples(self, frame: AudioFrame, position: int) -> Wav:
        """Samples of a frame as floats, in WAV's order of channels."""
        channels, rate = self.info.channels, self.info.sample_rate
        if (frame.sample_rate, frame.layout.nb_channels) != (rate, channels):
            raise InputError(
                f"{self._source.name}: changes its sample rate or its channels after {position / rate:.3f} s; "
                f"convert it first, e.g. {self._source.ffmpeg('.wav')}"
            )
        values = _interleaved(frame).to_ndarray() if channels >= _MAX_PLANES else frame.to_ndarray()
        if len(values) < channels:
            values = values.reshape(-1, channels).T
        kind = frame.format.name.removesuffix("p")
        wav = values[self._order].astype(np.float64)
        return np.asarray((wav - 128 if kind == "u8" else wav) / _SCALES[kind], dtype=np.float32)


class _Part:
    """A file without its first bytes, for FFmpeg."""

    def __init__(self, file: BinaryIO, start: int) -> None:
        self._file, self._start = file, start
        self.read = file.read
        file.seek(start)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset + (self._start if whence == 0 else 0), whence) - self._start

    def tell(self) -> int:
        return self._file.tell() - self._start


def _interleaved(frame: AudioFrame) -> AudioFrame:
    """The same samples in one plane."""
    import av

    if not frame.format.is_planar:
        return frame
    kind = frame.format.name.removesuffix("p")
    return av.AudioResampler(kind, frame.layout, frame.sample_rate).resample(frame)[0]


def missing_track(name: str, track: int, tracks: int) -> InputError:
    """An error about a track that a file does not have."""
    if tracks == 1:
        return InputError(f"{name}: has only one audio track, so there is no track {track}; leave out --track")
    return InputError(f"{name}: has {tracks} audio tracks, so there is no track {track}; choose another with --track")


def _is_container(file: BinaryIO) -> bool:
    """Whether a file that FFmpeg cannot open is the beginning of one that it could (MP4, Matroska, ASF, MP3)."""
    file.seek(0)
    head = file.read(8)
    return (
        head[4:] in (b"ftyp", b"moov", b"mdat")
        or head[:4] in (b"\x1a\x45\xdf\xa3", b"\x30\x26\xb2\x75")
        or head[:3] == b"ID3"
        or (head[:1] == b"\xff" and head[1:2] >= b"\xe0")
    )


def _tags(container: InputContainer, stream: AudioStream | None) -> dict[str, str]:
    found = {**(stream.metadata if stream else {}), **container.metadata}
    by_name = {name.lower(): text for name, text in found.items()}
    return {ours: by_name[theirs] for theirs, ours in _TAGS.items() if by_name.get(theirs)}


def _is_encrypted(packet: Any) -> bool:
    return any(entry.data_type in ("encryption_info", "encryption_init_info") for entry in packet.iter_sidedata())


def _roles(context: AudioCodecContext) -> list[str]:
    """What the channels of a track are for, in its own order.

    PyAV 16 and later free the list of channels of an unusual layout twice, once with each frame, which ends the whole
    program. So the layout is taken once and never let go, and replaced by one that has no list.
    """
    layout = context.layout
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(layout))
    roles = [channel.name for channel in layout.channels]
    if "(" in layout.name and layout.name.endswith(")") and "channels" in layout.name:
        context.layout = f"{len(roles)} channels"
    if len(roles) <= 2:
        return [["FC"], ["FL", "FR"]][len(roles) - 1]
    return roles
