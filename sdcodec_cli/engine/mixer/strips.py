"""The HTML of a mixer's page.

Legend: W columns of a picture.
"""

from __future__ import annotations

import html
import string
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ..page import frequencies, picture, resource, shortcuts, transport
from .pieces import Picture
from .stems import TAGS

COLOURS = 8
"""Of stems; the style sheet has as many."""

MAX_SPANS = 12
"""Times at which a stem is active that are told; if there are more, only the share is."""

KEYS = {
    "1 … 9": "to a fader, 0 to that of the mix",
    "↑ ↓": "louder, softer",
    "M": "mute",
    "S": "solo",
    "← →": "1 s back, on; with Shift 0.1 s",
    "[ ]": "loop from here, to here",
    "Esc": "loop everything",
    "L": "loop on, off",
    "R": "reset the faders",
}


def body(
    *,
    title: str,
    tags: Mapping[str, str],
    seconds: float,
    sample_rate: int,
    pictures: Mapping[str, Picture],
    stems_of: str,
) -> str:
    """The page without its data.

    Args:
        title: plain text, as are tags and names of stems
        tags: of the audio
        seconds: how long it is
        sample_rate: in Hz
        pictures: of each stem
        stems_of: where they come from, plain text
    """
    loudest = max(float(shown.levels.max()) for shown in pictures.values())
    peak = max(1e-4, *(float(shown.peaks.max()) for shown in pictures.values()))
    strips = "".join(
        _strip(name, number, shown, seconds, sample_rate, loudest, peak)
        for number, (name, shown) in enumerate(pictures.items(), 1)
    )
    told = " · ".join(html.escape(tags[name]) for name in TAGS if tags.get(name))
    reset = '<button type="button" class="toggle" data-do="reset">Reset</button>\n'
    return string.Template(resource("mixer.html")).substitute(
        title=html.escape(title),
        tags=f'<p class="tags">{told}</p>' if told else "",
        facts=f"{html.escape(stems_of)} · {_clock(seconds)} · {sample_rate / 1000:g} kHz",
        transport=transport(seconds, reset),
        strips=strips,
        mix=_fader("the mix", "mix"),
        keys=shortcuts(KEYS),
    )


def _strip(
    name: str, number: int, shown: Picture, seconds: float, sample_rate: int, loudest: float, peak: float
) -> str:
    text = html.escape(name)
    told = html.escape(active_text(shown.active, seconds))
    colour = f"colour-{(number - 1) % COLOURS + 1}"
    buttons = "".join(
        f'<button type="button" class="cut {does}" data-do="{does}" aria-pressed="false" aria-label="{label} {text}">'
        f"{label}</button>"
        for does, label in (("mute", "Mute"), ("solo", "Solo"))
    )
    return f"""<section class="strip {colour}" role="group" aria-label="{text}">
<div class="channel"><h2>{f"<kbd>{number}</kbd>" if number < 10 else ""}<span class="name">{text}</span></h2>
<div class="cuts">{buttons}</div>
{_fader(text, "stem")}</div>
<div class="picture" role="img" aria-label="Waveform and spectrogram of {text}; {told}">
<svg class="wave" viewBox="0 0 {len(shown.peaks)} 100" preserveAspectRatio="none" aria-hidden="true">
<path class="peaks" d="{waveform(shown.peaks / peak)}"/><path d="{waveform(shown.rms / peak)}"/></svg>
<svg class="when" viewBox="0 0 1000 1" preserveAspectRatio="none" aria-hidden="true">
<path d="{ribbon(shown.active, seconds)}"/></svg>
<div class="spectrogram"><img src="{picture(shown.levels, loudest)}" alt="" decoding="async" draggable="false">
{frequencies(sample_rate)}</div>
<i class="region"></i><i class="mark"></i><i class="head"></i></div>
</section>
"""


def _fader(of: str, kind: str) -> str:
    """HTML of a fader of something, which is HTML as well."""
    return f"""<div class="fader"><input type="range" data-fader="{kind}" min="-60" max="12" step="0.5" value="0"
 aria-label="Level of {of}" aria-valuetext="0 dB"><output>0.0</output></div>"""


def waveform(peaks: NDArray[np.float32]) -> str:
    """The path of a waveform from peaks `[W]` between 0 and 1, symmetrical around 50; quiet sound is drawn larger."""
    heights = np.maximum(48 * peaks**0.7, 0.4)
    over = " ".join(f"{column} {50 - height:.0f}" for column, height in enumerate(heights))
    under = " ".join(f"{column} {50 + height:.0f}" for column, height in reversed(list(enumerate(heights))))
    return f"M{over} {under}z"


def ribbon(active: Sequence[tuple[float, float]], seconds: float) -> str:
    """The path of bars where a stem is active, over a width of 1000."""
    edges = [(1000 * begin / seconds, 1000 * end / seconds) for begin, end in active]
    return "".join(f"M{begin:.1f} 0H{end:.1f}V1H{begin:.1f}z" for begin, end in edges)


def active_text(active: Sequence[tuple[float, float]], seconds: float) -> str:
    """When a stem is active, in words."""
    if not active:
        return "never active"
    share = round(100 * sum(end - begin for begin, end in active) / seconds)
    if active == [(0.0, active[0][1])] and share == 100:
        return "active all the time"
    spans = ", ".join(f"{_clock(begin)} to {_clock(end)}" for begin, end in active)
    return f"active {share} % of the time" + f": {spans}" * (len(active) <= MAX_SPANS)


def _clock(seconds: float) -> str:
    return f"{int(seconds // 60)}:{seconds % 60:04.1f}"
