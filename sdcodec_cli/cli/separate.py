"""`sdc separate`."""

from __future__ import annotations

from typing import Annotated

import typer

from .console import Console, say_audio, source_name, wrong
from .options import (
    AudioInputs,
    AudioOutput,
    DeviceOption,
    Force,
    Json,
    Model,
    Quiet,
    RuntimeOption,
    Threads,
    Track,
    Views,
    say_runtime,
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
    jobs = console.settle(lambda: plan_separate(inputs, output, stems, overwrite=force, domains=domains))
    if jobs:
        from ..engine.separate import separate as run
        from ..engine.separator import open_separator

        codec = open_separator(model, runtime=runtime, device=device, threads=threads)
        say_runtime(console, codec, runtime)
        codec.prepare()
        for job in jobs:
            with console.catching(), job.folders():
                with console.progress(job.source) as progress:
                    result = run(
                        job.source,
                        job.targets,
                        codec=codec,
                        views=views,
                        track=track,
                        overwrite=force,
                        progress=progress,
                    )
                for note in result.notes:
                    console.say(f"{source_name(result.input)}: {note}")
                say_audio(console, result)
                console.result(result)
    console.finish()
