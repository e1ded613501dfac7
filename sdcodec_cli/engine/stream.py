"""Encoding and decoding of one signal as it arrives, in constant memory.

Both directions work on a fixed grid of blocks, each with as much context on either side as the network can see. The
grid and the arithmetic on it do not depend on how the audio arrives, so codes are the same, bit for bit, whether a
file comes whole or in small pieces, and memory does not grow with its length.

Legend: T samples, F frames, N streams, K codebooks, S stems.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ..audio import SILENCE, Wav
from ..runtime.model import NOTHING, Analysis, CodecModel, Codes
from .refine import refine

SEGMENT_FRAMES = 100
"""Frames of a segment, in which a domain is active throughout or not at all; 2 s at 50 frames/s."""

BLOCK_FRAMES = 4 * SEGMENT_FRAMES
"""Frames that the network works on at a time, context excluded."""

SHORTEST_FRAMES = 8
"""Shorter signals are continued by their mirror image to this length before they are encoded: of one or two frames,
which training has none of, the network makes something 14 to 18 dB too quiet. Decoding cuts off what was added."""

Number = TypeVar("Number", np.float32, np.int64)

ACTIVITY_FRAMES = 11
"""Frames over which the activity that the network finds is averaged, so that a single frame does not decide."""


@dataclass(frozen=True)
class CodedBlock:
    """Codes of a stretch of one mono signal: of a block as the encoder gives it out, or of one segment of it."""

    start_frame: int
    codes: Codes
    """`[N, K, F]`"""
    active: NDArray[np.bool_]
    """`[N, F]`, the same within a segment."""

    @property
    def num_frames(self) -> int:
        """F, frames of this block."""
        return len(self.active[0])

    def of(self, stream: int) -> Codes | None:
        """For a segment: codes of a stream `[K, F]`, or None where it is not active."""
        return self.codes[stream] if self.active[stream, 0] else None


class StreamEncoder:
    """Turns one mono signal into codes as it arrives; see `Codec.stream_encoder`.

    Args:
        model: the model
        num_codebooks: how many are stored
        known: streams that the audio consists of, or None to find out
        effort: steps of refinement
    """

    def __init__(self, model: CodecModel, *, num_codebooks: int, known: Sequence[int] | None, effort: int) -> None:
        self._model, self._num_codebooks, self._known, self._effort = model, num_codebooks, known, effort
        self._pieces: list[Wav] = []
        self._buffered = 0
        self._start = 0  # frame at which the buffer begins
        self._next = 0  # frame at which the next block begins
        self._past = np.zeros((len(model.streams), model.num_codebooks, 0), dtype=np.int64)

    def push(self, wav: Wav) -> list[CodedBlock]:
        """Take samples `[T]` in, give out the blocks that are complete."""
        self._pieces.append(np.asarray(wav, dtype=np.float32))
        self._buffered += len(wav)
        hop, blocks = self._model.hop_length, []
        while self._buffered >= (self._next + BLOCK_FRAMES + self._model.analysis_context - self._start) * hop:
            blocks.append(self._encode(self._next + BLOCK_FRAMES))
        # The caller may use its memory again.
        self._pieces[-1] = self._pieces[-1].copy()
        return blocks

    def finish(self) -> list[CodedBlock]:
        """Give out the rest; of a very short signal, more frames than it has."""
        missing = SHORTEST_FRAMES * self._model.hop_length - self._buffered
        if self._start == 0 and self._buffered and missing > 0:
            self._pieces = [np.pad(_joined(self._pieces), (0, missing), mode="symmetric")]
            self._buffered += missing
        total = self._start + math.ceil(self._buffered / self._model.hop_length)
        blocks = []
        while self._next < total:
            blocks.append(self._encode(min(self._next + BLOCK_FRAMES, total)))
        return blocks

    def _encode(self, stop: int) -> CodedBlock:
        hop, start, context = self._model.hop_length, self._next, self._model.analysis_context
        buffer = _joined(self._pieces)
        wav = buffer[: (stop + context - self._start) * hop]
        analysis = self._model.analyse(wav)
        inner = slice(start - self._start, stop - self._start)
        active = self._active(buffer[inner.start * hop : inner.stop * hop], analysis.activity[:, inner])
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
        return CodedBlock(start, codes, active)

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
            active[[index not in self._known for index in range(len(active))]] = False
            return active
        for start in range(0, frames, SEGMENT_FRAMES):
            span = slice(start, start + SEGMENT_FRAMES)
            segment = wav[start * hop : (start + SEGMENT_FRAMES) * hop]
            if float(np.abs(segment).max()) < SILENCE:
                active[:, span] = False
            else:
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


class StreamDecoder:
    """Turns codes of one mono signal into stems as they arrive; see `Codec.stream_decoder`.

    Where a stream is not active it adds nothing to the mix, and its stem fades to zero within a frame.

    Args:
        model: the model
        stems: names, or `mix`
    """

    def __init__(self, model: CodecModel, stems: Sequence[str]) -> None:
        self._model = model
        everything = range(len(model.streams))
        self._picked = [[index for index in everything if stem in ("mix", model.streams[index].stem)] for stem in stems]
        self._pieces: list[Codes] = []  # each [N, K, F]
        self._buffered = 0
        self._start = 0
        self._next = 0

    def push(self, codes: Mapping[str, Codes | None], num_frames: int) -> list[Wav]:
        """Take `num_frames` frames in, give out audio `[S, T]` that is complete.

        Args:
            codes: `[K, F]` of each stream, K possibly less than all; None or left out where it is not active
            num_frames: F
        """
        streams = self._model.streams
        piece = np.full((len(streams), self._model.num_codebooks, num_frames), NOTHING, dtype=np.int64)
        for index, stream in enumerate(streams):
            given = codes.get(stream.name)
            if given is not None:
                piece[index, : len(given)] = given
        self._pieces.append(piece)
        self._buffered += num_frames
        blocks = []
        while self._buffered >= self._next + BLOCK_FRAMES + self._model.synthesis_context - self._start:
            blocks.append(self._decode(self._next + BLOCK_FRAMES))
        return blocks

    def finish(self) -> list[Wav]:
        """Give out the rest."""
        total = self._start + self._buffered
        blocks = []
        while self._next < total:
            blocks.append(self._decode(min(self._next + BLOCK_FRAMES, total)))
        return blocks

    def _decode(self, stop: int) -> Wav:
        hop, start, context = self._model.hop_length, self._next, self._model.synthesis_context
        buffer = _joined(self._pieces)
        codes = buffer[..., : stop + context - self._start]
        streams = (codes[:, 0] != NOTHING).astype(np.float32)
        active = np.stack([streams[picked].max(0) for picked in self._picked])
        wavs = np.zeros((len(self._picked), codes.shape[-1] * hop), dtype=np.float32)
        # Stems that are active nowhere in it are not worth decoding.
        decoded = np.flatnonzero(active.any(1))
        if len(decoded):
            wavs[decoded] = self._model.synthesize(codes, [self._picked[index] for index in decoded])
        wavs *= _fade(active, hop)
        inner = wavs[:, (start - self._start) * hop : (stop - self._start) * hop]
        self._next = stop
        keep = max(self._start, stop - context)
        self._pieces = [buffer[..., keep - self._start :]]
        self._buffered -= keep - self._start
        self._start = keep
        return inner


def _joined(pieces: Sequence[NDArray[Number]]) -> NDArray[Number]:
    """Pieces end to end; one that came whole is not copied, however many blocks are cut off it."""
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis=-1)


def _fade(active: NDArray[np.float32], hop_length: int) -> NDArray[np.float32]:
    """Gain of each sample from 0 or 1 for each frame: `[S, F]` to `[S, F * hop_length]`.

    It is 1 in active frames, rises from 0 in the frame before them and falls to 0 in the frame behind them.
    """
    falling = np.linspace(1, 0, hop_length, dtype=np.float32)
    before, after = np.pad(active[:, :-1], ((0, 0), (1, 0))), np.pad(active[:, 1:], ((0, 0), (0, 1)))
    ramps = np.maximum(before[..., None] * falling, after[..., None] * falling[::-1])
    fades: NDArray[np.float32] = np.maximum(active[..., None], ramps).reshape(len(active), -1)
    return fades


def split_segments(blocks: Iterable[CodedBlock]) -> Iterator[CodedBlock]:
    """Cut blocks into segments, the last of which may be shorter."""
    for block in blocks:
        for start in range(0, block.num_frames, SEGMENT_FRAMES):
            span = slice(start, start + SEGMENT_FRAMES)
            yield CodedBlock(block.start_frame + start, block.codes[..., span], block.active[:, span])
