"""Clips at 32 kHz for `sdc eval --task bands` and `extend`: of tracks of DnR, or of any audio files.

Tracks are cut as for the tables of DnR, see `protocol`. Of a file by itself the middle is taken, at most 10 s: so a few
clips are of many files. What has a sample rate below 32 kHz has nothing at the top, and is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ...audio import READ_SUFFIXES, AudioReader
from ...data.corpora import SPLITS
from ...data.dnr import FOLDERS
from ...data.manifest import Manifest
from ...data.pool import MANIFEST
from ...errors import InputError
from ...progress import Progress
from ..inputs import find_inputs
from . import protocol
from .protocol import SHORTEST, ClipPlan
from .settings import Settings

RATE = 32_000
"""Of clips, in Hz."""

SECONDS = 10.0
"""Of a file by itself, at most."""


def plan(
    settings: Settings,
    domains: tuple[str, ...],
    *,
    report: Callable[[str], None] = lambda message: None,
    note: Callable[[str], None] = lambda message: None,
    progress: Progress | None = None,
) -> tuple[list[ClipPlan], str | None]:
    """The clips, in order, and the split that they are of; None where the data have no splits.

    The data are a set in the layout of DnR, a manifest or a folder that has one, or any folder or file.

    Args:
        settings: of which data and split, and how many
        domains: of the model; if there are several, tracks of DnR need a stem of each, and these are measured, too
        report: gets a line about each track or file that cannot be used; the others are planned all the same
        note: gets a line about what is left out
        progress: called after every track or file

    Raises:
        InputError: there is no audio, or none of the split
    """
    root = settings.data_root
    if has_tracks(root):
        stems = domains if len(domains) > 1 else ()
        tracks = protocol.plan(settings, stems, RATE, report=report, note=note, progress=progress)
        clips = [clip for clip in tracks if clip.file_rate >= RATE]
        if len(clips) < len(tracks):
            note(f"{len(tracks) - len(clips)} clips are left out, of tracks with a sample rate below {RATE} Hz")
        return clips, settings.split
    files, split = _files(root, "valid" if settings.split == "val" else settings.split, report)
    clips = []
    low = short = 0
    for number, (folder, file) in enumerate(files, 1):
        try:
            rate, samples = extent(folder / file)
        except InputError as error:
            report(str(error))
        else:
            low += rate < RATE
            short += rate >= RATE and samples < SHORTEST * rate
            if rate >= RATE and samples >= SHORTEST * rate:
                length = min(samples, round(SECONDS * rate))
                start = (samples - length) // 2
                clips.append(ClipPlan(folder, start, start + length, rate, (), RATE, False, file))
        if progress:
            progress(number, len(files))
        if len(clips) == settings.limit:
            break
    if low:
        note(f"{low} files are left out, which have a sample rate below {RATE} Hz")
    if short:
        note(f"{short} files are left out, which have less than {SHORTEST:g} s")
    return clips, split


def has_tracks(root: Path) -> bool:
    """Whether a folder, or one of a split in it, holds tracks of DnR."""
    places = (root, *(root / name for name in FOLDERS.values()))
    return any(path for place in places for path in place.glob("*/mix.wav"))


def _files(root: Path, split: str, report: Callable[[str], None]) -> tuple[list[tuple[Path, str]], str | None]:
    """Folders and paths below them of the audio files of a split, and which it is."""
    listed = root if root.suffix == ".parquet" else root / MANIFEST
    if listed.is_file():
        manifest = Manifest.open(listed)
        found = chosen_split(root, split, manifest.splits)
        paths = [manifest.file(row) for row in manifest.rows(split=found)]
        return [(manifest.root, str(path.relative_to(manifest.root))) for path in paths], found
    folders = {name: SPLITS[name] for name in SPLITS if (root / name).is_dir()}
    found = chosen_split(root, split, tuple(dict.fromkeys(folders.values())))
    wanted = [root / name for name, of in folders.items() if of == found] or [root]
    names, failures = find_inputs([str(place) for place in wanted], READ_SUFFIXES)
    for failure in failures:
        report(str(failure))
    folder = root if root.is_dir() else root.parent
    return [(folder, str(Path(name).relative_to(folder))) for name in names], found


def chosen_split(root: Path, wanted: str, there: Sequence[str]) -> str | None:
    """The split that is wanted, or None for everything where there are no splits."""
    if wanted not in there and len(there) > 1:
        raise InputError(f"{root}: has no {wanted} split, only {', '.join(there)}; choose another with --dnr")
    return wanted if wanted in there else None


def extent(path: Path) -> tuple[int, int]:
    """Sample rate of a file in Hz, and its number of samples.

    Raises:
        InputError: it cannot be read
    """
    with AudioReader(path) as reader:
        rate, samples, seconds = reader.info.sample_rate, reader.info.num_samples, reader.info.seconds
        if samples is None and (seconds is None or seconds < 2 * SECONDS):
            # What a container claims is not exact enough for the end of a short file.
            samples = sum(block.shape[1] for block in reader.blocks())
    return rate, round((seconds or 0) * rate) if samples is None else samples
