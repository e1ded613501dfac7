"""`sdc eval`."""

from __future__ import annotations

import itertools
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..extras import require
from .console import Console, put, table, wrong
from .options import DEFAULT_VIEWS, Bitrate, DeviceOption, Effort, Force, Json, Model, Quiet, Views, check_bitrate

if TYPE_CHECKING:
    from ..engine.evaluate.report import TableView
    from ..engine.evaluate.score import EvalResult

LEAST = ("clips", "STFT", "mel", "ViSQOL audio", "kbit/s", "ViSQOL speech")
"""Columns of scores, the first of which go first where a terminal is narrow."""

DEFAULT_PEERS = ("mixture", "opus:18")
"""Left out with a note where a program is missing; peers that were asked for are an error then."""

DEFAULT_EXAMPLES = 4


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
    examples: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=0, help="Clips to listen to in the report of --report; 4 by default.", show_default=False
        ),
    ] = None,
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
    effort: Effort = None,
    bitrate: Bitrate = None,
    views: Views = DEFAULT_VIEWS,
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
    require("eval", "sdc eval")
    if mushra and report is None:
        wrong("--mushra needs a place to go; pass --report DIR")
    if examples is not None and report is None:
        wrong("--examples are of the report; pass --report DIR")
    examples = DEFAULT_EXAMPLES if examples is None else examples

    from ..data.parallel import own_cores
    from ..engine.codec import load_codec
    from ..engine.evaluate.evaluation import Request, evaluate
    from ..engine.torchrun import is_first_process

    first = is_first_process()
    console = Console(quiet=quiet or not first, json=json and first)
    chosen = tuple(against) if against is not None else DEFAULT_PEERS
    if "none" in chosen and len(chosen) > 1:
        wrong("--against none stands alone; leave it out, or the others")
    request = Request(
        data_root=data_root,
        split=dnr,
        protocol=protocol,
        against=() if chosen == ("none",) else chosen,
        peers_are_wanted=against is not None,
        visqol=visqol,
        jobs=jobs or own_cores(),
        work=work,
        limit=limit,
        report=report,
        mushra=mushra,
        examples=examples,
        overwrite=force,
        device=device,
        effort=effort,
        bitrate=bitrate,
        views=views,
    )
    codec = load_codec(model, device=device, effort=effort)
    check_bitrate(codec, bitrate)

    def finished(result: EvalResult) -> None:
        # Before pages are made: whatever becomes of them, the numbers are there.
        for note in result.notes:
            console.say(note)
        if not json:
            _show(result)
        console.result(result)
        for failure in result.failures:
            console.fail(failure)

    try:
        evaluate(codec, request, progress=lambda unit: console.progress(dnr, unit=unit), finished=finished)
    except KeyboardInterrupt:
        kept = (
            f"{work} has what is measured, and the same command goes on" if work else "without --work nothing is kept"
        )
        console.say(f"sdc: stopped; {kept}")
        raise
    if report is not None and first:
        console.say(f"{report / 'index.html'}: tables, distributions and {examples} clips to listen to")
    console.finish()


def _show(result: EvalResult) -> None:
    from ..engine.evaluate.tables import table_views

    clips = "1 clip" if result.num_clips == 1 else f"{result.num_clips} clips"
    put(
        f"{result.model} on {clips} of {result.data_root}, split {result.split}, "
        f"{result.seconds / 60:.1f} min of audio, protocol {result.protocol}, effort {result.effort}, "
        f"views {result.views}, {result.bitrate:g} kbit/s per domain"
    )
    for view in table_views(result):
        groups = {column.group for column in view.columns if column.group and not column.title.isdigit()}
        put(f"\n{': '.join((view.title, *groups))}\n")
        _show_table(view)


def _show_table(view: TableView) -> None:
    """A table in the width there is; what has no room is named below it."""
    room = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    heads, rows = _joined(view)
    if _width(heads, rows) > room:
        rows = [[re.sub(r" ± [\d.]+", "", cell) for cell in row] for row in rows]
    dropped = []
    for head in LEAST:
        if _width(heads, rows) > room and head in heads:
            dropped.append(head)
            at = heads.index(head)
            heads, rows = heads[:at] + heads[at + 1 :], [row[:at] + row[at + 1 :] for row in rows]
    numeric = [head for at, head in enumerate(heads) if any(re.match(r"[-−]?\d", row[at]) for row in rows) and at > 0]
    table(heads, rows, right=numeric, whole=[head for head in heads if head not in numeric])
    if view.note:
        put(view.note)
    if dropped:
        put(f"not enough room for {', '.join(dropped)}: use a wider terminal, or --json")


def _joined(view: TableView) -> tuple[list[str], list[list[str]]]:
    """Heads and rows as text; columns that are only numbered are one column."""
    heads: list[str] = []
    columns: list[list[str]] = []
    cells = [[f"{cell.text}{' *' if cell.best else ''}" for cell in row.cells] for row in view.rows]
    for row, texts in zip(view.rows, cells, strict=True):
        if row.paper:
            texts[1] += ", paper"
    for group, members in itertools.groupby(enumerate(view.columns), key=lambda member: member[1].group):
        indices = [at for at, _ in members]
        if group and all(view.columns[at].title.isdigit() for at in indices):
            heads.append(f"{group}s")
            columns.append([" ".join(row[at] for at in indices) for row in cells])
        else:
            heads += [view.columns[at].title for at in indices]
            columns += [[row[at] for row in cells] for at in indices]
    return heads, [list(row) for row in zip(*columns, strict=True)]


def _width(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    """Of a table whose heads may be broken between words."""
    widths = [max(max(map(len, head.split())), *(len(row[at]) for row in rows)) for at, head in enumerate(heads)]
    return sum(widths) + 3 * (len(widths) - 1)
