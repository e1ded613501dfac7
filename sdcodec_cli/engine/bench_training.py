"""What a step of training costs on this machine, and how fast training examples are read."""

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
from torch.autograd import DeviceType  # type: ignore[attr-defined]

from ..data.pool import ArrayClips, FileClips, Pool, find_manifest, open_pool
from ..errors import InputError
from ..families import of
from ..recipe import Recipe
from .train.batches import Batch, Share, load_batches, make_batch
from .train.distributed import Processes
from .train.precision import choose_precision
from .train.trainer import Trainer

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
    """Seconds of each part."""


@dataclass(frozen=True)
class TrainingBenchResult:
    """Cost of training a recipe."""

    recipe: str
    device: str
    threads: int
    precision: str
    """With `training.precision = auto` the one that was chosen."""
    batch_size: int
    """Examples in the step that was measured."""
    audio_seconds: float
    """Seconds of audio per second of time, when data are at hand."""
    step: StepCost


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
    """Measure a step of a recipe on noise, in a process of its own.

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
    step = alone(measure_step, dataclasses.replace(recipe, training=fields), device, steps)
    return TrainingBenchResult(
        recipe=recipe.name,
        device=device,
        threads=torch.get_num_threads(),
        precision=chosen.precision,
        batch_size=batch_size,
        audio_seconds=batch_size * recipe.mixing.seconds / step.seconds,
        step=step,
    )


def alone(measure: Callable[[Recipe, str, int], StepCost], recipe: Recipe, device: str, steps: int) -> StepCost:
    """In a new process, so that its peak of memory is its own."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # the profiler complains where there is no GPU
    with ProcessPoolExecutor(max_workers=1, mp_context=multiprocessing.get_context("spawn")) as executor:
        return executor.submit(measure, recipe, device, steps).result()


def noise_batch(recipe: Recipe) -> Batch:
    """A batch of noise."""
    rng, rate = np.random.default_rng(0), recipe.model.sample_rate
    samples = (rng.standard_normal(30 * rate) * 3000).astype(np.int16)
    clips = ArrayClips(samples, np.array([len(samples)]))
    pool = Pool(rate, dict.fromkeys(recipe.sources, clips))
    batch = make_batch(pool, recipe, range(recipe.training.batch_size))
    teaching = of(recipe).teaching(recipe)
    if teaching is None:
        return batch
    # What a teacher says is looked up, so anything will do.
    frames = -(-batch.crops.shape[-1] // teaching.hop_length)
    guide = torch.ones(len(batch.crops), frames, teaching.fields.target_width)
    return dataclasses.replace(batch, choices=dataclasses.replace(batch.choices, guide=guide))


def peak_memory(device: str) -> int:
    """Most memory in use so far, in bytes."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def median_seconds(step: Callable[[], object], device: str, steps: int) -> float:
    """Of several steps."""
    times = []
    for _ in range(steps + 1):
        began = time.perf_counter()
        step()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])  # the first one sets things up


def measure_step(recipe: Recipe, device: str, steps: int) -> StepCost:
    """A step as a run does it."""
    before = 0 if device == "cuda" else peak_memory(device)
    trainer = Trainer(recipe, Processes(device, recipe.training))
    batch = noise_batch(recipe).to(trainer.processes.device)

    def step() -> None:
        trainer.backward([batch])
        trainer.take_step()

    seconds = median_seconds(step, device, steps)
    memory = peak_memory(device) - before
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


def bench_loader(recipe: Recipe, data_root: Path, *, workers: int, batches: int = 20) -> LoaderBenchResult:
    """Measure how fast examples come from the files of a data root, and how fast one core could decode them at best.

    Raises:
        InputError: nothing to train on
    """
    with tempfile.TemporaryDirectory() as folder:
        manifest = find_manifest(data_root, recipe.sources, kept=Path(folder), jobs=1)
        rate, domains = recipe.model.sample_rate, recipe.sources
        split = "train" if "train" in manifest.splits else None
        lowest = recipe.mixing.min_sample_rate
        pool = open_pool(manifest, split=split, domains=domains, sample_rate=rate, min_sample_rate=lowest)
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
