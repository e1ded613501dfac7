"""Muon: gradient descent with momentum for matrices, whose updates are orthogonalized.

K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024; sizes of updates as in "Muon is
Scalable for LLM Training", arXiv:2502.16982. torch's own always orthogonalizes in bfloat16, which takes a processor
without instructions for it tens of times as long as float32; in bfloat16 this one does the same, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

MOMENTUM = 0.95
ITERATIONS = 5
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of x, x³ and x⁵: every step takes a singular value x to their sum, and five of them any from 0.01 to 1 near 1."""
RMS = 0.2
"""Root mean square of an update at a learning rate of 1: about that of AdamW, so that one rate serves both."""
_SMALLEST = 1e-7  # norm, of a gradient that is zero


def orthogonalize(matrix: Tensor, dtype: torch.dtype) -> Tensor:
    """A matrix with the same singular vectors and singular values of about 1, from 0.7 to 1.2, by products alone.

    Args:
        matrix: `[R, C]`
        dtype: of the products and of what is returned
    """
    linear, cubic, quintic = COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    out = matrix.to(dtype, copy=True)
    if tall:  # the products are then those of the smaller side
        out = out.T
    out.div_(out.norm().clamp(min=_SMALLEST))
    for _ in range(ITERATIONS):
        gram = out @ out.T
        out = torch.addmm(out, torch.addmm(gram, gram, gram, beta=cubic, alpha=quintic), out, beta=linear)
    return out.T if tall else out


class Muon(torch.optim.Optimizer):
    """Steps along orthogonalized momentum, after Nesterov.

    Args:
        matrices: to train
        weight_decay: per unit of learning rate
        dtype: of the products that orthogonalize; weights and momentum are float32
    """

    def __init__(self, matrices: Iterable[Tensor], *, weight_decay: float, dtype: torch.dtype) -> None:
        super().__init__(matrices, {"lr": 1e-3, "weight_decay": weight_decay})
        self._dtype = dtype

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move the matrices that have a gradient."""
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is not None:
                    self._move(matrix, matrix.grad, group)

    def _move(self, matrix: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[matrix]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(matrix)
        momentum = state["momentum_buffer"].lerp_(gradient, 1 - MOMENTUM)
        update = orthogonalize(gradient.lerp(momentum, MOMENTUM), self._dtype)
        matrix.mul_(1 - group["lr"] * group["weight_decay"])
        matrix.add_(update, alpha=-group["lr"] * RMS * math.sqrt(max(matrix.shape)))
