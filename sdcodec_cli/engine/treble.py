"""Treble: what lies above a model's band, made of the octave below and levels that are stored for it.

A model at 16 kHz ends at 8 kHz. What the ear hears above is coarse, and much like what is just below it: so a decoder
copies the upper half of the model's band up twice, to fill the octave above, and gives the copies the levels of the
original in a few bands. Gains are what the copies of the decoded mix lack; a decoder applies them to every stem, so
that stems add up. HE-AAC's spectral band replication works in this way (Dietz et al., "Spectral Band Replication, a
Novel Approach in Audio Coding", AES 112, 2002).

Legend: S stems, T samples, F frames, B bands, n columns of gains, K = hop + 1 bins.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from ..audio import Wav
from ..audio.bands import FLOOR, STEP_DB, TREBLE_RATES, band_bank, frames_per_gain, treble_edges
from ..bitstream import GainLayout
from ..bitstream.codings import TREBLE_GAINS
from ..bitstream.entries import treble_fits
from ..bitstream.limits import MAX_GAIN_FRAMES
from .envelope import AnyGains, averaged, sine_window, spectra_of

FACTOR = 2
"""How much higher than the model's rate that of audio with treble is."""

BITRATE = 0.5
"""Of the treble of a channel, in kbit/s, at most: where gains would take more, they are chosen less closely."""

QUIET_DB = 10 * np.log10(FLOOR) + 3
"""Level of a band of the original below which nothing is there."""


@functools.cache
def treble_layout_for(sample_rate: int, hop_length: int) -> GainLayout | None:
    """Bands and times of the gains for a model; None for one whose band needs no more above it."""
    edges = treble_edges(sample_rate, hop_length)
    if edges is None or sample_rate > TREBLE_RATES or not treble_fits(edges, sample_rate, hop_length):
        return None
    frames = min(frames_per_gain(sample_rate, hop_length), MAX_GAIN_FRAMES)
    return GainLayout(frames=frames, step_db=STEP_DB, edges=edges)


class Treble:
    """Measures and makes what lies above a model's band.

    Args:
        layout: bands and times of gains
        sample_rate: of the model, in Hz
        hop_length: samples per frame, at that rate
    """

    def __init__(self, layout: GainLayout, sample_rate: int, hop_length: int) -> None:
        self.layout = layout
        self._hop = hop_length
        self._first = 2 * hop_length * layout.edges[0] // sample_rate
        """Bin where copies begin."""
        length = FACTOR * 2 * hop_length
        bins = np.fft.rfftfreq(length, 1 / (FACTOR * sample_rate))[self._first : -1]
        self._band_of_bin = np.searchsorted(np.array(layout.edges), bins, side="right") - 1
        # Levels are those above the model's band: just below, filters of resamplers leave a rest of what is coded.
        edges = [max(edge, sample_rate / 2) for edge in layout.edges]
        self._means = band_bank(edges, length, FACTOR * sample_rate) / (FACTOR * hop_length)
        self._window, self._wide_window = sine_window(2 * hop_length), sine_window(length)

    def wanted(self, original: Wav, decoded: Wav) -> NDArray[np.float64]:
        """Gains that would bring copies of decoded audio to the levels of the original, in steps, to `[B, n]`.

        Args:
            original: of a segment, with half a frame more on either side, at twice the model's rate, `[2 T]`
            decoded: likewise, at the model's rate, `[T]`
        """
        copies = self._copies(spectra_of(decoded, self._window))
        theirs = self._levels(spectra_of(original, self._wide_window))
        ours = self._levels(np.pad(copies, ((0, 0), (self._first, 1))))
        missing = (theirs - ours) / self.layout.step_db
        return np.where(theirs < QUIET_DB, TREBLE_GAINS.lowest, missing)

    def _levels(self, spectra: NDArray[np.complex64]) -> NDArray[np.float64]:
        """In dB, of means over a gain's frames, so that a sound that begins in one counts: `[F, K]` to `[B, n]`."""
        power = averaged(np.square(np.abs(spectra)) @ self._means, self.layout.frames)
        return np.asarray(10 * np.log10(power + FLOOR))

    def added(
        self, spectra: NDArray[np.complex64], decoded: NDArray[np.complex64], gains: AnyGains
    ) -> NDArray[np.complex64]:
        """Spectra at twice the rate: of stems `[S, F, K]`, and with gains in steps `[B, F]`, to `[S, F, 2 K - 1]`.

        Args:
            spectra: what stays below
            decoded: what is copied
            gains: of every frame
        """
        factors = np.where(gains > TREBLE_GAINS.lowest, 10 ** (self.layout.step_db * gains / 20), 0)
        factors = factors[self._band_of_bin].T.astype(np.float32)
        wide = np.zeros((*spectra.shape[:-1], 2 * self._hop + 1), dtype=np.complex64)
        wide[..., : self._hop] = FACTOR * spectra[..., :-1]
        wide[..., self._hop] = spectra[..., -1]
        wide[..., self._first : -1] += self._copies(decoded) * factors
        return wide

    def _copies(self, decoded: NDArray[np.complex64]) -> NDArray[np.complex64]:
        """What is just below where copies begin, twice: `[..., K]` to `[..., 2 hop - first]`."""
        width = (2 * self._hop - self._first) // 2
        upper = FACTOR * decoded[..., self._first - width : self._first]
        return np.concatenate([upper, upper], axis=-1)
