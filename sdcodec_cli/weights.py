"""Weights as files hold them, in 32, 16 or 8 bits; networks compute with 32 whatever they were stored in.

Everything here is numpy, so that a model can be used without torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import ModelError

Weights = dict[str, NDArray[Any]]

SCALE = ".row_scale"
"""Suffix of the name of a tensor of scales, by which the rows of the 8-bit tensor of that name are multiplied."""

SHORTEST_ROW = 64
"""Values in the shortest rows that are stored in 8 bits; shorter ones would save little and lose more."""


def pack(tensors: Mapping[str, NDArray[Any]], bits: int) -> Weights:
    """Weights with as many bits; at 8 the rows of matrices and kernels are whole numbers from −127 to 127.

    Each row (of the first axis) has a scale of its own, its largest magnitude over 127. What has short rows, biases,
    norms and codebooks, stays in 16 bits.

    Raises:
        ValueError: `bits` is not 32, 16 or 8
    """
    if bits not in (32, 16, 8):
        raise ValueError(f"weights are stored in 32, 16 or 8 bits, not {bits}")
    packed: Weights = {}
    for name, tensor in tensors.items():
        full = np.asarray(tensor, dtype=np.float32)
        if bits == 8 and name.endswith(".weight") and full.ndim > 1 and full[0].size >= SHORTEST_ROW:
            rows = full.reshape(len(full), -1)
            scale = np.maximum(np.abs(rows).max(1, keepdims=True), np.finfo(np.float32).tiny) / np.float32(127)
            packed[name] = np.clip(np.rint(rows / scale), -127, 127).astype(np.int8).reshape(full.shape)
            packed[name + SCALE] = scale[:, 0]
        else:
            packed[name] = full if bits == 32 else full.astype(np.float16)
    return packed


def unpack(tensors: Mapping[str, NDArray[Any]]) -> Weights:
    """Weights in 32 bits, whatever they were packed in."""
    weights: Weights = {}
    for name, tensor in tensors.items():
        if name.endswith(SCALE):
            continue
        weights[name] = np.asarray(tensor, dtype=np.float32)
        scale = tensors.get(name + SCALE)
        if scale is not None:
            weights[name] *= scale.reshape(-1, *[1] * (tensor.ndim - 1))
    return weights


def read(path: Path) -> Weights:
    """Tensors of a file, in the types in which they are stored.

    Raises:
        ModelError: it cannot be read, or is damaged
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return dict(load_file(path))
    except (SafetensorError, OSError, KeyError, TypeError) as error:
        raise ModelError(f"{path}: the weights cannot be read ({error}); restore or re-import them") from error


def within(tensors: Mapping[str, NDArray[Any]], prefix: str) -> Weights:
    """Weights of a part of a network, whose names begin with `prefix`, without that."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def sha256(tensors: Mapping[str, NDArray[Any]], elsewhere: Mapping[str, bytes] | None = None) -> bytes:
    """SHA-256 of the names, types, shapes and values of weights, by which a `.sdc` names those it was made with.

    Of a model that refers to another one, `elsewhere` has the hash of that by how the names of its weights would begin.
    """
    digest = hashlib.sha256()
    for prefix, other in sorted((elsewhere or {}).items()):
        digest.update(f"{prefix} {other.hex()}\n".encode())
    for name in sorted(tensors):
        tensor = np.asarray(tensors[name], order="C")
        digest.update(f"{name} {tensor.dtype.name} {list(tensor.shape)}\n".encode())
        digest.update(tensor.data if tensor.ndim else tensor.tobytes())
    return digest.digest()
