"""Codecs for bands of frequency ("Soft Disentanglement in Frequency Bands for Neural Audio Codecs", arXiv:2510.03735).

A *branch* is an SD-Codec (or a DAC) at a sample rate of its own. The lowest one codes what is below half of its rate;
each further one codes what the sum of those before it, brought to its own rate, lacks of the audio. So it adds what
lies above, and repairs what lies below: nothing is filtered out of what it is given.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from ..recipe import (
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
    branches: tuple[BranchFields, ...] = field(default_factory=_paper_branches)
    """The codecs, that of the lowest rate first."""
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
        super().__post_init__()
        rates = [branch.sample_rate for branch in self.branches]
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
        check_streams([stream.name for stream in FAMILY.streams(self)])

    @property
    def parts(self) -> tuple[str, ...]:
        """The branches, which stages may name."""
        return tuple(f"branches.{number}" for number in range(len(self.branches)))


def branch_recipe(recipe: BandsRecipe, number: int) -> SDCodecRecipe:
    """The recipe of one branch, as that of an SD-Codec by itself.

    Raises:
        ValueError: sizes that make no codec
    """
    model, branch = recipe.model, recipe.branches[number]
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
        return {f"{part}.": branch_recipe(recipe, number) for number, part in enumerate(recipe.parts)}

    def streams(self, recipe: BandsRecipe) -> tuple[Stream, ...]:
        """One per domain and branch; those of the first are named after the domain, others `DOMAIN-2` and so on."""
        return tuple(
            Stream(
                name=domain if number == 0 else f"{domain}-{number + 1}",
                stem=domain,
                num_codebooks=branch.quantizer.num_codebooks,
                num_shared=branch.quantizer.num_shared,
                codebook_size=branch.quantizer.codebook_size,
                frame_rate=branch.sample_rate / branch.hop_length,
            )
            for number, branch in enumerate(recipe.branches)
            for domain in recipe.model.domains
        )

    def build(self, recipe: BandsRecipe) -> Bands:
        """See `Family.build`."""
        from ..nn.bands import Bands

        codecs = [sdcodec.FAMILY.build(branch_recipe(recipe, number)) for number in range(len(recipe.branches))]
        return Bands(codecs, [branch.sample_rate for branch in recipe.branches])

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

        Branches that the other has not begin anew.
        """
        found = network.state_dict()
        theirs = FAMILY.codecs(given) if isinstance(given, BandsRecipe) else {"": given}
        for number, (codec, (start, recipe)) in enumerate(zip(network.codecs, theirs.items(), strict=False)):
            prefix = f"branches.{number}."
            own = {key.removeprefix(start): value for key, value in tensors.items() if key.startswith(start)}
            adopted = sdcodec.FAMILY.adopt(codec, recipe, own)
            found = {key: value for key, value in found.items() if not key.startswith(prefix)}
            found |= {f"{prefix}{key}": value for key, value in adopted.items()}
        return found

    def choose(self, active: np.ndarray, recipe: BandsRecipe, indices: range) -> BandsChoices:
        """See `nn.objectives.bands.choose`."""
        from ..nn.objectives.bands import choose

        counts = [branch.quantizer.num_codebooks for branch in recipe.branches]
        return choose(active, recipe.training, counts, indices)

    def objective(self, network: Bands, recipe: BandsRecipe, stage: StageFields) -> BandsObjective:
        """See `nn.objectives.bands.BandsObjective`."""
        from ..nn.objectives.bands import BandsObjective

        trained = [recipe.parts.index(part) for part in recipe.trained_in(stage)]
        return BandsObjective(network, recipe.training, stage, trained)

    def critic(self, recipe: BandsRecipe) -> Critic | None:
        """Discriminators for each branch.

        Raises:
            RecipeError: sizes that make no network
        """
        from ..nn.objectives.bands import BandsCritic

        critics = [sdcodec.FAMILY.critic(branch_recipe(recipe, number)) for number in range(len(recipe.branches))]
        found = [critic for critic in critics if critic is not None]
        return BandsCritic(found) if found else None

    def parameter_groups(self, network: Bands) -> Sequence[ParameterGroup]:
        """Those of all branches together."""
        from ..nn.objectives import ParameterGroup

        each = [sdcodec.FAMILY.parameter_groups(codec) for codec in network.codecs]
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
        return [module for codec in network.codecs for module in sdcodec.FAMILY.compiled(codec)]

    def estimates(self, network: Bands, recipe: BandsRecipe, stems: Tensor) -> list[Estimate]:
        """See `nn.objectives.bands.estimates`."""
        from ..nn.objectives.bands import estimates

        return estimates(network, stems)


FAMILY = BandsFamily()
