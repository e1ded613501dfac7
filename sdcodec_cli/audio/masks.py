"""Ratio masks: decoded stems as shares of a mixture's spectrum, whose phase and channels stay as they are.

From "Learning Source Disentanglement in Neural Audio Codec", arXiv:2409.11228, IV-D: each decoded stem gives a
magnitude, and its share of the sum of all magnitudes is what it gets of the mixture's spectrum.

Legend: N domains, C channels, T samples, F frames.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from numpy.typing import NDArray

from ..audio.wav import Wav

WINDOW_LENGTH, HOP_LENGTH = 1024, 256
"""Of the mask's Hann-windowed spectrum, in samples at 16 kHz (arXiv:2409.11228)."""

OVERLAP = WINDOW_LENGTH // HOP_LENGTH
"""Hops of a window, at any rate."""

QUIET = 1e-8
"""Magnitude below which all stems count as silent, and the mixture is shared out equally."""


def window_length(sample_rate: int) -> int:
    """Of spectra at a rate, in samples: as long in seconds as at 16 kHz, to the nearest power of two."""
    doublings = max(-5, round(math.log2(sample_rate / 16_000)))
    return WINDOW_LENGTH * 2**doublings if doublings >= 0 else WINDOW_LENGTH >> -doublings


@functools.cache
def _window(length: int) -> Wav:
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)).astype(np.float32)


def ratio_masks(stems: NDArray[np.complex64]) -> NDArray[np.float32]:
    """Share of each domain in every bin: spectra `[N, F, bins]` to masks that add up to one.

    Where all are silent the shares are equal, so nothing is divided by zero and nothing of the mixture is lost.
    """
    magnitudes = np.abs(stems)
    total = magnitudes.sum(0, keepdims=True)
    shares = magnitudes / np.maximum(total, np.float32(QUIET))
    return np.where(total > QUIET, shares, np.float32(1 / len(magnitudes)))


def mask_mixture(mixture: Wav, stems: Wav, *more: Wav, window_length: int = WINDOW_LENGTH) -> Wav:
    """Share a mixture out among its stems, by the masks of decoded stems, or by the mean of several such masks.

    Args:
        mixture: `[C, T]`
        stems: decoded, `[N, T]`
        more: decoded stems of other views of the mixture, `[N, T]` each
        window_length: of the spectra, see `window_length`

    Returns:
        `[N, C, T]`, which add up to the mixture
    """
    masks = ratio_masks(spectrum(stems, window_length))
    for view in more:
        masks += ratio_masks(spectrum(view, window_length))
    masks /= np.float32(1 + len(more))
    return inverse(masks[:, None] * spectrum(mixture, window_length), mixture.shape[-1])


def spectrum(wav: Wav, window_length: int = WINDOW_LENGTH) -> NDArray[np.complex64]:
    """Short-time spectrum of audio that is continued by its mirror image: `[..., T]` to `[..., F, bins]`."""
    # Reflection needs half a window of signal.
    ends = [(0, 0)] * (wav.ndim - 1)
    wav = np.pad(wav, [*ends, (0, max(0, window_length - wav.shape[-1]))])
    wav = np.pad(wav, [*ends, (window_length // 2, window_length // 2)], mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(wav, window_length, axis=-1)
    frames = windows[..., :: window_length // OVERLAP, :]
    return np.fft.rfft(frames * _window(window_length)).astype(np.complex64, copy=False)


def inverse(spectra: NDArray[np.complex64], length: int) -> Wav:
    """Audio from its `spectrum`: `[..., F, bins]` to `[..., T]`, T the given length."""
    window_length = 2 * (spectra.shape[-1] - 1)
    window, hop_length = _window(window_length), window_length // OVERLAP
    frames = np.fft.irfft(spectra, n=window_length).astype(np.float32, copy=False) * window
    hops = frames.reshape(*frames.shape[:-1], OVERLAP, hop_length)
    num_frames = hops.shape[-3]
    wav = np.zeros((*frames.shape[:-2], num_frames + OVERLAP - 1, hop_length), dtype=np.float32)
    envelope = np.zeros((num_frames + OVERLAP - 1, hop_length), dtype=np.float32)
    squares = np.square(window).reshape(OVERLAP, hop_length)
    for shift in range(OVERLAP):
        wav[..., shift : shift + num_frames, :] += hops[..., shift, :]
        envelope[shift : shift + num_frames] += squares[shift]
    kept = slice(window_length // 2, window_length // 2 + length)
    flat, total = wav.reshape(*wav.shape[:-2], -1)[..., kept], envelope.reshape(-1)[kept]
    return np.asarray(flat / total, dtype=np.float32)
