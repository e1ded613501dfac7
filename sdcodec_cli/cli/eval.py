"""`sdc eval`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from .console import Console, put, table
from .options import DeviceOption, Json, Model, Quiet

if TYPE_CHECKING:
    from ..engine.evaluate.score import EvalResult


def eval_(
    data_root: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="Root of DnR v2, or of a set made by sdc data mix.",
            envvar="SDC_DATA_ROOT",
            show_default=False,
        ),
    ],
    dnr: Annotated[Literal["val", "test"], typer.Option(help="Split: cv (val) or tt (test).")] = "test",
    model: Model = None,
    limit: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Use the first N tracks; all by default.", show_default=False),
    ] = None,
    opus: Annotated[bool, typer.Option(help="Compare with Opus at the same bitrates.")] = True,
    device: DeviceOption = "auto",
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Score a model on DnR: resynthesis and separation, SI-SDR in dB.

    Example: sdc eval --dnr test --data-root dnr_v2
    """
    from ..data.dnr import find_tracks
    from ..engine.codec import load_codec
    from ..engine.evaluate.score import evaluate

    console = Console(quiet=quiet, json=json)
    codec = load_codec(model, device=device)
    tracks = find_tracks(data_root, dnr, codec.domains)[:limit]
    with console.progress(dnr, unit="tracks") as progress:
        result = evaluate(codec, tracks, opus=opus, progress=progress)
    for note in result.notes:
        console.say(note)
    if not json:
        _show(result)
    console.result(result)
    for failure in result.failures:
        console.fail(failure)
    console.finish()


def _show(result: EvalResult) -> None:
    def cell(value: float | None) -> str:
        return "-" if value is None else f"{value:.2f}"

    put(f"{result.model} on {result.num_tracks} tracks, {result.seconds / 60:.1f} min; SI-SDR in dB\n")
    table(
        ("task", "system", "stem", "SI-SDR", "±", "SI-SDRi", "kbit/s", "clips"),
        [
            (
                score.task,
                score.system,
                score.stem,
                cell(score.si_sdr),
                cell(score.si_sdr_std),
                cell(score.si_sdr_improvement),
                cell(score.bitrate),
                str(score.num_clips),
            )
            for score in sorted(result.scores, key=lambda score: (score.task, score.stem))
        ],
        right=("SI-SDR", "±", "SI-SDRi", "kbit/s", "clips"),
    )
    put("\nsegments of 2 s in which each domain was found to be present\n")
    table(
        ("signal", "domain", "precision", "recall", "segments"),
        [
            (score.signal, score.domain, cell(score.precision), cell(score.recall), str(score.num_segments))
            for score in result.activity
        ],
        right=("precision", "recall", "segments"),
    )
