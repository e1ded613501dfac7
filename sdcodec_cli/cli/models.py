"""`sdc models`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from .console import as_json, num_bytes, table
from .options import Json, complete_model

if TYPE_CHECKING:
    from ..zoo import ModelEntry

app = typer.Typer(name="models", no_args_is_help=True, rich_markup_mode=None, help="List, show and import models.")


@dataclass(frozen=True)
class ModelReport:
    """What `sdc models --json` prints about a model."""

    name: str
    folder: str
    description: str
    sample_rate: int
    """Of the audio that the network sees, in Hz."""
    frame_rate: float
    """Frames per second."""
    domains: tuple[str, ...]
    num_codebooks: int
    """Of each domain."""
    codebook_size: int
    bitrate: float
    """Payload of one domain at full quality, in kbit/s."""
    size_bytes: int | None
    """Size of the weights; null if the model has none yet."""


def _report(entry: ModelEntry) -> ModelReport:
    recipe = entry.recipe
    return ModelReport(
        name=entry.name,
        folder=str(entry.folder),
        description=recipe.model.description,
        sample_rate=recipe.model.sample_rate,
        frame_rate=recipe.frame_rate,
        domains=recipe.model.domains,
        num_codebooks=recipe.quantizer.num_codebooks,
        codebook_size=recipe.quantizer.codebook_size,
        bitrate=recipe.bitrate,
        size_bytes=entry.size_bytes,
    )


@app.command("list")
def list_(json: Json = False) -> None:
    """List the models of the zoo, the default one first.

    Example: sdc models list
    """
    from ..zoo import list_models

    reports = [_report(entry) for entry in list_models()]
    if json:
        for report in reports:
            print(as_json(report))
        return
    table(
        ("name", "Hz", "domains", "kbit/s each", "weights", "description"),
        [
            (
                report.name,
                str(report.sample_rate),
                ", ".join(report.domains),
                f"{report.bitrate:g}",
                "none yet" if report.size_bytes is None else num_bytes(report.size_bytes),
                report.description,
            )
            for report in reports
        ],
        right=("Hz", "kbit/s each", "weights"),
    )


@app.command()
def show(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME|DIR",
            help="Model, by its name in `sdc models list` or by its folder.",
            autocompletion=complete_model,
            show_default=False,
        ),
    ],
    json: Json = False,
) -> None:
    """Show what a model is, and its card: data, licence, scores and limits.

    Example: sdc models show sdcodec-16k-mini
    """
    from ..zoo import find

    entry = find(name)
    report = _report(entry)
    if json:
        print(as_json(report))
        return
    size = "none yet" if report.size_bytes is None else num_bytes(report.size_bytes)
    print(f"{report.name}: {report.description}")
    print(f"  folder   {report.folder}")
    print(f"  audio    {report.sample_rate} Hz, {report.frame_rate:g} frames per second")
    print(f"  domains  {', '.join(report.domains)}")
    print(f"  codes    {report.num_codebooks} x {report.codebook_size} per domain, up to {report.bitrate:g} kbit/s")
    print(f"  weights  {size}")
    if entry.card:
        print(f"\n{entry.card.rstrip()}")
