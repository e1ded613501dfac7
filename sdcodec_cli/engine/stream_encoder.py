"""Encoding of one signal as it arrives, in constant memory; `stream` says how.

Legend: T samples, F frames, N streams, K codebooks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..audio import SILENCE, Wav
from ..bitstream.codings import TREBLE_GAINS
from ..runtime.model import NOTHING, Analysis, CodecModel, Codes
from . import treble as above
from .envelope import BITRATE, FINE_BITRATE, Bands, choose_gains, layout_for
from .refine import refine
from .stream import FILES, CodedSegment, Grid, StreamDecoder, joined

SHORTEST_FRAMES = 8
"""Shorter signals are continued by their mirror image to this length before they are encoded: of one or two frames,
which training has none of, the network makes something 14 to 18 dB too quiet. Decoding cuts off what was added."""

ACTIVITY_FRAMES = 11
"""Frames over which the activity that the network finds is averaged, so that a single frame does not decide."""


class StreamEncoder:
    """Turns one mono signal into codes as it arrives; see `Codec.stream_encoder`.

    Args:
        model: the model
        num_codebooks: how many are stored
        known: streams that the audio consists of, or None to find out
        pauses: whether streams that are known are still not active where there is silence
        effort: steps of refinement
        envelope: whether segments have one
        fine: whether that is a fine one
        treble: whether segments say what lies above the model's band
        grid: that of the whole model
        unit: frames of this model in one of the whole
    """

    def __init__(
        self,
        model: CodecModel,
        *,
        num_codebooks: int,
        known: Sequence[str] | None,
        effort: int,
        envelope: bool,
        fine: bool,
        treble: bool,
        pauses: bool = False,
        grid: Grid = FILES,
        unit: int = 1,
    ) -> None:
        self.rates: tuple[int, ...] = (model.sample_rate, *([above.FACTOR * model.sample_rate] if treble else []))
        """Of the audio that `push` takes, in Hz."""
        self._segment = grid.segment_frames * unit
        self._block, self._unit = grid.block_segments * self._segment, unit
        sees = model.analysis_context
        self._ahead = sees if grid.ahead is None else min(grid.ahead * unit, sees)
        self._levels = None
        if envelope or treble:
            self._levels = Levels(model, envelope=envelope, fine=fine, treble=treble, unit=unit, grid=grid)
        self._model, self._num_codebooks, self._effort = model, num_codebooks, effort
        self._known, self._pauses = known, pauses
        self._names = [stream.name for stream in model.streams]
        self._pieces: list[Wav] = []
        self._buffered = 0
        self._start = 0  # frame at which the buffer begins
        self._next = 0  # frame at which the next block begins
        self._past = np.zeros((len(model.streams), model.num_codebooks, 0), dtype=np.int64)

    def push(self, wav: Wav, wide: Wav | None = None) -> list[CodedSegment]:
        """Take samples `[T]` in, give out the segments that are complete.

        Args:
            wav: at the model's rate
            wide: of the same audio at twice that rate as much as there is, for treble; it may be behind or ahead
        """
        if self._levels and wide is not None:
            self._levels.push_wide(wide)
        self._pieces.append(np.asarray(wav, dtype=np.float32))
        self._buffered += len(wav)
        hop, segments = self._model.hop_length, []
        while self._buffered >= (self._next + self._block + self._ahead - self._start) * hop:
            segments += self._encode(self._next + self._block)
        # The caller may use its memory again.
        self._pieces[-1] = self._pieces[-1].copy()
        return segments

    def finish(self) -> list[CodedSegment]:
        """Give out the rest; of a very short signal, more frames than it has."""
        missing = SHORTEST_FRAMES * self._unit * self._model.hop_length - self._buffered
        if self._start == 0 and self._buffered and missing > 0:
            self._pieces = [np.pad(joined(self._pieces), (0, missing), mode="symmetric")]
            self._buffered += missing
        total = self._start + math.ceil(self._buffered / self._model.hop_length)
        if total % self._unit:
            total += self._unit - total % self._unit
            missing = (total - self._start) * self._model.hop_length - self._buffered
            self._pieces = [np.pad(joined(self._pieces), (0, missing))]
        segments = []
        while self._next < total:
            segments += self._encode(min(self._next + self._block, total))
        return [*segments, *self._levels.finish()] if self._levels else segments

    def _encode(self, stop: int) -> list[CodedSegment]:
        hop, start, context = self._model.hop_length, self._next, self._model.analysis_context
        buffer = joined(self._pieces)
        wav = buffer[: (stop + self._ahead - self._start) * hop]
        analysis = self._model.analyse(wav)
        inner = slice(start - self._start, stop - self._start)
        own = buffer[inner.start * hop : inner.stop * hop]
        active = self._active(own, analysis.activity[:, inner])
        if self._effort and active.any():
            codes = self._refined(wav, analysis, inner, active)
        else:
            codes = self._model.quantize(analysis.latent[:, inner])
        codes = codes[:, : self._num_codebooks]
        self._remember(codes, active)
        self._next = stop
        keep = max(self._start, stop - context)
        self._pieces = [buffer[(keep - self._start) * hop :]]
        self._buffered = len(self._pieces[0])
        self._start = keep
        segments = []
        for first in range(0, stop - start, self._segment):
            piece = codes[..., first : first + self._segment]
            segments.append(
                CodedSegment(
                    num_frames=piece.shape[-1],
                    codes=dict(zip(self._names, piece, strict=True)),
                    active=dict(zip(self._names, active[:, first].tolist(), strict=True)),
                )
            )
        if self._levels is None:
            return segments
        return self._levels.push(np.pad(own, (0, (stop - start) * hop - len(own))), segments)

    def _refined(self, wav: Wav, analysis: Analysis, inner: slice, active: NDArray[np.bool_]) -> Codes:
        """Codes of a block by analysis by synthesis, `[N, K, F]`."""
        hop, past = self._model.hop_length, self._past.shape[-1]
        # Frames after the block are not decided yet; with what they may become, the block's end sounds as it will.
        ahead = min(self._context, analysis.latent.shape[-1] - inner.stop)
        stop = inner.stop + ahead
        weights = np.pad(active, ((0, 0), (0, ahead)), mode="edge").astype(np.float32)
        around = wav[(inner.start - past) * hop : stop * hop]
        refiner = self._model.refiner(around, self._past, weights, self._num_codebooks)
        codes = refine(refiner, analysis.latent[:, inner.start : stop], effort=self._effort)
        return codes[..., : inner.stop - inner.start]

    def _remember(self, codes: Codes, active: NDArray[np.bool_]) -> None:
        """Keep the codes that the next block's beginning depends on."""
        missing = self._model.num_codebooks - codes.shape[1]
        kept = np.where(active[:, None], codes, NOTHING)
        kept = np.pad(kept, ((0, 0), (0, missing), (0, 0)), constant_values=NOTHING)
        self._past = np.concatenate([self._past, kept], axis=-1)[..., -self._context :]

    @property
    def _context(self) -> int:
        """Frames on each side of a frame that its decoding needs, as far as the buffer still has them."""
        return min(self._model.analysis_context, self._model.synthesis_context)

    def _active(self, wav: Wav, activity: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Which streams are active in each segment of a block: `[N, F]`."""
        hop, frames = self._model.hop_length, activity.shape[1]
        active = np.ones(activity.shape, dtype=bool)
        if self._known is not None:
            active[[name not in self._known for name in self._names]] = False
            if not self._pauses:
                return active
        for start in range(0, frames, self._segment):
            span = slice(start, start + self._segment)
            segment = wav[start * hop : (start + self._segment) * hop]
            if float(np.abs(segment).max()) < SILENCE:
                active[:, span] = False
            elif self._known is None:
                active[:, span] = _active_streams(activity[:, span])[:, None]
        return active


def _active_streams(activity: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which streams are active in a segment, `[N]`, from the probabilities that the network gives each frame, `[N, F]`.

    A stream is active where the mean of `ACTIVITY_FRAMES` frames in a row is above 0.5 at any place. The likeliest one
    always is, because audio that no stream is active for would be lost.
    """
    width = min(ACTIVITY_FRAMES, activity.shape[1])
    windows = np.lib.stride_tricks.sliding_window_view(activity, width, axis=1)
    peaks = windows.mean(-1).max(-1)
    active = peaks > 0.5
    active[peaks.argmax()] = True
    return np.asarray(active)


class Levels:
    """Adds envelope and treble to segments, by comparing what the decoder makes of them with the audio.

    Args:
        model: the model
        envelope: whether segments have one
        fine: whether that is a fine one
        treble: whether they say what is above
        unit: of how many frames the times of an envelope are multiples
        grid: that of the whole model
    """

    def __init__(
        self, model: CodecModel, *, envelope: bool, fine: bool, treble: bool, unit: int, grid: Grid = FILES
    ) -> None:
        self._hop, self._rate = model.hop_length, model.sample_rate
        self._decoder = StreamDecoder(model, ["mix"], grid=grid)
        self._waiting: list[CodedSegment] = []
        self._bands = self._treble = None
        if envelope:
            layout = layout_for(self._rate, self._hop, fine=fine, multiple=unit)
            self._bands = Bands(layout, self._rate, self._hop)
            self._bitrate = FINE_BITRATE if fine else BITRATE
        if treble:
            above_it = above.treble_layout_for(self._rate, self._hop)
            assert above_it is not None
            self._treble = above.Treble(above_it, self._rate, self._hop)
        # All three begin half a frame before the first segment that waits.
        self._original = self._decoded = np.zeros(self._hop // 2, dtype=np.float32)
        self._wide = np.zeros(above.FACTOR * (self._hop // 2), dtype=np.float32)

    def push_wide(self, wav: Wav) -> None:
        """Take audio at twice the rate in, `[T]`."""
        self._wide = np.concatenate([self._wide, wav])

    def push(self, wav: Wav, segments: Sequence[CodedSegment]) -> list[CodedSegment]:
        """Take segments and their audio `[T]` in, give out those that are complete."""
        self._original = np.concatenate([self._original, wav])
        self._waiting += segments
        for segment in segments:
            self._add(self._decoder.push(segment.stored, segment.num_frames))
        return self._complete()

    def finish(self) -> list[CodedSegment]:
        """Give out the rest."""
        self._add([*self._decoder.finish(), np.zeros((1, self._hop), dtype=np.float32)])
        self._original = np.pad(self._original, (0, self._hop))
        missing = max(0, above.FACTOR * len(self._original) - len(self._wide))
        # As what is encoded, a very short signal is continued by its mirror image.
        self._wide = np.pad(self._wide, (0, missing), mode="symmetric" if self._treble else "constant")
        return self._complete()

    def _add(self, pieces: Sequence[Wav]) -> None:
        self._decoded = np.concatenate([self._decoded, *(piece[0] for piece in pieces)])

    def _complete(self) -> list[CodedSegment]:
        segments = []
        while self._waiting:
            length = self._waiting[0].num_frames * self._hop
            needed = length + self._hop
            if len(self._decoded) < needed or (self._treble and len(self._wide) < above.FACTOR * needed):
                break
            segments.append(self._with_gains(self._waiting.pop(0), length))
            self._original, self._decoded = self._original[length:], self._decoded[length:]
            self._wide = self._wide[above.FACTOR * length :]
        return segments

    def _with_gains(self, segment: CodedSegment, length: int) -> CodedSegment:
        if not any(segment.active.values()):
            return segment
        seconds, decoded = length / self._rate, self._decoded[: length + self._hop]
        gains = treble = None
        if self._bands:
            wanted = self._bands.wanted(self._original[: length + self._hop], decoded)
            gains = choose_gains(wanted, max_bits=1000 * self._bitrate * seconds)
        if self._treble:
            wanted = self._treble.wanted(self._wide[: above.FACTOR * (length + self._hop)], decoded)
            treble = choose_gains(wanted, max_bits=1000 * above.BITRATE * seconds, kind=TREBLE_GAINS)
        return replace(segment, gains=gains, treble=treble)
