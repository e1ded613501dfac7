"""The mel filter bank, in numpy; training and refinement turn it into a tensor.

Legend: M mel bands, W window length, K = W / 2 + 1 bins.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

FLOOR = 1e-5
"""Magnitude below which a mel band counts as silent."""


@functools.lru_cache
def mel_bank(window_length: int, bands: int, sample_rate: int) -> NDArray[np.float32]:
    """Slaney-normalized triangles, `[K, M]`, as librosa and audiotools make them. Cached: do not write to it.

    At small windows the lowest triangles fall between two bins and stay empty; the published loss has them too.
    """
    bins = np.linspace(0, sample_rate / 2, window_length // 2 + 1)[:, None]
    bank: NDArray[np.float64] = triangles(mel_edges(bands, sample_rate), bins)
    return bank.astype(np.float32)


def triangles(edges: Any, bins: Any) -> Any:
    """The bank between edges `[M + 2]` at the frequencies of bins `[K, 1]`, arrays of numpy or torch: `[K, M]`."""
    low, peak, high = edges[:-2], edges[1:-1], edges[2:]
    heights = ((bins - low) / (peak - low)).clip(max=(high - bins) / (high - peak)).clip(min=0)
    # Every triangle has the same area, whatever its width.
    return heights * (2 / (high - low))


def mel_edges(bands: int, sample_rate: int) -> NDArray[np.float64]:
    """Frequencies in Hz at which the triangles begin, peak and end, `[M + 2]`, evenly spread on Slaney's scale."""
    # The scale is linear up to 1 kHz, 3 mel to 200 Hz, and logarithmic above, 27 mel to a factor of 6.4.
    knee, step = 15.0, math.log(6.4) / 27
    nyquist = sample_rate / 2
    top = nyquist * 3 / 200 if nyquist < 1000 else knee + math.log(nyquist / 1000) / step
    mel = np.linspace(0, top, bands + 2)
    edges: NDArray[np.float64] = np.where(mel < knee, mel * 200 / 3, 1000 * np.exp(step * (mel - knee)))
    return edges
