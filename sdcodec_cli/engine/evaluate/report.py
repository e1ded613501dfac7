"""A report that a person can read and listen to: one HTML page, which works from disk in any browser."""

from __future__ import annotations

import datetime
import html
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .pages.distributions import distributions
from .pages.document import Sounds, write_page
from .pages.listen import listen
from .types import Example, Measurement

PAGE = "index.html"

PAPER = ' <span class="tag">paper</span>'
NUMBER = re.compile(r"[-−+]?[\d.]+\s?[%×k]?( ±.*)?$")

COLOURS = 8
"""Of systems; the style sheet has as many."""


@dataclass(frozen=True)
class Cell:
    """One entry of a table."""

    text: str
    """As it is shown; what follows ` ± ` steps back."""
    best: bool = False
    """Whether it is the best of those that it competes with."""


@dataclass(frozen=True)
class Column:
    """The head of a column."""

    title: str
    group: str = ""
    """Shown above neighbouring columns of the same group."""
    paper: bool = False
    """Whether it holds the paper's figures, not ours."""


@dataclass(frozen=True)
class Row:
    """A row of a table; its first cell names it."""

    cells: tuple[Cell, ...]
    paper: bool = False
    """Whether it holds the paper's figures, not ours."""


@dataclass(frozen=True)
class TableView:
    """A table as it is shown."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    note: str = ""
    """A sentence below it."""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row.cells) != len(self.columns):
                raise ValueError(f"{self.title}: {len(row.cells)} cells in a row of {len(self.columns)} columns")


def write_report(
    folder: Path,
    *,
    title: str,
    tables: Sequence[TableView],
    measurements: Sequence[Measurement],
    examples: Sequence[Example],
    notes: Sequence[str],
    overwrite: bool = False,
) -> Path:
    """Write `index.html` into a folder, which is created where it is missing; returns its path.

    Ten examples of 10 s with four sounds each make some 12 MB. Sounds of an example are made as long as its reference,
    and turned down together if one of them would clip.

    Args:
        folder: where to
        title: of the page
        tables: in the order in which they are shown
        measurements: whose distribution is shown, by task and metric
        examples: to listen to; measurements of the same clip, task, stem and system are shown beside them
        notes: what was measured, and how; a paragraph each
        overwrite: whether an earlier report is replaced

    Raises:
        OutputError: there is a report already, or it cannot be written
    """
    sounds = Sounds()
    colours = _colours(measurements, examples)
    sections = {
        "results": ("Results", "".join(_table(table) for table in tables)),
        "distributions": ("Distributions", distributions(measurements, colours)),
        "examples": ("Listen", listen(examples, measurements, colours, sounds)),
    }
    shown = {name: section for name, section in sections.items() if section[1]}
    links = "".join(f'<li><a href="#{name}">{heading}</a></li>' for name, (heading, _) in shown.items())
    about = "".join(f"<p>{html.escape(note)}</p>" for note in notes)
    body = f"""<header class="page">
<p class="kind">Evaluation · {datetime.date.today().isoformat()}</p>
<h1>{html.escape(title)}</h1>
{_facts(measurements, examples)}<nav aria-label="Sections"><ul>{links}</ul></nav>
</header>
<main>
<section class="about" aria-label="What was measured">{about}</section>
"""
    for name, (heading, content) in shown.items():
        body += f'<section id="{name}"><h2>{heading}</h2>\n{content}</section>\n'
    write_page(
        folder / PAGE,
        title=html.escape(title),
        body=body + "</main>",
        styles=("page.css", "report.css"),
        scripts=("player.js", "report.js"),
        sounds=sounds,
        overwrite=overwrite,
    )
    return folder / PAGE


def _colours(measurements: Sequence[Measurement], examples: Sequence[Example]) -> dict[str, str]:
    """A CSS class for each system, the same all over the page; grey for what is not a system."""
    systems = dict.fromkeys(entry.system for entry in measurements)
    systems |= dict.fromkeys(system for example in examples for system in example.estimates)
    named = [system for system in systems if system != "mixture"]
    colours = {system: f"colour-{index % COLOURS + 1}" for index, system in enumerate(named)}
    return {"mixture": "colour-0", "reference": "colour-0", **colours}


def _facts(measurements: Sequence[Measurement], examples: Sequence[Example]) -> str:
    facts = {
        "clips": len({entry.clip for entry in measurements}),
        "systems": len({entry.system for entry in measurements}),
        "measurements": len(measurements),
        "comparisons to hear": len(examples),
    }
    entries = (f"<div><dt>{name}</dt><dd>{count:,}</dd></div>" for name, count in facts.items() if count)
    return f'<dl class="facts">{"".join(entries)}</dl>\n'


def _table(table: TableView) -> str:
    groups = ""
    if any(column.group for column in table.columns):
        for name, members in itertools.groupby(column.group for column in table.columns):
            span = len(list(members))
            groups += (
                f'<th scope="colgroup" colspan="{span}">{html.escape(name)}</th>'
                if name
                else f'<td colspan="{span}"></td>'
            )
        groups = f'<tr class="groups">{groups}</tr>\n'
    heads = "".join(
        f'<th scope="col"{_classes(paper=column.paper, number=_is_numeric(table, index))}>'
        f"{html.escape(column.title)}{PAPER if column.paper else ''}</th>"
        for index, column in enumerate(table.columns)
    )
    rows = "".join(_row(table, row) for row in table.rows)
    note = f'<p class="note">{html.escape(table.note)}</p>' if table.note else ""
    return f"""<figure class="table"><figcaption>{html.escape(table.title)}</figcaption>
<div class="scroll" tabindex="0" role="region" aria-label="{html.escape(table.title)}"><table>
<thead>{groups}<tr>{heads}</tr></thead>
<tbody>{rows}</tbody>
</table></div>{note}</figure>
"""


def _row(table: TableView, row: Row) -> str:
    cells = []
    # Beside the last of the names that a row begins with.
    label = next((index for index in range(1, len(row.cells)) if _is_numeric(table, index)), 1) - 1
    for index, (cell, column) in enumerate(zip(row.cells, table.columns, strict=True)):
        text = re.sub(" (±.*)", r' <span class="deviation">\1</span>', html.escape(cell.text))
        if row.paper and index == label:
            text += PAPER
        classes = _classes(paper=column.paper, number=_is_numeric(table, index), best=cell.best)
        if index == 0:
            cells.append(f'<th scope="row"{classes}>{text}</th>')
        else:
            cells.append(f"<td{classes}>{f'<strong>{text}</strong>' if cell.best else text}</td>")
    return f"<tr{_classes(paper=row.paper)}>{''.join(cells)}</tr>\n"


def _is_numeric(table: TableView, column: int) -> bool:
    """Whether the entries of a column are numbers, or stand for missing ones."""
    texts = [row.cells[column].text for row in table.rows]
    return any(map(NUMBER.match, texts)) and all(NUMBER.match(text) or text in ("", "–", "—", "-") for text in texts)


def _classes(**states: bool) -> str:
    names = " ".join(name for name, state in states.items() if state)
    return f' class="{names}"' if names else ""
