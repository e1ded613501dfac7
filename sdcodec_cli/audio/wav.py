"""Audio as it is passed around: blocks of samples, and their change of sample rate.

C channels, T samples.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import soxr
from numpy.typing import NDArray

Wav = NDArray[np.float32]
"""Waveforms: `[..., T]`, mostly `[C, T]`, full scale ±1."""


def to_16_bit(wav: Wav) -> NDArray[np.int16]:
    """Samples as 16-bit numbers, rounded to the nearest; what is beyond full scale is limited to it."""
    return np.clip(np.rint(wav * 32768), -32768, 32767).astype(np.int16)


def to_24_bit(wav: Wav) -> NDArray[np.int32]:
    """Samples as the upper 24 of 32 bits, rounded to the nearest; what is beyond full scale is limited to it."""
    return np.clip(np.rint(wav * 8388608), -8388608, 8388607).astype(np.int32) << 8


class StreamResampler:
    """Change the sample rate of audio that arrives in blocks; the result does not depend on how it was cut.

    Shape:
        push: `[C, T]` to `[C, T']`, where T' may be 0 while the filter fills; flush: the rest `[C, T']`
    """

    def __init__(self, in_rate: int, out_rate: int, channels: int) -> None:
        self._channels = channels
        self._stream = None
        if in_rate != out_rate:
            self._stream = soxr.ResampleStream(in_rate, out_rate, channels, dtype="float32", quality="HQ")

    def push(self, wav: Wav) -> Wav:
        """Take a block, return what is ready."""
        if self._stream is None or wav.shape[1] == 0:
            return wav
        return self._run(wav, last=False)

    def flush(self) -> Wav:
        """Return what is still inside; call it once, at the end."""
        empty = np.zeros((self._channels, 0), np.float32)
        return empty if self._stream is None else self._run(empty, last=True)

    def _run(self, wav: Wav, *, last: bool) -> Wav:
        assert self._stream is not None
        block = np.ascontiguousarray(wav.T, dtype=np.float32)
        return np.ascontiguousarray(self._stream.resample_chunk(block, last=last).T)


class RatesResampler:
    """Brings audio that arrives in blocks to several rates.

    Args:
        in_rate: of what arrives, in Hz
        out_rates: one or more
        channels: C

    Shape:
        push: `[C, T]` to `[C, T']` for each rate; flush: the rest likewise
    """

    def __init__(self, in_rate: int, out_rates: Sequence[int], channels: int) -> None:
        self._rates = in_rate, out_rates[0]
        self._resamplers = [StreamResampler(in_rate, rate, channels) for rate in out_rates]
        self._taken = self._given = 0  # samples that came in, and that went out at the first rate

    def push(self, wav: Wav) -> list[Wav]:
        """Take a block, return what is ready at each rate."""
        self._taken += wav.shape[-1]
        found = [resampler.push(wav) for resampler in self._resamplers]
        self._given += found[0].shape[-1]
        return found

    def flush(self) -> list[Wav]:
        """Return what is still inside; call it once, at the end. At the first rate it covers all that came in."""
        first, *others = (resampler.flush() for resampler in self._resamplers)
        in_rate, out_rate = self._rates
        # The resampler rounds its length down half of the time.
        missing = max(0, -(-self._taken * out_rate // in_rate) - self._given - first.shape[-1])
        return [np.pad(first, ((0, 0), (0, missing))), *others]


def resampled(wav: Wav, in_rate: int, out_rate: int) -> Wav:
    """A whole signal at another rate, its length rounded up: `[T]` to `[T']`; itself if that is its own rate."""
    if in_rate == out_rate:
        return wav
    resampler = StreamResampler(in_rate, out_rate, 1)
    whole = np.concatenate([resampler.push(wav[None]), resampler.flush()], axis=1)[0]
    length = -(-len(wav) * out_rate // in_rate)
    return np.pad(whole, (0, max(0, length - len(whole))))[:length]
