"""Whether audio has anything above a band, frame by frame: a sample rate alone does not show it.

Legend: T samples, F frames.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..audio import Wav, db_to_power
from .envelope import spectra_of

NOTHING_DB = -50.0
"""Level above the band, relative to the octave below, at which nothing is there."""

AUDIBLE_DB = -90.0
"""Of full scale, in a frame; the noise of 16 bits is below."""

MARGIN = 17 / 16
"""Above so much of the band it is looked for: just above it, filters of resamplers leave a rest."""


class Above:
    """Looks above a band.

    Args:
        band: where it ends, in Hz
        rate: of the audio, in Hz
        window: of a frame; frames overlap by half
    """

    def __init__(self, band: float, rate: int, window: Wav) -> None:
        self._window = window
        hertz = np.fft.rfftfreq(len(window), 1 / rate)
        self._above, self._octave = hertz >= MARGIN * band, (hertz >= band / 2) & (hertz < band)
        # What takes powers of bins to a mean square.
        self._scale = 2 / (len(window) * np.square(window).sum())

    @property
    def in_reach(self) -> bool:
        """Whether the rate leaves room for anything there."""
        return bool(self._above.any())

    def found(self, wav: Wav) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which frames have something above, and which have anything at all from the octave below on, `[..., F]`."""
        power = np.square(np.abs(spectra_of(wav, self._window))) * self._scale
        highs, lows = (power[..., bins].sum(-1) for bins in (self._above, self._octave))
        least = db_to_power(AUDIBLE_DB)
        return (highs > least) & (highs > db_to_power(NOTHING_DB) * lows), highs + lows > least
