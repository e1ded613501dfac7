"""Loudness after ITU-R BS.1770-4, of audio that arrives in blocks.

C channels, T samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .wav import Wav

SILENCE = 1e-4
"""Peak of audio that counts as silent, −80 dBFS."""


class LoudnessMeter:
    """Integrated loudness of audio that arrives in blocks, after ITU-R BS.1770-4.

    Keeps one energy per 100 ms, and uses the K-weighting filters of pyloudnorm.

    Args:
        sample_rate: in Hz
        weights: of the energy of each channel, see `channels.loudness_weights`
    """

    def __init__(self, sample_rate: int, weights: Sequence[float] = (1.0,)) -> None:
        # Pulls in much, which takes longer to import than a short file takes to decode.
        import scipy.signal

        self._sample_rate = sample_rate
        self._filter = scipy.signal.sosfilt
        self._sos = k_weighting(sample_rate)
        self._state = np.zeros((len(self._sos), len(weights), 2))
        self._weights = np.array(weights)
        self._energies: list[float] = []  # of the complete 100 ms, channels weighted and summed
        self._open_energy = 0.0  # of the 100 ms that are still arriving
        self._peak = 0.0
        self._count = 0

    def push(self, wav: Wav) -> None:
        """Take a block `[C, T]`."""
        if wav.shape[1] == 0:
            return
        self._peak = max(self._peak, float(np.abs(wav).max()))
        weighted, self._state = self._filter(self._sos, wav.astype(np.float64), axis=-1, zi=self._state)
        power = self._weights @ np.square(weighted)
        begin = self._count
        self._count += len(power)
        # Boundaries at whole samples: with 11,025 Hz a step is 1,102 or 1,103 samples.
        edges: list[int] = []
        while (edge := self._edge(len(self._energies) + len(edges) + 1)) <= self._count:
            edges.append(edge - begin)
        parts = np.split(power, edges)
        for part in parts[:-1]:
            self._energies.append(self._open_energy + float(part.sum()))
            self._open_energy = 0.0
        self._open_energy += float(parts[-1].sum())

    def integrated(self) -> float:
        """Loudness in LUFS of everything so far; −inf for silence, which is nothing above −80 dBFS.

        Gating needs 0.4 s, and more than −70 LUFS. Of what is shorter or quieter, this is the loudness ungated.
        """
        if self._peak < SILENCE:
            return -math.inf
        seconds = self._count / self._sample_rate
        ungated = _lufs((sum(self._energies) + self._open_energy) / self._count)
        if seconds < 0.4:
            return ungated
        num_blocks = int(np.round((seconds - 0.4) / 0.1) + 1)
        # The last block may reach past the end by half a step.
        energies = np.array([*self._energies, self._open_energy])[: num_blocks + 3]
        energies = np.pad(energies, (0, num_blocks + 3 - len(energies)))
        power = np.convolve(energies, np.ones(4), mode="valid") / (0.4 * self._sample_rate)
        with np.errstate(divide="ignore"):
            loudness = -0.691 + 10 * np.log10(power)
        audible = loudness >= -70
        if not audible.any():
            return ungated
        threshold = _lufs(float(power[audible].mean())) - 10
        return _lufs(float(power[audible & (loudness > threshold)].mean()))

    def _edge(self, index: int) -> int:
        return index * self._sample_rate // 10


def k_weighting(sample_rate: int) -> NDArray[np.float64]:
    """The weighting filter of ITU-R BS.1770-4 as second-order sections `[2, 6]`; pyloudnorm's.

    Where half the sample rate is below the frequency of a section, that section does nothing: it would not be stable.
    """
    import pyloudnorm

    nothing = [1.0, 0.0, 0.0, 1.0, 0.0, 0.0]
    with np.errstate(all="ignore"):
        sections = [[*stage.b, *stage.a] for stage in pyloudnorm.Meter(sample_rate)._filters.values()]
    return np.array([row if np.isfinite(row).all() and _is_stable(row[4:]) else nothing for row in sections])


def _is_stable(feedback: Sequence[float]) -> bool:
    """Whether both poles of `1 + a z⁻¹ + b z⁻²` are inside of the unit circle."""
    a, b = feedback
    return abs(b) < 1 and abs(a) < 1 + b


def integrated_loudness(wav: Wav, sample_rate: int) -> float:
    """Integrated loudness of a whole signal `[C, T]` in LUFS, each channel counting alike; see `LoudnessMeter`."""
    meter = LoudnessMeter(sample_rate, [1.0] * len(wav))
    meter.push(wav)
    return meter.integrated()


def _lufs(power: float) -> float:
    return -0.691 + 10 * math.log10(power) if power > 0 else -math.inf
