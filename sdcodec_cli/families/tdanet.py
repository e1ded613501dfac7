"""TDANet ("An efficient encoder-decoder architecture with top-down attention for speech separation", arXiv:2209.15200).

The baseline of SD-Codec's paper in separation: a network that takes stems out of a mixture, and has no codes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from ..recipe import Recipe, SeparatorModelFields, SeparatorTrainingFields, StageFields
from ..recipe.checks import require, require_positive
from .family import Family, Stream

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from ..nn.objectives import Choices, Estimate, ParameterGroup
    from ..nn.objectives.tdanet import SeparatorObjective
    from ..nn.tdanet import TDANet
    from ..nn.tracing import GraphPart


PARTS = (
    "encoder",
    "norm",
    "bottleneck",
    "block",
    "again",
    "again_activation",
    "mask_activation",
    "masks",
    "decoder",
)
"""Of the network, in the order in which audio goes through them."""

FILTER_RATE = 0.3
"""Learning rate of the filters to and from frames, as a share of all others'."""


@dataclass(frozen=True, kw_only=True)
class SeparatorFields:
    """The network; the defaults are those of the published code, at 16 kHz."""

    window_length: int = 64
    """Samples that a frame sees."""
    stride: int = 16
    """Samples per frame."""
    num_filters: int = 33
    """Of the filterbank that makes frames of audio."""
    channels: int = 128
    """Between iterations."""
    width: int = 512
    """Channels inside of the block."""
    depth: int = 5
    """Levels of the block's pyramid; each has half the frames of the one before."""
    num_heads: int = 8
    """Of the attention."""
    num_iterations: int = 16
    """How often the block is run."""
    joint_decoder: bool = True
    """Whether a stem is made of the masked frames of all stems, as in the published code, or of its own alone."""
    magnitudes: bool = False
    """Whether the block sees the log power of pairs of filters, which begin as cosines and sines (not in the paper)."""

    def __post_init__(self) -> None:
        for name in ("window_length", "stride", "num_filters", "channels", "width", "depth", "num_iterations"):
            require_positive(f"separator.{name}", getattr(self, name))
        require(
            self.window_length % self.stride == 0 and (self.window_length - self.stride) % 2 == 0,
            f"separator.window_length must be a multiple of stride and an even number more, got {self.window_length}",
        )
        require(
            self.num_heads > 0 and self.width % (2 * self.num_heads) == 0,
            f"separator.width must be a multiple of twice num_heads, got {self.width}",
        )
        require(
            not self.magnitudes or (self.num_filters % 2 == 0 and self.num_filters <= self.window_length),
            f"separator.num_filters must be even and at most window_length with magnitudes, got {self.num_filters}",
        )


@dataclass(frozen=True, kw_only=True)
class TDANetRecipe(Recipe):
    """Everything needed to build and train a TDANet."""

    family: str = "tdanet"
    model: SeparatorModelFields = field(default_factory=SeparatorModelFields)
    separator: SeparatorFields = field(default_factory=SeparatorFields)
    training: SeparatorTrainingFields = field(default_factory=SeparatorTrainingFields)

    losses: ClassVar[Mapping[str, tuple[str, ...]]] = dict.fromkeys(("snr", "leakage"), PARTS)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(len(self.model.domains) > 1, "model.domains: there is nothing to separate with one domain")

    @property
    def parts(self) -> tuple[str, ...]:
        """Parts of the network, which stages may name."""
        return PARTS


class TDANetFamily(Family[TDANetRecipe]):
    """See `Family`."""

    recipe = TDANetRecipe
    parts = ("separate",)
    sizes = ("hop_length",)

    def streams(self, recipe: TDANetRecipe) -> tuple[Stream, ...]:
        """None: it has no codes."""
        return ()

    def build(self, recipe: TDANetRecipe) -> TDANet:
        """See `Family.build`."""
        from ..nn.tdanet import TDANet

        # Its arguments are the fields, by the same names.
        return TDANet(num_stems=len(recipe.model.domains), **dataclasses.asdict(recipe.separator))

    def modules(self, network: TDANet, recipe: TDANetRecipe) -> dict[str, nn.Module]:
        """`separate`: audio `[T]` to stems `[N, T]`."""
        from ..nn.tdanet import Separate

        return {"separate": Separate(network)}

    def graph_parts(self, network: TDANet, recipe: TDANetRecipe) -> dict[str, GraphPart]:
        """`separate`, for audio of any length that is a multiple of the network's `hop_length`."""
        import torch

        from ..nn.tracing import GraphPart

        wav = torch.randn(23 * network.hop_length)
        (module,) = self.modules(network, recipe).values()
        return {"separate": GraphPart(module, {"wav": wav}, {"wav": {0: "samples"}}, ("stems",))}

    def measured(self, network: TDANet, recipe: TDANetRecipe) -> dict[str, int]:
        """Samples that audio has to be a multiple of."""
        return {"hop_length": network.hop_length}

    def adopt(self, network: TDANet, given: Recipe, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights of another TDANet as they are; how often it runs its block makes no difference to them."""
        return dict(tensors)

    def choose(self, active: np.ndarray, recipe: TDANetRecipe, indices: range) -> Choices:
        """Nothing beside what is there."""
        import torch

        from ..nn.objectives import Choices

        return Choices(torch.from_numpy(active))

    def objective(self, network: TDANet, recipe: TDANetRecipe, stage: StageFields) -> SeparatorObjective:
        """See `nn.objectives.tdanet.SeparatorObjective`."""
        from ..nn.objectives.tdanet import SeparatorObjective

        weights = {name: getattr(recipe.training, f"{name}_weight") for name in recipe.losses}
        return SeparatorObjective(network, weights, stage)

    def parameter_groups(self, network: TDANet, recipe: TDANetRecipe) -> Sequence[ParameterGroup]:
        """Filters, which move slowly, and matrices between them, which are Muon's."""
        from ..nn.objectives import ParameterGroup

        filters = (*network.encoder.parameters(), *network.decoder.parameters())
        inner = [p for name, p in network.named_parameters() if not name.startswith(("encoder.", "decoder."))]
        return (
            ParameterGroup("filters", filters, learning_rate=FILTER_RATE),
            ParameterGroup("muon", tuple(p for p in inner if p.dim() == 2), muon=True),
        )

    def estimates(self, network: TDANet, recipe: TDANetRecipe, stems: Tensor) -> list[Estimate]:
        """Each stem out of the mixture."""
        from ..nn.objectives import Estimate

        found = network(stems.sum(1)).unbind(1)
        return [Estimate(*each) for each in zip(recipe.model.domains, found, stems.unbind(1), strict=True)]


FAMILY = TDANetFamily()
