"""`sdc voice`."""

from __future__ import annotations

import functools
from typing import Annotated

import typer

from .console import Console
from .options import (
    AudioBitrate,
    ChannelsOption,
    DeviceOption,
    Force,
    FormatOption,
    Jobs,
    Json,
    ProgressOption,
    Quiet,
    Rescale,
    RuntimeOption,
    SdcOption,
    ShardOption,
    SkipExisting,
    SpeechInputs,
    SpeechModel,
    SpeechOutput,
    Threads,
    Track,
    write_options,
)
from .speech import run_jobs, settle


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
    kind: FormatOption = None,
    audio_bitrate: AudioBitrate = None,
    rescale: Rescale = False,
    jobs: Jobs = 1,
    shard: ShardOption = None,
    skip_existing: SkipExisting = False,
    model: SpeechModel = None,
    runtime: RuntimeOption = "auto",
    device: DeviceOption = "auto",
    threads: Threads = None,
    force: Force = False,
    progress: ProgressOption = "auto",
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Say the same in the voice of another (an experiment).

    Each INPUT, a .sdc file or audio, becomes a file beside it: a.sdc becomes a.converted.wav, with the same
    words and pauses, without background. Codes of what is said are kept. Codes of how it sounds come from REFERENCE:
    from where it says the same, or nearly so, at a pitch that is as high or low for that voice. Only for models with a
    codebook for what is said, as those of the family decodec. Do not expect much: the authors of the method have
    dropped this use of it.

    Example: sdc voice talk.wav --like other.wav -o converted.wav
    """
    console = Console(quiet=quiet, json=json, progress=progress)
    write = write_options(kind, audio_bitrate, rescale=rescale)
    todo = settle(
        console,
        inputs,
        output,
        "converted",
        model=model,
        sdc=sdc,
        write=write,
        shard=shard,
        skip_existing=skip_existing,
        force=force,
        beside=reference,
    )
    if todo:
        from ..engine.voice import convert_voice as run
        from ..engine.voice import default_model

        how = functools.partial(
            run, reference=reference, sdc=sdc or None, channels=channels, track=track, write=write, overwrite=force
        )
        run_jobs(
            console,
            todo,
            how,
            model=model,
            for_audio=default_model(),
            runtime=runtime,
            device=device,
            threads=threads,
            jobs=jobs,
        )
    console.finish()
