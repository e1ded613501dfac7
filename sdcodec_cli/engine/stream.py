"""Encoding and decoding of one signal as it arrives, in constant memory.

Both directions work on a fixed grid of blocks, each with as much context on either side as the network can see. The
grid and the arithmetic on it do not depend on how the audio arrives, so codes are the same, bit for bit, whether a
file comes whole or in crumbs, and memory does not grow with its length.

Legend: T samples, F frames, D latent width, N domains, K codebooks, S stems.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ..audio import SILENCE
from .refine import Past, mixed, refine

if TYPE_CHECKING:
    from .codec import Codec

SEGMENT_FRAMES = 100
"""Frames over which a domain is present or absent as a whole; a segment of a `.sdc` stream. 2 s at 50 frames/s."""

BLOCK_FRAMES = 4 * SEGMENT_FRAMES
"""Frames that the network works on at a time, context excluded."""

ACTIVITY_FRAMES = 11
"""Frames over which the activity head is averaged before it is believed."""


@dataclass(frozen=True)
class CodedBlock:
    """What an encoder makes of some segments of one mono signal."""

    start_frame: int
    codes: NDArray[np.int64]
    """`[N, K, F]`"""
    active: NDArray[np.bool_]
    """`[N, F]`, the same within a segment."""


class StreamEncoder:
    """Turns one mono signal into codes as it arrives; see `Codec.stream_encoder`."""

    def __init__(self, codec: Codec, *, num_codebooks: int, present: Sequence[str] | None) -> None:
        self._codec, self._num_codebooks, self._known = codec, num_codebooks, present
        head = codec.network.activity
        self._context = codec.network.encoder.context_frames + (0 if head is None else head.context_frames)
        self._pieces: list[Tensor] = []
        self._buffered = 0
        self._start = 0  # frame at which the buffer begins
        self._next = 0  # frame at which the next block begins
        nothing = torch.zeros(1, codec.recipe.model.latent_dim, 0, dtype=torch.float32, device=codec.device)
        self._past = Past(nothing, nothing[0, 0])

    def push(self, wav: Tensor | NDArray[np.float32]) -> list[CodedBlock]:
        """Take samples `[T]` in, give out the blocks that are complete."""
        self._pieces.append(torch.as_tensor(wav, dtype=torch.float32))
        self._buffered += len(wav)
        hop, blocks = self._codec.hop_length, []
        while self._buffered >= (self._next + BLOCK_FRAMES + self._context - self._start) * hop:
            blocks.append(self._encode(self._next + BLOCK_FRAMES))
        # The caller may use its memory again.
        self._pieces[-1] = self._pieces[-1].clone()
        return blocks

    def finish(self) -> list[CodedBlock]:
        """Give out the rest."""
        total = self._start + math.ceil(self._buffered / self._codec.hop_length)
        blocks = []
        while self._next < total:
            blocks.append(self._encode(min(self._next + BLOCK_FRAMES, total)))
        return blocks

    # A caller's inference mode would leave no gradient to follow.
    @torch.inference_mode(False)
    @torch.no_grad()
    def _encode(self, stop: int) -> CodedBlock:
        hop, start, network = self._codec.hop_length, self._next, self._codec.network
        buffer = _joined(self._pieces)
        last = (stop + self._context - self._start) * hop
        wav = buffer[:last].to(self._codec.device)
        latent = network.encode(wav[None, None])
        inner = slice(start - self._start, stop - self._start)
        logits = network.activity_logits(latent)
        samples = buffer[inner.start * hop : inner.stop * hop]
        active = self._active(samples, None if logits is None else logits[0, :, inner])
        if self._codec.effort:
            codes = self._refined(wav, latent, inner, active)
        else:
            codes = network.quantize(latent[..., inner], num_codebooks=self._num_codebooks).codes[:, 0]
        self._next = stop
        keep = max(self._start, stop - self._context)
        self._pieces = [buffer[(keep - self._start) * hop :]]
        self._buffered = len(self._pieces[0])
        self._start = keep
        return CodedBlock(start, codes.cpu().numpy(), active)

    def _refined(self, wav: Tensor, latent: Tensor, inner: slice, active: NDArray[np.bool_]) -> Tensor:
        """Codes of a block by analysis by synthesis, `[N, K, F]`."""
        network, hop = self._codec.network, self._codec.hop_length
        # What the decoder hears around a frame, as far as the buffer has it.
        context = min(self._context, self._codec.context_frames)
        # Frames after the block are not decided yet; with what they may become, the block's end sounds as it will.
        ahead = min(context, latent.shape[-1] - inner.stop)
        reach = slice(inner.start, inner.stop + ahead)
        gates = torch.from_numpy(np.pad(active, ((0, 0), (0, ahead)), mode="edge")).float().to(latent.device)
        codes = refine(
            network,
            wav[(reach.start - self._past.num_frames) * hop : reach.stop * hop],
            latent[..., reach],
            gates,
            self._past,
            sample_rate=self._codec.sample_rate,
            num_codebooks=self._num_codebooks,
            effort=self._codec.effort,
        )[..., : inner.stop - inner.start]
        gates = gates[:, : codes.shape[-1]]
        latents = network.quantizer.decode(codes[:, None], range(len(codes)))
        self._past = self._past.then(mixed(latents, gates), gates, context)
        return codes

    def _active(self, wav: Tensor, logits: Tensor | None) -> NDArray[np.bool_]:
        """Which domains are present in each segment of a block: `[N, F]`."""
        frames = math.ceil(len(wav) / self._codec.hop_length)
        active = np.ones((len(self._codec.domains), frames), dtype=bool)
        if self._known is not None:
            active[[domain not in self._known for domain in self._codec.domains]] = False
            return active
        for start in range(0, frames, SEGMENT_FRAMES):
            span = slice(start, start + SEGMENT_FRAMES)
            heard = wav[start * self._codec.hop_length : (start + SEGMENT_FRAMES) * self._codec.hop_length]
            if float(heard.abs().max()) < SILENCE:
                active[:, span] = False
            elif logits is not None:
                active[:, span] = self._present(logits[:, span].sigmoid())[:, None]
        return active

    @staticmethod
    def _present(probabilities: Tensor) -> NDArray[np.bool_]:
        """Domains heard anywhere in a segment `[N, F]`, and always the likeliest: what is there must go somewhere."""
        width = min(ACTIVITY_FRAMES, probabilities.shape[-1])
        peaks = F.avg_pool1d(probabilities[None], width, stride=1)[0].amax(-1)
        present = peaks > 0.5
        present[peaks.argmax()] = True
        result: NDArray[np.bool_] = present.cpu().numpy()
        return result


class StreamDecoder:
    """Turns codes of one mono signal into stems as they arrive; see `Codec.stream_decoder`.

    A domain that is silent adds nothing to the mix, and its stem is exactly zero there, faded over 20 ms.
    """

    def __init__(self, codec: Codec, stems: Sequence[str]) -> None:
        for stem in stems:
            codec.check_stem(stem)
        self._codec, self.stems = codec, tuple(stems)
        self._context = codec.context_frames
        self._latents: list[Tensor] = []  # each [N, D, F]
        self._gates: list[Tensor] = []  # each [N, F]
        self._buffered = 0
        self._start = 0
        self._next = 0

    def push(self, codes: Mapping[str, Tensor | NDArray[np.int64] | None], num_frames: int) -> list[Tensor]:
        """Take `num_frames` frames in, give out audio `[S, T]` that is complete.

        Args:
            codes: `[K, F]` of each domain, K possibly less than all; None or left out where it is silent
            num_frames: F
        """
        self._latents.append(self._dequantize(codes, num_frames))
        gates = [float(codes.get(domain) is not None) for domain in self._codec.domains]
        self._gates.append(torch.tensor(gates, device=self._codec.device)[:, None].expand(-1, num_frames))
        self._buffered += num_frames
        pieces = []
        while self._buffered >= self._next + BLOCK_FRAMES + self._context - self._start:
            pieces.append(self._decode(self._next + BLOCK_FRAMES))
        return pieces

    def finish(self) -> list[Tensor]:
        """Give out the rest."""
        total, pieces = self._start + self._buffered, []
        while self._next < total:
            pieces.append(self._decode(min(self._next + BLOCK_FRAMES, total)))
        return pieces

    @torch.inference_mode()
    def _dequantize(self, codes: Mapping[str, Tensor | NDArray[np.int64] | None], num_frames: int) -> Tensor:
        """Latents `[N, D, F]`, zero where a domain is silent."""
        network, device = self._codec.network, self._codec.device
        latents = torch.zeros(len(self._codec.domains), self._codec.recipe.model.latent_dim, num_frames, device=device)
        for index, domain in enumerate(self._codec.domains):
            streams = codes.get(domain)
            if streams is not None:
                tensor = torch.as_tensor(streams).to(device)
                latents[index] = network.quantizer.decode(tensor[None, None], [index])[0, 0]
        return latents

    @torch.inference_mode()
    def _decode(self, stop: int) -> Tensor:
        hop, start = self._codec.hop_length, self._next
        latents, gates = _joined(self._latents), _joined(self._gates)
        span = slice(0, stop + self._context - self._start)
        picked = [list(range(len(latents))) if s == "mix" else [self._codec.domains.index(s)] for s in self.stems]
        rows = torch.stack([latents[index][..., span].sum(0) for index in picked])
        audible = torch.stack([gates[index][..., span].amax(0) for index in picked])
        wavs = torch.zeros(len(rows), rows.shape[-1] * hop, device=self._codec.device)
        # Stems without anything in sight are not worth decoding.
        sounding = audible.amax(-1) > 0
        if bool(sounding.any()):
            wavs[sounding] = self._codec.network.decode(rows[sounding])[:, 0]
        wavs *= _fade(audible, hop)
        inner = wavs[:, (start - self._start) * hop : (stop - self._start) * hop].cpu()
        self._next = stop
        keep = max(self._start, stop - self._context)
        self._latents = [latents[..., keep - self._start :]]
        self._gates = [gates[..., keep - self._start :]]
        self._buffered -= keep - self._start
        self._start = keep
        return inner


def _joined(pieces: Sequence[Tensor]) -> Tensor:
    """Pieces end to end; one that came whole is not copied, however many blocks are cut off it."""
    return pieces[0] if len(pieces) == 1 else torch.cat(list(pieces), dim=-1)


def _fade(gates: Tensor, hop_length: int) -> Tensor:
    """Gain per sample from gates of 0 or 1 per frame: `[S, F]` to `[S, F * hop_length]`.

    One in every active frame; over the frame after it falls to zero, and over the frame before it rises from there.
    """
    falling = torch.linspace(1, 0, hop_length, device=gates.device)
    before, after = F.pad(gates[:, :-1], (1, 0))[..., None], F.pad(gates[:, 1:], (0, 1))[..., None]
    ramps = torch.maximum(before * falling, after * falling.flip(0))
    return torch.maximum(gates[..., None], ramps).flatten(1)


def split_segments(blocks: Iterable[CodedBlock]) -> Iterator[CodedBlock]:
    """Cut blocks into segments."""
    for block in blocks:
        for start in range(0, block.codes.shape[-1], SEGMENT_FRAMES):
            span = slice(start, start + SEGMENT_FRAMES)
            yield CodedBlock(block.start_frame + start, block.codes[..., span], block.active[:, span])
