"""Making manifests: each audio file of a data root is read once, by several processes, and again only if it changes."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..audio import UNKNOWN_FRAMES, AudioReader, LoudnessMeter, Wav, atomic_output, check_target, downmix
from ..errors import InputError, OutputError
from ..progress import Progress
from .corpora import find_audio
from .manifest import ACTIVE, META, Manifest, is_usable
from .parallel import exclusive, in_processes

_ROWS = 2048  # of a group; a path is looked up by reading a group of them, in about 0.1 ms
_KEYS = ["path", "size", "mtime_ns"]
_FACTS = ["sample_rate", "channels", "frames", "loudness", "active"]
_COLUMNS = ["path", "domain", "split", *_FACTS, "size", "mtime_ns"]
_CHUNK_FILES, _CHUNK_BYTES = 64, 64_000_000  # what a worker does at a time, and an interrupted scan does again


@dataclass(frozen=True)
class ScanResult:
    """What a scan found."""

    manifest: str
    """The file that was written."""
    files: dict[str, int]
    """Readable files per domain."""
    seconds: dict[str, float]
    """Length of the audio per domain."""
    unreadable: int
    """Files that could not be read."""
    unreadable_list: str | None
    """File that lists them and what is wrong with each; None if all could be read."""
    reused: int
    """Files that had not changed since they were last read."""
    left_out: int
    """Files that are listed but not used: shorter than 0.1 s, or wholly silent."""


class _Facts(NamedTuple):
    """What only reading a file tells; columns of the manifest."""

    sample_rate: int
    channels: int
    frames: int
    loudness: float | None
    active: float | None


_File = tuple[str, int, int]
"""Path below the root, size and time: `_KEYS`."""


def scan(
    root: Path,
    target: Path,
    *,
    domains: Sequence[str],
    jobs: int,
    measure: bool = True,
    progress: Progress | None = None,
    report: Callable[[str], None] = lambda message: None,
) -> ScanResult:
    """Write the manifest of a data root; files that cannot be read are listed beside it, in `.unreadable.txt`.

    Files whose size and time are those of an existing manifest, or of a scan that was interrupted, are not read again.

    Args:
        root: see `corpora` for where its files may lie.
        target: the manifest, replaced if it exists.
        domains: what to look for.
        jobs: processes that read files.
        measure: decode everything, for loudness and activity; otherwise only headers are read.
        progress: hears of files, not of seconds.
        report: takes a line when files are about to be read, and when an interrupted scan goes on.

    Raises:
        InputError: a domain has no files, or no file can be read
        OutputError: the target is something else than a manifest, or cannot be written
    """
    import pyarrow as pa

    if target.exists() and not target.is_file():
        raise OutputError(f"{target}: is not a file; name one for the manifest")
    check_target(target, overwrite=True)
    journal = target.with_name(f".{target.name}.journal")
    with exclusive(target.with_name(f".{target.name}.lock")):
        found, unreadable = _find(root, domains, progress)
        previous = _previous(target, root)
        interrupted = _read_journal(journal, root)
        if interrupted.num_rows:
            report(f"{target}: goes on after {interrupted.num_rows} files of a scan that was interrupted")
        if measure:
            previous, interrupted = (known.filter(_is_measured(known)) for known in (previous, interrupted))
        previous = previous.join(interrupted.select(_KEYS), _KEYS, join_type="left anti")
        known = pa.concat_tables([previous.select(interrupted.column_names), interrupted])
        todo = found.join(known.select(_KEYS), _KEYS, join_type="left anti").sort_by("path")
        batches = []
        done, total = found.num_rows - todo.num_rows, found.num_rows
        reused = done
        if todo.num_rows:
            report(f"{root}: reading {'' if measure else 'the headers of '}{todo.num_rows} files")
        with _writing(target), _journal(journal, root, interrupted) as write:
            work = functools.partial(_read_chunk, root, measure)
            # For a handful of files, starting processes would take longer than reading.
            chunks = 1 + todo.num_rows // _CHUNK_FILES + int(todo.column("size").to_numpy().sum()) // _CHUNK_BYTES
            for answers in in_processes(work, _chunks(todo), min(jobs, chunks)):
                unreadable += [reason for _, reason in answers if isinstance(reason, str)]
                batches.append(_batch((file, facts) for file, facts in answers if isinstance(facts, _Facts)))
                write(batches[-1])
                done += len(answers)
                if progress:
                    progress(done, total)
        known = pa.concat_tables([known, pa.Table.from_batches(batches, _schema(_KEYS + _FACTS))])
        table = found.join(known, _KEYS, join_type="inner").select(_COLUMNS).sort_by("path")
        listed = target.with_name(f"{target.stem}.unreadable.txt")
        with _writing(target):
            _write_list(listed, sorted(unreadable))
        result = _summary(table, target, domains, len(unreadable), listed, reused)
        if not table.num_rows:
            raise InputError(f"{root}: none of its {found.num_rows} audio files can be read; {listed} says why")
        with _writing(target):
            _write_manifest(table, target, root)
        journal.unlink(missing_ok=True)
    return result


def _find(root: Path, domains: Sequence[str], progress: Progress | None) -> tuple[Any, list[str]]:
    """Files of the root as a table, and those whose names cannot be in one."""
    import pyarrow as pa

    batches, unreadable = [], []
    files = find_audio(root, domains)
    count = 0
    while part := list(itertools.islice(files, 10_000)):
        count += len(part)
        if progress:
            progress(count, None)
        for file in part[:]:
            if not _is_text(file.path):
                name = os.fsencode(root / file.path).decode(errors="backslashreplace")
                unreadable.append(f"{name}: its name is not valid UTF-8; rename it")
                part.remove(file)
        columns = [list(column) for column in zip(*part, strict=True)] or [[]] * 5
        schema = _schema(["path", "domain", "split", "size", "mtime_ns"])
        arrays = [pa.array(column, kind) for column, kind in zip(columns, schema.types, strict=True)]
        batches.append(pa.record_batch(arrays, schema=schema))
    return pa.Table.from_batches(batches), unreadable


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _chunks(todo: Any) -> Iterator[list[_File]]:
    chunk: list[_File] = []
    weight = 0
    for batch in todo.to_batches(max_chunksize=10_000):
        for file in zip(*(batch.column(name).to_pylist() for name in _KEYS), strict=True):
            chunk.append(file)
            weight += file[1]
            if len(chunk) == _CHUNK_FILES or weight >= _CHUNK_BYTES:
                yield chunk
                chunk, weight = [], 0
    if chunk:
        yield chunk


def _read_chunk(root: Path, measure: bool, files: list[_File]) -> list[tuple[_File, _Facts | str]]:
    """Facts about files, or why they cannot be read."""
    answers: list[tuple[_File, _Facts | str]] = []
    for file in files:
        path = root / file[0]
        try:
            answers.append((file, _measure(path) if measure else _read_header(path)))
        except InputError as error:
            answers.append((file, str(error)))
        except OSError as error:
            answers.append((file, f"{path}: cannot be read: {error.strerror}"))
    return answers


def _read_header(path: Path) -> _Facts:
    import soundfile

    with AudioReader(path) as reader:
        info = reader.info
    try:
        with soundfile.SoundFile(path) as sound:
            # Of an MP3 file libsndfile may only estimate it; a crop can lie in what it thinks is there.
            frames = int(sound.frames)
    except soundfile.LibsndfileError as error:
        raise InputError(f"{path}: nothing can be read from the middle of its coding; convert it") from error
    if frames == UNKNOWN_FRAMES:
        raise InputError(f"{path}: does not say how long it is, so nothing can be read from its middle; convert it")
    return _Facts(info.sample_rate, info.channels, frames, None, None)


def _measure(path: Path) -> _Facts:
    header = _read_header(path)
    meter = LoudnessMeter(header.sample_rate)
    step = round(header.sample_rate / 10)
    powers, rest = [], np.zeros((1, 0), np.float32)
    count = 0
    with AudioReader(path) as reader:
        for block in reader.blocks():
            count += block.shape[1]
            mono = downmix(block)
            meter.push(mono)
            mono = np.concatenate([rest, mono], axis=1)
            whole = mono.shape[1] // step * step
            powers.append(_powers(mono[:, :whole], step))
            rest = mono[:, whole:]
    if rest.shape[1]:
        powers.append(_powers(rest, rest.shape[1]))
    active = float(np.mean(np.concatenate(powers) > ACTIVE))
    return header._replace(frames=min(header.frames, count), loudness=meter.integrated(), active=active)


def _powers(wav: Wav, step: int) -> NDArray[np.float64]:
    """Mean square of each `step` samples."""
    return np.asarray(np.square(wav.reshape(-1, step), dtype=np.float64).mean(axis=1))


def _schema(names: Sequence[str], metadata: dict[bytes, bytes] | None = None) -> Any:
    import pyarrow as pa

    kinds = {
        **{name: pa.string() for name in ("path", "domain", "split")},
        **{name: pa.int64() for name in ("frames", "size", "mtime_ns")},
        **{name: pa.int32() for name in ("sample_rate", "channels")},
        **{name: pa.float32() for name in ("loudness", "active")},
    }
    return pa.schema([(name, kinds[name]) for name in names], metadata)


def _batch(rows: Iterable[tuple[_File, _Facts]]) -> Any:
    import pyarrow as pa

    schema = _schema(_KEYS + _FACTS)
    columns = [list(column) for column in zip(*((*file, *facts) for file, facts in rows), strict=True)] or [[]] * 8
    return pa.record_batch(
        [pa.array(column, kind) for column, kind in zip(columns, schema.types, strict=True)], schema=schema
    )


def _is_measured(table: Any) -> Any:
    import pyarrow.compute as pc

    return pc.is_valid(table.column("loudness"))


def _previous(target: Path, root: Path) -> Any:
    """Keys and facts of an existing manifest of the same root."""
    none = _schema(_KEYS + _FACTS).empty_table()
    if not target.exists():
        return none
    try:
        manifest = Manifest(target)
        return manifest.table(np.arange(len(manifest))).select(_KEYS + _FACTS) if _same(manifest.root, root) else none
    except InputError as error:
        raise OutputError(f"{target} exists and is not a manifest; remove it, or choose another -o") from error


def _same(one: Path, other: Path) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


def _read_journal(journal: Path, root: Path) -> Any:
    """What an interrupted scan of the same root had read; the end of its journal may be missing."""
    import pyarrow as pa

    batches = []
    schema = _schema(_KEYS + _FACTS)
    with contextlib.suppress(FileNotFoundError, pa.ArrowException, OSError, StopIteration, EOFError):  # noqa: SIM117
        with open(journal, "rb") as file:
            reader = pa.ipc.open_stream(file)
            if _same(Path(os.fsdecode((reader.schema.metadata or {}).get(META, b""))), root):
                while True:
                    batches.append(reader.read_next_batch().replace_schema_metadata(None))
    return pa.Table.from_batches(batches, schema)


@contextlib.contextmanager
def _journal(journal: Path, root: Path, known: Any) -> Iterator[Callable[[Any], None]]:
    """A function that writes what has been read to the journal, for the scan after an interruption."""
    import pyarrow as pa

    partial = journal.with_name(f"{journal.name}.part")
    metadata = {META: os.fsencode(os.path.realpath(root))}
    try:
        with open(partial, "wb") as file, pa.ipc.new_stream(file, _schema(_KEYS + _FACTS, metadata)) as stream:
            stream.write_table(known)
            file.flush()
            partial.replace(journal)

            def write(batch: Any) -> None:
                stream.write_batch(batch)
                file.flush()

            yield write
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def _writing(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"{target}: cannot be written: {reason}; free some space or choose another -o") from error


def _write_list(target: Path, lines: list[str]) -> None:
    if not lines:
        target.unlink(missing_ok=True)
        return
    with atomic_output(target, overwrite=True) as file:
        file.writelines(f"{' '.join(line.splitlines())}\n".encode() for line in lines)


def _write_manifest(table: Any, target: Path, root: Path) -> None:
    import pyarrow.parquet as pq

    metadata = {META: json.dumps({"version": 1, "root": _root_in(target, root)}).encode()}
    with atomic_output(target, overwrite=True) as file:
        pq.write_table(
            table.replace_schema_metadata(metadata),
            file,
            row_group_size=_ROWS,
            use_dictionary=["domain", "split"],
            compression="zstd",
            write_page_checksum=True,
        )


def _root_in(target: Path, root: Path) -> str:
    """The root as the manifest has it: relative to the manifest's folder if that is in or beside the root."""
    folder, whole = target.absolute().parent.resolve(), root.resolve()
    near = folder == whole.parent or folder == whole or whole in folder.parents
    return Path(os.path.relpath(whole, folder)).as_posix() if near else whole.as_posix()


def _summary(
    table: Any, target: Path, domains: Sequence[str], unreadable: int, listed: Path, reused: int
) -> ScanResult:
    domain = np.asarray(table.column("domain").to_numpy())
    frames, rate = table.column("frames").to_numpy(), table.column("sample_rate").to_numpy()
    usable = is_usable(frames, rate, table.column("active").to_numpy())
    seconds = frames / rate
    return ScanResult(
        manifest=str(target),
        files={name: int(np.count_nonzero(domain == name)) for name in domains},
        seconds={name: float(seconds[domain == name].sum()) for name in domains},
        unreadable=unreadable,
        unreadable_list=str(listed) if unreadable else None,
        reused=reused,
        left_out=int(np.count_nonzero(~usable)),
    )
