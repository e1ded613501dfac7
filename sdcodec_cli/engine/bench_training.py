"""What a step of training costs on this machine, against the same step done plainly.

The plain step has the same networks and losses on the same batch, without what `train/` does to be fast: one output
after the other, one quantizer after the other, 32 bits, and discriminators that see everything twice.

Legend: B batch, N domains, T samples.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd import DeviceType  # type: ignore[attr-defined]

from .. import zoo
from ..data.pool import ArrayClips, FileClips, Pool, find_manifest, open_pool
from ..errors import InputError
from ..nn.discriminator import Discriminators
from ..nn.distances import mel_distance, negative_snr
from ..nn.sdcodec import SDCodec
from ..recipe import Recipe
from .train.adversarial import deceiving_loss, discriminator_loss, feature_distance
from .train.batches import Batch, Share, load_batches, make_batch
from .train.distributed import Processes
from .train.losses import masked_negative_snr
from .train.objective import draw_scales
from .train.precision import choose_precision
from .train.trainer import Trainer, make_trainable

PARTS = ("mix", "codec", "losses", "discriminators", "backward", "optimizers")
"""What a step's time is divided into; `backward` is that of all networks."""


@dataclass(frozen=True)
class StepCost:
    """Time and memory of one step."""

    seconds: float
    """Median over steps."""
    memory_bytes: int
    """Peak: on a GPU what is allocated, on a CPU what the process grew by."""
    parts: dict[str, float]
    """Seconds of each part; empty for the plain step."""


@dataclass(frozen=True)
class TrainingBenchResult:
    """Cost of training a recipe."""

    recipe: str
    device: str
    threads: int
    precision: str
    """Of our step; with `training.precision = auto` the one that was chosen. The plain one is in float32."""
    batch_size: int
    """Examples in the step that was measured."""
    audio_seconds: float
    """Seconds of audio per second of time, when data are at hand."""
    step: StepCost
    """The cost of one as we do it."""
    plain: StepCost
    speedup: float
    """Time of the plain step over ours."""
    memory_ratio: float
    """Memory of our step over that of the plain one."""


@dataclass(frozen=True)
class LoaderBenchResult:
    """How fast training examples are read."""

    data_root: str
    workers: int
    audio_seconds: float
    """Seconds of examples per second of time."""
    crop_seconds: float
    """Seconds of crops per second of time: an example has one for each of its domains."""
    decode_limit: float
    """Seconds of audio that one core decodes per second, whole files one after the other, at the files' own rate."""
    per_core: float
    """`crop_seconds` of each worker over `decode_limit`."""


def bench_training(
    recipe: Recipe,
    *,
    device: str,
    batch_size: int,
    steps: int = 5,
    report: Callable[[str], None] = lambda message: None,
) -> TrainingBenchResult:
    """Measure a step of a recipe on noise, each variant in a process of its own.

    Args:
        recipe: what would be trained
        device: `cpu`, `cuda` or `mps`
        batch_size: examples in the step
        steps: to measure; the median counts
        report: takes a line that says how a precision was chosen
    """
    chosen = choose_precision(recipe.training.precision, device)
    if chosen.line is not None:
        report(chosen.line)
    fields = dataclasses.replace(recipe.training, batch_size=batch_size, precision=chosen.precision)
    recipe = dataclasses.replace(recipe, training=fields)
    ours, plain = (_alone(measure, recipe, device, steps) for measure in (_measure_ours, _measure_plain))
    return TrainingBenchResult(
        recipe=recipe.name,
        device=device,
        threads=torch.get_num_threads(),
        precision=chosen.precision,
        batch_size=batch_size,
        audio_seconds=batch_size * recipe.mixing.seconds / ours.seconds,
        step=ours,
        plain=plain,
        speedup=plain.seconds / ours.seconds,
        memory_ratio=ours.memory_bytes / max(plain.memory_bytes, 1),
    )


def _alone(measure: Callable[[Recipe, str, int], StepCost], recipe: Recipe, device: str, steps: int) -> StepCost:
    """In a new process, so that peaks of memory are its own."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # the profiler complains where there is no GPU
    with ProcessPoolExecutor(max_workers=1, mp_context=multiprocessing.get_context("spawn")) as executor:
        return executor.submit(measure, recipe, device, steps).result()


def _noise_batch(recipe: Recipe) -> Batch:
    rng, rate = np.random.default_rng(0), recipe.model.sample_rate
    samples = (rng.standard_normal(30 * rate) * 3000).astype(np.int16)
    clips = ArrayClips(samples, np.array([len(samples)]))
    pool = Pool(rate, dict.fromkeys(recipe.sources, clips))
    return make_batch(pool, recipe, range(recipe.training.batch_size))


def _peak(device: str) -> int:
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _timed(step: Callable[[], object], device: str, steps: int) -> float:
    times = []
    for _ in range(steps + 1):
        began = time.perf_counter()
        step()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])  # the first one sets things up


def _measure_ours(recipe: Recipe, device: str, steps: int) -> StepCost:
    before = 0 if device == "cuda" else _peak(device)
    trainer = Trainer(recipe, Processes(device, recipe.training))
    batch = _noise_batch(recipe).to(trainer.processes.device)

    def step() -> None:
        trainer.backward([batch])
        trainer.take_step()

    seconds = _timed(step, device, steps)
    memory = _peak(device) - before
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    # A range counts the kernels that its own thread launches; the backward pass on a GPU would have another one.
    with (
        torch.autograd.set_multithreading_enabled(False),
        torch.profiler.profile(activities=activities, acc_events=True) as profile,
    ):
        step()
    events = {event.key: event for event in profile.key_averages() if event.device_type == DeviceType.CPU}
    spent = {
        part: (events[part].device_time_total if device == "cuda" else events[part].cpu_time_total)
        for part in PARTS
        if part in events
    }
    whole = sum(spent.values())
    return StepCost(seconds, memory, {part: seconds * value / whole for part, value in spent.items()})


def _measure_plain(recipe: Recipe, device: str, steps: int) -> StepCost:
    before = 0 if device == "cuda" else _peak(device)
    torch.manual_seed(recipe.training.seed)
    model = zoo.build(recipe)
    make_trainable(model, recipe.training)
    model.to(device)
    discriminators = zoo.build_discriminators(recipe).to(device) if recipe.training.adversarial else None
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(model.parameters(), lr=1e-5)]
    if discriminators:
        optimizers.append(torch.optim.AdamW(discriminators.parameters(), lr=1e-5))
    trainer = Trainer(recipe, Processes(device, recipe.training))
    batch = _noise_batch(recipe).to(torch.device(device))
    stems, present = trainer.mix(batch), batch.choices.present
    del trainer
    seconds = _timed(
        lambda: _plain_step(model, discriminators, optimizers, stems, present, recipe), device, max(1, steps // 2)
    )
    return StepCost(seconds, _peak(device) - before, {})


def _plain_step(
    model: SDCodec,
    discriminators: Discriminators | None,
    optimizers: list[torch.optim.Optimizer],
    stems: Tensor,
    present: Tensor,
    recipe: Recipe,
) -> None:
    fields = recipe.training
    scales = draw_scales(fields.mel_scales_per_step, seed=fields.seed, step=0)
    latent = model.encode(stems.sum(1)[:, None])
    latents, total = [], torch.zeros((), device=stems.device)
    for domain in range(stems.shape[1]):
        quantized, loss = _plain_quantize(model, latent, domain)
        latents.append(quantized * present[:, domain, None, None])
        total = total + (fields.codebook_weight + fields.commitment_weight) * loss
    outputs = [(sum(latents, torch.zeros_like(latent)), stems.sum(1))]
    for domain, quantized in enumerate(latents):
        here = present[:, domain]
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
        examples = torch.cat([here.nonzero()[:, 0] for here in present.T])
        masked = masked_negative_snr(estimates, wanted_stems, examples, len(stems))
        total = total + fields.mask_weight * masked.mean()
    torch.autograd.backward(total)
    optimizers[0].step()


def _plain_quantize(model: SDCodec, latent: Tensor, domain: int) -> tuple[Tensor, Tensor]:
    quantizer = model.quantizer
    residual, total = latent.transpose(1, 2), torch.zeros_like(latent.transpose(1, 2))
    loss = torch.zeros((), device=latent.device)
    for index in range(quantizer.num_codebooks):
        own = quantizer.num_codebooks - quantizer.num_shared
        rvq, stream, level = (quantizer.own, domain, index) if index < own else (quantizer.shared, 0, index - own)
        weight, bias = rvq.in_weight[stream, level], rvq.in_bias[stream, level]
        projected = torch.nn.functional.linear(residual, weight, bias)
        table = rvq.codebook[stream, level]
        similarity = torch.nn.functional.normalize(projected, dim=-1) @ torch.nn.functional.normalize(table, dim=-1).T
        entries = table[similarity.argmax(-1)]
        loss = loss + (projected - entries).square().mean()
        entries = projected + (entries - projected).detach()
        out = torch.nn.functional.linear(entries, rvq.out_weight[stream, level], rvq.out_bias[stream, level])
        total, residual = total + out, residual - out
    return total.transpose(1, 2), loss


def bench_loader(recipe: Recipe, data_root: Path, *, workers: int, batches: int = 20) -> LoaderBenchResult:
    """Measure how fast examples come from the files of a data root, and how fast one core could decode them at best.

    Raises:
        InputError: nothing to train on
    """
    with tempfile.TemporaryDirectory() as folder:
        manifest = find_manifest(data_root, recipe.sources, kept=Path(folder), jobs=1)
        rate, domains = recipe.model.sample_rate, recipe.sources
        split = "train" if "train" in manifest.splits else None
        pool = open_pool(manifest, split=split, domains=domains, sample_rate=rate)
        limit = _decode_limit(pool)
        loader = iter(load_batches(pool, recipe, Share(0, 1, 16), first_step=0, workers=workers, pin=False))
        for _ in range(4 * workers + 1):
            next(loader)  # the workers' first ones, and those they have ready
        began, crops = time.perf_counter(), 0
        for _ in range(batches):
            batch = next(loader)
            if batch.problem is not None:
                raise InputError(batch.problem)
            crops += int(batch.active.sum())
        elapsed = time.perf_counter() - began
    read = crops * recipe.mixing.seconds / elapsed
    return LoaderBenchResult(
        data_root=str(data_root),
        workers=workers,
        audio_seconds=16 * batches * recipe.mixing.seconds / elapsed,
        crop_seconds=read,
        decode_limit=limit,
        per_core=read / max(workers, 1) / limit,
    )


def _decode_limit(pool: Pool, seconds: float = 60.0) -> float:
    """Seconds of audio per second of time: reading clips from end to end, as many of each domain."""
    spent, heard = 0.0, 0.0
    for clips in pool.clips.values():
        assert isinstance(clips, FileClips)
        mine = 0.0
        order: NDArray[np.int64] = np.random.default_rng(0).permutation(len(clips.rows))
        for clip in order:
            if mine > seconds:
                break
            began = time.perf_counter()
            wav, rate = soundfile.read(clips.file(int(clip)), dtype="float32")
            spent += time.perf_counter() - began
            mine += len(wav) / rate
        heard += mine
    return heard / spent
