"""`sdc compress`."""

from __future__ import annotations

from typing import Annotated, Literal, cast

import typer

from .console import Console, duration, num_bytes, source_name, speed, target_name, wrong
from .options import (
    AudioInputs,
    Bitrate,
    DeviceOption,
    Effort,
    Fine,
    Force,
    Json,
    Model,
    Quiet,
    RuntimeOption,
    StreamOutput,
    Threads,
    Track,
    check_bitrate,
    say_runtime,
)


def parse_domains(text: str) -> str:
    """`auto`, `all`, or names separated by commas, each once."""
    names = [name.strip() for name in text.split(",")]
    if not all(names) or len(set(names)) < len(names) or (len(names) > 1 and {"auto", "all"} & set(names)):
        raise typer.BadParameter(f"{text!r} is not auto, all, or a list of domains such as speech,music")
    return ",".join(names)


def compress(
    inputs: AudioInputs,
    output: StreamOutput = None,
    model: Model = None,
    bitrate: Bitrate = None,
    domains: Annotated[
        str,
        typer.Option(
            metavar="auto|all|NAME,...",
            parser=parse_domains,
            help="Domains to store: in each segment of 2 s those that are active (auto), all, or the ones named, such "
            "as speech,music.",
        ),
    ] = "auto",
    channels: Annotated[
        Literal["mono", "keep"],
        typer.Option(help="Mix the channels down to one, or keep them, each coded by itself at the full bitrate."),
    ] = "mono",
    envelope: Annotated[
        bool,
        typer.Option(
            "--envelope/--no-envelope",
            help="Store the levels that decoded audio lacks in bands, too: half a kbit/s or, --fine, 1.9, for a "
            "brighter and clearer sound. A file with some of the domains only has none.",
        ),
    ] = True,
    fine: Fine = None,
    treble: Annotated[
        bool,
        typer.Option(
            "--treble/--no-treble",
            help="Store what it takes to make the octave above the model's band (8 to 16 kHz) out of the one below, "
            "too: 0.3 to 0.5 kbit/s, where there is something. A file with some of the domains only has none.",
        ),
    ] = True,
    track: Track = 1,
    effort: Effort = None,
    runtime: RuntimeOption = "auto",
    device: DeviceOption = "auto",
    threads: Threads = None,
    force: Force = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Compress audio files to .sdc files.

    Each INPUT becomes a file beside it, with the suffix .sdc.

    Example: sdc compress talk.wav -o talk.sdc
    """
    from ..engine.files import plan_compress
    from ..zoo import find

    console = Console(quiet=quiet, json=json)
    selection: Literal["auto", "all"] | list[str] = (
        cast(Literal["auto", "all"], domains) if domains in ("auto", "all") else domains.split(",")
    )
    known = find(model).recipe.model.domains
    for name in selection if isinstance(selection, list) else ():
        if name not in known:
            wrong(f"--domains {domains}: the model has no {name}; choose auto, all, or from {', '.join(known)}")
    whole = isinstance(selection, str) or len(selection) == len(known)
    if fine is not None and not (envelope and whole):
        option = "--fine" if fine else "--coarse"
        wrong(f"{option} is about the envelope; leave it out, or {'--domains' if envelope else '--no-envelope'}")
    jobs = console.settle(lambda: plan_compress(inputs, output, overwrite=force, domains=known))
    if jobs:
        from ..engine.codec import open_codec
        from ..engine.compress import compress as run

        codec = open_codec(model, runtime=runtime, device=device, threads=threads, effort=effort)
        say_runtime(console, codec, runtime)
        check_bitrate(codec, bitrate, envelope=envelope and whole, fine=fine)
        codec.prepare(decode=(envelope or treble) and whole)
        for job in jobs:
            with console.catching(), job.folders():
                with console.progress(job.source) as progress:
                    result = run(
                        job.source,
                        job.targets["sdc"],
                        codec=codec,
                        bitrate=bitrate,
                        domains=selection,
                        channels=channels,
                        envelope=envelope,
                        fine=fine,
                        treble=treble,
                        track=track,
                        overwrite=force,
                        progress=progress,
                    )
                for note in filter(None, (result.channels_note, *result.notes)):
                    console.say(f"{source_name(result.input)}: {note}")
                console.say(
                    f"{target_name(result.output)}: {duration(result.seconds)}, {num_bytes(result.bytes)}, "
                    f"{result.bitrate:.1f} kbit/s, {speed(result.times_real_time, result.device)}"
                )
                console.result(result)
    console.finish()
