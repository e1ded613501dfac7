"""What encoding and decoding of a signal as it arrives have in common, and the decoder.

Both directions work on a fixed grid of blocks, each with as much context on either side as the network can see. The
grid and the arithmetic on it do not depend on how the audio arrives, so codes are the same, bit for bit, whether a
file comes whole or in small pieces, and memory does not grow with its length. What is live has a grid of its own, with
short blocks and a short view ahead, for a short delay.

Legend: N streams, K codebooks, F frames, S stems, T samples, B bands, n columns of gains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ..audio import Wav
from ..runtime.model import NOTHING, CodecModel, Codes
from . import texture as texturing
from .envelope import Bands, Gains
from .shaper import StreamShaper
from .stems import holds
from .treble import FACTOR, Treble

SEGMENT_FRAMES = 100
"""Frames of a segment, in which a domain is active throughout or not at all; 2 s at 50 frames/s."""

BLOCK_SEGMENTS = 4
"""Segments that the network works on at a time, context excluded."""

BLOCK_FRAMES = BLOCK_SEGMENTS * SEGMENT_FRAMES


@dataclass(frozen=True)
class Grid:
    """How a signal is divided, in frames of the whole model."""

    segment_frames: int
    """Of a segment."""
    block_segments: int
    """Segments that are encoded at a time, context excluded."""
    ahead: int | None
    """Frames behind a block that encoding waits for, so that the network can see them; None for all that it can see."""

    @classmethod
    def of(cls, segment_frames: int) -> Grid:
        """The one that a file of such segments is decoded on."""
        return FILES if segment_frames >= FILES.segment_frames else LIVE


FILES = Grid(SEGMENT_FRAMES, BLOCK_SEGMENTS, ahead=None)
"""For what is there as a whole, or may come late."""

LIVE = Grid(segment_frames=40, block_segments=1, ahead=30)
"""For what is heard as it comes. Decoding does not wait for a whole block."""

Number = TypeVar("Number", np.float32, np.int64)


@dataclass(frozen=True)
class CodedSegment:
    """Codes of a segment of one mono signal."""

    num_frames: int
    """Of the model; of a cascade, of its last one."""
    codes: Mapping[str, Codes]
    """Of each stream, `[K, F]`."""
    active: Mapping[str, bool]
    """Which streams are active in it."""
    gains: Gains | None = None
    """Its envelope, `[B, n]`; None if it has none."""
    treble: Gains | None = None
    """What lies above the model's band, `[B, n]`; None if nothing does."""
    places: Mapping[str, Gains] = field(default_factory=dict)
    """Where domains stand that are not in the middle, `[2 B, n]`; see `engine.stereo`."""

    @property
    def stored(self) -> dict[str, Codes | None]:
        """Codes of each stream `[K, F]`, or None where it is not active."""
        return {name: codes if self.active[name] else None for name, codes in self.codes.items()}


class StreamDecoder:
    """Turns codes of one mono signal into stems as they arrive; see `Codec.stream_decoder`.

    Where a stream is not active it adds nothing to the mix, and its stem fades to zero within a frame.

    Args:
        model: the model
        stems: names, of sums too (see `stems`), or `mix`
        envelope: bands of the gains that come with codes, if they are applied
        share: how much of them is
        treble: what is added above the model's band, if it is; audio comes out at twice its rate then
        texture: whether the model's audio gets its texture, where it has one
        grid: that of the whole model
        unit: frames of this model in one of the whole
    """

    def __init__(
        self,
        model: CodecModel,
        stems: Sequence[str],
        *,
        envelope: Bands | None = None,
        share: float = 0.0,
        treble: Treble | None = None,
        texture: bool = True,
        grid: Grid = FILES,
        unit: int = 1,
    ) -> None:
        self._model, self._shaper = model, None
        self._block = None if grid is LIVE else grid.block_segments * grid.segment_frames * unit
        envelope = envelope if share else None
        self.hop_length: int = model.hop_length * (FACTOR if treble else 1)
        """Samples that come out for each frame."""
        if envelope or treble:
            self._shaper = StreamShaper(model.hop_length, len(stems), envelope=envelope, share=share, treble=treble)
        self._texture = None
        if texture and model.texture:
            self._texture = texturing.Texture(model.texture, model.sample_rate, model.hop_length)
        self._context = model.synthesis_context + (texturing.CONTEXT_FRAMES if self._texture else 0)
        everything = range(len(model.streams))
        self._picked = [[index for index in everything if holds(stem, model.streams[index].stem)] for stem in stems]
        self._pieces: list[Codes] = []  # each [N, K, F]
        self._buffered = 0
        self._start = 0
        self._next = 0

    def push(
        self,
        codes: Mapping[str, Codes | None],
        num_frames: int,
        gains: Gains | None = None,
        treble: Gains | None = None,
    ) -> list[Wav]:
        """Take `num_frames` frames in, give out audio `[S, T]` that is complete.

        Args:
            codes: `[K, F]` of each stream, K possibly less than all; None or left out where it is not active
            num_frames: F
            gains: of the envelope, of each frame `[B, F]`, if there are any
            treble: of what lies above, likewise
        """
        if self._shaper:
            self._shaper.push_gains(num_frames, gains, treble)
        streams = self._model.streams
        piece = np.full((len(streams), self._model.num_codebooks, num_frames), NOTHING, dtype=np.int64)
        for index, stream in enumerate(streams):
            given = codes.get(stream.name)
            if given is not None:
                piece[index, : len(given)] = given
        self._pieces.append(piece)
        self._buffered += num_frames
        blocks = []
        while (ready := self._start + self._buffered - self._context - self._next) >= (self._block or 1):
            blocks.append(self._decode(self._next + (self._block or ready)))
        return blocks

    def finish(self) -> list[Wav]:
        """Give out the rest."""
        total = self._start + self._buffered
        blocks = []
        while self._next < total:
            blocks.append(self._decode(min(self._next + (self._block or total), total)))
        return [*blocks, self._shaper.finish()] if self._shaper and total else blocks

    def _decode(self, stop: int) -> Wav:
        hop, start, context = self._model.hop_length, self._next, self._context
        buffer = joined(self._pieces)
        codes = buffer[..., : stop + context - self._start]
        streams = (codes != NOTHING).any(1).astype(np.float32)
        active = np.stack([streams[picked].max(0) for picked in self._picked])
        wavs = np.zeros((len(self._picked), codes.shape[-1] * hop), dtype=np.float32)
        # Stems that are active nowhere in it are not worth decoding.
        decoded = np.flatnonzero(active.any(1))
        if len(decoded):
            found = self._model.synthesize(codes, [self._picked[index] for index in decoded])
            wavs[decoded] = self._texture.applied(found) if self._texture else found
        wavs *= _fade(active, hop)
        inner = wavs[:, (start - self._start) * hop : (stop - self._start) * hop]
        self._next = stop
        keep = max(self._start, stop - context)
        self._pieces = [buffer[..., keep - self._start :]]
        self._buffered -= keep - self._start
        self._start = keep
        return self._shaper.push(inner) if self._shaper else inner


def joined(pieces: Sequence[NDArray[Number]]) -> NDArray[Number]:
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
