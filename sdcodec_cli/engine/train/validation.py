"""A quick look at how a run is doing, on fixed mixtures; `sdc eval` is the real measure.

Legend: B mixtures, N domains, T samples.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...data.pool import Pool
from ...errors import InputError
from ...families import of
from ...nn.objectives import Estimate
from ...recipe import Recipe
from ..metrics import si_sdr
from .batches import level, make_batch
from .log import Recording

SEED = 2**31 - 1
"""Of the validation mixtures."""

EXAMPLES, SECONDS = 24, 4.0


@dataclass(frozen=True)
class Validation:
    """What a validation found."""

    scores: dict[str, float]
    """Mean SI-SDR in dB of what the family compares, such as the mix and each stem decoded out of it."""
    recordings: tuple[Recording, ...]
    """The first mixtures and stems, as they were and as they came out."""

    @property
    def score(self) -> float:
        """Mean of all scores, by which the best checkpoint is told."""
        return sum(self.scores.values()) / len(self.scores)


class Validator:
    """Fixed mixtures of all domains, drawn once.

    Args:
        pool: held-out clips
        recipe: loudness targets; augmentation and quiet passages are left out

    Raises:
        InputError: a domain has nothing but silence
    """

    def __init__(self, pool: Pool, recipe: Recipe) -> None:
        tracks = (0.0,) * (len(recipe.sources) - 1) + (1.0,)
        mixing = dataclasses.replace(
            recipe.mixing,
            seconds=SECONDS,
            track_probabilities=tracks,
            domain_probabilities=(),
            snr_range=(),
            quiet_probability=0.0,
        )
        plain = dataclasses.replace(
            recipe,
            mixing=mixing,
            augmentation=type(recipe.augmentation)(),
            training=dataclasses.replace(recipe.training, seed=SEED),
        )
        self.recipe = recipe
        self.stems = level(make_batch(pool, plain, range(EXAMPLES)), recipe)
        for domain, wavs in zip(recipe.model.domains, self.stems.unbind(1), strict=True):
            if not bool(wavs.any()):
                raise InputError(f"{domain}: the valid split has nothing but silence")

    @torch.no_grad()
    def __call__(self, network: nn.Module, *, recordings: int = 2) -> Validation:
        """Scores of a network, and its output for the first `recordings` mixtures."""
        stems = self.stems.to(next(network.parameters()).device)
        found: list[Estimate] = of(self.recipe).estimates(network, self.recipe, stems)
        shown = [estimate for estimate in found if estimate.shown]
        kept = [
            Recording(f"{number} {each.name}", each.reference[number], each.estimate[number])
            for number in range(recordings)
            for each in shown
        ]
        return Validation({each.name: _mean(each.estimate, each.reference) for each in found}, tuple(kept))


def _mean(estimate: Tensor, reference: Tensor) -> float:
    sounds = reference.square().sum(-1) > 0
    if not sounds.any():
        return math.nan
    pair = (wav[sounds].cpu().numpy() for wav in (estimate, reference))
    return float(si_sdr(*pair).mean())
