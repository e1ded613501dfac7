"""Spectrograms and their colours, in what training logs and in reports.

Legend: T samples, H rows of pixels (frequency), W columns of pixels (time).
"""

from __future__ import annotations

import math
import struct
import zlib

import numpy as np
from numpy.typing import NDArray

# Dark to bright in equal steps of lightness (CIE L* 4, 19.5, … 97), so that equal differences look equal.
COLOURS = ((9, 5, 55), (62, 18, 123), (147, 30, 120), (220, 59, 78), (252, 124, 41), (253, 193, 63), (252, 250, 190))

RANGE = 80
"""What a spectrogram shows below its loudest point, in dB."""


def colour(shares: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Colours from dark to bright: numbers from 0 to 1 in any shape to uint8 RGB `[..., 3]`; others are clipped."""
    places = np.linspace(0, 1, len(COLOURS))
    parts = [np.interp(shares, places, np.array(COLOURS)[:, part]) for part in range(3)]
    return np.stack(parts, -1).round().astype(np.uint8)


def spectrogram(wav: NDArray[np.float32], sample_rate: int, height: int, width: int) -> NDArray[np.float32]:
    """Level of a wav `[T]` over its time and bandwidth, in dB relative to a full-scale sine: `[H, W]`, top down.

    Windows have some 32 ms. What is not finite counts as silence.
    """
    length = 2 ** round(math.log2(0.032 * sample_rate))
    window = np.hanning(length + 1)[:-1]
    padded = np.pad(np.nan_to_num(wav, nan=0.0, posinf=0.0, neginf=0.0), length // 2)
    # Several windows for a column, where it is longer than half a window: nothing falls between two columns.
    each = max(1, math.ceil(len(wav) / width / (length / 2)))
    starts = ((np.arange(width * each) + 0.5) * len(wav) / (width * each)).astype(int)
    frames = np.lib.stride_tricks.sliding_window_view(padded, length)[starts]
    power = np.square(np.abs(np.fft.rfft(frames * window)[:, : length // 2]) / (window.sum() / 2))
    power = power.reshape(width, each, -1).mean(1)
    # The mean of all bins that a row touches.
    edges = np.linspace(0, length // 2, height + 1)
    first, last = np.floor(edges[:-1]).astype(int), np.ceil(edges[1:]).astype(int)
    sums = np.add.reduceat(np.pad(power, ((0, 0), (0, 1))), np.stack([first, last], 1).ravel(), axis=1)[:, ::2]
    return np.asarray(10 * np.log10((sums / (last - first)).T[::-1] + 1e-12), dtype=np.float32)


def shades(level: NDArray[np.float32], loudest: float, count: int) -> NDArray[np.uint8]:
    """Levels in dB as numbers from 0 (`RANGE` below the loudest, or less) to `count - 1` (the loudest)."""
    found: NDArray[np.uint8] = (((level - loudest) / RANGE + 1).clip(0, 1) * (count - 1)).round().astype(np.uint8)
    return found


def png(picked: NDArray[np.uint8], palette: NDArray[np.uint8]) -> bytes:
    """A PNG of pixels `[H, W]` that are numbers of colours in a palette `[N, 3]`, of at most 256."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = picked.shape
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)  # 8 bits per pixel, of a palette
    rows = np.pad(picked, ((0, 0), (1, 0))).tobytes()  # each row says first that it is not filtered
    chunks = {b"IHDR": header, b"PLTE": palette.tobytes(), b"IDAT": zlib.compress(rows, 9), b"IEND": b""}
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, data) for kind, data in chunks.items())
