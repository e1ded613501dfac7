"""`sdc extend`."""

from __future__ import annotations

from typing import Annotated

import typer

from .console import Console, duration, source_name, speed, target_name
from .options import AudioInputs, AudioOutput, Json, Quiet, Track


def extend(
    inputs: AudioInputs,
    output: AudioOutput = None,
    track: Track = 1,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            "-f",
            help="Replace what an input has above 8 kHz, where by default it would be left alone; and overwrite "
            "existing outputs.",
        ),
    ] = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Give audio that ends at 8 kHz something above.

    Each INPUT becomes a file beside it: a.wav becomes a.extended.wav, at 32 kHz or the input's own rate if that is
    higher. What it has below 7.6 kHz stays; from there to 16 kHz the octave below is copied up, at levels that are
    guessed from those below: it sounds brighter, and is not what was there. No model is needed. An input that has
    something above 8.5 kHz, in more than 5 % of its frames, is left alone.

    Example: sdc extend talk.wav -o bright.wav
    """
    from ..engine.files import plan_extend

    console = Console(quiet=quiet, json=json)
    jobs = console.settle(lambda: plan_extend(inputs, output, overwrite=force))
    if jobs:
        from ..engine.extend import extend as run

        for job in jobs:
            with console.catching(), job.folders(keep_empty=False):
                with console.progress(job.source) as progress:
                    result = run(
                        job.source,
                        job.targets["extended"],
                        track=track,
                        replace=force,
                        overwrite=force,
                        progress=progress,
                    )
                name = source_name(result.input)
                for note in result.notes:
                    console.say(f"{name}: {note}")
                if result.output is None:
                    console.say(f"{name}: has something above 8 kHz already and is left alone; --force replaces that")
                else:
                    target = target_name(result.output)
                    fast = speed(result.times_real_time, "cpu")
                    console.say(f"{target}: {duration(result.seconds)} at {result.output_rate / 1000:g} kHz, {fast}")
                    if result.clipped:
                        console.say(f"{target}: {result.clipped} samples beyond full scale were limited to it")
                console.result(result)
    console.finish()
