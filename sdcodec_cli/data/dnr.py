"""Mixtures in the layout of Divide and Remaster (DnR v2): `ROOT/{tr,cv,tt}/<id>/{mix,speech,music,sfx}.wav`.

Dataset: "The cocktail fork problem", arXiv:2110.09958.
"""

from __future__ import annotations

import contextlib
import math
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import soundfile
from numpy.typing import NDArray

from ..audio import integrated_loudness, read_mono
from ..errors import InputError, OutputError
from ..recipe import MixingFields
from .mixing import TRIES, leveled
from .pool import Clips, Pool

Split = Literal["train", "val", "test"]

FOLDERS: dict[Split, str] = {"train": "tr", "val": "cv", "test": "tt"}


@dataclass(frozen=True)
class Track:
    """One mixture with its stems."""

    name: str
    mix: NDArray[np.float32]
    """`[T]`"""
    stems: dict[str, NDArray[np.float32]]
    """Each `[T]`."""


def find_tracks(root: Path, split: Split, domains: tuple[str, ...]) -> list[Path]:
    """Folders of a split that have a mixture and every stem, in order.

    Raises:
        InputError: there are none
    """
    folder = root / FOLDERS[split]
    tracks = sorted(path.parent for path in folder.glob("*/mix.wav"))
    complete = [track for track in tracks if all((track / f"{domain}.wav").is_file() for domain in domains)]
    if not complete:
        raise InputError(
            f"{folder}: no tracks (<id>/mix.wav and a .wav for each of {', '.join(domains)}); "
            f"give the root of DnR, or make one with sdc data mix"
        )
    return complete


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
    pool: Pool, fields: MixingFields, *, seconds: float, seed: int, index: int
) -> dict[str, NDArray[np.float32]]:
    """Stems of one mixture of all domains, each filled with clip after clip, on the paper's loudness targets."""
    rng = np.random.default_rng([seed, index])
    length = round(seconds * pool.sample_rate)
    stems = {}
    for number, (domain, clips) in enumerate(pool.clips.items()):
        for _ in range(TRIES):
            stem = _fill(clips, length, rng)
            level = integrated_loudness(stem[None], pool.sample_rate)
            if level > -math.inf:
                break
        else:
            raise InputError(f"{domain}: {TRIES} draws in a row were silent; check its audio files")
        target = fields.loudness[number] + rng.uniform(-1, 1) * fields.loudness_range
        stems[domain] = leveled(stem, target - level, fields.peak)
    mixture = np.stack(list(stems.values())).sum(0)
    level = integrated_loudness(mixture[None], pool.sample_rate)
    target = fields.mix_loudness + rng.uniform(-1, 1) * fields.loudness_range
    return {domain: stem * np.float32(10 ** ((target - level) / 20)) for domain, stem in stems.items()}


def _fill(clips: Clips, length: int, rng: np.random.Generator) -> NDArray[np.float32]:
    pieces, missing = [], length
    while missing > 0:
        clip = int(rng.integers(len(clips.starts) - 1))
        start, stop = int(clips.starts[clip]), int(clips.starts[clip + 1])
        if stop - start > missing:
            start = int(rng.integers(start, stop - missing + 1))
            stop = start + missing
        pieces.append(clips.samples[start:stop])
        missing -= stop - start
    return np.asarray(np.concatenate(pieces) / np.float32(32768), dtype=np.float32)


def write_tracks(
    pool: Pool, fields: MixingFields, root: Path, *, split: Split, count: int, seconds: float, seed: int
) -> list[Path]:
    """Write `count` mixtures of all domains as a DnR split, in 16 bit; the same for the same seed. All or nothing.

    Raises:
        OutputError: the split exists, or cannot be written
        InputError: a domain has nothing but silence
    """
    folder = root / FOLDERS[split]
    if folder.exists():
        raise OutputError(f"{folder} exists; choose another -o, or remove it")
    new_root = not root.exists()
    names = [f"{index:04d}" for index in range(count)]
    try:
        root.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=root))
    except OSError as error:
        raise OutputError(f"{root}: cannot be written: {error.strerror}; choose another -o") from error
    try:
        for index, track in enumerate(partial / name for name in names):
            track.mkdir()
            stems = draw_scene(pool, fields, seconds=seconds, seed=seed, index=index)
            mix = np.sum(list(stems.values()), axis=0)
            for name, wav in {"mix": mix, **stems}.items():
                soundfile.write(track / f"{name}.wav", wav, pool.sample_rate, subtype="PCM_16")
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
    return [folder / name for name in names]
