"""The tables of a report, from the result of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence

from .report import Cell, Column, Row, TableView
from .score import METRICS, EvalResult, Summary
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
    "mel": "mel distance",
    "stft": "STFT distance",
}
LOWER_IS_BETTER = {"mel", "stft"}


def table_views(result: EvalResult) -> list[TableView]:
    """Everything that `sdc eval` prints, for a page."""
    views = [_scores(result, task, title) for task, title in TITLES.items()]
    views += [_cross(result), _activity(result), _codebooks(result), _cost(result)]
    return [view for view in views if view.rows]


def _scores(result: EvalResult, task: str, title: str) -> TableView:
    lines = sorted(
        (line for line in result.rows if line.task == task), key=lambda line: (line.stem != "mix", line.stem)
    )
    shown = [metric for metric in METRICS if any(metric in line.metrics for line in lines)]
    columns = [Column("stem"), Column("system"), *(Column(HEADS[m]) for m in shown), Column("kbit/s"), Column("clips")]
    rows = [Row(_cells(line, shown, _winners(lines, line, shown))) for line in lines]
    if task != "whole":
        for paper in result.paper:
            if paper.task == task and paper.table == "II":
                values = {"si_sdr": paper.si_sdr, "si_sdri": paper.si_sdri, "visqol_speech": paper.visqol}
                cells = [Cell(_text(values.get(metric))) for metric in shown]
                rows.append(
                    Row(
                        (Cell(paper.stem), Cell(paper.system), *cells, Cell(_text(paper.bitrate)), Cell("")), paper=True
                    )
                )
    note = "Rows marked as the paper's were measured by its authors on DnR itself, with other material and code."
    return TableView(title, tuple(columns), tuple(rows), note if any(row.paper for row in rows) else "")


def _winners(lines: Sequence[Line], line: Line, shown: Sequence[str]) -> set[str]:
    """Metrics in which a line is the best of its stem."""
    found = set()
    for metric in shown:
        rivals = [_mean(other.metrics.get(metric)) for other in lines if other.stem == line.stem]
        values = [value for value in rivals if value is not None]
        mine = _mean(line.metrics.get(metric))
        best = (min if metric in LOWER_IS_BETTER else max)(values, default=None)
        if mine is not None and mine == best and len(values) > 1:
            found.add(metric)
    return found


def _cells(line: Line, shown: Sequence[str], best: set[str]) -> tuple[Cell, ...]:
    cells = [Cell(line.stem), Cell(line.system)]
    for metric in shown:
        summary = line.metrics.get(metric)
        value = _mean(summary)
        text = _text(value)
        if summary is not None and value is not None and summary.std is not None:
            text = f"{value:.2f} ± {summary.std:.2f}"
        cells.append(Cell(text, best=metric in best))
    return (*cells, Cell(_text(line.bitrate)), Cell(str(line.metrics["si_sdr"].num_clips)))


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
        Row((Cell(use.domain), *(Cell(f"{value:.0f}") for value in use.perplexity), Cell(str(sum(use.unused)))))
        for use in result.codebooks
    )
    columns = (
        Column("domain"),
        *(Column(str(level + 1), group="perplexity of level") for level in range(levels)),
        Column("never taken"),
    )
    return TableView("Codebook use by the mixtures", columns, rows)


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
