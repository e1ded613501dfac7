"""`sdc mixer`."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from ..progress import Progress
from .console import Console, duration, num_bytes, source_name, wrong
from .loading import Models
from .options import (
    DeviceOption,
    Force,
    Jobs,
    Json,
    ProgressOption,
    Quiet,
    RuntimeOption,
    ShardOption,
    SkipExisting,
    Threads,
    Track,
    Views,
    complete_model,
    count_processes,
    say_runtime,
    select,
)

if TYPE_CHECKING:
    from ..engine.batch import Say
    from ..engine.codec import Codec
    from ..engine.files import Job
    from ..engine.mixer.mixer import MixerResult
    from ..engine.separator import Separator


@dataclass(frozen=True, kw_only=True)
class _Mixer:
    """What is done with one input; each process loads each model once, for the first that needs it."""

    models: Models
    views: int | None
    track: int
    force: bool

    @functools.cached_property
    def _separator(self) -> Codec | Separator:
        from ..engine.separator import open_separator

        how = self.models
        found = open_separator(how.model, runtime=how.runtime, device=how.device, threads=how.threads)
        found.prepare()
        return found

    def __call__(self, job: Job, say: Say, progress: Progress | None) -> MixerResult:
        from ..engine.mixer.mixer import mixer

        def separator() -> Codec | Separator:
            say_runtime(say, self._separator, self.models.runtime)
            return self._separator

        return mixer(
            job.source,
            job.targets["page"],
            codec=lambda header: self.models.codec_for(say, job.source, header),
            separator=separator,
            views=self.views,
            track=self.track,
            overwrite=self.force,
            progress=progress,
        )


def mixer(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT",
            help="Files made by sdc compress, other audio or films, or folders with a stem in each file.",
            show_default=False,
        ),
    ],
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE|DIR/",
            help="File (.html) for one page, or folder (existing, or ending in a slash) for several.",
            show_default=False,
        ),
    ] = None,
    track: Track = 1,
    views: Views = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|DIR",
            help="Model, by its name in `sdc models list` or by its folder. By default the one that a .sdc file names, "
            "and the first of that list for other audio.",
            autocompletion=complete_model,
            show_default=False,
        ),
    ] = None,
    runtime: RuntimeOption = "auto",
    device: DeviceOption = "auto",
    threads: Threads = None,
    jobs: Jobs = 1,
    shard: ShardOption = None,
    skip_existing: SkipExisting = False,
    force: Force = False,
    progress: ProgressOption = "auto",
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Make a page to look at the stems of audio, listen to them and mix them.

    Each INPUT becomes a page beside it, a.mixer.html, which works from disk in any browser: a waveform, a spectrogram
    and a fader for each stem, mute, solo and loop, the mix to download, and the sdc decode command that does the same.
    The stems are those of a .sdc file, those that a model separates in other audio, or the files of a folder. The sound
    in the page is MP3. More than 20 minutes, or 40 MiB, goes into a folder beside the page, a.mixer.sound.

    Example: sdc mixer talk.sdc
    """
    from ..engine.batch import threads_for
    from ..engine.plans import plan_mixer
    from ..families import of
    from ..zoo import find

    console = Console(quiet=quiet, json=json, progress=progress)
    if views is not None and not of(recipe := find(model).recipe).streams(recipe):
        wrong(f"--views {views}: views are of masks, and {recipe.name} makes none; leave the option out")
    only = select(skip_existing=skip_existing, force=force, shard=shard)
    todo = console.settle(lambda: plan_mixer(inputs, output, overwrite=force, only=only))

    def show(result: MixerResult) -> None:
        name = source_name(result.input)
        for note in result.notes:
            console.say(f"{name}: {note}")
        beside = f" with the folder {result.folder}" if result.folder else ""
        what = f"{duration(result.seconds)}, {', '.join(result.stems)}, {num_bytes(result.num_bytes)}{beside}"
        console.say(f"{result.output}: {what}; open it in a browser")
        for problem in result.problems:
            console.fail(f"{name}: {problem}")
        console.result(result)

    processes = count_processes(jobs, todo)
    work = _Mixer(
        models=Models(model=model, runtime=runtime, device=device, threads=threads_for(threads, processes)),
        views=views,
        track=track,
        force=force,
    )
    console.work(work, todo, processes=processes, show=show)
    console.finish()
