"""Small tables for range-coded codes, and codes that they are right about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdcodec_cli.prediction import CodeTables


def random_tensors(
    name: str, *, num_codebooks: int = 3, num_entries: int = 16, lags: int = 3, most: int = 40, seed: int = 0
) -> dict[str, NDArray[Any]]:
    """A network of one stream, of random numbers up to `most`."""
    rng = np.random.default_rng(seed)
    width, units, seconds, query, branches = 2, 6, 5, 4, 4

    def whole(*shape: int, dtype: type = np.int8) -> NDArray[Any]:
        return rng.integers(-most, most + 1, shape).astype(dtype)

    k, v = num_codebooks, num_entries
    return {
        f"{name}.order": np.stack([rng.permutation(v) for _ in range(k)]).astype(np.int32),
        f"{name}.vectors": whole(k, v, width),
        f"{name}.past": whole(lags, k, width, units),
        f"{name}.past_bias": whole(k, units, dtype=np.int32),
        f"{name}.hidden": whole(k, units, seconds),
        f"{name}.hidden_bias": whole(k, seconds, dtype=np.int32),
        f"{name}.query": whole(k, seconds, query),
        f"{name}.query_bias": whole(k, query, dtype=np.int32),
        f"{name}.branches": whole(k, query, branches),
        f"{name}.branches_bias": whole(k, branches, dtype=np.int32),
        f"{name}.leaves": whole(k, v, query),
        f"{name}.leaves_bias": whole(k, v, dtype=np.int32),
        f"{name}.shifts": np.array([6, 6, 6, 7, 7], dtype=np.int32),
    }


def frequencies() -> dict[str, NDArray[Any]]:
    """Of values that are 0, 1, 2 … steps less likely."""
    return {"weights": np.array([2000, 1400, 1000, 700, 500, 350, 250, 120, 60, 30, 8, 1], dtype=np.int16)}


def toy_tables(**streams: Mapping[str, int]) -> CodeTables:
    """Tables of streams by name, each with changes to `random_tensors`."""
    tensors = frequencies()
    for seed, (name, changes) in enumerate(streams.items()):
        tensors |= random_tensors(name, seed=seed, **changes)  # type: ignore[arg-type]
    return CodeTables(tensors)


def likely_codes(
    tables: CodeTables, name: str, groups: tuple[int, ...], num_frames: int, seed: int = 0
) -> NDArray[np.int64]:
    """Codes that take few bytes: what a chunk of only a few stands for."""
    from sdcodec_cli.prediction import Coded

    data = np.random.default_rng(seed).bytes(6)
    chunks = {(name, group): data for group in range(len(groups))}
    (found,) = tables.decode([Coded(num_frames, chunks)], {name: groups})
    codes = [found[name, group] for group in range(len(groups))]
    assert all(each is not None for each in codes)
    return np.concatenate(codes)  # type: ignore[arg-type]
