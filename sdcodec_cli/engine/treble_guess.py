"""Gains of treble that are guessed from the levels below, for audio of which nothing says how loud it was above.

A linear regression from the levels of the bands of an envelope, relative to their mean, to gains of treble in steps;
`tests/treble_guess.py` makes its weights. Networks and longer contexts did no better on validation clips.

Legend: T samples, B bands of an envelope, n columns of gains.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..audio import Wav
from ..audio.bands import band_bank
from ..bitstream.codings import TREBLE_GAINS
from .envelope import averaged, layout_for, levels_of, sine_window, spectra_of
from .treble import Treble, treble_layout_for

SAMPLE_RATE, HOP_LENGTH = 16_000, 320
"""Of the audio below, in Hz, and samples per frame: those of the models that ship."""

_layout = treble_layout_for(SAMPLE_RATE, HOP_LENGTH)
assert _layout is not None
LAYOUT = _layout
"""Bands and times of the gains."""

_EDGES = layout_for(SAMPLE_RATE, HOP_LENGTH).edges
_MEANS = band_bank(_EDGES, 2 * HOP_LENGTH, SAMPLE_RATE) / HOP_LENGTH
_WINDOW = sine_window(2 * HOP_LENGTH)

WEIGHTS = Path(__file__).with_name("treble_guess.csv")
"""A row for each band below, and one that is added; a column for each band above."""


def treble() -> Treble:
    """What measures and makes what lies above."""
    return Treble(LAYOUT, SAMPLE_RATE, HOP_LENGTH)


def shapes_of(wav: Wav) -> NDArray[np.float64]:
    """Levels of bands below relative to their mean, in dB: `[T]`, with half a frame more on either side, to `[n, B]`.

    They do not tell how loud the audio is, because copies have its level anyway.
    """
    levels = averaged(levels_of(spectra_of(wav, _WINDOW), _MEANS), LAYOUT.frames).T
    return np.asarray(levels - levels.mean(axis=1, keepdims=True))


def guessed_gains(wav: Wav) -> NDArray[np.float64]:
    """Gains of treble in steps, not rounded: `[T]`, with half a frame more on either side, to `[8, n]`."""
    weights = _weights()
    gains = shapes_of(wav) @ weights[:-1] + weights[-1]
    return np.asarray(np.clip(gains, TREBLE_GAINS.lowest, TREBLE_GAINS.lowest + TREBLE_GAINS.count - 1).T)


@functools.cache
def _weights() -> NDArray[np.float64]:
    return np.loadtxt(WEIGHTS, delimiter=",")
