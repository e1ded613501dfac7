"""What one speaker says, in the voice of another, by codes: an experiment, of which the authors of DeCodec
(arXiv:2509.09201) dropped the claim.

Models whose first codebook of speech was taught what is said hold in the others how it sounds. Here these are taken,
frame by frame, from a recording of the other voice, where it says the same or what comes closest. Of frames that say
the same, those are preferred that go on where the one before ended, and whose pitch is as far from the speaker's usual
one: a unit selection (Hunt and Black, ICASSP 1996) on codes.

Legend: F frames, R frames of the reference, K codebooks, V entries of a codebook, d their width.
"""

from __future__ import annotations

import functools
import math
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..audio import AudioWriter, WriteOptions
from ..audio.pitch import PitchTracker
from ..bitstream import Header, Reader, StreamKey
from ..errors import InputError, ModelError
from ..families import of
from ..progress import Progress
from ..runtime import CodecModel
from ..zoo import list_models
from .codec import Codec
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
from .stream_header import stream_header

REFERENCE_SECONDS = 600.0
"""Of a reference that are listened to: more would hold up every frame, and hardly sound better."""

CANDIDATES = 32
"""Frames of the reference that come into question for each one, beside those that go on where another ended."""

PITCH_COST, VOICING_COST, JUMP_COST = 0.5, 0.3, 0.3
"""Of an octave that pitch is off, of one being voiced and the other not, and of not going on in the reference; a
frame that says something unrelated costs 1."""

GAIN_STEP = 256
"""Steps of a `.sdc` file's gain in a dB."""


def semantic_models() -> list[str]:
    """Names of the models of the zoo with a codebook for what is said, those that come with weights first."""
    found = [entry for entry in list_models() if of(entry.recipe).teaching(entry.recipe) is not None]
    found.sort(key=lambda entry: not entry.size_bytes)
    return [entry.name if entry.size_bytes else f"{entry.name} (a recipe without weights)" for entry in found]


def default_model() -> str | None:
    """The first model of the zoo that can convert voices, or None: what comes without weights cannot."""
    return next((name for name in semantic_models() if " " not in name), None)


def convert_voice(
    source: str | Path,
    reference: str | Path,
    target: str | Path,
    *,
    codec: CodecFor,
    sdc: bool | None = None,
    channels: Channels = "keep",
    track: int = 1,
    write: WriteOptions | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> SpeechResult:
    """Write what is said in one input in the voice of another, as loud as before and without background.

    Codes of what is said stay as they are, and so do length and pauses. Memory does not grow with the length of
    `source`.

    Args:
        source: where it is said: a `.sdc`, or audio that is coded first, or `-` for standard input
        reference: the voice, likewise, of which the first `REFERENCE_SECONDS` count
        target: see `background.enhance`, as all that follows
        codec: likewise
        sdc: likewise
        channels: likewise
        track: likewise, of `source`
        write: likewise
        overwrite: likewise
        progress: likewise

    Raises:
        ModelError: the model has no codebook for what is said, or is not the same for both
        InputError: also where nobody speaks in `reference`
        see `background.enhance`
    """
    began = time.monotonic()

    def checked(given: str | Path, header: Header | None) -> Codec:
        found = find_codec(codec, header)
        _codebook(found, None if header is None else given)
        return found

    with (
        opened(
            source, functools.partial(checked, source), channels=channels, track=track, progress=phase(progress, 0, 3)
        ) as scene,
        opened(
            reference, lambda header: checked(reference, header) if header else scene.encoder, channels="mono"
        ) as theirs,
    ):
        for each in (scene, theirs):
            check_speech(each)
        if theirs.codec.weights_sha256 != scene.codec.weights_sha256:
            raise ModelError(
                f"{theirs.name}: was made with other weights than {scene.name}, so their codes do not mean the same; "
                "give the audio that it was made of"
            )
        bank = _bank(theirs)
        mean = _pitch_of(scene)
        loudness = scene.loudness(scene.audio(scene.speech))
        with tempfile.TemporaryDirectory(prefix="sdc-", ignore_cleanup_errors=True) as folder:
            path = Path(folder) / "voice.sdc"
            header = _header(scene, bank)
            scene.write(
                path,
                header,
                lambda reader: _converted(scene, reader, bank, mean),
                overwrite=True,
                progress=phase(progress, 1, 3),
            )
            said = Coded(scene.name, path, lambda header: scene.encoder)
            found = said.loudness(said.audio(said.speech))
            if math.isfinite(found - loudness):
                # Undoing a gain that was not there is a gain.
                gain_db = min(127.0, max(-127.0, header.gain_db + found - loudness))
                header = replace(header, gain_db=round(gain_db * GAIN_STEP) / GAIN_STEP)
                again = Path(folder) / "level.sdc"
                streams = said.streams_of(said.speech)
                said.write(again, header, lambda reader: said.parts(reader, streams), overwrite=True)
                said = Coded(scene.name, again, lambda header: scene.encoder)
            writer = _write(said, target, sdc, write, overwrite=overwrite, progress=phase(progress, 2, 3))
        notes = [f"{theirs.name}: {note}" for note in theirs.notes]
        if theirs.num_samples > REFERENCE_SECONDS * theirs.header.original_rate:
            notes.append(f"{theirs.name}: only its first {REFERENCE_SECONDS / 60:g} minutes are listened to")
        result = scene.result(source, target, began, speech_loudness=loudness, writer=writer, notes=notes)
        return replace(
            result, problems=(*result.problems, *(f"{theirs.name}: {problem}" for problem in theirs.problems))
        )


def _write(
    said: Coded,
    target: str | Path,
    sdc: bool | None,
    write: WriteOptions | None,
    *,
    overwrite: bool,
    progress: Progress | None,
) -> AudioWriter | None:
    """Write speech as codes, or as audio with the writer that is returned."""
    if is_stream(target, sdc):
        streams = said.streams_of(said.speech)
        said.write(
            target, said.header, lambda reader: said.parts(reader, streams), overwrite=overwrite, progress=progress
        )
        return None
    done = 0
    with said.audio_writer(target, write=write, overwrite=overwrite) as writer:
        for wav in said.audio(said.speech):
            writer.write(wav)
            done += wav.shape[-1]
            said.tell(progress, done)
    return writer


def _codebook(codec: Codec, coded: str | Path | None = None) -> NDArray[np.float32]:
    """Entries of the codebook of what is said, `[V, d]`, each of length 1, as quantizers compare them.

    Args:
        codec: the model
        coded: a file that is coded with it

    Raises:
        ModelError: the model has none
    """
    found = codec.model.semantic_codebook if isinstance(codec.model, CodecModel) else None
    if found is None and coded is not None:
        raise ModelError(
            f"{coded}: is coded with {codec.name}, which has no codebook for what is said; give the audio that it was "
            "made of"
        )
    if found is None:
        raise ModelError(
            f"{codec.name}: has no codebook for what is said, without which voices cannot be told from words; models "
            f"that have one: {', '.join(semantic_models())}"
        )
    unit: NDArray[np.float32] = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
    return unit


@dataclass(frozen=True)
class VoiceBank:
    """What frames of a voice say, and how they sound."""

    codebook: NDArray[np.float32]
    """Entries of what is said, `[V, d]`, of length 1."""
    said: NDArray[np.int64]
    """Code of each frame in that, `[R]`."""
    sounds: NDArray[np.int64]
    """All other codes, `[K - 1, R]`."""
    pitch: NDArray[np.float32]
    """In octaves from the voice's median, NaN where it is not voiced, `[R]`."""
    goes_on: NDArray[np.bool_]
    """Whether the frame after it comes next in the recording, too, `[R]`."""


class VoiceSelector:
    """Chooses a frame of a voice for each frame of what is said.

    Frames come in runs, and each run goes on from the end of the one before, which is decided.
    """

    def __init__(self, bank: VoiceBank) -> None:
        self._bank = bank
        self._last: int | None = None
        self._distances = 1 - bank.codebook @ bank.codebook.T
        self._nearest: dict[int, NDArray[np.intp]] = {}

    def choose(self, said: NDArray[np.int64], pitch: NDArray[np.float32]) -> NDArray[np.intp]:
        """Frames of the voice for frames in a row.

        Args:
            said: their codes of what is said, `[F]`
            pitch: in octaves from the speaker's median, NaN where it is not voiced, `[F]`

        Returns:
            `[F]`, from 0 to R - 1
        """
        bank = self._bank
        rows = np.array([], dtype=np.intp) if self._last is None else np.array([self._last])
        costs = np.zeros(len(rows))
        steps: list[tuple[NDArray[np.intp], NDArray[np.intp]]] = []  # candidates, and which one before each comes from
        for code, octaves in zip(said.tolist(), pitch.tolist(), strict=True):
            following = rows[bank.goes_on[rows]] + 1
            candidates = np.union1d(self._candidates(code, octaves), following)
            own = self._cost(code, octaves, candidates)
            if not len(rows):
                costs, origin = own, np.zeros(len(candidates), dtype=np.intp)
            else:
                best = int(costs.argmin())
                before = np.full(len(candidates), costs[best] + JUMP_COST)
                origin = np.full(len(candidates), best)
                goes_on = np.flatnonzero(bank.goes_on[rows])
                places = np.searchsorted(candidates, rows[goes_on] + 1)
                better = costs[goes_on] < before[places]
                before[places[better]], origin[places[better]] = costs[goes_on][better], goes_on[better]
                costs = own + before
            steps.append((candidates, origin))
            rows = candidates
        chosen = np.zeros(len(steps), dtype=np.intp)
        place = int(costs.argmin()) if len(steps) else 0
        for number in reversed(range(len(steps))):
            candidates, origin = steps[number]
            chosen[number], place = candidates[place], int(origin[place])
        if len(chosen):
            self._last = int(chosen[-1])
        return chosen

    def pause(self) -> None:
        """What comes next need not go on from what was."""
        self._last = None

    def _candidates(self, code: int, octaves: float) -> NDArray[np.intp]:
        """Frames that say what is nearest, and of those the ones of the nearest pitch, in ascending order."""
        if code not in self._nearest:
            distances = self._distances[code][self._bank.said]
            count = min(CANDIDATES, len(distances))
            limit = np.partition(distances, count - 1)[count - 1]
            self._nearest[code] = np.flatnonzero(distances <= limit)
        nearest = self._nearest[code]
        if len(nearest) > CANDIDATES:
            costs = self._cost(code, octaves, nearest)
            nearest = np.sort(nearest[np.argpartition(costs, CANDIDATES - 1)[:CANDIDATES]])
        return nearest

    def _cost(self, code: int, octaves: float, rows: NDArray[np.intp]) -> NDArray[np.float64]:
        off = np.abs(self._bank.pitch[rows].astype(np.float64) - octaves)
        voiced = ~np.isnan(self._bank.pitch[rows])
        pitch = np.where(np.isnan(off), VOICING_COST * (voiced != (not math.isnan(octaves))), PITCH_COST * off)
        return np.asarray(self._distances[code][self._bank.said[rows]] + pitch)


def _median(pitch: NDArray[np.float32]) -> float:
    """Of frames that are voiced; not their mean, because trackers are off by octaves at times."""
    voiced = pitch[~np.isnan(pitch)]
    return float(np.median(voiced)) if len(voiced) else 0.0


def _with_pitch(coded: Coded, parts: Iterator[Part]) -> Iterator[tuple[Part, list[NDArray[np.float32]]]]:
    """Parts of a file with the pitch of the speech of each channel, in octaves, as `PitchTracker` has it."""
    codec, channels = coded.codec, range(coded.header.coded_channels)
    decoders = [codec.stream_decoder([SPEECH], texture=False) for _ in channels]
    trackers = [PitchTracker(codec.sample_rate, codec.hop_length) for _ in channels]
    pitches = [np.zeros(0, dtype=np.float32) for _ in channels]
    waiting: list[Part] = []

    def complete() -> Iterator[tuple[Part, list[NDArray[np.float32]]]]:
        while waiting and len(pitches[0]) >= waiting[0].num_frames:
            part = waiting.pop(0)
            yield part, [pitch[: part.num_frames] for pitch in pitches]
            pitches[:] = [pitch[part.num_frames :] for pitch in pitches]

    for part in parts:
        waiting.append(part)
        for channel in channels:
            codes = {SPEECH: part.codes.get((channel, SPEECH))}
            wavs = decoders[channel].push(codes, part.num_frames)
            pitches[channel] = np.concatenate([pitches[channel], *(trackers[channel].push(wav[0]) for wav in wavs)])
        yield from complete()
    for channel in channels:
        rest = [trackers[channel].push(wav[0]) for wav in decoders[channel].finish()]
        pitches[channel] = np.concatenate([pitches[channel], *rest, trackers[channel].finish()])
    yield from complete()


def _bank(coded: Coded) -> VoiceBank:
    """The voice of a reference.

    Raises:
        InputError: nobody speaks in it, or its codes hold only what is said
    """
    (entry,) = (entry for entry in coded.header.domains if entry.stem == SPEECH)
    if entry.num_codebooks < 2:
        raise InputError(
            f"{coded.name}: has the codebook of what is said alone, and nothing of the voice; take one with more"
        )
    count = coded.header.coded_channels
    codes: list[list[NDArray[np.int64]]] = [[] for _ in range(count)]
    pitches: list[list[NDArray[np.float32]]] = [[] for _ in range(count)]
    goes_on: list[list[NDArray[np.bool_]]] = [[] for _ in range(count)]
    seconds = 0.0
    with coded.reader() as reader:
        for part, found in _with_pitch(coded, coded.parts(reader, coded.streams_of(coded.speech))):
            for channel, pitch in enumerate(found):
                said = part.codes.get((channel, SPEECH))
                if said is not None and len(said) == entry.num_codebooks:
                    codes[channel].append(said)
                    pitches[channel].append(pitch)
                    goes_on[channel].append(np.ones(len(pitch), dtype=bool))
                elif goes_on[channel]:
                    goes_on[channel][-1][-1] = False
            seconds += part.num_frames / coded.header.frame_rate
            if seconds >= REFERENCE_SECONDS:
                break
    for runs in goes_on:
        if runs:
            runs[-1][-1] = False
    if not any(codes):
        raise InputError(f"{coded.name}: nobody speaks in it; take a recording of the voice that is wanted")
    whole = np.concatenate([each for channel in codes for each in channel], axis=1)
    octaves = np.concatenate([each for channel in pitches for each in channel])
    return VoiceBank(
        codebook=_codebook(coded.codec),
        said=whole[0],
        sounds=whole[1:],
        pitch=octaves - np.float32(_median(octaves)),
        goes_on=np.concatenate([each for channel in goes_on for each in channel]),
    )


def _pitch_of(coded: Coded) -> float:
    """The speaker's, in octaves as `PitchTracker` has it."""
    voiced = []
    with coded.reader() as reader:
        for _, pitches in _with_pitch(coded, coded.parts(reader, coded.streams_of(coded.speech))):
            voiced += [pitch[~np.isnan(pitch)] for pitch in pitches]
    return _median(np.concatenate(voiced)) if voiced else 0.0


def _header(scene: Coded, bank: VoiceBank) -> Header:
    """Of what is said in a scene, in another voice."""
    header = scene.header
    speech = stream_header(
        scene.encoder,
        num_codebooks=1 + len(bank.sounds),
        gain_db=header.gain_db,
        stored=scene.speech,
        original_rate=header.original_rate,
        original_samples=None,
    ).domains
    # Envelope and treble are those of another voice, and of another mix.
    return replace(header, domains=speech, envelope=None, treble=None)


def _converted(scene: Coded, reader: Reader, bank: VoiceBank, mean: float) -> Iterator[Part]:
    """The speech of a scene in another voice."""
    selectors = [VoiceSelector(bank) for _ in range(scene.header.coded_channels)]
    for part, pitches in _with_pitch(scene, scene.parts(reader, scene.streams_of(scene.speech))):
        codes: dict[StreamKey, NDArray[np.int64] | None] = {}
        for channel, (selector, pitch) in enumerate(zip(selectors, pitches, strict=True)):
            key = (channel, SPEECH)
            said = part.codes.get(key)
            if said is None:
                selector.pause()
                codes |= {key: None} if key in part.codes else {}
            else:
                chosen = selector.choose(said[0], pitch - mean)
                codes[key] = np.concatenate([said[:1], bank.sounds[:, chosen]])
        yield Part(part.num_frames, codes, {}, {})
