"""How values are spread over clips, drawn as SVG.

Legend: N clips.
"""

from __future__ import annotations

import html
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from ..types import Measurement, Task

METRICS = {
    "si_sdr": ("SI-SDR", "dB", "higher is better"),
    "si_sdri": ("SI-SDR improvement", "dB", "higher is better"),
    "visqol_speech": ("ViSQOL, speech mode", "MOS", "higher is better"),
    "visqol_audio": ("ViSQOL, audio mode", "MOS", "higher is better"),
    "mel": ("Mel distance", "", "lower is better"),
    "stft": ("STFT distance", "", "lower is better"),
}
"""Name, unit and direction of the metrics of a `Measurement`; others are shown by their own names."""

WIDTH, ROW, SIDE, TOP, BOTTOM = 400, 46, 12, 2, 26
"""Pixels at full size; the drawing scales."""


@dataclass(frozen=True)
class Scale:
    """Numbers to places, in pixels from the left."""

    low: float
    high: float
    ticks: tuple[float, ...]

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> Scale:
        """One that ends at round numbers and on which most of `values` lie.

        Single values that are far from all others, such as the SI-SDR of a nearly silent clip, would press the others
        together; they lie beyond its ends.
        """
        first, third = np.percentile(values, [25, 75])
        reach = 3 * (third - first)
        low, high = max(values.min(), first - reach), min(values.max(), third + reach)
        step = _step((high - low) or 1.0)
        start, end = math.floor(low / step), math.ceil(high / step)
        end = max(end, start + 1)
        return cls(start * step, end * step, tuple(index * step for index in range(start, end + 1)))

    def place(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Places of `[N]` values; those beyond an end are at it."""
        share = ((values - self.low) / (self.high - self.low)).clip(0, 1)
        return np.asarray(SIDE + share * (WIDTH - 2 * SIDE))


def distributions(measurements: Sequence[Measurement], colours: Mapping[str, str]) -> str:
    """HTML of the spread of each metric, by task and stem.

    Args:
        measurements: all of them; values that are not finite are left out
        colours: a CSS class by system
    """
    parts = []
    tasks = {entry.task for entry in measurements}
    for task in (task for task in get_args(Task) if task in tasks):
        chosen = [entry for entry in measurements if entry.task == task]
        metrics = dict.fromkeys(metric for entry in chosen for metric in entry.values)
        figures = "".join(_figure(task, metric, chosen, colours) for metric in metrics)
        if figures:
            parts.append(f"<details open><summary><h3>{_capital(task)}</h3></summary>\n{figures}</details>\n")
    if not parts:
        return ""
    how = "A dot is a clip. The box holds the middle half of them, the line in it is the median, the number the mean."
    return f'<p class="note">{how}</p>\n{"".join(parts)}'


def _figure(task: str, metric: str, measurements: Sequence[Measurement], colours: Mapping[str, str]) -> str:
    by_stem: dict[str, dict[str, list[float]]] = {}
    classes: dict[str, str] = {}
    for entry in measurements:
        value = entry.values.get(metric, math.nan)
        if math.isfinite(value):
            name = entry.system if entry.through is None else f"{entry.system} → {entry.through}"
            by_stem.setdefault(entry.stem, {}).setdefault(name, []).append(value)
            classes[name] = colours[entry.system]
    if not by_stem:
        return ""
    pooled = np.array([value for found in by_stem.values() for values in found.values() for value in values])
    scale = Scale.of(pooled)
    title, unit, direction = METRICS.get(metric, (metric, "", ""))
    panels = "".join(
        f'<div class="panel"><h5>{html.escape(stem)}</h5>'
        f"{distribution(found, scale, classes, f'{title} of {stem}, {task}')}</div>"
        for stem, found in by_stem.items()
    )
    remarks = [
        f"{count} without a value: {reason.replace('_', ' ')}" for reason, count in _reasons(metric, measurements)
    ]
    beyond = int(((pooled < scale.low) | (pooled > scale.high)).sum())
    remarks += [f"{beyond} beyond an end of the scale, drawn at it"] if beyond else []
    said = ", ".join(part for part in (unit and f"in {unit}", direction) if part)
    return f"""<figure class="metric"><figcaption><h4>{html.escape(title)}</h4> <span>{said}</span></figcaption>
<div class="panels">{panels}</div>
{f'<p class="note">{html.escape("; ".join(remarks))}.</p>' if remarks else ""}</figure>
"""


def _reasons(metric: str, measurements: Sequence[Measurement]) -> list[tuple[str, int]]:
    return Counter(entry.reasons[metric] for entry in measurements if metric in entry.reasons).most_common()


def _capital(text: str) -> str:
    return html.escape(text[:1].upper() + text[1:])


def distribution(values: Mapping[str, Sequence[float]], scale: Scale, colours: Mapping[str, str], what: str) -> str:
    """SVG with a row for each name: a dot for each value, a box from quartile to quartile with the median, the mean.

    Args:
        values: finite ones by name, at least one each
        scale: where they are
        colours: a CSS class by name
        what: they are, for those who do not see it
    """
    rows = list(values.items())
    height = TOP + ROW * len(rows) + BOTTOM
    said = "; ".join(f"{name}: mean {number(float(np.mean(found)))} of {len(found)}" for name, found in rows)
    parts = [
        f'<svg class="spread" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{html.escape(f"{what}. {said}")}">'
    ]
    for tick in scale.ticks:
        x = float(scale.place(np.array([tick]))[0])
        zero = " zero" if tick == 0 and scale.low < 0 else ""
        parts.append(f'<path class="grid{zero}" d="M{x:.1f} {TOP + 18}V{height - BOTTOM + 4}"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{height - BOTTOM + 18}">{number(tick, scale)}</text>')
    for index, (name, found) in enumerate(rows):
        parts.append(_row(name, np.array(found, np.float64), scale, colours[name], TOP + ROW * index))
    return "".join([*parts, "</svg>\n"])


def _row(name: str, values: NDArray[np.float64], scale: Scale, colour: str, top: float) -> str:
    middle = top + 31
    # Spread over the height by multiples of the golden ratio: even, and the same every time.
    heights = middle + ((np.arange(len(values)) * 0.618034) % 1 - 0.5) * 18
    dots = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in zip(scale.place(values), heights, strict=True))
    drawn = f'<path class="dots" d="{dots}"/>'
    if len(values) >= 4:
        first, median, third = scale.place(np.percentile(values, [25, 50, 75]))
        size = f'width="{max(third - first, 1):.1f}" height="20" rx="3"'
        drawn += f'<rect class="box" x="{first:.1f}" y="{middle - 10}" {size}/>'
        drawn += f'<path class="median" d="M{median:.1f} {middle - 10}v20"/>'
    label = f'<text class="name" x="{SIDE}" y="{top + 14}">{html.escape(name)}</text>'
    mean = f'<text class="mean" x="{WIDTH - SIDE}" y="{top + 14}">{number(float(values.mean()))}</text>'
    return f'<g class="{colour}">{label}{drawn}{mean}</g>'


def number(value: float, scale: Scale | None = None) -> str:
    """Two decimals, or as many as the ticks of a scale need."""
    decimals = 2 if scale is None else max(0, -math.floor(math.log10(scale.ticks[1] - scale.ticks[0]) + 1e-9))
    text = f"{value:.{decimals}f}"
    return text.replace("-", "−") if float(text) else text.lstrip("-")


def _step(span: float) -> float:
    """A round number of which some five make a span."""
    power = 10.0 ** math.floor(math.log10(span / 5))
    return next(power * part for part in (1, 2, 5, 10) if span / (power * part) <= 6)
