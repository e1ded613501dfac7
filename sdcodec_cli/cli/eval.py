"""`sdc eval`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from .console import Console, put, table, wrong
from .options import DeviceOption, Force, Json, Model, Quiet

if TYPE_CHECKING:
    from ..engine.evaluate.score import EvalResult, Summary

DEFAULT_PEERS = ("mixture", "opus:18")
"""Left out with a note where a program is missing; peers that were asked for are an error then."""


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
    dnr: Annotated[
        Literal["train", "val", "test"], typer.Option(help="Split: tr (train), cv (val) or tt (test).")
    ] = "test",
    model: Model = None,
    against: Annotated[
        list[str] | None,
        typer.Option(
            "--against",
            metavar="NAME",
            help="What to measure beside it: mixture (unprocessed), opus:KBPS, dac, encodec:KBPS, a model of the zoo "
            "or its folder, or none. May be given several times; mixture and opus:18 by default.",
            show_default=False,
        ),
    ] = None,
    protocol: Annotated[
        Literal["paper", "published-code"],
        typer.Option(help="How tracks are cut: as the paper says, or as its code does."),
    ] = "paper",
    visqol: Annotated[
        Literal["auto", "off", "speech", "audio", "both"],
        typer.Option(
            help="ViSQOL mode; auto is both, if the extra [eval] is installed. Most of the time goes into it."
        ),
    ] = "auto",
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write index.html there: tables, distributions, spectrograms, and a player to compare by ear.",
            show_default=False,
        ),
    ] = None,
    mushra: Annotated[
        bool, typer.Option("--mushra", help="Write a blind listening test, mushra.html, into the folder of --report.")
    ] = False,
    examples: Annotated[int, typer.Option(metavar="N", min=0, help="Clips to listen to in the report.")] = 4,
    work: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Keep each clip's results here; the same command goes on from them.",
            show_default=False,
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Processes for ViSQOL; the number of cores by default.", show_default=False
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Use the first N clips; all by default.", show_default=False),
    ] = None,
    device: DeviceOption = "auto",
    force: Force = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Score a model on DnR: resynthesis, separation, bitrate and speed, with peers beside it.

    A clip that cannot be read is reported and skipped, and the exit code is 1 at the end. Under torchrun the processes
    share the clips, through --work.

    Example: sdc eval --dnr test --data-root dnr_v2 --against opus:6 --report report
    """
    if mushra and report is None:
        wrong("--mushra needs a place to go; pass --report DIR")

    from ..data.parallel import num_cores
    from ..engine.codec import load_codec
    from ..engine.evaluate.evaluation import Request, evaluate
    from ..engine.train.distributed import is_first_process

    first = is_first_process()
    console = Console(quiet=quiet or not first, json=json and first)
    chosen = tuple(against) if against is not None else DEFAULT_PEERS
    request = Request(
        data_root=data_root,
        split=dnr,
        protocol=protocol,
        against=() if chosen == ("none",) else chosen,
        peers_are_wanted=against is not None,
        visqol=visqol,
        jobs=jobs or num_cores(),
        work=work,
        limit=limit,
        report=report,
        mushra=mushra,
        examples=examples,
        overwrite=force,
        device=device,
    )
    codec = load_codec(model, device=device)
    result = evaluate(codec, request, progress=lambda unit: console.progress(dnr, unit=unit))
    if not first:
        return
    for note in result.notes:
        console.say(note)
    if not json:
        _show(result)
    console.result(result)
    for failure in result.failures:
        console.fail(failure)
    console.finish()


def _show(result: EvalResult) -> None:
    minutes = f"{result.seconds / 60:.1f} min"
    put(f"{result.model} on {result.num_clips} clips of DnR {result.split}, {minutes}, protocol {result.protocol}\n")
    order = ("resynthesis", "separation", "masked separation", "whole")
    columns = (
        "task",
        "stem",
        "system",
        "SI-SDR",
        "±",
        "SI-SDRi",
        "ViSQOL speech",
        "audio",
        "mel",
        "STFT",
        "kbit/s",
        "clips",
    )
    rows = []
    for task in order:
        for row in sorted(
            (row for row in result.rows if row.task == task), key=lambda row: (row.stem != "mix", row.stem)
        ):
            values = row.metrics
            score = values["si_sdr"]
            rows.append(
                (
                    task,
                    row.stem,
                    row.system,
                    _cell(score.mean),
                    _cell(score.std),
                    _mean(values.get("si_sdri")),
                    _mean(values.get("visqol_speech")),
                    _mean(values.get("visqol_audio")),
                    _mean(values.get("mel")),
                    _mean(values.get("stft")),
                    _cell(row.bitrate),
                    str(score.num_clips),
                )
            )
        rows += [
            (
                task,
                row.stem,
                f"{row.system} (paper, DnR)",
                _cell(row.si_sdr),
                "",
                _cell(row.si_sdri),
                _cell(row.visqol),
                *("",) * 5,
            )
            for row in result.paper
            if row.task == task and row.table == "II"
        ]
    table(columns, rows, right=columns[3:], whole=("task", "stem", "system"))
    _show_cross(result)
    put("\nsegments of 2 s in which each domain was found to be present\n")
    table(
        ("signal", "domain", "precision", "recall", "segments"),
        [
            (score.signal, score.domain, _cell(score.precision), _cell(score.recall), str(score.num_segments))
            for score in result.activity
        ],
        right=("precision", "recall", "segments"),
    )
    put("\ncodebooks\n")
    table(
        ("domain", "perplexity of each level", "entries never taken"),
        [
            (use.domain, " ".join(f"{value:.0f}" for value in use.perplexity), str(sum(use.unused)))
            for use in result.codebooks
        ],
        right=("entries never taken",),
    )
    put(f"\n.sdc files of the mixtures: {_cell(result.file_bitrate)} kbit/s, headers included\n")
    table(
        ("times real time", "encode", "decode"),
        [(f"{cost.system} on {cost.device}", f"{cost.encode:.1f}", f"{cost.decode:.1f}") for cost in result.cost],
        right=("encode", "decode"),
    )


def _show_cross(result: EvalResult) -> None:
    cells = {(row.stem, row.through): row.metrics["si_sdr"].mean for row in result.rows if row.task == "cross"}
    domains = tuple(dict.fromkeys(str(through) for _, through in cells))
    put("\neach stem through each domain's quantizer, SI-SDR in dB (Fig. 3 of the paper)\n")
    table(
        ("stem", *domains),
        [(stem, *(_cell(cells.get((stem, through))) for through in domains)) for stem in domains],
        right=domains,
    )


def _mean(summary: Summary | None) -> str:
    return "" if summary is None else _cell(summary.mean)


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
