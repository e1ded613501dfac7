"""Speech without its background, with it louder or softer, or with that of another recording.

Speech keeps its codes. As audio, speech and background are decoded apart and added up; in a `.sdc` codes of the
background are left out, stay as they are, or are made anew of what was decoded, because they have no level of their own.

Legend: C channels, T samples, K codebooks, F frames.
"""

from __future__ import annotations

import contextlib
import itertools
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
from ..audio import AudioWriter, StreamResampler, Wav, atomic_output, db_to_amplitude, parse_mask
from ..bitstream import Header, Reader, StreamKey, Writer
from ..errors import InputError
from ..progress import Progress
from .coded import Coded, CodecFor, check_domains, check_speech, opened, phase, tell
from .compress import MASK_TAG, TOGETHER, Coder, stream_header
from .decode import MAX_GAP_FRAMES
from .stream import CodedSegment

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
    notes: tuple[str, ...]
    """Anything else worth saying."""
    problems: tuple[str, ...]
    """What is damaged and what is lost by it, a line each."""


def enhance(
    source: str | Path,
    target: str | Path,
    *,
    codec: CodecFor,
    background: float | None = None,
    sdc: bool | None = None,
    channels: Literal["mono", "keep"] = "keep",
    track: int = 1,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> SpeechResult:
    """Write the speech of one input without its background, in memory that does not grow with its length.

    Args:
        source: a `.sdc`, or audio that is coded first, or `-` for standard input
        target: where it goes, or `-` for standard output
        codec: finds the model, for the header of a `.sdc` or, for None, for audio
        background: gain of the background in dB, where it is kept: 0 is as it was. By default there is none
        sdc: write a `.sdc` and not audio; by default what the suffix of `target` says
        channels: of audio: keep them, or mix them down
        track: which audio track of a film, from 1
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
            gain = np.float32(db_to_amplitude(background or 0.0))
            with contextlib.ExitStack() as stack:
                writer = stack.enter_context(_writer(target, scene, overwrite))
                behind = scene.audio(own) if own else None
                _add(scene, writer, behind, gain, then)
            return _result(scene, source, target, began, clipped=writer.clipped)
        if own and background:
            wanted = _Wanted(scene, own, lambda: scene.audio(own), background)
            return _recoded(wanted, source, target, began, overwrite, then)
        with scene.reader() as reader:
            kept = scene.streams_of((*scene.speech, *own))
            _copy(scene, reader, kept, target, overwrite=overwrite, progress=then)
        return _result(scene, source, target, began)


def exchange(
    source: str | Path,
    other: str | Path,
    target: str | Path,
    *,
    codec: CodecFor,
    snr: float | None = None,
    sdc: bool | None = None,
    channels: Literal["mono", "keep"] = "keep",
    track: int = 1,
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
                lambda header: scene.encoder if header is None else codec(header),
                channels="mono" if one else "keep",
            )
        )
        if not theirs.background:
            raise InputError(f"{theirs.name}: has no background; it has {', '.join(theirs.header.stems)}")
        before = scene.loudness(scene.background, phase(then, 0, 4)) if scene.background else -math.inf
        speech = scene.loudness(scene.speech, phase(then, 1, 4))
        if snr is None and before == -math.inf:
            raise InputError(
                f"{scene.name}: has no background, so there is no level to take over; say how much louder the speech "
                "is to be than the new one, such as --snr 15"
            )
        if snr is not None and speech == -math.inf:
            raise InputError(f"{scene.name}: nobody speaks in it, so --snr means nothing; leave it out")
        level = before if snr is None else speech - snr
        given = _loudness_of(scene, _cut(_repeated(theirs, scene), scene), phase(then, 2, 4))
        if given == -math.inf:
            raise InputError(f"{theirs.name}: its background is silent; take another recording for it")
        gain = level - given
        if is_stream(target, sdc):
            wanted = _Wanted(scene, _active(theirs, scene), lambda: _repeated(theirs, scene), gain)
            result = _recoded(wanted, source, target, began, overwrite, phase(then, 3, 4), level=level)
        else:
            with _writer(target, scene, overwrite) as writer:
                behind = _repeated(theirs, scene)
                _add(scene, writer, behind, np.float32(db_to_amplitude(gain)), phase(then, 3, 4))
            result = _result(scene, source, target, began, clipped=writer.clipped)
            result = replace(result, background_loudness=level)
    both = [f"{theirs.name}: {problem}" for problem in theirs.problems]
    notes = [f"{theirs.name}: {note}" for note in theirs.notes]
    return replace(
        result,
        speech_loudness=speech,
        problems=(*result.problems, *both),
        notes=(*result.notes, *notes),
    )


def is_stream(target: str | Path, sdc: bool | None) -> bool:
    """Whether an output is a `.sdc` and not audio."""
    return Path(target).suffix.lower() == ".sdc" if sdc is None else sdc


@contextlib.contextmanager
def _opened(
    source: str | Path, codec: CodecFor, channels: Literal["mono", "keep"], track: int, progress: Progress | None
) -> Iterator[tuple[Coded, Progress | None]]:
    """An input that has speech, and the progress of what follows its coding."""
    with opened(source, codec, channels=channels, track=track, progress=phase(progress, 0, 2)) as scene:
        check_domains(scene.codec)
        check_speech(scene)
        yield scene, phase(progress, 1, 2)


def _result(
    scene: Coded,
    source: str | Path,
    target: str | Path,
    began: float,
    *,
    clipped: int = 0,
    notes: Sequence[str] = (),
) -> SpeechResult:
    seconds = (scene.num_samples or 0) / scene.header.original_rate
    return SpeechResult(
        input=str(source),
        output=str(target),
        seconds=seconds,
        times_real_time=seconds / (time.monotonic() - began),
        model=scene.codec.name,
        device=scene.codec.device,
        speech_loudness=None,
        background_loudness=None,
        clipped=clipped,
        notes=(*scene.notes, *notes),
        problems=scene.problems,
    )


# --- audio


def _writer(target: str | Path, scene: Coded, overwrite: bool) -> AudioWriter:
    header = scene.header
    return AudioWriter(
        target,
        header.original_rate,
        header.coded_channels,
        overwrite=overwrite,
        num_samples=scene.num_samples,
        channel_mask=parse_mask(header.tags.get(MASK_TAG, ""), header.coded_channels),
    )


def _add(
    scene: Coded, writer: AudioWriter, behind: Iterator[Wav] | None, gain: np.float32, progress: Progress | None
) -> None:
    """Write the speech with something behind it, which may be longer."""
    done = 0
    rest = None if behind is None else _Pieces(behind)
    for wav in scene.audio(scene.speech):
        done += wav.shape[-1]
        writer.write(wav if rest is None else wav + gain * rest.take(wav.shape[-1]))
        tell(progress, done, scene)


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
    if scene.num_samples is None:
        yield from (pieces.take(wav.shape[-1]) for wav in scene.audio(scene.speech))
        return
    block = 10 * scene.header.original_rate
    for start in range(0, scene.num_samples, block):
        yield pieces.take(min(block, scene.num_samples - start))


def _loudness_of(scene: Coded, wavs: Iterator[Wav], progress: Progress | None = None) -> float:
    """Of audio with the rate and channels of a scene, in LUFS."""
    meter, done = scene.meter(), 0
    for wav in wavs:
        meter.push(wav)
        done += wav.shape[-1]
        tell(progress, done, scene)
    return meter.integrated() if done else -math.inf


def _repeated(theirs: Coded, scene: Coded) -> Iterator[Wav]:
    """The background of one input over and over, with the rate and the channels of another: `[C, T]` without an end."""
    rate, channels = scene.header.original_rate, scene.header.coded_channels

    def once() -> Iterator[Wav]:
        resampler = StreamResampler(theirs.header.original_rate, rate, channels)
        for wav in theirs.audio(theirs.background):
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


def _copy(
    scene: Coded,
    reader: Reader,
    streams: Sequence[str],
    target: str | Path,
    *,
    overwrite: bool,
    progress: Progress | None,
) -> None:
    """Write a `.sdc` with some of the streams of another, and all else that it says."""
    header = replace(
        scene.header,
        domains=tuple(entry for entry in scene.header.domains if entry.name in streams),
        original_samples=scene.num_samples,
        encoder=f"sdc {__version__}",
    )
    with atomic_output(target, overwrite=overwrite) as file:
        writer = Writer(file, header, tables=reader.tables, together=1 if str(target) == "-" else TOGETHER)
        frames = 0
        for segment in segments_of(reader, streams):
            writer.write(segment.codes, segment.num_frames, gains=segment.gains, treble=segment.treble)
            frames += segment.num_frames
            tell(progress, frames * header.hop_length * header.original_rate // header.sample_rate, scene)
        writer.close(length_of(reader, header, frames))


def length_of(reader: Reader, header: Header, frames: int) -> int:
    """Samples per channel of a file of which so many frames were read."""
    if reader.end is not None:
        return reader.end.original_samples
    whole = frames * header.hop_length * header.original_rate // header.sample_rate
    return whole if header.original_samples is None else min(whole, header.original_samples)


@dataclass(frozen=True)
class Part:
    """What a file has in some frames, as `Writer.write` takes it."""

    num_frames: int
    codes: dict[StreamKey, NDArray[np.int64] | None]
    """Of each stream `[K, F]`, or None where it is silent; what is missing was removed, or lost."""
    gains: Mapping[int, NDArray[np.int64]]
    treble: Mapping[int, NDArray[np.int64]]


def segments_of(reader: Reader, streams: Sequence[str]) -> Iterator[Part]:
    """All frames of some streams of a file, in order; those that are lost have no codes."""
    position = 0

    def lost(until: int) -> Iterator[Part]:
        for start in range(position, until, reader.header.segment_frames):
            yield Part(min(reader.header.segment_frames, until - start), {}, {}, {})

    for segment in reader.segments(domains=streams):
        if reader.end is None and segment.start_frame - position > MAX_GAP_FRAMES:
            return  # as in decoding, a forged start would fill the disk
        yield from lost(segment.start_frame)
        codes = {**segment.codes, **dict.fromkeys(segment.silent)}
        yield Part(segment.num_frames, codes, segment.gains, segment.treble)
        position = segment.start_frame + segment.num_frames
    if reader.end is not None:
        yield from lost(reader.end.total_frames)


def _active(theirs: Coded, scene: Coded) -> tuple[str, ...]:
    """Domains of a model that a background consists of: those that it had before, if that was coded by such a model."""
    known = tuple(domain for domain in scene.encoder.domains if domain != scene.speech[0])
    entries = {entry.name: entry.stem for entry in theirs.header.domains}
    found = set()
    with theirs.reader() as reader:
        for segment in reader.segments(domains=theirs.streams_of(theirs.background), decode=False):
            found |= {entries[name] for _, name in segment.num_codebooks}
    active = tuple(domain for domain in known if domain in found)
    return active or known


@dataclass(frozen=True)
class _Wanted:
    """A background that codes are to be made of."""

    scene: Coded
    domains: tuple[str, ...]
    """Of the model, that it consists of."""
    audio: Callable[[], Iterator[Wav]]
    """It, with the rate and channels of the scene; it may be longer."""
    gain: float
    """That it gets, in dB."""


def _recoded(
    wanted: _Wanted,
    source: str | Path,
    target: str | Path,
    began: float,
    overwrite: bool,
    progress: Progress | None,
    level: float | None = None,
) -> SpeechResult:
    """Write a `.sdc` with the speech of one and a background that is coded at a level.

    Coding takes from the level of noise, so the background is coded again, louder, until it has the one that is wanted.
    """
    scene = wanted.scene
    if level is None:
        level = wanted.gain + _loudness_of(scene, _cut(wanted.audio(), scene))
    with tempfile.TemporaryDirectory(prefix="sdc-", ignore_cleanup_errors=True) as folder:
        gain, path = wanted.gain, Path(folder) / "new.sdc"
        best: tuple[float, float] = (math.inf, math.nan)
        for attempt in range(ATTEMPTS):
            trial = Path(folder) / f"{attempt}.sdc"
            _write_recoded(replace(wanted, gain=gain), trial, phase(progress, attempt, ATTEMPTS))
            new = Coded(scene.name, trial, lambda header: scene.encoder)
            found = new.loudness(new.background)
            if abs(found - level) < best[0]:
                best = abs(found - level), found
                trial.replace(path)
            if not math.isfinite(found) or not math.isfinite(level) or best[0] < CLOSE_DB:
                break
            print(attempt, gain, level, found)
            gain += level - found
        with atomic_output(target, overwrite=overwrite) as file, path.open("rb") as made:
            while data := made.read(1 << 20):
                file.write(data)
    error, found = best
    notes = []
    if FAR_DB < error < math.inf:
        notes = [f"its background came out {error:.1f} dB from the level that is wanted: the model codes it no better"]
    return replace(_result(scene, source, target, began, notes=notes), background_loudness=found)


def _write_recoded(wanted: _Wanted, path: Path, progress: Progress | None) -> None:
    scene, encoder = wanted.scene, wanted.scene.encoder
    header = scene.header
    own = [entry for entry in header.domains if entry.stem in scene.speech]
    added = stream_header(
        encoder,
        num_codebooks=own[0].num_codebooks,
        gain_db=header.gain_db,
        stored=wanted.domains,
        original_rate=header.original_rate,
        original_samples=None,
    )
    # Envelope and treble were those of the mix, which is another now.
    header = replace(
        header,
        domains=(*own, *added.domains),
        envelope=None,
        treble=None,
        original_samples=scene.num_samples,
        encoder=f"sdc {__version__}",
    )
    coder = Coder(
        [
            encoder.stream_encoder(num_codebooks=own[0].num_codebooks, active=wanted.domains)
            for _ in range(header.coded_channels)
        ],
        header.original_rate,
        header.gain_db + wanted.gain,
    )
    total = None if scene.num_samples is None else scene.num_samples / header.original_rate
    new = _NewCodes(coder.run(_cut(wanted.audio(), scene), progress, total), [entry.name for entry in added.domains])
    per_frame = {entry.name: header.frames_in(entry, 1) for entry in added.domains}
    with scene.reader() as reader, path.open("wb") as file:
        writer = Writer(file, header, tables=reader.tables, together=TOGETHER)
        frames = 0
        for part in segments_of(reader, scene.streams_of(scene.speech)):
            writer.write({**part.codes, **new.take(part.num_frames, per_frame)}, part.num_frames)
            frames += part.num_frames
        writer.close(length_of(reader, header, frames))


class _NewCodes:
    """Codes that an encoder gives out in segments of its own, in segments of another length."""

    def __init__(self, segments: Iterator[tuple[CodedSegment, ...]], streams: Sequence[str]) -> None:
        self._segments, self._streams = segments, streams
        self._held: list[tuple[tuple[CodedSegment, ...], int]] = []
        """Segments of all channels, and the first frame of each that was not taken yet."""

    def take(self, num_frames: int, per_frame: Mapping[str, int]) -> dict[StreamKey, NDArray[np.int64] | None]:
        """Codes of the next frames; None where there are none, and behind the end."""
        pieces: dict[StreamKey, list[NDArray[np.int64]]] = {}
        active: set[StreamKey] = set()
        missing = num_frames
        while missing:
            segment, begin = self._held.pop() if self._held else (next(self._segments, None), 0)
            if segment is None:
                break
            stop = min(segment[0].num_frames, begin + missing)
            for (channel, each), name in itertools.product(enumerate(segment), self._streams):
                key, count = (channel, name), per_frame[name]
                pieces.setdefault(key, []).append(each.codes[name][:, begin * count : stop * count])
                active |= {key} if each.active[name] else set()
            missing -= stop - begin
            if stop < segment[0].num_frames:
                self._held.append((segment, stop))
        if missing:  # behind the end; a frame that rounding adds is silent like all that follows it
            active = set() if missing == num_frames else active
            for (_, name), found in pieces.items():
                found.append(np.repeat(found[-1][:, -1:], missing * per_frame[name], axis=1))
        return {key: np.concatenate(found, axis=-1) if key in active else None for key, found in pieces.items()}
