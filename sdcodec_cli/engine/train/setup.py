"""What a run starts with: how it is done, its folder, and the clips it trains on."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ... import zoo
from ...data.manifest import Manifest
from ...data.parallel import num_cores, own_cores
from ...data.pool import MANIFEST, Pool, find_manifest, open_pool
from ...data.targets import with_targets
from ...errors import InputError, ModelError, OutputError, RecipeError, SdcError
from ...families import of
from ...recipe import Recipe, write_recipe
from . import checkpoint
from .batches import Share
from .distributed import Processes


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How a run is done, as opposed to what it trains: nothing here changes its result beyond rounding.

    With two exceptions: of an odd number of examples at a time the last one has no neighbour to exchange domains with,
    and codebook entries are started and renewed from one micro-batch.
    """

    micro_batch: int | None = None
    """Examples that a process handles at a time; all of its share by default."""
    workers: int | None = None
    """Processes that read and decode audio, for each that trains; as many as there are cores to spare by default."""
    cache: Path | None = None
    """Folder for decoded audio; `RUN/cache` by default."""
    cache_hours: float = 20.0
    """Corpora up to this size are decoded once, into the cache; larger ones are read crop by crop."""
    log_every: int = 100
    """Steps between rows of `metrics.jsonl`."""
    validate_every: int = 500
    """Steps between validations."""
    checkpoint_every: int = 500
    """Steps between checkpoints."""
    keep: int = 3
    """Checkpoints to keep beside the best one."""
    compiled: bool = False
    """Whether networks go through `torch.compile`."""

    def __post_init__(self) -> None:
        for name in ("log_every", "validate_every", "checkpoint_every", "keep"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


def check_run(recipe: Recipe, run: Path, initial: zoo.ModelEntry | None, resume: bool) -> None:
    """What can be known to be wrong before anything is loaded.

    Raises:
        ModelError: the run folder has a run and `resume` is off, or none and it is on, or it is a model; a part of the
            network would stay random
    """
    if (run / zoo.WEIGHTS).exists():
        raise ModelError(f"{run}: is a model, which a run would spoil; choose another --out")
    exists = bool(checkpoint.checkpoints(run))
    if exists != resume:
        advice = "pass --resume to continue it, or another --out" if not resume else "leave --resume out to start one"
        raise ModelError(f"{run}: there is {'a' if exists else 'no'} run in this folder; {advice}")
    trained = {part for stage in recipe.plan for part in recipe.trained_in(stage)}
    untouched = [part for part in recipe.parts if part not in trained]
    if untouched and initial is None and not resume:
        raise ModelError(
            f"{recipe.name}: no stage trains {', '.join(untouched)}, which would stay random; "
            "give a model to start from with --init"
        )


def share_of(recipe: Recipe, processes: Processes, options: RunOptions) -> Share:
    """What this process has of every batch.

    Raises:
        RecipeError: a batch does not divide among the processes, or their part of it into micro-batches
    """
    size, world = recipe.training.batch_size, processes.world_size
    if size % world:
        raise RecipeError(
            f"training.batch_size {size} cannot be shared by {world} processes; set it to a multiple of {world}"
        )
    micro = options.micro_batch or size // world
    if (size // world) % micro:
        raise RecipeError(f"--micro-batch {micro}: the {size // world} examples of a process must be a multiple of it")
    return Share(processes.rank, world, micro)


def spare_cores() -> int:
    """Reading processes that one training process can have without taking the cores of the others."""
    return max(1, min(8, own_cores() - 1))


def open_run(
    recipe: Recipe,
    data_root: Path,
    run: Path,
    resume: bool,
    processes: Processes,
    options: RunOptions,
    report: Callable[[str], None],
) -> tuple[Pool, Pool | None]:
    """Make the run folder, and find what to train on and, if there is any, to validate with.

    Raises:
        InputError: nothing to train on
        OutputError: the run folder cannot be written
    """
    _make_folder(run)
    manifest = _manifest(recipe, data_root, run, resume, processes, report)
    pools = _pools(recipe, manifest, run, options, report)
    if processes.is_first:
        checkpoint.write_whole(run / zoo.RECIPE, lambda partial: write_recipe(recipe, partial))
    return pools


def changes(before: Recipe, after: Recipe) -> Iterator[str]:
    """Fields that two recipes differ in, a line each."""
    old, new = dataclasses.asdict(before), dataclasses.asdict(after)
    for table, fields in new.items():
        if isinstance(fields, tuple):
            if len(old[table]) != len(fields):
                yield f"{table}: there were {len(old[table])} and are now {len(fields)}"
            for number, (was, is_) in enumerate(zip(old[table], fields, strict=False)):
                yield from _changes(f"{table}.{number}", was, is_)
        if isinstance(fields, dict):
            yield from _changes(table, old[table], fields)


def _changes(table: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """The same for two tables, which may have tables in them."""
    for key, value in new.items():
        if isinstance(value, dict):
            yield from _changes(f"{table}.{key}", old[key], value)
        elif old[key] != value:
            yield f"{table}.{key} was {old[key]} and is now {value}"


def _make_folder(run: Path) -> None:
    try:
        run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{run}: cannot be made: {error.strerror}; choose another --out") from error


def _manifest(
    recipe: Recipe,
    data_root: Path,
    run: Path,
    resume: bool,
    processes: Processes,
    report: Callable[[str], None],
) -> Manifest:
    """Which files there are; if it has to be found out, the first process has done so before the others ask."""
    kept = run / MANIFEST
    has_one = data_root.is_file() or (data_root / MANIFEST).is_file()
    if kept.is_file() and not has_one and (resume or not processes.is_first):
        # The files of the run, whatever has come to the folder since, and wherever it was moved.
        if not data_root.is_dir():
            raise InputError(f"{data_root}: no such folder; give the one that the run was started with")
        return Manifest.open(kept, root=data_root)
    try:
        return find_manifest(data_root, recipe.sources, kept=run, jobs=num_cores(), report=report)
    except SdcError:
        with contextlib.suppress(OSError):  # there is something in it
            run.rmdir()
        raise


def _pools(
    recipe: Recipe, manifest: Manifest, run: Path, options: RunOptions, report: Callable[[str], None]
) -> tuple[Pool, Pool | None]:
    """Clips to train on and to validate with."""
    domains, lowest = recipe.sources, recipe.mixing.min_sample_rate
    open_split = functools.partial(
        open_pool, manifest, domains=domains, sample_rate=recipe.model.sample_rate, min_sample_rate=lowest
    )

    def opened(split: str) -> Pool:
        seconds = sum(map(open_split(split=split).seconds, domains))
        cache = (options.cache or run / "cache") if seconds <= options.cache_hours * 3600 else None
        return open_split(split=split, decoded=cache, report=report)

    pool = opened("train")
    teaching = of(recipe).teaching(recipe)
    if teaching:
        pool = with_targets(
            pool,
            manifest,
            teaching.fields,
            domain=teaching.domain,
            split="train",
            min_sample_rate=lowest,
            hop_length=teaching.hop_length,
            folder=options.cache or run / "cache",
            jobs=num_cores(),
            report=report,
        )
    has_valid = all(len(manifest.rows(domain, "valid", lowest)) for domain in domains)
    held_out = opened("valid") if has_valid else None
    for domain in domains:
        report(f"{domain}: {pool.seconds(domain) / 3600:.2f} h to train on")
    if held_out is None:
        above = f" at {lowest} Hz or more" if lowest else ""
        report(f"no validation: the data root has no valid split with clips of every domain{above}")
    return pool, held_out
