"""`sdc train`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from ..errors import OutputError, RecipeError
from ..extras import require
from .console import Console, wrong
from .options import Device, Json, Quiet, complete_model


def parse_settings(settings: list[str]) -> dict[str, str]:
    """`key=value` pairs as a dictionary."""
    pairs = {}
    for setting in settings:
        key, separator, value = setting.partition("=")
        if not separator or not key:
            wrong(f"--set {setting}: write it as key=value, such as training.steps=1000")
        pairs[key] = value
    return pairs


def train(
    data_root: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="Folder with speech, music and sfx folders (in train and valid, if you like), or with corpora in "
            "their published layouts, or a manifest made by sdc data scan.",
            show_default=False,
        ),
    ],
    recipe: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="Recipe: a model of the zoo, a model folder, or a recipe file; by default that of the run that "
            "--resume continues, or else sdcodec-16k-mini.",
            autocompletion=complete_model,
            show_default=False,
        ),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="RUN", help="Folder of the run.")] = Path("runs/sdc"),
    init: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|DIR",
            help="Model whose weights to start from, such as an imported DAC; random weights by default.",
            autocompletion=complete_model,
            show_default=False,
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in the folder.")] = False,
    settings: Annotated[
        list[str],
        typer.Option("--set", metavar="KEY=VALUE", help="Change a field of the recipe. May be given several times."),
    ] = [],  # noqa: B006
    seed: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=0,
            max=2**31 - 1,
            help="Short for --set training.seed=N; the recipe's by default.",
            show_default=False,
        ),
    ] = None,
    device: Annotated[Device, typer.Option(help="Where to train.", envvar="SDC_DEVICE")] = "auto",
    gpus: Annotated[
        int, typer.Option(metavar="N", min=1, help="GPUs of this machine to train on; for more machines see torchrun.")
    ] = 1,
    micro_batch: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Examples that a GPU handles at a time, to save memory; by default all of its share of the batch.",
            show_default=False,
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=0,
            help="Processes that read audio for each GPU; by default the cores that are left, at most 8.",
            show_default=False,
        ),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder for decoded audio, to share among runs; RUN/cache by default.",
            show_default=False,
        ),
    ] = None,
    cache_hours: Annotated[
        float,
        typer.Option(
            metavar="H",
            min=0,
            help="Corpora of up to so many hours are decoded once into the cache, 115 MB per hour; larger ones are "
            "read piece by piece.",
        ),
    ] = 20.0,
    log_every: Annotated[int, typer.Option(metavar="STEPS", min=1, help="Steps between rows of metrics.jsonl.")] = 100,
    validate_every: Annotated[int, typer.Option(metavar="STEPS", min=1, help="Steps between validations.")] = 500,
    checkpoint_every: Annotated[int, typer.Option(metavar="STEPS", min=1, help="Steps between checkpoints.")] = 500,
    keep: Annotated[int, typer.Option(metavar="N", min=1, help="Checkpoints to keep beside the best one.")] = 3,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Compile the networks: some minutes at the start, faster on GPUs.")
    ] = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Train a model, on one CPU, one GPU or many.

    The run folder gets the resolved recipe, metrics.jsonl, TensorBoard's files and checkpoints. Ctrl-C, SIGTERM and
    SIGHUP save and stop, with exit code 130; --resume continues, also after a crash. `sdc models export` turns a run
    into a model.

    Example: sdc train --data-root corpus --out runs/mine --set training.steps=2000
    """
    require("train", "sdc train")
    from ..recipe import override
    from ..zoo import CHECKPOINTS, DEFAULT_MODEL, RECIPE, find, find_recipe, in_zoo

    if resume and init:
        wrong("--init is where a run begins; leave it out with --resume")
    if init and not in_zoo(init) and os.path.isdir(Path(init) / CHECKPOINTS):
        wrong(f"--init {init}: is a run; make a model of it first: sdc models export {init} -o MODEL")
    if recipe is None and resume and not os.path.isfile(out / RECIPE):
        wrong(f"{out}: has no {RECIPE} to continue with; give the run's --recipe, or leave --resume out to start one")
    if recipe is None:
        recipe = str(out / RECIPE) if resume else DEFAULT_MODEL
    if recipe.endswith(".toml") and not os.path.isfile(recipe):
        wrong(f"--recipe {recipe}: no such file")
    chosen = find_recipe(recipe)
    pairs = parse_settings(settings)
    if seed is not None and pairs.get("training.seed", str(seed)) != str(seed):
        wrong("--seed and --set training.seed differ; give one of them")
    if seed is not None:
        pairs["training.seed"] = str(seed)
    try:
        chosen = override(chosen, pairs)
    except RecipeError as error:
        wrong(error)

    from ..engine.torchrun import is_first_process, under_torchrun
    from ..engine.train.distributed import launch
    from ..engine.train.loop import train as run
    from ..engine.train.setup import RunOptions
    from ..runtime.torch import choose_device

    if gpus > 1 and not under_torchrun():
        launch(gpus, sys.argv[1:])
    console = Console(quiet=quiet or not is_first_process(), json=json and is_first_process())

    with console.training(str(out)) as progress:
        try:
            result = run(
                chosen,
                data_root=data_root,
                run=out,
                initial=find(init) if init else None,
                resume=resume,
                device=choose_device(device).type,
                options=RunOptions(
                    micro_batch=micro_batch,
                    workers=workers,
                    cache=cache,
                    cache_hours=cache_hours,
                    log_every=log_every,
                    validate_every=validate_every,
                    checkpoint_every=checkpoint_every,
                    keep=keep,
                    compiled=compiled,
                ),
                report=console.say,
                progress=progress,
            )
        except KeyboardInterrupt:
            kept = any((out / CHECKPOINTS).glob("step-*.pt"))
            then = "--resume continues from there" if kept else "there is none yet; remove the folder and start again"
            console.say(f"{out}: ended at once; steps since the last checkpoint are lost, {then}")
            raise
        except OSError as error:
            reason = error.strerror or str(error)
            raise OutputError(f"{out}: cannot be written: {reason}; free some space or choose another --out") from error
    state = "finished" if result.finished else "stopped, --resume continues it"
    console.say(f"{out}: {result.step} steps, {result.audio_seconds:.1f} audio seconds per second, {state}")
    console.result(result)
    if not result.finished:
        raise typer.Exit(130)
