"""Measures of how close audio is to a reference, computed in float64.

Legend: R rows, T samples, F frames, K bins or bands.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..audio.mel import FLOOR, mel_bank

Wavs = NDArray[np.floating[Any]]
"""`[..., T]`"""

Scores = NDArray[np.float64]
"""`[...]`"""

EPS = 1e-8

DAC_SCALES = ((2048, 150), (512, 80))
"""Window length in samples and mel bands of each scale that DAC is evaluated at; the hop is a quarter of the window."""


def si_sdr(estimate: Wavs, reference: Wavs) -> Scores:
    """Scale-invariant signal-to-distortion ratio in dB: two `[..., T]` to `[...]`.

    Zero-mean, with the three offsets of 1e-8 of SD-Codec's published evaluation (arXiv:1811.02508 defines the measure).
    A silent reference gives −80; callers leave such clips out of averages.
    """
    estimate, reference = (wav - wav.mean(-1, dtype=np.float64, keepdims=True) for wav in (estimate, reference))
    scale = (estimate * reference).sum(-1, keepdims=True) / (np.square(reference).sum(-1, keepdims=True) + EPS)
    target = scale * reference
    noise = estimate - target
    return np.asarray(10 * np.log10(np.square(target).sum(-1) / (np.square(noise).sum(-1) + EPS) + EPS))


def mel_distance_dac(estimate: Wavs, reference: Wavs, sample_rate: int) -> Scores:
    """Mel distance as DAC is evaluated with (arXiv:2306.06546): two `[..., T]` to `[...]`; 0 is best.

    Not the training objective's: two scales, and beside the logarithms of the squared magnitudes also the magnitudes.
    DAC's numbers are for audio resampled to 44.1 kHz; at another rate the same bands are spread up to half of that.
    T has to be above 1024.
    """
    total = np.zeros(estimate.size // estimate.shape[-1])
    for window_length, bands in DAC_SCALES:
        bank = mel_bank(window_length, bands, sample_rate)
        total += _distance(_magnitudes(estimate, window_length) @ bank, _magnitudes(reference, window_length) @ bank)
    return total.reshape(estimate.shape[:-1])


def stft_distance(estimate: Wavs, reference: Wavs) -> Scores:
    """As `mel_distance_dac`, of the spectra themselves: two `[..., T]` to `[...]`."""
    total = np.zeros(estimate.size // estimate.shape[-1])
    for window_length, _ in DAC_SCALES:
        total += _distance(_magnitudes(estimate, window_length), _magnitudes(reference, window_length))
    return total.reshape(estimate.shape[:-1])


def _magnitudes(wav: Wavs, window_length: int) -> NDArray[np.float64]:
    """Of Hann-windowed frames around every fourth of a window, reflected at the ends: `[..., T]` to `[R, F, K]`."""
    rows = wav.reshape(-1, wav.shape[-1])
    padded = np.pad(rows, ((0, 0), (window_length // 2, window_length // 2)), mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, window_length, axis=-1)[:, :: window_length // 4]
    window = np.hanning(window_length + 1)[:-1]
    magnitudes: NDArray[np.float64] = np.abs(np.fft.rfft(frames * window))
    return magnitudes


def _distance(estimate: NDArray[np.float64], reference: NDArray[np.float64]) -> Scores:
    """Of magnitudes, two `[R, F, K]` to `[R]`."""
    logs = [2 * np.log10(np.maximum(magnitudes, FLOOR)) for magnitudes in (estimate, reference)]
    distance: Scores = np.abs(logs[0] - logs[1]).mean((1, 2)) + np.abs(estimate - reference).mean((1, 2))
    return distance
