"""The tables that the terminal and the report show, from the result of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence

from .paper import PaperRow
from .report import Cell, Column, Row, TableView
from .score import METRICS, CodebookUse, EvalResult, Summary
from .score import Row as Line

TITLES = {
    "resynthesis": "Resynthesis: through encoder, quantizer and decoder",
    "separation": "Separation straight from the decoder",
    "masked separation": "Separation by masks on the mixture",
    "whole": "Audio of a single domain through compress and decode",
}
HEADS = {
    "si_sdr": "SI-SDR, dB",
    "si_sdri": "SI-SDRi, dB",
    "visqol_speech": "ViSQOL speech",
    "visqol_audio": "ViSQOL audio",
    "mel": "mel",
    "stft": "STFT",
}
LOWER_IS_BETTER = {"mel", "stft"}

SAME_BITRATE = 1.25
"""Systems whose bitrates are within this factor of each other compete for the best score."""


def table_views(result: EvalResult) -> list[TableView]:
    """Everything that `sdc eval` shows, tables without rows left out."""
    views = [_scores(result, task, title) for task, title in TITLES.items()]
    views += [_cross(result), _activity(result), _codebooks(result), _cost(result)]
    return [view for view in views if view.rows]


def _scores(result: EvalResult, task: str, title: str) -> TableView:
    lines = [line for line in result.rows if line.task == task]
    shown = [metric for metric in METRICS if any(metric in line.metrics for line in lines)]
    rates = any(line.bitrate is not None for line in lines)
    counts = any(line.metrics["si_sdr"].num_clips != result.num_clips for line in lines)
    columns = [Column("stem"), Column("system"), *(Column(HEADS[metric]) for metric in shown)]
    columns += [Column("kbit/s")] * rates + [Column("clips")] * counts
    rows = []
    for stem in dict.fromkeys(line.stem for line in lines):
        of_stem = [line for line in lines if line.stem == stem]
        for line in of_stem:
            best = _winners(of_stem, line, shown)
            cells = [_cell(line.metrics.get(metric), best=metric in best) for metric in shown]
            cells += [Cell(_text(line.bitrate))] * rates + [Cell(str(line.metrics["si_sdr"].num_clips))] * counts
            rows.append(Row((Cell(line.stem), Cell(line.system), *cells)))
        for paper in result.paper:
            if (paper.task, paper.table, paper.stem) == (task, "II", stem):
                cells = [Cell(_paper_text(paper, metric)) for metric in shown]
                cells += [Cell(_text(paper.bitrate))] * rates + [Cell("–")] * counts
                rows.append(Row((Cell(paper.stem), Cell(paper.system), *cells), paper=True))
    remarks = _remarks(lines, rows, shown, rates)
    if task == "masked separation" and result.views > 1:
        remarks.append(f"Masks are the mean over {result.views} views, those of the paper of one (--views 1).")
    return TableView(title, tuple(columns), tuple(rows), " ".join(remarks))


def _remarks(lines: Sequence[Line], rows: Sequence[Row], shown: Sequence[str], rates: bool) -> list[str]:
    """What is to be said below a table of scores."""
    remarks = []
    if any(cell.best for row in rows for cell in row.cells):
        rivals = "systems of about the same bitrate" if rates else "all"
        lower = [HEADS[metric] for metric in shown if metric in LOWER_IS_BETTER]
        remarks.append(f"Marked: the best of {rivals}; lower is better for {' and '.join(lower)}.")
    missing = {
        f"{HEADS[metric]}: {summary.reason.replace('_', ' ')}"
        for line in lines
        for metric, summary in line.metrics.items()
        if summary.reason is not None
    }
    if missing:
        remarks.append(f"Without a value in some clips: {'; '.join(sorted(missing))}.")
    if any(row.paper for row in rows):
        remarks.append(
            "Rows marked as the paper's were measured by its authors on DnR itself, with other material and code."
        )
    return remarks


def _winners(lines: Sequence[Line], line: Line, shown: Sequence[str]) -> set[str]:
    """Metrics in which a line is the best of those of about its bitrate."""

    def competes(other: Line) -> bool:
        if other.bitrate is None or line.bitrate is None:
            return other.bitrate is line.bitrate
        return max(other.bitrate, line.bitrate) <= SAME_BITRATE * min(other.bitrate, line.bitrate)

    found = set()
    for metric in shown:
        rivals = [_mean(other.metrics.get(metric)) for other in lines if competes(other)]
        values = [value for value in rivals if value is not None]
        mine = _mean(line.metrics.get(metric))
        best = (min if metric in LOWER_IS_BETTER else max)(values, default=None)
        if mine is not None and mine == best and len(values) > 1:
            found.add(metric)
    return found


def _cell(summary: Summary | None, *, best: bool) -> Cell:
    value = _mean(summary)
    return Cell(_with_deviation(value, None if summary is None else summary.std), best=best)


def _paper_text(paper: PaperRow, metric: str) -> str:
    values = {
        "si_sdr": (paper.si_sdr, paper.si_sdr_std),
        "si_sdri": (paper.si_sdri, paper.si_sdri_std),
        "visqol_speech": (paper.visqol, paper.visqol_std),
    }
    return _with_deviation(*values.get(metric, (None, None)))


def _with_deviation(value: float | None, deviation: float | None) -> str:
    return _text(value) if value is None or deviation is None else f"{value:.2f} ± {deviation:.2f}"


def _cross(result: EvalResult) -> TableView:
    cells = {(row.stem, row.through): _mean(row.metrics["si_sdr"]) for row in result.rows if row.task == "cross"}
    domains = tuple(dict.fromkeys(stem for stem, _ in cells))
    rows = []
    for stem in domains:
        values = [cells.get((stem, through)) for through in domains]
        best = max((value for value in values if value is not None), default=None)
        rows.append(
            Row((Cell(stem), *(Cell(_text(value), best=value is not None and value == best) for value in values)))
        )
    columns = (Column("stem"), *(Column(domain, group="through the quantizer of") for domain in domains))
    return TableView("Each stem through each quantizer, SI-SDR in dB", columns, tuple(rows), "As Fig. 3 of the paper.")


def _activity(result: EvalResult) -> TableView:
    rows = tuple(
        Row(
            (
                Cell(row.signal),
                Cell(row.domain),
                Cell(_text(row.precision)),
                Cell(_text(row.recall)),
                Cell(str(row.num_segments)),
            )
        )
        for row in result.activity
    )
    columns = tuple(map(Column, ("signal", "domain", "precision", "recall", "segments")))
    return TableView("Domains found to be present, in segments of 2 s", columns, rows)


def _codebooks(result: EvalResult) -> TableView:
    levels = max((len(use.perplexity) for use in result.codebooks), default=0)
    rows = tuple(
        Row((Cell(use.domain), *(Cell(f"{value:.0f}") for value in use.perplexity), Cell(f"{_unused(use):.0%}")))
        for use in result.codebooks
    )
    columns = (
        Column("domain"),
        *(Column(str(level + 1), group="perplexity of level") for level in range(levels)),
        Column("never taken"),
    )
    return TableView("Codebook use by the mixtures", columns, rows)


def _unused(use: CodebookUse) -> float:
    return sum(use.unused) / (len(use.unused) * use.codebook_size)


def _cost(result: EvalResult) -> TableView:
    rows = tuple(
        Row((Cell(cost.system), Cell(cost.device), Cell(f"{cost.encode:.1f}"), Cell(f"{cost.decode:.1f}")))
        for cost in result.cost
    )
    columns = (
        Column("system"),
        Column("device"),
        *(Column(way, group="times real time") for way in ("encode", "decode")),
    )
    note = ""
    if result.file_bitrate is not None:
        note = f"The .sdc files of the mixtures take {result.file_bitrate:.2f} kbit/s, headers included."
    return TableView("What it takes", columns, rows, note)


def _mean(summary: Summary | None) -> float | None:
    return None if summary is None else summary.mean


def _text(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
