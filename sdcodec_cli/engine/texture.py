"""Texture: the fine structure of decoded audio above a frequency up to which alone codes carry the waveform.

At a few kbit/s codes say of high frequencies how loud they are, and nothing of their phase. What the decoder then puts
there is nearly the same in each frame, so it buzzes at the frame rate, whatever the sound: 50 times a second. Here it
keeps its levels, and gets the fine structure of the rectified audio below, which has the harmonics of a voice where it
is voiced, and is noise where that is noise. Codecs that extend the bandwidth of speech make their excitation in this
way (Makhoul and Berouti, "High-frequency regeneration in speech coding systems", ICASSP 1979).

Legend: S stems, T samples, F frames, K bins.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..audio import Wav
from .envelope import sine_window, spectra_of

CONTEXT_FRAMES = 2
"""Frames on each side that the texture of a frame depends on."""

FULL = 2**0.5
"""What is decoded fades into texture from the frequency where it begins to so many times that."""

LEVEL_WIDTH, EXCITATION_WIDTH = 200.0, 400.0
"""In Hz: over so much the levels that are kept, and those that rectified audio is freed of, are averaged."""

SILENCE = 1e-12
"""Power of a bin that is not amplified."""


class Texture:
    """Replaces the fine structure of decoded audio above a frequency.

    Args:
        begin: in Hz
        sample_rate: in Hz
        hop_length: samples per frame
    """

    def __init__(self, begin: float, sample_rate: int, hop_length: int) -> None:
        self._hop = hop_length
        self._window = sine_window(2 * hop_length)
        bins = np.fft.rfftfreq(2 * hop_length, 1 / sample_rate)
        self._first = int(np.searchsorted(bins, begin))
        """Bin where texture begins."""
        rise = np.log(bins[self._first :] / begin) / np.log(FULL)
        self._amount = rise.clip(0, 1).astype(np.float32)
        width = sample_rate / (2 * hop_length)
        self._level, self._excitation = (
            _averages(len(bins), self._first, max(1, round(hertz / width))) for hertz in (LEVEL_WIDTH, EXCITATION_WIDTH)
        )

    def applied(self, wavs: Wav) -> Wav:
        """Stems `[S, T]`, T a whole number of frames, to as many."""
        decoded = self._spectra(wavs)
        low = decoded.copy()
        low[..., self._first :] = 0
        rectified = self._spectra(np.abs(self._audio(low)))
        upper = decoded[..., self._first :]
        level = np.square(np.abs(decoded)) @ self._level
        excitation = np.square(np.abs(rectified)) @ self._excitation
        made = rectified[..., self._first :] * np.sqrt(level / (excitation + SILENCE))
        decoded[..., self._first :] = upper * np.sqrt(1 - self._amount**2) + made * self._amount
        return self._audio(decoded)

    def _spectra(self, wavs: Wav) -> NDArray[np.complex64]:
        """Of frames that overlap by half, one more than there are hops: `[S, T]` to `[S, F + 1, K]`."""
        return spectra_of(np.pad(wavs, ((0, 0), (self._hop, self._hop))), self._window).astype(np.complex64)

    def _audio(self, spectra: NDArray[np.complex64]) -> Wav:
        """The way back: `[S, F + 1, K]` to `[S, T]`."""
        frames = np.asarray(np.fft.irfft(spectra, n=2 * self._hop) * self._window, dtype=np.float32)
        out = frames[:, 1:, : self._hop] + frames[:, :-1, self._hop :]
        return np.asarray(out.reshape(len(out), -1))


def _averages(count: int, first: int, width: int) -> NDArray[np.float32]:
    """What takes powers of bins to their means over a width around each one from the first on: `[K, K - first]`."""
    centres, bins = np.arange(first, count)[None], np.arange(count)[:, None]
    inside = (bins >= np.maximum(first, centres - width // 2)) & (bins < centres - width // 2 + width)
    averages: NDArray[np.float32] = (inside / inside.sum(0)).astype(np.float32)
    return averages
