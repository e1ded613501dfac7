"""Speech with a background behind it, mixed on the spot, for `sdc eval --task decodec`.

Every clip of speech is heard by itself, and with one background at several signal-to-noise ratios, in a dry room and in
a reverberant one. The ratio is that of the powers of speech and background over the whole clip. A room is direct sound
followed by noise that decays exponentially (Polack's model of late reverberation), another one for every clip. The
reference for reverberant speech is that speech with all of its reverberation: to take this away is another task.

Everything is a function of the data and of seeds that do not change.

Legend: T samples.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from ...audio import Wav, db_to_power
from ...data.corpora import find_audio
from ...data.dnr import find_tracks
from ...data.manifest import Manifest
from ...data.pool import MANIFEST, TRIES
from ...errors import InputError
from ...progress import Progress
from ..coded import SPEECH
from . import protocol
from .protocol import SHORTEST, Clip, ClipPlan
from .settings import Settings
from .wide import chosen_split, extent, has_tracks

P = TypeVar("P")

BACKGROUND = "background"
"""The stem that is everything but speech."""

BACKGROUNDS = ("sfx", "music", BACKGROUND)
"""Domains of files that are mixed with speech, where there are no tracks of DnR."""

MUSIC_SHARE = 0.25
"""How often a background is music, where there are others."""

SECONDS = 10.0
"""Of a clip that is cut out of a file, at most."""

AUDIBLE = 1e-6
"""Mean square below which a clip of a file is passed over: −60 dBFS."""

ENOUGH = 1e-3
"""Seconds at the end of a background that may be silent: lengths are rounded."""

DECAY_SECONDS = (0.2, 0.8)
"""In which the reverberation of a room falls by 60 dB, at random between these."""

DIRECT_DB = (0.0, 10.0)
"""How much more power the direct sound has than the reverberation, likewise."""

GAP_SECONDS = 0.005
"""Between the direct sound and the reverberation."""

CLEAN, NOISY, REVERBERANT = "clean", "noisy", ", reverberant"
"""What conditions are called: speech by itself; any ratio, dry; what ends the names of those in a room."""


def overall(condition: str) -> str | None:
    """The condition that one of some ratio belongs to, whatever the ratio; None for clean speech.

    >>> overall("5 dB, reverberant")
    'noisy, reverberant'
    """
    if condition == CLEAN:
        return None
    return NOISY + REVERBERANT * condition.endswith(REVERBERANT)


@dataclass(frozen=True)
class MixturePlan:
    """Speech in some condition: where its parts are to be found, and how they are put together."""

    speech: ClipPlan
    layers: tuple[tuple[ClipPlan, ...], ...]
    """The background: a sum of layers, each of one clip after another."""
    other: tuple[tuple[ClipPlan, ...], ...]
    """The background to exchange this one for, which is the same where there is no other; none where nothing is
    exchanged."""
    snr: float | None
    """In dB; None for the speech by itself."""
    room: int | None
    """Seed of the room; None for a dry one."""
    voice: ClipPlan | None = None
    """Other speech, to take its voice; none where there is only one, and where no voice is converted."""

    @property
    def sample_rate(self) -> int:
        """Of the clip, in Hz."""
        return self.speech.sample_rate

    @property
    def place(self) -> Path:
        """Of the file of the speech, for messages."""
        return self.speech.place

    @property
    def condition(self) -> str:
        """Such as `clean`, `5 dB`, `5 dB, reverberant`."""
        return CLEAN if self.snr is None else f"{self.snr:g} dB{REVERBERANT * (self.room is not None)}"

    @property
    def name(self) -> str:
        """That of the speech, and the condition."""
        return f"{self.speech.name}, {self.condition}"

    @property
    def identity(self) -> str:
        """The same for the same mixture of the same files, wherever they are, and no other."""
        clips = [self.speech, *_all(self.layers), *_all(self.other), *([self.voice] if self.voice else [])]
        shape = [len(layer) for layer in (*self.layers, *self.other)]
        return repr((self.snr, self.room, shape, len(self.layers), [clip.identity for clip in clips]))

    def load(self) -> Clip:
        """Read the parts and mix them; stems are turned down together if the mixture would go beyond full scale.

        Raises:
            InputError: a file is missing, damaged, or shorter than it was
        """
        speech = self.speech.load().mix
        voice = None if self.voice is None else self.voice.load().mix
        if self.snr is None:
            return Clip(self.name, speech, {SPEECH: speech}, CLEAN, voice=voice)
        if self.room is not None:
            speech = reverberant(speech, self.sample_rate, self.room)
        background = at_ratio(speech, _sum_of(self.layers, len(speech)), self.snr)
        scale = np.float32(1 / max(1.0, float(np.abs(speech + background).max())))
        stems = {SPEECH: scale * speech, BACKGROUND: scale * background}
        other = _sum_of(self.other) if self.other else None
        return Clip(self.name, stems[SPEECH] + stems[BACKGROUND], stems, self.condition, other, voice)


def at_ratio(speech: Wav, background: Wav, snr: float) -> Wav:
    """A background at such a level that its power is that of the speech, less `snr` dB: `[T]` twice to `[T]`."""
    wanted = np.square(speech).mean(dtype=np.float64) / db_to_power(snr)
    return background * np.float32(np.sqrt(wanted / max(np.square(background).mean(dtype=np.float64), 1e-20)))


def reverberant(wav: Wav, sample_rate: int, seed: int) -> Wav:
    """A signal in a room of its own, as long as it was and as loud: `[T]` to `[T]`."""
    response = room(sample_rate, seed)
    size = 1 << (len(wav) + len(response)).bit_length()
    heard = np.fft.irfft(np.fft.rfft(wav, size) * np.fft.rfft(response, size), size)[: len(wav)]
    power = [np.square(each).mean(dtype=np.float64) for each in (wav, heard)]
    return np.asarray(heard * np.sqrt(power[0] / max(power[1], 1e-20)), dtype=np.float32)


def room(sample_rate: int, seed: int) -> Wav:
    """An impulse response, `[T]`, whose first sample is the direct sound."""
    rng = np.random.default_rng(seed)
    decay, direct = rng.uniform(*DECAY_SECONDS), rng.uniform(*DIRECT_DB)
    time = np.arange(round(decay * sample_rate)) / sample_rate
    tail = rng.standard_normal(len(time)) * 10 ** (-3 * time / decay) * (time >= GAP_SECONDS)
    tail *= np.sqrt(1 / db_to_power(direct) / np.square(tail).sum())
    return np.concatenate([[1.0], tail]).astype(np.float32)


def plan(
    settings: Settings,
    sample_rate: int,
    *,
    report: Callable[[str], None] = lambda message: None,
    note: Callable[[str], None] = lambda message: None,
    progress: Progress | None = None,
) -> tuple[list[MixturePlan], str | None]:
    """The mixtures, all conditions of one clip of speech after another, and the split that they are of.

    The data are a set in the layout of DnR, where what is behind the speech of a track are its other stems; or a
    manifest or a folder with speech and backgrounds, of which one is drawn for every clip of speech.

    Args:
        settings: of which data and split, how many clips of speech, and in which conditions
        sample_rate: of the mixtures, in Hz
        report: gets a line about each file that cannot be used; the others are planned all the same
        note: gets a line about what is left out
        progress: called after every track, or clip of speech

    Raises:
        InputError: there is no speech, or no background, or none of the split
    """
    if has_tracks(settings.data_root):
        scenes = _of_tracks(settings, sample_rate, report, note, progress)
        split: str | None = settings.split
    else:
        scenes, split = _of_files(settings, sample_rate, report, note, progress)
    plans = []
    for index, (speech, layers) in enumerate(scenes):
        # Those of a neighbour, so that they do not depend on how many there are.
        spoken, other = scenes[index - 1 if index else min(1, len(scenes) - 1)]
        voice = spoken if len(scenes) > 1 else None
        plans += [MixturePlan(speech, layers, other, snr, None, voice) for snr in settings.snrs]
        if settings.reverberation:
            plans += [MixturePlan(speech, layers, (), snr, index) for snr in settings.snrs]
        plans.append(MixturePlan(speech, (), (), None, None, voice))
    return plans, split


def to_hear(plans: Sequence[P], settings: Settings) -> Sequence[P]:
    """A mixture of each clip of speech, in another condition than that of the one before."""
    conditions = len(settings.snrs) * (1 + settings.reverberation) + 1
    return plans[:: conditions + 1]


Scene = tuple[ClipPlan, tuple[tuple[ClipPlan, ...], ...]]
"""Speech, and the layers of what is behind it."""


def _of_tracks(
    settings: Settings,
    sample_rate: int,
    report: Callable[[str], None],
    note: Callable[[str], None],
    progress: Progress | None,
) -> list[Scene]:
    """Of tracks of DnR, cut as those of `--task dnr`."""
    first = find_tracks(settings.data_root, settings.split, (SPEECH,), report=lambda message: None)[0]
    behind = tuple(sorted(path.stem for path in first.glob("*.wav") if path.stem not in ("mix", SPEECH)))
    if not behind:
        raise InputError(f"{first}: has nothing but speech; it needs a background, such as music.wav and sfx.wav")
    clips = protocol.plan(settings, (SPEECH, *behind), sample_rate, report=report, note=note, progress=progress)

    def alone(clip: ClipPlan, stem: str) -> ClipPlan:
        file = f"{clip.folder.name}/{stem}.wav"
        return dataclasses.replace(clip, folder=clip.folder.parent, file=file, domains=(), sum_of_stems=False)

    return [(alone(clip, SPEECH), tuple((alone(clip, stem),) for stem in behind)) for clip in clips]


def _of_files(
    settings: Settings,
    sample_rate: int,
    report: Callable[[str], None],
    note: Callable[[str], None],
    progress: Progress | None,
) -> tuple[list[Scene], str | None]:
    """Of files by themselves: the middle of each file of speech, in an order of no meaning, and a background."""
    root, files, split = _files(settings.data_root, "valid" if settings.split == "val" else settings.split)
    rng = np.random.default_rng(0)
    speech = [files[SPEECH][index] for index in rng.permutation(len(files[SPEECH]))]
    others = {domain: files[domain] for domain in BACKGROUNDS if files[domain]}
    draw = functools.partial(_draw, root, others, sample_rate, report)
    scenes: list[Scene] = []
    unfit = 0
    for number, file in enumerate(speech, 1):
        try:
            clip = _middle(root, file, sample_rate)
        except InputError as error:
            report(str(error))
        else:
            unfit += clip is None
            if clip is not None:
                # A generator for each: what was drawn for those before it changes nothing.
                scenes.append((clip, (draw(_seconds(clip), np.random.default_rng([1, number])),)))
        if progress:
            progress(number, len(speech))
        if len(scenes) == settings.limit:
            break
    if unfit:
        note(f"{unfit} files of speech are left out, which are silent or have less than {SHORTEST:g} s")
    return scenes, split


def _files(root: Path, wanted: str) -> tuple[Path, dict[str, list[str]], str | None]:
    """The folder, paths below it of the files of a split by domain, and which split it is."""
    listed = root if root.suffix == ".parquet" else root / MANIFEST
    domains = (SPEECH, *BACKGROUNDS)
    if listed.is_file():
        manifest = Manifest.open(listed)
        folder, split = manifest.root, chosen_split(root, wanted, manifest.splits)
        files = {
            domain: [str(manifest.file(row).relative_to(folder)) for row in manifest.rows(domain, split)]
            for domain in domains
        }
    else:
        found = list(find_audio(root, domains, needed=(SPEECH,)))
        folder, split = root, chosen_split(root, wanted, tuple(dict.fromkeys(file.split for file in found)))
        files = {
            domain: [file.path for file in found if file.domain == domain and split in (None, file.split)]
            for domain in domains
        }
    for needed in ((SPEECH,), BACKGROUNDS):
        if not any(files[domain] for domain in needed):
            raise InputError(f"{root}: has no {' or '.join(needed)}{f' in split {split}' if split else ''}; add some")
    return folder, files, split


def _middle(folder: Path, file: str, sample_rate: int) -> ClipPlan | None:
    """The middle of a file; None if that is too short, or silent."""
    rate, samples = extent(folder / file)
    length = min(samples, round(SECONDS * rate))
    start = (samples - length) // 2
    clip = ClipPlan(folder, start, start + length, rate, (), sample_rate, False, file)
    return clip if length >= SHORTEST * rate and _is_audible(clip) else None


def _draw(
    folder: Path,
    others: dict[str, list[str]],
    sample_rate: int,
    report: Callable[[str], None],
    seconds: float,
    rng: np.random.Generator,
) -> tuple[ClipPlan, ...]:
    """A background of some length: a stretch of one file, or short ones of the same domain one after another."""
    domains = [domain for domain in others if domain != "music"]
    if not domains or ("music" in others and rng.random() < MUSIC_SHARE):
        domains = ["music"]
    files = [file for domain in domains for file in others[domain]]
    pieces: list[ClipPlan] = []
    missing, failures = seconds, 0
    while missing > ENOUGH:
        file = files[rng.integers(len(files))]
        where = rng.random()
        try:
            rate, samples = extent(folder / file)
            length = min(samples, round(missing * rate))
            start = int(where * (samples - length + 1))
            piece = ClipPlan(folder, start, start + length, rate, (), sample_rate, False, file)
            audible = length > 0 and _is_audible(piece)
        except InputError as error:
            report(f"{error} (another background is taken)")
            audible = False
        if audible:
            pieces.append(piece)
            missing -= _seconds(piece)
            failures = 0
        else:
            failures += 1
            if failures == TRIES:
                raise InputError(f"{folder}: {TRIES} backgrounds in a row were silent or damaged; check its files")
    return tuple(pieces)


def _is_audible(clip: ClipPlan) -> bool:
    return float(np.square(clip.load().mix).mean()) > AUDIBLE


def _seconds(clip: ClipPlan) -> float:
    return (clip.stop - clip.start) / clip.file_rate


def _all(layers: Sequence[Sequence[ClipPlan]]) -> Iterator[ClipPlan]:
    for layer in layers:
        yield from layer


def _sum_of(layers: Sequence[Sequence[ClipPlan]], length: int | None = None) -> Wav:
    """All layers of a background, `[T]`: as long as the first of them, or of some length."""
    wavs = [np.concatenate([piece.load().mix for piece in layer]) for layer in layers]
    length = len(wavs[0]) if length is None else length
    return np.asarray(sum(np.pad(wav, (0, max(0, length - len(wav))))[:length] for wav in wavs), dtype=np.float32)
