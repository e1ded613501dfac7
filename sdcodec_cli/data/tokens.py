"""Codes in files that other programs read: npz, safetensors, Parquet and JSON lines; and examples of them for training.

All four hold the same arrays under the same names, and a header, which `docs/tokens.md` describes. A Parquet file and
a file of JSON lines may hold several streams, a row each. There is nothing here that needs torch: a `TokensDataset`
goes into a `torch.utils.data.DataLoader` as it is.

Legend: C coded channels (an axis only if there are several), K codebooks, F frames of a stream, S segments, B bands, n
columns of gains.
"""

from __future__ import annotations

import dataclasses
import io
import json
import lzma
import os
import zipfile
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..bitstream import DomainEntry, End, GainLayout, Header, LowerModel
from ..bitstream.codings import ENVELOPE_GAINS, TREBLE_GAINS, GainKind
from ..bitstream.segment import samples_fit
from ..errors import InputError
from ..extras import require

Format = Literal["npz", "safetensors", "parquet", "jsonl"]
FORMATS: tuple[Format, ...] = ("npz", "safetensors", "parquet", "jsonl")
SUFFIXES = frozenset(f".{name}" for name in FORMATS)

Layers = Literal["all", "semantic", "acoustic"]
LAYERS: tuple[Layers, ...] = ("all", "semantic", "acoustic")
"""Which codebooks of speech there are: all, those of what is said, or those of how it sounds."""

VERSION = 1
"""Of what is in these files."""

HEADER = "header"
"""Where it is: JSON in an array of text, in the metadata, in a column; an object in JSON lines."""

PRESENT, SILENT, REMOVED, DAMAGED = range(4)
"""States of a stream in a frame. Silent: it adds nothing there. Removed: it was taken out. Damaged: it is lost."""

Array = NDArray[Any]


@dataclass(frozen=True)
class StreamTokens:
    """Codes of one stream, and where there are any."""

    codes: NDArray[np.uint16]
    """`[K, F]`, or `[C, K, F]`; 0 where there is none."""
    state: NDArray[np.uint8]
    """`[F]`, or `[C, F]`: `PRESENT`, `SILENT`, `REMOVED` or `DAMAGED`, the same within a segment."""
    num_codebooks: NDArray[np.uint8]
    """`[F]`, or `[C, F]`: how many codebooks have codes; less than K where upper ones were left out, or damaged."""

    @property
    def there(self) -> NDArray[np.bool_]:
        """Which codes are codes, in the shape of `codes`."""
        counts = np.where(self.state == PRESENT, self.num_codebooks, 0)[..., None, :]
        codebooks = np.arange(self.codes.shape[-2])[:, None]
        return np.asarray(codebooks < counts)


@dataclass(frozen=True)
class GainTokens:
    """Band gains of all segments, one behind the other."""

    gains: NDArray[np.int8]
    """`[B, n]`, or `[C, B, n]`, in steps."""
    present: NDArray[np.uint8]
    """`[S]`, or `[C, S]`: 1 where a segment has any."""


@dataclass(frozen=True)
class Tokens:
    """A stream as arrays.

    Raises:
        ValueError: an array does not fit the header, with its name
    """

    header: Header
    num_samples: int
    """Per channel, at the original rate."""
    segments: NDArray[np.uint16]
    """Frames of each segment, of the last stage, `[S]`."""
    streams: Mapping[str, StreamTokens]
    """By the names in `header.domains`."""
    envelope: GainTokens | None = None
    treble: GainTokens | None = None
    layers: Layers = "all"

    def __post_init__(self) -> None:
        _check(self)

    @property
    def num_frames(self) -> int:
        """Of the last stage."""
        return int(self.segments.sum(dtype=np.int64))

    @property
    def seconds(self) -> float:
        """Length of the audio."""
        return self.num_samples / self.header.original_rate


def envelope_and_treble(header: Header) -> list[tuple[str, GainLayout | None, GainKind]]:
    """Both kinds of gains: their name in files, in `Tokens` and in the header, what they are for, and their values."""
    return [("envelope", header.envelope, ENVELOPE_GAINS), ("treble", header.treble, TREBLE_GAINS)]


def _check(tokens: Tokens) -> None:
    header = tokens.header
    channels = () if header.coded_channels == 1 else (header.coded_channels,)
    lengths = tokens.segments
    _check_array("segments", lengths, (len(lengths),) if lengths.ndim == 1 else (0,), 1, header.segment_frames)
    for entry in header.domains:
        stream, frames = tokens.streams[entry.name], header.frames_in(entry, 1)
        shape = (*channels, tokens.num_frames * frames)
        codes_shape = (*channels, entry.num_codebooks, tokens.num_frames * frames)
        _check_array(f"codes.{entry.name}", stream.codes, codes_shape, 0, entry.codebook_size - 1)
        _check_array(f"state.{entry.name}", stream.state, shape, PRESENT, DAMAGED)
        _check_array(f"num_codebooks.{entry.name}", stream.num_codebooks, shape, 0, entry.num_codebooks)
        whole = np.cumsum(entry.groups)
        if not np.isin(stream.num_codebooks[stream.state == PRESENT], whole).all():
            groups = ", ".join(map(str, whole))
            raise ValueError(
                f"num_codebooks.{entry.name} must be that of whole layer groups, {groups}, where the state is 0"
            )
        each = lengths.astype(np.int64) * frames
        starts = np.cumsum(each) - each
        for name, values in (("state", stream.state), ("num_codebooks", stream.num_codebooks)):
            changed = np.atleast_2d(values != values[..., starts].repeat(each, axis=-1)).any(axis=0)
            if changed.any():
                frame = int(changed.argmax())
                raise ValueError(f"{name}.{entry.name} must be the same within a segment, but changes at frame {frame}")
    for name, layout, kind in envelope_and_treble(header):
        found: GainTokens | None = getattr(tokens, name)
        if layout is not None:
            assert found is not None
            columns = sum(layout.num_columns(int(length)) for length in lengths)
            highest = kind.lowest + kind.count - 1
            _check_array(f"{name}.gains", found.gains, (*channels, layout.num_bands, columns), kind.lowest, highest)
            _check_array(f"{name}.present", found.present, (*channels, len(lengths)), 0, 1)
    if tokens.num_samples < 0 or not samples_fit(End(tokens.num_frames, tokens.num_samples), header):
        raise ValueError(f"num_samples is {tokens.num_samples}, which {tokens.num_frames} frames do not hold")


def _check_array(name: str, array: Array, shape: tuple[int, ...], lowest: int, highest: int) -> None:
    if array.shape != shape:
        raise ValueError(f"{name} must have the shape {list(shape)}, got {list(array.shape)}")
    if array.size and (array.min() < lowest or array.max() > highest):
        raise ValueError(f"{name} must be from {lowest} to {highest}, got {array.min()} to {array.max()}")


# --- names


def _arrays_of(tokens: Tokens) -> dict[str, Array]:
    """All arrays by the names that they have in files."""
    arrays: dict[str, Array] = {"segments": tokens.segments}
    for name, stream in tokens.streams.items():
        arrays[f"codes.{name}"] = stream.codes
        arrays[f"state.{name}"] = stream.state
        arrays[f"num_codebooks.{name}"] = stream.num_codebooks
    for name, _, _ in envelope_and_treble(tokens.header):
        found: GainTokens | None = getattr(tokens, name)
        if found is not None:
            arrays[f"{name}.gains"], arrays[f"{name}.present"] = found.gains, found.present
    return arrays


def _from_arrays(facts: Mapping[str, Any], arrays: Mapping[str, Array]) -> Tokens:
    """What `_arrays_of` and `_facts_of` took apart. `ValueError` if something is missing or does not fit."""
    header = _header_of(facts)

    def array(name: str, kind: type[np.integer[Any]]) -> Array:
        if name not in arrays:
            raise ValueError(f"{name} is missing")
        found = arrays[name]
        if found.dtype.kind not in "iub" and found.size:
            raise ValueError(f"{name} must be whole numbers, got {found.dtype}")
        limits = np.iinfo(kind)
        _check_array(name, found, found.shape, int(limits.min), int(limits.max))
        return found.astype(kind)

    def gains(name: str, layout: GainLayout | None) -> GainTokens | None:
        if layout is None:
            return None
        return GainTokens(array(f"{name}.gains", np.int8), array(f"{name}.present", np.uint8))

    return Tokens(
        header=header,
        num_samples=_whole(facts.get("num_samples")),
        segments=array("segments", np.uint16),
        streams={
            entry.name: StreamTokens(
                array(f"codes.{entry.name}", np.uint16),
                array(f"state.{entry.name}", np.uint8),
                array(f"num_codebooks.{entry.name}", np.uint8),
            )
            for entry in header.domains
        },
        envelope=gains("envelope", header.envelope),
        treble=gains("treble", header.treble),
        layers=_layers(facts.get("layers", "all")),
    )


# --- header


def _layers(value: Any) -> Layers:
    if value not in LAYERS:
        raise ValueError(f"its layers are {value!r}, not {', '.join(LAYERS)}")
    found: Layers = value
    return found


def _facts_of(tokens: Tokens) -> dict[str, Any]:
    """The header as JSON has it."""
    facts = {
        "version": VERSION,
        "num_samples": tokens.num_samples,
        "frame_rate": tokens.header.frame_rate,
        "layers": tokens.layers,
        **_plain(tokens.header),
    }
    facts["streams"] = facts.pop("domains")
    del facts["parts"]  # tokens are of whole files
    return facts


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, tuple):
        return [_plain(entry) for entry in value]
    return dict(value) if isinstance(value, Mapping) else value


def _header_of(facts: Mapping[str, Any]) -> Header:
    """`ValueError` if this is no header, or that of another version."""
    version = facts.get("version")
    if version != VERSION:
        raise ValueError(f"its header is of version {version}, this is for {VERSION}")
    try:
        fields = {name: value for name, value in facts.items() if name != "parts"}
        header: Header = _built(Header, {**fields, "domains": facts.get("streams")})
    except ValueError as error:
        raise ValueError(f"its header makes no sense: {error}") from None
    return header


def _built(kind: type[Any], facts: Any) -> Any:
    """A dataclass from what `_plain` made of it; other fields are ignored."""
    if not isinstance(facts, Mapping):
        raise ValueError(f"{facts!r} is no object")
    values = {}
    for field in dataclasses.fields(kind):
        if field.name in facts:
            try:
                values[field.name] = _READERS[str(field.type)](facts[field.name])
            except ValueError as error:
                raise ValueError(f"{field.name}: {error}") from None
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ValueError(f"{field.name} is missing")
    return kind(**values)


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{value!r} is no whole number")
    return value


def _number(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError(f"{value!r} is no number")
    return float(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text")
    return value


def _texts(value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{value!r} is no object")
    return {_text(key): _text(entry) for key, entry in value.items()}


def _maybe(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else read(value)


def _list_of(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def read_all(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise ValueError(f"{value!r} is no list")
        return tuple(map(read, value))

    return read_all


_READERS: Mapping[str, Callable[[Any], Any]] = {
    "int": _whole,
    "int | None": _maybe(_whole),
    "float": _number,
    "str": _text,
    "bytes": lambda value: bytes.fromhex(_text(value)),
    "bytes | None": _maybe(lambda value: bytes.fromhex(_text(value))),
    "tuple[int, ...]": _list_of(_whole),
    "Mapping[str, str]": _texts,
    "GainLayout | None": _maybe(lambda value: _built(GainLayout, value)),
    "tuple[DomainEntry, ...]": _list_of(lambda value: _built(DomainEntry, value)),
    "tuple[LowerModel, ...]": _list_of(lambda value: _built(LowerModel, value)),
}
"""By the types of the fields of `Header` and of what it has."""


# --- files


def to_bytes(tokens: Tokens, kind: Format, features: Mapping[str, NDArray[np.float16]] | None = None) -> bytes:
    """A file with one stream.

    Args:
        tokens: the stream
        kind: the format
        features: of its streams, by their names, to be written beside them; nothing here reads them again

    Raises:
        MissingExtra: it is to be a Parquet file, and pyarrow is not installed
    """
    facts, arrays = _facts_of(tokens), _arrays_of(tokens)
    arrays |= {f"features.{name}": found for name, found in (features or {}).items()}
    file = io.BytesIO()
    if kind == "npz":
        np.savez_compressed(file, **{HEADER: np.array(json.dumps(facts)), **arrays})  # type: ignore[arg-type]
        return file.getvalue()
    if kind == "safetensors":
        from safetensors.numpy import save

        return bytes(save(arrays, metadata={HEADER: json.dumps(facts)}))
    if kind == "jsonl":
        row = {HEADER: facts, **{name: _listed(array) for name, array in arrays.items()}}
        return (json.dumps(row, separators=(",", ":"), ensure_ascii=False) + "\n").encode()
    require_parquet()
    import pyarrow
    import pyarrow.parquet

    columns = {HEADER: pyarrow.array([json.dumps(facts)])}
    columns |= {name: _nested(array[None]) for name, array in arrays.items()}
    pyarrow.parquet.write_table(pyarrow.table(columns), file, compression="zstd")
    return file.getvalue()


def _listed(array: Array) -> Any:
    """An array as JSON has it, of floats the fewest digits that tell them apart."""
    return (array.astype(str).astype(np.float64) if array.dtype == np.float16 else array).tolist()


def require_parquet() -> None:
    """Raise a `MissingExtra` unless Parquet files can be read and written."""
    require("train", "a Parquet file of tokens", of_it=("pyarrow",))


def read_tokens(path: str | Path) -> list[Tokens]:
    """All streams of a file, of which only Parquet and JSON lines may have several.

    Raises:
        InputError: it cannot be read, or something in it is missing or does not fit
        MissingExtra: it is a Parquet file, and pyarrow is not installed
    """
    found = []
    rows = _rows(path, None)
    for number, (facts, arrays) in enumerate(rows):
        try:
            found.append(_from_arrays(facts, arrays))
        except ValueError as error:
            where = f"{path}, row {number + 1}" if len(rows) > 1 else path
            raise InputError(f"{where}: {error}; write it again with sdc tokens") from None
    return found


def _rows(path: str | Path, names: Collection[str] | None) -> list[tuple[Mapping[str, Any], dict[str, Array]]]:
    """Header and arrays of each stream of a file; only those of these names, if the format allows that."""
    kind = Path(path).suffix.lower().removeprefix(".")
    if kind == "parquet":
        require_parquet()
    read = _READ.get(kind)
    if read is None:
        raise InputError(f"{path}: is no file of tokens; their names end in {', '.join(sorted(SUFFIXES))}")
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}; check the name and its permissions") from error
    try:
        rows = read(path, names)
        for facts, _ in rows:
            if not isinstance(facts, Mapping):
                raise ValueError("its header is no object")
    # Whatever damage leads to; pyarrow has an OSError for it.
    except (ValueError, KeyError, TypeError, EOFError, MemoryError, OverflowError, RecursionError, OSError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{path}: is no {kind} file of tokens ({reason}); write it again with sdc tokens") from error
    return rows


def _read_npz(path: str | Path, names: Collection[str] | None) -> list[tuple[Mapping[str, Any], dict[str, Array]]]:
    try:
        with open(path, "rb") as file:
            if not zipfile.is_zipfile(file):
                raise ValueError("it is no zip archive")
            file.seek(0)
            with np.load(file, allow_pickle=False) as stored:
                wanted = [name for name in stored.files if name != HEADER and (names is None or name in names)]
                return [(json.loads(str(stored[HEADER])), {name: stored[name] for name in wanted})]
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, NotImplementedError) as error:
        raise ValueError(str(error)) from error


def _read_safetensors(
    path: str | Path, names: Collection[str] | None
) -> list[tuple[Mapping[str, Any], dict[str, Array]]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as stored:
            wanted = [name for name in stored.keys() if names is None or name in names]  # noqa: SIM118
            facts = json.loads((stored.metadata() or {})[HEADER])
            return [(facts, {name: stored.get_tensor(name) for name in wanted})]
    except SafetensorError as error:
        raise ValueError(str(error)) from error


def _read_jsonl(path: str | Path, names: Collection[str] | None) -> list[tuple[Mapping[str, Any], dict[str, Array]]]:
    rows = []
    with open(path, encoding="utf-8") as file:
        for line in filter(str.strip, file):
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError("a line is no object")
            ours = {name: value for name, value in row.items() if _is_ours(name) and (names is None or name in names)}
            rows.append((row[HEADER], {name: np.array(value) for name, value in ours.items()}))
    return rows


def _read_parquet(path: str | Path, names: Collection[str] | None) -> list[tuple[Mapping[str, Any], dict[str, Array]]]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as stored:
            wanted = [name for name in stored.schema_arrow.names if _is_ours(name) and (names is None or name in names)]
            table = stored.read(columns=[HEADER, *wanted])
        return [
            (
                json.loads(table[HEADER][number].as_py()),
                {name: _flat(table[name].slice(number, 1).combine_chunks(), name)[0] for name in wanted},
            )
            for number in range(len(table))
        ]
    except pyarrow.ArrowException as error:
        raise ValueError(str(error)) from error


_READ = {"npz": _read_npz, "safetensors": _read_safetensors, "jsonl": _read_jsonl, "parquet": _read_parquet}


def _is_ours(name: str) -> bool:
    """Whether a column, or a key, is one that we write: others, such as a transcript, may stand beside them."""
    return name == "segments" or name.partition(".")[0] in ("codes", "state", "num_codebooks", "envelope", "treble")


def _nested(array: Array) -> Any:
    """An array as lists of lists in Arrow, along its first axis."""
    import pyarrow

    values = pyarrow.array(array.reshape(-1))
    for axis in range(array.ndim - 1, 0, -1):
        offsets = np.arange(int(np.prod(array.shape[:axis])) + 1) * array.shape[axis]
        values = pyarrow.ListArray.from_arrays(pyarrow.array(offsets, pyarrow.int32()), values)
    return values


def _flat(values: Any, name: str) -> Array:
    """What `_nested` made, as an array."""
    import pyarrow

    shape = [len(values)]
    while pyarrow.types.is_list(values.type) or pyarrow.types.is_large_list(values.type):
        lengths = set(values.value_lengths().to_pylist())
        if len(lengths) > 1 or None in lengths:
            raise ValueError(f"{name} has rows of different lengths")
        shape.append(lengths.pop() if lengths else 0)
        values = values.flatten()
    return np.asarray(values.to_numpy(zero_copy_only=False)).reshape(shape)


# --- examples for training


class TokensDataset:
    """Stretches of tokens of equal length, for a `torch.utils.data.DataLoader`; torch itself is not needed.

    An example is a stretch of one channel: for each stream int64 `[K, F]`, F being `num_frames`, or more for a stage of
    more frames. Where there is no code, because a stream is silent, removed or damaged, codebooks are missing, or the
    stretch goes on behind the end, it is `codebook_size` of the stream: one entry more, for nothing.

    Files are read again for each example; that of the last one is kept. So long files are best cut before.

    Args:
        folder: searched for files of tokens, also in the folders below; of one model
        num_frames: of each example, of the last stage
        streams: by name, as in the header; all by default
        num_codebooks: the first ones of each stream; all by default

    Raises:
        InputError: there are none, they cannot be read, or files differ in their streams
        ValueError: an argument out of its range, or a stream that is not there
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        num_frames: int,
        streams: Sequence[str] | None = None,
        num_codebooks: int | None = None,
    ) -> None:
        if num_frames < 1 or (num_codebooks is not None and num_codebooks < 1):
            raise ValueError(f"num_frames and num_codebooks must be at least 1, got {num_frames} and {num_codebooks}")
        self._num_frames, self._most = num_frames, num_codebooks
        self._kept: tuple[Path, list[Tokens]] | None = None
        self._places: list[tuple[Path, int, int, int]] = []
        self.header: Header
        """Of the first file; those of the others have the same streams."""
        first: Header | None = None
        for path in _find(Path(folder)):
            for row, (facts, arrays) in enumerate(_rows(path, ["segments"])):
                try:
                    header = _header_of(facts)
                    frames = int(np.sum(arrays["segments"], dtype=np.int64))
                except (ValueError, KeyError, TypeError) as error:
                    raise InputError(f"{path}: {error}; write it again with sdc tokens") from None
                first = first or header
                if (header.weights_sha256, header.domains) != (first.weights_sha256, first.domains):
                    raise InputError(f"{path}: has other streams than the files before it; put it into another folder")
                self._places += [
                    (path, row, channel, start)
                    for channel in range(header.coded_channels)
                    for start in range(0, frames, num_frames)
                ]
        if first is None:
            raise InputError(f"{folder}: no files of tokens in this folder; sdc tokens makes them")
        self.header = first
        known = {entry.name: entry for entry in first.domains}
        self.streams: tuple[str, ...] = tuple(known if streams is None else streams)
        """Of each example."""
        for name in self.streams:
            if name not in known:
                raise ValueError(f"there is no stream {name}; choose from {', '.join(known)}")
        self._entries = [known[name] for name in self.streams]
        self.num_values: dict[str, int] = {entry.name: entry.codebook_size + 1 for entry in self._entries}
        """How many values codes of each stream have here; the last one is nothing."""

    def __len__(self) -> int:
        """How many examples there are."""
        return len(self._places)

    def __getitem__(self, index: int) -> dict[str, NDArray[np.int64]]:
        """An example."""
        path, row, channel, start = self._places[index]
        if self._kept is None or self._kept[0] != path:
            self._kept = path, read_tokens(path)
        tokens = self._kept[1][row]
        example = {}
        for entry in self._entries:
            stream, frames = tokens.streams[entry.name], tokens.header.frames_in(entry, 1)
            whole = np.where(stream.there, stream.codes, entry.codebook_size).astype(np.int64)
            own = whole if tokens.header.coded_channels == 1 else whole[channel]
            piece = own[: self._most, start * frames : (start + self._num_frames) * frames]
            missing = self._num_frames * frames - piece.shape[1]
            example[entry.name] = np.pad(piece, ((0, 0), (0, missing)), constant_values=entry.codebook_size)
        return example


def _find(folder: Path) -> list[Path]:
    """Files of tokens below a folder, in the order of their names."""
    return sorted(
        Path(root, name)
        for root, _, names in os.walk(folder)
        for name in names
        if Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")
    )
