"""`sdc bench`."""

from __future__ import annotations

from typing import Annotated

import typer

from .console import Console, put, table
from .options import DeviceOption, Json, Model, parse_length


def bench(
    model: Model = None,
    seconds: Annotated[
        float, typer.Option(metavar="S", parser=parse_length, help="Length of the test signal, at least 1 s.")
    ] = 60.0,
    device: DeviceOption = "auto",
    json: Json = False,
) -> None:
    """Measure how fast this machine encodes and decodes, in times real time.

    Example: sdc bench --device cpu
    """
    from ..engine.bench import bench as run
    from ..engine.codec import load_codec

    result = run(load_codec(model, device=device), seconds=seconds)
    if not json:
        put(f"{result.model} on {result.device}, {result.threads} threads, {result.seconds:g} s of noise\n")
        table(
            ("", "times real time", "of the plain network"),
            [
                ("encode", f"{result.encode:.1f}", f"{result.encode_ratio:.2f}"),
                ("decode mix", f"{result.decode_mix:.1f}", ""),
                ("decode one stem", f"{result.decode_one:.1f}", ""),
                ("decode all stems", f"{result.decode_all:.1f}", f"{result.decode_ratio:.2f}"),
            ],
            right=("times real time", "of the plain network"),
        )
    Console(json=json).result(result)
