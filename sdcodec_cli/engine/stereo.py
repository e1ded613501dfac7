"""Stereo beside the codes of one signal: where each domain stands between left and right.

What is coded is the mid signal M, half the sum of left and right. The place of a domain is, in a few bands and every
tenth of a second, by how many dB its left is louder than its right, and how little both have in common. A decoder
makes a side signal S of its stem, which gives left M + S and right M − S. So left and right always have the mid signal
as their mean: whoever mixes them down has what a decoder without stereo has. This is parametric stereo (Faller and
Baumgarte, "Binaural Cue Coding, Part II", IEEE Transactions on Speech and Audio Processing 11(6), 2003; Breebaart et
al., "Parametric Coding of Stereo Audio", EURASIP 2005), for each domain by itself.

An encoder has mid and side of the mixture and the decoded stems of its mid signal. It takes both signals of a domain
for Gaussian, with the stem's power in every bin, and finds their covariances in each band by expectation and
maximization (Duong, Vincent and Gribonval, "Under-Determined Reverberant Audio Source Separation Using a Full-Rank
Spatial Covariance Model", IEEE Transactions on Audio, Speech, and Language Processing 18(7), 2010), drawn towards
those of the whole segment.

Legend: S stems, T samples, F frames, K bins, B bands, n columns of places.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..audio import Wav
from ..audio.bands import erb_edges
from ..bitstream import GainLayout
from ..bitstream.codings import MAX_WIDTH, STEREO_GAINS
from ..bitstream.limits import MAX_GAIN_FRAMES
from .cascade import Decoder, Encoder
from .envelope import UNIT_BITS, Gains, choose_gains, sine_window, spectra_of
from .stream import CodedSegment

NUM_STEREO_BANDS, HIGHEST = 8, 8000.0
"""Bands of places: so many would lie below this frequency in Hz."""

STEP_DB = 3.0
"""Of a level difference."""

SECONDS = 0.1
"""Each place is for about so long."""

LOWEST = 50.0
"""What lies below, in Hz, does not count: nobody hears where that is, and offsets of channels are there."""

BITRATE = 0.3
"""Of the places of a domain, in kbit/s, at most: where they would take more, they are chosen less closely."""

PRICE = 0.05
"""Of a bit, in squared steps of error; four times as much halves the bits, for 0.2 dB more of level difference."""

ITERATIONS = 10
"""Of expectation and maximization."""

STEADINESS = 1.0
"""How much what the whole segment says counts beside what the time of a place says by itself."""

AUDIBLE_DB, FAINT_DB = 20.0, 50.0
"""Places of bands that are so far below the loudest one of a stem in a segment still count fully, or no more."""

SIGN_BANDS = 33
"""In so many bands below `HIGHEST` the part that both sides do not have in common has one sign, then the other."""


@functools.cache
def stereo_layout_for(sample_rate: int, hop_length: int, band: float) -> GainLayout:
    """Bands and times of the places of domains.

    Args:
        sample_rate: of the model, in Hz
        hop_length: samples per frame, at that rate
        band: up to which frequency they are measured, in Hz; the last place is that of all above, too
    """
    inner = [round(edge) for edge in erb_edges(NUM_STEREO_BANDS, 0.0, HIGHEST)[1:-1]]
    frames = min(MAX_GAIN_FRAMES, max(1, round(SECONDS * sample_rate / hop_length)))
    edges = (0, *(edge for edge in inner if edge < 0.9 * band), round(band))
    return GainLayout(frames=frames, step_db=STEP_DB, edges=edges)


def side_of(
    differences: NDArray[np.floating[Any]], widths: NDArray[np.floating[Any] | np.integer[Any]]
) -> tuple[NDArray[np.float64], ...]:
    """What a side signal is made of: how much of the mid signal, and of one that has nothing in common with it.

    With powers L, R of both sides and their correlation c, of which the mean has the power 1: L + R + 2 c √(L R) = 4.

    Args:
        differences: of the levels of left and right, in dB
        widths: from 0, where both are the same but for the level, to `MAX_WIDTH`, where they have nothing in common
    """
    ratio = 10 ** (differences / 10)
    correlation = np.cos(0.5 * np.pi * widths / MAX_WIDTH)
    right = 4 / (1 + ratio + 2 * correlation * np.sqrt(ratio))
    left = ratio * right
    common = (left - right) / 4
    power = (left + right - 2 * correlation * np.sqrt(left * right)) / 4
    return common, np.sqrt(np.maximum(0.0, power - np.square(common)))


def place_of(common: NDArray[np.float64], power: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """Level differences in dB, and widths, of what has a side signal.

    Args:
        common: its product with the mid signal, whose power is 1
        power: its power
    """
    left, right = (np.maximum(1 + power + sign * 2 * common, 1e-6) for sign in (1, -1))
    correlation = np.clip((1 - power) / np.sqrt(left * right), 0, 1)
    return 10 * np.log10(left / right), np.arccos(correlation) * MAX_WIDTH / (0.5 * np.pi)


class Places:
    """Finds where domains stand, under windows of two hops, one for each frame and around its middle.

    Args:
        layout: bands and times of places
        sample_rate: in Hz
        hop_length: samples per frame
    """

    def __init__(self, layout: GainLayout, sample_rate: int, hop_length: int) -> None:
        self.layout = layout
        bins = np.fft.rfftfreq(2 * hop_length, 1 / sample_rate)
        self._band_of_bin = _bands_of(layout, bins)
        heard = bins >= LOWEST
        self._members = ((self._band_of_bin[:, None] == np.arange(layout.num_bands)) & heard[:, None]).astype(
            np.float64
        )
        self._window = sine_window(2 * hop_length)

    def wanted(self, given: Wav, stems: Wav) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Places of stems in steps, level differences above widths, and how much each matters: `[S, 2 B, n]` each.

        Args:
            given: mid and side signal of a segment, half the sum and half the difference of left and right, with half a
                frame more on either side, `[2, T]`
            stems: what the mid signal decodes to, likewise, `[S, T]`
        """
        mids, side = spectra_of(given, self._window).astype(np.complex128)
        powers = np.square(np.abs(spectra_of(stems, self._window))).astype(np.float64) + 1e-9
        weights = self._summed(powers)
        found = self._covariances(mids, side, powers, weights)
        common, power = found[1] / found[0], found[2] / found[0]
        differences, widths = place_of(common, np.maximum(power, np.square(common)))
        loudest = weights.max(axis=(1, 2), keepdims=True)
        below = 10 * np.log10(loudest / weights)
        matters = np.clip((FAINT_DB - below) / (FAINT_DB - AUDIBLE_DB), 0, 1)
        return (
            np.concatenate([differences / self.layout.step_db, widths], axis=-1).swapaxes(1, 2),
            np.concatenate([matters, matters], axis=-1).swapaxes(1, 2),
        )

    def _covariances(
        self,
        mids: NDArray[np.complex128],
        sides: NDArray[np.complex128],
        powers: NDArray[np.float64],
        weights: NDArray[np.float64],
    ) -> list[NDArray[np.float64]]:
        """Of mid and side of each stem, relative to its power: of mid, of both, of side, `[S, n, B]` each."""
        shares = powers / powers.sum(0)
        if len(powers) == 1:
            return [self._summed(each) / weights for each in _products(mids, sides)]

        def steadied(values: NDArray[np.float64]) -> NDArray[np.float64]:
            sums = self._summed(values)
            throughout = weights * sums.sum(1, keepdims=True) / weights.sum(1, keepdims=True)
            return np.asarray((sums + STEADINESS * throughout) / ((1 + STEADINESS) * weights))

        # At first each stem has its share of what is there, as a ratio mask would give it.
        found = [steadied(np.square(shares) * each) for each in _products(mids, sides)]
        for _ in range(ITERATIONS):
            mid, both, side = (powers * self._spread(each, len(mids)) for each in found)
            all_mid, all_both, all_side = mid.sum(0), both.sum(0), side.sum(0) + 1e-9
            determinant = np.maximum(all_mid * all_side - np.square(all_both), 1e-6 * all_mid * all_side)
            # A Wiener filter: what mid and side of the mixture are multiplied by to give those of a stem.
            mid_of_mid = (mid * all_side - both * all_both) / determinant
            mid_of_side = (both * all_mid - mid * all_both) / determinant
            side_of_mid = (both * all_side - side * all_both) / determinant
            side_of_side = (side * all_mid - both * all_both) / determinant
            estimated = _products(mid_of_mid * mids + mid_of_side * sides, side_of_mid * mids + side_of_side * sides)
            unknown = (
                mid - mid_of_mid * mid - mid_of_side * both,
                both - mid_of_mid * both - mid_of_side * side,
                side - side_of_mid * both - side_of_side * side,
            )
            found = [steadied(one + other) for one, other in zip(estimated, unknown, strict=True)]
        return found

    def _summed(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Over the frames and bins of each place: `[S, F, K]` to `[S, n, B]`."""
        starts = np.arange(0, values.shape[-2], self.layout.frames)
        return np.asarray(np.add.reduceat(values, starts, axis=-2) @ self._members) + 1e-12

    def _spread(self, values: NDArray[np.float64], num_frames: int) -> NDArray[np.float64]:
        """To the frames and bins of each place: `[S, n, B]` to `[S, F, K]`."""
        return values[..., self._band_of_bin].repeat(self.layout.frames, axis=-2)[:, :num_frames]


def _products(mids: NDArray[np.complex128], sides: NDArray[np.complex128]) -> tuple[NDArray[np.float64], ...]:
    """Of mid with itself, with side, and of side with itself."""
    return np.square(np.abs(mids)), (mids * sides.conj()).real, np.square(np.abs(sides))


def _bands_of(layout: GainLayout, bins: NDArray[np.floating[Any]]) -> NDArray[np.int64]:
    """Band of each bin, given by its frequency in Hz; the last one has all above."""
    return np.searchsorted(np.array(layout.edges[1:-1]), bins, side="right")


class StereoEncoder:
    """Codes of a mid signal, and where the domains in it stand, as audio arrives.

    Args:
        encoder: of the mid signal
        decoder: of the same model, which gives the stems of `domains` in their order, at the first of its rates
        domains: names
        stems: of each stream, the domain whose audio it adds to
        layout: bands and times of places
    """

    def __init__(
        self, encoder: Encoder, decoder: Decoder, domains: Sequence[str], stems: Mapping[str, str], layout: GainLayout
    ) -> None:
        self.rates = encoder.rates
        """Of the audio that `push` takes, in Hz."""
        self._encoder, self._decoder, self._domains, self._stems = encoder, decoder, domains, stems
        self._hop = decoder.hop_length
        self._places = Places(layout, encoder.rates[0], self._hop)
        self._waiting: list[CodedSegment] = []
        # Both begin half a frame before the first segment that waits.
        self._given = np.zeros((2, self._hop // 2), dtype=np.float32)
        self._decoded = np.zeros((len(domains), self._hop // 2), dtype=np.float32)

    def push(self, *wavs: Wav) -> list[CodedSegment]:
        """Take mid and side `[2, T]` in, at each of its rates; give out the segments that are complete."""
        self._given = np.concatenate([self._given, wavs[0]], axis=-1)
        return self._next(self._encoder.push(*(wav[0] for wav in wavs)), last=False)

    def finish(self) -> list[CodedSegment]:
        """Give out the rest."""
        return self._next(self._encoder.finish(), last=True)

    def _next(self, segments: Sequence[CodedSegment], *, last: bool) -> list[CodedSegment]:
        pieces = [wav for each in segments for wav in self._decoder.push(each.stored, each.num_frames)]
        pieces += self._decoder.finish() if last else []
        self._waiting += segments
        self._decoded = np.concatenate([self._decoded, *pieces], axis=-1)
        if last:
            self._decoded = np.pad(self._decoded, ((0, 0), (0, self._hop)))
            missing = max(0, self._decoded.shape[-1] - self._given.shape[-1])
            self._given = np.pad(self._given, ((0, 0), (0, missing)))
        complete = []
        while self._waiting:
            length = self._waiting[0].num_frames * self._hop
            needed = length + self._hop
            if min(self._decoded.shape[-1], self._given.shape[-1]) < needed:
                break
            complete.append(self._placed(self._waiting.pop(0), self._given[:, :needed], self._decoded[:, :needed]))
            self._given, self._decoded = self._given[:, length:], self._decoded[:, length:]
        return complete

    def _placed(self, segment: CodedSegment, given: Wav, decoded: Wav) -> CodedSegment:
        heard = {self._stems[name] for name, found in segment.active.items() if found}
        active = [index for index, domain in enumerate(self._domains) if domain in heard]
        if not active:
            return segment
        seconds = segment.num_frames * self._hop / self.rates[0]
        found = {}
        for index, wanted, weights in zip(active, *self._places.wanted(given, decoded[active]), strict=True):
            places = choose_gains(wanted, 1000 * BITRATE * seconds + UNIT_BITS, STEREO_GAINS, weights, PRICE)
            if places is not None:
                found[self._domains[index]] = places
        return replace(segment, places=found)


class StreamPlacer:
    """Puts stems where they stand, as audio arrives; what comes out is a frame and a half late.

    A sum goes bin by bin where the stems stand that it consists of, each as much as its power says. That keeps the mix
    of all domains what the network makes of them together, which is closer to the audio than the sum of its stems.

    Args:
        layout: bands and times of places
        hop_length: samples per frame, at the rate of the audio
        frame_rate: frames per second
        names: of what comes in, in its order
        held: the stems that each consists of, if it is not one of them; those of a sum are among `names`
    """

    def __init__(
        self,
        layout: GainLayout,
        hop_length: int,
        frame_rate: float,
        names: Sequence[str],
        held: Mapping[str, Sequence[str]],
    ) -> None:
        hop = self._hop = hop_length
        self._step_db = layout.step_db
        parts = [held.get(name, (name,)) for name in names]
        self._domains = list(dict.fromkeys(part for of_one in parts for part in of_one))
        self._parts = [[self._domains.index(part) for part in of_one] for of_one in parts]
        self._rows = [names.index(domain) if domain in names else -1 for domain in self._domains]
        """Of each domain, where its stem is; a domain that is alone in a sum needs none."""
        bins = np.arange(hop + 1) * frame_rate / 2
        self._band_of_bin = _bands_of(layout, bins)
        edges = erb_edges(SIGN_BANDS, 0.0, HIGHEST)
        odd = np.searchsorted(edges[1:], bins, side="right") % 2
        self._turn = np.where(odd, -1j, 1j).astype(np.complex64)
        """Of what both sides do not have in common: a quarter of a period ahead, or behind."""
        self._window = sine_window(2 * hop)
        # A frame before the first one and a frame behind the last one complete the overlap.
        self._skip = hop + hop // 2
        self._wavs = np.zeros((len(names), hop + hop // 2), dtype=np.float32)
        self._tail = np.zeros((len(names), hop), dtype=np.float32)
        self._places = np.zeros((len(self._domains), 2 * layout.num_bands, 1), dtype=np.int64)
        self._begun = False
        self._mid = np.zeros((len(names), 0), dtype=np.float32)

    def push_places(self, num_frames: int, places: Mapping[str, Gains]) -> None:
        """Take places of frames in, before the audio of these frames.

        Args:
            num_frames: F
            places: in steps, of each domain that is not in the middle, `[2 B, F]`
        """
        nothing = np.full((self._places.shape[1], num_frames), STEREO_GAINS.absent)
        new = np.stack([places.get(domain, nothing) for domain in self._domains])
        before = self._places if self._begun else new[..., :1]
        self._places = np.concatenate([before, new], axis=-1)
        self._begun = True

    def push(self, wavs: Wav) -> Wav:
        """Audio `[S, F * hop]` to left and right of as much as is complete, `[S, 2, T]`."""
        self._mid = np.concatenate([self._mid, wavs], axis=-1)
        self._wavs = np.concatenate([self._wavs, wavs], axis=-1)
        return self._pull()

    def finish(self) -> Wav:
        """The rest."""
        self._wavs = np.pad(self._wavs, ((0, 0), (0, 2 * self._hop - self._hop // 2)))
        self._places = np.concatenate([self._places, self._places[..., -1:]], axis=-1)
        return self._pull()

    def _pull(self) -> Wav:
        hop = self._hop
        count = self._wavs.shape[-1] // hop - 1
        if count < 1:
            return np.zeros((len(self._wavs), 2, 0), dtype=np.float32)
        spectra = spectra_of(self._wavs[:, : (count + 1) * hop], self._window)
        of_domains = self._factors(self._places[..., :count])
        factors = np.stack([self._factor(parts, of_domains, spectra) for parts in self._parts])
        frames = np.asarray(np.fft.irfft(spectra * factors, n=2 * hop) * self._window, dtype=np.float32)
        first = np.concatenate([self._tail[:, None], frames[:, :-1, hop:]], axis=1)
        side = (frames[..., :hop] + first).reshape(len(frames), -1)
        self._tail = frames[:, -1, hop:].copy()
        self._wavs, self._places = self._wavs[:, count * hop :].copy(), self._places[..., count:]
        begin = min(self._skip, side.shape[-1])
        self._skip -= begin
        length = min(side.shape[-1] - begin, self._mid.shape[-1])
        mid, side = self._mid[:, :length], side[:, begin : begin + length]
        self._mid = self._mid[:, length:].copy()
        return np.stack([mid + side, mid - side], axis=1)

    def _factor(
        self, parts: Sequence[int], of_domains: NDArray[np.complex64], spectra: NDArray[np.complex64]
    ) -> NDArray[np.complex64]:
        """Of each bin of one output, `[F, K]`."""
        if len(parts) == 1:
            return np.asarray(of_domains[parts[0]])
        powers = np.square(np.abs(spectra[[self._rows[part] for part in parts]]))
        shares = powers / np.maximum(powers.sum(0), 1e-20)
        return np.asarray((shares * of_domains[parts]).sum(0))

    def _factors(self, places: NDArray[np.int64]) -> NDArray[np.complex64]:
        """Of each bin, from places of domains: `[D, 2 B, F]` to `[D, F, K]`."""
        half = places.shape[1] // 2
        common, other = (
            each.astype(np.float32)[:, self._band_of_bin].swapaxes(1, 2)
            for each in side_of(self._step_db * places[:, :half], places[:, half:])
        )
        return np.asarray(common + self._turn * other, dtype=np.complex64)
