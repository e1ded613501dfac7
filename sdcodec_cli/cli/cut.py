"""`sdc cut`."""

from __future__ import annotations

from typing import Annotated

import typer

from .console import Console, say_edit
from .options import EditOutput, Force, Json, Quiet, Start, StreamInput, parse_positive


def cut(
    source: StreamInput,
    output: EditOutput,
    start: Start = 0.0,
    length: Annotated[
        float | None,
        typer.Option(
            "--duration",
            metavar="S",
            parser=parse_positive,
            help="Keep this many seconds, above 0; to the end by default.",
            show_default=False,
        ),
    ] = None,
    force: Force = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Cut an excerpt out of a .sdc file, exact to the sample.

    No model is needed, and nothing is coded again: the excerpt decodes to the samples that sdc decode gives with the
    same --start and --duration. It keeps a second or more before and behind as context, which is not played.

    Example: sdc cut talk.sdc --start 3.5 --duration 10 -o excerpt.sdc
    """
    from ..engine.plans import plan_edit

    console = Console(quiet=quiet, json=json)
    for job in console.settle(lambda: plan_edit([source], output, overwrite=force)):
        from ..engine.edit import cut as run

        with console.catching(), job.folders():
            with console.progress(job.source) as progress:
                target = job.targets["sdc"]
                result = run(job.source, target, start=start, duration=length, overwrite=force, progress=progress)
            say_edit(console, result)
    console.finish()
