"""Examples to look at and to listen to, each with a player that switches between its sounds.

Legend: T samples.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence

import numpy as np

from ....audio import integrated_loudness
from ..types import Example, Measurement, Task, Wav
from .distributions import number
from .document import Sounds, aligned
from .pictures import RANGE, Level, picture, spectrogram
from .transport import shortcuts, transport

SHORT = {"si_sdr": "SI-SDR {} dB", "visqol_speech": "ViSQOL {}", "visqol_audio": "ViSQOL audio {}"}
"""The metrics that are shown beside a sound."""

LOUDEST_GAIN = 20.0
"""What a sound is turned up by to be as loud as the reference, at most, in dB: silence stays silent."""

MASKED = ", masked"
"""Ends the name of what the mask makes of a system's separation, in an example of that."""

Measured = Mapping[tuple[str, Task, str, str], Measurement]
"""By clip, task, stem and system."""

KEYS = shortcuts(
    [
        ("1 … 9", "switch"),
        ("← →", "1 s back, on; with Shift 0.1 s"),
        ("[ ]", "loop from here, to here"),
        ("Esc", "loop everything"),
        ("L", "loop on, off"),
        ("M", "match levels"),
    ]
)


def listen(
    examples: Sequence[Example], measurements: Sequence[Measurement], colours: Mapping[str, str], sounds: Sounds
) -> str:
    """HTML of the examples; their sounds go into `sounds`."""
    if not examples:
        return ""
    measured = {
        (entry.clip, entry.task, entry.stem, entry.system): entry for entry in measurements if entry.through is None
    }
    cards = "".join(_example(example, index, measured, colours, sounds) for index, example in enumerate(examples, 1))
    return f"""<p>Press play, then switch with the number keys while it plays: every sound goes on where the last was.
Click into a picture to go there, drag over it to loop a part.</p>
<noscript><p>The players need JavaScript, which is switched off here.</p></noscript>
{KEYS}<p class="legend">The spectrograms of an example share one scale, from {RANGE} dB below its loudest point
<i aria-hidden="true"></i> to that point.</p>
{cards}"""


def _example(example: Example, index: int, measured: Measured, colours: Mapping[str, str], sounds: Sounds) -> str:
    others = dict(example.estimates)
    # Of a mixture itself, the mixture is the reference.
    if not np.array_equal(example.mixture, example.reference):
        others = {"mixture": example.mixture, **others}
    wavs = dict(zip(("reference", *others), aligned(example.reference, list(others.values())), strict=True))
    levels = [spectrogram(wav, example.sample_rate) for wav in wavs.values()]
    loudest = max(float(level.max()) for level in levels)
    gains = matching_gains(list(wavs.values()), example.sample_rate)
    tiles = ""
    for place, (name, level, gain) in enumerate(zip(wavs, levels, gains, strict=True)):
        sound = sounds.add(wavs[name], example.sample_rate)
        entry = measured.get((example.clip, example.task, example.stem, name))
        if name.endswith(MASKED):
            entry = measured.get((example.clip, "masked separation", example.stem, name.removesuffix(MASKED)))
        tiles += f"""<div class="tile {colours[name]}" data-sound="{sound}" data-level="{gain:.4f}">
{_button(name, place, entry)}{_picture(name, level, loudest, example.sample_rate)}</div>
"""
    seconds = len(example.reference) / example.sample_rate
    match = '<button type="button" class="toggle" data-do="match" aria-pressed="false">Match levels</button>\n'
    stem = html.escape(f"{example.stem}, clip {example.clip}")
    return f"""<article class="example" id="example-{index}" data-duration="{seconds:.6f}" aria-label="{stem}">
<header><h3>{stem}</h3><p>{html.escape(example.task)} · {seconds:.1f} s</p></header>
<div class="tiles" data-player role="group" aria-label="What is heard" style="--columns:{_columns(len(wavs))}">
{tiles}</div>
{transport(seconds, match)}</article>
"""


def _button(name: str, place: int, entry: Measurement | None) -> str:
    key = f"<kbd>{place + 1}</kbd>" if place < 9 else ""
    values = entry.values if entry else {}
    said = [
        text.format(number(values[metric]))
        for metric, text in SHORT.items()
        if math.isfinite(values.get(metric, math.nan))
    ]
    scores = f'<span class="scores">{" · ".join(said)}</span>' if said else ""
    return f"""<button type="button" aria-pressed="{"false" if place else "true"}">{key}
<span><span class="name">{html.escape(name)}</span>{scores}</span></button>
"""


def _picture(name: str, level: Level, loudest: float, sample_rate: int) -> str:
    kilohertz = sample_rate / 2000
    ticks = _ticks(kilohertz)
    marks = "".join(
        f'<span style="bottom:{100 * tick / kilohertz:.1f}%">{tick}{" kHz" if tick == ticks[-1] else ""}</span>'
        for tick in ticks
    )
    return f"""<div class="picture">
<img src="{picture(level, loudest)}" alt="Spectrogram of {html.escape(name)}" decoding="async" draggable="false">
<div class="kilohertz" aria-hidden="true">{marks}</div>
<i class="region"></i><i class="mark"></i><i class="head"></i></div>
"""


def matching_gains(wavs: Sequence[Wav], sample_rate: int) -> list[float]:
    """Factors that make the others as loud as the first by ITU-R BS.1770, and all of them quieter if one would clip."""
    loudness = [integrated_loudness(wav[None], sample_rate) for wav in wavs]
    gains = []
    for value in loudness:
        difference = loudness[0] - value
        gains.append(10 ** (min(difference, LOUDEST_GAIN) / 20) if math.isfinite(difference) else 1.0)
    peak = max(float(np.abs(wav).max(initial=0)) * gain for wav, gain in zip(wavs, gains, strict=True))
    return [gain / max(1.0, peak) for gain in gains]


def _columns(count: int) -> int:
    """At most four, and so that the last row is not nearly empty."""
    return count if count <= 4 else 3 if count in (5, 6, 9) else 4


def _ticks(top: float) -> list[int]:
    """Some four whole numbers of kHz below the top."""
    step = next(step for step in (1, 2, 5, 10, 20) if top / step <= 5)
    return list(range(step, math.ceil(top), step))
