"""The contract between the engine and a network: what a model says about itself, and the things that it does.

Legend: T samples, F frames, P frames before them, D latent width, N streams, K codebooks, S stems.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelError
from ..families import Codebooks, Stream, of
from ..recipe import CodecModelFields, CodecTrainingFields, Recipe, Residual, SeparatorModelFields
from .parts import Runtime

if TYPE_CHECKING:
    from ..audio import Wav

Codes = NDArray[np.int64]

NOTHING = -1
"""A code that stands for none: of a codebook that is missing, or of a stream that is silent."""

MAX_GAIN_DB = 60.0
"""Quiet audio is amplified by no more than this."""

ENCODING, REFINING, DECODING = ("analyse", "quantize"), ("target", "refine", "distance"), ("synthesize",)
"""Parts that go together."""

SHORTEST_REFINED = 2048
"""Samples that audio is padded to for refinement: the longest window of its mel scales has to fit in."""


@dataclass(frozen=True)
class Analysis:
    """What a model finds in audio."""

    latent: NDArray[np.float32]
    """`[D, F]`"""
    activity: NDArray[np.float32]
    """Probability that each stream is active, `[N, F]`."""


@dataclass(frozen=True)
class Refinement:
    """One attempt of refinement."""

    distance: float
    """Between the decoded mix and what it should be."""
    codes: Codes
    """`[N, K, F]`"""
    gradient: NDArray[np.float32] | None
    """Of the distance towards the latent, `[D, F]`, if it was asked for."""


class Model:
    """A network with its weights in some runtime.

    All methods take one signal at a time; arrays are float32, codes int64.
    """

    def __init__(self, name: str, recipe: Recipe, weights_sha256: bytes, runtime: Runtime) -> None:
        self.name, self.weights_sha256, self.runtime = name, weights_sha256, runtime
        self.sample_rate: int = recipe.model.sample_rate
        """Of the audio that goes in and comes out, in Hz."""
        self.loudness: float = recipe.model.loudness
        """Of the material it was trained on, in LUFS."""
        self.streams: tuple[Stream, ...] = of(recipe).streams(recipe)
        """What it codes audio into; none if it only separates."""
        self.stems: tuple[str, ...] = recipe.model.domains

    def gain_for(self, loudness: float) -> float:
        """Gain in dB that brings audio of this loudness (LUFS) to the level the model was trained on.

        A multiple of 1/256, as a `.sdc` file stores it; 0 for silence.
        """
        if loudness == -math.inf:
            return 0.0
        gain = min(MAX_GAIN_DB, max(-MAX_GAIN_DB, self.loudness - loudness))
        return round(gain * 256) / 256


class SeparatorModel(Model):
    """A network that takes stems out of a mixture, and has no codes."""

    def __init__(self, name: str, recipe: Recipe, weights_sha256: bytes, runtime: Runtime) -> None:
        super().__init__(name, recipe, weights_sha256, runtime)
        model = recipe.model
        assert isinstance(model, SeparatorModelFields)
        self.hop_length: int = runtime.sizes["hop_length"]
        """Samples that a block is filled up to a multiple of."""
        self.block_length: int = round(model.block_seconds * model.sample_rate)
        """Samples that the network sees at once."""
        self.overlap_length: int = round(model.overlap_seconds * model.sample_rate)
        """Samples over which one block fades into the next."""

    def prepare(self, *, wait: bool) -> None:
        """Get ready, in the background or at once."""
        self.runtime.prepare(("separate",), wait=wait)

    def separate(self, wav: Wav) -> Wav:
        """Stems of a block of audio: `[T]` to `[N, T]`."""
        (stems,) = self.runtime.run("separate", np.pad(wav, (0, -len(wav) % self.hop_length)))
        return stems[:, : len(wav)]


class CodecModel(Model):
    """A network that codes audio into streams."""

    def __init__(
        self,
        name: str,
        recipe: Recipe,
        weights_sha256: bytes,
        runtime: Runtime,
        streams: Sequence[Stream] | None = None,
        codebooks: Sequence[Codebooks] = (),
    ) -> None:
        super().__init__(name, recipe, weights_sha256, runtime)
        self.codebooks = tuple(codebooks)
        """What the codes of each stream stand for; nothing where the model is not asked, as a stage of several."""
        self.streams = self.streams if streams is None else tuple(streams)
        known = zip(self.streams, self.codebooks, strict=False)
        taught = (codebooks.entries[0] for stream, codebooks in known if stream.num_semantic)
        self.semantic_codebook: NDArray[np.float32] | None = next(taught, None)
        """Entries of the codebook that holds what is said, `[V, d]`; None for a model that has none."""
        model, training = recipe.model, recipe.training
        assert isinstance(model, CodecModelFields)
        assert isinstance(training, CodecTrainingFields)
        self.hop_length: int = model.hop_length
        """Samples per frame."""
        self.causal: bool = model.causal
        """Whether nothing depends on what comes after its frame."""
        self.effort: int = model.effort
        """Steps of refinement that it suggests."""
        self.fine_codebooks: int = min(model.fine_codebooks, self.streams[0].num_codebooks)
        """Of each stream that it suggests to keep beside a fine envelope; 0 for envelopes that are not fine."""
        self.texture: float = model.texture
        """Frequency in Hz from which on what it decodes has the right levels only; 0 where that is nowhere."""
        self.num_codebooks: int = self.streams[0].num_codebooks
        """Of each stream at full quality."""
        self.codebook_bitrate: float = self.streams[0].codebook_bitrate
        """Of one codebook, in kbit/s."""
        self.has_bitrates: bool = bool(training.quantizer_dropout)
        """Whether it was trained for fewer codebooks than all."""

    @property
    def analysis_context(self) -> int:
        """Frames on each side that the latent and the activity of a frame depend on."""
        return self.runtime.sizes["analysis_context"]

    @property
    def synthesis_context(self) -> int:
        """Frames on each side that the audio of a frame depends on."""
        return self.runtime.sizes["synthesis_context"]

    def prepare(self, *, encode: bool, decode: bool, refine: bool, wait: bool) -> None:
        """Get ready for what will be wanted, in the background or at once."""
        self.runtime.prepare(ENCODING * encode + REFINING * refine + DECODING * decode, wait=wait)

    def analyse(self, wav: Wav) -> Analysis:
        """Latent and activity of `[T]`; zeros are added up to a whole frame."""
        missing = max(1, -(-len(wav) // self.hop_length)) * self.hop_length - len(wav)
        latent, activity = self.runtime.run("analyse", np.pad(wav, (0, missing)))
        return Analysis(latent, activity)

    def quantize(self, latent: NDArray[np.float32]) -> Codes:
        """Codes of all streams: `[D, F]` to `[N, K, F]`."""
        (codes,) = self.runtime.run("quantize", latent)
        return codes.astype(np.int64, copy=False)

    def synthesize(self, codes: Codes, stems: Sequence[Sequence[int]]) -> Wav:
        """Audio of stems: codes `[N, K, F]` and, for each stem, the streams that it is the sum of, to `[S, T]`.

        Codes may be `NOTHING`; a frame of nothing else is not silent by itself, so mute what is not active.
        """
        mix = np.zeros((len(stems), len(self.streams)), dtype=np.float32)
        for row, picked in enumerate(stems):
            mix[row, list(picked)] = 1
        (wavs,) = self.runtime.run("synthesize", codes, mix)
        return wavs

    def refiner(self, wav: Wav, past: Codes, gates: NDArray[np.float32], num_codebooks: int) -> Refiner:
        """Something that says how far latents are from audio; see `Refiner`."""
        return Refiner(self, wav, past, gates, num_codebooks)


class CascadeModel(Model):
    """Codecs at rising rates, one after the other: each codes what the sum of those before it lacks of the audio.

    Args:
        name, recipe, weights_sha256: of the whole
        stages: the codecs, that of the lowest rate first
        residuals: what each codes, see `BranchFields.residual`

    Raises:
        ModelError: frames of a stage are not a fraction of the last one's
    """

    def __init__(
        self,
        name: str,
        recipe: Recipe,
        weights_sha256: bytes,
        stages: Sequence[CodecModel],
        residuals: Sequence[Residual],
    ) -> None:
        super().__init__(name, recipe, weights_sha256, stages[0].runtime)
        first, last = stages[0], stages[-1]
        self.stages, self.residuals = tuple(stages), tuple(residuals)
        self.hop_length = last.hop_length
        """Samples per frame at `sample_rate`, both of the last stage."""
        self.num_codebooks = first.num_codebooks
        self.codebook_bitrate, self.has_bitrates = first.codebook_bitrate, first.has_bitrates
        each = [divmod(stage.sample_rate * self.hop_length, stage.hop_length * self.sample_rate) for stage in stages]
        if any(rest or not count for count, rest in each):
            raise ModelError(f"{name}: its stages must have a whole number of frames for each frame of the last one")
        self.frames: tuple[int, ...] = tuple(count for count, _ in each)
        """Of each stage, in one of the last."""

    @property
    def synthesis_context(self) -> int:
        """Frames on each side that the audio of a frame depends on; stages are lifted by filters of less than one."""
        contexts = (-(-stage.synthesis_context // count) for stage, count in zip(self.stages, self.frames, strict=True))
        return max(contexts) + len(self.stages) - 1

    def prepare(self, *, encode: bool, decode: bool, refine: bool, wait: bool) -> None:
        """Get ready for what will be wanted, in the background or at once."""
        for number, stage in enumerate(self.stages):
            # What an upper one encodes may depend on what those below decode to; so does the first one's envelope.
            decodes = decode or (encode and (number == 0 or "whole" in self.residuals[number + 1 :]))
            stage.prepare(encode=encode, decode=decodes, refine=refine, wait=wait)


class Refiner:
    """Compares what the decoder makes of latents with the audio that it should be.

    Args:
        model: the codec
        wav: what the mix should be, at the model's rate and level, of P + F frames, `[T]`; zeros are added if it is
            shorter
        past: the codes of the P frames before, `[N, K, P]`, `NOTHING` where a stream is not active
        gates: one where a stream adds to the mix, else zero, `[N, F]`
        num_codebooks: how many will be stored
    """

    def __init__(
        self, model: CodecModel, wav: Wav, past: Codes, gates: NDArray[np.float32], num_codebooks: int
    ) -> None:
        self._runtime = model.runtime
        levels = (np.arange(model.num_codebooks) < num_codebooks).astype(np.float32)
        active = np.concatenate([(past != NOTHING).any((0, 1)), gates.any(0)]).repeat(model.hop_length)
        hop = model.hop_length
        length = max(-(-SHORTEST_REFINED // hop) * hop, len(active))
        audible = np.pad(active, (0, length - len(active))).astype(np.float32)
        wanted = np.pad(wav, (0, length - len(wav))) * audible
        seconds = np.zeros((max(1, round(length / model.sample_rate)), length // hop), dtype=np.float32)
        for row, span in zip(seconds, np.array_split(np.arange(length // hop), len(seconds)), strict=True):
            row[span] = 1
        self._others: tuple[NDArray[Any], ...] = (
            past,
            gates,
            levels,
            audible,
            wanted,
            seconds,
            *self._runtime.run("target", wanted),
        )

    def attempt(self, latent: NDArray[np.float32], *, gradient: bool) -> Refinement:
        """What a latent `[D, F]` comes to."""
        part = "refine" if gradient else "distance"
        distance, codes, *towards = self._runtime.run(part, latent, *self._others)
        return Refinement(float(distance), codes.astype(np.int64, copy=False), towards[0] if gradient else None)
