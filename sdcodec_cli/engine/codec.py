"""A loaded model that encodes and decodes audio of any length in constant memory.

Both directions work on a fixed grid of blocks, each with as much context on either side as the network can see. The
grid and the arithmetic on it do not depend on how the audio arrives, so codes are the same, bit for bit, whether a
file comes whole or in crumbs, and memory does not grow with its length.

Legend: B batch, T samples, F frames, D latent width, N domains, K codebooks, S stems.
"""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ..audio import SILENCE, integrated_loudness
from ..errors import DeviceError
from ..nn.sdcodec import SDCodec
from ..recipe import MAX_EFFORT, Recipe
from ..zoo import ModelEntry, find, load
from .refine import Past, mixed, refine

SEGMENT_FRAMES = 100
"""Frames over which a domain is present or absent as a whole; a segment of a `.sdc` stream. 2 s at 50 frames/s."""

BLOCK_FRAMES = 4 * SEGMENT_FRAMES
"""Frames that the network works on at a time, context excluded."""

ACTIVITY_FRAMES = 11
"""Frames over which the activity head is averaged before it is believed."""

MAX_GAIN_DB = 60.0
"""Quiet audio is amplified by no more than this."""


@dataclass(frozen=True)
class CodedBlock:
    """What an encoder makes of some segments of one mono signal."""

    start_frame: int
    codes: NDArray[np.int64]
    """`[N, K, F]`"""
    active: NDArray[np.bool_]
    """`[N, F]`, the same within a segment."""


@dataclass(frozen=True)
class Codes:
    """A signal, or a batch of signals, in codes."""

    codes: dict[str, Tensor]
    """Codes of each domain, int64 `[B, K, F]`."""
    active: dict[str, Tensor]
    """Whether each domain is heard, bool `[B, F]`, the same within a segment of 100 frames. Codes of frames that are
    not active exist, but add nothing to the mix and are not stored."""
    gain_db: Tensor
    """What was applied before encoding and is undone by decoding, `[B]`."""
    num_samples: int
    """T of the signal."""
    leading: tuple[int, ...]
    """Shape of the signal without its last axis; the product is B."""


def load_codec(model: str | Path | None = None, *, device: str = "auto", effort: int | None = None) -> Codec:
    """Load a model of the zoo by name, or any model by its folder.

    Args:
        model: name or folder; None is the model that ships with the package
        device: `auto` (CUDA, else MPS, else CPU) or a torch device
        effort: see `Codec.effort`; the model's own by default

    Raises:
        ModelError: no such model, or no weights
        DeviceError: no such device
    """
    entry = find(model)
    chosen = choose_device(device)
    network, weights_sha256 = load(entry)
    codec = Codec(entry, network.to(chosen), weights_sha256, chosen)
    return codec if effort is None else codec.at_effort(effort)


def choose_device(name: str) -> torch.device:
    """The device that a name stands for: `auto`, `cpu`, `cuda` or `mps`; a `DeviceError` where there is none."""
    if name in ("auto", "cuda") and torch.cuda.is_available():
        # Under torchrun every process has a GPU of its own.
        rank = os.environ.get("LOCAL_RANK")
        return torch.device("cuda" if rank is None else f"cuda:{rank}")
    if name == "auto":
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    kind = name.split(":")[0]
    if kind not in available:
        raise DeviceError(f"{name}: no such device; choose auto, cpu, cuda or mps")
    if not available[kind]:
        raise DeviceError(f"{name}: not available on this machine; choose --device cpu")
    return torch.device(name)


class Codec:
    """A model that is ready to encode and decode.

    >>> codec = load_codec()
    >>> codes = codec.encode(torch.randn(32_000) * 0.1)
    >>> codes.codes["speech"].shape
    torch.Size([1, 12, 100])
    >>> codec.decode(codes, stem="speech").shape
    torch.Size([32000])
    """

    def __init__(self, entry: ModelEntry, network: SDCodec, weights_sha256: bytes, device: torch.device) -> None:
        self.name = entry.name
        self.recipe: Recipe = entry.recipe
        self.network = network
        self.weights_sha256 = weights_sha256
        self.device = device
        self._effort = entry.recipe.model.effort

    @property
    def effort(self) -> int:
        """Steps of analysis by synthesis that encoding takes; 0 takes the encoder's own codes."""
        return self._effort

    def at_effort(self, effort: int) -> Codec:
        """The same codec with another `effort`.

        Raises:
            ValueError: not a whole number from 0 to `MAX_EFFORT`
        """
        if effort not in range(MAX_EFFORT + 1):
            raise ValueError(f"effort must be a whole number from 0 to {MAX_EFFORT}, got {effort!r}")
        codec = copy.copy(self)
        codec._effort = int(effort)
        return codec

    @property
    def sample_rate(self) -> int:
        """Rate of the audio that goes in and comes out, in Hz."""
        return self.recipe.model.sample_rate

    @property
    def hop_length(self) -> int:
        """Samples per frame."""
        return self.recipe.model.hop_length

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.recipe.frame_rate

    @property
    def domains(self) -> tuple[str, ...]:
        """Names of the domains."""
        return self.recipe.model.domains

    @property
    def num_codebooks(self) -> int:
        """Codebooks per domain at full quality."""
        return self.recipe.quantizer.num_codebooks

    @property
    def context_frames(self) -> int:
        """Frames on each side that a decoder needs to decode a frame exactly."""
        return self.network.decoder.context_frames

    def codebooks_for(self, bitrate: float) -> int:
        """How many codebooks fit a bitrate per domain in kbit/s.

        Raises:
            ValueError: the model was not trained for less than all, or the bitrate is out of its range
        """
        each, full = self.recipe.codebook_bitrate, self.recipe.bitrate
        if not each <= bitrate <= full + 1e-9:
            raise ValueError(f"bitrate must be between {each:g} and {full:g} kbit/s per domain, got {bitrate:g}")
        count = min(self.num_codebooks, int(bitrate / each + 1e-9))
        if count < self.num_codebooks and not self.recipe.training.quantizer_dropout:
            raise ValueError(
                f"{self.name} was trained without quantizer dropout and codes at {full:g} kbit/s per domain only, "
                f"got {bitrate:g}; leave the bitrate out"
            )
        return count

    def check_stem(self, stem: str) -> None:
        """Raise a `ValueError` unless the model has this stem."""
        if stem != "mix" and stem not in self.domains:
            raise ValueError(f"{self.name} has no stem {stem}; it has mix, {', '.join(self.domains)}")

    def gain_for(self, loudness: float) -> float:
        """Gain in dB that brings audio of this loudness (LUFS) to the level the model was trained on.

        A multiple of 1/256, as the stream stores it; 0 for silence.
        """
        if loudness == -math.inf:
            return 0.0
        gain = min(MAX_GAIN_DB, max(-MAX_GAIN_DB, self.recipe.model.loudness - loudness))
        return round(gain * 256) / 256

    def stream_encoder(
        self, *, num_codebooks: int | None = None, present: Sequence[str] | None = None
    ) -> StreamEncoder:
        """An encoder for one mono signal at the model's rate and level that arrives piece by piece; see `encode`.

        Raises:
            ValueError: `num_codebooks` out of range, no such domain
        """
        if num_codebooks is not None and not 1 <= num_codebooks <= self.num_codebooks:
            raise ValueError(f"num_codebooks must be between 1 and {self.num_codebooks}, got {num_codebooks}")
        for domain in present or ():
            if domain not in self.domains:
                raise ValueError(f"{self.name} has no domain {domain}; it has {', '.join(self.domains)}")
        return StreamEncoder(self, num_codebooks=num_codebooks or self.num_codebooks, present=present)

    def stream_decoder(self, stems: Sequence[str]) -> StreamDecoder:
        """A decoder for one mono signal whose codes arrive piece by piece."""
        return StreamDecoder(self, stems)

    def encode(
        self,
        wav: Tensor | NDArray[Any],
        *,
        num_codebooks: int | None = None,
        present: Sequence[str] | None = None,
        normalize: bool = True,
    ) -> Codes:
        """Encode mono signals.

        Args:
            wav: floats in −1…1 at `sample_rate`, `[..., T]`; each row is a signal by itself
            num_codebooks: levels to keep; all by default
            present: domains that the audio consists of, all of them throughout; by default the model finds out where
                each is heard. Analysis by synthesis puts everything into these: to get one of several domains out of
                a mixture, decode its stem instead
            normalize: bring each signal to the level the model was trained on; decoding undoes it

        Raises:
            ValueError: no samples, samples that are not floats or not finite, `num_codebooks` out of range, no such
                domain
        """
        given = torch.as_tensor(wav)
        if not given.is_floating_point():
            raise ValueError(f"wav must be floats in −1…1, got {given.dtype}; divide integers by their full scale")
        signal = given.to(torch.float32).detach().cpu()
        if signal.dim() == 0 or signal.numel() == 0:
            raise ValueError(f"wav must be [..., T] with at least one sample, got shape {list(signal.shape)}")
        if not bool(torch.isfinite(signal).all()):
            raise ValueError("wav has samples that are not finite numbers")
        rows, gains, codes, active = signal.reshape(-1, signal.shape[-1]), [], [], []
        for row in rows:
            gain = self.gain_for(integrated_loudness(row.numpy()[None], self.sample_rate)) if normalize else 0.0
            encoder = self.stream_encoder(num_codebooks=num_codebooks, present=present)
            blocks = [*encoder.push(row * 10 ** (gain / 20)), *encoder.finish()]
            gains.append(gain)
            codes.append(torch.from_numpy(np.concatenate([block.codes for block in blocks], axis=-1)))
            active.append(torch.from_numpy(np.concatenate([block.active for block in blocks], axis=-1)))
        all_codes, all_active = torch.stack(codes, dim=1), torch.stack(active, dim=1)
        return Codes(
            codes=dict(zip(self.domains, all_codes, strict=True)),
            active=dict(zip(self.domains, all_active, strict=True)),
            gain_db=torch.tensor(gains),
            num_samples=signal.shape[-1],
            leading=tuple(signal.shape[:-1]),
        )

    def decode(self, codes: Codes, *, stem: str = "mix") -> Tensor:
        """Decode one stem, or the mix of all domains that `codes` has.

        Returns:
            `[..., T]`, the shape of what was encoded, on the CPU

        Raises:
            ValueError: no such stem
        """
        self.check_stem(stem)
        if stem != "mix" and stem not in codes.codes:
            raise ValueError(f"these codes have no {stem}; they have {', '.join(codes.codes)}")
        wavs = []
        for row, gain in enumerate(codes.gain_db.tolist()):
            decoder = self.stream_decoder([stem])
            frames = next(iter(codes.codes.values())).shape[-1]
            pieces = []
            for start in range(0, frames, SEGMENT_FRAMES):
                span = slice(start, min(start + SEGMENT_FRAMES, frames))
                segment = {
                    domain: streams[row, :, span] if bool(codes.active[domain][row, start]) else None
                    for domain, streams in codes.codes.items()
                }
                pieces += decoder.push(segment, span.stop - span.start)
            pieces += decoder.finish()
            wavs.append(torch.cat([piece[0] for piece in pieces])[: codes.num_samples] * 10 ** (-gain / 20))
        return torch.stack(wavs).reshape(*codes.leading, codes.num_samples)


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
