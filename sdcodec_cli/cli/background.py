"""`sdc background`."""

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
    parse_snr,
    write_options,
)
from .speech import run_jobs, settle


def background(
    inputs: SpeechInputs,
    other: Annotated[
        str,
        typer.Option(
            "--with",
            metavar="OTHER",
            help="Where the new background is: a .sdc file, audio, or - for standard input. Speech in it is left out.",
            show_default=False,
        ),
    ],
    output: SpeechOutput = None,
    snr: Annotated[
        float | None,
        typer.Option(
            metavar="DB",
            parser=parse_snr,
            help="How much louder the speech is than its new background, -40 to 100 dB. By default the new one is as "
            "loud as the one that it replaces.",
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
    """Give speech the background of another recording.

    Each INPUT, a .sdc file or audio, becomes a file beside it: a.sdc becomes a.exchanged.wav. All that is not
    speech in INPUT is replaced by all that is not speech in OTHER, which is cut to its length, or repeated with a short
    fade. With --sdc, or a name like -o a.sdc, a .sdc file is written and not audio: codes of the speech stay as they
    are, those of the background are made anew. Levels are loudness after ITU-R BS.1770.

    Example: sdc background talk.sdc --with rain.wav -o outside.wav
    """
    console = Console(quiet=quiet, json=json, progress=progress)
    write = write_options(kind, audio_bitrate, rescale=rescale)
    todo = settle(
        console,
        inputs,
        output,
        "exchanged",
        model=model,
        sdc=sdc,
        write=write,
        shard=shard,
        skip_existing=skip_existing,
        force=force,
        beside=other,
    )
    if todo:
        from ..engine.background import exchange_background as run

        how = functools.partial(
            run, other=other, snr=snr, sdc=sdc or None, channels=channels, track=track, write=write, overwrite=force
        )
        run_jobs(console, todo, how, model=model, runtime=runtime, device=device, threads=threads, jobs=jobs)
    console.finish()
