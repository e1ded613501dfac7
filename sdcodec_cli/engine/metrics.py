"""Measures of how close audio is to a reference, computed in float64.

Legend: R rows, T samples, F frames, K bins or bands.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..audio.bands import HIGHEST, LOWEST, NUM_LEVELS, erb_edges
from ..audio.mel import FLOOR, mel_bank, mel_edges

Wavs = NDArray[np.floating[Any]]
"""`[..., T]`"""

Scores = NDArray[np.float64]
"""`[...]`"""

EPS = 1e-8

DAC_SCALES = ((2048, 150), (512, 80))
"""Window length in samples and mel bands of each scale that DAC is evaluated at; the hop is a quarter of the window."""

BAND_EDGES = tuple(erb_edges(NUM_LEVELS, LOWEST, HIGHEST).round(6).tolist())
"""In Hz, of the 21 bands in which levels are compared."""

UPPER_BANDS = slice(9, None)
"""Those above 1 kHz; the first of them begins at 961 Hz."""

WIDE_EDGES = (*BAND_EDGES, *erb_edges(4, HIGHEST, 16_000.0).round(6).tolist()[1:])
"""The same and four bands above them, about as wide for the ear, up to 16 kHz."""

TREBLE_BANDS = slice(NUM_LEVELS, None)
"""Those above 8 kHz."""

BAND_WINDOW, BAND_HOP = 0.08, 0.02
"""Seconds, of the Hann windows under which the levels of bands are taken."""

BAND_FLOOR = 1e-7
"""Added to the mean power of a band's bins, as it is at 16 kHz."""

FADE = 0.02
"""Seconds of either end that are faded before a spectrum is taken of a whole signal."""

POWER_FLOOR = 1e-12
"""Added to mean squares in a band of such a spectrum, so that no ratio is infinite: 120 dB below full scale."""


class BandErrors(NamedTuple):
    """How far the levels of bands are from those of a reference, in dB."""

    bias: NDArray[np.float64]
    """Mean over frames, `[..., K]`; negative where the estimate is too quiet."""
    spread: NDArray[np.float64]
    """Standard deviation over frames, `[..., K]`."""


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


def sdr(estimate: Wavs, reference: Wavs) -> Scores:
    """Signal-to-distortion ratio in dB: two `[..., T]` to `[...]`; a gain is a distortion.

    Both powers have the offset of 1e-8 of `si_sdr`, in sums over samples.
    """
    wanted = np.square(reference.astype(np.float64)).sum(-1)
    wrong = np.square(estimate.astype(np.float64) - reference).sum(-1)
    return np.asarray(10 * np.log10((wanted + EPS) / (wrong + EPS)))


def band_power(wav: Wavs, sample_rate: int, lowest: float, highest: float) -> Scores:
    """Mean square of what a signal has from `lowest` to below `highest` Hz: `[..., T]` to `[...]`.

    By one spectrum of the whole, whose ends are faded so that low tones that are cut off do not show at high
    frequencies.
    """
    length, fade = wav.shape[-1], round(FADE * sample_rate)
    window = np.ones(length)
    window[:fade] = np.hanning(2 * fade + 1)[:fade]
    window[-fade:] = window[:fade][::-1]
    power = np.square(np.abs(np.fft.rfft(wav * window)))
    frequencies = np.fft.rfftfreq(length, 1 / sample_rate)
    # All but 0 Hz stand for their negative, too.
    shares = np.where(frequencies > 0, 2.0, 1.0) * ((frequencies >= lowest) & (frequencies < highest))
    return np.asarray(power @ shares / length**2)


def band_sdr(estimate: Wavs, reference: Wavs, sample_rate: int, lowest: float, highest: float) -> Scores:
    """Signal-to-distortion ratio in dB of what lies from `lowest` to below `highest` Hz: two `[..., T]` to `[...]`.

    A gain is a distortion: an estimate without anything there has 0 dB, one that is 6 dB too quiet 6 dB.
    """
    wanted = band_power(reference, sample_rate, lowest, highest)
    wrong = band_power(estimate.astype(np.float64) - reference, sample_rate, lowest, highest)
    return np.asarray(10 * np.log10((wanted + POWER_FLOOR) / (wrong + POWER_FLOOR)))


def mel_distance_dac(estimate: Wavs, reference: Wavs, sample_rate: int, *, lowest: float = 0.0) -> Scores:
    """Mel distance as DAC is evaluated with (arXiv:2306.06546): two `[..., T]` to `[...]`; 0 is best.

    Not the training objective's: two scales, and beside the logarithms of the squared magnitudes also the magnitudes.
    DAC's numbers are for audio resampled to 44.1 kHz; at another rate the same bands are spread up to half of that.
    T has to be above 1024. Bands that begin below `lowest` Hz are left out.
    """
    total = np.zeros(estimate.size // estimate.shape[-1])
    for window_length, bands in DAC_SCALES:
        bank = mel_bank(window_length, bands, sample_rate)[:, mel_edges(bands, sample_rate)[:-2] >= lowest]
        total += _distance(_magnitudes(estimate, window_length) @ bank, _magnitudes(reference, window_length) @ bank)
    return total.reshape(estimate.shape[:-1])


def stft_distance(estimate: Wavs, reference: Wavs) -> Scores:
    """As `mel_distance_dac`, of the spectra themselves: two `[..., T]` to `[...]`."""
    total = np.zeros(estimate.size // estimate.shape[-1])
    for window_length, _ in DAC_SCALES:
        total += _distance(_magnitudes(estimate, window_length), _magnitudes(reference, window_length))
    return total.reshape(estimate.shape[:-1])


def band_errors(estimate: Wavs, reference: Wavs, sample_rate: int, edges: Sequence[float] | None = None) -> BandErrors:
    """What is wrong with the levels of bands on the whole, and what from frame to frame: two `[..., T]` to `[..., K]`.

    Bands lie between `edges`, which are `band_edges` by default. T has to be at least `BAND_WINDOW`.
    """
    edges = band_edges(sample_rate) if edges is None else edges
    difference = _band_levels(estimate, sample_rate, edges) - _band_levels(reference, sample_rate, edges)
    return BandErrors(difference.mean(-2), difference.std(-2))


def band_edges(sample_rate: int) -> tuple[float, ...]:
    """Those of `BAND_EDGES` that a sample rate has, in Hz: one more than there are bands."""
    return tuple(edge for edge in BAND_EDGES if edge <= sample_rate / 2)


def _band_levels(wav: Wavs, sample_rate: int, edges: Sequence[float]) -> NDArray[np.float64]:
    """In dB: `[..., T]` to `[..., F, K]`."""
    length, hop = round(BAND_WINDOW * sample_rate), round(BAND_HOP * sample_rate)
    # The first bin of each band and, at last, that after all; 8 kHz belongs to the band below it, and so does 16 kHz.
    ends = [edge + (edge in (BAND_EDGES[-1], WIDE_EDGES[-1])) for edge in edges]
    firsts = np.ceil(np.array(ends) * length / sample_rate).astype(int)
    frames = np.lib.stride_tricks.sliding_window_view(wav, length, axis=-1)[..., ::hop, :]
    power = np.square(np.abs(np.fft.rfft(frames * np.hanning(length))))[..., : firsts[-1]]
    means = np.add.reduceat(power, firsts[:-1], axis=-1) / np.diff(firsts)
    # The same sound has that much more power in longer windows.
    scale = (length / (BAND_WINDOW * 16_000)) ** 2
    return np.asarray(10 * np.log10(means / scale + BAND_FLOOR))


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
