"""`sdc enhance`."""

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
    parse_decibels,
    write_options,
)
from .speech import run_jobs, settle


def enhance(
    inputs: SpeechInputs,
    output: SpeechOutput = None,
    background: Annotated[
        float | None,
        typer.Option(
            metavar="DB",
            parser=parse_decibels,
            help="Keep the background at this gain, -100 to 40 dB: 0 is as it was. By default there is none.",
            show_default=False,
        ),
    ] = None,
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
    """Take the speech out of its background.

    Each INPUT, a .sdc file or audio, becomes a file beside it: a.sdc becomes a.enhanced.wav. The speech is decoded from
    its codes; audio is coded first. With --sdc, or a name like -o a.sdc, a .sdc file is written and not audio, and the
    codes of the speech stay as they are. Background is all that is not speech: music and sound effects. Of audio,
    sdc separate keeps the waveform of the speech better, and lets more of the background through.

    Example: sdc enhance talk.wav -o clean.wav
    """
    console = Console(quiet=quiet, json=json, progress=progress)
    write = write_options(kind, audio_bitrate, rescale=rescale)
    todo = settle(
        console,
        inputs,
        output,
        "enhanced",
        model=model,
        sdc=sdc,
        write=write,
        shard=shard,
        skip_existing=skip_existing,
        force=force,
    )
    if todo:
        from ..engine.background import enhance as run

        how = functools.partial(
            run, background=background, sdc=sdc or None, channels=channels, track=track, write=write, overwrite=force
        )
        run_jobs(console, todo, how, model=model, runtime=runtime, device=device, threads=threads, jobs=jobs)
    console.finish()
