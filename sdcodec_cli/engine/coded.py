"""Codes of any input as a file that can be read as often as wanted: a `.sdc` itself, or audio that is coded first.

Commands that take codes apart and put them together begin with this, so that they need not know what they were given,
and end with it, where they write codes or audio.

Legend: C channels, T samples, K codebooks, F frames.
"""

from __future__ import annotations

import contextlib
import functools
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .. import __version__
from ..audio import (
    MASK_TAG,
    AudioWriter,
    LoudnessMeter,
    Source,
    Wav,
    WriteOptions,
    amplitude_to_db,
    atomic_output,
    loudness_weights,
    parse_mask,
)
from ..audio.bands import SHARE
from ..bitstream import Header, Reader, StreamKey, Writer
from ..bitstream.writer import TOGETHER
from ..errors import InputError, ModelError
from ..progress import Progress
from .codec import Codec
from .compress import compress
from .file_decoder import sum_of
from .fitting import fitted
from .stretches import MAX_GAP_FRAMES
from .tags import stored_cover

SPEECH = "speech"
"""The domain whose voice is kept, or changed; all others are its background."""

MAGIC = b"\x89SDC"

Channels = Literal["mono", "keep"]

CodecFor = Codec | Callable[[Header | None], Codec]
"""A model, or what finds one: for the header of a `.sdc` file, or, for None, to code audio with."""


@dataclass(frozen=True)
class SpeechResult:
    """What became of one input whose speech was kept, or changed."""

    input: str
    output: str
    seconds: float
    times_real_time: float
    model: str
    device: str
    speech_loudness: float | None
    """Of the speech that was put out, in LUFS; null where it was not measured."""
    background_loudness: float | None
    """Of the background that was put out, in LUFS; null where it was not measured."""
    clipped: int
    """Samples beyond full scale, limited to it."""
    peak_db: float | None
    """Largest sample, in dB of full scale, before anything was limited or made softer; null for a `.sdc`."""
    rescaled_db: float
    """What it was made louder by, in dB: 0, or less where that was asked for and it went beyond full scale."""
    notes: tuple[str, ...]
    """Anything else worth saying."""
    problems: tuple[str, ...]
    """What is damaged and what is lost by it, a line each."""


@dataclass(frozen=True)
class Part:
    """What a file has in some frames, as `Writer.write` takes it."""

    num_frames: int
    codes: dict[StreamKey, NDArray[np.int64] | None]
    """Of each stream `[K, F]`, or None where it is silent; what is missing was removed, or lost."""
    gains: Mapping[int, NDArray[np.int64]]
    treble: Mapping[int, NDArray[np.int64]]


class Coded:
    """A `.sdc` file with the model that decodes it; see `opened`.

    Args:
        name: of the input, for messages
        path: of the file
        codec: a model for its header
        notes: what is worth saying about its making
        was_audio: whether it was coded for this

    Raises:
        StreamError: not a stream, a newer one, or one damaged beyond use
        InputError: it was cut or joined
        ModelError: the model is not the one that it was made with
    """

    def __init__(
        self,
        name: str,
        path: Path,
        codec: Callable[[Header], Codec],
        notes: Sequence[str] = (),
        *,
        was_audio: bool = False,
    ) -> None:
        self.name, self.path, self.notes, self.was_audio = name, path, tuple(notes), was_audio
        self._problems: dict[str, None] = {}
        with path.open("rb") as file:
            reader = Reader(file, name)
            self.encoder = codec(reader.header)
            """What encodes codes that go with its own."""
            self.codec, self.header = fitted(reader, name, self.encoder)
            """What decodes it, and its header as far as that does."""
            if self.header.stereo:
                self.header = self.header.without_stereo
                self.notes += ("where its domains stand in stereo is left out",)
            if self.header.parts:
                raise InputError(f"{name}: was cut or joined, which this cannot do; decode it, and give the audio")
            if reader.end is None:  # it is cut off, and however long it should be, there is no more than this
                frames = sum(segment.num_frames for segment in reader.segments(decode=False))
                length = self.samples_in(frames)
                self.num_samples = min(length, self.header.original_samples or length)
            else:
                self.num_samples = reader.end.original_samples
            """Per channel, at the original rate."""

    @property
    def problems(self) -> tuple[str, ...]:
        """What is damaged, as far as it was read, a line each."""
        return tuple(self._problems)

    @property
    def speech(self) -> tuple[str, ...]:
        """The domain of speech, if it has it."""
        return tuple(domain for domain in self.header.stems if domain == SPEECH)

    @property
    def background(self) -> tuple[str, ...]:
        """All other domains that it has."""
        return tuple(domain for domain in self.header.stems if domain != SPEECH)

    @property
    def channel_mask(self) -> int | None:
        """What its channels are for, see `audio.channels`."""
        return parse_mask(self.header.tags.get(MASK_TAG, ""), self.header.coded_channels)

    def streams_of(self, domains: Sequence[str]) -> tuple[str, ...]:
        """Names of the streams of some domains."""
        return tuple(entry.name for entry in self.header.domains if entry.stem in domains)

    @contextlib.contextmanager
    def reader(self) -> Iterator[Reader]:
        """Read it from its beginning; what is damaged is among `problems` then."""
        with self.path.open("rb") as file:
            reader = Reader(file, self.name)
            fitted(reader, self.name, self.encoder)
            try:
                yield reader
            finally:
                self._problems |= dict.fromkeys(problem.message for problem in reader.problems)

    def audio(self, domains: Sequence[str], *, share: float = SHARE) -> Iterator[Wav]:
        """Audio of the sum of some domains as `decode` makes it, `[C, T]`, with a share of the envelope."""
        with self.reader() as reader:
            yield from sum_of(domains, reader, self.header, self.codec, share=share)

    def loudness(self, wavs: Iterator[Wav], progress: Progress | None = None) -> float:
        """Loudness of audio with its rate and channels in LUFS; −inf for silence."""
        header = self.header
        meter = LoudnessMeter(header.original_rate, loudness_weights(self.channel_mask, header.coded_channels))
        done = 0
        for wav in wavs:
            meter.push(wav)
            done += wav.shape[-1]
            self.tell(progress, done)
        return meter.integrated() if done else -math.inf

    def tell(self, progress: Progress | None, done: int) -> None:
        """Report that so many samples at the original rate are done."""
        if progress:
            rate = self.header.original_rate
            progress(min(done, self.num_samples) / rate, self.num_samples / rate)

    def samples_in(self, frames: int) -> int:
        """Samples at the original rate in so many frames."""
        return frames * self.header.hop_length * self.header.original_rate // self.header.sample_rate

    def parts(self, reader: Reader, streams: Sequence[str]) -> Iterator[Part]:
        """All frames of some of its streams, in order; those that are lost have no codes."""
        position = 0

        def lost(until: int) -> Iterator[Part]:
            for start in range(position, until, self.header.segment_frames):
                yield Part(min(self.header.segment_frames, until - start), {}, {}, {})

        for segment in reader.segments(domains=streams):
            if reader.end is None and segment.start_frame - position > MAX_GAP_FRAMES:
                return  # as in decoding, a forged start would fill the disk
            yield from lost(segment.start_frame)
            codes = {**segment.codes, **dict.fromkeys(segment.silent)}
            yield Part(segment.num_frames, codes, segment.gains, segment.treble)
            position = segment.start_frame + segment.num_frames
        if reader.end is not None:
            yield from lost(reader.end.total_frames)

    def write(
        self,
        target: str | Path,
        header: Header,
        parts: Callable[[Reader], Iterator[Part]],
        *,
        overwrite: bool,
        progress: Progress | None = None,
    ) -> None:
        """Write a `.sdc` as long as this one.

        Args:
            target: a path, or `-`
            header: of what is written
            parts: what is, given a reader of this one
            overwrite: replace an existing target
            progress: called after every segment

        Raises:
            OutputError: see `audio`
        """
        header = replace(header, original_samples=self.num_samples, encoder=f"sdc {__version__}")
        with self.reader() as reader, atomic_output(target, overwrite=overwrite) as file:
            # What is waited for at the other end of a pipe is written as soon as it is known.
            together = 1 if str(target) == "-" else TOGETHER
            writer = Writer(file, header, tables=reader.tables, together=together, cover=reader.cover())
            frames = 0
            for part in parts(reader):
                writer.write(part.codes, part.num_frames, gains=part.gains, treble=part.treble)
                frames += part.num_frames
                self.tell(progress, self.samples_in(frames))
            writer.close(min(self.num_samples, self.samples_in(frames + 1)))

    def with_streams_of(self, domains: Sequence[str]) -> Header:
        """Its header with some of its domains only."""
        return replace(self.header, domains=tuple(each for each in self.header.domains if each.stem in domains))

    def audio_writer(self, target: str | Path, *, write: WriteOptions | None, overwrite: bool) -> AudioWriter:
        """Writes audio as long as it, with its rate, channels, tags and cover."""
        header = self.header
        with self.reader() as reader:
            cover, notes = stored_cover(reader)
        self.notes += tuple(notes)
        return AudioWriter(
            target,
            header.original_rate,
            header.coded_channels,
            overwrite=overwrite,
            num_samples=self.num_samples,
            channel_mask=self.channel_mask,
            tags=header.tags,
            cover=cover,
            write=write,
        )

    def result(
        self,
        source: str | Path,
        target: str | Path,
        began: float,
        *,
        speech_loudness: float | None = None,
        background_loudness: float | None = None,
        writer: AudioWriter | None = None,
        notes: Sequence[str] = (),
    ) -> SpeechResult:
        """What became of it, since a time of the monotonic clock, and by `writer` if audio was written."""
        seconds = self.num_samples / self.header.original_rate
        return SpeechResult(
            input=str(source),
            output=str(target),
            seconds=seconds,
            times_real_time=seconds / (time.monotonic() - began),
            model=self.codec.name,
            device=self.codec.device,
            speech_loudness=speech_loudness,
            background_loudness=background_loudness,
            clipped=writer.clipped if writer else 0,
            peak_db=amplitude_to_db(writer.peak) if writer else None,
            rescaled_db=amplitude_to_db(writer.scale) if writer else 0.0,
            notes=(*self.notes, *notes, *(writer.notes if writer else ())),
            problems=self.problems,
        )


def is_stream(target: str | Path, sdc: bool | None) -> bool:
    """Whether an output is a `.sdc` and not audio: as told, else as its suffix says."""
    return Path(target).suffix.lower() == ".sdc" if sdc is None else sdc


def phase(progress: Progress | None, number: int, count: int) -> Progress | None:
    """Progress of one of several passes through an input of known length."""
    if progress is None:
        return None

    def report(done: float, total: float | None) -> None:
        if total is not None:
            progress((number * total + min(done, total)) / count, total)

    return report


@contextlib.contextmanager
def opened(
    given: str | Path,
    codec: CodecFor,
    *,
    channels: Channels = "keep",
    track: int = 1,
    progress: Progress | None = None,
) -> Iterator[Coded]:
    """Codes of an input, which is a `.sdc` or audio by its content, whatever its name.

    Audio is coded into a temporary file: without analysis by synthesis, which brings the mix closer and not its stems.

    Args:
        given: a path, or `-` for standard input
        codec: the model, or what finds it
        channels: of audio: `keep`, or `mono` to mix them down
        track: of a film, from 1
        progress: called after every block that is coded

    Raises:
        InputError: the input is missing, or neither
        ModelError, StreamError: see `Coded`; or the model does not tell speech from other sounds
    """
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(contextlib.closing(Source(str(given))))
        with source.path.open("rb") as file:
            found_stream = file.read(len(MAGIC)) == MAGIC
        if found_stream:
            coded = Coded(source.name, source.path, functools.partial(find_codec, codec))
            check_domains(coded.codec)
            yield coded
            return
        model = find_codec(codec, None)
        check_domains(model)
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="sdc-", ignore_cleanup_errors=True))
        path = Path(folder) / "coded.sdc"
        result = compress(source, path, codec=model.at_effort(0), channels=channels, track=track, progress=progress)
        yield Coded(source.name, path, lambda header: model, result.notes, was_audio=True)


def find_codec(codec: CodecFor, header: Header | None) -> Codec:
    """The model for a `.sdc` file, or for audio."""
    return codec if isinstance(codec, Codec) else codec(header)


def tells_speech(domains: Sequence[str]) -> bool:
    """Whether speech is one of several domains."""
    return SPEECH in domains and len(domains) > 1


def check_domains(codec: Codec) -> None:
    """Raise a ModelError unless a model tells speech from other sounds."""
    if not tells_speech(codec.domains):
        raise ModelError(
            f"{codec.name}: does not tell speech from other sounds (it has {', '.join(codec.domains)}); choose a model "
            "that does, see sdc models list"
        )


def check_speech(coded: Coded) -> None:
    """Raise an InputError unless a file has a domain of speech."""
    if not coded.speech:
        raise InputError(f"{coded.name}: has no speech; it has {', '.join(coded.header.stems)}")
