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
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from ... import __version__
from ...audio import Wav, atomic_output
from ..files import Job


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


def write_page(target: Path, *, title: str, body: str, kind: str, sounds: Sounds, overwrite: bool) -> None:
    """Write a page, whole or not at all; its folder is created.

    Args:
        target: the file
        title: plain text
        body: HTML
        kind: whose style and script it has, beside those of all pages
        sounds: what the page plays
        overwrite: whether an existing file is replaced

    Raises:
        OutputError: the file exists, or cannot be written
    """
    script = "\n".join(map(resource, ("player.js", f"{kind}.js")))
    # Only this script may run, and nothing may be loaded: text that slipped through could do neither.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    size, heard = (f"{len(text) / 1e6:.1f} MB" for text in (body + sounds.blocks, sounds.blocks))
    page = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{html.escape(title)}</title>
<style>
{resource("page.css")}{resource(f"{kind}.css")}</style>
</head>
<body>
{body}
<footer class="page"><p>Made by sdc {__version__}. This page is one file of {size}, {heard} of it sound (16-bit FLAC),
and loads nothing from anywhere.</p></footer>
{sounds.blocks}<script>{script}</script>
</body>
</html>
"""
    with Job("", {"page": str(target)}).folders(), atomic_output(target, overwrite=overwrite) as file:
        file.write(page.encode(errors="replace"))  # names of files need not be text
