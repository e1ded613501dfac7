"""`sdc train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import OutputError, RecipeError
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
            help="Folder with a folder of audio files per domain (speech, music, sfx), or with train and valid folders "
            "that have them.",
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
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Seed of weights, examples and choices.")] = 0,
    device: Annotated[Device, typer.Option(help="Where to train.", envvar="SDC_DEVICE")] = "auto",
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Train a model, in one process.

    The run folder gets the resolved recipe, metrics.jsonl and a checkpoint. Ctrl-C and SIGTERM save and stop, with
    exit code 130; --resume continues. `sdc models export` turns a run into a model.

    Example: sdc train --data-root corpus --out runs/mine --set training.steps=2000
    """
    from ..recipe import override, read_recipe
    from ..zoo import DEFAULT_MODEL, RECIPE, find

    if recipe is None:
        recipe = str(out) if resume and (out / RECIPE).is_file() else DEFAULT_MODEL
    chosen = read_recipe(Path(recipe)) if Path(recipe).is_file() else find(recipe).recipe
    try:
        chosen = override(chosen, parse_settings(settings))
    except RecipeError as error:
        wrong(error)

    from ..engine.codec import choose_device
    from ..engine.train.loop import train as run

    console = Console(quiet=quiet, json=json)
    try:
        result = run(
            chosen,
            data_root=data_root,
            run=out,
            initial=find(init) if init else None,
            resume=resume,
            seed=seed,
            device=str(choose_device(device)),
            report=console.say,
        )
    except BrokenPipeError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"{out}: cannot be written: {reason}; free some space or choose another --out") from error
    state = "finished" if result.finished else "stopped, --resume continues it"
    console.say(f"{out}: {result.step} steps, {result.audio_seconds:.1f} audio seconds per second, {state}")
    console.result(result)
    if not result.finished:
        raise typer.Exit(130)
