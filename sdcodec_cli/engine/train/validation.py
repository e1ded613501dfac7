"""A quick look at how a run is doing, on fixed mixtures; `sdc eval` is the real measure.

Legend: B mixtures, N domains, T samples.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from ...data.pool import Pool
from ...errors import InputError
from ...nn.sdcodec import SDCodec
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
    """Mean SI-SDR in dB: of the mix, of each stem coded alone, and of each stem decoded out of the mix."""
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
        mixing = dataclasses.replace(recipe.mixing, seconds=SECONDS, track_probabilities=tracks, quiet_probability=0.0)
        plain = dataclasses.replace(
            recipe,
            mixing=mixing,
            augmentation=type(recipe.augmentation)(),
            training=dataclasses.replace(recipe.training, seed=SEED),
        )
        self.stems = level(make_batch(pool, plain, range(EXAMPLES)), recipe)
        self.domains = recipe.model.domains
        for domain, wavs in zip(self.domains, self.stems.unbind(1), strict=True):
            if not bool(wavs.any()):
                raise InputError(f"{domain}: the valid split has nothing but silence")

    @torch.no_grad()
    def __call__(self, model: SDCodec, *, recordings: int = 2) -> Validation:
        """Scores of a model, and its output for the first `recordings` mixtures."""
        device = next(model.parameters()).device
        stems = self.stems.to(device)
        mixtures = stems.sum(1)
        out = {name: wav[:, 0] for name, wav in model(mixtures[:, None]).items()}
        scores = {"mix": _mean(out["mix"], mixtures)}
        kept = [Recording(f"{number} mix", mixtures[number], out["mix"][number]) for number in range(recordings)]
        for n, domain in enumerate(self.domains):
            latents = model.quantize(model.encode(stems[:, n, None])).latents[n]
            alone = model.decode(latents)[:, 0, : mixtures.shape[-1]]
            scores[domain] = _mean(alone, stems[:, n])
            scores[f"{domain} separated"] = _mean(out[domain], stems[:, n])
            kept += [
                Recording(f"{number} {domain} separated", stems[number, n], out[domain][number])
                for number in range(recordings)
            ]
        return Validation(scores, tuple(kept))


def _mean(estimate: Tensor, reference: Tensor) -> float:
    heard = reference.square().sum(-1) > 0
    pair = (wav[heard].cpu().numpy() for wav in (estimate, reference))
    return float(si_sdr(*pair).mean())
