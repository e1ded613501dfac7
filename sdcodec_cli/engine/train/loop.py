"""A run from its first step to its last: steps, what is written down, and what a run survives."""

from __future__ import annotations

import contextlib
import itertools
import math
import signal
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ... import zoo
from ...data.mixing import Trouble
from ...data.pool import Pool
from ...errors import InputError, RecipeError, SdcError
from ...recipe import Recipe, read_recipe
from ..torchrun import is_first_on_machine
from . import checkpoint
from .batches import Batch, Share, load_batches
from .distributed import Processes, lost_a_process
from .log import RunLog, TrainingProgress
from .means import Means
from .setup import RunOptions, changes, check_run, open_run, share_of, spare_cores
from .trainer import Trainer
from .validation import Validator

NOT_FINITE = "not-finite.pt"
"""What is left behind of a step whose loss was not finite."""


@dataclass(frozen=True)
class TrainResult:
    """What a run came to."""

    run: str
    step: int
    """Optimizer steps done."""
    finished: bool
    """False when it was stopped by a signal; `resume` continues it."""
    audio_seconds: float
    """Seconds of audio per second of time, in all processes together."""
    processes: int
    """That trained together, one per GPU."""
    precision: str
    """Of the products in the networks; with `training.precision = auto` the one that was chosen."""


def train(
    recipe: Recipe,
    *,
    data_root: Path,
    run: Path,
    initial: zoo.ModelEntry | None = None,
    resume: bool = False,
    device: str = "cpu",
    options: RunOptions | None = None,
    report: Callable[[str], None] = lambda message: None,
    progress: Callable[[TrainingProgress], None] | None = None,
) -> TrainResult:
    """Train a recipe; under torchrun, in all of its processes together.

    The run folder gets the resolved recipe, `metrics.jsonl`, TensorBoard's files and checkpoints.

    Args:
        recipe: what to train
        data_root: see `data.pool.find_manifest`; without a `valid` split in it there is no validation
        run: folder of the run
        initial: model whose weights to start from, see `trainer.start_from`; random ones by default
        resume: continue the run that is in the folder
        device: `cpu`, `cuda` or `mps`
        options: how it is done
        report: gets a line for people now and then, in the first process
        progress: is told of every step, in the first process

    Raises:
        ModelError: the run folder has a run and `resume` is off, or none and it is on
        InputError: nothing to train on
        OutputError: the run folder cannot be written
        SdcError: a loss is not finite
    """
    options = options or RunOptions()
    with _spoken_once():
        check_run(recipe, run, initial, resume)
        kept = checkpoint.read(checkpoint.newest(run)) if resume else {}
    # Older checkpoints do not say it: their recipes did.
    processes = Processes(device, recipe.training, kept.get("precision"))
    if not processes.is_first:
        report, progress = _nobody, None
    try:
        with _spoken_once():
            share = share_of(recipe, processes, options)
            trainer = Trainer(recipe, processes, initial=initial, compiled=options.compiled)
            if share.micro_batch % 2 and trainer.objective.exchanges:
                report(f"examples at a time: {share.micro_batch}; the last one has none to exchange domains with")
            if resume:
                _continue(trainer, run, kept, report)
            if processes.chosen.line is not None:
                report(processes.chosen.line)
        pool, held_out = processes.after_first(
            lambda: open_run(recipe, data_root, run, resume, processes, options, report)
        )
        return _Loop(trainer, run, options, share, pool, held_out, kept, report, progress).run()
    except RuntimeError as error:
        if processes.world_size > 1 and lost_a_process(error):
            raise SdcError(f"{run}: another process of this run ended; its message says why") from error
        if isinstance(error, torch.OutOfMemoryError):
            raise SdcError(
                f"{run}: out of memory on the device; compute fewer examples at a time with --micro-batch, and "
                "continue with --resume if there is a checkpoint"
            ) from error
        if "DataLoader worker" in str(error):
            raise SdcError(
                f"{run}: a process that reads examples was killed, perhaps for want of (shared) memory; use fewer "
                "--workers, 0 for none, and continue with --resume"
            ) from error
        raise
    finally:
        processes.end()


@contextlib.contextmanager
def _spoken_once() -> Iterator[None]:
    """Let the first process of a machine raise an error that all of its processes meet; the others just end."""
    try:
        yield
    except SdcError:
        if not is_first_on_machine():
            raise SystemExit(1) from None
        raise


def _continue(trainer: Trainer, run: Path, state: dict[str, Any], report: Callable[[str], None]) -> None:
    """Take over from a checkpoint, and say what is not as it was."""
    trainer.load_state(state)
    recipe = trainer.recipe
    if trainer.step > recipe.training.steps:
        raise RecipeError(f"training.steps {recipe.training.steps}: the run has come to step {trainer.step} already")
    report(f"{checkpoint.path_of(run, trainer.step)}: continuing after step {trainer.step}")
    if (run / zoo.RECIPE).is_file():
        for change in changes(read_recipe(run / zoo.RECIPE), recipe):
            report(f"{run}: {change}")


def _nobody(message: str) -> None:
    """Only the first process speaks."""


class _Loop:
    def __init__(
        self,
        trainer: Trainer,
        run: Path,
        options: RunOptions,
        share: Share,
        pool: Pool,
        held_out: Pool | None,
        kept: dict[str, Any],
        report: Callable[[str], None],
        progress: Callable[[TrainingProgress], None] | None,
    ) -> None:
        self.trainer, self.folder, self.options, self.share = trainer, run, options, share
        self.recipe, self.fields, self.processes = trainer.recipe, trainer.fields, trainer.processes
        self.pool, self.report, self.progress = pool, report, progress
        self.best: float | None = kept.get("best")
        self.best_step: int | None = kept.get("best_step")
        if self.processes.is_first and kept and self.best_step == trainer.step:
            # The run may have been killed between writing the checkpoint and calling it the best.
            checkpoint.mark_best(run, checkpoint.path_of(run, trainer.step))
        self.validator = self._validator(held_out) if held_out and self.processes.is_first else None
        self.means = Means()
        if kept:
            self.means.load_state(kept["means"], self.processes)
        self.first_step = trainer.step
        self.started = time.monotonic()
        self.shown: dict[str, float] = {}

    def _validator(self, held_out: Pool) -> Validator | None:
        try:
            return Validator(held_out, self.recipe)
        except InputError as error:
            self.report(f"no validation: {error}")
            return None

    def run(self) -> TrainResult:
        """Until the last step, or a signal."""
        loader = load_batches(
            self.pool,
            self.recipe,
            self.share,
            first_step=self.trainer.step,
            workers=spare_cores() if self.options.workers is None else self.options.workers,
            pin=self.processes.device.type == "cuda",
        )
        stop = StopOnSignal()
        log: Any = contextlib.nullcontext()
        if self.processes.is_first:
            log = RunLog(self.folder, step=self.trainer.step, sample_rate=self.recipe.model.sample_rate)
        batches = self._on_device(iter(loader))
        self.started = time.monotonic()
        try:
            with stop, log as self.log:
                self.saved: int | None = None
                self._say_stage()
                while self.trainer.step < self.fields.steps and not self.processes.any(stop.requested):
                    self._step(batches)
                if self.saved != self.trainer.step:
                    self._save()
        finally:
            # Ends the workers now, also where an exception's traceback keeps this frame alive.
            batches.close()
            del batches, loader
        return TrainResult(
            str(self.folder),
            self.trainer.step,
            self.trainer.step >= self.fields.steps,
            self._speed(),
            self.processes.world_size,
            self.processes.precision,
        )

    def _on_device(self, loaded: Iterator[Batch]) -> Generator[Batch, None, None]:
        """Batches on the device, each sent ahead of the one that is computed with."""
        ahead: Batch | None = None
        try:
            while True:
                began = time.monotonic()
                batch = next(loaded)
                self.means.waited += time.monotonic() - began
                if batch.problem is not None:
                    raise InputError(batch.problem)
                arriving = batch.to(self.processes.device)
                if ahead is not None:
                    yield ahead
                ahead = arriving
        finally:
            del loaded

    def _step(self, batches: Iterator[Batch]) -> None:
        count = self.fields.batch_size // (self.share.world_size * self.share.micro_batch)
        share = list(itertools.islice(batches, count))
        self.means.trouble = sum((batch.trouble for batch in share), self.means.trouble)
        values = self.trainer.backward(share)
        norms = torch.stack([value for name, value in values.items() if name.endswith("gradient_norm")])
        if not bool(torch.isfinite(norms).all()):
            self._give_up(values, share)
        rates = self.trainer.learning_rates()
        self.trainer.take_step()
        self.means.add(values)
        step = self.trainer.step
        if step == self.trainer.first_step and step < self.fields.steps:
            self._say_stage()
        if self.trainer.renews_codebooks:
            self.report(f"step {step}: {self.trainer.renew_codebooks(share[-1])} codebook entries renewed")
        if step % self.options.log_every == 0 or step == self.fields.steps:
            self._write_row(rates)
        if step % self.options.validate_every == 0 or step == self.fields.steps:
            self._validate()
        if step % self.options.checkpoint_every == 0 or step == self.fields.steps:
            self._save()
        if self.progress is not None:
            self.progress(TrainingProgress(step, self.fields.steps, self._speed(), self._seconds_left(), self.shown))

    def _say_stage(self) -> None:
        """What is trained from here on, where there are several stages; and that it is too short for its rise."""
        stage, number, warmup = self.trainer.stage, self.trainer.stage_number, self.fields.warmup_steps
        if len(self.recipe.plan) > 1:
            parts, losses = self.recipe.trained_in(stage), self.recipe.losses_of(stage)
            what = f"{', '.join(parts)} with {', '.join(losses)}"
            self.report(f"step {self.trainer.step}: stage {number} trains {what} for {stage.steps} steps")
        if stage.steps <= warmup:
            self.report(f"{stage.steps} steps are within the rise of training.warmup_steps, {warmup}: it learns little")

    def _write_row(self, rates: dict[str, float]) -> None:
        values, trouble = self.means.take(self.processes)
        self.shown = {name: value for name, value in values.items() if "norm" not in name and name != "input_wait"}
        if not self.processes.is_first:
            return
        waited = values.pop("input_wait", 0.0)
        row: dict[str, Any] = {
            "loss": {name: value for name, value in values.items() if "norm" not in name},
            "learning_rate": rates,
            "gradient_norm": {
                name.replace("_gradient_norm", "").replace("gradient_norm", "generator"): value
                for name, value in values.items()
                if "norm" in name
            },
            "speed": {"audio_seconds": self._speed(), "input_wait": waited},
        }
        if trouble != Trouble():
            row["trouble"] = {name: float(count) for name, count in vars(trouble).items()}
        if self.processes.device.type == "cuda":
            row["speed"]["peak_memory_gb"] = torch.cuda.max_memory_allocated(self.processes.device) / 1e9
        self.log.row(self.trainer.step, row)
        losses = " ".join(f"{name} {value:.3f}" for name, value in self.shown.items())
        left = f"{self._seconds_left() / 60:.0f} min left"
        self.report(f"step {self.trainer.step}: {losses}; {self._speed():.1f} audio s/s, {left}")

    def _validate(self) -> None:
        step = self.trainer.step
        perplexity, dead = self.trainer.watch.report() if self.trainer.watch else ({}, {})
        improved = False
        if self.processes.is_first:
            if perplexity:
                self.log.codebooks(
                    step,
                    {self._stream(name): values for name, values in perplexity.items()},
                    {self._stream(name): values for name, values in dead.items()},
                )
            if self.validator is not None:
                found = self.validator(self.trainer.average)
                self.log.row(step, {"validation": {**found.scores, "mean": found.score}})
                self.log.examples(step, found.recordings)
                self.report("valid: " + " ".join(f"{name} {value:.2f}" for name, value in found.scores.items()))
                improved = math.isfinite(found.score) and (self.best is None or found.score > self.best)
                if improved:
                    self.best, self.best_step = found.score, step
        if self.processes.any(improved):
            path = self._save()
            if self.processes.is_first:
                checkpoint.mark_best(self.folder, path)

    def _stream(self, name: str) -> str:
        """What a log calls `own 0` of a `CodebookWatch`: after the domain, and the part if it is in one."""
        codebooks, _, number = name.rpartition(" ")
        part, _, kind = codebooks.rpartition(".")
        whose = "shared" if kind == "shared" else self.recipe.model.domains[int(number)]
        return f"{whose} {part}" if part else whose

    def _save(self) -> Path:
        """A checkpoint of this step; all processes take part, the first one writes."""
        step = self.trainer.step
        path = checkpoint.path_of(self.folder, step)
        if self.saved == step:
            return path
        best = {"best": self.best, "best_step": self.best_step}
        state = {**self.trainer.state(), **best, "means": self.means.state(self.processes)}
        if self.processes.is_first:
            checkpoint.save(self.folder, state, keep=self.options.keep)
        self.saved = step
        return path

    def _give_up(self, values: dict[str, Tensor], share: list[Batch]) -> None:
        flags = self.processes.sum(torch.stack([(~torch.isfinite(value)).float() for value in values.values()]))
        culprits = [name for name, flag in zip(values, flags.tolist(), strict=True) if flag]
        path = self.folder / NOT_FINITE
        self._save()  # what the step was to be taken from
        if self.processes.is_first:
            state = {
                "step": self.trainer.step,
                "losses": {name: float(value) for name, value in values.items()},
                "model": self.trainer.model.state_dict(),
                "stems": torch.cat([self.trainer.mix(batch) for batch in share]),
            }
            checkpoint.write_whole(path, lambda partial: torch.save(state, partial))
        raise SdcError(
            f"{self.folder}: step {self.trainer.step}: {', '.join(culprits)} not finite; the step was not taken, its "
            f"weights and audio are in {path}; lower training.learning_rate or clip_norm and continue with --resume"
        )

    def _speed(self) -> float:
        elapsed = max(time.monotonic() - self.started, 1e-9)
        return (self.trainer.step - self.first_step) * self.fields.batch_size * self.recipe.mixing.seconds / elapsed

    def _seconds_left(self) -> float:
        rest = (self.fields.steps - self.trainer.step) * self.fields.batch_size * self.recipe.mixing.seconds
        return rest / max(self._speed(), 1e-9)


class StopOnSignal:
    """SIGTERM, SIGHUP and Ctrl-C end the run after the step at hand, with a checkpoint; a second one at once."""

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> StopOnSignal:
        numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGINT") if hasattr(signal, name)]
        self.previous = {number: signal.signal(number, self._stop) for number in numbers}
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def _stop(self, number: int, frame: object) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
