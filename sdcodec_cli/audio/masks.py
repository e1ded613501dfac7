"""Ratio masks: decoded stems as shares of a mixture's spectrum, whose phase and channels stay as they are.

From "Learning Source Disentanglement in Neural Audio Codec", arXiv:2409.11228, IV-D: each decoded stem gives a
magnitude, and its share of the sum of all magnitudes is what it gets of the mixture's spectrum.

Legend: N domains, C channels, T samples, F frames.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..audio.wav import Wav

WINDOW_LENGTH, HOP_LENGTH = 1024, 256
"""Of the mask's Hann-windowed spectrum, in samples (arXiv:2409.11228)."""

QUIET = 1e-8
"""Magnitude below which all stems count as silent, and the mixture is shared out equally."""

WINDOW = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW_LENGTH) / WINDOW_LENGTH)).astype(np.float32)


def ratio_masks(stems: NDArray[np.complex64]) -> NDArray[np.float32]:
    """Share of each domain in every bin: spectra `[N, F, bins]` to masks that add up to one.

    Where all are silent the shares are equal, so nothing is divided by zero and nothing of the mixture is lost.
    """
    magnitudes = np.abs(stems)
    total = magnitudes.sum(0, keepdims=True)
    shares = magnitudes / np.maximum(total, np.float32(QUIET))
    return np.where(total > QUIET, shares, np.float32(1 / len(magnitudes)))


def mask_mixture(mixture: Wav, stems: Wav, *more: Wav) -> Wav:
    """Share a mixture out among its stems, by the masks of decoded stems, or by the mean of several such masks.

    Args:
        mixture: `[C, T]`
        stems: decoded, `[N, T]`
        more: decoded stems of other views of the mixture, `[N, T]` each

    Returns:
        `[N, C, T]`, which add up to the mixture
    """
    masks = ratio_masks(spectrum(stems))
    for view in more:
        masks += ratio_masks(spectrum(view))
    masks /= np.float32(1 + len(more))
    return inverse(masks[:, None] * spectrum(mixture), mixture.shape[-1])


def spectrum(wav: Wav) -> NDArray[np.complex64]:
    """Short-time spectrum of audio that is continued by its mirror image: `[..., T]` to `[..., F, bins]`."""
    # Reflection needs half a window of signal.
    ends = [(0, 0)] * (wav.ndim - 1)
    wav = np.pad(wav, [*ends, (0, max(0, WINDOW_LENGTH - wav.shape[-1]))])
    wav = np.pad(wav, [*ends, (WINDOW_LENGTH // 2, WINDOW_LENGTH // 2)], mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(wav, WINDOW_LENGTH, axis=-1)[..., ::HOP_LENGTH, :]
    return np.fft.rfft(frames * WINDOW).astype(np.complex64, copy=False)


def inverse(spectra: NDArray[np.complex64], length: int) -> Wav:
    """Audio from its `spectrum`: `[..., F, bins]` to `[..., T]`, T the given length."""
    frames = np.fft.irfft(spectra, n=WINDOW_LENGTH).astype(np.float32, copy=False) * WINDOW
    hops = frames.reshape(*frames.shape[:-1], -1, HOP_LENGTH)
    num_frames, overlap = hops.shape[-3:-1]
    wav = np.zeros((*frames.shape[:-2], num_frames + overlap - 1, HOP_LENGTH), dtype=np.float32)
    envelope = np.zeros((num_frames + overlap - 1, HOP_LENGTH), dtype=np.float32)
    squares = np.square(WINDOW).reshape(overlap, HOP_LENGTH)
    for shift in range(overlap):
        wav[..., shift : shift + num_frames, :] += hops[..., shift, :]
        envelope[shift : shift + num_frames] += squares[shift]
    kept = slice(WINDOW_LENGTH // 2, WINDOW_LENGTH // 2 + length)
    flat, total = wav.reshape(*wav.shape[:-2], -1)[..., kept], envelope.reshape(-1)[kept]
    return np.asarray(flat / total, dtype=np.float32)
