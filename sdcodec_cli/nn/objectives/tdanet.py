"""What a separator loses: the signal-to-noise ratio of each stem, in a fixed order.

Legend: B batch, N stems, T samples.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from ...recipe import StageFields
from ..distances import negative_snr
from ..quantize import Observer
from .objective import Choices, Objective
from .terms import leakage


class SeparatorObjective(Objective):
    """A network from mixtures `[B, T]` to stems `[B, N, T]`, with its losses.

    The ratio of signal to noise, not its scale-invariant form: stems have to add up to the mixture. Which output is
    which domain is fixed, so nothing is permuted. A domain that is not there is to be silent.

    Args:
        network: to train
        weights: of the losses `snr` and `leakage`
        stage: which of them count
    """

    def __init__(self, network: nn.Module, weights: Mapping[str, float], stage: StageFields) -> None:
        super().__init__(network, stage.losses)
        self.weights = dict(weights)

    def forward(self, stems: Tensor, choices: Choices, observe: Observer | None = None) -> dict[str, Tensor]:
        """`stems`, as they come out of the mixture, `[B, N, T]`."""
        return {"stems": self.network(stems.sum(1)).float()}

    def losses(self, outputs: dict[str, Tensor], stems: Tensor, choices: Choices, step: int) -> dict[str, Tensor]:
        """See `Objective.losses`."""
        batch = len(stems)
        wanted, estimates = self.compared(outputs, stems, choices)
        silent = ~choices.active
        mixtures = stems.sum(1, keepdim=True).expand_as(stems)
        losses = {
            "snr": negative_snr(estimates, wanted).sum() / batch,
            "leakage": leakage(outputs["stems"][silent], mixtures[silent]).sum() / batch,
        }
        terms = [weight * losses[name] for name, weight in self.weights.items() if self.has(name, weight)]
        return {"total": sum(terms, stems.new_zeros(())), **losses}

    def compared(self, outputs: dict[str, Tensor], stems: Tensor, choices: Choices) -> tuple[Tensor, Tensor]:
        """Stems that are there, as they should be and as they came out."""
        return stems[choices.active], outputs["stems"][choices.active]
