"""A loaded model that encodes and decodes audio of any length, whole or as it arrives.

Legend: B batch, T samples, F frames, N domains, K codebooks.
"""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..audio import integrated_loudness
from ..errors import DeviceError
from ..nn.sdcodec import SDCodec
from ..recipe import MAX_EFFORT, Recipe
from ..zoo import ModelEntry, find, load
from .stream import SEGMENT_FRAMES, StreamDecoder, StreamEncoder

MAX_GAIN_DB = 60.0
"""Quiet audio is amplified by no more than this."""


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


def checked_audio(wav: Tensor | NDArray[Any]) -> Tensor:
    """Audio `[..., T]` as 32-bit floats on the CPU, without gradients.

    Raises:
        ValueError: no samples, samples that are not floats or not finite
    """
    given = torch.as_tensor(wav)
    if not given.is_floating_point():
        raise ValueError(f"wav must be floats in −1…1, got {given.dtype}; divide integers by their full scale")
    signal = given.to(torch.float32).detach().cpu()
    if signal.dim() == 0 or signal.numel() == 0:
        raise ValueError(f"wav must be [..., T] with at least one sample, got shape {list(signal.shape)}")
    if not bool(torch.isfinite(signal).all()):
        raise ValueError("wav has samples that are not finite numbers")
    return signal


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

    def codebooks_for(self, bitrate: float | None) -> int:
        """How many codebooks fit a bitrate per domain in kbit/s; None is the full rate.

        Raises:
            ValueError: the model was not trained for less than all, or the bitrate is out of its range
        """
        if bitrate is None:
            return self.num_codebooks
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
        signal = checked_audio(wav)
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
