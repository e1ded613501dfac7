"""`sdc voice`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import Console
from .options import (
    ChannelsOption,
    DeviceOption,
    Force,
    Json,
    Quiet,
    RuntimeOption,
    SdcOption,
    SpeechInputs,
    SpeechModel,
    SpeechOutput,
    Threads,
    Track,
)
from .speech import run_jobs

if TYPE_CHECKING:
    from ..engine.coded import SpeechResult


def voice(
    inputs: SpeechInputs,
    reference: Annotated[
        str,
        typer.Option(
            "--like",
            metavar="REFERENCE",
            help="A recording of the voice: a .sdc file, audio, or - for standard input. Its first ten minutes count.",
            show_default=False,
        ),
    ],
    output: SpeechOutput = None,
    sdc: SdcOption = False,
    channels: ChannelsOption = "keep",
    track: Track = 1,
    model: SpeechModel = None,
    runtime: RuntimeOption = "auto",
    device: DeviceOption = "auto",
    threads: Threads = None,
    force: Force = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Say the same in the voice of another (an experiment).

    Each INPUT, a .sdc file or audio, becomes a file beside it: a.sdc becomes a.converted.wav, with what is said and its
    pauses, without background. Codes of what is said are kept; those of how it sounds are taken from REFERENCE, where
    it says the same or what comes closest and its pitch is as high or low for that voice. Only for models with a
    codebook for what is said, as those of the family decodec. Do not expect much: the authors of the method have
    dropped this use of it.

    Example: sdc voice talk.wav --like other.wav -o converted.wav
    """
    from ..engine.files import plan_speech
    from ..zoo import find

    console = Console(quiet=quiet, json=json)
    domains = find(model).recipe.model.domains
    jobs = console.settle(
        lambda: plan_speech(inputs, output, "converted", sdc=sdc, overwrite=force, domains=domains, beside=reference)
    )
    if jobs:
        from ..engine.voice import convert_voice, default_model

        def work(source: str, target: str, **options: Any) -> SpeechResult:
            return convert_voice(
                source, reference, target, sdc=sdc or None, channels=channels, track=track, overwrite=force, **options
            )

        chosen = default_model()
        run_jobs(console, jobs, work, model=model, for_audio=chosen, runtime=runtime, device=device, threads=threads)
    console.finish()
