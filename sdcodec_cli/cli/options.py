"""Options that several commands share, declared once."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import typer

Device = Literal["auto", "cpu", "cuda", "mps"]


def complete_model(incomplete: str) -> list[str]:
    """Names of the models in the zoo, for the shell."""
    from ..models_folder import model_names

    return [name for name in model_names() if name.startswith(incomplete)]


def parse_gain(text: str) -> tuple[str, float]:
    """`speech=-6` as a stem and decibels."""
    stem, _, value = text.partition("=")
    try:
        gain = float(value)
    except ValueError:
        gain = math.nan
    if not stem or not -100 <= gain <= 40:
        raise typer.BadParameter(f"{text!r} is not STEM=DB with a gain from -100 to 40 dB, such as speech=-6")
    return stem, gain


AudioInputs = Annotated[
    list[str],
    typer.Argument(
        metavar="INPUT...",
        help="Audio files, folders to search for them, or - for standard input.",
        show_default=False,
    ),
]
StreamInputs = Annotated[
    list[str],
    typer.Argument(
        metavar="INPUT...",
        help="Files made by sdc compress, folders to search for them, or - for standard input.",
        show_default=False,
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="NAME|DIR",
        help="Model, by its name in `sdc models list` or by its folder.",
        autocompletion=complete_model,
    ),
]
DeviceOption = Annotated[
    Device,
    typer.Option(
        "--device", envvar="SDC_DEVICE", help="Where to compute; auto takes CUDA, else Apple's MPS, else the CPU."
    ),
]
Force = Annotated[bool, typer.Option("--force", "-f", help="Overwrite existing outputs.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object per input to standard output.")]
