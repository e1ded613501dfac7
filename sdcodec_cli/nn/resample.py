"""Audio at another rate, by a windowed sinc on the grid of its samples: nothing is late, and gradients pass.

Legend: T samples.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

from ..audio.sinc import sinc_matrix
from .fourier import cut_frames


def resample(wav: Tensor, old_rate: int, new_rate: int, *, length: int | None = None) -> Tensor:
    """`[..., T]` at another rate; sample n of the result is at the time n / `new_rate`, as in the original.

    The same filter serves up and down. Outside of the signal there is silence.

    Args:
        wav: at `old_rate`
        old_rate, new_rate: in Hz, a ratio of small numbers: its terms are the size of a matrix
        length: samples of the result; as many as there is audio for by default

    Returns:
        `[..., length]`, float32
    """
    if length is None:
        length = resampled_length(wav.shape[-1], old_rate, new_rate)
    if old_rate == new_rate:
        return F.pad(wav.float(), (0, length - wav.shape[-1]))
    matrix, reach = _matrix(old_rate, new_rate)
    span, given = len(matrix), len(matrix) - 2 * reach
    blocks = -(-length // matrix.shape[1])
    # In 32 bits whatever surrounds it: half precision has 50 dB.
    with torch.autocast(wav.device.type, enabled=False):
        rows = wav.float().reshape(-1, wav.shape[-1])
        right = (blocks - 1) * given + span - reach - wav.shape[-1]
        found = cut_frames(F.pad(rows, (reach, right)), span, given) @ matrix.to(wav.device)
    return found.flatten(1)[:, :length].reshape(*wav.shape[:-1], length)


def resampled_length(length: int, old_rate: int, new_rate: int) -> int:
    """Samples at the new rate that last as long as so many at the old one, or a fraction of one longer."""
    return -(-length * new_rate // old_rate)


@functools.lru_cache
@torch.inference_mode(False)
def _matrix(old_rate: int, new_rate: int) -> tuple[Tensor, int]:
    """`audio.sinc.sinc_matrix` as a tensor."""
    matrix, reach = sinc_matrix(old_rate, new_rate)
    return torch.from_numpy(matrix), reach
