"""What codecs for bands of frequency lose: the terms of an SD-Codec, of the sum up to each branch that is trained.

Legend: B batch, N domains, T samples at the highest rate, t samples at the rate of a branch, R rows, see `sdcodec`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ...recipe import BandsTrainingFields, CodecTrainingFields, StageFields
from ..bands import Bands
from ..quantize import MultiSourceRVQ, Observer
from . import sdcodec
from .adversarial import Critic
from .objective import Estimate, Objective
from .sdcodec import CodecChoices, CodecObjective, decoded_rows
from .terms import has_anything

CHOICES = 2
"""Sub-sequence of an example's random numbers for what is chosen here; mixing and `sdcodec` use those before."""

SUMMED = frozenset({"codebook", "commitment"})
"""Terms that are added up over the branches that are trained together; all others are averaged, as in the paper."""


@dataclass(frozen=True)
class BandsChoices(CodecChoices):
    """The same for all branches, but for how coarsely they quantize.

    `keep` is that of the first branch; the others follow it in proportion.
    """

    keep_above: Tensor
    """Codebooks that the other branches use, int64 `[branches - 1, N, B]`."""
    narrow: Tensor
    """Which examples come to the other branches without what lies above the band below, bool `[branches - 1, B]`."""


def choose(
    active: np.ndarray, fields: BandsTrainingFields, num_codebooks: Sequence[int], indices: range
) -> BandsChoices:
    """The choices for examples of which `active` `[B, N]` tells the domains; see `sdcodec.choose`."""
    chosen = sdcodec.choose(active, fields, num_codebooks[0], indices)
    shares = chosen.keep.numpy() / num_codebooks[0]
    above = [np.ceil(shares * count).astype(np.int64) for count in num_codebooks[1:]]
    narrow = np.zeros((len(above), len(active)), dtype=bool)
    for row, index in enumerate(indices):
        rng = np.random.default_rng([fields.seed, index, CHOICES])
        narrow[:, row] = rng.random(len(above)) < fields.narrow_probability
    return BandsChoices(
        **{field.name: getattr(chosen, field.name) for field in dataclasses.fields(chosen)},
        keep_above=torch.from_numpy(np.stack(above) if above else np.zeros((0, *shares.shape), np.int64)),
        narrow=torch.from_numpy(narrow),
    )


class BandsObjective(Objective):
    """Branches with their losses.

    Those that are not trained run without gradients, and none passes them: to a branch below it comes from one above
    only where both are trained. Branches that no trained one depends on do not run: those above the last one, and those
    below one that codes only what is above them, which is compared with that alone.

    Args:
        network: the codec
        fields: weights of the losses
        stage: which of them count
        trained: numbers of the branches that are trained
    """

    network: Bands

    def __init__(self, network: Bands, fields: CodecTrainingFields, stage: StageFields, trained: Sequence[int]) -> None:
        super().__init__(network, stage.losses)
        self.fields, self.trained = fields, tuple(trained)
        # In a list of its own: their networks are those of `network`, and no part of this one.
        losses = StageFields(losses=stage.losses)
        self._codecs = [
            CodecObjective(codec, fields, losses, rate, band_start=_band_start(network, number))
            for number, (codec, rate) in enumerate(zip(network.codecs, network.sample_rates, strict=True))
        ]

    @property
    def renews_codebooks(self) -> bool:
        """See `Objective.renews_codebooks`."""
        return self.fields.codebook_renewal

    @property
    def exchanges(self) -> bool:
        """See `Objective.exchanges`."""
        return self.fields.swap_probability > 0 and len(self.network.domains) > 1

    @property
    def quantizers(self) -> dict[str, MultiSourceRVQ]:
        """See `Objective.quantizers`."""
        return {f"branches.{number}": self.network.codecs[number].quantizer for number in self.trained}

    def forward(self, stems: Tensor, choices: BandsChoices, observe: Observer | None = None) -> dict[str, Tensor]:
        """From stems `[B, N, T]` to what `CodecObjective.forward` gives, of each branch that is trained, and

        - `stems`: at the rate of the branch, `[B, N, t]`

        with the number of the branch and a dot before each name; `decoded` is the sum up to this branch, `[R, t]`. Both
        are of what is above alone where the branch codes only that.
        """
        outputs: dict[str, Tensor] = {}
        keeps = [choices.keep, *choices.keep_above]
        rows: Tensor | None = None
        mix: Tensor | None = None
        below = stems
        run = self.network.needed(self.trained)
        for number in run:
            trains, above = number in self.trained, self.network.residuals[number] == "above"
            summed = self.network.sum_is_wanted(run, number)
            codec = self.network.codecs[number]
            complete = self.network.at_rate(stems, number)
            length = complete.shape[-1]
            with torch.set_grad_enabled(torch.is_grad_enabled() and trains):
                wanted = self.network.above(complete, number) if above else complete
                given = wanted.sum(1)
                if rows is not None and mix is not None:
                    rows, mix = (self.network.lifted(wav, number, length) for wav in (rows, mix))
                    if not above:
                        narrow = self.network.lifted(below.sum(1), number, length)
                        given = torch.where(choices.narrow[number - 1, :, None], narrow, given) - mix
                latent = codec.encode(given[:, None])
                logits = codec.activity_logits(latent) if self.has("activity") and trains else None
                quantized = codec.quantize(latent, keep=keeps[number], observe=observe)
                latents = decoded_rows(quantized.latents, choices)
                more = summed and len(self.network.domains) > 1
                # Of a single domain the rows are the mixtures; of several these are wanted in full for the next branch.
                whole = (quantized.latents * choices.active.T[..., None, None]).sum(0) if more else latents[:0]
                decoded = codec.decode(torch.cat([latents, whole])).squeeze(1).float()[..., :length]
                own, own_mix = decoded[: len(latents)], decoded[len(latents) :] if more else decoded[: len(stems)]
                total, total_mix = (own, own_mix) if rows is None or mix is None else (rows + own, mix + own_mix)
            below = complete
            rows, mix = (total, total_mix) if summed else (None, None)
            if trains:
                found = {
                    "stems": wanted,
                    "decoded": own if above else total,
                    "codebook": quantized.codebook_loss,
                    "commitment": quantized.commitment_loss,
                    **({} if logits is None else {"activity": logits.float()}),
                }
                outputs |= {f"{number}.{name}": value for name, value in found.items()}
        return outputs

    def losses(self, outputs: dict[str, Tensor], stems: Tensor, choices: BandsChoices, step: int) -> dict[str, Tensor]:
        """See `Objective.losses`."""
        each = []
        for number in self.trained:
            own = _of_branch(outputs, number)
            each.append(self._codecs[number].terms(own, own["stems"], choices, step))
        names = dict.fromkeys(name for terms in each for name in terms)
        values = {name: torch.stack([terms[name] for terms in each if name in terms]) for name in names}
        joined = {name: value.sum() if name in SUMMED else value.mean() for name, value in values.items()}
        return {"total": self._codecs[0].total(joined), **joined}

    def compared(
        self, outputs: dict[str, Tensor], stems: Tensor, choices: BandsChoices
    ) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
        """Stems and mixtures as they should be and as they were decoded, by the number of the branch."""
        real, decoded = {}, {}
        for number in self.trained:
            own = _of_branch(outputs, number)
            real[number], decoded[number] = self._codecs[number].compared(own, own["stems"], choices)
        return real, decoded

    def look_up(self, stems: Tensor, observe: Observer) -> None:
        """See `Objective.look_up`."""
        self.network.encode(stems.sum(1)[:, None], numbers=self.trained, observe=observe)


def _band_start(network: Bands, number: int) -> float:
    """Where the band begins that a branch codes, in Hz."""
    return network.sample_rates[number - 1] / 2 if network.residuals[number] == "above" else 0.0


def _of_branch(outputs: dict[str, Tensor], number: int) -> dict[str, Tensor]:
    """The outputs of one branch, by their names."""
    prefix = f"{number}."
    return {name.removeprefix(prefix): value for name, value in outputs.items() if name.startswith(prefix)}


class BandsCritic(Critic):
    """Discriminators of each branch.

    Args:
        critics: of each that is ever trained, by its number
    """

    def __init__(self, critics: Mapping[int, Critic]) -> None:
        nn.Module.__init__(self)
        self.branches = nn.ModuleDict({str(number): critic for number, critic in critics.items()})
        first = next(iter(critics.values()))
        self.fields, self.weights, self.start, self.warmup = first.fields, first.weights, first.start, first.warmup

    def choose(self, parts: Sequence[str]) -> None:
        """See `Critic.choose`."""
        for number, critic in self.branches.items():
            critic.requires_grad_(f"branches.{number}" in parts)

    def forward(self, real: dict[int, Tensor], decoded: dict[int, Tensor]) -> dict[str, Tensor]:  # type: ignore[override]
        """Losses of rows of every branch, of the codec's the mean over branches: see `Critic.forward`."""
        each = [self.branches[str(number)](real[number], decoded[number]) for number in real]
        joined = {name: torch.cat([losses[name] for losses in each]) for name in each[0]}
        return {name: rows if name == "discriminator" else rows / len(each) for name, rows in joined.items()}


def estimates(network: Bands, stems: Tensor) -> list[Estimate]:
    """Of every branch the mix and, if there are several domains, each stem out of it; stems are `[B, N, T]`.

    These are sums up to the branch, or what it codes by itself where that is only what is above; nothing of one that is
    another model. Only those of the last branch are shown: the log has one rate.
    """
    found = []
    own = [number for number, codec in enumerate(network.codecs) if codec in network.own]
    summed = any(network.residuals[number] == "whole" for number in own)
    sums = network(stems.sum(1)[:, None]) if summed else []
    for number in own:
        wanted, rate = network.at_rate(stems, number), f"at {network.sample_rates[number] / 1000:g} kHz"
        if network.residuals[number] == "above":
            wanted, rate = network.above(wanted, number), f"above {_band_start(network, number) / 1000:g} kHz"
            decoded = {
                name: wav[..., : wanted.shape[-1]]
                for name, wav in network.codecs[number](wanted.sum(1)[:, None]).items()
            }
            # What has nothing there is left out of the scores, as silence is.
            wanted = wanted * has_anything(wanted)[..., None]
        else:
            decoded = sums[number]
        shown = number == len(network.codecs) - 1
        found.append(Estimate(f"mix {rate}", decoded["mix"][:, 0], wanted.sum(1), shown=shown))
        for n, domain in enumerate(network.domains if len(network.domains) > 1 else ()):
            found.append(Estimate(f"{domain} separated {rate}", decoded[domain][:, 0], wanted[:, n], shown=shown))
    return found
