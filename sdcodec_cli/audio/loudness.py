"""Loudness after ITU-R BS.1770-4, of audio that arrives in blocks.

C channels, T samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .decibels import db_to_amplitude
from .filters import CHUNK, ChunkFilter
from .wav import Wav

SILENCE = 1e-4
"""Peak of audio that counts as silent, −80 dBFS."""

LUFS_OFFSET = -0.691
"""What BS.1770-4 adds to the level of weighted samples in dB, so that a sine of 1 kHz keeps its level."""

SHELF_FREQUENCY, SHELF_GAIN, SHELF_Q = 1500.0, 4.0, 1 / math.sqrt(2)
"""Hz, dB and quality of the high shelf of the K-weighting."""

PASS_FREQUENCY, PASS_Q = 38.0, 0.5
"""Hz and quality of its high pass."""

NOTHING = [1.0, 0.0, 0.0, 1.0, 0.0, 0.0]
"""A section that changes nothing."""


class LoudnessMeter:
    """Integrated loudness of audio that arrives in blocks, after ITU-R BS.1770-4.

    Keeps one energy per 100 ms; how audio is cut into blocks changes no bit of the result.

    Args:
        sample_rate: in Hz
        weights: of the energy of each channel, see `channels.loudness_weights`
    """

    def __init__(self, sample_rate: int, weights: Sequence[float] = (1.0,)) -> None:
        self._sample_rate = sample_rate
        self._weights = np.array(weights)
        self._filter = ChunkFilter(k_weighting(sample_rate), len(weights))
        self._state = self._filter.start()
        self._pending = np.zeros((len(weights), CHUNK), dtype=np.float32)
        self._num_pending = 0
        self._energies: list[float] = []  # of the complete 100 ms, channels weighted and summed
        self._open_energy = 0.0  # of the 100 ms that are still arriving
        self._peak = 0.0
        self._count = 0  # samples that are measured, without those pending

    def push(self, wav: Wav) -> None:
        """Take a block `[C, T]`."""
        taken = 0
        while taken < wav.shape[1]:
            piece = wav[:, taken : taken + CHUNK - self._num_pending]
            self._peak = max(self._peak, float(piece.max()), -float(piece.min()))
            self._pending[:, self._num_pending : self._num_pending + piece.shape[1]] = piece
            self._num_pending += piece.shape[1]
            taken += piece.shape[1]
            if self._num_pending == CHUNK:
                power, self._state = self._filtered_power()
                complete, self._open_energy = self._steps(power)
                self._energies += complete
                self._count += CHUNK
                self._num_pending = 0

    def integrated(self) -> float:
        """Loudness in LUFS of everything so far; −inf for silence, which is nothing above −80 dBFS.

        Gating needs 0.4 s, and more than −70 LUFS. Of what is shorter or quieter, this is the loudness ungated.
        """
        if self._peak < SILENCE:
            return -math.inf
        self._pending[:, self._num_pending :] = 0
        complete, open_energy = self._steps(self._filtered_power()[0][: self._num_pending])
        count, steps = self._count + self._num_pending, [*self._energies, *complete, open_energy]
        seconds = count / self._sample_rate
        ungated = _lufs(sum(steps) / count)
        if seconds < 0.4:
            return ungated
        num_blocks = int(np.round((seconds - 0.4) / 0.1) + 1)
        # The last block may reach past the end by half a step.
        energies = np.array(steps)[: num_blocks + 3]
        energies = np.pad(energies, (0, num_blocks + 3 - len(energies)))
        power = np.convolve(energies, np.ones(4), mode="valid") / (0.4 * self._sample_rate)
        with np.errstate(divide="ignore"):
            loudness = LUFS_OFFSET + 10 * np.log10(power)
        above_gate = loudness >= -70
        if not above_gate.any():
            return ungated
        threshold = _lufs(float(power[above_gate].mean())) - 10
        return _lufs(float(power[above_gate & (loudness > threshold)].mean()))

    def _filtered_power(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Weighted squares of the pending samples, summed over channels, `[CHUNK]`, and the filter's state then."""
        filtered, state = self._filter(self._pending, self._state)
        return self._weights @ np.square(filtered, out=filtered), state

    def _steps(self, power: NDArray[np.float64]) -> tuple[list[float], float]:
        """Energies of each 100 ms that these samples complete, and of the 100 ms that they only begin."""
        # Boundaries at whole samples: with 11,025 Hz a step is 1,102 or 1,103 samples.
        edges: list[int] = []
        while (edge := self._edge(len(self._energies) + len(edges) + 1) - self._count) <= len(power):
            edges.append(edge)
        sums = [float(power[begin:end].sum()) for begin, end in zip([0, *edges], [*edges, len(power)], strict=True)]
        sums[0] += self._open_energy
        return sums[:-1], sums[-1]

    def _edge(self, index: int) -> int:
        return index * self._sample_rate // 10


def k_weighting(sample_rate: int) -> NDArray[np.float64]:
    """The weighting filter of ITU-R BS.1770-4 as second-order sections `[2, 6]`: a high shelf, then a high pass.

    The standard gives coefficients for 48 kHz only. For any rate, these are pyloudnorm's: filters of Robert
    Bristow-Johnson's cookbook that come close to them. A section whose frequency is not below half the sample rate does
    nothing.
    """
    return np.array([_high_shelf(sample_rate), _high_pass(sample_rate)])


def _high_shelf(sample_rate: int) -> list[float]:
    if (angle := _angle(SHELF_FREQUENCY, sample_rate)) >= math.pi:
        return NOTHING
    gain, cosine = db_to_amplitude(SHELF_GAIN / 2), math.cos(angle)
    width = 2 * math.sqrt(gain) * math.sin(angle) / (2 * SHELF_Q)
    scale = (gain + 1) - (gain - 1) * cosine + width
    return [
        gain * ((gain + 1) + (gain - 1) * cosine + width) / scale,
        -2 * gain * ((gain - 1) + (gain + 1) * cosine) / scale,
        gain * ((gain + 1) + (gain - 1) * cosine - width) / scale,
        1.0,
        2 * ((gain - 1) - (gain + 1) * cosine) / scale,
        ((gain + 1) - (gain - 1) * cosine - width) / scale,
    ]


def _high_pass(sample_rate: int) -> list[float]:
    if (angle := _angle(PASS_FREQUENCY, sample_rate)) >= math.pi:
        return NOTHING
    cosine, width = math.cos(angle), math.sin(angle) / (2 * PASS_Q)
    scale = 1 + width
    edge = (1 + cosine) / 2 / scale
    return [edge, -2 * edge, edge, 1.0, -2 * cosine / scale, (1 - width) / scale]


def _angle(frequency: float, sample_rate: int) -> float:
    """A frequency in Hz, in radians per sample."""
    return 2 * math.pi * frequency / sample_rate


def integrated_loudness(wav: Wav, sample_rate: int) -> float:
    """Integrated loudness of a whole signal `[C, T]` in LUFS, each channel counting alike; see `LoudnessMeter`."""
    meter = LoudnessMeter(sample_rate, [1.0] * len(wav))
    meter.push(wav)
    return meter.integrated()


def _lufs(power: float) -> float:
    return LUFS_OFFSET + 10 * math.log10(power) if power > 0 else -math.inf
