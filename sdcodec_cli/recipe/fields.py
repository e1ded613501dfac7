"""What a model is made of and how it is trained: frozen dataclasses that check themselves when they are made."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

from ..bitstream.limits import MAX_DOMAINS, MAX_RATE, check_domain_name, check_model_name
from .checks import require, require_averages, require_not_negative, require_positive, require_range

DEFAULT_FAMILY = "sdcodec"
"""Of recipes that name none."""
LOUDNESS_RANGE = (-70.0, 0.0)
"""Between the gate of ITU-R BS.1770, below which nothing is heard, and full scale, in LUFS."""


@dataclass(frozen=True, kw_only=True)
class ModelFields:
    """What a model takes and gives."""

    description: str = ""
    """One line for `sdc models list`."""
    sample_rate: int = 16_000
    """Rate of the audio that the network sees, in Hz."""
    domains: tuple[str, ...] = ("speech", "music", "sfx")
    """Names of the domains, in the order of the network's outputs."""
    loudness: float = -27.0
    """Loudness of the material it was trained on, in LUFS; audio is brought to it for the network, and back after."""

    def __post_init__(self) -> None:
        require(self.description.isprintable(), f"model.description must be one line, got {self.description!r}")
        require_range("model.sample_rate", self.sample_rate, 1, MAX_RATE)
        require_range("model.loudness", self.loudness, *LOUDNESS_RANGE)
        require(1 <= len(self.domains) <= MAX_DOMAINS, f"model.domains must name 1 to {MAX_DOMAINS} domains")
        require(len(set(self.domains)) == len(self.domains), "model.domains names a domain twice")
        reserved = {"mix", "all"} & set(self.domains)
        reserved |= {name for name in self.domains if name.startswith("without-")}  # engine.stems.WITHOUT
        require(not reserved, f"model.domains: {', '.join(reserved)} is reserved")


@dataclass(frozen=True, kw_only=True)
class MixingFields:
    """How training examples are mixed from stems."""

    seconds: float = 2.0
    """Length of an example."""
    domains: tuple[str, ...] = ()
    """Domains of the corpus that examples are mixed from, the model's if left empty. Those that the model has not by
    their names are added up: into its only domain, or into the one that the corpus lacks, such as `background`."""
    min_sample_rate: int = 0
    """Files of a lower rate, in Hz, are left out, because they have nothing above half of it; 0 takes all."""
    track_probabilities: tuple[float, ...] = (0.6, 0.2, 0.2)
    """How often an example has one, two, three domains."""
    domain_probabilities: tuple[float, ...] = ()
    """How often each domain is in an example, each by itself, instead; of none the likeliest is. Left empty, all are
    equally likely."""
    snr_range: tuple[float, ...] = ()
    """Loudness of the first domain less that of all others together, from and to, in LU; left empty, their own targets
    count."""
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
        require(
            0.4 <= self.seconds <= 600,
            f"mixing.seconds must be from 0.4 (loudness needs it) to 600, got {self.seconds}",
        )
        require(
            math.isclose(sum(self.track_probabilities), 1.0, abs_tol=1e-6) and min(self.track_probabilities) >= 0,
            f"mixing.track_probabilities must be non-negative and add up to 1, got {list(self.track_probabilities)}",
        )
        require(len(set(self.domains)) == len(self.domains), "mixing.domains names a domain twice")
        require_range("mixing.domain_probabilities", self.domain_probabilities, 0, 1)
        require_range("mixing.snr_range", self.snr_range, -60, 60)
        require(
            len(self.snr_range) in (0, 2) and sorted(self.snr_range) == list(self.snr_range),
            f"mixing.snr_range must be two numbers, the lower first, or none, got {list(self.snr_range)}",
        )
        require_range("mixing.min_sample_rate", self.min_sample_rate, 0, MAX_RATE)
        require_range("mixing.loudness", self.loudness, *LOUDNESS_RANGE)
        require_range("mixing.mix_loudness", self.mix_loudness, *LOUDNESS_RANGE)
        require_range("mixing.loudness_range", self.loudness_range, 0, 40)
        require_range("mixing.peak", self.peak, -60, 0)
        require_range("mixing.quiet_probability", self.quiet_probability, 0, 1)
        require_range("mixing.quiet_range", self.quiet_range, 0, 60)


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
    pauses: float = 0.0
    """How often a stem is silent for a tenth to three quarters of the time, at a random place."""

    def __post_init__(self) -> None:
        for name in ("polarity", "reverb", "equalizer", "bandwidth", "codec", "pauses"):
            require_range(f"augmentation.{name}", getattr(self, name), 0, 1)
        require_range("augmentation.layering", self.layering, 0, 1)
        require_range("augmentation.gain_range", self.gain_range, 0, 40)
        require_range("augmentation.speed_range", self.speed_range, 0, 0.5)


@dataclass(frozen=True, kw_only=True)
class TrainingFields:
    """Optimizer and schedule."""

    batch_size: int = 64
    """Examples per step."""
    steps: int = 400_000
    """Optimizer steps of the whole run."""
    learning_rate: float = 1e-4
    """Peak learning rate."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """`muon` orthogonalizes the updates of the matrices that the family names and leaves the rest to AdamW."""
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
    average_decay: float = 0.0
    """Decay per step of the moving average of weights that is validated and shipped; 0 for none."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "steps", "learning_rate", "clip_norm"):
            require_positive(f"training.{name}", getattr(self, name))
        require_averages("training.betas", self.betas)
        require(0 < self.gamma <= 1, f"training.gamma must be more than 0 and at most 1, got {self.gamma}")
        require_range("training.final_learning_rate", self.final_learning_rate, 0, 1)
        require(
            0 <= self.average_decay < 1,
            f"training.average_decay must be at least 0 and less than 1, got {self.average_decay}",
        )
        require(0 <= self.seed < 2**31, f"training.seed must be from 0 to 2^31 - 1, got {self.seed}")
        for name in ("warmup_steps", "weight_decay"):
            require_not_negative(f"training.{name}", getattr(self, name))


@dataclass(frozen=True, kw_only=True)
class StageFields:
    """A stretch of training: what is trained, with which losses, for how long."""

    parts: tuple[str, ...] = ()
    """Parts of the network that are trained, the others stay as they are; all of them if left empty."""
    losses: tuple[str, ...] = ()
    """Terms of the objective; all that have a weight if left empty."""
    steps: int = 0
    """Optimizer steps; in the last stage 0 stands for the rest of `training.steps`."""
    learning_rate: float = 1.0
    """Peak learning rate, as a share of `training.learning_rate`; rise and fall are a stage's own."""

    def __post_init__(self) -> None:
        require(self.steps >= 0, f"stages.steps must not be negative, got {self.steps}")
        require_positive("stages.learning_rate", self.learning_rate)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What every recipe has; that of a family adds the tables of its networks (see `families`)."""

    name: str
    family: str = DEFAULT_FAMILY
    """Kind of model; it says which other tables there are."""
    model: ModelFields = field(default_factory=ModelFields)
    mixing: MixingFields = field(default_factory=MixingFields)
    augmentation: AugmentationFields = field(default_factory=AugmentationFields)
    training: TrainingFields = field(default_factory=TrainingFields)
    stages: tuple[StageFields, ...] = ()
    """What is trained one after the other; everything at once if left empty."""

    is_published: ClassVar[bool] = False
    """Whether there are checkpoints elsewhere that `sdc models import` reads."""
    losses: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Terms of the family's objective, which stages may name, and the parts of the network that each depends on. The
    weight of each is a field of `training`."""

    def __post_init__(self) -> None:
        self._check_names()
        self._check_mixing()
        self._check_stages()

    def _check_mixing(self) -> None:
        members = [number for group in self.groups for number in group]
        require(
            sorted(members) == list(range(len(self.sources))) and all(self.groups),
            f"mixing.domains: {', '.join(self.sources)} cannot be shared out among {', '.join(self.model.domains)}; "
            "name the model's domains, all or all but one, which gets what else you name",
        )
        require(
            len(self.mixing.track_probabilities) <= len(self.sources),
            "mixing.track_probabilities has more entries than there are domains",
        )
        require(
            len(self.mixing.loudness) == len(self.sources),
            f"mixing.loudness needs one target per domain, {len(self.sources)}",
        )
        require(
            len(self.augmentation.layering) in (0, len(self.sources)),
            f"augmentation.layering needs one probability per domain, {len(self.sources)}, or none at all",
        )
        require(
            len(self.mixing.domain_probabilities) in (0, len(self.sources)),
            f"mixing.domain_probabilities needs one per domain, {len(self.sources)}, or none at all",
        )
        require(len(self.sources) > 1 or not self.mixing.snr_range, "mixing.snr_range needs two domains or more")

    def _check_names(self) -> None:
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

    def _check_stages(self) -> None:
        for number, stage in enumerate(self.stages):
            for kind, named, known in (("parts", stage.parts, self.parts), ("losses", stage.losses, self.losses)):
                where = f"stages.{number}.{kind}"
                for name in named:
                    require(name in known, f"{where}: there is no {name!r}; choose among {', '.join(known)}")
                require(len(set(named)) == len(named), f"{where} names something twice")
            last = number == len(self.stages) - 1
            require(stage.steps > 0 or last, f"stages.{number}.steps: has none; only the last stage may leave it out")
        total, given = self.training.steps, sum(stage.steps for stage in self.stages)
        if self.stages and self.stages[-1].steps:
            require(given == total, f"stages.steps add up to {given}; make them, or training.steps ({total}), agree")
        require(not self.stages or self.stages[-1].steps > 0 or given < total, self._nothing_left(given))
        for number, stage in enumerate(self.plan if self.losses else ()):
            where = f"stages.{number}" if self.stages else "training"
            require(bool(self.losses_of(stage)), f"{where}: none of its losses has a weight; give one a weight")
            require(
                bool(self.trained_in(stage)),
                f"{where}: {', '.join(self.losses_of(stage))} depend on none of {', '.join(stage.parts)}; "
                "name other parts or losses",
            )

    def _nothing_left(self, given: int) -> str:
        total = self.training.steps
        return f"stages.steps add up to {given} and leave nothing of training.steps, {total}, for the last stage"

    def losses_of(self, stage: StageFields) -> tuple[str, ...]:
        """Terms that count in a stage."""
        named = stage.losses or tuple(self.losses)
        return tuple(loss for loss in named if getattr(self.training, f"{loss}_weight") > 0)

    def trained_in(self, stage: StageFields) -> tuple[str, ...]:
        """Parts that are trained in a stage: those of its parts that one of its losses depends on."""
        reached = {part for loss in self.losses_of(stage) for part in self.losses[loss]}
        return tuple(part for part in self.parts if part in reached and (not stage.parts or part in stage.parts))

    @property
    def parts(self) -> tuple[str, ...]:
        """Parts of the family's network, which stages may name."""
        return ()

    @property
    def plan(self) -> tuple[StageFields, ...]:
        """The stages, each with its number of steps; a single one where the recipe names none."""
        stages = self.stages or (StageFields(),)
        rest = self.training.steps - sum(stage.steps for stage in stages)
        return (*stages[:-1], replace(stages[-1], steps=stages[-1].steps or rest))

    def stage_of(self, step: int) -> int:
        """Number of the stage in which a step is taken, or the last one after all of them."""
        for number, stage in enumerate(self.plan if self.losses else ()):
            step -= stage.steps
            if step < 0:
                return number
        return len(self.plan) - 1

    @property
    def sources(self) -> tuple[str, ...]:
        """Domains of the corpus that examples are mixed from."""
        return self.mixing.domains or self.model.domains

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """Numbers of the `sources` that each domain of the model is the sum of."""
        names = self.model.domains
        if len(names) == 1:
            return (tuple(range(len(self.sources))),)
        rest = tuple(number for number, source in enumerate(self.sources) if source not in names)
        return tuple((self.sources.index(name),) if name in self.sources else rest for name in names)
