"""A report that a person can read and listen to: one HTML page, which works from disk in any browser.

Legend: T samples.
"""

from __future__ import annotations

import datetime
import html
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...audio import Wav, db_to_amplitude, integrated_loudness
from ..page import Sounds, aligned, frequencies, picture, shortcuts, transport, write_page
from ..pictures import RANGE, spectrogram
from ..systems import System
from .distributions import distributions, number
from .measure import ENHANCEMENTS, Estimate, Measurement, Plan, estimates, is_silent
from .noisy import CLEAN
from .score import METRICS
from .settings import Evaluation
from .tables import Table

PAGE = "index.html"


COLOURS = 8
"""Of systems; the style sheet has as many."""

HEIGHT, WIDTH = 128, 720
"""Of a spectrogram, in pixels."""

SHORT = {"si_sdr": "SI-SDR {} dB", "visqol_speech": "ViSQOL {}", "visqol_audio": "ViSQOL audio {}", "pesq": "PESQ {}"}
"""The metrics that are shown beside a sound."""

LOUDEST_GAIN = 20.0
"""What a sound is turned up by to be as loud as the reference, at most, in dB: silence stays silent."""

VARIANTS = {
    "masked separation": ("separation", ", masked"),
    "masked enhancement": ("enhancement", ", masked"),
    "enhancement with silence": ("enhancement", ", with silence"),
}
"""Tasks that are heard in examples of another, and what ends the names of systems there."""


@dataclass(frozen=True)
class Example:
    """One clip to listen to: the same stem from several systems; wavs are `[T]`."""

    clip: str
    task: str
    stem: str
    sample_rate: int
    reference: Wav
    mixture: Wav
    estimates: dict[str, Wav]
    """By system."""


def examples(systems: Sequence[System], plans: Sequence[Plan], task: Evaluation) -> list[Example]:
    """What the systems make of some clips, to listen to."""
    found = []
    for plan in plans:
        clip = plan.load()
        groups: dict[tuple[str, str], list[Estimate]] = {}
        everything = (each for system in systems for each in estimates(system, clip, plan.sample_rate, task))
        for estimate in everything:
            # What was resampled to be compared is heard as it was.
            if estimate.sample_rate == plan.sample_rate and not is_silent(estimate.reference):
                shown, _ = VARIANTS.get(estimate.task, (estimate.task, ""))
                groups.setdefault((shown, estimate.stem), []).append(estimate)
        for (shown, stem), group in groups.items():
            plain = {each.system for each in group if each.task == shown}
            ends = [VARIANTS[each.task][1] if each.task != shown and each.system in plain else "" for each in group]
            wavs = {each.system + end: each.wav for each, end in zip(group, ends, strict=True)}
            found.append(Example(clip.name, shown, stem, plan.sample_rate, group[0].reference, clip.mix, wavs))
    return found


def write_report(
    folder: Path,
    *,
    title: str,
    tables: Sequence[Table],
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
    shown = [entry for entry in measurements if entry.metric in METRICS]
    # Clean speech is its own reference: the best of scores, which would press all others together.
    spread = [entry for entry in shown if not (entry.condition == CLEAN and entry.task in ENHANCEMENTS)]
    systems = dict.fromkeys(entry.system for entry in shown)
    systems |= dict.fromkeys(system for example in examples for system in example.estimates)
    # A CSS class for each system, the same all over the page; grey for what is not a system.
    named = [system for system in systems if system != "mixture"]
    colours = {system: f"colour-{index % COLOURS + 1}" for index, system in enumerate(named)}
    colours = {"mixture": "colour-0", "reference": "colour-0", **colours}
    sections = {
        "results": ("Results", "".join(map(_table, tables))),
        "distributions": ("Distributions", distributions(spread, colours)),
        "examples": ("Listen", _listen(examples, shown, colours, sounds)),
    }
    links = "".join(f'<li><a href="#{name}">{head}</a></li>' for name, (head, text) in sections.items() if text)
    about = "".join(f"<p>{html.escape(note)}</p>" for note in notes)
    facts = {
        "clips": len({entry.clip for entry in shown}),
        "systems": len({entry.system for entry in shown}),
        "measurements": len({entry[:5] for entry in shown}),
        "comparisons to hear": len(examples),
    }
    counts = "".join(f"<div><dt>{name}</dt><dd>{count:,}</dd></div>" for name, count in facts.items() if count)
    body = f"""<header class="page">
<p class="kind">Evaluation · {datetime.date.today().isoformat()}</p>
<h1>{html.escape(title)}</h1>
<dl class="facts">{counts}</dl>
<nav aria-label="Sections"><ul>{links}</ul></nav>
</header>
<main>
<section class="about" aria-label="What was measured">{about}</section>
"""
    for name, (head, text) in sections.items():
        body += f'<section id="{name}"><h2>{head}</h2>\n{text}</section>\n' if text else ""
    path = folder / PAGE
    write_page(path, title=title, body=body + "</main>", kind="report", sounds=[sounds.blocks], overwrite=overwrite)
    return path


def _table(table: Table) -> str:
    classes = [' class="number"' if column >= table.names else "" for column in range(len(table.heads))]
    heads = "".join(
        f'<th scope="col"{of}>{html.escape(head)}</th>' for head, of in zip(table.heads, classes, strict=True)
    )
    rows = ""
    for index, row in enumerate(table.rows):
        paper = index in table.paper
        rows += f"<tr{' class=paper' if paper else ''}>"
        for column, cell in enumerate(row):
            text = re.sub(" (±.*)", r' <span class="deviation">\1</span>', html.escape(cell))
            text += ' <span class="tag">paper</span>' if paper and column + 1 == table.names else ""
            if (index, column) in table.best:
                rows += f'<td class="number best"><strong>{text}</strong></td>'
            else:
                tag, scope = ("td", "") if column else ("th", ' scope="row"')
                rows += f"<{tag}{scope}{classes[column]}>{text}</{tag}>"
        rows += "</tr>\n"
    title, note = html.escape(table.title), f'<p class="note">{html.escape(table.note)}</p>' if table.note else ""
    return f"""<figure class="table"><figcaption>{title}</figcaption>
<div class="scroll" tabindex="0" role="region" aria-label="{title}"><table>
<thead><tr>{heads}</tr></thead>
<tbody>{rows}</tbody>
</table></div>{note}</figure>
"""


def _listen(
    examples: Sequence[Example], measurements: Sequence[Measurement], colours: Mapping[str, str], sounds: Sounds
) -> str:
    """HTML of the examples, each with a player that switches between its sounds; these go into `sounds`."""
    if not examples:
        return ""
    scores: dict[tuple[str, str, str, str], list[str]] = {}
    for entry in measurements:
        if entry.metric in SHORT and entry.through is None and entry.value is not None and math.isfinite(entry.value):
            of = scores.setdefault((entry.clip, entry.task, entry.stem, entry.system), [])
            of.append(SHORT[entry.metric].format(number(entry.value)))
    keys = {
        "1 … 9": "switch",
        "← →": "1 s back, on; with Shift 0.1 s",
        "[ ]": "loop from here, to here",
        "Esc": "loop everything",
        "L": "loop on, off",
        "M": "match levels",
    }
    cards = "".join(_example(example, index, scores, colours, sounds) for index, example in enumerate(examples, 1))
    return f"""<p>Press play, then switch with the number keys while it plays: every sound goes on where the last was.
Click into a picture to go there, drag over it to loop a part.</p>
<noscript><p>The players need JavaScript, which is switched off here.</p></noscript>
{shortcuts(keys)}<p class="legend">The spectrograms of an example share one scale, from {RANGE} dB below its loudest
point <i aria-hidden="true"></i> to that point.</p>
{cards}"""


def _example(
    example: Example,
    index: int,
    scores: Mapping[tuple[str, str, str, str], Sequence[str]],
    colours: Mapping[str, str],
    sounds: Sounds,
) -> str:
    # Of a mixture itself, the mixture is the reference.
    is_mixture = np.array_equal(example.mixture, example.reference)
    wavs = aligned(
        example.reference, example.estimates if is_mixture else {"mixture": example.mixture, **example.estimates}
    )
    levels = {name: spectrogram(wav, example.sample_rate, HEIGHT, WIDTH) for name, wav in wavs.items()}
    loudest = max(float(level.max()) for level in levels.values())
    gains = matching_gains(list(wavs.values()), example.sample_rate)
    tiles = ""
    for place, (name, wav) in enumerate(wavs.items(), 1):
        found = scores.get((example.clip, example.task, example.stem, name), ())
        for task, (shown, end) in VARIANTS.items():
            # A separator has masks alone, and no need to say so.
            if shown == example.task and not found:
                found = scores.get((example.clip, task, example.stem, name.removesuffix(end)), ())
        said = " · ".join(found)
        shown = html.escape(name)
        tiles += f"""<div class="tile {colours[name]}" data-sound="{sounds.add(wav, example.sample_rate)}"
 data-level="{gains[place - 1]:.4f}">
<button type="button" aria-pressed="{str(place == 1).lower()}">{f"<kbd>{place}</kbd>" if place < 10 else ""}
<span><span class="name">{shown}</span>{f'<span class="scores">{said}</span>' if said else ""}</span></button>
<div class="picture">
<img src="{picture(levels[name], loudest)}" alt="Spectrogram of {shown}" decoding="async" draggable="false">
{frequencies(example.sample_rate)}
<i class="region"></i><i class="mark"></i><i class="head"></i></div></div>
"""
    seconds = len(example.reference) / example.sample_rate
    match = '<button type="button" class="toggle" data-do="match" aria-pressed="false">Match levels</button>\n'
    title = html.escape(f"{example.stem}, clip {example.clip}")
    # At most four in a row, and so that the last row is not nearly empty.
    columns = len(wavs) if len(wavs) <= 4 else 3 if len(wavs) in (5, 6, 9) else 4
    return f"""<article class="example" id="example-{index}" data-duration="{seconds:.6f}" aria-label="{title}">
<header><h3>{title}</h3><p>{html.escape(example.task)} · {seconds:.1f} s</p></header>
<div class="tiles" data-player role="group" aria-label="What is heard" style="--columns:{columns}">
{tiles}</div>
{transport(seconds, match)}</article>
"""


def matching_gains(wavs: Sequence[Wav], sample_rate: int) -> list[float]:
    """Factors that make the others as loud as the first by ITU-R BS.1770, and all of them quieter if one would clip."""
    loudness = [integrated_loudness(wav[None], sample_rate) for wav in wavs]
    differences = [loudness[0] - value for value in loudness]
    gains = [db_to_amplitude(min(by, LOUDEST_GAIN)) if math.isfinite(by) else 1.0 for by in differences]
    peak = max(float(np.abs(wav).max(initial=0)) * gain for wav, gain in zip(wavs, gains, strict=True))
    return [gain / max(1.0, peak) for gain in gains]
