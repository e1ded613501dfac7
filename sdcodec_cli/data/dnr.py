"""Mixtures in the layout of Divide and Remaster (DnR v2): `ROOT/{tr,cv,tt}/<id>/{mix,speech,music,sfx}.wav`.

Dataset: "The cocktail fork problem", arXiv:2110.09958.
"""

from __future__ import annotations

import contextlib
import functools
import math
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import soundfile

from ..audio import Wav, db_to_amplitude, integrated_loudness, read_mono
from ..errors import InputError, OutputError
from ..progress import Progress
from ..recipe import MixingFields
from .parallel import in_processes
from .pool import Clips, Pool, clip_length

Split = Literal["train", "val", "test"]

FOLDERS: dict[Split, str] = {"train": "tr", "val": "cv", "test": "tt"}

TRIES = 20
"""Draws after which a domain is taken to have nothing but silence, or nothing but damaged files."""


@dataclass(frozen=True)
class Track:
    """One mixture with its stems."""

    name: str
    mix: Wav
    """`[T]`"""
    stems: dict[str, Wav]
    """Each `[T]`."""


def find_tracks(
    root: Path,
    split: Split,
    domains: tuple[str, ...],
    *,
    report: Callable[[str], None] = lambda message: None,
) -> list[Path]:
    """Folders of a split that have a mixture and every stem, in order; `report` gets a line about each other one.

    Raises:
        InputError: there are none
    """
    folder = root / FOLDERS[split]
    complete = []
    for track in sorted(folder.iterdir()) if folder.is_dir() else []:
        missing = [f"{name}.wav" for name in ("mix", *domains) if not (track / f"{name}.wav").is_file()]
        if not missing:
            complete.append(track)
        elif track.is_dir() and not track.name.startswith("."):
            report(f"{track}: has no {', '.join(missing)}; restore the track")
    if not complete:
        wanted = f"<id>/mix.wav and a .wav for each of {', '.join(domains)}"
        raise InputError(f"{folder}: no tracks ({wanted}); {_where_else(root, split)}")
    return complete


def _where_else(root: Path, split: Split) -> str:
    """Advice for an error: where tracks are, if not in this folder."""
    others = {name: len(list((root / folder).glob("*/mix.wav"))) for name, folder in FOLDERS.items() if name != split}
    found = [f"{FOLDERS[name]} has {count}: --dnr {name}" for name, count in others.items() if count]
    if found:
        return f"but {' and '.join(found)}"
    if root.name in FOLDERS.values() and any(root.glob("*/mix.wav")):
        return f"give the folder above, {root.parent}"
    return "give the root of DnR, or make one with sdc data mix"


def read_track(folder: Path, domains: tuple[str, ...], sample_rate: int) -> Track:
    """A track at the given rate, down-mixed.

    Raises:
        InputError: a file is missing or unreadable, or lengths differ
    """
    wavs = {name: read_mono(folder / f"{name}.wav", sample_rate) for name in ("mix", *domains)}
    lengths = {len(wav) for wav in wavs.values()}
    if len(lengths) != 1:
        raise InputError(f"{folder}: mixture and stems have different lengths; restore the track")
    return Track(folder.name, wavs.pop("mix"), wavs)


def draw_scene(
    pool: Pool,
    fields: MixingFields,
    *,
    seconds: float,
    seed: int,
    index: int,
    report: Callable[[str], None] = lambda message: None,
) -> dict[str, Wav]:
    """Stems of one mixture of all domains, each filled with clip after clip, on the paper's loudness targets.

    Damaged files are reported, and another clip is drawn.

    Raises:
        InputError: a domain has nothing but silence or damaged files
    """
    rng = np.random.default_rng([seed, index])
    length = round(seconds * pool.sample_rate)
    stems = {}
    for number, (domain, clips) in enumerate(pool.clips.items()):
        for _ in range(TRIES):
            stem = _fill(clips, length, rng, report)
            level = integrated_loudness(stem[None], pool.sample_rate)
            if level > -math.inf:
                break
        else:
            raise InputError(f"{domain}: {TRIES} draws in a row were silent; check its audio files")
        target = fields.loudness[number] + rng.uniform(-1, 1) * fields.loudness_range
        stems[domain] = _leveled(stem, target - level, fields.peak)
    mixture = np.stack(list(stems.values())).sum(0)
    level = integrated_loudness(mixture[None], pool.sample_rate)
    target = fields.mix_loudness + rng.uniform(-1, 1) * fields.loudness_range
    return {domain: stem * np.float32(db_to_amplitude(target - level)) for domain, stem in stems.items()}


def _fill(clips: Clips, length: int, rng: np.random.Generator, report: Callable[[str], None]) -> Wav:
    pieces: list[Wav] = []
    missing, failures = length, 0
    while missing > 0:
        clip = int(rng.integers(len(clips.ends)))
        start, taken = 0, clip_length(clips, clip)
        if taken > missing:
            start, taken = int(rng.integers(taken - missing + 1)), missing
        try:
            pieces.append(clips.read(clip, start, taken))
        except InputError as error:
            failures += 1
            if failures == TRIES:
                raise
            report(f"{error} (left out)")
            continue
        missing -= taken
    return np.concatenate(pieces)


def _leveled(stem: Wav, gain_db: float, peak: float) -> Wav:
    """A stem with a gain, and then with less of it if its peak would exceed `peak` dBFS."""
    louder = stem * np.float32(db_to_amplitude(gain_db))
    return louder * np.float32(min(1.0, db_to_amplitude(peak) / float(np.abs(louder).max())))


def write_tracks(
    pool: Pool,
    fields: MixingFields,
    root: Path,
    *,
    split: Split,
    count: int,
    seconds: float,
    seed: int,
    jobs: int = 1,
    progress: Progress | None = None,
    report: Callable[[str], None] = lambda message: None,
) -> list[Path]:
    """Write `count` mixtures of all domains as a DnR split, in 16 bit. All or nothing.

    The same for the same seed, whatever the number of `jobs`. `progress` hears of mixtures, and `report` takes a line
    about each damaged file.

    Raises:
        OutputError: the split exists, or cannot be written
        InputError: a domain has nothing but silence or damaged files
    """
    folder = root / FOLDERS[split]
    if folder.exists():
        raise OutputError(f"{folder} exists; choose another -o, or remove it")
    new_root = not root.exists()
    try:
        root.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=root))
    except OSError as error:
        raise OutputError(f"{root}: cannot be written: {error.strerror}; choose another -o") from error
    try:
        work = functools.partial(_write_track, pool, fields, partial, seconds, seed)
        reported: set[str] = set()
        for done, problems in enumerate(in_processes(work, range(count), jobs), 1):
            for problem in problems:
                if problem not in reported:
                    reported.add(problem)
                    report(problem)
            if progress:
                progress(done, count)
        partial.chmod(0o755)
        partial.rename(folder)
    except (OSError, soundfile.LibsndfileError, AssertionError) as error:  # AssertionError: soundfile, on a short write
        reason = getattr(error, "strerror", None) or "the disk may be full"
        raise OutputError(f"{folder}: cannot be written: {reason}; choose another -o") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if new_root:
            with contextlib.suppress(OSError):  # it holds the split
                root.rmdir()
    return [folder / _name(index) for index in range(count)]


def _write_track(pool: Pool, fields: MixingFields, folder: Path, seconds: float, seed: int, index: int) -> list[str]:
    """Write one mixture, and return a line for each damaged file that was drawn."""
    problems: list[str] = []
    track = folder / _name(index)
    track.mkdir()
    stems = draw_scene(pool, fields, seconds=seconds, seed=seed, index=index, report=problems.append)
    mix = np.sum(list(stems.values()), axis=0)
    for name, wav in {"mix": mix, **stems}.items():
        soundfile.write(track / f"{name}.wav", wav, pool.sample_rate, subtype="PCM_16")
    return problems


def _name(index: int) -> str:
    return f"{index:04d}"
