"""Manifests: what is known about every audio file of a data root, in a Parquet file.

A row has `path` (relative to the root), `domain`, `split`, `sample_rate` in Hz, `channels`, `frames` (samples per
channel), `loudness` of the down-mix in LUFS, `active` (share of 100 ms of the down-mix above −60 dBFS), `size` in bytes
and `mtime_ns`. Loudness and activity are null where only headers were read. Rows are in the order of their paths.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError

SHORTEST = 0.1
"""Files of fewer seconds are listed but not used."""

ACTIVE = 1e-6
"""Mean square of 100 ms above which they count as active: −60 dBFS."""

META = b"sdcodec"
"""Key of what a manifest says about itself, in JSON: `version`, and `root`, relative to its own folder or absolute."""


@dataclass(frozen=True)
class _Columns:
    """What is held in memory: 15 bytes per row. Paths stay in the file."""

    root: Path
    stamp: tuple[int, int, int]
    """Inode, size and time of the file that all this is from."""
    domains: list[str]
    splits: list[str]
    domain: NDArray[np.int8]
    """Index into `domains`."""
    split: NDArray[np.int8]
    frames: NDArray[np.int64]
    sample_rate: NDArray[np.int32]
    usable: NDArray[np.bool_]


class Manifest:
    """An open manifest, made for many processes: it is pickled as the name of its file, and reads paths when asked for.

    Make one with `open`, which at once reports a file that is missing or damaged.
    """

    def __init__(self, path: Path, stamp: tuple[int, int, int] | None = None, root: Path | None = None) -> None:
        self.path = path
        self._root = root
        self._stamp = stamp
        self._reader: tuple[int, Any, NDArray[np.int64]] | None = None

    @classmethod
    def open(cls, path: Path, *, root: Path | None = None) -> Manifest:
        """Open a manifest.

        Args:
            path: of the file
            root: where the files are now, if they were moved together

        Raises:
            InputError: it is missing, damaged, or no manifest; or its root is not there
        """
        manifest = cls(path, root=root)
        if not manifest.root.is_dir():
            raise InputError(f"{path}: the folder it lists, {manifest.root}, is not there; run sdc data scan again")
        return manifest

    def __reduce__(self) -> tuple[Any, ...]:
        return Manifest, (self.path, self._columns.stamp, self._root)

    def __len__(self) -> int:
        return len(self._columns.frames)

    @property
    def root(self) -> Path:
        """The folder that paths are relative to."""
        return self._root or self._columns.root

    @property
    def splits(self) -> tuple[str, ...]:
        """Splits that have rows."""
        return tuple(self._columns.splits)

    @property
    def frames(self) -> NDArray[np.int64]:
        """Samples per channel of each row."""
        return self._columns.frames

    @property
    def sample_rate(self) -> NDArray[np.int32]:
        """Of each row, in Hz."""
        return self._columns.sample_rate

    @property
    def num_left_out(self) -> int:
        """Rows that are too short or wholly silent, and so not to be used."""
        return int(np.count_nonzero(~self._columns.usable))

    def rows(self, domain: str | None = None, split: str | None = None, min_sample_rate: int = 0) -> NDArray[np.int64]:
        """Numbers of the usable rows: of a domain and of a split if they are named, of at least that rate in Hz."""
        columns = self._columns
        chosen = columns.usable & (columns.sample_rate >= min_sample_rate)
        if domain is not None:
            chosen &= _equals(columns.domain, columns.domains, domain)
        if split is not None:
            chosen &= _equals(columns.split, columns.splits, split)
        return np.flatnonzero(chosen)

    def file(self, row: int) -> Path:
        """The file of a row.

        Raises:
            InputError: the manifest is damaged, or was replaced since it was opened
        """
        reader, ends = self._open_reader()
        group = int(np.searchsorted(ends, row, side="right"))
        first = int(ends[group - 1]) if group else 0
        with _damage(self.path):
            column = reader.read_row_group(group, columns=["path"], use_threads=False).column(0)
            return self.root / str(column[row - first].as_py())

    def table(self, rows: NDArray[np.int64]) -> Any:
        """All columns of some rows, as a pyarrow table."""
        reader, _ = self._open_reader()
        with _damage(self.path):
            return reader.read(use_threads=False).take(rows)

    @functools.cached_property
    def _columns(self) -> _Columns:
        import pyarrow as pa

        reader, _ = self._open_reader()
        stamp = self._stamp
        assert stamp is not None
        with _damage(self.path):
            meta = json.loads((reader.schema_arrow.metadata or {})[META])
            names = ["domain", "split", "sample_rate", "frames", "active"]
            table = reader.read(columns=names, use_threads=False).unify_dictionaries().combine_chunks()
            domain, split = (_codes(table.column(name)) for name in ("domain", "split"))
            frames = table.column("frames").to_numpy()
            sample_rate = table.column("sample_rate").to_numpy()
            active = table.column("active").to_numpy()  # NaN where it is not known
            usable = is_usable(frames, sample_rate, active)
            root = Path(os.path.normpath(self.path.absolute().parent / meta["root"]))
            columns = _Columns(root, stamp, *domain[:1], *split[:1], domain[1], split[1], frames, sample_rate, usable)
        del table, active
        pa.default_memory_pool().release_unused()
        return columns

    def _open_reader(self) -> tuple[Any, NDArray[np.int64]]:
        """A reader of this process, and where each group of rows ends: a forked one does not share its parent's."""
        if self._reader is None or self._reader[0] != os.getpid():
            import pyarrow.parquet as pq

            with _damage(self.path):
                stamp = _stamp(self.path)
                if self._stamp not in (None, stamp):
                    raise InputError(f"{self.path}: was replaced while it was in use; start again")
                reader = pq.ParquetFile(
                    self.path, memory_map=True, page_checksum_verification=True, read_dictionary=["domain", "split"]
                )
                sizes = [reader.metadata.row_group(group).num_rows for group in range(reader.num_row_groups)]
            self._stamp = stamp
            self._reader = (os.getpid(), reader, np.cumsum(sizes, dtype=np.int64))
        return self._reader[1:]


def is_usable(frames: NDArray[Any], sample_rate: NDArray[Any], active: NDArray[Any]) -> NDArray[np.bool_]:
    """Which rows are neither too short nor wholly silent; those whose activity is not known count as active."""
    return np.asarray((frames >= SHORTEST * sample_rate) & (active != 0))


def _equals(codes: NDArray[np.int8], names: list[str], name: str) -> NDArray[np.bool_]:
    return np.asarray(codes == (names.index(name) if name in names else -1))


def _codes(column: Any) -> tuple[list[str], NDArray[np.int8]]:
    """Names, and the index of each row's."""
    if not column.num_chunks:
        return [], np.zeros(0, np.int8)
    array = column.chunk(0)
    return array.dictionary.to_pylist(), array.indices.to_numpy().astype(np.int8)


def _stamp(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


@contextlib.contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Turn what pyarrow says about a file into an InputError."""
    import pyarrow as pa

    try:
        yield
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; make a manifest with sdc data scan") from None
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError) as error:
        raise InputError(f"{path}: is damaged, or not a manifest; remove it and run sdc data scan again") from error
