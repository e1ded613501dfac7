"""Stems that are written as audio: a file for each, and what became of them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from ..audio import AudioWriter, FilmWriter, amplitude_to_db


def check_targets(targets: Mapping[str, str | Path]) -> None:
    """Raise a `ValueError` unless each stem has a file of its own, and there is one."""
    if not isinstance(targets, Mapping):
        raise ValueError(f'targets must be a file for each stem, such as {{"mix": "a.wav"}}, got {targets!r}')
    files = {"-" if str(target) == "-" else os.path.realpath(target) for target in targets.values()}
    if not targets or len(files) < len(targets):
        raise ValueError("targets must name a file of its own for each stem, and at least one")


@dataclass(frozen=True)
class StemsResult:
    """What became of one input whose stems were written as audio."""

    input: str
    outputs: dict[str, str]
    """File of each stem."""
    seconds: float
    times_real_time: float
    model: str
    device: str
    clipped: dict[str, int]
    """Samples beyond full scale, limited to it, of each stem."""
    peak_db: dict[str, float]
    """Largest sample of each stem, in dB of full scale, before anything was limited or made softer."""
    rescaled_db: float
    """What all stems alike were made louder by, in dB: 0, or less where that was asked for and one of them went beyond
    full scale."""


class Levels(TypedDict):
    """Those fields of a `StemsResult` that are about full scale."""

    clipped: dict[str, int]
    peak_db: dict[str, float]
    rescaled_db: float


def levels(writers: Mapping[str, AudioWriter | FilmWriter]) -> Levels:
    """What the writers of all stems of an input say about full scale, once they are done."""
    return {
        "clipped": {stem: writer.clipped for stem, writer in writers.items()},
        "peak_db": {stem: amplitude_to_db(writer.peak) for stem, writer in writers.items()},
        "rescaled_db": min(amplitude_to_db(writer.scale) for writer in writers.values()),
    }
