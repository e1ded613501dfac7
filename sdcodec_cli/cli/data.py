"""`sdc data`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..extras import require
from .console import Console, wrong
from .group import Group
from .options import Json, Quiet, parse_length

if TYPE_CHECKING:
    from ..data.scan import ScanResult

app = typer.Typer(name="data", cls=Group, no_args_is_help=True, rich_markup_mode=None, help="List and make data sets.")

Jobs = Annotated[
    int | None,
    typer.Option("--jobs", metavar="N", min=1, help="Processes; one per core by default.", show_default=False),
]


@app.callback()
def data() -> None:
    """List the audio to train on, and make data sets for evaluation."""


@app.command()
def scan(
    data_root: Annotated[
        Path,
        typer.Argument(
            metavar="DIR",
            help="Folder with corpora: folders speech, music, sfx, within train, valid, test or not; DNS Challenge; "
            "MTG-Jamendo; MUSAN; WHAM! noise; DnR.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Manifest; DIR/manifest.parquet by default.", show_default=False
        ),
    ] = None,
    jobs: Jobs = None,
    headers_only: Annotated[
        bool, typer.Option("--headers-only", help="Do not decode: fast, but silent and damaged files stay unknown.")
    ] = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """List the audio files of a folder, their lengths and loudness, in a Parquet file that sdc train reads.

    Run it again to go on after an interruption, or to add what is new: files that have not changed are not read again.
    Files that cannot be read are left out and listed in FILE's .unreadable.txt; the exit code is 0 unless nothing can
    be read.

    Example: sdc data scan corpora --jobs 16
    """
    require("train", "sdc data scan")
    from ..data.parallel import num_cores
    from ..data.pool import MANIFEST
    from ..data.scan import scan as run
    from ..recipe import Recipe

    console = Console(quiet=quiet, json=json)
    with console.progress(str(data_root), unit="files") as progress:
        result = run(
            data_root,
            output or data_root / MANIFEST,
            domains=Recipe(name="scan").model.domains,
            jobs=jobs or num_cores(),
            measure=not headers_only,
            progress=progress,
            report=console.say,
        )
    console.say(_summary(result))
    if result.unreadable:
        console.say(f"{result.unreadable} files cannot be read; {result.unreadable_list} says why")
    if result.left_out:
        console.say(f"{result.left_out} files are shorter than 0.1 s or silent, and will not be used")
    console.result(result)


def _summary(result: ScanResult) -> str:
    domains = (
        f"{domain} {count} files, {result.seconds[domain] / 3600:.2f} h" for domain, count in result.files.items()
    )
    return f"{result.manifest}: {'; '.join(domains)}"


@app.command()
def mix(
    data_root: Annotated[
        Path,
        typer.Option(
            metavar="DIR|FILE",
            help="Folder as for sdc data scan, or a manifest; if it has splits, only the one to make is used.",
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
    sample_rate: Annotated[
        int,
        typer.Option(
            metavar="HZ",
            min=16_000,
            help="Of the set, 16000 or more. Above 16000, files of a lower rate are left out: they have nothing at the "
            "top.",
        ),
    ] = 16_000,
    seed: Annotated[
        int, typer.Option(metavar="N", min=0, help="The same seed makes the same mixtures, with any --jobs.")
    ] = 0,
    jobs: Jobs = None,
    quiet: Quiet = False,
) -> None:
    """Mix stems to DnR-style tracks: <id>/mix.wav, speech.wav, music.wav, sfx.wav.

    Stems are filled with clip after clip and brought to the paper's loudness targets.

    Example: sdc data mix --data-root corpus -o dnr --split val --count 100
    """
    require("train", "sdc data mix")
    from ..data.dnr import write_tracks
    from ..data.parallel import num_cores
    from ..data.pool import find_manifest, open_pool
    from ..recipe import Recipe

    recipe = Recipe(name="mix")
    console = Console(quiet=quiet)
    jobs = jobs or num_cores()
    with tempfile.TemporaryDirectory(prefix="sdc-") as kept:
        with console.progress(str(data_root), unit="files") as progress:
            manifest = find_manifest(
                data_root, recipe.model.domains, kept=Path(kept), jobs=jobs, progress=progress, report=console.say
            )
        name = "valid" if split == "val" else split
        splits = manifest.splits
        if name not in splits and len(splits) > 1:
            # Anything else would put what a model was trained on into its test.
            folder = f", or give the folder of one, such as {data_root / splits[-1]}" if data_root.is_dir() else ""
            wrong(f"{data_root}: has no {name} split, only {', '.join(splits)}; choose another --split{folder}")
        if name not in splits:
            console.say(f"{data_root}: has no splits; the {split} set is mixed from all of it")
        pool = open_pool(
            manifest,
            split=name if name in splits else None,
            domains=recipe.model.domains,
            sample_rate=sample_rate,
            min_sample_rate=sample_rate if sample_rate > recipe.model.sample_rate else 0,
            report=console.say,
        )
        with console.progress(str(output), unit="mixtures") as progress:
            tracks = write_tracks(
                pool,
                recipe.mixing,
                output,
                split=split,
                count=count,
                seconds=seconds,
                seed=seed,
                jobs=min(jobs, count),
                progress=progress,
                report=console.say,
            )
    console.say(f"{output}: {len(tracks)} {'mixture' if len(tracks) == 1 else 'mixtures'} of {seconds:g} s")
    console.finish()
