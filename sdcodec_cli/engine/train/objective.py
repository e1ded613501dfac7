"""One step's objective: from stems to named losses.

Every loss is a sum over the outputs of an example, and a mean over examples (equation 9 of the paper), so that it does
not depend on how examples are spread over processes and micro-batches.

Legend: B batch, N domains, T samples, F frames, D latent width, R decoded rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...nn.distances import MEL_SCALES, mel_distance, negative_snr
from ...nn.quantize import Observer
from ...nn.sdcodec import SDCodec
from ...recipe import TrainingFields
from .batches import Choices
from .losses import activity_targets, leakage, masked_negative_snr


class Generator(nn.Module):
    """A codec with everything that needs its weights in one forward pass, as distributed training wants it.

    Args:
        model: the codec
        fields: which parts are trained
    """

    def __init__(self, model: SDCodec, fields: TrainingFields) -> None:
        super().__init__()
        self.model = model
        self.parts = fields.parts

    def forward(self, stems: Tensor, choices: Choices, observe: Observer | None = None) -> dict[str, Tensor]:
        """From stems `[B, N, T]` to

        - `decoded`: stems, mixtures and silent outputs in the order of `choices`, `[R, T]`
        - `codebook`, `commitment`: of each domain and example, `[N, B]`
        - `activity`: logits `[B, N, F]`, where the model has the head
        """
        latent = self.model.encode(stems.sum(1)[:, None])
        logits = self.model.activity_logits(latent)
        outputs = {} if logits is None else {"activity": logits.float()}
        if self.parts == "activity":
            return outputs
        quantized = self.model.quantize(latent, keep=choices.keep, observe=observe)
        decoded = self.model.decode(_rows(quantized.latents, choices))
        return {
            "decoded": decoded.squeeze(1).float()[..., : stems.shape[-1]],
            "codebook": quantized.codebook_loss,
            "commitment": quantized.commitment_loss,
            **outputs,
        }


def _rows(latents: Tensor, choices: Choices) -> Tensor:
    """What is decoded: latents of each domain `[N, B, D, F]` to `[R, D, F]`."""
    examples, domains = choices.stems
    silent_examples, silent_domains = choices.silent
    gated = latents * choices.present.T[..., None, None]
    taken = choices.sources[:, choices.mixtures]
    mixed = torch.stack([gated[n].index_select(0, taken[n]) for n in range(len(latents))]).sum(0)
    return torch.cat([latents[domains, examples], mixed, latents[silent_domains, silent_examples]])


def targets(stems: Tensor, choices: Choices) -> Tensor:
    """What the stems and mixtures of `Generator.forward` should be: `[B, N, T]` to `[S + M, T]`."""
    examples, domains = choices.stems
    taken = choices.sources[:, choices.mixtures]
    mixtures = torch.stack([stems[:, n].index_select(0, taken[n]) for n in range(stems.shape[1])]).sum(0)
    return torch.cat([stems[examples, domains], mixtures])


def objective(
    outputs: dict[str, Tensor],
    stems: Tensor,
    wanted: Tensor,
    choices: Choices,
    fields: TrainingFields,
    *,
    sample_rate: int,
    hop_length: int,
    scales: Sequence[tuple[int, int]],
) -> dict[str, Tensor]:
    """The losses of a batch, by name, and their weighted sum as `total`; those of the discriminators come on top.

    Args:
        outputs: of `Generator`
        stems: `[B, N, T]`
        wanted: of `targets`
        choices: of this batch
        fields: weights
        sample_rate: of the stems, in Hz
        hop_length: samples per frame
        scales: mel scales of this step, see `draw_scales`
    """
    batch = len(stems)
    losses: dict[str, Tensor] = {}
    total = stems.new_zeros(())
    if "decoded" in outputs:
        audible, silent = outputs["decoded"][: len(wanted)], outputs["decoded"][len(wanted) :]
        examples, domains = choices.stems
        losses["mel"] = mel_distance(audible, wanted, sample_rate=sample_rate, scales=scales).sum() / batch
        losses["snr"] = negative_snr(audible, wanted).sum() / batch
        losses["codebook"] = outputs["codebook"][domains, examples].sum() / batch
        losses["commitment"] = outputs["commitment"][domains, examples].sum() / batch
        if fields.mask_weight:
            masked = masked_negative_snr(audible[: len(examples)], wanted[: len(examples)], examples, batch)
            losses["mask"] = masked.sum() / batch
            total = total + fields.mask_weight * losses["mask"]
        mixtures = stems.sum(1).index_select(0, choices.silent[0])
        losses["leakage"] = leakage(silent, mixtures).sum() / batch
        total = total + (
            fields.mel_weight * losses["mel"]
            + fields.snr_weight * (losses["snr"] + losses["leakage"])
            + fields.codebook_weight * losses["codebook"]
            + fields.commitment_weight * losses["commitment"]
        )
    if "activity" in outputs:
        wanted_activity = activity_targets(stems, hop_length)
        losses["activity"] = F.binary_cross_entropy_with_logits(outputs["activity"], wanted_activity)
        total = total + fields.activity_weight * losses["activity"]
    return {"total": total, **losses}


def draw_scales(count: int, *, seed: int, step: int) -> list[tuple[int, int]]:
    """Mel scales of a step, the same in all processes."""
    generator = torch.Generator().manual_seed(seed * 2**32 + step)
    order = torch.randperm(len(MEL_SCALES), generator=generator).tolist()
    return [MEL_SCALES[i] for i in sorted(order[:count])]
