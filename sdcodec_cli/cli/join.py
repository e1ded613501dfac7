"""`sdc join`."""

from __future__ import annotations

from typing import Annotated

import typer

from .console import Console, say_edit
from .options import EditOutput, Force, Json, Quiet


def join(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT",
            help="Files made by sdc compress, in their order; one may be - for standard input.",
            show_default=False,
        ),
    ],
    output: EditOutput,
    force: Force = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Join .sdc files of one model, sample rate and number of channels.

    No model is needed, and nothing is coded again: each file decodes as it did alone, at its own level. Excerpts of one
    file that follow one another become one again, without a seam. Tags are those of the first file.

    Example: sdc join opening.sdc talk.sdc -o both.sdc
    """
    from ..engine.plans import plan_edit

    console = Console(quiet=quiet, json=json)
    for job in console.settle(lambda: plan_edit(inputs, output, overwrite=force)):
        from ..engine.edit import join as run

        with console.catching(), job.folders():
            with console.progress(job.targets["sdc"]) as progress:
                result = run(inputs, job.targets["sdc"], overwrite=force, progress=progress)
            say_edit(console, result)
    console.finish()
