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
from ..bitstream import GainLayout
from ..bitstream.codings import ENVELOPE_GAINS, PRECISION, GainKind
from ..bitstream.limits import MAX_GAIN_FRAMES

PRICE = 0.2
"""Of a bit, in squared steps of error; half of it takes a fifth more bits, for 0.08 dB less spread of levels."""

DEAREST = 20.0
"""Price at which gains are given up that still take too many bits."""

UNIT_BITS = 8 * 16
"""Of a file for each segment's envelope, besides its gains."""

BITRATE, FINE_BITRATE = 0.6, 2.2
"""Of the envelope of a channel, and of a fine one, in kbit/s, at most: where gains would take more, they are chosen
less closely."""

Gains = NDArray[np.int64]
"""Of bands over time `[B, n]`, in steps."""

AnyGains = Gains | NDArray[np.float64]
"""The same, where nothing stores them and they need not be whole."""


@functools.cache
def layout_for(sample_rate: int, hop_length: int, *, fine: bool = False, multiple: int = 1) -> GainLayout:
    """Bands and times of the gains that are computed for a model, each for a multiple of so many frames."""
    frames = min(frames_per_gain(sample_rate, hop_length, fine=fine), MAX_GAIN_FRAMES)
    frames = max(1, frames // multiple) * multiple
    return GainLayout(frames=frames, step_db=STEP_DB, edges=envelope_edges(sample_rate, fine=fine))


def envelope_bitrate(*, envelope: bool, fine: bool) -> float:
    """What is set aside for the envelope of a channel, in kbit/s."""
    return (FINE_BITRATE if fine else BITRATE) if envelope else 0.0


def sine_window(length: int) -> Wav:
    """Squared and overlapped by half, it adds up to one: `[length]`."""
    return np.sin(np.pi * (np.arange(length) + 0.5) / length).astype(np.float32)


def spectra_of(wavs: Wav, window: Wav) -> NDArray[np.complex64]:
    """Of frames that overlap by half: `[..., T]` to `[..., F, K]`."""
    frames = np.lib.stride_tricks.sliding_window_view(wavs, len(window), axis=-1)[..., :: len(window) // 2, :]
    return np.asarray(np.fft.rfft(frames * window))


def levels_of(spectra: NDArray[np.complex64], means: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """In dB: `[F, K]` and what takes powers of bins to those of bands `[K, B]`, to `[F, B]`."""
    return np.asarray(10 * np.log10(np.square(np.abs(spectra)) @ means + FLOOR))


def averaged(values: NDArray[np.floating[Any]], frames: int) -> NDArray[np.float64]:
    """Means over so many frames, the last ones over what is left: `[F, B]` to `[B, n]`."""
    starts = np.arange(0, len(values), frames)
    lengths = np.diff(np.append(starts, len(values)))[:, None]
    return np.asarray((np.add.reduceat(values, starts) / lengths).T)


class Bands:
    """Measures and changes levels of bands, under windows of two hops, one for each frame and around its middle.

    Args:
        layout: bands and times of gains
        sample_rate: in Hz
        hop_length: samples per frame
    """

    def __init__(self, layout: GainLayout, sample_rate: int, hop_length: int) -> None:
        self.layout = layout
        bins = np.fft.rfftfreq(2 * hop_length, 1 / sample_rate)
        self._band_of_bin = np.searchsorted(np.array(layout.edges[:-1]), bins, side="right")
        """Band of each bin, from 1; 0 below all of them."""
        # A band so narrow that it has no bin is always silent, and its gain zero.
        self._means = band_bank(layout.edges, 2 * hop_length, sample_rate) / hop_length
        self._window = sine_window(2 * hop_length)

    def wanted(self, original: Wav, decoded: Wav) -> NDArray[np.float64]:
        """Gains that would bring decoded audio to the levels of the original, in steps: two `[T]` to `[B, n]`.

        Args:
            original: of a segment, with half a frame more on either side
            decoded: likewise
        """
        theirs, ours = (levels_of(spectra_of(wav, self._window), self._means) for wav in (original, decoded))
        return averaged((theirs - ours) / self.layout.step_db, self.layout.frames)

    def factors(self, gains: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Of each bin, from gains in dB of bands: `[B, F]` to `[F, K]`."""
        factors = np.pad(10 ** (gains.T / 20), ((0, 0), (1, 0)), constant_values=1).astype(np.float32)
        return factors[:, self._band_of_bin]


def choose_gains(
    wanted: NDArray[np.float64],
    max_bits: float,
    kind: GainKind = ENVELOPE_GAINS,
    weights: NDArray[np.float64] | None = None,
    price: float = PRICE,
) -> Gains | None:
    """Gains that are close to those that are wanted, and cheap.

    One after the other, in the order in which they are coded, each is the one with the least sum of its squared error
    and the price of its bits. The price goes up until all of them fit; whether they are worth it is asked at the first.

    Args:
        wanted: in steps, `[B, n]`
        max_bits: what they may take with their place in a file
        kind: which values they can have
        weights: how much the error of each counts, `[B, n]`; by default all by 1
        price: of a bit, in squared steps of error, to begin with

    Returns:
        `[B, n]`, or None where doing without them is better
    """
    columns = np.clip(wanted - kind.lowest, -0.5, kind.count - 0.5).T.tolist()
    counts = np.ones_like(wanted) if weights is None else weights
    nothing, first_price = (counts.T * np.square(np.array(columns) - (kind.absent - kind.lowest))).sum(), price
    while price < DEAREST:
        gains, error, bits = _chosen(columns, counts.T.tolist(), price, kind)
        bits += UNIT_BITS
        if error + first_price * bits >= nothing:
            return None
        if bits <= max_bits:
            return np.array(gains, dtype=np.int64).T + kind.lowest
        price *= 1.5
    return None


def _chosen(
    columns: Sequence[Sequence[float]], weights: Sequence[Sequence[float]], price: float, kind: GainKind
) -> tuple[list[list[int]], float, float]:
    """Gains of columns, all from 0, with their squared error and their bits."""
    costs, gains = _costs(kind), []
    total_error = total_bits = 0.0
    before = None
    for column, counts in zip(columns, weights, strict=True):
        chosen: list[int] = []
        for band, (place, count) in enumerate(zip(column, counts, strict=True)):
            cost = costs[kind.context(band, len(column), before, chosen)]
            nearest = round(place)
            reach = 2 if count == 1 else kind.count  # what does not count may be anything that costs little
            _, best = min(
                (count * (place - gain) ** 2 + price * cost[gain], gain)
                for gain in range(max(0, nearest - reach), min(kind.count, nearest + reach + 1))
            )
            chosen.append(best)
            total_error += count * (place - best) ** 2
            total_bits += cost[best]
        gains.append(chosen)
        before = chosen
    return gains, total_error, total_bits


@functools.cache
def _costs(kind: GainKind) -> list[list[float]]:
    """Bits of every gain in every context; those that it cannot have there are endless."""
    return [
        [PRECISION - math.log2(frequency) if frequency else math.inf for frequency in row] for row in kind.frequencies
    ]
