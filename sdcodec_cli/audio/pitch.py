"""Pitch of speech that arrives in blocks, by autocorrelation (Boersma, "Accurate short-term analysis of the fundamental
frequency", IFA Proceedings 17, 1993).

Legend: T samples, F frames, n samples of a window.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .loudness import SILENCE
from .wav import Wav

LOWEST, HIGHEST = 60.0, 500.0
"""Pitch that is looked for, in Hz."""

WINDOW_SECONDS = 0.064
"""Nearly four periods of the lowest."""

VOICED = 0.5
"""Correlation of a frame with itself a period later from which on it is voiced."""

OCTAVE_COST = 0.02
"""Correlation by which twice the period has to be better, because it always fits nearly as well."""


class PitchTracker:
    """Pitch of each frame of a mono signal.

    Args:
        sample_rate: in Hz
        hop_length: samples of a frame
    """

    def __init__(self, sample_rate: int, hop_length: int) -> None:
        self._rate, self._hop = sample_rate, hop_length
        half = max(hop_length, round(WINDOW_SECONDS * sample_rate)) // 2
        self._before = half - hop_length // 2  # samples of a window before its frame
        self._window = np.hanning(2 * half).astype(np.float32)
        self._size = 1 << (4 * half - 1).bit_length()
        self._lags = np.arange(int(sample_rate / HIGHEST), int(sample_rate / LOWEST) + 1)
        own = np.fft.irfft(np.square(np.abs(np.fft.rfft(self._window, self._size))))
        self._own = own[self._lags] / own[0]
        self._cost = OCTAVE_COST * np.log2(self._lags / self._lags[0])
        self._held = np.zeros(self._before, dtype=np.float32)

    def push(self, wav: Wav) -> NDArray[np.float32]:
        """Take samples `[T]`, give out the pitch of frames that are complete, `[F]`; see `finish`."""
        self._held = np.concatenate([self._held, wav])
        count = (len(self._held) - len(self._window)) // self._hop + 1
        if count <= 0:
            return np.zeros(0, dtype=np.float32)
        windows = np.lib.stride_tricks.sliding_window_view(self._held, len(self._window))[:: self._hop][:count]
        found = self._pitch(windows - windows.mean(axis=1, keepdims=True))
        self._held = self._held[count * self._hop :].copy()
        return found

    def finish(self) -> NDArray[np.float32]:
        """Give out the rest: octaves above `LOWEST`, NaN where a frame is not voiced."""
        return self.push(np.zeros(len(self._window) - self._hop - self._before, dtype=np.float32))

    def _pitch(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Of windows `[F, n]`."""
        spectra = np.fft.rfft(windows * self._window, self._size)
        correlation = np.fft.irfft(np.square(np.abs(spectra)))
        power = np.maximum(correlation[:, :1], SILENCE**2 * len(self._window))
        found = correlation[:, self._lags] / power / self._own
        best = (found - self._cost).argmax(1)
        octaves = np.log2(self._rate / self._lags[best] / LOWEST)
        octaves[found[np.arange(len(found)), best] < VOICED] = np.nan
        return np.asarray(octaves, dtype=np.float32)
