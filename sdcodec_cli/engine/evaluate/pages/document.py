"""A page as one HTML file, with its style, scripts, pictures and sounds inside.

Legend: T samples.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from .... import __version__
from ....audio import atomic_output
from ...files import Job
from ..types import Wav


class Sounds:
    """The sounds of a page as 16-bit FLAC, which every current browser decodes; equal ones are stored once."""

    def __init__(self) -> None:
        self._ids: dict[bytes, str] = {}
        self._blocks: list[str] = []

    def add(self, wav: Wav, sample_rate: int) -> str:
        """Store a wav `[T]`, clipped to −1 … 1; returns the id of the element that holds it."""
        finite = np.nan_to_num(wav, nan=0.0, posinf=1.0, neginf=-1.0)
        samples = (finite * 32768).round().clip(-32768, 32767).astype(np.int16)
        name = hashlib.sha256(samples.tobytes() + sample_rate.to_bytes(4, "little")).digest()
        if name not in self._ids:
            self._ids[name] = f"sound-{len(self._ids) + 1}"
            encoded = io.BytesIO()
            soundfile.write(encoded, samples, sample_rate, format="FLAC", subtype="PCM_16")
            text = base64.b64encode(encoded.getvalue()).decode()
            # A script of a type that no browser runs: its text costs nothing until it is asked for.
            self._blocks.append(f'<script type="audio/flac" id="{self._ids[name]}">{text}</script>\n')
        return self._ids[name]

    @property
    def blocks(self) -> str:
        """The elements that hold the sounds."""
        return "".join(self._blocks)


def aligned(reference: Wav, wavs: Sequence[Wav]) -> list[Wav]:
    """The reference and the others, all as long as the reference, and scaled alike so that none clips."""
    count = len(reference)
    same = [np.pad(wav[:count], (0, max(0, count - len(wav)))) for wav in (reference, *wavs)]
    peak = max((float(np.abs(np.nan_to_num(wav)).max(initial=0)) for wav in same), default=0.0)
    return [np.asarray(wav / max(1.0, peak), dtype=np.float32) for wav in same]


def resource(name: str) -> str:
    """The text of a file beside this one."""
    return importlib.resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def data_block(name: str, data: Any) -> str:
    """Data for the page's scripts, as the JSON text of an element with the id `name`."""
    text = json.dumps(data, allow_nan=False, ensure_ascii=False).replace("<", "\\u003c")
    return f'<script type="application/json" id="{name}">{text}</script>\n'


def write_page(
    target: Path,
    *,
    title: str,
    body: str,
    styles: Sequence[str],
    scripts: Sequence[str],
    sounds: Sounds,
    overwrite: bool,
) -> None:
    """Write a page, whole or not at all; its folder is created.

    Args:
        target: the file
        title: plain text, escaped by the caller, as `body` is
        body: HTML
        styles: names of files for `resource`
        scripts: names of files for `resource`, run in this order
        sounds: what the page plays
        overwrite: whether an existing file is replaced

    Raises:
        OutputError: the file exists, or cannot be written
    """
    script = "\n".join(resource(name) for name in scripts)
    # Only this script may run, and nothing may be loaded: text that slipped through could do neither.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    style = "\n".join(resource(name) for name in styles)
    size, heard = (f"{len(text) / 1e6:.1f} MB" for text in (body + sounds.blocks, sounds.blocks))
    page = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>
{style}</style>
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
