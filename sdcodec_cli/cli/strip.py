"""`sdc strip`."""

from __future__ import annotations

from typing import Annotated

import typer

from .console import Console, say_edit, wrong
from .options import Below, EditOutput, Force, Json, Quiet, StreamInput, parse_names


def strip(
    source: StreamInput,
    output: EditOutput,
    domains: Annotated[
        list[str],
        typer.Option(
            metavar="NAME,...",
            parser=parse_names,
            help="Domains that stay, such as speech,music; the others are removed. May be given several times. All by "
            "default.",
            show_default=False,
        ),
    ] = [],  # noqa: B006
    codebooks: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Codebooks that stay of each domain, from the first on: whole layer groups, four codebooks each in "
            "files of sdc compress. All by default.",
            show_default=False,
        ),
    ] = None,
    below: Below = None,
    force: Force = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Leave domains, upper codebooks or what is above a frequency out of a .sdc file.

    No model is needed, and nothing is coded again: with all their codebooks, domains that stay decode to the same
    samples as before. A removed domain decodes to silence, and sdc info says that it was removed.

    Example: sdc strip talk.sdc --domains speech --codebooks 8 -o voice.sdc
    """
    from ..engine.plans import plan_edit

    console = Console(quiet=quiet, json=json)
    if not domains and codebooks is None and below is None:
        wrong("nothing to leave out; say what stays with --domains, --codebooks or --below")
    named = [name for given in domains for name in given.split(",")]
    for job in console.settle(lambda: plan_edit([source], output, overwrite=force)):
        from ..engine.edit import strip as run

        with console.catching(), job.folders():
            with console.progress(job.source) as progress:
                result = run(
                    job.source,
                    job.targets["sdc"],
                    domains=named or None,
                    num_codebooks=codebooks,
                    below=below,
                    overwrite=force,
                    progress=progress,
                )
            say_edit(console, result)
    console.finish()
