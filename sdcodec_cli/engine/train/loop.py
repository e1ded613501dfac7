"""A simple training loop: one process, any recipe, checkpoints that a run continues from."""

from __future__ import annotations

import copy
import dataclasses
import functools
import itertools
import json
import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from ... import zoo
from ...data.mixing import TRIES, draw
from ...data.pool import Pool, load_pool
from ...errors import InputError, ModelError, SdcError
from ...nn.layers import add_weight_norm
from ...nn.quantize import Observer
from ...nn.sdcodec import SDCodec
from ...recipe import Recipe, TrainingFields, write_recipe
from ..evaluate.metrics import si_sdr
from .codebooks import CodebookWatch
from .objective import objective

CHECKPOINT = "checkpoint.pt"
METRICS = "metrics.jsonl"
VALIDATION_SEED = 2**31
"""Seed of the validation mixtures, apart from that of training."""


@dataclass(frozen=True)
class TrainResult:
    """What a run came to."""

    run: str
    step: int
    finished: bool
    """False when it was stopped by a signal; `resume` continues it."""
    audio_seconds: float
    """Seconds of audio per second of time."""


class _Batches(IterableDataset[tuple[Tensor, Tensor]]):
    """Batches from `first_step` on, each a pure function of (seed, step)."""

    def __init__(self, pool: Pool, recipe: Recipe, seed: int, first_step: int) -> None:
        self.pool, self.recipe, self.seed, self.first_step = pool, recipe, seed, first_step

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        size = self.recipe.training.batch_size
        for step in itertools.count(self.first_step):
            yield _batch(self.pool, self.recipe, self.seed, range(step * size, (step + 1) * size))


def _batch(pool: Pool, recipe: Recipe, seed: int, indices: range) -> tuple[Tensor, Tensor]:
    examples = [draw(pool, recipe.mixing, seed=seed, index=index) for index in indices]
    stems = torch.from_numpy(np.stack([example.stems for example in examples]))
    return stems, torch.from_numpy(np.stack([example.present for example in examples]))


def _ignore_signals(worker: int) -> None:
    """Signals go to the whole process group; the loop decides when its worker ends."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def learning_rate(fields: TrainingFields, step: int) -> float:
    """Learning rate of a step, the first being step 0."""
    if step < fields.warmup_steps:
        return fields.learning_rate * (step + 1) / fields.warmup_steps
    after = step - fields.warmup_steps
    if fields.schedule == "exponential":
        return fields.learning_rate * fields.gamma**after
    progress = min(1.0, after / max(1, fields.steps - fields.warmup_steps))
    share = fields.final_learning_rate + (1 - fields.final_learning_rate) * (1 + math.cos(math.pi * progress)) / 2
    return fields.learning_rate * share


def make_trainable(model: SDCodec, fields: TrainingFields) -> None:
    """Put weight norm on what is trained, and hold the rest fixed, bit for bit."""
    if fields.parts == "all":
        add_weight_norm(model)
    elif model.activity is not None:
        model.requires_grad_(False)
        model.activity.requires_grad_(True)


def _revives(step: int, steps: int) -> bool:
    """Codebooks are renewed often while everything moves, then seldom, and left to settle in the last third."""
    return step % (100 if step <= 1000 else 500) == 0 and step < steps * 2 / 3


def _optimizers(model: SDCodec, fields: TrainingFields) -> list[torch.optim.Optimizer]:
    matrices = []
    if fields.optimizer == "muon":
        matrices = [
            p for name, p in model.named_parameters() if ".blocks." in name and p.dim() == 2 and p.requires_grad
        ]
    others = [p for p in model.parameters() if p.requires_grad and not any(p is matrix for matrix in matrices)]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(others, betas=fields.betas, weight_decay=fields.weight_decay, fused=True)
    ]
    if matrices:
        optimizers.append(torch.optim.Muon(matrices, weight_decay=fields.weight_decay, adjust_lr_fn="match_rms_adamw"))
    return optimizers


def train(
    recipe: Recipe,
    *,
    data_root: Path,
    run: Path,
    initial: zoo.ModelEntry | None = None,
    resume: bool = False,
    seed: int = 0,
    device: str = "cpu",
    validate_every: int = 500,
    checkpoint_every: int = 250,
    report: Callable[[str], None] = lambda message: None,
) -> TrainResult:
    """Train a recipe on `DATA_ROOT/{train,valid}/<domain>/**` or `DATA_ROOT/<domain>/**`.

    The run folder gets the resolved recipe, `metrics.jsonl`, and a checkpoint that is replaced as a whole.

    Args:
        recipe: what to train
        data_root: folder of stems; without a `train` folder in it there is no validation
        run: folder of the run
        initial: model whose weights to start from, see `zoo.start_from`; random ones by default
        resume: continue the run that is in the folder
        seed: of weights, examples and choices
        device: torch device
        validate_every: steps between validations
        checkpoint_every: steps between checkpoints
        report: gets a line for people now and then

    Raises:
        ModelError: the run folder has a run and `resume` is off, or none and it is on
        SdcError: the loss is not finite; the checkpoint before it is kept
    """
    checkpoint = run / CHECKPOINT
    if checkpoint.exists() != resume:
        advice = "pass --resume to continue it, or another --out" if not resume else "leave --resume out to start one"
        raise ModelError(f"{run}: there is {'a' if checkpoint.exists() else 'no'} run in this folder; {advice}")
    run.mkdir(parents=True, exist_ok=True)
    fields, target = recipe.training, torch.device(device)
    torch.manual_seed(seed)
    model = zoo.build(recipe)
    if initial is not None and not resume:
        zoo.start_from(model, initial)
    if fields.parts == "activity" and (model.activity is None or (initial is None and not resume)):
        raise ModelError(f"{recipe.name}: training.parts = activity needs model.activity, and --init to start from")
    make_trainable(model, fields)
    model.to(target)
    average = copy.deepcopy(model) if fields.average_decay else model
    optimizers = _optimizers(model, fields)
    watch = CodebookWatch(model.quantizer)
    step = 0
    if resume:
        state = read_checkpoint(checkpoint, target)
        try:
            model.load_state_dict(state["model"])
            average.load_state_dict(state["average"])
            for optimizer, kept in zip(optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(kept)
            watch.load_counts(state["codebook_counts"])
        except (RuntimeError, ValueError) as error:
            raise ModelError(
                f"{run}: its checkpoint does not fit the recipe; resume with the recipe that the run was started with"
            ) from error
        step = state["step"]
    write_recipe(recipe, run / "recipe.toml")

    split = data_root / "train" if (data_root / "train").is_dir() else data_root
    options: dict[str, Any] = {"domains": recipe.model.domains, "sample_rate": recipe.model.sample_rate}
    pool = load_pool(split, cache=run / "cache", report=report, **options)
    valid = data_root / "valid"
    held_out = load_pool(valid, cache=run / "cache", report=report, **options) if valid.is_dir() else None
    for domain in recipe.model.domains:
        report(f"{domain}: {pool.seconds(domain) / 3600:.2f} h to train on")

    stop = _StopOnSignal()
    batches = iter(
        DataLoader(
            _Batches(pool, recipe, seed, step),
            batch_size=None,
            num_workers=1,
            prefetch_factor=4,
            worker_init_fn=_ignore_signals,
        )
    )
    started, first, sums = time.monotonic(), step, _Means()
    try:
        with stop, (run / METRICS).open("a", encoding="utf-8") as metrics:
            while step < fields.steps and not stop.requested:
                generator = torch.Generator().manual_seed(seed * 2**40 + step)
                stems, present = (part.to(target, non_blocking=True) for part in next(batches))
                if not bool(present.any()):
                    raise InputError(f"{data_root}: {TRIES} draws in a row were silent; check the audio files")
                if step == 0 and initial is None:
                    watch.initialize(functools.partial(_quantize, model, stems), seed)
                with torch.autocast(target.type, torch.bfloat16):
                    losses = objective(
                        model,
                        stems,
                        present,
                        fields,
                        sample_rate=recipe.model.sample_rate,
                        generator=generator,
                        observe=watch,
                    )
                torch.autograd.backward(losses["total"])
                norm = torch.nn.utils.clip_grad_norm_(model.parameters(), fields.clip_norm)
                if not torch.isfinite(norm):
                    culprits = [name for name, value in losses.items() if not torch.isfinite(value)]
                    raise SdcError(
                        f"{run}: step {step}: {', '.join(culprits) or 'the gradient'} is not finite; "
                        f"the checkpoint before it is kept"
                    )
                for optimizer in optimizers:
                    for group in optimizer.param_groups:
                        group["lr"] = learning_rate(fields, step)
                    optimizer.step()
                    optimizer.zero_grad(set_to_none=True)
                step += 1
                if average is not model:
                    _move_average(average, model, min(fields.average_decay, step / (step + 10)))
                sums.add(
                    {name: float(value.detach()) for name, value in losses.items()} | {"gradient_norm": float(norm)}
                )

                if fields.parts == "all" and _revives(step, fields.steps):
                    usage = watch.usage()
                    replaced = watch.revive(functools.partial(_quantize, model, stems), seed=step)
                    report(f"step {step}: {usage:.1%} of codebook entries in use, {replaced} replaced")
                if step % 100 == 0:
                    row: dict[str, Any] = {
                        "step": step,
                        "learning_rate": learning_rate(fields, step - 1),
                        **sums.take(),
                    }
                    speed = (step - first) * fields.batch_size * recipe.mixing.seconds / (time.monotonic() - started)
                    row["audio_seconds"] = speed
                    left = (fields.steps - step) * fields.batch_size * recipe.mixing.seconds / speed
                    if held_out and (step % validate_every == 0 or step == fields.steps):
                        row["valid"] = validate(average, held_out, recipe)
                    metrics.write(json.dumps(row) + "\n")
                    metrics.flush()
                    shown = {
                        k: v
                        for k, v in row.items()
                        if isinstance(v, float) and k not in ("learning_rate", "audio_seconds")
                    }
                    line = " ".join(f"{name} {value:.3f}" for name, value in shown.items())
                    report(f"step {step}: {line}; {speed:.1f} audio s/s, {left / 60:.0f} min left")
                    if "valid" in row:
                        report("valid: " + " ".join(f"{name} {value:.2f}" for name, value in row["valid"].items()))
                if step % checkpoint_every == 0:
                    _save(checkpoint, step, model, average, optimizers, watch)
            _save(checkpoint, step, model, average, optimizers, watch)
    finally:
        # Ends the worker now, also where an exception's traceback keeps this frame alive.
        del batches
    elapsed = time.monotonic() - started
    seconds = (step - first) * fields.batch_size * recipe.mixing.seconds
    return TrainResult(str(run), step, step >= fields.steps, seconds / elapsed)


@torch.no_grad()
def _quantize(model: SDCodec, stems: Tensor, observe: Observer) -> None:
    with torch.autocast(stems.device.type, torch.bfloat16):
        model.quantize(model.encode(stems.sum(1)[:, None]), observe=observe)


@torch.no_grad()
def _move_average(average: SDCodec, model: SDCodec, decay: float) -> None:
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)


@torch.no_grad()
def validate(
    model: SDCodec, pool: Pool, recipe: Recipe, *, examples: int = 24, seconds: float = 4.0
) -> dict[str, float]:
    """Mean SI-SDR in dB on fixed mixtures of all domains: the mix, each stem alone, each stem out of the mix.

    A quick look during training; `sdc eval` is the real measure.
    """
    domains = recipe.model.domains
    tracks = (0.0,) * (len(domains) - 1) + (1.0,)
    mixing = dataclasses.replace(recipe.mixing, seconds=seconds, track_probabilities=tracks, quiet_probability=0.0)
    everything = dataclasses.replace(recipe, mixing=mixing)
    device = next(model.parameters()).device
    stems, _ = _batch(pool, everything, VALIDATION_SEED, range(examples))
    stems = stems.to(device)
    mixture = stems.sum(1)
    out = model(mixture[:, None])
    scores = {"mix": float(si_sdr(out["mix"][:, 0], mixture).mean())}
    for n, domain in enumerate(domains):
        alone = model.quantize(model.encode(stems[:, n, None])).latents[n]
        resynthesis = model.decode(alone)[:, 0, : mixture.shape[-1]]
        heard = stems[:, n].square().sum(-1) > 0
        scores[domain] = float(si_sdr(resynthesis, stems[:, n])[heard].mean())
        scores[f"{domain} separated"] = float(si_sdr(out[domain][:, 0], stems[:, n])[heard].mean())
    return scores


def read_checkpoint(path: Path, device: torch.device | str) -> dict[str, Any]:
    """What `train` saved.

    Raises:
        ModelError: the file is damaged
    """
    try:
        return dict(torch.load(path, map_location=device, weights_only=True))
    except Exception as error:  # torch's reader raises anything, KeyError included, on damaged files
        raise ModelError(f"{path}: is damaged and cannot be read; restore it, or start another run") from error


def _save(
    path: Path,
    step: int,
    model: SDCodec,
    average: SDCodec,
    optimizers: list[torch.optim.Optimizer],
    watch: CodebookWatch,
) -> None:
    """Replace the checkpoint as a whole: a full disk or a crash leaves the previous one."""
    partial = path.with_suffix(".partial")
    state = {
        "step": step,
        "model": model.state_dict(),
        "average": average.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
        "codebook_counts": list(watch.counts.values()),
    }
    try:
        with partial.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


class _Means:
    def __init__(self) -> None:
        self.sums: dict[str, list[float]] = {}

    def add(self, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.sums.setdefault(name, []).append(value)

    def take(self) -> dict[str, float]:
        means = {name: sum(values) / len(values) for name, values in self.sums.items()}
        self.sums = {}
        return means


class _StopOnSignal:
    """SIGTERM and Ctrl-C end the run after the step at hand, with a checkpoint; a second one ends it at once."""

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> _StopOnSignal:
        self.previous = {number: signal.signal(number, self._stop) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def _stop(self, number: int, frame: object) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
