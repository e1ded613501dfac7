"""Weights as files hold them, in 32, 16 or 8 bits; networks compute with 32 whatever they were stored in."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

SCALE = ".row_scale"
"""Ends the name of the tensor that holds what the rows of an 8-bit one are to be multiplied by."""

SHORTEST_ROW = 64
"""Rows of fewer values would save little and lose more."""


def pack(tensors: Mapping[str, Tensor], bits: int) -> dict[str, Tensor]:
    """Weights with as many bits; at 8 the rows of matrices and kernels are whole numbers from −127 to 127.

    Each row (of the first axis) has a scale of its own, its largest magnitude over 127. What has short rows, biases,
    norms and codebooks, stays in 16 bits.

    Raises:
        ValueError: `bits` is not 32, 16 or 8
    """
    if bits not in (32, 16, 8):
        raise ValueError(f"weights are stored in 32, 16 or 8 bits, not {bits}")
    packed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if bits == 8 and name.endswith(".weight") and tensor.dim() > 1 and tensor[0].numel() >= SHORTEST_ROW:
            rows = tensor.float().flatten(1)
            scale = rows.abs().amax(1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny) / 127
            packed[name] = (rows / scale).round().clamp(-127, 127).to(torch.int8).reshape(tensor.shape)
            packed[name + SCALE] = scale[:, 0]
        else:
            packed[name] = tensor.float() if bits == 32 else tensor.half()
    return packed


def unpack(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights in 32 bits, whatever they were packed in."""
    weights: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        scale = tensors.get(name + SCALE)
        if scale is not None:
            weights[name] = tensor.float() * scale.reshape(-1, *[1] * (tensor.dim() - 1))
        elif not name.endswith(SCALE):
            weights[name] = tensor.float()
    return weights
