"""Spectrograms, in the colours of those that training logs.

Legend: T samples, N samples in a window, H rows of pixels (frequency), W columns of pixels (time).
"""

from __future__ import annotations

import base64
import io
import math

import numpy as np
from numpy.typing import NDArray

from ...colours import colour
from ..types import Wav

Level = NDArray[np.float32]
"""dB relative to a full-scale sine, `[H, W]`, high frequencies first."""

WIDTH, ROWS = 720, 128
RANGE = 80
"""What is shown below the loudest point, in dB."""
SHADES = 64


def spectrogram(wav: Wav, sample_rate: int) -> Level:
    """Level of a wav `[T]` in windows of some 32 ms, over the whole of its time and of its bandwidth."""
    length = 2 ** round(math.log2(0.032 * sample_rate))
    window = np.hanning(length + 1)[:-1]
    padded = np.pad(np.nan_to_num(wav), length // 2)
    # Several windows for a column, where it is longer than half a window: nothing falls between two columns.
    each = max(1, math.ceil(len(wav) / WIDTH / (length / 2)))
    starts = ((np.arange(WIDTH * each) + 0.5) * len(wav) / (WIDTH * each)).astype(int)
    frames = np.lib.stride_tricks.sliding_window_view(padded, length)[starts]
    power = np.square(np.abs(np.fft.rfft(frames * window)[:, : length // 2]) / (window.sum() / 2))
    rows = min(ROWS, length // 2)
    pixels = power.reshape(WIDTH, each, rows, -1).mean(axis=(1, 3)).T[::-1]
    return np.asarray(10 * np.log10(pixels + 1e-12), dtype=np.float32)


def picture(level: Level, loudest: float) -> str:
    """A PNG as the text of a `data:` address; `loudest`, in dB, gets the brightest colour."""
    from PIL import Image

    shades = ((level - loudest) / RANGE + 1).clip(0, 1) * (SHADES - 1)
    image = Image.fromarray(shades.round().astype(np.uint8))
    image.putpalette(colour(np.linspace(0, 1, SHADES)).tobytes())
    encoded = io.BytesIO()
    image.save(encoded, "PNG", optimize=True, bits=6)
    return f"data:image/png;base64,{base64.b64encode(encoded.getvalue()).decode()}"
