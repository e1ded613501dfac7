"""`sdc separate`."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

import typer

from ..progress import Progress
from .console import Console, say_audio, source_name, wrong
from .options import (
    AddTrack,
    AudioBitrate,
    AudioCodec,
    AudioInputs,
    Device,
    DeviceOption,
    FilmOutput,
    Force,
    FormatOption,
    Jobs,
    Json,
    Language,
    Model,
    ProgressOption,
    Quiet,
    Rescale,
    Runtime,
    RuntimeOption,
    ShardOption,
    SkipExisting,
    Sum,
    Threads,
    Title,
    Track,
    Views,
    Without,
    count_processes,
    outputs_of,
    say_runtime,
    select,
    soundtrack_of,
    write_options,
)

if TYPE_CHECKING:
    from ..audio import WriteOptions
    from ..engine.batch import Say
    from ..engine.codec import Codec
    from ..engine.files import Job
    from ..engine.films import Soundtrack
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
    soundtrack: Soundtrack | None
    cover: bool
    write: WriteOptions
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
            soundtrack=self.soundtrack,
            cover=self.cover,
            write=self.write,
            overwrite=self.force,
            progress=progress,
        )


def separate(
    inputs: AudioInputs,
    output: FilmOutput = None,
    stem: Annotated[
        list[str],
        typer.Option(
            metavar="speech|music|sfx|all",
            help="What to extract: a domain of the model, or every one of them (all). May be given several times. "
            "Default: all.",
            show_default=False,
        ),
    ] = [],  # noqa: B006
    without: Without = [],  # noqa: B006
    sum: Sum = False,
    film: Annotated[
        bool,
        typer.Option("--film", help="Write films: copies of the input, picture and all else, with this sound."),
    ] = False,
    track: Track = 1,
    add_track: AddTrack = False,
    audio_codec: AudioCodec = None,
    audio_bitrate: AudioBitrate = None,
    language: Language = None,
    title: Title = None,
    cover: Annotated[
        bool,
        typer.Option(
            "--cover", help="Put the cover of the input into the outputs, too, but for WAV, which holds none."
        ),
    ] = False,
    views: Views = None,
    kind: FormatOption = None,
    rescale: Rescale = False,
    model: Model = None,
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
    """Separate audio files into speech, music and sound effects.

    Each INPUT becomes one file per stem beside it: a.wav becomes a.speech.wav, a.music.wav and a.sfx.wav. Stems are
    cut out of the input with masks that a codec finds; nothing is compressed. A model made for separation (one without
    codes in sdc models list) puts out stems itself. Stems have the input's sample rate and channels, and add up to it.
    Above half of the model's sample rate (8 kHz for the models that ship) each gets as large a share of the input as
    right below. With --film, or if the output has the suffix of a film (.mp4, .m4v, .mov, .mkv, .webm), picture and
    all else of the input are kept.

    Example: sdc separate film.mp4 --without speech -o film.music-and-effects.mp4
    """
    from ..engine.batch import threads_for
    from ..engine.films import is_film
    from ..engine.plans import plan_separate
    from ..families import of
    from ..zoo import find

    console = Console(quiet=quiet, json=json, progress=progress)
    recipe = find(model).recipe
    domains = recipe.model.domains
    if views is not None and not of(recipe).streams(recipe):
        wrong(f"--views {views}: views are of masks, and {recipe.name} makes none; leave the option out")
    outputs = outputs_of(stem, without, summed=sum, default="all")
    for name in stem:
        if name not in (*domains, "all"):
            wrong(f"--stem {name}: the model has no such domain; choose from {', '.join(domains)}, all")
    for name in without:
        if name not in domains:
            wrong(f"--without {name}: the model has no such domain; choose from {', '.join(domains)}")
    if set(without) == set(domains):
        wrong("--without: leaves nothing; leave one domain")
    stems = [name for given in outputs for name in (domains if given == "all" else (given,))]
    soundtrack = soundtrack_of(
        film or add_track or (output is not None and is_film(output)),
        stems,
        add=add_track,
        codec=audio_codec,
        bitrate=audio_bitrate,
        language=language,
        title=title,
    )
    if cover and soundtrack is not None:
        wrong("--cover is of sound alone, and this writes a film, which keeps its own; leave it out")
    write = write_options(kind, audio_bitrate, rescale=rescale, film=soundtrack is not None)
    only = select(skip_existing=skip_existing, force=force, shard=shard)
    todo = console.settle(
        lambda: plan_separate(
            inputs,
            output,
            stems,
            overwrite=force,
            domains=domains,
            only=only,
            soundtrack=soundtrack,
            write=write,
        )
    )

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
            soundtrack=soundtrack,
            cover=cover,
            write=write,
            force=force,
        )
        say_runtime(console.say, work.codec, runtime)
        # For other processes one that has not loaded anything.
        console.work(work if processes == 1 else replace(work), todo, processes=processes, show=show)
    console.finish()
