"""The colours of spectrograms, in what training logs and in reports."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Dark to bright in equal steps of lightness (CIE L* 4, 19.5, … 97), so that equal differences look equal.
COLOURS = ((9, 5, 55), (62, 18, 123), (147, 30, 120), (220, 59, 78), (252, 124, 41), (253, 193, 63), (252, 250, 190))


def colour(shares: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Colours from dark to bright: numbers from 0 to 1 in any shape to uint8 RGB `[..., 3]`; others are clipped."""
    places = np.linspace(0, 1, len(COLOURS))
    parts = [np.interp(shares, places, np.array(COLOURS)[:, part]) for part in range(3)]
    return np.stack(parts, -1).round().astype(np.uint8)
