"""`sdc data`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from .console import Console
from .options import Quiet, parse_length

app = typer.Typer(name="data", no_args_is_help=True, rich_markup_mode=None, help="Make data sets.")


@app.callback()
def data() -> None:
    """Make data sets for evaluation."""


@app.command()
def mix(
    data_root: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="Folder with a folder of audio files per domain: speech, music, sfx.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Root of the set to make.", show_default=False)
    ],
    split: Annotated[Literal["train", "val", "test"], typer.Option(help="Split to make: tr, cv or tt.")] = "val",
    count: Annotated[int, typer.Option(metavar="N", min=1, help="Mixtures to make, 1 or more.")] = 100,
    seconds: Annotated[
        float, typer.Option(metavar="S", parser=parse_length, help="Length of each, at least 1 s.")
    ] = 10.0,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="The same seed makes the same mixtures.")] = 0,
    quiet: Quiet = False,
) -> None:
    """Mix stems to DnR-style tracks: <id>/mix.wav, speech.wav, music.wav, sfx.wav at 16 kHz.

    Stems are filled with clip after clip and brought to the paper's loudness targets.

    Example: sdc data mix --data-root corpus/valid -o dnr --split val --count 100
    """
    from ..data.dnr import write_tracks
    from ..data.pool import load_pool
    from ..recipe import Recipe

    recipe = Recipe(name="mix")
    console = Console(quiet=quiet)
    pool = load_pool(data_root, domains=recipe.model.domains, sample_rate=recipe.model.sample_rate, report=console.fail)
    tracks = write_tracks(pool, recipe.mixing, output, split=split, count=count, seconds=seconds, seed=seed)
    console.say(f"{output}: {len(tracks)} mixtures of {seconds:g} s")
    console.finish()
