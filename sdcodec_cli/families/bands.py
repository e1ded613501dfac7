"""Codecs for bands of frequency ("Soft Disentanglement in Frequency Bands for Neural Audio Codecs", arXiv:2510.03735).

A *branch* is an SD-Codec (or a DAC) at a sample rate of its own. The lowest one codes what is below half of its rate;
each further one codes what the sum of those before it, brought to its own rate, lacks of the audio. So it adds what
lies above, and repairs what lies below: nothing is filtered out of what it is given. Where a branch says so it is given
only what lies above the band below (ours): what it codes does not depend on the branches before it then, which need not
be run to train it. The lowest one may be another model, which is referred to.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from ..errors import SdcError
from ..recipe import (
    DEFAULT_FAMILY,
    BandsModelFields,
    BandsTrainingFields,
    BranchFields,
    CodecModelFields,
    CodecTrainingFields,
    DiscriminatorFields,
    MixingFields,
    NetworkFields,
    QuantizerFields,
    Recipe,
    ReferenceFields,
    Residual,
    StageFields,
)
from ..recipe.bands import check_streams
from ..recipe.checks import require, require_range
from . import sdcodec
from .family import Family, Stream
from .sdcodec import SDCodecRecipe

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from ..nn.bands import Bands
    from ..nn.objectives import Estimate, ParameterGroup
    from ..nn.objectives.adversarial import Critic
    from ..nn.objectives.bands import BandsChoices, BandsObjective
    from ..nn.tracing import GraphPart

MAX_BRANCHES = 4
"""More than anybody has use for: from 8 kHz to 16, 32 and 64."""

MAX_TERM = 8
"""Of the ratio of two rates: resampling is a product with a matrix as large as its terms."""


def _paper_branches() -> tuple[BranchFields, ...]:
    """Two DAC of 2 kbit/s; strides are not in the paper, but 50 frames per second follow from its rates."""
    quantizer = QuantizerFields(num_codebooks=4, num_shared=4)
    return tuple(
        BranchFields(
            sample_rate=sample_rate,
            hop_length=math.prod(strides),
            encoder=NetworkFields(width=64, strides=strides),
            decoder=NetworkFields(width=1536, strides=strides[::-1]),
            quantizer=quantizer,
        )
        for sample_rate, strides in ((16_000, (2, 4, 5, 8)), (32_000, (2, 5, 8, 8)))
    )


@dataclass(frozen=True, kw_only=True)
class BandsRecipe(Recipe):
    """Everything needed to build and train a codec of several branches."""

    family: str = "bands"
    model: BandsModelFields = field(default_factory=BandsModelFields)
    branches: tuple[BranchFields | ReferenceFields, ...] = field(default_factory=_paper_branches)
    """The codecs, that of the lowest rate first, which may be another model."""
    mixing: MixingFields = field(
        default_factory=lambda: MixingFields(track_probabilities=(1.0,), loudness=(-24.0,), min_sample_rate=32_000)
    )
    discriminator: DiscriminatorFields = field(default_factory=DiscriminatorFields)
    """Of every branch."""
    training: BandsTrainingFields = field(default_factory=BandsTrainingFields)

    losses: ClassVar[Mapping[str, tuple[str, ...]]] = dict.fromkeys(
        sdcodec.SDCodecRecipe.losses, tuple(f"branches.{number}" for number in range(MAX_BRANCHES))
    )

    def __post_init__(self) -> None:
        require_range("the number of branches", len(self.branches), 1, MAX_BRANCHES)
        self._check_reference()
        super().__post_init__()
        rates = [self._rate(number) for number in range(len(self.branches))]
        for (number, low), (_, high) in itertools.pairwise(enumerate(rates)):
            require(low < high, f"branches.{number + 1}.sample_rate must be more than {low}, that of the one before")
        for low, high in itertools.combinations(rates, 2):
            terms = [rate // math.gcd(low, high) for rate in (low, high)]
            require(
                max(terms) <= MAX_TERM,
                f"branches: {low} and {high} Hz are as {terms[0]} to {terms[1]}; choose rates that are as numbers up "
                f"to {MAX_TERM}, such as {low} and {2 * low}",
            )
        require(
            self.model.sample_rate == rates[-1],
            f"model.sample_rate is {self.model.sample_rate}, that of the last branch {rates[-1]}; make them agree",
        )
        for number in range(len(self.branches)):
            try:
                branch_recipe(self, number)
            except ValueError as error:
                # What an SD-Codec has in its table of the model, a branch has by itself.
                raise ValueError(f"branches.{number}: {str(error).replace('model.', '')}") from None
        self._check_residuals()
        check_streams([stream.name for stream in FAMILY.streams(self)])

    def _check_reference(self) -> None:
        """What is wrong about branches that are other models."""
        for number, branch in enumerate(self.branches):
            own = isinstance(branch, BranchFields)
            require(own or number == 0, f"branches.{number}.model: only the first branch can be another model")
        if self.referred is None:
            return
        require(len(self.branches) > 1, "branches: there is nothing above the model that is referred to; add a branch")
        for name in ("domains", "loudness"):
            own, given = getattr(self.model, name), getattr(self.referred.model, name)
            require(own == given, f"model.{name} is {own}, that of {self.referred.name} {given}; make them agree")
        frozen = "branches.0"
        for number, stage in enumerate(self.stages):
            require(
                frozen not in stage.parts,
                f"stages.{number}.parts: {frozen} is {self.referred.name}, which stays as it is; leave it out",
            )

    def _check_residuals(self) -> None:
        """What is wrong about what branches are given."""
        require(
            self.residuals[0] == "whole", 'branches.0.residual: there is nothing below the first branch; use "whole"'
        )
        if "above" not in self.residuals:
            return
        given = 'is about what a branch with residual = "above" is not given; make it 0'
        for name in ("band_snr_weight", "level_weight", "envelope_probability"):
            require(getattr(self.training, name) == 0, f"training.{name} {given}")
        require(
            self.training.narrow_probability == 0 or "whole" in self.residuals[1:],
            f"training.narrow_probability {given}",
        )

    @functools.cached_property
    def referred(self) -> SDCodecRecipe | None:
        """The recipe of the model that the first branch is, if it is another one."""
        from ..zoo import find

        first = self.branches[0]
        if isinstance(first, BranchFields):
            return None
        try:
            found = find(first.model, family=DEFAULT_FAMILY).recipe
        except SdcError as error:
            raise ValueError(f"branches.0.model: {error}") from error
        assert isinstance(found, SDCodecRecipe)
        return found

    def _rate(self, number: int) -> int:
        branch = self.branches[number]
        if isinstance(branch, BranchFields):
            return branch.sample_rate
        assert self.referred is not None
        return self.referred.model.sample_rate

    @property
    def residuals(self) -> tuple[Residual, ...]:
        """What each branch codes."""
        return tuple(branch.residual if isinstance(branch, BranchFields) else "whole" for branch in self.branches)

    @functools.cached_property
    def codecs(self) -> tuple[SDCodecRecipe, ...]:
        """The branches, each as the recipe of an SD-Codec by itself."""
        return tuple(branch_recipe(self, number) for number in range(len(self.branches)))

    @property
    def parts(self) -> tuple[str, ...]:
        """The branches that are trained, which stages may name: all but another model."""
        own = (number for number, branch in enumerate(self.branches) if isinstance(branch, BranchFields))
        return tuple(f"branches.{number}" for number in own)


def branch_recipe(recipe: BandsRecipe, number: int) -> SDCodecRecipe:
    """The recipe of one branch, as that of an SD-Codec by itself.

    Raises:
        ValueError: sizes that make no codec
    """
    model, branch = recipe.model, recipe.branches[number]
    if isinstance(branch, ReferenceFields):
        assert recipe.referred is not None
        return recipe.referred
    return SDCodecRecipe(
        name=recipe.name,
        model=CodecModelFields(
            description=model.description,
            sample_rate=branch.sample_rate,
            domains=model.domains,
            loudness=model.loudness,
            hop_length=branch.hop_length,
            latent_dim=branch.latent_dim,
            activity=branch.activity,
            effort=model.effort,
        ),
        encoder=branch.encoder,
        decoder=branch.decoder,
        quantizer=branch.quantizer,
        discriminator=recipe.discriminator,
        mixing=recipe.mixing,
        augmentation=recipe.augmentation,
        training=CodecTrainingFields(
            **{each.name: getattr(recipe.training, each.name) for each in dataclasses.fields(CodecTrainingFields)}
        ),
    )


class BandsFamily(Family[BandsRecipe]):
    """See `Family`. By itself it has nothing that a runtime runs: that are its codecs, one after the other."""

    recipe = BandsRecipe
    weight_norm = True
    parts = ()
    sizes = ()

    def codecs(self, recipe: BandsRecipe) -> dict[str, Recipe]:
        """The branches, by how the names of their weights begin."""
        return {f"branches.{number}.": codec for number, codec in enumerate(recipe.codecs)}

    def references(self, recipe: BandsRecipe) -> dict[str, ReferenceFields]:
        """The lowest branch, where it is another model."""
        first = recipe.branches[0]
        return {"branches.0.": first} if isinstance(first, ReferenceFields) else {}

    def residuals(self, recipe: BandsRecipe) -> tuple[Residual, ...]:
        """See `Family.residuals`."""
        return recipe.residuals

    def streams(self, recipe: BandsRecipe) -> tuple[Stream, ...]:
        """One per domain and branch; those of the first are named after the domain, others `DOMAIN-2` and so on."""
        return tuple(
            Stream(
                name=domain if number == 0 else f"{domain}-{number + 1}",
                stem=domain,
                num_codebooks=codec.quantizer.num_codebooks,
                num_shared=codec.quantizer.num_shared,
                codebook_size=codec.quantizer.codebook_size,
                frame_rate=codec.frame_rate,
            )
            for number, codec in enumerate(recipe.codecs)
            for domain in recipe.model.domains
        )

    def build(self, recipe: BandsRecipe) -> Bands:
        """See `Family.build`; a branch that is another model has the weights of that.

        Raises:
            ModelError: the other model has no weights, or others than those that are meant
        """
        from ..nn.bands import Bands, frozen

        codecs = [sdcodec.FAMILY.build(codec) for codec in recipe.codecs]
        for reference in self.references(recipe).values():
            codecs[0].load_state_dict(_weights_of(reference), assign=True)
            codecs[0] = frozen(codecs[0])
        return Bands(codecs, [codec.model.sample_rate for codec in recipe.codecs], recipe.residuals)

    def modules(self, network: Bands, recipe: BandsRecipe) -> dict[str, nn.Module]:
        """None, see `codecs`."""
        return {}

    def graph_parts(self, network: Bands, recipe: BandsRecipe) -> dict[str, GraphPart]:
        """None, see `codecs`."""
        return {}

    def measured(self, network: Bands, recipe: BandsRecipe) -> dict[str, int]:
        """None, see `codecs`."""
        return {}

    def adopt(self, network: Bands, given: Recipe, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights of another model of this family, or of a codec, which is one with a single branch.

        Branches that the other has not begin anew; one that is another model stays that.
        """
        found = network.state_dict()
        theirs = FAMILY.codecs(given) if isinstance(given, BandsRecipe) else {"": given}
        elsewhere = FAMILY.references(given) if isinstance(given, BandsRecipe) else {}
        for number, (codec, (start, recipe)) in enumerate(zip(network.codecs, theirs.items(), strict=False)):
            prefix = f"branches.{number}."
            if not any(key.startswith(prefix) for key in found):
                continue
            own = {key.removeprefix(start): value for key, value in tensors.items() if key.startswith(start)}
            own = _weights_of(elsewhere[start]) if start in elsewhere else own
            adopted = sdcodec.FAMILY.adopt(codec, recipe, own)
            found = {key: value for key, value in found.items() if not key.startswith(prefix)}
            found |= {f"{prefix}{key}": value for key, value in adopted.items()}
        return found

    def choose(self, active: np.ndarray, recipe: BandsRecipe, indices: range) -> BandsChoices:
        """See `nn.objectives.bands.choose`."""
        from ..nn.objectives.bands import choose

        counts = [codec.quantizer.num_codebooks for codec in recipe.codecs]
        return choose(active, recipe.training, counts, indices)

    def objective(self, network: Bands, recipe: BandsRecipe, stage: StageFields) -> BandsObjective:
        """See `nn.objectives.bands.BandsObjective`."""
        from ..nn.objectives.bands import BandsObjective

        trained = [_number(part) for part in recipe.trained_in(stage)]
        return BandsObjective(network, recipe.training, stage, trained)

    def critic(self, recipe: BandsRecipe) -> Critic | None:
        """Discriminators for each branch.

        Raises:
            RecipeError: sizes that make no network
        """
        from ..nn.objectives.bands import BandsCritic

        found = {part: sdcodec.FAMILY.critic(recipe.codecs[_number(part)]) for part in recipe.parts}
        critics = {_number(part): critic for part, critic in found.items() if critic is not None}
        return BandsCritic(critics) if critics else None

    def parameter_groups(self, network: Bands, recipe: BandsRecipe) -> Sequence[ParameterGroup]:
        """Those of all branches together."""
        from ..nn.objectives import ParameterGroup

        each = [
            sdcodec.FAMILY.parameter_groups(codec, recipe.codecs[_number(part)])
            for codec, part in zip(network.own, recipe.parts, strict=True)
        ]
        return tuple(
            ParameterGroup(
                groups[0].name,
                tuple(parameter for group in groups for parameter in group.parameters),
                learning_rate=groups[0].learning_rate,
                muon=groups[0].muon,
            )
            for groups in zip(*each, strict=True)
        )

    def compiled(self, network: Bands) -> Sequence[nn.Module]:
        """Encoders and decoders."""
        return [module for codec in network.own for module in sdcodec.FAMILY.compiled(codec)]

    def estimates(self, network: Bands, recipe: BandsRecipe, stems: Tensor) -> list[Estimate]:
        """See `nn.objectives.bands.estimates`."""
        from ..nn.objectives.bands import estimates

        return estimates(network, stems)


def _number(part: str) -> int:
    """Of the branch that a part is."""
    return int(part.removeprefix("branches."))


def _weights_of(reference: ReferenceFields) -> dict[str, Tensor]:
    """Weights of a model that is referred to, in 32 bits.

    Raises:
        ModelError: it has none, or others than those that are meant
    """
    import torch

    from .. import weights, zoo

    entry = zoo.find(reference.model, family=DEFAULT_FAMILY)
    stored = weights.read(zoo.weights_path(entry))
    zoo.check_weights(entry, weights.sha256(stored), reference.weights_sha256)
    return {name: torch.from_numpy(tensor) for name, tensor in weights.unpack(stored).items()}


FAMILY = BandsFamily()
