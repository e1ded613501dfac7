"""What a model is made of and how it is trained: frozen dataclasses that check themselves when they are made."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from typing import Literal

from ..bitstream.header import (
    MAX_CODEBOOK_SIZE,
    MAX_CODEBOOKS,
    MAX_DOMAINS,
    MAX_HOP_LENGTH,
    MAX_RATE,
    check_domain_name,
    check_model_name,
)

MAX_EFFORT = 100
"""Steps of analysis by synthesis beyond which nothing is gained that anyone would wait for."""
LOUDNESS_RANGE = (-70.0, 0.0)
"""Between the gate of ITU-R BS.1770, below which nothing is heard, and full scale, in LUFS."""


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _require_range(name: str, values: float | tuple[float, ...], lowest: float, highest: float) -> None:
    """Every value must be a number between the two, which not-a-number never is."""
    for value in values if isinstance(values, tuple) else (values,):
        _require(lowest <= value <= highest, f"{name} must be between {lowest:.9g} and {highest:.9g}, got {value}")


def _require_positive(name: str, value: float) -> None:
    _require(0 < value < math.inf, f"{name} must be positive and finite, got {value}")


def _require_not_negative(name: str, value: float) -> None:
    _require(0 <= value < math.inf, f"{name} must be finite and not negative, got {value}")


def _require_averages(name: str, betas: tuple[float, float]) -> None:
    _require(all(0 <= beta < 1 for beta in betas), f"{name} must be at least 0 and less than 1, got {list(betas)}")


@dataclass(frozen=True, kw_only=True)
class ModelFields:
    """What a model takes and gives."""

    description: str = ""
    """One line for `sdc models list`."""
    sample_rate: int = 16_000
    """Rate of the audio that the network sees, in Hz."""
    hop_length: int = 320
    """Samples per frame."""
    latent_dim: int = 1024
    """Channels of the latent."""
    domains: tuple[str, ...] = ("speech", "music", "sfx")
    """Names of the domains, in the order of their quantizers."""
    activity: bool = False
    """Whether a head on the latent tells which domains are present."""
    loudness: float = -27.0
    """Loudness of the material it was trained on, in LUFS; files are brought to it before coding, and back after."""
    effort: int = 0
    """Steps of analysis by synthesis that encoding takes unless told otherwise, see `engine.refine`."""

    def __post_init__(self) -> None:
        _require(self.description.isprintable(), f"model.description must be one line, got {self.description!r}")
        _require_range("model.sample_rate", self.sample_rate, 1, MAX_RATE)
        _require_range("model.hop_length", self.hop_length, 1, MAX_HOP_LENGTH)
        _require_positive("model.latent_dim", self.latent_dim)
        _require_range("model.loudness", self.loudness, *LOUDNESS_RANGE)
        _require_range("model.effort", self.effort, 0, MAX_EFFORT)
        _require(1 <= len(self.domains) <= MAX_DOMAINS, f"model.domains must name 1 to {MAX_DOMAINS} domains")
        _require(len(set(self.domains)) == len(self.domains), "model.domains names a domain twice")
        reserved = {"mix", "all"} & set(self.domains)
        _require(not reserved, f"model.domains: {', '.join(reserved)} is reserved")


@dataclass(frozen=True, kw_only=True)
class NetworkFields:
    """One half of the autoencoder; `kind` says which of the other fields apply."""

    kind: Literal["conv", "spectral"] = "conv"
    """`conv`: strided convolutions on samples (DAC). `spectral`: ConvNeXt blocks on a short-time spectrum."""
    width: int = 64
    """Channels: of the first convolution (conv), or of every block (spectral)."""
    strides: tuple[int, ...] = ()
    """conv: stride of each stage; their product is the hop length."""
    upsampling: Literal["exact", "dac", "sdcodec"] = "exact"
    """conv decoder: how odd strides are trimmed; the latter two reproduce published weights."""
    window_length: int = 0
    """spectral: samples under one window."""
    context_window_length: int = 0
    """spectral encoder: samples under a second, longer window, of which it sees magnitudes; 0 for none."""
    depth: int = 0
    """spectral: number of blocks."""
    dilations: tuple[int, ...] = ()
    """spectral: how many frames the taps of each block's convolution are apart; 1 in all of them if left empty."""

    @property
    def block_dilations(self) -> tuple[int, ...]:
        """spectral: the dilation of each block."""
        return self.dilations or (1,) * self.depth

    def __post_init__(self) -> None:
        _require(self.width > 0, f"width must be positive, got {self.width}")
        if self.kind == "conv":
            _require(len(self.strides) > 0, "a conv network needs strides")
            _require(all(s >= 2 for s in self.strides), f"strides must be at least 2, got {list(self.strides)}")
            _require(
                self.window_length == self.context_window_length == self.depth == len(self.dilations) == 0,
                "window_length, context_window_length, depth and dilations belong to spectral networks",
            )
        else:
            _require(self.strides == (), "strides belong to conv networks")
            _require(self.depth > 0, f"depth must be positive, got {self.depth}")
            _require(self.window_length > 0, f"window_length must be positive, got {self.window_length}")
            _require(
                self.context_window_length == 0
                or (self.context_window_length > self.window_length and self.context_window_length % 2 == 0),
                f"context_window_length must be even and more than window_length, got {self.context_window_length}",
            )
            _require(
                len(self.dilations) in (0, self.depth) and all(d >= 1 for d in self.dilations),
                f"dilations must be {self.depth} numbers, one for each block, of 1 or more, got {list(self.dilations)}",
            )


@dataclass(frozen=True, kw_only=True)
class QuantizerFields:
    """The residual quantizers, one per domain."""

    num_codebooks: int = 12
    """Levels per domain, shared ones included."""
    num_shared: int = 0
    """How many of the last levels all domains have in common."""
    codebook_size: int = 1024
    """Entries of a codebook."""
    codebook_dim: int = 8
    """Width of an entry."""

    def __post_init__(self) -> None:
        _require_range("quantizer.num_codebooks", self.num_codebooks, 1, MAX_CODEBOOKS)
        _require_range("quantizer.codebook_size", self.codebook_size, 2, MAX_CODEBOOK_SIZE)
        _require_positive("quantizer.codebook_dim", self.codebook_dim)
        _require(
            0 <= self.num_shared <= self.num_codebooks,
            f"quantizer.num_shared must be between 0 and num_codebooks, got {self.num_shared}",
        )


@dataclass(frozen=True, kw_only=True)
class MixingFields:
    """How training examples are mixed from stems."""

    seconds: float = 2.0
    """Length of an example."""
    domains: tuple[str, ...] = ()
    """Domains of the corpus that examples are mixed from, the model's if left empty; a model of one domain may have
    several, of which it codes the sum."""
    track_probabilities: tuple[float, ...] = (0.6, 0.2, 0.2)
    """How often an example has one, two, three domains."""
    loudness: tuple[float, ...] = (-17.0, -24.0, -21.0)
    """Target of each domain before mixing, in LUFS."""
    mix_loudness: float = -27.0
    """Target of the mixture, in LUFS."""
    loudness_range: float = 2.0
    """Uniform deviation from the targets, in LU to either side."""
    peak: float = -0.5
    """Stems that exceed this peak are scaled down to it, in dBFS."""
    quiet_probability: float = 0.0
    """How often a mixture is made quieter by up to `quiet_range`, as quiet passages of a normalized file are."""
    quiet_range: float = 20.0
    """In dB."""

    def __post_init__(self) -> None:
        _require(
            0.4 <= self.seconds <= 600,
            f"mixing.seconds must be from 0.4 (loudness needs it) to 600, got {self.seconds}",
        )
        _require(
            math.isclose(sum(self.track_probabilities), 1.0, abs_tol=1e-6) and min(self.track_probabilities) >= 0,
            f"mixing.track_probabilities must be non-negative and add up to 1, got {list(self.track_probabilities)}",
        )
        _require(len(set(self.domains)) == len(self.domains), "mixing.domains names a domain twice")
        _require_range("mixing.loudness", self.loudness, *LOUDNESS_RANGE)
        _require_range("mixing.mix_loudness", self.mix_loudness, *LOUDNESS_RANGE)
        _require_range("mixing.loudness_range", self.loudness_range, 0, 40)
        _require_range("mixing.peak", self.peak, -60, 0)
        _require_range("mixing.quiet_probability", self.quiet_probability, 0, 1)
        _require_range("mixing.quiet_range", self.quiet_range, 0, 60)


@dataclass(frozen=True, kw_only=True)
class AugmentationFields:
    """What is done to a stem before it is mixed; everything is off by default, as in the paper."""

    polarity: float = 0.0
    """How often a stem is turned upside down."""
    gain_range: float = 0.0
    """Uniform deviation from the loudness target on top of `mixing.loudness_range`, in dB to either side."""
    speed_range: float = 0.0
    """Uniform change of speed and pitch, as a share to either side: 0.05 is up to 5 % slower or faster."""
    reverb: float = 0.0
    """How often a stem sounds as in a room, with a random tail."""
    equalizer: float = 0.0
    """How often a stem gets random shelves and a peak of up to 6 dB."""
    bandwidth: float = 0.0
    """How often a stem is low-passed, at a random frequency from an eighth of the sample rate up."""
    codec: float = 0.0
    """How often a stem goes through a lossy codec at a low bitrate."""
    layering: tuple[float, ...] = ()
    """How often a stem is two clips of its domain at once, for each domain; never if left empty."""

    def __post_init__(self) -> None:
        for name in ("polarity", "reverb", "equalizer", "bandwidth", "codec"):
            _require_range(f"augmentation.{name}", getattr(self, name), 0, 1)
        _require_range("augmentation.layering", self.layering, 0, 1)
        _require_range("augmentation.gain_range", self.gain_range, 0, 40)
        _require_range("augmentation.speed_range", self.speed_range, 0, 0.5)


@dataclass(frozen=True, kw_only=True)
class DiscriminatorFields:
    """The networks that learn to tell decoded from real audio (DAC, arXiv:2306.06546); used in training only."""

    periods: tuple[int, ...] = (2, 3, 5, 7, 11)
    """One network per period, which sees the waveform folded to that many columns."""
    window_lengths: tuple[int, ...] = (2048, 1024, 512)
    """One network per window length in samples, which sees the complex spectrum."""
    band_edges: tuple[float, ...] = (0.1, 0.25, 0.5, 0.75)
    """Where the spectrum is split into bands with weights of their own, as shares of the highest frequency."""
    width: int = 32
    """Channels: of the spectral networks, and of the first layer of the period networks."""
    learning_rate: float = 1e-4
    """Peak learning rate; it follows the schedule of `training`."""
    betas: tuple[float, float] = (0.8, 0.99)
    """Adam's averages."""
    clip_norm: float = 10.0
    """Largest norm of the gradient."""

    def __post_init__(self) -> None:
        _require(len(self.periods) + len(self.window_lengths) > 0, "discriminator: needs periods or window_lengths")
        _require(all(p >= 2 for p in self.periods), "discriminator.periods must be at least 2")
        _require(
            all(w >= 64 and w % 4 == 0 for w in self.window_lengths), "discriminator.window_lengths: multiples of 4"
        )
        edges = (0.0, *self.band_edges, 1.0)
        _require(
            all(a < b for a, b in itertools.pairwise(edges)),
            "discriminator.band_edges must rise within 0 and 1",
        )
        _require_averages("discriminator.betas", self.betas)
        for name in ("width", "learning_rate", "clip_norm"):
            _require_positive(f"discriminator.{name}", getattr(self, name))


@dataclass(frozen=True, kw_only=True)
class TrainingFields:
    """Objective, optimizer and schedule."""

    batch_size: int = 64
    """Examples per step."""
    steps: int = 400_000
    """Optimizer steps of the whole run."""
    learning_rate: float = 1e-4
    """Peak learning rate."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """`muon` orthogonalizes the updates of the blocks' matrices (spectral networks) and leaves the rest to AdamW."""
    betas: tuple[float, float] = (0.8, 0.99)
    """Adam's averages."""
    weight_decay: float = 0.0
    """AdamW's decay of weights, per unit of learning rate."""
    warmup_steps: int = 10_000
    """Steps of linear rise to the peak."""
    schedule: Literal["exponential", "cosine"] = "exponential"
    """What follows the rise: times `gamma` per step, or half a cosine down to `final_learning_rate`."""
    gamma: float = 0.999996
    """exponential: factor per step."""
    final_learning_rate: float = 0.05
    """cosine: share of the peak that is left at the end."""
    clip_norm: float = 10.0
    """Largest norm of the gradient."""
    seed: int = 0
    """Of weights, examples and choices: the same recipe on the same data repeats the run."""
    precision: Literal["auto", "float32", "tf32", "bfloat16"] = "bfloat16"
    """Of the products in the networks and in Muon; weights and averages are always float32. `bfloat16` is mixed
    precision, `tf32` the shortened float32 of CUDA devices, `auto` bfloat16 where it is fast and float32 elsewhere."""
    mel_weight: float = 15.0
    """Weight of the multi-scale log-mel distance."""
    feature_weight: float = 2.0
    """Weight of the distance between the discriminators' features of decoded and real audio."""
    adversarial_weight: float = 1.0
    """Weight of deceiving the discriminators; without it and `feature_weight` there are none."""
    adversarial_start: int = 0
    """Step at which the discriminators join."""
    mel_scales_per_step: int = 7
    """How many of the seven mel scales a step draws; fewer are faster and right on average."""
    snr_weight: float = 0.0
    """Weight of the negative signal-to-noise ratio in dB (not in the paper)."""
    mask_weight: float = 0.0
    """Weight of the same ratio for the stems that ratio masks, made of the decoded ones, take out of the mixture (not
    in the paper)."""
    codebook_weight: float = 1.0
    """Weight of the codebook loss."""
    commitment_weight: float = 0.25
    """Weight of the commitment loss."""
    activity_weight: float = 1.0
    """Weight of the activity head's cross entropy, where the model has the head."""
    silence_probability: float = 0.0
    """How often the output of an absent domain is decoded and taught to be silent (not in the paper)."""
    swap_probability: float = 0.5
    """How often two neighbouring examples exchange some of their domains before their latents are added up."""
    quantizer_dropout: float = 0.0
    """How often a domain of an example is coded with a random number of levels."""
    codebook_renewal: bool = False
    """Whether codebooks start from data and their unused entries are put to work (not in the paper)."""
    parts: Literal["all", "activity"] = "all"
    """What is trained: everything, or the activity head alone, on the latents of an encoder that stays as it is."""
    average_decay: float = 0.0
    """Decay per step of the moving average of weights that is validated and shipped; 0 for none."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "steps", "learning_rate", "clip_norm"):
            _require_positive(f"training.{name}", getattr(self, name))
        _require_averages("training.betas", self.betas)
        _require(0 < self.gamma <= 1, f"training.gamma must be more than 0 and at most 1, got {self.gamma}")
        for name in ("final_learning_rate", "silence_probability", "swap_probability", "quantizer_dropout"):
            _require_range(f"training.{name}", getattr(self, name), 0, 1)
        _require(
            0 <= self.average_decay < 1,
            f"training.average_decay must be at least 0 and less than 1, got {self.average_decay}",
        )
        _require_range("training.mel_scales_per_step", self.mel_scales_per_step, 1, 7)
        _require(
            self.snr_weight > 0 or self.silence_probability == 0,
            "training.silence_probability needs training.snr_weight, which weighs what silent outputs lose",
        )
        _require(0 <= self.seed < 2**31, f"training.seed must be from 0 to 2^31 - 1, got {self.seed}")
        for name in ("warmup_steps", "adversarial_start", "weight_decay"):
            _require_not_negative(f"training.{name}", getattr(self, name))
        for name in ("mel", "feature", "adversarial", "snr", "mask", "codebook", "commitment", "activity"):
            _require_not_negative(f"training.{name}_weight", getattr(self, f"{name}_weight"))

    @property
    def adversarial(self) -> bool:
        """Whether discriminators are trained along."""
        return self.parts == "all" and (self.adversarial_weight > 0 or self.feature_weight > 0)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything needed to build and train a model."""

    name: str
    model: ModelFields = field(default_factory=ModelFields)
    encoder: NetworkFields = field(default_factory=lambda: NetworkFields(width=64, strides=(2, 4, 5, 8)))
    decoder: NetworkFields = field(default_factory=lambda: NetworkFields(width=1536, strides=(8, 5, 4, 2)))
    quantizer: QuantizerFields = field(default_factory=QuantizerFields)
    mixing: MixingFields = field(default_factory=MixingFields)
    augmentation: AugmentationFields = field(default_factory=AugmentationFields)
    discriminator: DiscriminatorFields = field(default_factory=DiscriminatorFields)
    training: TrainingFields = field(default_factory=TrainingFields)

    def __post_init__(self) -> None:
        self._check_stream()
        for name, network in (("encoder", self.encoder), ("decoder", self.decoder)):
            if network.kind == "conv":
                hop = math.prod(network.strides)
                _require(
                    hop == self.model.hop_length,
                    f"{name}.strides multiply to {hop}, but model.hop_length is {self.model.hop_length}",
                )
            else:
                margin = network.window_length - self.model.hop_length
                _require(
                    0 < margin <= self.model.hop_length and margin % 2 == 0,
                    f"{name}.window_length must exceed model.hop_length by an even number, at most a hop; "
                    f"got {network.window_length}",
                )
                _require(network.window_length % 2 == 0, f"{name}.window_length must be even, and so the hop")
        _require(self.decoder.context_window_length == 0, "decoder: context_window_length belongs to the encoder")
        if self.decoder.kind == "conv":
            _require(
                self.decoder.width % (1 << len(self.decoder.strides)) == 0,
                f"decoder.width must be divisible by 2^{len(self.decoder.strides)}, got {self.decoder.width}",
            )
        several = len(self.model.domains) > 1
        _require(
            not (several and self.quantizer.num_shared == self.quantizer.num_codebooks),
            "quantizer.num_shared = num_codebooks leaves nothing that tells domains apart: name one domain",
        )
        _require(
            len(self.model.domains) == 1 or self.sources == self.model.domains,
            "mixing.domains: only a model of a single domain can be trained on mixtures of others",
        )
        _require(
            len(self.mixing.track_probabilities) <= len(self.sources),
            "mixing.track_probabilities has more entries than there are domains",
        )
        _require(
            len(self.mixing.loudness) == len(self.sources),
            f"mixing.loudness needs one target per domain, {len(self.sources)}",
        )
        _require(
            len(self.augmentation.layering) in (0, len(self.sources)),
            f"augmentation.layering needs one probability per domain, {len(self.sources)}, or none at all",
        )

    def _check_stream(self) -> None:
        """What `.sdc` files could not say of a model is found out before it is trained, not when it compresses."""
        try:
            check_model_name(self.name)
        except ValueError as error:
            raise ValueError(f"name: {error}") from None
        for domain in self.model.domains:
            try:
                check_domain_name(domain)
            except ValueError as error:
                raise ValueError(f"model.domains: {error}") from None

    @property
    def sources(self) -> tuple[str, ...]:
        """Domains of the corpus that examples are mixed from."""
        return self.mixing.domains or self.model.domains

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.model.sample_rate / self.model.hop_length

    @property
    def bitrate(self) -> float:
        """Payload of one domain at full quality, in kbit/s.

        >>> Recipe(name="paper").bitrate
        6.0
        """
        return self.quantizer.num_codebooks * (self.quantizer.codebook_size - 1).bit_length() * self.frame_rate / 1000

    @property
    def codebook_bitrate(self) -> float:
        """Payload that one codebook of one domain costs, in kbit/s."""
        return self.bitrate / self.quantizer.num_codebooks
