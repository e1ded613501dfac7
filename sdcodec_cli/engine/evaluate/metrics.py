"""Measures of how close audio is to a reference.

Legend: T samples.
"""

from __future__ import annotations

import torch
from torch import Tensor

EPS = 1e-8


def si_sdr(estimate: Tensor, reference: Tensor) -> Tensor:
    """Scale-invariant signal-to-distortion ratio in dB, computed in float64: two `[..., T]` to `[...]`.

    Zero-mean, with the three offsets of 1e-8 of SD-Codec's published evaluation (arXiv:1811.02508 defines the measure).
    A silent reference gives −80; callers leave such clips out of averages.
    """
    estimate, reference = estimate.double(), reference.double()
    estimate = estimate - estimate.mean(-1, keepdim=True)
    reference = reference - reference.mean(-1, keepdim=True)
    scale = (estimate * reference).sum(-1, keepdim=True) / (reference.square().sum(-1, keepdim=True) + EPS)
    target = scale * reference
    noise = estimate - target
    return 10 * torch.log10(target.square().sum(-1) / (noise.square().sum(-1) + EPS) + EPS)
