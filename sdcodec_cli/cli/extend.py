"""`sdc extend`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from ..progress import Progress
from .console import Console, duration, say_levels, source_name, speed, target_name
from .options import (
    AudioBitrate,
    AudioInputs,
    AudioOutput,
    FormatOption,
    Jobs,
    Json,
    ProgressOption,
    Quiet,
    Rescale,
    ShardOption,
    SkipExisting,
    Track,
    count_processes,
    select,
    write_options,
)

if TYPE_CHECKING:
    from ..audio import WriteOptions
    from ..engine.batch import Say
    from ..engine.extend import ExtendResult
    from ..engine.files import Job


@dataclass(frozen=True)
class _Extend:
    """What is done with one input."""

    track: int
    write: WriteOptions
    force: bool

    def __call__(self, job: Job, say: Say, progress: Progress | None) -> ExtendResult:
        from ..engine.extend import extend

        return extend(
            job.source,
            job.targets["extended"],
            track=self.track,
            replace=self.force,
            write=self.write,
            overwrite=self.force,
            progress=progress,
        )


def extend(
    inputs: AudioInputs,
    output: AudioOutput = None,
    track: Track = 1,
    kind: FormatOption = None,
    audio_bitrate: AudioBitrate = None,
    rescale: Rescale = False,
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
    progress: ProgressOption = "auto",
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
    from ..engine.plans import plan_extend

    console = Console(quiet=quiet, json=json, progress=progress)
    write = write_options(kind, audio_bitrate, rescale=rescale)
    only = select(skip_existing=skip_existing, force=force, shard=shard)
    todo = console.settle(lambda: plan_extend(inputs, output, overwrite=force, only=only, write=write))

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
            say_levels(
                console,
                result.input,
                {"extended": target},
                clipped={"extended": result.clipped},
                peak_db={"extended": result.peak_db or 0.0},
                rescaled_db=result.rescaled_db,
            )
        console.result(result)

    console.work(_Extend(track, write, force), todo, processes=count_processes(jobs, todo), show=show)
    console.finish()
