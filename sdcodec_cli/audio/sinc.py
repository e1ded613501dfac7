"""Audio at another rate by a windowed sinc on the grid of its samples: nothing is late.

For files `StreamResampler` is better and faster; this is the filter between the stages of a model, where what is
decoded at one rate is subtracted from, and added to, audio at another: in training (`nn/resample.py`) and here alike.

Legend: C channels, T samples.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from numpy.typing import NDArray

from .wav import Wav

WIDTH = 64
"""Samples of the lower rate that the filter reaches to either side."""

PASSED, STOPPED = 0.9, 1.0
"""Shares of half the lower rate below which everything passes, and above which nothing does, to 100 dB."""

BATCH = 32
"""Blocks that are computed at once, always as many: products of other shapes differ in the last bits."""

_BETA = 0.1102 * (100 - 8.7)  # of Kaiser's window, for 100 dB


@functools.cache
def sinc_matrix(old_rate: int, new_rate: int) -> tuple[NDArray[np.float32], int]:
    """What takes a block and what is around it to a block at the other rate, `[span, block]`, and how much is around.

    A product of matrices: on a CPU seven times as fast as a convolution of one channel, and its way back thirty times.
    """
    common = math.gcd(old_rate, new_rate)
    up, down = new_rate // common, old_rate // common
    lower = min(up, down)
    reach = math.ceil(WIDTH * down / lower)
    steps = -(-2 * reach // down)
    cutoff = (PASSED + STOPPED) / 2 * lower / down
    # Distance of each input sample from each output sample, in input samples.
    distance = np.arange(-reach, steps * down + reach)[:, None] - np.arange(steps * up) * down / up
    window = np.i0(_BETA * np.sqrt(np.clip(1 - (distance / reach) ** 2, 0, None)))
    filters = np.sinc(cutoff * distance) * np.where(np.abs(distance) < reach, window, 0)
    return (filters / filters.sum(0)).astype(np.float32), reach


class StreamSinc:
    """Change the rate of audio that arrives in blocks; sample n of what comes out is at the time n / `new_rate`.

    It is the same to the bit however the audio was cut.

    Shape:
        push: `[C, T]` to `[C, T']`, where T' may be 0 while the filter fills; flush: the rest `[C, T']`
    """

    def __init__(self, old_rate: int, new_rate: int, channels: int) -> None:
        self._matrix, self._reach = sinc_matrix(old_rate, new_rate)
        self._given = len(self._matrix) - 2 * self._reach
        self._ratio = new_rate, old_rate
        self._wav = np.zeros((channels, self._reach), dtype=np.float32)
        self._taken = self._out = 0  # samples that came in and that went out

    def push(self, wav: Wav) -> Wav:
        """Take a block, return what is ready."""
        self._taken += wav.shape[-1]
        self._wav = np.concatenate([self._wav, wav], axis=-1)
        return self._pull()

    def flush(self) -> Wav:
        """Return what is still inside, in all as much as lasts as long as what came in; call it once, at the end."""
        new_rate, old_rate = self._ratio
        rest = -(-self._taken * new_rate // old_rate) - self._out
        self._wav = np.pad(self._wav, ((0, 0), (0, len(self._matrix) + BATCH * self._given)))
        return self._pull()[:, :rest]

    def _pull(self) -> Wav:
        length = BATCH * self._given
        batches = max(0, (self._wav.shape[-1] - 2 * self._reach) // length)
        if not batches:
            return self._wav[:, :0]
        windows = np.lib.stride_tricks.sliding_window_view(self._wav, len(self._matrix), axis=-1)
        starts = range(0, batches * length, length)
        ready = [
            np.ascontiguousarray(windows[:, start : start + length : self._given]) @ self._matrix for start in starts
        ]
        self._wav = self._wav[:, batches * length :].copy()
        out: Wav = np.concatenate(ready, axis=1).reshape(len(self._wav), -1)
        self._out += out.shape[-1]
        return out
