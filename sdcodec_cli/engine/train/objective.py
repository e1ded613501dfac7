"""One step's objective: from stems to named losses.

Legend: B batch, N domains, T samples, F frames, D latent width, K codebooks, R decoded rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...nn.quantize import Observer
from ...nn.sdcodec import SDCodec
from ...recipe import TrainingFields
from .losses import MEL_SCALES, activity_targets, leakage, mel_distance, negative_snr


@dataclass(frozen=True)
class Rows:
    """Which latents are decoded and what should come out."""

    latents: Tensor
    """`[R, D, F]`"""
    targets: Tensor
    """`[R, T]`"""


def objective(
    model: SDCodec,
    stems: Tensor,
    present: Tensor,
    fields: TrainingFields,
    *,
    sample_rate: int,
    generator: torch.Generator,
    observe: Observer | None = None,
) -> dict[str, Tensor]:
    """The losses of a batch, by name, and their weighted sum as `total`.

    Args:
        model: the network, whose encoder and decoder run under whatever autocast surrounds the call
        stems: `[B, N, T]`, absent ones zero
        present: bool `[B, N]`, true at least once
        fields: weights and probabilities
        sample_rate: of the stems, in Hz
        generator: source of this step's random choices
        observe: see `MultiSourceRVQ.forward`
    """
    mixture = stems.sum(1)
    latent = model.encode(mixture[:, None])
    if fields.parts == "activity":
        loss = activity_loss(model, latent, stems)
        return {"total": loss, "activity": loss}
    keep = _levels_kept(model.quantizer.num_codebooks, present, fields.quantizer_dropout, generator)
    quantized = model.quantize(latent, keep=keep, observe=observe)
    rows = _audible_rows(quantized.latents, stems, present, fields, generator)
    silent_latents, silent_mixtures = _silent_rows(quantized.latents, mixture, present, fields, generator)
    decoded = model.decode(torch.cat([rows.latents, silent_latents])).squeeze(1).float()[..., : stems.shape[-1]]
    audible, silent = decoded[: len(rows.targets)], decoded[len(rows.targets) :]

    weight = present.float() / present.sum().clamp_min(1)
    losses = {
        "codebook": (quantized.codebook_loss.T * weight).sum(),
        "commitment": (quantized.commitment_loss.T * weight).sum(),
        "mel": mel_distance(
            audible, rows.targets, sample_rate=sample_rate, scales=_draw_scales(fields.mel_scales_per_step, generator)
        ),
        "snr": negative_snr(audible, rows.targets).mean(),
    }
    total = (
        fields.mel_weight * losses["mel"]
        + fields.snr_weight * losses["snr"]
        + fields.codebook_weight * losses["codebook"]
        + fields.commitment_weight * losses["commitment"]
    )
    if len(silent):
        losses["leakage"] = leakage(silent, silent_mixtures).mean()
        total = total + fields.snr_weight * losses["leakage"] * len(silent) / len(decoded)
    if model.activity is not None:
        losses["activity"] = activity_loss(model, latent, stems)
        total = total + fields.activity_weight * losses["activity"]
    return {"total": total, **losses}


def activity_loss(model: SDCodec, latent: Tensor, stems: Tensor) -> Tensor:
    """Cross entropy of the activity head: latent `[B, D, F]` and stems `[B, N, T]` to a scalar."""
    logits = model.activity_logits(latent)
    if logits is None:
        raise ValueError("the model has no activity head to train")
    return F.binary_cross_entropy_with_logits(logits.float(), activity_targets(stems, model.hop_length))


def _levels_kept(levels: int, present: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Quantizer dropout: how many levels each domain of each example uses, int64 `[N, B]`."""
    shape = present.T.shape
    drawn = torch.randint(1, levels + 1, shape, generator=generator)
    dropped = torch.rand(shape, generator=generator) < probability
    return torch.where(dropped, drawn, levels).to(present.device)


def _audible_rows(
    latents: Tensor, stems: Tensor, present: Tensor, fields: TrainingFields, generator: torch.Generator
) -> Rows:
    """Every present stem, and every mixture of at least two.

    With `swap_probability` the mixtures of a step take each domain from another example, which teaches latents to add
    up whatever they come from (arXiv:2102.05245).
    """
    batch, domains = present.shape
    shifts = [0] * domains
    if torch.rand((), generator=generator) < fields.swap_probability:
        shifts = torch.randint(0, batch, (domains,), generator=generator).tolist()
    gate = present.to(latents.dtype).T[..., None, None]
    mixed = torch.stack([(latents * gate)[n].roll(shift, 0) for n, shift in enumerate(shifts)]).sum(0)
    mixtures = torch.stack([stems[:, n].roll(shift, 0) for n, shift in enumerate(shifts)]).sum(0)
    counts = torch.stack([present[:, n].roll(shift, 0) for n, shift in enumerate(shifts)]).sum(0)
    # One domain alone is already decoded as a stem.
    several = counts > 1
    return Rows(
        latents=torch.cat([latents.transpose(0, 1)[present], mixed[several]]),
        targets=torch.cat([stems[present], mixtures[several]]),
    )


def _silent_rows(
    latents: Tensor, mixture: Tensor, present: Tensor, fields: TrainingFields, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Some absent domains `[R, D, F]`, and the mixtures they are absent from `[R, T]`."""
    drawn = torch.rand(present.shape, generator=generator).to(present.device) < fields.silence_probability
    picked = ~present & drawn
    return latents.transpose(0, 1)[picked], mixture[:, None].expand(*present.shape, -1)[picked]


def _draw_scales(count: int, generator: torch.Generator) -> list[tuple[int, int]]:
    order = torch.randperm(len(MEL_SCALES), generator=generator).tolist()
    return [MEL_SCALES[i] for i in sorted(order[:count])]
