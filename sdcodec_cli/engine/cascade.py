"""Encoding and decoding with codecs at rising rates, one after the other, as audio arrives and in constant memory.

The first one codes the audio at its rate. Each further one codes what the sum of those before it, as it will be decoded
and brought to its own rate, lacks of the audio, or only what is above the band of the one before; outputs add up.

Legend: T samples, F frames, S stems.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from ..audio import Wav
from ..audio.sinc import StreamSinc
from ..runtime.model import CascadeModel, Codes
from .above import Above
from .envelope import Bands, Gains, sine_window
from .stream import FILES, CodedSegment, Grid, StreamDecoder
from .stream_encoder import StreamEncoder


class CascadeEncoder:
    """Turns one mono signal into codes as it arrives; see `Codec.stream_encoder`.

    Args:
        model: the model
        num_codebooks: how many are stored, of each stage
        known: domains that the audio consists of, or None to find out; above the first stage they are active only
            where there is something to code
        efforts: steps of refinement, of each stage
        envelope: whether segments have one, of the first stage
        fine: whether that is a fine one
        everywhere: whether upper stages code what has nothing above the band of the one before, too
        grid: of the whole model
    """

    def __init__(
        self,
        model: CascadeModel,
        *,
        num_codebooks: Sequence[int],
        known: Sequence[str] | None,
        efforts: Sequence[int],
        envelope: bool,
        fine: bool,
        everywhere: bool = False,
        grid: Grid = FILES,
    ) -> None:
        self.rates: tuple[int, ...] = tuple(stage.sample_rate for stage in model.stages)
        """Of the audio that `push` takes, in Hz."""
        encoders = [
            StreamEncoder(
                stage,
                num_codebooks=count,
                known=None if known is None else [stream.name for stream in stage.streams if stream.stem in known],
                effort=effort,
                envelope=envelope and stage is model.stages[0],
                fine=fine,
                treble=False,
                pauses=stage is not model.stages[0],
                grid=grid,
                unit=frames,
            )
            for stage, count, effort, frames in zip(model.stages, num_codebooks, efforts, model.frames, strict=True)
        ]
        self._model, self._first = model, encoders[0]
        self._decoder = _decoder(model, 0, grid)
        self._upper = [
            _Stage(model, number, encoder, grid, everywhere=everywhere)
            for number, encoder in enumerate(encoders)
            if number
        ]
        self._waiting: list[list[CodedSegment]] = [[] for _ in model.stages]

    def push(self, wav: Wav, *wider: Wav) -> list[CodedSegment]:
        """Take samples `[T]` in, give out the segments that are complete.

        Args:
            wav: at the first stage's rate
            wider: of the same audio, at each further rate, as much as there is; it may be behind or ahead
        """
        return self._next(self._first.push(wav), wider, last=False)

    def finish(self) -> list[CodedSegment]:
        """Give out the rest; of a very short signal, more frames than it has."""
        return self._next(self._first.finish(), [self._silence] * len(self._upper), last=True)

    def _next(self, segments: list[CodedSegment], wider: Sequence[Wav], *, last: bool) -> list[CodedSegment]:
        """What the stages above make of new segments of the first one, together with them."""
        self._waiting[0] += segments
        below = _decoded(self._decoder, segments, last=last)[0]
        frames = sum(segment.num_frames for segment in segments) // self._model.frames[0]
        for number, (stage, wav) in enumerate(zip(self._upper, wider, strict=True), start=1):
            found, below = stage.push(wav, below, frames, last=last)
            self._waiting[number] += found
        complete = min(len(waiting) for waiting in self._waiting)
        together = zip(*(waiting[:complete] for waiting in self._waiting), strict=True)
        self._waiting = [waiting[complete:] for waiting in self._waiting]
        return [_joined(stages, self._model.frames) for stages in together]

    @property
    def _silence(self) -> Wav:
        return np.zeros(0, dtype=np.float32)


def _joined(stages: Sequence[CodedSegment], frames: Sequence[int]) -> CodedSegment:
    """One segment of all stages."""
    num_frames = {segment.num_frames // count for segment, count in zip(stages, frames, strict=True)}
    assert len(num_frames) == 1
    codes = {name: codes for segment in stages for name, codes in segment.codes.items()}
    active = {name: found for segment in stages for name, found in segment.active.items()}
    return CodedSegment(num_frames.pop(), codes, active, gains=stages[0].gains)


def _decoder(model: CascadeModel, number: int, grid: Grid) -> StreamDecoder | None:
    """What decodes a stage while encoding, where what one above it is given depends on that."""
    if "whole" not in model.residuals[number + 1 :]:
        return None
    return StreamDecoder(model.stages[number], ["mix"], texture=False, grid=grid, unit=model.frames[number])


def _decoded(decoder: StreamDecoder | None, segments: Sequence[CodedSegment], *, last: bool) -> Wav:
    """The mix of segments as far as it is complete, `[1, T]`."""
    pieces = [np.zeros((1, 0), dtype=np.float32)]
    if decoder is not None:
        pieces += [wav for segment in segments for wav in decoder.push(segment.stored, segment.num_frames)]
        pieces += decoder.finish() if last else []
    return np.concatenate(pieces, axis=-1)


class _Resampler:
    """Changes rates of a mono signal that arrives in blocks, from the first of several to the last."""

    def __init__(self, *rates: int) -> None:
        self._sincs = [StreamSinc(old, new, 1) for old, new in itertools.pairwise(rates)]

    def push(self, wav: Wav, *, last: bool) -> Wav:
        """Take `[T]`, give out what is ready, and with the last of it the rest."""
        found: Wav = wav[None]
        for sinc in self._sincs:
            found = sinc.push(found)
            found = np.concatenate([found, sinc.flush()], axis=-1) if last else found
        mono: Wav = found[0]
        return mono


class _Stage:
    """A stage above the first: codes what the sum of those before it lacks, or what the audio has above their band."""

    def __init__(
        self, model: CascadeModel, number: int, encoder: StreamEncoder, grid: Grid, *, everywhere: bool
    ) -> None:
        self._everywhere = everywhere
        before, stage = model.stages[number - 1], model.stages[number]
        self._encoder = encoder
        self._lift = _Resampler(before.sample_rate, stage.sample_rate)
        self._lower: _Resampler | None = None  # takes the audio to the rate of the one before and back
        if model.residuals[number] == "above":
            self._lower = _Resampler(stage.sample_rate, before.sample_rate, stage.sample_rate)
        self._decoder = _decoder(model, number, grid)
        self._frame = model.frames[number] * stage.hop_length  # samples
        self._length = grid.segment_frames * self._frame
        self._promised = 0  # samples that the frames of the first stage stand for, less those that were encoded
        self._window_length = 2 * stage.hop_length
        self._above = Above(before.sample_rate / 2, stage.sample_rate, sine_window(self._window_length))
        self._before = np.zeros(0, dtype=np.float32)  # the end of the segment that was looked at last
        self._given = self._under = np.zeros(0, dtype=np.float32)  # of the segment that comes next
        self._sums = [np.zeros((1, 0), dtype=np.float32)] * 2  # what is below, and what is added to it

    def push(self, wav: Wav, below: Wav, frames: int, *, last: bool) -> tuple[list[CodedSegment], Wav]:
        """Give out segments, and the sum with those before, where another stage wants that.

        Args:
            wav: audio at the stage's rate, `[T]`
            below: the sum of the stages before, at the rate of the last of them
            frames: of the whole model, that the first stage has come further
            last: whether nothing follows
        """
        lifted = self._lift.push(below, last=last)
        under = lifted if self._lower is None else self._lower.push(wav, last=last)
        self._given, self._under = np.concatenate([self._given, wav]), np.concatenate([self._under, under])
        self._promised += frames * self._frame
        heard = len(self._given)
        if last:  # nothing is lacking beyond the end
            self._under = np.pad(self._under, (0, max(0, self._promised - len(self._under))))[: self._promised]
            self._given = np.concatenate([self._given, self._under[len(self._given) :]])
        segments = []
        while min(len(self._given), len(self._under)) >= self._length or (last and len(self._under)):
            given, under = self._given[: self._length], self._under[: self._length]
            self._given, self._under = self._given[self._length :], self._under[self._length :]
            self._promised -= len(under)
            sounds = self._sounds(given[: max(0, heard)])
            heard -= self._length
            segments += self._encoder.push((given[: len(under)] - under) * np.float32(sounds))
        segments += self._encoder.finish() if last else []
        if self._decoder is None:
            return segments, self._under[:0]
        added = _decoded(self._decoder, segments, last=last)
        total, self._sums = summed(self._sums, lifted[None], added)
        return segments, total[0]

    def _sounds(self, wav: Wav) -> bool:
        """Whether a frame of the next segment `[T]` has anything above the band of the stage before."""
        if self._everywhere or not len(wav):
            return self._everywhere
        length = self._window_length
        if len(wav) < length:  # an end that is cut off would sound like a click
            wav = np.concatenate([self._before, wav])[-length:]
            wav = np.pad(wav, (0, length - len(wav)), mode="symmetric")
        self._before = wav[-length:]
        return bool(self._above.found(wav)[0].any())


def summed(waiting: Sequence[Wav], below: Wav, added: Wav) -> tuple[Wav, list[Wav]]:
    """The sum of two signals `[S, T]` as far as both have come, and what is left of each for the next time."""
    signals = [np.concatenate(pair, axis=-1) for pair in zip(waiting, (below, added), strict=True)]
    length = min(signal.shape[-1] for signal in signals)
    total: Wav = signals[0][:, :length] + signals[1][:, :length]
    return total, [signal[:, length:] for signal in signals]


class CascadeDecoder:
    """Turns codes of one mono signal into stems as they arrive; see `Codec.stream_decoder`.

    Args:
        model: the model
        stems: names, of sums too (see `stems`), or `mix`
        num_stages: how many are decoded, from the first on
        envelope: of the first, see `StreamDecoder`
        share: how much of that is applied
        texture: whether stages get theirs, see `StreamDecoder`
        grid: of the whole model
    """

    def __init__(
        self,
        model: CascadeModel,
        stems: Sequence[str],
        *,
        num_stages: int,
        envelope: Bands | None = None,
        share: float = 0.0,
        texture: bool = True,
        grid: Grid = FILES,
    ) -> None:
        stages, self._frames = model.stages[:num_stages], model.frames[:num_stages]
        self.hop_length: int = stages[-1].hop_length * self._frames[-1]
        """Samples that come out for each frame of the whole model."""
        self._decoders = [
            StreamDecoder(
                stage,
                stems,
                envelope=envelope if number == 0 else None,
                share=share,
                # What a stage adds to the whole of what is lacking was made for the networks' audio.
                texture=texture and "whole" not in model.residuals[number + 1 : num_stages],
                grid=grid,
                unit=frames,
            )
            for number, (stage, frames) in enumerate(zip(stages, self._frames, strict=True))
        ]
        rates = [stage.sample_rate for stage in stages]
        self._sincs = [StreamSinc(low, high, len(stems)) for low, high in itertools.pairwise(rates)]
        self._nothing = np.zeros((len(stems), 0), dtype=np.float32)
        self._sums = [[self._nothing] * 2 for _ in self._sincs]

    def push(
        self,
        codes: Mapping[str, Codes | None],
        num_frames: int,
        gains: Gains | None = None,
        treble: Gains | None = None,
    ) -> list[Wav]:
        """Take `num_frames` frames of the whole model in, give out audio `[S, T]` that is complete.

        Args:
            codes: `[K, F]` of each stream; None or left out where it is not active
            num_frames: F
            gains: of the envelope, of each frame
            treble: always None: stages have something above instead
        """
        gains = None if gains is None else gains.repeat(self._frames[0], axis=-1)
        pieces = [
            decoder.push(codes, frames * num_frames, None if number else gains)
            for number, (decoder, frames) in enumerate(zip(self._decoders, self._frames, strict=True))
        ]
        return self._added(pieces, last=False)

    def finish(self) -> list[Wav]:
        """Give out the rest."""
        return self._added([decoder.finish() for decoder in self._decoders], last=True)

    def _added(self, pieces: Sequence[Sequence[Wav]], *, last: bool) -> list[Wav]:
        total, *others = (np.concatenate([self._nothing, *each], axis=-1) for each in pieces)
        for number, added in enumerate(others):
            sinc = self._sincs[number]
            lifted = sinc.push(total)
            lifted = np.concatenate([lifted, sinc.flush()], axis=-1) if last else lifted
            total, self._sums[number] = summed(self._sums[number], lifted, added)
        return [total] if total.shape[-1] else []


Encoder = StreamEncoder | CascadeEncoder
Decoder = StreamDecoder | CascadeDecoder
