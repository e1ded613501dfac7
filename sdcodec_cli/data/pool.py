"""Clips of every domain at one rate, read where and when they are needed, from files of any length."""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from ..audio import SequentialFile, Wav, downmix, to_16_bit
from ..errors import InputError, OutputError
from ..progress import Progress
from .manifest import SHORTEST, Manifest
from .parallel import exclusive
from .scan import scan

if TYPE_CHECKING:
    from .targets import Targets

MANIFEST = "manifest.parquet"
"""Name of the manifest of a data root."""

TRIES = 20
"""Draws from a domain that may fail in a row: then it counts as having nothing but silence, or damaged files."""

# Of samples at the lower of the two rates: what the resampler's filter reaches to either side, to 16 bits and beyond.
_MARGIN = 256
# A frame of an MP3 file may refer to 511 bytes before it, 21 frames at 8 kbit/s; libsndfile goes back by fewer.
_MP3_LEAD = 24 * 1152
_PIECE = 60  # seconds that are decoded at a time


class Clips(Protocol):
    """The clips of one domain at the pool's rate."""

    @property
    def ends(self) -> NDArray[np.int64]:
        """Lengths added up, in samples: clip i is from `ends[i - 1]` to `ends[i]`."""

    def read(self, clip: int, start: int, length: int) -> Wav:
        """`[length]`, mono, from `start` of a clip.

        Raises:
            InputError: the file is damaged or missing
        """


@dataclass(frozen=True)
class Pool:
    """Clips of every domain at one rate."""

    sample_rate: int
    clips: dict[str, Clips]
    targets: dict[str, Targets] = field(default_factory=dict)
    """What a teacher says of the clips of a domain, where there is one."""

    def seconds(self, domain: str) -> float:
        """How much audio there is of a domain."""
        return int(self.clips[domain].ends[-1]) / self.sample_rate


def clip_length(clips: Clips, clip: int) -> int:
    """Samples of a clip."""
    return int(clips.ends[clip]) - (int(clips.ends[clip - 1]) if clip else 0)


@dataclass(frozen=True)
class ArrayClips:
    """Clips that lie end to end in one array."""

    samples: NDArray[np.int16]
    """`[T]`"""
    ends: NDArray[np.int64]

    def read(self, clip: int, start: int, length: int) -> Wav:
        """See `Clips`."""
        _check(self, clip, start, length)
        first = (int(self.ends[clip - 1]) if clip else 0) + start
        return np.asarray(self.samples[first : first + length] / np.float32(32768), dtype=np.float32)


class DecodedClips(ArrayClips):
    """Clips in a file of 16-bit samples that all processes of a machine share; pickled as the name of the file."""

    def __init__(self, path: Path) -> None:
        try:
            super().__init__(np.load(path, mmap_mode="r"), np.load(_ends_of(path)))
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"{path}: is damaged or incomplete; remove it and start again") from error
        object.__setattr__(self, "path", path)

    def __reduce__(self) -> tuple[Any, ...]:
        return DecodedClips, (self.path,)  # type: ignore[attr-defined]


class FileClips:
    """Clips in the files of a manifest, of which only what is needed is read; pickled as the name of the manifest."""

    def __init__(
        self, manifest: Manifest, domain: str, split: str | None, sample_rate: int, min_sample_rate: int = 0
    ) -> None:
        self._manifest, self._domain, self._split, self._sample_rate = manifest, domain, split, sample_rate
        self._min_sample_rate = min_sample_rate

    def __reduce__(self) -> tuple[Any, ...]:
        return FileClips, (self._manifest, self._domain, self._split, self._sample_rate, self._min_sample_rate)

    @functools.cached_property
    def rows(self) -> NDArray[np.int64]:
        """Row of the manifest of each clip."""
        return self._manifest.rows(self._domain, self._split, self._min_sample_rate)

    @functools.cached_property
    def ends(self) -> NDArray[np.int64]:
        """See `Clips`."""
        lengths = self._manifest.frames[self.rows] * self._sample_rate // self._manifest.sample_rate[self.rows]
        return np.cumsum(lengths, dtype=np.int64)

    def file(self, clip: int) -> Path:
        """The file of a clip."""
        return self._manifest.file(int(self.rows[clip]))

    def read(self, clip: int, start: int, length: int) -> Wav:
        """See `Clips`."""
        _check(self, clip, start, length)
        row = int(self.rows[clip])
        rate, frames = int(self._manifest.sample_rate[row]), int(self._manifest.frames[row])
        path = self._manifest.file(row)
        if rate == self._sample_rate:
            return _read(path, rate, start, length)
        # Read from where both rates have a sample, so that those that come out are those of the whole file.
        common = math.gcd(rate, self._sample_rate)
        up, down = self._sample_rate // common, rate // common
        margin = math.ceil(_MARGIN * max(1, self._sample_rate / rate))
        steps = max(0, start - margin) // up
        first = steps * down
        last = min(frames, math.ceil((start + length + margin) * down / up))
        wav = soxr.resample(_read(path, rate, first, last - first), rate, self._sample_rate, quality="HQ")
        begin = start - steps * up
        return np.asarray(wav[begin : begin + length], dtype=np.float32)


def _read(path: Path, sample_rate: int, start: int, length: int) -> Wav:
    """Part of a file, mixed down: `[length]`."""
    try:
        with SequentialFile(path) as sound:
            known = (sound.samplerate, sound.frames >= start + length) == (sample_rate, True)
            lead = min(start, _MP3_LEAD) if sound.format == "MP3" else 0
            if known and start > lead:
                sound.seek(start - lead)
            count = lead + length if known else 0
            wav: Wav = sound.read(count, dtype="float32", always_2d=True)[lead:]
    except (soundfile.LibsndfileError, OSError) as error:
        raise InputError(f"{path}: cannot be read; restore it, or run sdc data scan again") from error
    if len(wav) != length:
        raise InputError(f"{path}: is cut short, or not what it was when scanned; run sdc data scan again")
    mono: Wav = downmix(wav.T)[0]
    if not np.isfinite(mono).all():
        raise InputError(f"{path}: has samples that are not numbers; remove it, and run sdc data scan again")
    return mono


def _check(clips: Clips, clip: int, start: int, length: int) -> None:
    if not 0 <= start <= start + length <= clip_length(clips, clip):
        raise ValueError(f"clip {clip} has {clip_length(clips, clip)} samples, not {length} from {start}")


# --------------------------------------------------------------------------------------------------------------------
# From a data root to a pool
# --------------------------------------------------------------------------------------------------------------------


def find_manifest(
    data_root: Path,
    domains: Sequence[str],
    *,
    kept: Path | None,
    jobs: int,
    progress: Progress | None = None,
    report: Callable[[str], None] = lambda message: None,
) -> Manifest:
    """The manifest that `data_root` is, or has; or one that is made now from headers alone.

    Args:
        data_root: a manifest, or a folder; see `corpora` for where its files may lie.
        domains: what to look for.
        kept: existing folder for a manifest that is made; None if none is to be made.
        jobs: processes that read headers.
        progress: hears of files, not of seconds.
        report: takes a line when files are about to be read and when they are, and about those that cannot be.

    Raises:
        InputError: there is no audio, or no manifest and none is to be made
        OutputError: `kept` cannot be written
    """
    if data_root.is_file():
        return Manifest.open(data_root)
    if (data_root / MANIFEST).is_file():
        return Manifest.open(data_root / MANIFEST)
    if kept is None:
        raise InputError(f"{data_root}: has no {MANIFEST}; make it with sdc data scan {data_root}")
    target = kept / MANIFEST
    result = scan(data_root, target, domains=domains, jobs=jobs, measure=False, progress=progress, report=report)
    report(f"{data_root}: {sum(result.files.values())} files, {sum(result.seconds.values()) / 3600:.2f} h")
    if result.unreadable_list:
        lines = Path(result.unreadable_list).read_text(encoding="utf-8").splitlines()
        for line in lines[:_REPORTED]:
            report(f"{line} (left out)")
        if len(lines) > _REPORTED:
            report(f"{len(lines) - _REPORTED} more files cannot be read; sdc data scan {data_root} lists them all")
    return Manifest.open(target)


_REPORTED = 10  # unreadable files that get a line each


def open_pool(
    manifest: Manifest,
    *,
    split: str | None,
    domains: Sequence[str],
    sample_rate: int,
    min_sample_rate: int = 0,
    decoded: Path | None = None,
    progress: Progress | None = None,
    report: Callable[[str], None] = lambda message: None,
) -> Pool:
    """The clips of a split, or of everything.

    Args:
        manifest: which files there are.
        split: `train`, `valid` or `test`; None for all.
        domains: in this order.
        sample_rate: of the clips, in Hz.
        min_sample_rate: files of a lower rate, in Hz, are left out; they have nothing above half of it.
        decoded: folder in which everything is kept decoded, 2 bytes a sample, for this run and the next; without it
            crops are read from the files.
        progress: hears of seconds of audio decoded.
        report: takes a line when files are about to be decoded and when they are, and about what is left out.

    Raises:
        InputError: a domain has no clips, or none that can be decoded
        OutputError: `decoded` cannot be written
    """
    found: dict[str, FileClips] = {}
    too_low: dict[str, int] = {}
    for domain in domains:
        files = FileClips(manifest, domain, split, sample_rate, min_sample_rate)
        too_low[domain] = len(manifest.rows(domain, split)) - len(files.rows)
        if not len(files.ends):  # computed here, once, for all processes that are forked
            where = f"in split {split} " if split else ""
            what = f"have {min_sample_rate} Hz or more, " if min_sample_rate else ""
            raise InputError(
                f"{manifest.path}: has no clips of {domain} {where}that {what}last {SHORTEST:g} s and are not silent; "
                f"add some, and run sdc data scan again{', or choose a lower rate' if min_sample_rate else ''}"
            )
        found[domain] = files
    if manifest.num_left_out:
        report(f"{manifest.path}: {manifest.num_left_out} files are shorter than {SHORTEST:g} s or silent (left out)")
    if any(too_low.values()):
        files_of = ", ".join(f"{count} files of {domain}" for domain, count in too_low.items() if count)
        where = f" in split {split}" if split else ""
        report(f"{manifest.path}: {files_of}{where} have fewer than {min_sample_rate} Hz (left out)")
    if decoded is None:
        return Pool(sample_rate, dict(found))
    return Pool(sample_rate, _all_decoded(found, manifest, split, sample_rate, decoded, progress, report))


def _all_decoded(
    found: dict[str, FileClips],
    manifest: Manifest,
    split: str | None,
    sample_rate: int,
    folder: Path,
    progress: Progress | None,
    report: Callable[[str], None],
) -> dict[str, Clips]:
    """The same clips, decoded into a folder unless they are there already."""
    total = sum(int(files.ends[-1]) for files in found.values()) / sample_rate
    done = 0.0

    def advance(seconds: float) -> None:
        nonlocal done
        done += seconds
        if progress:
            progress(done, total)

    targets = {
        domain: folder / f"{domain}-{stamp(files, manifest, sample_rate)}.npy" for domain, files in found.items()
    }
    missing = [files for domain, files in found.items() if not targets[domain].exists()]
    what = f"{sum(len(files.rows) for files in missing)} files{f' of {split}' if split else ''}"
    began = time.monotonic()
    if missing:
        hours = sum(int(files.ends[-1]) for files in missing) / sample_rate / 3600
        report(f"{folder}: decoding {what}, {hours:.2f} h")
    clips: dict[str, Clips] = {
        domain: _decoded(files, manifest, domain, sample_rate, targets[domain], advance, report)
        for domain, files in found.items()
    }
    if missing:
        report(f"{folder}: {what} decoded in {time.monotonic() - began:.0f} s")
    return clips


def stamp(files: FileClips, manifest: Manifest, sample_rate: int) -> str:
    """A digest of the files as they are now and of the rate, for the name of what is made of them."""
    rows = manifest.table(files.rows).select(["path", "size", "mtime_ns", "frames", "sample_rate"])
    known = json.dumps([sample_rate, str(manifest.root), rows.to_pydict()])
    return hashlib.sha256(known.encode()).hexdigest()[:16]


def _decoded(
    files: FileClips,
    manifest: Manifest,
    domain: str,
    sample_rate: int,
    target: Path,
    advance: Callable[[float], None],
    report: Callable[[str], None],
) -> DecodedClips:
    folder = target.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Several processes may start at once: one decodes, the others wait and find the file.
        with exclusive(folder / f".{domain}.lock"):
            if not target.exists():
                _decode(files, target, sample_rate, advance, report)
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot be written: {error.strerror}; free some space, or choose another folder"
        ) from error
    clips = DecodedClips(target)
    if not len(clips.ends):
        raise InputError(f"{manifest.path}: none of the {len(files.rows)} files of {domain} can be decoded")
    return clips


def _decode(
    files: FileClips, target: Path, sample_rate: int, advance: Callable[[float], None], report: Callable[[str], None]
) -> None:
    lengths = []
    total = int(files.ends[-1])
    descriptor, name = tempfile.mkstemp(prefix=f".{target.stem}-", dir=target.parent)
    partial = Path(name)
    try:
        # Written, not mapped: a full disk is an error then, and not the end of the process.
        with os.fdopen(descriptor, "wb") as file:
            np.lib.format.write_array_header_1_0(
                file, {"descr": np.dtype(np.int16).str, "fortran_order": False, "shape": (total,)}
            )
            whole = file.tell() + 2 * total
            for clip in range(len(files.ends)):
                try:
                    lengths.append(_append(files, clip, sample_rate, file))
                except InputError as error:
                    report(f"{error} (left out)")
                advance(clip_length(files, clip) / sample_rate)
            file.truncate(whole)  # what was left out is missing at the end, where no clip is
        with open(_ends_of(target), "wb") as file:
            np.save(file, np.cumsum(lengths, dtype=np.int64))
        partial.chmod(0o644)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _append(files: FileClips, clip: int, sample_rate: int, file: BinaryIO) -> int:
    """Write a clip whole or, if it cannot be read, nothing of it; return its length."""
    begin, length = file.tell(), clip_length(files, clip)
    step = _PIECE * sample_rate
    try:
        for start in range(0, length, step):
            wav = files.read(clip, start, min(step, length - start))
            file.write(to_16_bit(wav).tobytes())
    except InputError:
        file.seek(begin)
        raise
    return length


def _ends_of(target: Path) -> Path:
    return target.with_suffix(".ends.npy")
