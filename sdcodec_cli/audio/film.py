"""Films with another sound track: what else is in them is copied, packet by packet.

C channels, T samples.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ..errors import InputError, OutputError
from .coders import CODERS, MAX_CHANNELS, layout_of
from .cover import is_cover
from .ffmpeg import missing_track
from .output import AtomicFile, Sink, cannot_write, check_target
from .signals import signals_wait
from .wav import StreamResampler, Wav, to_16_bit

if TYPE_CHECKING:
    from av import AudioStream, Packet
    from av.container import InputContainer, OutputContainer
    from av.stream import Stream


_CONTAINERS = {
    ".mp4": ("mp4", ("aac", "opus", "flac", "alac")),
    ".m4v": ("mp4", ("aac", "opus", "flac", "alac")),
    ".mov": ("mov", ("aac", "alac")),
    ".mkv": ("matroska", ("flac", "aac", "opus", "alac")),
    ".webm": ("webm", ("opus",)),
}
"""By suffix, FFmpeg's name of the container and the codings of sound that it takes, the first one by default."""

_TEXT_CODINGS = {"mp4": "mov_text", "mov": "mov_text", "matroska": "subrip", "webm": "webvtt"}
"""By container, that of subtitles which are converted, if they are text in another coding."""

FILM_SUFFIXES = frozenset(_CONTAINERS)

_OF_THE_FILE = {"encoder", "major_brand", "minor_version", "compatible_brands"}
"""Entries of metadata that say how the file itself was written."""

_SAME_LENGTH = 0.5
"""Seconds by which sound may be longer or shorter than that whose place it takes, before it is said."""


@dataclass(frozen=True, kw_only=True)
class Soundtrack:
    """How sound gets into a film."""

    codec: str | None = None
    """`aac`, `opus`, `flac` or `alac`; by default the first of these that is usual in the container."""
    bitrate: float | None = None
    """In kbit/s, of all channels together; by default 96 per channel for AAC, 80 for Opus."""
    add: bool = False
    """Whether it is one track more, instead of taking the place of another."""
    language: str | None = None
    """ISO 639-2, such as `eng`; by default that of the track it was made of."""
    title: str | None = None
    """By default that of the track whose place it takes."""

    def __post_init__(self) -> None:
        if self.codec is not None and self.codec not in CODERS:
            raise ValueError(f"soundtrack.codec must be one of {', '.join(CODERS)}, got {self.codec!r}")
        if self.bitrate is not None and not self.bitrate > 0:
            raise ValueError(f"soundtrack.bitrate must be positive, got {self.bitrate}")
        if self.language is not None and not re.fullmatch("[a-z]{3}", self.language):
            raise ValueError(
                f"soundtrack.language must have three small letters (ISO 639-2), such as eng, got {self.language!r}"
            )


def is_film(target: str | Path) -> bool:
    """Whether an output is a film, by its suffix."""
    return Path(target).suffix.lower() in FILM_SUFFIXES


def check_film(film: str | Path) -> None:
    """Raise an InputError unless there is a file, from which a picture can be taken more than once."""
    if not os.path.exists(film):
        raise InputError(f"{film}: no such file; check the name of the film")
    if not os.path.isfile(film):
        raise InputError(f"{film}: is not a file, which a film has to be, for its picture; save it first")


def film_codec(target: str | Path, sound: Soundtrack) -> str:
    """How sound will be coded in a film.

    Raises:
        OutputError: the suffix is no film's that can be written, or the coding does not go into it or has no bitrate
    """
    suffix = Path(target).suffix.lower()
    if suffix not in _CONTAINERS:
        raise OutputError(
            f"{target}: a film cannot be {suffix or 'without a suffix'}; use one of {', '.join(_CONTAINERS)} with -o, "
            "or leave out --film and --add-track to write sound alone"
        )
    _, codecs = _CONTAINERS[suffix]
    codec = sound.codec or codecs[0]
    if codec not in codecs:
        raise OutputError(
            f"{target}: {suffix} takes no {codec}; choose --audio-codec {' or '.join(codecs)}, or name it "
            f"{Path(target).with_suffix('.mkv').name}"
        )
    if sound.bitrate is not None and not CODERS[codec].bitrate:
        raise OutputError(
            f"{target}: {codec} is lossless and has no bitrate to choose; leave out --audio-bitrate, or choose "
            "--audio-codec aac"
        )
    return codec


class FilmWriter:
    """A film as it is, but for its sound; it appears under its name only when it is complete.

    Sound begins where that of an `AudioReader` does. Whatever was there before comes along with its time: pictures,
    subtitles, other sound, attachments, chapters and metadata. Subtitles of text are converted where the container
    takes another coding. Like an `AudioWriter` it goes into `written_together`.

    Args:
        target: a path with one of `FILM_SUFFIXES`
        sample_rate: of the sound, in Hz; it is resampled if the coding does not take that
        channels: how many each block has, in the order of WAV files
        film: a file; it is read while this is written
        track: which audio track of it is replaced, from 1, or else where the language is taken from
        sound: how the sound is coded, and where it goes
        overwrite: replace an existing file
        channel_mask: what each channel is for, see `channels`; None if that is not known

    Raises:
        InputError: the film is none, or has no such track
        OutputError: the target cannot be written, or its container does not take what is in the film
    """

    clipped: int
    """Samples beyond full scale so far, which were limited to it."""
    peak: float
    """The largest sample so far, full scale being 1."""
    scale: float
    """What all samples were multiplied by: 1."""
    notes: tuple[str, ...]
    """What could not be taken along, and lengths that differ, for people."""

    def __init__(
        self,
        target: str | Path,
        sample_rate: int,
        channels: int,
        *,
        film: str | Path,
        track: int = 1,
        sound: Soundtrack | None = None,
        overwrite: bool = False,
        channel_mask: int | None = None,
    ) -> None:
        self.clipped, self.peak, self.scale, self.notes = 0, 0.0, 1.0, ()
        self._target, self._film, self._track, self._overwrite = str(target), str(film), track, overwrite
        self._sound = sound or Soundtrack()
        self._codec = CODERS[film_codec(target, self._sound)]
        self._container, _ = _CONTAINERS[Path(target).suffix.lower()]
        check_target(target, overwrite=overwrite)
        self._rate = self._codec.rate_for(sample_rate)
        self._resampler = StreamResampler(sample_rate, self._rate, channels)
        self._channels, self._layout = channels, self._layout_of(channels, channel_mask)
        self._bitrate = self._bitrate_of(channels)
        self._stack = contextlib.ExitStack()
        self._file: AtomicFile
        self._output: OutputContainer | None = None

    def write(self, wav: Wav) -> None:
        """Append a block `[C, T]`, and what belongs to the same time."""
        if wav.shape[0] != self._channels:
            raise ValueError(f"expected {self._channels} channels, got {wav.shape[0]}")
        self._encode(self._resampler.push(wav))
        self._copy(until=Fraction(self._position, self._rate))

    def _open(self) -> None:
        try:
            self._begin_output()
        except BaseException:
            self._discard()
            raise

    def _begin_output(self) -> None:
        import av

        self._file = AtomicFile(self._target, overwrite=self._overwrite)
        self._stack.callback(self._file.discard)
        self._sink = Sink(self._file.file)
        film = self._stack.enter_context(self._opened_film())
        self._packets = film.demux()
        self._waiting: Packet[Stream] | None = None
        # Like an `AudioReader`: below zero lies what an encoder puts before the beginning. The new film begins at zero.
        self._begin = Fraction(max(film.start_time or 0, 0), 10**6)
        self._position = 0
        self._output = output = av.open(self._sink, "w", format=self._container)
        self._stack.callback(self._close_output)
        self._streams: dict[int, Stream] = {}
        self._text: set[int] = set()
        self._film_end = Fraction(0)
        self._add_streams(film, output)
        kept = {key: text for key, text in film.metadata.items() if key.lower() not in _OF_THE_FILE}
        output.metadata.update(kept)
        if chapters := film.chapters():
            for chapter in chapters:
                late = round(self._begin / (chapter["time_base"] or 1))
                chapter["start"], chapter["end"] = (max(0, chapter[edge] - late) for edge in ("start", "end"))
            output.set_chapters(chapters)
        self._guard(output.start_encoding)

    def _finish(self) -> None:
        self._encode(self._resampler.flush())
        for packet in self._encoded(None):
            self._mux(packet)
        self._copy(until=None)
        self._compare_lengths()
        assert self._output is not None
        self._guard(self._output.close)

    def _discard(self) -> None:
        with signals_wait():
            self._stack.close()

    def _close_output(self) -> None:
        """Close what is not finished, which still writes the end of the file, before the file is removed."""
        import av

        if self._output is not None:
            with contextlib.suppress(av.error.FFmpegError, OSError, ValueError):
                self._output.close()
            self._output = None

    def _encode(self, wav: Wav) -> None:
        if not wav.shape[1]:
            return
        self.peak = max(self.peak, float(np.abs(wav).max(initial=0)))
        over = np.abs(wav) > 1
        if over.any():
            self.clipped += int(over.sum())
            wav = np.clip(wav, -1, 1)
        values = to_16_bit(wav) if self._codec.format == "s16" else wav
        frame = self._codec.frame(values.T, self._rate, self._layout, self._position)
        self._position += wav.shape[1]
        for packet in self._encoded(frame):
            self._mux(packet)

    def _encoded(self, frame: Any) -> list[Packet[Stream]]:
        packets: list[Any] = []
        self._guard(lambda: packets.extend(self._sound_stream.encode(frame)))
        return packets

    def _copy(self, until: Fraction | None) -> None:
        """Copy packets of everything else up to a time in seconds, or to the end."""
        while self._waiting is not None or self._next():
            packet = self._waiting
            assert packet is not None
            time = packet.dts if packet.dts is not None else packet.pts
            if until is not None and time is not None and time * packet.time_base - self._begin > until:
                return
            self._waiting = None
            if self._begin:
                late = round(self._begin / packet.time_base)
                packet.pts = None if packet.pts is None else packet.pts - late
                packet.dts = None if packet.dts is None else packet.dts - late
            if packet.stream.index in self._text:
                self._mux_text(packet)
                continue
            packet.stream = self._streams[packet.stream.index]
            self._mux(packet)

    def _mux_text(self, packet: Any) -> None:
        """Write a packet of subtitles in the coding of their new stream; one that only clears the screen is none."""
        stream: Any = self._streams[packet.stream.index]
        made: list[Any] = []

        def convert() -> None:
            if found := packet.stream.codec_context.decode2(packet):
                made.append(stream.codec_context.encode_subtitle(found))

        self._guard(convert)
        for text in made:
            text.stream, text.time_base, text.duration = stream, packet.time_base, packet.duration
            text.pts = text.dts = packet.pts
            self._mux(text)

    def _next(self) -> bool:
        """Read the next packet that is to be copied; False at the end."""
        import av

        try:
            for packet in self._packets:
                if packet.stream.index == self._measured and packet.pts is not None:
                    end = (packet.pts + (packet.duration or 0)) * packet.time_base - self._begin
                    self._film_end = max(self._film_end, end)
                # Empty ones at the end have no time; those of subtitles that clear the screen do, covers do not.
                if packet.stream.index in self._streams and (packet.pts is not None or packet.size):
                    self._waiting = packet
                    return True
        except av.error.FFmpegError as error:
            raise InputError(f"{self._film}: cannot be read to its end ({error.strerror}); repair it first") from error
        return False

    def _mux(self, packet: Packet[Stream]) -> None:
        assert self._output is not None
        output = self._output
        self._guard(lambda: output.mux_one(packet))

    def _guard(self, call: Callable[[], object]) -> None:
        """Run a call that writes, and raise an OutputError if it fails."""
        import av

        problem: Exception | None = None
        try:
            with signals_wait():
                call()
        except (av.error.FFmpegError, ValueError) as error:
            problem = error
        if self._sink.error is not None:
            raise cannot_write(self._target, self._sink.error) from self._sink.error
        if problem is not None:
            reason = getattr(problem, "strerror", None) or str(problem)
            raise OutputError(
                f"{self._target}: {self._container} does not take what is in {self._film} ({reason}); "
                f"{self._elsewhere()}"
            ) from problem

    @contextlib.contextmanager
    def _opened_film(self) -> Iterator[InputContainer]:
        import av

        check_film(self._film)
        with open(self._film, "rb") as file:
            try:
                options = {"protocol_whitelist": "none"}
                container = av.open(file, metadata_errors="replace", container_options=options)
            except (av.error.FFmpegError, ValueError) as error:
                raise self._no_film() from error
            with container:
                yield cast("InputContainer", container)

    def _no_film(self) -> InputError:
        return InputError(f"{self._film}: has no picture; write the sound alone, as .wav, or name a film")

    def _add_streams(self, film: InputContainer, output: OutputContainer) -> None:
        """Streams of the output, in the order of the film."""
        tracks = [stream for stream in film.streams if stream.type == "audio"]
        if not film.streams.video:
            raise self._no_film()
        if self._track > len(tracks) and tracks:
            raise missing_track(self._film, self._track, len(tracks))
        if not tracks and not self._sound.add:
            raise InputError(f"{self._film}: has no sound to replace; add a track to it instead, with --add-track")
        former = tracks[self._track - 1] if tracks else None
        self._measured = (former or film.streams.video[0]).index
        for stream in film.streams:
            if stream is former and not self._sound.add:
                self._add_sound(output, former)
            else:
                self._add_copy(film, output, stream)
        if self._sound.add:
            self._add_sound(output, former)

    def _add_sound(self, output: OutputContainer, former: Stream | None) -> None:
        codec = self._codec
        self._sound_stream = stream = cast("AudioStream", output.add_stream(codec.encoder, rate=self._rate))
        stream.layout = self._layout
        if codec.bitrate:
            stream.bit_rate = self._bitrate
        if codec.encoder == "libopus":
            stream.format = codec.format  # of the two that it takes; the others take one
        language = self._sound.language or (former and former.metadata.get("language"))
        title = self._sound.title or ("" if self._sound.add or former is None else _title(former))
        for key, text in (("language", language), ("title", title)):
            if text:
                stream.metadata[key] = text
        if former is not None and not self._sound.add:
            _dispose(stream, former.disposition.value)
        elif self._sound.add:
            _dispose(stream, 0)

    def _add_copy(self, film: InputContainer, output: OutputContainer, stream: Stream) -> None:
        kind = {"video": "picture", "audio": "sound", "subtitle": "subtitles"}.get(stream.type)
        codec = stream.codec_context.name if stream.codec_context else None
        cover = kind == "picture" and is_cover(stream)
        if kind is None or (cover and self._container in ("matroska", "webm")):
            if not (self._attach(output, stream, codec) or _is_made_anew(film, stream)):
                name = stream.metadata.get("filename") or stream.metadata.get("handler_name")
                self._note(f"its stream {stream.index} ({stream.type}{f', {name}' if name else ''})")
            return
        copy: Stream
        try:
            copy = output.add_stream_from_template(stream, opaque=True)
        except (ValueError, AttributeError) as error:  # AttributeError: FFmpeg has no decoder
            if not _is_text(stream):
                raise OutputError(
                    f"{self._target}: {self._container} does not take the {kind} of {self._film} "
                    f"({codec or 'unknown'}); {self._elsewhere()}"
                ) from error
            copy = self._add_text(output, stream)
        copy.metadata.update(stream.metadata)
        if title := _title(stream):
            copy.metadata["title"] = title
        _dispose(copy, stream.disposition.value)
        self._streams[stream.index] = copy

    def _add_text(self, output: OutputContainer, stream: Stream) -> Stream:
        """A stream for subtitles that are converted, which begin with the styles that their decoder states."""
        decoder: Any = stream.codec_context
        decoder.open()
        coding = _TEXT_CODINGS[self._container]
        made: Any = output.add_stream(coding)
        made.codec_context.subtitle_header = decoder.subtitle_header
        made.codec_context.time_base = Fraction(1, 1000)
        self._text.add(stream.index)
        self.notes += (
            f"subtitles of {self._film} are {coding} now, not {decoder.codec.name}: the same text at the same times, "
            "in simpler styles",
        )
        return cast("Stream", made)

    def _attach(self, output: OutputContainer, stream: Stream, codec: str | None) -> bool:
        """Attach to a Matroska file what is attached, such as fonts, or a cover; False if that cannot be."""
        if self._container != "matroska" or stream.type == "data":
            return False
        if stream.type == "attachment":
            output.add_stream_from_template(stream)
            return True
        with self._opened_film() as film:
            packet = next(film.demux(film.streams[stream.index]))
            kind = {"mjpeg": "jpeg"}.get(codec or "", codec or "")
            name = stream.metadata.get("filename", f"cover.{kind}")
            output.add_attachment(name, stream.metadata.get("mimetype", f"image/{kind}"), bytes(packet))
        return True

    def _elsewhere(self) -> str:
        """Advice for a film that does not go into the container: its own one, or that which takes most."""
        own, target = Path(self._film).suffix.lower(), Path(self._target)
        suffix = own if is_film(self._film) else ".mkv"
        if suffix == target.suffix.lower():
            return "write the sound alone, as .wav"
        return f"choose another container with -o, such as {target.with_suffix(suffix).name}"

    def _note(self, what: str) -> None:
        self.notes += (f"{self._target}: does not have all of {self._film}: left out {what}",)

    def _compare_lengths(self) -> None:
        sound, film = self._position / self._rate, float(self._film_end)
        if abs(sound - film) > _SAME_LENGTH:
            self.notes += (
                f"the sound is {sound:.1f} s long, and {self._film} {film:.1f} s; check that it was made of this film",
            )

    def _layout_of(self, channels: int, mask: int | None) -> str:
        layout = layout_of(channels, mask)
        if layout is None:
            raise OutputError(
                f"{self._target}: films take the usual layouts of 1 to {MAX_CHANNELS} channels, not these {channels}; "
                "write .wav instead"
            )
        return layout

    def _bitrate_of(self, channels: int) -> int:
        try:
            return self._codec.bitrate_for(self._sound.bitrate, self._rate, channels)
        except ValueError as error:
            raise OutputError(
                f"{self._target}: {self._codec.encoder} takes {error} for {channels} channel(s), not "
                f"{self._sound.bitrate:g}; choose another --audio-bitrate"
            ) from error


def is_old_pyav() -> bool:
    """Whether PyAV is older than 17, as on Python 3.10: it writes no subtitles, and AAC into .mkv late."""
    import av

    return int(av.__version__.partition(".")[0]) < 17


def _dispose(stream: Any, flags: int) -> None:
    """Say whether a stream is the default one, a cover, and so on; PyAV before 17.1 takes numbers only."""
    stream.disposition = flags


def _is_text(stream: Stream) -> bool:
    """Whether these are subtitles whose text can be put into another coding."""
    context: Any = stream.codec_context
    return stream.type == "subtitle" and bool(context.codec.text_sub) and not is_old_pyav()


def _is_made_anew(film: InputContainer, stream: Stream) -> bool:
    """Whether a stream is how MP4 holds chapters, or a timecode: whoever writes MP4 makes one of what it knows."""
    chapters = film.chapters()
    return stream.type == "data" and ("timecode" in stream.metadata or (stream.frames == len(chapters) > 0))


def _title(stream: Stream) -> str:
    """Title of a track; empty if it has none. MP4 calls it name when it is read, and title when it is written."""
    return str(stream.metadata.get("title") or stream.metadata.get("name") or "")
