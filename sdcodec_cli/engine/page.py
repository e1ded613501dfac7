"""A page as one HTML file, with its style, scripts, pictures and sounds inside; its parts are in `pages/`.

Legend: T samples.
"""

from __future__ import annotations

import base64
import hashlib
import html
import importlib.resources
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from .. import __version__
from ..audio import Wav, atomic_output
from .files import Job
from .pictures import colour, png, shades

SHADES = 64
"""Colours of a spectrogram."""


class Sounds:
    """The sounds of a page as 16-bit FLAC, which every current browser decodes; equal ones are stored once."""

    def __init__(self) -> None:
        self._ids: dict[bytes, str] = {}
        self.blocks = ""
        """The elements that hold the sounds."""

    def add(self, wav: Wav, sample_rate: int) -> str:
        """Store a wav `[T]`, clipped to −1 … 1; returns the id of the element that holds it."""
        finite = np.nan_to_num(wav, nan=0.0, posinf=1.0, neginf=-1.0)
        samples = (finite * 32768).round().clip(-32768, 32767).astype(np.int16)
        digest = hashlib.sha256(samples.tobytes() + sample_rate.to_bytes(4, "little")).digest()
        if digest not in self._ids:
            self._ids[digest] = name = f"sound-{len(self._ids) + 1}"
            encoded = io.BytesIO()
            soundfile.write(encoded, samples, sample_rate, format="FLAC", subtype="PCM_16")
            # A script of a type that no browser runs: its text costs nothing until it is asked for.
            text = base64.b64encode(encoded.getvalue()).decode()
            self.blocks += f'<script type="audio/flac" id="{name}">{text}</script>\n'
        return self._ids[digest]


def aligned(reference: Wav, others: Mapping[str, Wav]) -> dict[str, Wav]:
    """The `reference` and the others, all as long as the reference, and scaled alike so that none clips."""
    count = len(reference)
    wavs = {name: np.pad(wav[:count], (0, max(0, count - len(wav)))) for name, wav in others.items()}
    wavs = {"reference": reference, **wavs}
    peak = max(1.0, *(float(np.abs(np.nan_to_num(wav)).max(initial=0)) for wav in wavs.values()))
    return {name: np.asarray(wav / peak, dtype=np.float32) for name, wav in wavs.items()}


def resource(name: str) -> str:
    """The text of a file of `pages/`."""
    return importlib.resources.files(__package__).joinpath("pages", name).read_text(encoding="utf-8")


def data_block(name: str, data: Any) -> str:
    """Data for the page's scripts, as the JSON text of an element with the id `name`."""
    text = json.dumps(data, allow_nan=False, ensure_ascii=False).replace("<", "\\u003c")
    return f'<script type="application/json" id="{name}">{text}</script>\n'


def picture(level: NDArray[np.float32], loudest: float) -> str:
    """A PNG of a spectrogram as the text of a `data:` address; `loudest`, in dB, gets the brightest colour."""
    encoded = png(shades(level, loudest, SHADES), colour(np.linspace(0, 1, SHADES)))
    return f"data:image/png;base64,{base64.b64encode(encoded).decode()}"


def frequencies(sample_rate: int) -> str:
    """HTML of a scale of frequencies, to lie over a spectrogram of audio at this rate."""
    kilohertz = sample_rate / 2000
    step = next(step for step in (1, 2, 5, 10, 20) if kilohertz / step <= 5)
    ticks = "".join(
        f'<span style="bottom:{100 * tick / kilohertz:.1f}%">{tick}{" kHz" if tick + step >= kilohertz else ""}</span>'
        for tick in range(step, math.ceil(kilohertz), step)
    )
    return f'<div class="kilohertz" aria-hidden="true">{ticks}</div>'


def transport(seconds: float, more: str = "") -> str:
    """HTML of play, position and loop, and of `more` controls, for a sound that is `seconds` long; see `player.js`."""
    return f"""<div class="transport" data-player>
<button type="button" class="play" data-do="play" aria-label="Play"><svg viewBox="0 0 24 24" aria-hidden="true">
<path class="when-paused" d="M8 5v14l11-7z"/><path class="when-playing" d="M7 5h4v14H7zm6 0h4v14h-4z"/></svg></button>
<span class="time" data-show="position">0:00.0</span>
<input type="range" class="seek" data-do="seek" min="0" max="{seconds:.3f}" step="any" value="0" aria-label="Position">
<span class="time" data-show="duration">{int(seconds // 60)}:{seconds % 60:04.1f}</span>
<button type="button" class="toggle" data-do="loop" aria-pressed="true">Loop</button>
{more}<span class="status" data-show="status" role="status"></span>
</div>
"""


def shortcuts(rows: Mapping[str, str]) -> str:
    """HTML of a list of keys, separated by spaces, and what each does."""
    entries = (
        f"<div><dt>{' '.join(f'<kbd>{key}</kbd>' for key in keys.split())}</dt><dd>{does}</dd></div>"
        for keys, does in {"Space": "play, pause", **rows}.items()
    )
    return f'<dl class="keys">{"".join(entries)}</dl>\n'


def write_page(
    target: Path,
    *,
    title: str,
    body: str,
    kind: str,
    sounds: Sequence[str],
    coding: str = "16-bit FLAC",
    folder: str = "",
    controls: Sequence[str] = ("controls.js", "player.js"),
    overwrite: bool,
) -> None:
    """Write a page, whole or not at all; its folder is created.

    Args:
        target: the file
        title: plain text
        body: HTML
        kind: whose style and script it has, beside those that pages share
        sounds: elements that hold what the page plays
        coding: of these sounds
        folder: beside the page, of scripts with more sound; its name is plain text
        controls: the scripts that it shares with others
        overwrite: whether an existing file is replaced

    Raises:
        OutputError: the file exists, or cannot be written
    """
    script = "\n".join(map(resource, (*controls, f"{kind}.js")))
    # Only this script may run, and nothing may be loaded but sound beside the page: text that slipped through could do
    # neither. From disk not every browser takes the page's own place for 'self'.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    allowed = f"'sha256-{digest}'" + " 'self' file:" * bool(folder)
    heard = sum(map(len, sounds))
    size, heard_size = (f"{count / 1e6:.1f} MB" for count in (len(body) + heard, heard))
    about = f"""This page is one file of {size}, {heard_size} of it sound ({coding}),
and loads nothing from anywhere."""
    if folder:
        about = f"""The sound of this page ({coding}) is in the folder {html.escape(folder)} beside it, which has to
come along; nothing is loaded from anywhere else."""
    head = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{html.escape(title)}</title>
<style>
{resource("page.css")}{resource(f"{kind}.css")}</style>
</head>
<body>
{body}
<footer class="page"><p>Made by sdc {__version__}. {about}</p></footer>
"""
    tail = f"<script>{script}</script>\n</body>\n</html>\n"
    with Job("", {"page": str(target)}).folders(), atomic_output(target, overwrite=overwrite) as file:
        for text in (head, *sounds, tail):
            file.write(text.encode(errors="replace"))  # names of files need not be text
