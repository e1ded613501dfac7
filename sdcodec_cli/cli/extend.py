"""`sdc extend`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from ..progress import Progress
from .console import Console, duration, source_name, speed, target_name
from .options import (
    AudioInputs,
    AudioOutput,
    Jobs,
    Json,
    Quiet,
    ShardOption,
    SkipExisting,
    Track,
    count_processes,
    select,
)

if TYPE_CHECKING:
    from ..engine.batch import Say
    from ..engine.extend import ExtendResult
    from ..engine.files import Job


@dataclass(frozen=True)
class _Extend:
    """What is done with one input."""

    track: int
    force: bool

    def __call__(self, job: Job, say: Say, progress: Progress | None) -> ExtendResult:
        from ..engine.extend import extend

        return extend(
            job.source,
            job.targets["extended"],
            track=self.track,
            replace=self.force,
            overwrite=self.force,
            progress=progress,
        )


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
    jobs: Jobs = 1,
    shard: ShardOption = None,
    skip_existing: SkipExisting = False,
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
    only = select(skip_existing=skip_existing, force=force, shard=shard)
    todo = console.settle(lambda: plan_extend(inputs, output, overwrite=force, only=only))

    def show(result: ExtendResult) -> None:
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

    console.work(_Extend(track, force), todo, processes=count_processes(jobs, todo), show=show)
    console.finish()
