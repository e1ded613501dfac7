"""Fourier transforms of real frames, and the cutting and adding up of frames, in real arithmetic.

Networks are also written down as graphs (see `graphs`), whose runtimes have no fast transform worth the name. There a
transform is two matrix products with a twiddle factor between them (Cooley and Tukey's, in two steps): a few percent of
a network's arithmetic, and no tables of any size.

Legend: F frames, W window length, H hop length, K = W / 2 + 1 bins.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .tracing import is_for_graph


def rfft(frames: Tensor) -> tuple[Tensor, Tensor]:
    """Real and imaginary parts of the transform of real frames: `[..., W]` to two `[..., K]`; W is even."""
    if not is_for_graph():
        spectrum = torch.fft.rfft(frames)
        return spectrum.real, spectrum.imag
    tables = _Tables.of(frames.shape[-1], frames)
    # x[columns * n1 + n2], transformed over n1; X[k1 + rows * k2], over n2.
    first = tables.first @ frames.unflatten(-1, (tables.rows, -1))
    real, imag = first[..., : tables.rows, :], first[..., tables.rows :, :]
    turned = torch.cat([real * tables.cos + imag * tables.sin, imag * tables.cos - real * tables.sin], dim=-1)
    spectrum = (turned @ tables.second).transpose(-1, -2)
    num_bins = frames.shape[-1] // 2 + 1
    half = spectrum.shape[-2] // 2
    return spectrum[..., :half, :].flatten(-2)[..., :num_bins], spectrum[..., half:, :].flatten(-2)[..., :num_bins]


def irfft(real: Tensor, imag: Tensor) -> Tensor:
    """Real frames from the two parts of their transform: two `[..., K]` to `[..., W]`."""
    length = 2 * (real.shape[-1] - 1)
    if not is_for_graph():
        return torch.fft.irfft(torch.complex(real, imag), n=length)
    tables = _Tables.of(length, real)
    # The transform the other way round, step by step; bins that have a mirror image count twice.
    weights = torch.full((length // 2 + 1,), 2 / length, dtype=real.dtype, device=real.device)
    weights[0] = weights[-1] = 1 / length
    half = tables.second.shape[-1] // 2
    missing = (0, half * tables.rows - real.shape[-1])
    parts = [F.pad(part * weights, missing).unflatten(-1, (half, tables.rows)) for part in (real, imag)]
    turned = torch.cat(parts, dim=-2).transpose(-1, -2) @ tables.second.T
    columns = turned.shape[-1] // 2
    ours, theirs = turned[..., :columns], turned[..., columns:]
    first = torch.cat([ours * tables.cos - theirs * tables.sin, ours * tables.sin + theirs * tables.cos], dim=-2)
    return (tables.first.T @ first).flatten(-2)


@dataclass(frozen=True)
class _Tables:
    """Factors of a transform in two steps."""

    first: Tensor
    """Cosines over negative sines, `[2 rows, rows]`."""
    cos: Tensor
    """Of the twiddle factors, `[rows, columns]`."""
    sin: Tensor
    second: Tensor
    """From real parts beside imaginary ones to the lower half of the bins, likewise: `[2 columns, 2 half]`."""

    @property
    def rows(self) -> int:
        """The first factor of the length."""
        return self.first.shape[1]

    @classmethod
    def of(cls, length: int, like: Tensor) -> _Tables:
        """Tables for frames of a length, with the type and the device of another tensor."""
        return cls._made(length, like.dtype, like.device)

    @classmethod
    @functools.lru_cache
    def _made(cls, length: int, dtype: torch.dtype, device: torch.device) -> _Tables:
        rows = max(factor for factor in range(1, math.isqrt(length) + 1) if length % factor == 0)
        columns = length // rows

        def turns(left: int, right: int, period: int) -> tuple[Tensor, Tensor]:
            steps = torch.outer(torch.arange(left), torch.arange(right)) % period
            angle = steps.double() * (2 * math.pi / period)
            return angle.cos(), angle.sin()

        (cos, sin), twiddles = turns(rows, rows, rows), turns(rows, columns, length)
        inner_cos, inner_sin = turns(columns, columns // 2 + 1, columns)
        second = torch.cat([torch.cat([inner_cos, -inner_sin], dim=1), torch.cat([inner_sin, inner_cos], dim=1)])
        return cls(*(table.to(device, dtype) for table in (torch.cat([cos, -sin]), *twiddles, second)))


def cut_frames(wav: Tensor, window_length: int, hop_length: int) -> Tensor:
    """Overlapping frames, as many as fit: `[..., T]` to `[..., F, W]`."""
    if not is_for_graph():
        return wav.unfold(-1, window_length, hop_length)
    num_frames = (wav.shape[-1] - window_length) // hop_length + 1
    per_window = -(-window_length // hop_length)
    length = (num_frames + per_window - 1) * hop_length
    hops = F.pad(wav, (0, per_window * hop_length))[..., :length].unflatten(-1, (-1, hop_length))
    pieces = [hops[..., start : start + num_frames, :] for start in range(per_window)]
    return torch.cat(pieces, dim=-1)[..., :window_length]


def overlap_add(frames: Tensor, hop_length: int) -> Tensor:
    """The sum of frames, each a hop after the one before: `[..., F, W]` to `[..., (F - 1) * H + W]`."""
    num_frames, window_length = frames.shape[-2:]
    per_window = -(-window_length // hop_length)
    hops = F.pad(frames, (0, per_window * hop_length - window_length)).unflatten(-1, (per_window, hop_length))
    shifted = [F.pad(hops[..., start, :], (0, 0, start, per_window - 1 - start)) for start in range(per_window)]
    total = shifted[0]
    for more in shifted[1:]:
        total = total + more
    return total.flatten(-2)[..., : (num_frames - 1) * hop_length + window_length]
