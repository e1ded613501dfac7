"""How long a step of training takes against the same step done plainly, in the same run.

`python tests/bench_step.py RECIPE [BATCH_SIZE]`, as docs/scaling.md reports it. The plain step has the same networks
and losses on the same batch, without what `engine/train/` does to be fast: one output after the other, one quantizer
after the other, 32 bits, and discriminators that see everything twice.

Legend: B batch, N domains, T samples.
"""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

import torch
from torch import Tensor

from sdcodec_cli.engine.bench_training import StepCost, alone, measure_step, median_seconds, noise_batch, peak_memory
from sdcodec_cli.engine.train.batches import level
from sdcodec_cli.engine.train.precision import choose_precision
from sdcodec_cli.engine.train.trainer import make_trainable
from sdcodec_cli.families import build, of
from sdcodec_cli.nn.distances import mel_distance, negative_snr
from sdcodec_cli.nn.objectives.adversarial import deceiving_loss, discriminator_loss, feature_distance
from sdcodec_cli.nn.objectives.terms import draw_scales, masked_negative_snr
from sdcodec_cli.zoo import find_recipe


def measure_plain(recipe: Any, device: str, steps: int) -> StepCost:
    before = 0 if device == "cuda" else peak_memory(device)
    torch.manual_seed(recipe.training.seed)
    model = build(recipe)
    make_trainable(model, recipe)
    model.to(device)
    critic = of(recipe).critic(recipe)
    discriminators = critic.discriminators.to(device) if critic else None
    optimizers = [torch.optim.AdamW(part.parameters(), lr=1e-5) for part in (model, discriminators) if part]
    batch = noise_batch(recipe).to(torch.device(device))
    stems, active = level(batch, recipe), batch.active
    seconds = median_seconds(
        lambda: plain_step(model, discriminators, optimizers, stems, active, recipe), device, max(1, steps // 2)
    )
    return StepCost(seconds, peak_memory(device) - before, {})


def plain_step(
    model: Any, discriminators: Any, optimizers: list[Any], stems: Tensor, active: Tensor, recipe: Any
) -> None:
    fields = recipe.training
    scales = draw_scales(fields.mel_scales_per_step, seed=fields.seed, step=0)
    latent = model.encode(stems.sum(1)[:, None])
    latents, total = [], torch.zeros((), device=stems.device)
    for domain in range(stems.shape[1]):
        quantized, loss = plain_quantize(model, latent, domain)
        latents.append(quantized * active[:, domain, None, None])
        total = total + (fields.codebook_weight + fields.commitment_weight) * loss
    outputs = [(sum(latents, torch.zeros_like(latent)), stems.sum(1))]
    for domain, quantized in enumerate(latents):
        here = active[:, domain]
        if bool(here.any()):
            outputs.append((quantized[here], stems[here, domain]))
    decoded = [(model.decode(quantized)[:, 0, : stems.shape[-1]], wanted) for quantized, wanted in outputs]
    if discriminators is not None:
        optimizers[1].zero_grad()
        for estimate, wanted in decoded:
            seen = discriminators(wanted[:, None]), discriminators(estimate.detach()[:, None])
            torch.autograd.backward(discriminator_loss(*seen).mean())
        optimizers[1].step()
    optimizers[0].zero_grad()
    for estimate, wanted in decoded:
        mel = mel_distance(estimate, wanted, sample_rate=recipe.model.sample_rate, scales=scales)
        total = total + fields.mel_weight * mel.mean()
        total = total + fields.snr_weight * negative_snr(estimate, wanted).mean()
        if discriminators is not None:
            real, seen_again = discriminators(wanted[:, None]), discriminators(estimate[:, None])
            total = total + fields.adversarial_weight * deceiving_loss(seen_again).mean()
            total = total + fields.feature_weight * feature_distance(real, seen_again).mean()
    if fields.mask_weight:
        estimates, wanted_stems = (torch.cat(rows) for rows in zip(*decoded[1:], strict=True))
        examples = torch.cat([here.nonzero()[:, 0] for here in active.T])
        masked = masked_negative_snr(estimates, wanted_stems, examples, len(stems))
        total = total + fields.mask_weight * masked.mean()
    torch.autograd.backward(total)
    optimizers[0].step()


def plain_quantize(model: Any, latent: Tensor, domain: int) -> tuple[Tensor, Tensor]:
    quantizer = model.quantizer
    residual, total = latent.transpose(1, 2), torch.zeros_like(latent.transpose(1, 2))
    loss = torch.zeros((), device=latent.device)
    for index in range(quantizer.num_codebooks):
        own = quantizer.num_codebooks - quantizer.num_shared
        rvq, stream, codebook = (quantizer.own, domain, index) if index < own else (quantizer.shared, 0, index - own)
        weight, bias = rvq.in_weight[stream, codebook], rvq.in_bias[stream, codebook]
        projected = torch.nn.functional.linear(residual, weight, bias)
        table = rvq.codebook[stream, codebook]
        similarity = torch.nn.functional.normalize(projected, dim=-1) @ torch.nn.functional.normalize(table, dim=-1).T
        entries = table[similarity.argmax(-1)]
        loss = loss + (projected - entries).square().mean()
        entries = projected + (entries - projected).detach()
        out = torch.nn.functional.linear(entries, rvq.out_weight[stream, codebook], rvq.out_bias[stream, codebook])
        total, residual = total + out, residual - out
    return total.transpose(1, 2), loss


def main(name: str, batch_size: str | None = None) -> None:
    recipe = find_recipe(name)
    fields = recipe.training
    precision = choose_precision(fields.precision, "cpu").precision
    size = int(batch_size or fields.batch_size)
    recipe = dataclasses.replace(recipe, training=dataclasses.replace(fields, batch_size=size, precision=precision))
    ours, plain = (alone(measure, recipe, "cpu", 5) for measure in (measure_step, measure_plain))
    print(f"{recipe.name}, {size} examples in {precision}: seconds, and bytes at the peak")
    print(f"ours {ours.seconds:.3f} {ours.memory_bytes}, plain {plain.seconds:.3f} {plain.memory_bytes}")
    print(f"ratio {plain.seconds / ours.seconds:.2f}, {ours.memory_bytes / plain.memory_bytes:.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
