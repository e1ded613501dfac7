"""`sdc compress`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from .console import Console, duration, num_bytes, speed
from .options import AudioInputs, Device, DeviceOption, Force, Json, Model, Quiet, StreamOutput, settled


def parse_domains(text: str) -> str:
    """`auto`, `all`, or names separated by commas, without doubles."""
    names = [name.strip() for name in text.split(",")]
    if not all(names) or len(set(names)) < len(names) or (len(names) > 1 and {"auto", "all"} & set(names)):
        raise typer.BadParameter(f"{text!r} is not auto, all, or a list of domains such as speech,music")
    return ",".join(names)


def compress(
    inputs: AudioInputs,
    output: StreamOutput = None,
    model: Model = None,
    bitrate: Annotated[
        float | None,
        typer.Option(
            metavar="KBPS",
            help="Bitrate of each domain that is present, in kbit/s, above 0; a model allows steps up to its full rate, "
            "which is the default.",
            show_default=False,
        ),
    ] = None,
    domains: Annotated[
        str,
        typer.Option(
            metavar="auto|all|NAME,...",
            parser=parse_domains,
            help="Which domains to store: those found in each stretch of audio (auto), all, or those named, such as "
            "speech,music.",
        ),
    ] = "auto",
    channels: Annotated[
        Literal["mono", "keep"],
        typer.Option(help="Mix the channels down to one, or keep them, each at the full bitrate."),
    ] = "mono",
    device: DeviceOption = "auto",
    force: Force = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Compress audio files to .sdc files.

    Each INPUT becomes a file of the same name that ends in .sdc, in the same folder.

    Example: sdc compress talk.wav -o talk.sdc
    """
    from ..engine.files import plan_compress

    console = Console(quiet=quiet, json=json)
    plan = settled(plan_compress, inputs, output, overwrite=force, console=console)
    if bitrate is not None and not bitrate > 0:
        raise typer.BadParameter(f"--bitrate must be above 0 kbit/s, got {bitrate:g}")
    if plan.jobs:
        from ..engine.codec import load_codec
        from ..engine.compress import compress as run

        codec = load_codec(model, device=device)
        for job in plan.jobs:
            with console.catching(), console.progress(job.source) as progress:
                job.make_folders()
                result = run(
                    job.source,
                    job.targets["sdc"],
                    codec=codec,
                    bitrate=bitrate,
                    domains=_selection(domains),
                    channels=channels,
                    overwrite=force,
                    progress=progress,
                )
                ...
    console.finish()
