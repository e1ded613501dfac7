"""Speech without its background, with it louder or softer, or with that of another recording.

Speech keeps its codes. As audio, speech and background are decoded apart and added up. In a `.sdc` codes of the
background are left out, stay as they are, or are made anew of what they decode to, because codes have no gain of their
own.

Legend: C channels, T samples, K codebooks, F frames.
"""

from __future__ import annotations

import contextlib
import functools
import math
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..audio import AudioWriter, StreamResampler, Wav, WriteOptions, atomic_output, db_to_amplitude
from ..audio.bands import SHARE
from ..bitstream import Reader, StreamKey
from ..errors import InputError
from ..progress import Progress
from .coded import (
    SPEECH,
    Channels,
    CodecFor,
    Coded,
    Part,
    SpeechResult,
    check_speech,
    find_codec,
    is_stream,
    opened,
    phase,
)
from .coder import Coder
from .levels import with_treble
from .stream import CodedSegment
from .stream_header import stream_header

FADE_SECONDS = 0.1
"""Over which the end of a background that is repeated fades into its beginning."""

CLOSE_DB = 0.3
"""How close a background that is coded anew comes to the level that is wanted, at best."""

ATTEMPTS = 4
"""At that level."""

FAR_DB = 1.0
"""Farther than this from it is worth a note."""

LOWEST_SNR, HIGHEST_SNR = -40.0, 100.0
"""Of speech to background that make sense, in dB."""


def enhance(
    source: str | Path,
    target: str | Path,
    *,
    codec: CodecFor,
    background: float | None = None,
    sdc: bool | None = None,
    channels: Channels = "keep",
    track: int = 1,
    write: WriteOptions | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> SpeechResult:
    """Write the speech of one input without its background, in memory that does not grow with its length.

    Args:
        source: a `.sdc`, or audio that is coded first, or `-` for standard input
        target: where it goes, or `-` for standard output
        codec: the model, or what finds it for the header of a `.sdc` or, for None, for audio
        background: gain of the background in dB, where it is kept: 0 is as it was. By default there is none
        sdc: write a `.sdc` and not audio; by default what the suffix of `target` says
        channels: of audio: keep them, or mix them down
        track: which audio track of a film, from 1
        write: format and bitrate of audio, and what becomes of samples beyond full scale
        overwrite: replace an existing target
        progress: called after every block

    Raises:
        InputError, StreamError: the input is missing, or nothing that can be read, or has no speech
        ModelError: the model does not tell speech from other sounds, or is not the one that a file was made with
        OutputError: see `audio`
        ValueError: `background` that is not a gain, or a track below 1
    """
    if background is not None and not -100 <= background <= 40:
        raise ValueError(f"background must be a gain from -100 to 40 dB, got {background:g}")
    began = time.monotonic()
    with _opened(source, codec, channels, track, progress) as (scene, then):
        own = scene.background if background is not None else ()
        if not is_stream(target, sdc):
            behind = scene.audio(own) if own else None
            writer = _write_audio(scene, target, behind, background or 0.0, write, overwrite=overwrite, progress=then)
            return scene.result(source, target, began, writer=writer)
        if own and background:
            level = scene.loudness(scene.audio(own)) + background
            new = _NewBackground(scene, _known(scene, scene), lambda: scene.audio(own, share=1), background)
            return new.write(source, target, began, level=level, overwrite=overwrite, progress=then)
        kept = (*scene.speech, *own)
        streams = scene.streams_of(kept)
        header = scene.with_streams_of(kept)
        scene.write(target, header, lambda it: scene.parts(it, streams), overwrite=overwrite, progress=then)
        return scene.result(source, target, began)


def exchange_background(
    source: str | Path,
    other: str | Path,
    target: str | Path,
    *,
    codec: CodecFor,
    snr: float | None = None,
    sdc: bool | None = None,
    channels: Channels = "keep",
    track: int = 1,
    write: WriteOptions | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> SpeechResult:
    """Write the speech of one input with the background of another, repeated or cut to its length.

    Where it is repeated, its end fades into its beginning. Level is loudness after ITU-R BS.1770.

    Args:
        source: where the speech is: a `.sdc`, or audio that is coded first, or `-` for standard input
        other: where the background is, likewise; as audio it is coded with the model of `source`
        target: see `enhance`, as all that follows
        codec: likewise
        snr: how many dB louder the speech is than its new background; as loud as the one that it replaces by default
        sdc: likewise
        channels: likewise
        track: likewise, of `source`
        write: likewise
        overwrite: likewise
        progress: likewise

    Raises:
        InputError: also where there is nothing to go by: `other` has no background, `source` none and no `snr` is given
        see `enhance`
    """
    if snr is not None and not LOWEST_SNR <= snr <= HIGHEST_SNR:
        raise ValueError(f"snr must be from {LOWEST_SNR:g} to {HIGHEST_SNR:g} dB, got {snr:g}")
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        scene, then = stack.enter_context(_opened(source, codec, channels, track, progress))
        one = scene.header.coded_channels == 1
        theirs = stack.enter_context(
            opened(
                other,
                lambda header: scene.encoder if header is None else find_codec(codec, header),
                channels="mono" if one else "keep",
            )
        )
        if not theirs.background:
            raise InputError(f"{theirs.name}: has no background; it has {', '.join(theirs.header.stems)}")
        speech = scene.loudness(scene.audio(scene.speech), phase(then, 0, 4))
        level = _level(scene, speech, snr, phase(then, 1, 4))
        given = scene.loudness(_cut(_repeated(theirs, scene), scene), phase(then, 2, 4))
        if given == -math.inf:
            raise InputError(f"{theirs.name}: its background is silent; take another recording for it")
        last = phase(then, 3, 4)
        if is_stream(target, sdc):
            whole = functools.partial(_repeated, theirs, scene, share=1)
            new = _NewBackground(scene, _known(theirs, scene), whole, level - given)
            result = new.write(source, target, began, level=level, overwrite=overwrite, progress=last)
        else:
            behind = _repeated(theirs, scene)
            writer = _write_audio(scene, target, behind, level - given, write, overwrite=overwrite, progress=last)
            result = scene.result(source, target, began, background_loudness=level, writer=writer)
        return replace(
            result,
            speech_loudness=speech,
            notes=(*result.notes, *(f"{theirs.name}: {note}" for note in theirs.notes)),
            problems=(*result.problems, *(f"{theirs.name}: {problem}" for problem in theirs.problems)),
        )


def _level(scene: Coded, speech: float, snr: float | None, progress: Progress | None) -> float:
    """Loudness that a new background is to have, in LUFS, from that of the speech."""
    if snr is not None:
        if speech == -math.inf:
            raise InputError(f"{scene.name}: nobody speaks in it, so --snr means nothing; leave it out")
        return speech - snr
    before = scene.loudness(scene.audio(scene.background), progress) if scene.background else -math.inf
    if before == -math.inf:
        raise InputError(
            f"{scene.name}: has no background whose level could be taken over; say how much louder the speech is to be "
            "than the new one, such as --snr 15"
        )
    return before


@contextlib.contextmanager
def _opened(
    source: str | Path, codec: CodecFor, channels: Channels, track: int, progress: Progress | None
) -> Iterator[tuple[Coded, Progress | None]]:
    """An input that has speech, and the progress of what follows its coding."""
    with opened(source, codec, channels=channels, track=track, progress=phase(progress, 0, 2)) as scene:
        check_speech(scene)
        yield scene, phase(progress, 1, 2) if scene.was_audio else progress


# --- audio


def _write_audio(
    scene: Coded,
    target: str | Path,
    behind: Iterator[Wav] | None,
    gain_db: float,
    write: WriteOptions | None,
    *,
    overwrite: bool,
    progress: Progress | None,
) -> AudioWriter:
    """Write the speech with something behind it, which may be longer."""
    rest, done = None if behind is None else _Pieces(behind), 0
    gain = np.float32(db_to_amplitude(gain_db))
    with scene.audio_writer(target, write=write, overwrite=overwrite) as writer:
        for wav in scene.audio(scene.speech):
            writer.write(wav if rest is None else wav + gain * rest.take(wav.shape[-1]))
            done += wav.shape[-1]
            scene.tell(progress, done)
    return writer


class _Pieces:
    """Audio that arrives in blocks `[C, T]`, in pieces of another length; silence behind its end."""

    def __init__(self, blocks: Iterator[Wav]) -> None:
        self._blocks, self._held = blocks, np.zeros((1, 0), dtype=np.float32)

    def take(self, length: int) -> Wav:
        """The next samples, `[C, length]`."""
        held = [self._held]
        missing = length - self._held.shape[-1]
        while missing > 0 and (block := next(self._blocks, None)) is not None:
            held = [*(each for each in held if each.size), block]
            missing -= block.shape[-1]
        whole = np.concatenate(held, axis=-1)
        self._held = whole[:, length:]
        return np.pad(whole[:, :length], ((0, 0), (0, max(0, missing))))


def _cut(wavs: Iterator[Wav], scene: Coded) -> Iterator[Wav]:
    """Audio, which may be longer, in as many samples as the speech has."""
    pieces = _Pieces(wavs)
    block = 10 * scene.header.original_rate
    for start in range(0, scene.num_samples, block):
        yield pieces.take(min(block, scene.num_samples - start))


def _repeated(theirs: Coded, scene: Coded, share: float = SHARE) -> Iterator[Wav]:
    """The background of one input over and over, with the rate and the channels of another: `[C, T]` without an end."""
    rate, channels = scene.header.original_rate, scene.header.coded_channels

    def once() -> Iterator[Wav]:
        resampler = StreamResampler(theirs.header.original_rate, rate, channels)
        for wav in theirs.audio(theirs.background, share=share):
            yield resampler.push(_with_channels(wav, channels))
        yield resampler.flush()

    return repeated(once, round(FADE_SECONDS * rate))


def _with_channels(wav: Wav, channels: int) -> Wav:
    """Audio of some number of channels in another: every one is their mean, unless the numbers agree."""
    if len(wav) == channels:
        return wav
    return np.repeat(wav.mean(axis=0, keepdims=True, dtype=np.float32), channels, axis=0)


def repeated(once: Callable[[], Iterator[Wav]], fade: int) -> Iterator[Wav]:
    """Audio over and over, of which each end fades into the beginning; a pass shorter than two fades does not fade.

    Args:
        once: gives it from its beginning, in blocks `[C, T]`
        fade: samples that the end and the beginning have in common

    Shape: `[C, T]`, without an end; nothing at all if `once` gives no samples
    """
    rising = np.sin(np.linspace(0, np.pi / 2, fade, dtype=np.float32))
    tail: Wav | None = None
    while True:
        held: Wav | None = None
        given = 0
        for wav in once():
            held = wav if held is None else np.concatenate([held, wav], axis=-1)
            ready = held.shape[-1] - fade
            if ready < fade:
                continue  # as much has to be there as fades in, and what will fade out is kept
            if tail is not None:
                # Both are noise to each other, so their powers add up to what they are.
                held = np.concatenate([held[:, :fade] * rising + tail * rising[::-1], held[:, fade:]], axis=-1)
                tail = None
            yield held[:, :ready]
            held, given = held[:, ready:], given + ready
        if held is None or not held.size:
            return
        short = given == 0  # to fade
        yield held if short else held[:, :-fade]
        tail = None if short else held[:, -fade:]


# --- codes


def _known(theirs: Coded, scene: Coded) -> tuple[str, ...]:
    """Domains of the model of a scene that a background consists of: those that are active, if any."""
    others = tuple(domain for domain in scene.encoder.domains if domain != SPEECH)
    stems = {entry.name: entry.stem for entry in theirs.header.domains}
    with theirs.reader() as reader:
        segments = reader.segments(domains=theirs.streams_of(theirs.background), decode=False)
        found = {stems[name] for segment in segments for _, name in segment.num_codebooks}
    return tuple(domain for domain in others if domain in found) or others


@dataclass(frozen=True)
class _NewBackground:
    """A background of which codes are made, at the level that they are to have."""

    scene: Coded
    domains: tuple[str, ...]
    """Of the model, that it consists of."""
    audio: Callable[[], Iterator[Wav]]
    """It, with all of its envelope, and the rate and channels of the scene; it may be longer."""
    gain_db: float
    """That it is to get."""

    def write(
        self,
        source: str | Path,
        target: str | Path,
        began: float,
        *,
        level: float,
        overwrite: bool,
        progress: Progress | None,
    ) -> SpeechResult:
        """Write a `.sdc` with the speech of the scene and this behind it.

        Coding takes from the level of noise, so that it is coded again, louder, until it has the one that is wanted.
        """
        with tempfile.TemporaryDirectory(prefix="sdc-", ignore_cleanup_errors=True) as folder:
            kept, trial = Path(folder) / "kept.sdc", Path(folder) / "trial.sdc"
            gain_db, found, error = self.gain_db, math.nan, math.inf
            for attempt in range(ATTEMPTS):
                self._write(trial, gain_db, phase(progress, attempt, ATTEMPTS))
                coded = Coded(self.scene.name, trial, lambda header: self.scene.encoder)
                loudness = coded.loudness(coded.audio(coded.background))
                if attempt == 0 or abs(loudness - level) < error:
                    found, error = loudness, abs(loudness - level)
                    trial.replace(kept)
                if error < CLOSE_DB or not math.isfinite(loudness - level):
                    break
                gain_db += level - loudness
            with atomic_output(target, overwrite=overwrite) as file, kept.open("rb") as made:
                shutil.copyfileobj(made, file)
        notes = []
        if FAR_DB < error < math.inf:
            notes.append(
                f"its background is {error:.1f} dB from the level that is wanted: the model codes it no better"
            )
        return self.scene.result(source, target, began, background_loudness=found, notes=notes)

    def _write(self, path: Path, gain_db: float, progress: Progress | None) -> None:
        scene, encoder, header = self.scene, self.scene.encoder, self.scene.header
        speech = scene.with_streams_of(scene.speech).domains
        count = speech[0].num_codebooks
        added = stream_header(
            encoder,
            num_codebooks=count,
            gain_db=header.gain_db,
            stored=self.domains,
            original_rate=header.original_rate,
            original_samples=None,
        ).domains
        encoders = [
            encoder.stream_encoder(num_codebooks=count, active=self.domains) for _ in range(header.coded_channels)
        ]
        coder = Coder(encoders, header.original_rate, header.gain_db + gain_db)
        coded = coder.run(_cut(self.audio(), scene), progress, scene.num_samples / header.original_rate)
        new = _NewCodes(coded, {entry.name: header.frames_in(entry, 1) for entry in added})

        def parts(reader: Reader) -> Iterator[Part]:
            for part in scene.parts(reader, [entry.name for entry in speech]):
                yield Part(part.num_frames, {**part.codes, **new.take(part.num_frames)}, part.gains, {})

        def wanted() -> Iterator[Wav]:
            behind, gain = _Pieces(self.audio()), np.float32(db_to_amplitude(gain_db))
            for wav in scene.audio(scene.speech, share=1):
                yield wav + gain * behind.take(wav.shape[-1])

        # The envelope stays, and with it the speech; what is above was that of the mix, which is another now.
        header = replace(header, domains=(*speech, *added), treble=encoder.treble_layout if header.treble else None)
        scene.write(path, header, lambda it: with_treble(parts(it), wanted(), encoder, header), overwrite=True)


class _NewCodes:
    """Codes that an encoder gives out in segments of its own, in segments of another length.

    Args:
        segments: of all channels at once
        streams: those that are wanted, with how many frames each has in one of the model
    """

    def __init__(self, segments: Iterator[tuple[CodedSegment, ...]], streams: Mapping[str, int]) -> None:
        self._segments, self._streams = segments, streams
        self._held: tuple[tuple[CodedSegment, ...], int] | None = None
        """A segment, and its first frame that was not taken yet."""

    def take(self, num_frames: int) -> dict[StreamKey, NDArray[np.int64] | None]:
        """Codes of the next frames; None for streams without any, and behind the end."""
        pieces: dict[StreamKey, list[NDArray[np.int64]]] = {}
        active: set[StreamKey] = set()
        missing = num_frames
        while missing and (found := self._next()) is not None:
            segment, begin = found
            stop = min(segment[0].num_frames, begin + missing)
            for channel, each in enumerate(segment):
                for name, count in self._streams.items():
                    pieces.setdefault((channel, name), []).append(each.codes[name][:, begin * count : stop * count])
                    active |= {(channel, name)} if each.active[name] else set()
            missing -= stop - begin
            self._held = (segment, stop) if stop < segment[0].num_frames else None
        for (_, name), codes in pieces.items():  # rounding of rates can leave it a frame short
            codes.append(np.repeat(codes[-1][:, -1:], missing * self._streams[name], axis=1))
        return {key: np.concatenate(codes, axis=-1) if key in active else None for key, codes in pieces.items()}

    def _next(self) -> tuple[tuple[CodedSegment, ...], int] | None:
        if self._held is not None:
            return self._held
        segment = next(self._segments, None)
        return None if segment is None else (segment, 0)
