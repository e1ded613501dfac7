"""`sdc separate`."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

import typer

from ..progress import Progress
from .console import Console, say_audio, source_name, wrong
from .options import (
    AudioInputs,
    AudioOutput,
    Device,
    DeviceOption,
    Force,
    Jobs,
    Json,
    Model,
    Quiet,
    Runtime,
    RuntimeOption,
    ShardOption,
    SkipExisting,
    Threads,
    Track,
    Views,
    count_processes,
    say_runtime,
    select,
)

if TYPE_CHECKING:
    from ..engine.batch import Say
    from ..engine.codec import Codec
    from ..engine.files import Job
    from ..engine.separate import SeparateResult
    from ..engine.separator import Separator


@dataclass(frozen=True, kw_only=True)
class _Separate:
    """What is done with one input; each process loads the model once."""

    model: str | None
    runtime: Runtime
    device: Device
    threads: int | None
    views: int | None
    track: int
    force: bool

    @functools.cached_property
    def codec(self) -> Codec | Separator:
        """The model, which can say what it is."""
        from ..engine.separator import open_separator

        return open_separator(self.model, runtime=self.runtime, device=self.device, threads=self.threads)

    @functools.cached_property
    def _prepared(self) -> Codec | Separator:
        self.codec.prepare()
        return self.codec

    def __call__(self, job: Job, say: Say, progress: Progress | None) -> SeparateResult:
        from ..engine.separate import separate

        return separate(
            job.source,
            job.targets,
            codec=self._prepared,
            views=self.views,
            track=self.track,
            overwrite=self.force,
            progress=progress,
        )


def separate(
    inputs: AudioInputs,
    output: AudioOutput = None,
    stem: Annotated[
        list[str],
        typer.Option(
            metavar="speech|music|sfx|all",
            help="What to extract: a domain of the model, or every one of them (all). May be given several times.",
        ),
    ] = ["all"],  # noqa: B006
    track: Track = 1,
    views: Views = None,
    model: Model = None,
    runtime: RuntimeOption = "auto",
    device: DeviceOption = "auto",
    threads: Threads = None,
    jobs: Jobs = 1,
    shard: ShardOption = None,
    skip_existing: SkipExisting = False,
    force: Force = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Separate audio files into speech, music and sound effects.

    Each INPUT becomes one file per stem beside it: a.wav becomes a.speech.wav, a.music.wav and a.sfx.wav. They are
    parts of the input itself, cut out with masks that a codec finds, or what a model made for separation puts out
    (sdc models list: those without codes); nothing is compressed. They reach up to half of the model's sample rate,
    which is 8 kHz for the models that ship, and add up to the input below that
    (below nine tenths of it where a file has to be resampled).

    Example: sdc separate film.wav -o stems/
    """
    from ..engine.batch import threads_for
    from ..engine.files import plan_separate
    from ..families import of
    from ..zoo import find

    console = Console(quiet=quiet, json=json)
    recipe = find(model).recipe
    domains = recipe.model.domains
    if views is not None and not of(recipe).streams(recipe):
        wrong(f"--views {views}: views are of masks, and {recipe.name} makes none; leave the option out")
    for name in stem:
        if name not in (*domains, "all"):
            wrong(f"--stem {name}: the model has no such domain; choose from {', '.join(domains)}, all")
    stems = [name for given in stem for name in (domains if given == "all" else (given,))]
    only = select(skip_existing=skip_existing, force=force, shard=shard)
    todo = console.settle(lambda: plan_separate(inputs, output, stems, overwrite=force, domains=domains, only=only))

    def show(result: SeparateResult) -> None:
        for note in result.notes:
            console.say(f"{source_name(result.input)}: {note}")
        say_audio(console, result)
        console.result(result)

    if todo:
        processes = count_processes(jobs, todo)
        work = _Separate(
            model=model,
            runtime=runtime,
            device=device,
            threads=threads_for(threads, processes),
            views=views,
            track=track,
            force=force,
        )
        say_runtime(console.say, work.codec, runtime)
        # For other processes one that has not loaded anything.
        console.work(work if processes == 1 else replace(work), todo, processes=processes, show=show)
    console.finish()
