"""The envelope: levels of the audio in bands, beside the codes.

Codes spend their bits where the energy is, so above a kilohertz decoded audio is too quiet, and by how much changes
from frame to frame: it sounds dull and rough. The envelope is what the decoded mix lacks in each band, in steps of a
few dB for every few frames, and costs about as much as one codebook. The decoder applies a share of it, the same to the
mix and to every stem. Opus (CELT, RFC 6716) sends levels of bands apart from their shapes in this way.

Legend: S stems, T samples, F frames, B bands, n columns of gains, K bins.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..audio import Wav
from ..audio.bands import FLOOR, STEP_DB, band_bank, envelope_edges, frames_per_gain
from ..bitstream import EnvelopeLayout
from ..bitstream.codings import LOWEST_GAIN, NUM_GAINS, PRECISION, context, frequencies
from ..bitstream.header import MAX_GAIN_FRAMES

PRICE = 0.2
"""Of a bit, in squared steps of error; half of it takes a fifth more bits, for 0.08 dB less spread of levels."""

DEAREST = 20.0
"""Price at which gains are given up that still take too many bits."""

UNIT_BITS = 8 * 16
"""Of a file for each segment's envelope, besides its gains."""

BITRATE, FINE_BITRATE = 0.6, 2.2
"""Of the envelope of a channel, and of a fine one, in kbit/s, at most: where gains would take more, they are chosen
less closely."""

CONTEXT_FRAMES = 2
"""Frames on each side whose decoded audio has a part in that of a frame, through overlapping windows."""

Gains = NDArray[np.int64]
"""Of bands over time `[B, n]`, in steps."""


@functools.cache
def layout_for(sample_rate: int, hop_length: int, *, fine: bool = False) -> EnvelopeLayout:
    """Bands and times of the gains that are computed for a model."""
    frames = min(frames_per_gain(sample_rate, hop_length, fine=fine), MAX_GAIN_FRAMES)
    return EnvelopeLayout(frames=frames, step_db=STEP_DB, edges=envelope_edges(sample_rate, fine=fine))


def envelope_bitrate(*, envelope: bool, fine: bool) -> float:
    """What is set aside for the envelope of a channel, in kbit/s."""
    return (FINE_BITRATE if fine else BITRATE) if envelope else 0.0


class Bands:
    """Measures and changes levels of bands, under windows of two hops, one for each frame and around its middle.

    Args:
        layout: bands and times of gains
        sample_rate: in Hz
        hop_length: samples per frame
    """

    def __init__(self, layout: EnvelopeLayout, sample_rate: int, hop_length: int) -> None:
        self.layout, self.hop_length = layout, hop_length
        bins = np.fft.rfftfreq(2 * hop_length, 1 / sample_rate)
        self._band_of_bin = np.searchsorted(np.array(layout.edges[:-1]), bins, side="right")
        """Band of each bin, from 1; 0 below all of them."""
        # A band so narrow that it has no bin is always silent, and its gain zero.
        self._means = band_bank(layout.edges, 2 * hop_length, sample_rate) / hop_length
        # Squared and overlapped by half, it adds up to one.
        self._window = np.sin(np.pi * (np.arange(2 * hop_length) + 0.5) / (2 * hop_length)).astype(np.float32)

    def wanted(self, original: Wav, decoded: Wav) -> NDArray[np.float64]:
        """Gains that would bring decoded audio to the levels of the original, in steps: two `[T]` to `[B, n]`.

        Args:
            original: of a segment, with half a frame more on either side
            decoded: likewise
        """
        missing = (self._levels(original) - self._levels(decoded)) / self.layout.step_db
        starts = np.arange(0, len(missing), self.layout.frames)
        lengths = np.diff(np.append(starts, len(missing)))[:, None]
        return np.asarray((np.add.reduceat(missing, starts) / lengths).T)

    def _levels(self, wav: Wav) -> NDArray[np.float64]:
        """`[T]` to `[F, B]` in dB."""
        return np.asarray(10 * np.log10(np.square(np.abs(np.fft.rfft(self.frames(wav)))) @ self._means + FLOOR))

    def shaped(self, wavs: Wav, gains: NDArray[np.floating[Any]]) -> Wav:
        """Frames with other levels, under a second window: `[S, T]` and gains in dB `[B, F]` to `[S, F, 2 hop]`."""
        factors = np.pad(10 ** (gains.T / 20), ((0, 0), (1, 0)), constant_values=1).astype(np.float32)
        spectra = np.fft.rfft(self.frames(wavs)) * factors[:, self._band_of_bin]
        return np.asarray(np.fft.irfft(spectra, n=2 * self.hop_length) * self._window, dtype=np.float32)

    def frames(self, wavs: Wav) -> Wav:
        """Frames of two hops under the window: `[..., T]` to `[..., F, 2 hop]`."""
        windows = np.lib.stride_tricks.sliding_window_view(wavs, 2 * self.hop_length, axis=-1)
        return np.asarray(windows[..., :: self.hop_length, :] * self._window, dtype=np.float32)


class StreamShaper:
    """Changes levels of bands as audio arrives; what comes out is a frame and a half late until `finish`.

    Args:
        bands: of the model
        num_stems: S
        share: of the gains, from 0 to 1
    """

    def __init__(self, bands: Bands, num_stems: int, share: float) -> None:
        hop = bands.hop_length
        self._bands, self._decibels = bands, share * bands.layout.step_db
        # A frame before the first one and a frame behind the last one complete the overlap.
        self._skip = hop + hop // 2
        self._wavs = np.zeros((num_stems, self._skip), dtype=np.float32)
        self._tail = np.zeros((num_stems, hop), dtype=np.float32)
        self._gains: Gains | None = None
        self._missing = 0  # samples that came in and have not gone out

    def push(self, wavs: Wav, gains: Gains) -> Wav:
        """Audio `[S, F * hop]` and gains of its frames `[B, F]`, in steps, to as much `[S, T]` as is complete."""
        self._missing += wavs.shape[-1]
        self._wavs = np.concatenate([self._wavs, wavs], axis=-1)
        self._gains = np.concatenate([gains[:, :1] if self._gains is None else self._gains, gains], axis=-1)
        return self._pull()

    def finish(self) -> Wav:
        """The rest."""
        if self._gains is None:
            return self._wavs[:, :0]
        hop = self._bands.hop_length
        self._wavs = np.pad(self._wavs, ((0, 0), (0, 2 * hop - hop // 2)))
        self._gains = np.concatenate([self._gains, self._gains[:, -1:]], axis=-1)
        return self._pull()[:, : self._missing]

    def _pull(self) -> Wav:
        assert self._gains is not None
        hop = self._bands.hop_length
        count = self._wavs.shape[-1] // hop - 1
        frames = self._bands.shaped(self._wavs[:, : (count + 1) * hop], self._decibels * self._gains[:, :count])
        first = np.concatenate([self._tail[:, None], frames[:, :-1, hop:]], axis=1)
        out = (frames[..., :hop] + first).reshape(len(frames), -1)
        self._tail = frames[:, -1, hop:].copy()
        self._wavs, self._gains = self._wavs[:, count * hop :].copy(), self._gains[:, count:]
        begin = min(self._skip, out.shape[-1])
        self._skip -= begin
        self._missing -= out.shape[-1] - begin
        complete: Wav = out[:, begin:]
        return complete


def choose_gains(wanted: NDArray[np.float64], max_bits: float) -> Gains | None:
    """Gains that are close to those that are wanted, and cheap.

    One after the other, in the order in which they are coded, each is the one with the least sum of its squared error
    and the price of its bits. The price goes up until all of them fit; whether they are worth it is asked at the first.

    Args:
        wanted: in steps, `[B, n]`
        max_bits: what they may take with their place in a file

    Returns:
        `[B, n]`, or None where doing without them is better
    """
    columns = np.clip(wanted, LOWEST_GAIN - 0.5, LOWEST_GAIN + NUM_GAINS - 0.5).T.tolist()
    nothing, price = np.square(columns).sum(), PRICE
    while price < DEAREST:
        gains, error, bits = _chosen(columns, price)
        bits += UNIT_BITS
        if error + PRICE * bits >= nothing:
            return None
        if bits <= max_bits:
            return np.array(gains, dtype=np.int64).T + LOWEST_GAIN
        price *= 1.5
    return None


def _chosen(columns: Sequence[Sequence[float]], price: float) -> tuple[list[list[int]], float, float]:
    """Gains of columns, from 0, with their squared error and their bits."""
    costs, gains = _costs(), []
    total_error = total_bits = 0.0
    before = None
    for column in columns:
        chosen: list[int] = []
        for band, value in enumerate(column):
            cost = costs[context(band, len(column), before, chosen)]
            place = value - LOWEST_GAIN
            nearest = round(place)
            _, best = min(
                ((place - gain) ** 2 + price * cost[gain], gain)
                for gain in range(max(0, nearest - 2), min(NUM_GAINS, nearest + 3))
            )
            chosen.append(best)
            total_error += (place - best) ** 2
            total_bits += cost[best]
        gains.append(chosen)
        before = chosen
    return gains, total_error, total_bits


@functools.cache
def _costs() -> list[list[float]]:
    """Bits of every gain in every context."""
    return [[PRECISION - math.log2(frequency) for frequency in row] for row in frequencies()]
