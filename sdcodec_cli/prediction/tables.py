"""How likely each code is, from codes before it: a small network of whole numbers, the same on every machine.

`docs/format.md` ("Codes, range-coded") describes the arithmetic and the tables. Products of matrices are computed in 32
bits of floating point and are exact all the same: every sum of magnitudes stays below 2^24, which `CodeTables` checks.

A code is found in two steps, a branch and a leaf of it. Its context are lower codebooks of its frame, and in some
frames before all codebooks of its own and of lower layer groups, of the same stream and segment. So upper groups can be
left out, and every segment is decoded by itself.
"""

# Legend: N streams, K codebooks, R = N · K rows, G = N · layer groups, B segments, F frames, H hidden units, M lags

from __future__ import annotations

import functools
import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from .range_coder import Integers, RangeDecoder, RangeEncoder, bounds_of

T = TypeVar("T")
Chunk = tuple[str, int]
"""Stream and layer group."""
Rows = NDArray[np.intp]
Floats = NDArray[np.float32]
Tensors = Mapping[str, NDArray[Any]]

LARGEST = 127
"""Magnitude of what units give out, and of most weights."""

EXACT = 1 << 24
"""Whole numbers below this are exact in 32 bits of floating point."""

WEIGHTS = "weights"
"""Name of the tensor with the frequencies of values that are 0, 1, 2 … steps less likely than the likeliest."""

SHAPES: Mapping[str, str] = {
    "order": "K V",
    "vectors": "K V w",
    "past": "M K w H",
    "past_bias": "K H",
    "hidden": "K H I",
    "hidden_bias": "K I",
    "query": "K I d",
    "query_bias": "K d",
    "branches": "K d P",
    "branches_bias": "K P",
    "leaves": "K V d",
    "leaves_bias": "K V",
    "shifts": "5",
}
"""Tensors of each stream, and their shapes; P, the number of branches, divides V, that of entries."""


Groups = Mapping[str, tuple[int, ...]]
"""Codebooks of each layer group of a stream, by its name."""


@dataclass(frozen=True)
class Coded(Generic[T]):
    """What one channel has in one segment, of streams with as many frames."""

    num_frames: int
    of: Mapping[Any, T]
    """Codes `[K, F]` by stream, or chunks by stream and layer group."""


class CodeTables:
    """What is known of the codes of a model: a network for each stream.

    Args:
        tensors: whole numbers, by names such as `speech.hidden`; see `docs/format.md`

    Raises:
        ValueError: there is something missing, of another shape, or so large that sums would not be exact
    """

    def __init__(self, tensors: Tensors) -> None:
        if WEIGHTS not in tensors:
            raise ValueError(f"there is no tensor {WEIGHTS}")
        self.weights: NDArray[np.int64] = tensors[WEIGHTS].astype(np.int64)
        if self.weights.ndim != 1 or len(self.weights) < 2 or self.weights.min() < 1 or self.weights.max() > 1 << 15:
            raise ValueError(f"{WEIGHTS} must be numbers from 1 to 32768, for two steps or more")
        names = list(dict.fromkeys(name.rpartition(".")[0] for name in sorted(tensors) if name != WEIGHTS))
        self._streams = {name: _checked(name, tensors) for name in names}
        self.sha256 = sha256(tensors)
        """By which a stream names them."""
        self.num_bytes = sum(tensor.nbytes for tensor in tensors.values())

    def fits(self, name: str, num_codebooks: int, codebook_size: int) -> bool:
        """Whether they are for a stream of this name, with so many codebooks of so many entries."""
        if name not in self._streams:
            return False
        most, size = self._streams[name]["order"].shape
        return bool(num_codebooks <= most and codebook_size == size)

    def encode(self, segments: Sequence[Coded[Integers]], groups: Groups) -> list[dict[Chunk, bytes]]:
        """Codes of segments as the bytes of their chunks.

        Args:
            segments: any number; what comes out does not depend on which are coded together. There may be fewer
                codebooks than those of all groups
            groups: of streams, see `Groups`
        """
        found: list[dict[Chunk, bytes]] = [{} for _ in segments]
        for network in self._networks({name for segment in segments for name in segment.of}, groups):
            for segment, chunks in network.encode(segments):
                found[segment].update(chunks)
        return found

    def decode(self, segments: Sequence[Coded[bytes | Integers]], groups: Groups) -> list[dict[Chunk, Integers | None]]:
        """Codes of chunks, `[K, F]`; None for chunks that are damaged.

        Chunks that are stored otherwise are given as their codes. What is made of chunks above one that is missing or
        damaged means nothing.
        """
        found: list[dict[Chunk, Integers | None]] = [{} for _ in segments]
        for network in self._networks({name for segment in segments for name, _ in segment.of}, groups):
            for segment, codes in network.decode(segments):
                found[segment].update(codes)
        return found

    def bits(self, name: str, codes: Integers, groups: tuple[int, ...]) -> NDArray[np.float64]:
        """What codes `[B, K, F]` of segments of a stream cost by codebook, in bits, in the mean: `[K]`."""
        network = self._network((name,), groups)
        each: NDArray[np.float64] = np.mean([network.bits(segment) for segment in codes], axis=0)
        return each

    def _networks(self, names: Collection[str], groups: Groups) -> list[_Network]:
        """The networks of some streams; those of one shape compute together."""
        alike: dict[Any, list[str]] = {}
        for name in sorted(names):
            own = self._streams[name]
            key = groups[name], own["shifts"].tobytes(), *(tensor.shape for tensor in own.values())
            alike.setdefault(key, []).append(name)
        return [self._network(tuple(names), groups[names[0]]) for names in alike.values()]

    @functools.lru_cache(maxsize=8)  # noqa: B019 (tables live as long as their model)
    def _network(self, names: tuple[str, ...], groups: tuple[int, ...]) -> _Network:
        return _Network(names, [self._streams[name] for name in names], groups, self.weights)


def sha256(tensors: Tensors) -> bytes:
    """SHA-256 of tensors in their canonical form, that of weights in `docs/format.md`."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        little = np.ascontiguousarray(tensor, dtype=tensor.dtype.newbyteorder("<"))
        digest.update(f"{name} {tensor.dtype.name} {list(tensor.shape)}\n".encode())
        digest.update(little.tobytes())
    return digest.digest()


def _checked(name: str, tensors: Tensors) -> dict[str, NDArray[Any]]:
    """The tensors of a stream. `ValueError` unless they fit together and their sums are exact."""
    own: dict[str, NDArray[Any]] = {}
    sizes: dict[str, int] = {}
    for key, axes in SHAPES.items():
        tensor = tensors.get(f"{name}.{key}")
        if tensor is None or tensor.ndim != len(axes.split()) or tensor.dtype.kind != "i":
            raise ValueError(f"{name}.{key} is missing or no array of whole numbers [{axes}]")
        for axis, size in zip(axes.split(), tensor.shape, strict=True):
            if size != (int(axis) if axis.isdecimal() else sizes.setdefault(axis, size)) or not size:
                raise ValueError(f"{name}.{key} is of shape {list(tensor.shape)}, which does not fit the others")
        own[key] = tensor
    if sizes["V"] % sizes["P"]:
        raise ValueError(f"{name}.branches does not divide {sizes['V']} entries into {sizes['P']} branches")
    if (np.sort(own["order"], axis=1) != np.arange(sizes["V"])).any():
        raise ValueError(f"{name}.order does not name every entry once")
    if own["shifts"].min() < 0 or own["shifts"].max() > 16:
        raise ValueError(f"{name}.shifts must be 0 to 16")
    largest = {key: np.abs(own[key].astype(np.int64)) for key in SHAPES}
    sums = {
        "past": largest["past"].sum((0, 1, 2)).max() * largest["vectors"].max() + largest["past_bias"].max(),
        "hidden": (largest["hidden"].sum(1) * LARGEST + largest["hidden_bias"]).max(),
        "query": (largest["query"].sum(1) * LARGEST + largest["query_bias"]).max(),
        "branches": (largest["branches"].sum(1) * LARGEST + largest["branches_bias"]).max(),
        "leaves": (largest["leaves"].sum(2) * LARGEST + largest["leaves_bias"]).max(),
    }
    for key, most in sums.items():
        if most >= EXACT:
            raise ValueError(f"{name}.{key} has sums of up to {most}, which are not exact from {EXACT} on")
    return own


@dataclass(frozen=True)
class _Layers:
    """The network of some rows, which are codebooks of streams; methods take any number n of codes of each."""

    weights: NDArray[np.int64]
    """See `WEIGHTS`."""
    scales: Sequence[np.float32]
    """Of sums, by layer."""
    vectors: Floats
    """`[r, V, w]`, like `leaves` in the order of places: leaves of a branch lie together."""
    past: Floats
    """`[r, w, M * H]`"""
    biases: Sequence[Floats]
    """Of past, hidden, query and branches, `[r, 1, …]`."""
    products: Sequence[Floats]
    """Hidden, query and branches, `[r, …, …]`."""
    leaves: Floats
    """`[r, P, V / P, d]`"""
    leaves_bias: Floats

    def of(self, rows: NDArray[np.intp]) -> _Layers:
        """Those of some of the rows."""
        return replace(
            self,
            vectors=self.vectors[rows],
            past=self.past[rows],
            biases=[each[rows] for each in self.biases],
            products=[each[rows] for each in self.products],
            leaves=self.leaves[rows],
            leaves_bias=self.leaves_bias[rows],
        )

    @functools.cached_property
    def _numbers(self) -> NDArray[np.intp]:
        return np.arange(len(self.vectors))[:, None]

    def added(self, places: Integers) -> Floats:
        """What codes add to sums of other codes: places `[r, n]` to `[r, n, M * H]`."""
        added: Floats = np.matmul(self.vectors[self._numbers, places], self.past)
        return added

    def queries(self, sums: Floats) -> Floats:
        """Sums of what codes added, `[r, n, H]`, to what entries are compared with, `[r, n, d]`."""
        units = self._rounded(sums + self.biases[0], 0)
        for layer in (1, 2):
            np.minimum(np.maximum(units, 0, out=units), LARGEST, out=units)
            units = self._rounded(np.matmul(units, self.products[layer - 1]) + self.biases[layer], layer)
        return np.minimum(np.maximum(units, -LARGEST, out=units), LARGEST, out=units)

    def branch_bounds(self, queries: Floats) -> Integers:
        """Sums of the frequencies before each branch, and of all, `[r, n, P + 1]`."""
        return self._bounds(np.matmul(queries, self.products[2]) + self.biases[3], 3)

    def leaf_bounds(self, queries: Floats, branch: Integers) -> Integers:
        """The same of the leaves of a branch."""
        where = self._numbers, branch
        return self._bounds(np.matmul(self.leaves[where], queries[..., None])[..., 0] + self.leaves_bias[where], 4)

    def _bounds(self, logits: Floats, layer: int) -> Integers:
        logits = self._rounded(logits, layer)
        steps = np.minimum(logits.max(-1, keepdims=True) - logits, len(self.weights) - 1)
        return bounds_of(self.weights[steps.astype(np.intp)])

    def _rounded(self, sums: Floats, layer: int) -> Floats:
        sums *= self.scales[layer]
        return np.floor(sums, out=sums)


class _Network:
    """Networks of streams that have one shape, side by side.

    Args:
        names: of the streams
        tensors: of each of them
        groups: codebooks of each layer group, K in all; the networks may have more
        weights: see `WEIGHTS`
    """

    def __init__(
        self,
        names: Sequence[str],
        tensors: Sequence[Mapping[str, NDArray[Any]]],
        groups: tuple[int, ...],
        weights: NDArray[np.int64],
    ) -> None:
        self._num_streams, self._num_codebooks, self._groups = len(names), sum(groups), groups
        self._keys = [(name, group) for name in names for group in range(len(groups))]
        """Of the chunks of a segment."""
        firsts = np.cumsum([0, *groups[:-1]])
        self._rows = [
            np.arange(first, first + count) + stream * self._num_codebooks
            for stream in range(len(names))
            for first, count in zip(firsts, groups, strict=True)
        ]
        """Codebooks of each chunk, those of all streams counted on."""

        def floats(key: str) -> Floats:
            rows = [each[key][: self._num_codebooks] for each in tensors]
            return np.ascontiguousarray(np.concatenate(rows), dtype=np.float32)

        self._entries = floats("order").astype(np.int64)
        self._places = self._entries.argsort(1)
        past = np.concatenate([each["past"][:, : self._num_codebooks] for each in tensors], axis=1)  # [M, R, w, H]
        self._num_lags, self._num_units = len(past), past.shape[-1]
        shape = len(self._entries), tensors[0]["branches"].shape[-1], -1
        self._layers = _Layers(
            weights=weights,
            scales=[np.float32(0.5**shift) for shift in tensors[0]["shifts"].tolist()],
            vectors=floats("vectors"),
            past=np.ascontiguousarray(past.transpose(1, 2, 0, 3).reshape(*past.shape[1:3], -1), dtype=np.float32),
            biases=[floats(f"{key}_bias")[:, None] for key in ("past", "hidden", "query", "branches")],
            products=[floats(key) for key in ("hidden", "query", "branches")],
            leaves=floats("leaves").reshape(*shape[:2], -1, tensors[0]["leaves"].shape[-1]),
            leaves_bias=floats("leaves_bias").reshape(shape),
        )
        self._num_leaves = self._layers.leaves.shape[2]
        self._turns = []
        """The first codebook of every layer group, the second and so on: chunks that have one, its row, its network."""
        for turn in range(max(groups)):
            chunks = np.array([chunk for chunk, rows in enumerate(self._rows) if len(rows) > turn])
            rows = np.array([self._rows[chunk][turn] for chunk in chunks])
            self._turns.append((chunks, rows, self._layers.of(rows)))

    def encode(self, segments: Sequence[Coded[Integers]]) -> Iterator[tuple[int, dict[Chunk, bytes]]]:
        """The chunks of these streams in each segment that has any."""
        names = list(dict.fromkeys(name for name, _ in self._keys))
        having = [number for number, segment in enumerate(segments) if not segment.of.keys().isdisjoint(names)]
        length = max(segments[number].num_frames for number in having)
        coder = RangeEncoder(len(self._keys) * len(having))
        # Of branch and leaf: the frequencies before, its own, and the sum of all; a certain value where there is none.
        parts = np.empty((length, 2, 3, self._num_streams * self._num_codebooks, len(having)), dtype=np.int64)
        parts[:] = np.array([0, 1, 1])[:, None, None]
        there = np.zeros(parts.shape[-2:], dtype=bool)
        for segment, number in enumerate(having):  # one after the other: sums of all would take a lot of memory
            codes = np.zeros((self._num_streams, self._num_codebooks, segments[number].num_frames), dtype=np.int64)
            own = there[:, segment].reshape(codes.shape[:2])
            for stream, name in enumerate(names):
                if name in segments[number].of:
                    given = segments[number].of[name]
                    codes[stream, : len(given)], own[stream, : len(given)] = given, True
            self._put_parts(parts[: codes.shape[2], ..., segment], codes.reshape(-1, codes.shape[2]), own.ravel())
        chunks_of = np.arange(len(self._keys) * len(having)).reshape(-1, len(having))
        for frame in parts:
            for chunks, rows, _ in self._turns:
                for low, frequency, total in frame[:, :, rows]:
                    coder.put(chunks_of[chunks].ravel(), low.ravel(), frequency.ravel(), total.ravel())
        data = coder.finish()
        for segment, number in enumerate(having):
            yield (
                number,
                {
                    key: data[chunks_of[chunk, segment]]
                    for chunk, key in enumerate(self._keys)
                    if there[self._rows[chunk][-1], segment]
                },
            )

    def bits(self, codes: Integers) -> NDArray[np.float64]:
        """See `CodeTables.bits`; of one segment, `[K, F]`."""
        parts = np.empty((codes.shape[1], 2, 3, len(codes)), dtype=np.int64)
        self._put_parts(parts, codes, np.ones(len(codes), dtype=bool))
        bits: NDArray[np.float64] = np.log2(parts[:, :, 2] / parts[:, :, 1]).sum(1).mean(0)
        return bits

    def _put_parts(self, parts: Integers, codes: Integers, there: NDArray[np.bool_]) -> None:
        """What a range coder needs of the codes of a segment `[R, F]`, into `[F, 2, 3, R]`."""
        places = np.take_along_axis(self._places, codes, 1)
        queries = self._layers.queries(self._sums(self._layers.added(places)))
        branch, leaf = np.divmod(places, self._num_leaves)
        pairs = (branch, self._layers.branch_bounds(queries)), (leaf, self._layers.leaf_bounds(queries, branch))
        for kind, (values, bounds) in enumerate(pairs):
            low, high = (np.take_along_axis(bounds, values[..., None] + side, -1)[..., 0] for side in (0, 1))
            for which, part in enumerate((low, high - low, bounds[..., -1])):
                parts[:, kind, which, there] = part[there].T

    def _sums(self, added: Floats) -> Floats:
        """What all codes of a segment add to the sums of each, `[R, F, M * H]` to `[R, F, H]`."""
        length = added.shape[1]
        added = added.reshape(self._num_streams, self._num_codebooks, length, self._num_lags, -1)
        for codebook in range(1, self._num_codebooks):
            added[:, codebook] += added[:, codebook - 1]
        sums = np.zeros((*added.shape[:3], self._num_units), dtype=np.float32)
        sums[:, 1:] += added[:, :-1, :, 0]
        last = (np.cumsum(self._groups) - 1).repeat(self._groups)  # codebook of each one's layer group
        for lag in range(1, min(self._num_lags, length)):
            sums[:, :, lag:] += added[:, :, : length - lag, lag][:, last]
        return sums.reshape(-1, length, self._num_units)

    def decode(self, segments: Sequence[Coded[bytes | Integers]]) -> Iterator[tuple[int, dict[Chunk, Integers | None]]]:
        """The codes of the chunks of these streams in each segment that has any.

        A layer group is a frame behind the one below it, so that all of them take each turn together.
        """
        having = [number for number, segment in enumerate(segments) if any(key in segment.of for key in self._keys)]
        num_chunks, num_segments = len(self._keys), len(having)
        num_frames = np.array([segments[number].num_frames for number in having])
        data = [[segments[number].of.get(key) for number in having] for key in self._keys]
        coded = np.array([[isinstance(each, bytes) for each in row] for row in data])
        coder = RangeDecoder([each if isinstance(each, bytes) else b"" for row in data for each in row])
        places = np.zeros((len(self._entries), num_segments, int(num_frames.max())), dtype=np.int64)
        for own, row in zip(self._rows, data, strict=True):
            for column, each in enumerate(row):
                if isinstance(each, np.ndarray):
                    places[own, column, : each.shape[1]] = np.take_along_axis(self._places[own], each, 1)
        behind = np.arange(num_chunks)[:, None] % len(self._groups)
        columns = np.arange(num_segments)
        past: list[Floats] = []
        for step in range(places.shape[2] + len(self._groups) - 1):
            frame = (step - behind).clip(0, places.shape[2] - 1)
            on = (frame == step - behind) & (frame < num_frames)
            off = ~(on & coded)
            some_off = bool(off.any())
            sums = self._sums_of_past(past, num_segments)
            added = np.zeros((num_chunks, num_segments, self._num_lags * self._num_units), dtype=np.float32)
            for chunks, rows, layers in self._turns:
                # Most often all of them have a code, and need not be picked.
                some = slice(None) if len(chunks) == num_chunks else chunks
                numbers = (
                    slice(None) if len(chunks) == num_chunks else (chunks[:, None] * num_segments + columns).ravel()
                )
                queries = layers.queries(sums[some])
                branch = _taken(coder, numbers, layers.branch_bounds(queries), off[some] if some_off else None)
                leaf = _taken(coder, numbers, layers.leaf_bounds(queries, branch), off[some] if some_off else None)
                where, found = (rows[:, None], columns, frame[some]), branch * self._num_leaves + leaf
                places[where] = np.where(off[some], places[where], found) if some_off else found
                now = layers.added(places[where])
                added[some] += now
                sums[some] += now[..., : self._num_units]
            added[~on] = 0
            added = added.reshape(self._num_streams, len(self._groups), num_segments, self._num_lags, self._num_units)
            if past:  # of the lower layer groups of the same frame
                added[:, 1:] += past[-1][:, :-1]
            past = [*past[1 - self._num_lags :], added] if self._num_lags > 1 else [added]
        damaged = coder.damaged.reshape(num_chunks, num_segments)
        codes = np.take_along_axis(self._entries[:, None], places, -1)
        for column, number in enumerate(having):
            length = segments[number].num_frames
            yield (
                number,
                {
                    key: None if damaged[row, column] else codes[self._rows[row], column, :length]
                    for row, key in enumerate(self._keys)
                    if data[row][column] is not None
                },
            )

    def _sums_of_past(self, past: Sequence[Floats], num_segments: int) -> Floats:
        """What the codes of steps before add to those of this one, `[G, B, H]`; see `decode`."""
        sums = np.zeros((self._num_streams, len(self._groups), num_segments, self._num_units), dtype=np.float32)
        if past:
            sums[:, 1:] += past[-1][:, :-1, :, 0]
        for lag in range(1, min(self._num_lags - 1, len(past)) + 1):
            sums += past[-lag][..., lag, :]
        return sums.reshape(-1, num_segments, self._num_units)


def _taken(
    coder: RangeDecoder, chunks: NDArray[np.intp] | slice, bounds: Integers, off: NDArray[np.bool_] | None
) -> Integers:
    """The next value of each chunk, `[n, B]`; the first one, for no bits, where it is off."""
    if off is not None:
        bounds[off] = np.arange(bounds.shape[-1]) > 0
    return coder.take(chunks, bounds.reshape(-1, bounds.shape[-1])).reshape(bounds.shape[:2])
