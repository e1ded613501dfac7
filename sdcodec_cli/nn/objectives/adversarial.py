"""The least-squares game between the codec and the discriminators (arXiv:1611.04076), as DAC plays it.

DAC (arXiv:2306.06546) takes means within a tensor of scores or features, and sums: over networks, and for features over
their layers too, the scores left out. Here the means are within a row, so that rows can be weighted; the mean over rows
is DAC's loss.

Legend: R rows. Feature maps are what `nn.discriminator.Discriminators` returns: per network the outputs `[R, ...]` of
its layers, the scores last.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from ...recipe import DiscriminatorFields
from ..discriminator import Discriminators

FeatureMaps = Sequence[Sequence[Tensor]]


def discriminator_loss(real: FeatureMaps, decoded: FeatureMaps) -> Tensor:
    """What the discriminators minimize: 1 for real and 0 for decoded rows is their aim; `[R]`.

    The decoded waveform must be detached before it goes in, or the codec would be taught to be found out.
    """
    return deceiving_loss(real) + _row_sum(maps[-1].float().square() for maps in decoded)


def deceiving_loss(decoded: FeatureMaps) -> Tensor:
    """What the codec minimizes: its rows should score 1; `[R]`."""
    return _row_sum((1 - maps[-1].float()).square() for maps in decoded)


def feature_distance(real: FeatureMaps, decoded: FeatureMaps) -> Tensor:
    """Mean absolute difference of features, without a gradient to the real ones; `[R]`."""
    return _row_sum(
        _difference(ours, theirs.detach())
        for maps, wanted in zip(decoded, real, strict=True)
        for ours, theirs in zip(maps[:-1], wanted[:-1], strict=True)
    )


def _difference(ours: Tensor, theirs: Tensor) -> Tensor:
    """Absolute values, of the shape and precision of `ours`."""
    # Features take hundreds of megabytes: autocast would copy them all to float32, and `abs` keep every difference.
    with torch.autocast(ours.device.type, enabled=False):
        return F.l1_loss(ours, theirs, reduction="none")


def _row_sum(terms: Iterable[Tensor]) -> Tensor:
    """The sum over terms of each row's mean: several `[R, ...]` to `[R]`."""
    return torch.stack([term.mean(tuple(range(1, term.dim())), dtype=torch.float32) for term in terms]).sum(0)


class Critic(nn.Module):
    """Discriminators with their losses and those they give to the codec, in one forward pass.

    The codec's losses see the discriminators' weights as constants, so that a single backward pass serves both sides.

    Args:
        discriminators: to train
        fields: how they are trained
        weights: of the losses `adversarial` and `feature`
        start: step at which they join
        warmup: steps in which they only learn, from then on
    """

    def __init__(
        self,
        discriminators: Discriminators,
        fields: DiscriminatorFields,
        weights: Mapping[str, float],
        start: int,
        warmup: int,
    ) -> None:
        super().__init__()
        self.discriminators = discriminators
        self.fields, self.weights, self.start, self.warmup = fields, dict(weights), start, warmup

    def choose(self, parts: Sequence[str]) -> None:
        """Let those be trained that judge what these parts of the codec make."""

    def forward(self, real: Tensor, decoded: Tensor) -> dict[str, Tensor]:
        """Losses of each row, `[R]`, from two `[R, T]`: `discriminator`, `adversarial` and `feature`."""
        rows = len(real)
        maps = self.discriminators(torch.cat([real, decoded.detach()])[:, None])
        real_maps = [[layer[:rows] for layer in network] for network in maps]
        decoded_maps = [[layer[rows:] for layer in network] for network in maps]
        constants = {name: parameter.detach() for name, parameter in self.discriminators.named_parameters()}
        seen = functional_call(self.discriminators, constants, (decoded[:, None],))
        return {
            "discriminator": discriminator_loss(real_maps, decoded_maps),
            "adversarial": deceiving_loss(seen),
            "feature": feature_distance(real_maps, seen),
        }
