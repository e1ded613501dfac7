"""A blind listening test as one HTML page, after Recommendation ITU-R BS.1534-3 (MUSHRA), and what its answers say.

Legend: T samples.
"""

from __future__ import annotations

import hashlib
import html
import json
import math
import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...audio import Wav
from ...errors import InputError
from ..page import Sounds, aligned, data_block, resource, shortcuts, transport, write_page
from .report import Example

PAGE = "mushra.html"
FORMAT = "sdc-mushra-1"

REFERENCE, ANCHOR = "reference", "anchor"
"""What the hidden reference and the low anchor are called among the systems."""

PASS_BAND, STOP_BAND = 3500.0, 4000.0
"""Of the low anchor, in Hz. The Recommendation asks for a ripple of at most 0.1 dB up to 3.5 kHz, and for an
attenuation of at least 25 dB at 4 kHz and 50 dB at 4.5 kHz."""
ATTENUATION = 60.0
"""Of the low anchor from `STOP_BAND` on, in dB."""

LEAST_REFERENCE, MOST_MISSED = 90, 0.15
"""Post-screening: a listener who rates the hidden reference lower than this in more than this share of the trials is
left out."""


def write_mushra(
    folder: Path, *, examples: Sequence[Example], title: str = "Listening test", overwrite: bool = False
) -> Path:
    """Write `mushra.html` into a folder, which is created where it is missing; returns its path.

    A trial for each example: the reference by name, and in an order that differs from listener to listener the hidden
    reference, the low anchor and the estimates. The mixture is none of them unless it is an estimate. Levels are left
    as they are, but all sounds of a trial are turned down together if one would clip. The mid anchor of the
    Recommendation, at 7 kHz, is left out: at 16 kHz there is next to nothing above it.

    The listener saves the answers as a JSON file, which `read_mushra` reads::

        format: "sdc-mushra-1"
        test: which test this was, a hash of its sounds
        title, listener, user_agent: text
        seed: of the orders, an integer
        started, finished: ISO 8601, UTC
        trials: in the order in which they were heard
            clip, task, stem: of the example
            order: systems in the order in which they were shown
            ratings: 0 to 100 by system, `reference` and `anchor` among them
            seconds: time spent

    The names of the systems are in the page's source, though never in sight: blind is who does not look for them.

    Raises:
        ValueError: there is no example
        InputError: one cannot have the anchor, or a system has a name that is taken
        OutputError: there is a test already, or it cannot be written
    """
    if not examples:
        raise ValueError("a listening test needs at least one example")
    sounds, trials = Sounds(), []
    for example in examples:
        check_listening_test(list(example.estimates), example.sample_rate)
        others = {ANCHOR: low_anchor(example.reference, example.sample_rate), **example.estimates}
        wavs = aligned(example.reference, others)
        trials.append(
            {
                "clip": example.clip,
                "task": example.task,
                "stem": example.stem,
                "seconds": len(example.reference) / example.sample_rate,
                "sounds": {name: sounds.add(wav, example.sample_rate) for name, wav in wavs.items()},
            }
        )
    content = hashlib.sha256(sounds.blocks.encode() + json.dumps(trials, sort_keys=True).encode()).hexdigest()
    data = {"format": FORMAT, "test": content[:16], "title": title, "trials": trials}
    keys = {
        "0": "reference",
        "1 … 9": "switch",
        "↑ ↓": "rate, with Shift by 10",
        "← →": "1 s back, on",
        "[ ]": "loop from here, to here",
        "Esc": "loop everything",
    }
    body = string.Template(resource("mushra.html")).substitute(
        title=html.escape(title),
        trials="is 1 trial" if len(trials) == 1 else f"are {len(trials)} trials",
        count=len(trials),
        transport=transport(0),
        keys=shortcuts(keys),
    )
    path = folder / PAGE
    body += data_block("test", data)
    write_page(path, title=title, body=body, kind="mushra", sounds=[sounds.blocks], overwrite=overwrite)
    return path


def check_listening_test(systems: Sequence[str], sample_rate: int) -> None:
    """Raise an InputError if these systems cannot be in a listening test."""
    for name in (REFERENCE, ANCHOR):
        if name in systems:
            raise InputError(f"--mushra: a system cannot be called {name} in a listening test; rename it")
    if sample_rate <= 2 * STOP_BAND:
        raise InputError(
            f"--mushra: the low anchor of a listening test needs a sample rate above {2 * STOP_BAND:g} Hz, and the "
            f"model has {sample_rate}; leave --mushra out"
        )


def low_anchor(wav: Wav, sample_rate: int) -> Wav:
    """The low anchor of a wav `[T]`: low-pass filtered at 3.5 kHz with linear phase, and not delayed."""
    # Kaiser's formulas: a window that reaches the attenuation, and as many taps as the transition takes with it.
    transition = 2 * math.pi * (STOP_BAND - PASS_BAND) / sample_rate
    half = math.ceil((ATTENUATION - 7.95) / (2.285 * transition) / 2)
    times = np.arange(-half, half + 1) * (PASS_BAND + STOP_BAND) / sample_rate
    taps = np.sinc(times) * np.kaiser(2 * half + 1, 0.1102 * (ATTENUATION - 8.7))
    filtered = np.convolve(wav.astype(np.float64), taps / taps.sum())[half : half + len(wav)]
    return np.asarray(filtered, dtype=np.float32)


@dataclass(frozen=True)
class SystemRating:
    """How a system was rated, over all listeners that count and all trials."""

    system: str
    mean: float
    """0 to 100"""
    confidence: float | None
    """Half the width of the 95 % confidence interval of the mean, by Student's t; None of a single rating."""
    median: float
    num_ratings: int


@dataclass(frozen=True)
class MushraSummary:
    """What a listening test came to."""

    title: str
    systems: tuple[SystemRating, ...]
    """Best first, the hidden reference and the anchor among them; none if no listener counts."""
    listeners: tuple[str, ...]
    """Those that count."""
    excluded: tuple[str, ...]
    """Those that missed the hidden reference too often."""


def read_mushra(paths: Sequence[Path]) -> MushraSummary:
    """Sum up the answers of several listeners.

    Listeners who rate the hidden reference lower than 90 in more than 15 % of the trials are left out, as the
    Recommendation asks for. Its confidence interval takes all ratings of a system as independent, although those of
    one listener are not quite.

    Raises:
        ValueError: there is no path
        InputError: a file is missing or not of this format, is of another test, or there twice
    """
    if not paths:
        raise ValueError("no answers; name the files that the listeners saved")
    sessions: dict[tuple[str, int], dict[str, Any]] = {}
    listeners: dict[bool, list[str]] = {True: [], False: []}
    ratings: dict[str, list[float]] = {}
    for path in paths:
        session = _read(path)
        who = session["listener"], session["seed"]
        if any(session["test"] != other["test"] for other in sessions.values()):
            raise InputError(f"{path}: is of another test than {paths[0]}; sum them up one by one")
        if who in sessions:
            raise InputError(f"{path}: holds answers that another file has too; leave one out")
        sessions[who] = session
        missed = sum(trial[REFERENCE] < LEAST_REFERENCE for trial in session["trials"])
        counts = missed <= MOST_MISSED * len(session["trials"])
        listeners[counts].append(session["listener"])
        for trial in session["trials"] if counts else ():
            for system, rating in trial.items():
                ratings.setdefault(system, []).append(rating)
    systems = sorted((_rating(system, values) for system, values in ratings.items()), key=lambda row: -row.mean)
    return MushraSummary(session["title"], tuple(systems), tuple(listeners[True]), tuple(listeners[False]))


def _rating(system: str, ratings: Sequence[float]) -> SystemRating:
    from scipy.stats import t

    count, confidence = len(ratings), None
    if count > 1:
        confidence = float(t.ppf(0.975, count - 1) * np.std(ratings, ddof=1) / math.sqrt(count))
    return SystemRating(system, float(np.mean(ratings)), confidence, float(np.median(ratings)), count)


def _read(path: Path) -> dict[str, Any]:
    """The answers of one listener: `test`, `title`, `listener`, `seed`, and as `trials` ratings by system."""
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        trials = [{str(name): float(rating) for name, rating in trial["ratings"].items()} for trial in saved["trials"]]
        whole = all(REFERENCE in trial and all(0 <= rating <= 100 for rating in trial.values()) for trial in trials)
        if saved["format"] != FORMAT or not whole:
            raise ValueError("another format, or a rating is missing or not between 0 and 100")
        texts = {name: str(saved[name]) for name in ("test", "title", "listener")}
        return {**texts, "seed": int(saved["seed"]), "trials": trials}
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}; check the name") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{path}: does not hold answers that a listening test of sdc saved; name another") from error
