"""How values are spread over clips, drawn as SVG.

Legend: N clips.
"""

from __future__ import annotations

import html
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from .measure import Measurement, Task
from .score import METRICS

WIDTH, ROW, SIDE, TOP, BOTTOM = 400, 46, 12, 2, 26
"""Pixels at full size; the drawing scales."""


class Scale(NamedTuple):
    """Numbers to places, in pixels from the left."""

    low: float
    high: float
    ticks: tuple[float, ...]

    def place(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Places of `[N]` values; those beyond an end are at it."""
        share = ((values - self.low) / (self.high - self.low)).clip(0, 1)
        return np.asarray(SIDE + share * (WIDTH - 2 * SIDE))


def scale_of(values: NDArray[np.float64]) -> Scale:
    """A scale that ends at round numbers and on which most of `values` lie.

    Single values that are far from all others, such as the SI-SDR of a nearly silent clip, would press the others
    together; they lie beyond its ends.
    """
    first, third = np.percentile(values, [25, 75])
    reach = 3 * (third - first)
    low, high = max(values.min(), first - reach), min(values.max(), third + reach)
    # A round number of which some five make the span.
    span = (high - low) or 1.0
    power = 10.0 ** math.floor(math.log10(span / 5))
    step = next(power * part for part in (1, 2, 5, 10) if span / (power * part) <= 6)
    start, end = math.floor(low / step), math.ceil(high / step)
    end = max(end, start + 1)
    return Scale(start * step, end * step, tuple(index * step for index in range(start, end + 1)))


def distributions(table: Sequence[Measurement], colours: Mapping[str, str]) -> str:
    """HTML of the spread of each metric, by task and stem.

    Args:
        table: all measurements; values that are not finite are left out
        colours: a CSS class by system
    """
    groups: dict[str, dict[str, list[Measurement]]] = {}
    for entry in table:
        if entry.metric in METRICS:
            groups.setdefault(entry.task, {}).setdefault(entry.metric, []).append(entry)
    parts = []
    for task in (task for task in get_args(Task) if task in groups):
        figures = "".join(_figure(task, metric, entries, colours) for metric, entries in groups[task].items())
        if figures:
            parts.append(
                f"<details open><summary><h3>{task[:1].upper() + task[1:]}</h3></summary>\n{figures}</details>\n"
            )
    if not parts:
        return ""
    how = "A dot is a clip. The box holds the middle half of them, the line in it is the median, the number the mean."
    return f'<p class="note">{how}</p>\n{"".join(parts)}'


def _figure(task: str, metric: str, entries: Sequence[Measurement], colours: Mapping[str, str]) -> str:
    by_stem: dict[str, dict[str, list[float]]] = {}
    classes: dict[str, str] = {}
    for entry in entries:
        if entry.value is not None and math.isfinite(entry.value):
            name = entry.system if entry.through is None else f"{entry.system} → {entry.through}"
            by_stem.setdefault(entry.stem, {}).setdefault(name, []).append(entry.value)
            classes[name] = colours[entry.system]
    if not by_stem:
        return ""
    pooled = np.array([value for found in by_stem.values() for values in found.values() for value in values])
    scale = scale_of(pooled)
    _, title, said, _ = METRICS[metric]
    panels = "".join(
        f'<div class="panel"><h5>{html.escape(stem)}</h5>'
        f"{_drawn(found, scale, classes, f'{title} of {stem}, {task}')}</div>"
        for stem, found in by_stem.items()
    )
    reasons = Counter(entry.reason for entry in entries if entry.reason is not None).most_common()
    remarks = [f"{count} without a value: {reason.replace('_', ' ')}" for reason, count in reasons]
    beyond = int(((pooled < scale.low) | (pooled > scale.high)).sum())
    remarks += [f"{beyond} beyond an end of the scale, drawn at it"] if beyond else []
    note = f'<p class="note">{html.escape("; ".join(remarks))}.</p>' if remarks else ""
    return f"""<figure class="metric"><figcaption><h4>{title}</h4> <span>{said}</span></figcaption>
<div class="panels">{panels}</div>
{note}</figure>
"""


def _drawn(values: Mapping[str, Sequence[float]], scale: Scale, colours: Mapping[str, str], what: str) -> str:
    """SVG with a row for each name: a dot for each value, a box from quartile to quartile with the median, the mean."""
    height = TOP + ROW * len(values) + BOTTOM
    means = "; ".join(f"{name}: mean {number(float(np.mean(found)))} of {len(found)}" for name, found in values.items())
    said = html.escape(f"{what}. {means}")
    parts = [f'<svg class="spread" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{said}">']
    # As many decimals as the ticks need.
    decimals = max(0, -math.floor(math.log10(scale.ticks[1] - scale.ticks[0]) + 1e-9))
    for tick, x in zip(scale.ticks, scale.place(np.array(scale.ticks)), strict=True):
        zero = " zero" if tick == 0 and scale.low < 0 else ""
        parts.append(f'<path class="grid{zero}" d="M{x:.1f} {TOP + 18}V{height - BOTTOM + 4}"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{height - BOTTOM + 18}">{number(tick, decimals)}</text>')
    for index, (name, found) in enumerate(values.items()):
        top = TOP + ROW * index
        middle = top + 31
        # Spread over the height by multiples of the golden ratio: even, and the same every time.
        heights = middle + ((np.arange(len(found)) * 0.618034) % 1 - 0.5) * 18
        dots = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in zip(scale.place(np.array(found)), heights, strict=True))
        parts.append(
            f'<g class="{colours[name]}"><text class="name" x="{SIDE}" y="{top + 14}">{html.escape(name)}</text>'
        )
        parts.append(f'<path class="dots" d="{dots}"/>')
        if len(found) >= 4:
            first, median, third = scale.place(np.percentile(found, [25, 50, 75]))
            size = f'width="{max(third - first, 1):.1f}" height="20" rx="3"'
            parts.append(f'<rect class="box" x="{first:.1f}" y="{middle - 10}" {size}/>')
            parts.append(f'<path class="median" d="M{median:.1f} {middle - 10}v20"/>')
        mean = number(float(np.mean(found)))
        parts.append(f'<text class="mean" x="{WIDTH - SIDE}" y="{top + 14}">{mean}</text></g>')
    return "".join([*parts, "</svg>\n"])


def number(value: float, decimals: int = 2) -> str:
    """A number as text, with a real minus and no negative zero."""
    text = f"{value:.{decimals}f}"
    return text.replace("-", "−") if float(text) else text.lstrip("-")
