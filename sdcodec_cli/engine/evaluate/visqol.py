"""ViSQOL, a model of how listeners rate audio against a reference: 1 (bad) to 5 (not to be told apart).

By the package `visqol-python`, a port of Google's ViSQOL 3.3.3, as the published evaluation uses that: speech mode at
16 kHz with the exponential mapping, in which identical signals score 5; audio mode at 48 kHz beside it. Scores of the
two modes do not compare. Both are blind to gain, polarity and small delays.

Nothing heavy is loaded until something is scored, and never torch: workers of the pool stay small.

Legend: T samples.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import hashlib
import importlib.metadata
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal

from ...errors import SdcError

if TYPE_CHECKING:
    import numpy as np
    import visqol as package
    from numpy.typing import NDArray

    from ...audio import Wav

Mode = Literal["speech", "audio"]

Score = tuple[float | None, str | None]
"""And if there is none, the reason; see `visqol`."""

VERSION = "3.8.0"
"""Of `visqol-python`: scores differ between its releases, and what is corrected here is private to it."""

SAMPLE_RATES = {"speech": 16_000, "audio": 48_000}
"""What each mode is made for, in Hz."""

SHORTEST = 1.0
"""Seconds below which ViSQOL finds no patches to compare."""

SILENT = 1e-8
"""Mean square (−80 dBFS) below which a reference is under ViSQOL's noise floor, and any estimate as good as it."""

SPECTROGRAMS = 1000
"""How many are kept by each worker in each mode, of whole signals (0.2 MB for 10 s) and of patches (10 kB)."""

FLOAT32_SCALE = 1.2450629472732544
"""1.245063 in single precision, in which the original keeps what stretches the speech mapping to 5."""

_one_at_a_time = threading.Lock()


def available() -> str | None:
    """None if ViSQOL can be used, else a line that says what to install; any other version counts as missing."""
    try:
        found = importlib.metadata.version("visqol-python")
    except importlib.metadata.PackageNotFoundError:
        return "ViSQOL is not installed; pip install '.[eval]' in the clone"
    if found != VERSION:
        return f"visqol-python {found} scores differently than {VERSION}; pip install '.[eval]' in the clone"
    return None


def unfit(reference: Wav, estimate: Wav, sample_rate: int, shortest: float) -> str | None:
    """Why two wavs `[T]`, of at least `shortest` seconds, cannot be compared; None if they can.

    Raises:
        ValueError: the lengths differ
    """
    import numpy as np

    if reference.shape != estimate.shape or reference.ndim != 1:
        raise ValueError(f"reference and estimate must be [T] of one length, got {reference.shape}, {estimate.shape}")
    if len(reference) < shortest * sample_rate:
        return "too_short"
    if not (np.isfinite(reference).all() and np.isfinite(estimate).all()):
        return "not_finite"
    return "silent_reference" if np.square(reference, dtype=np.float64).mean() < SILENT else None


def visqol(reference: Wav, estimate: Wav, sample_rate: int, mode: Mode) -> Score:
    """ViSQOL of an estimate, two `[T]`, and if it has none, the reason.

    The reasons: `too_short` (less than a second), `silent_reference`, `not_finite` (one of the signals). A silent
    estimate scores 1. Calls from several threads wait for each other; a `ProcessPool` uses several cores.

    Raises:
        ValueError: the lengths differ
        SdcError: ViSQOL is not installed
    """
    if reason := unfit(reference, estimate, sample_rate, SHORTEST):
        return None, reason
    if not estimate.any():
        return 1.0, None
    import numpy as np

    rate = SAMPLE_RATES[mode]
    wanted, found = reference.astype(np.float64), estimate.astype(np.float64)
    if rate != sample_rate:
        import soxr

        wanted, found = soxr.resample(wanted, sample_rate, rate), soxr.resample(found, sample_rate, rate)
    # Two scorings at once would end the process: numba's threading layer allows one.
    with _one_at_a_time:
        scorer = _scorer(mode)
        with _as_google_does():
            return float(scorer.measure_from_arrays(wanted, found, rate).moslqo), None


@functools.lru_cache
def _scorer(mode: Mode) -> package.VisqolApi:
    if missing := available():
        raise SdcError(missing)
    from visqol import VisqolApi

    # It would tell of patches it drops, as the original does, but not of which signals.
    logging.getLogger("visqol").setLevel(logging.ERROR)
    scorer = VisqolApi()
    with _as_google_does():
        # Google's Python interface never turns the lattice model on, so no published number has it.
        scorer.create(mode=mode, use_lattice_model=False)
    manager: Any = scorer._manager
    _remember_signals(manager.spect_builder, "build")
    if mode == "speech":
        _remember_signals(manager.patch_creator, "_get_voice_activity")
    return scorer


def _remember_signals(part: Any, method: str) -> None:
    """Let a method, whose first argument is a signal, not do the same one twice: references come with many estimates.

    A third of the time of an evaluation.
    """
    compute: Callable[..., Any] = getattr(part, method)
    kept: OrderedDict[tuple[Any, ...], Any] = OrderedDict()

    def remembering(signal: Any, *others: Any) -> Any:
        numbers = [other for other in others if isinstance(other, int)]
        key = (hashlib.blake2b(signal.data.tobytes(), digest_size=16).digest(), len(signal.data), *numbers)
        if key not in kept:
            kept[key] = compute(signal, *others)
        kept.move_to_end(key)
        if len(kept) > SPECTROGRAMS:
            kept.popitem(last=False)
        # The package changes spectrograms in place.
        return copy.deepcopy(kept[key])

    setattr(part, method, remembering)


@contextlib.contextmanager
def _as_google_does() -> Iterator[None]:
    """Correct the two places where the port does not compute what the original does, and leave no trace."""
    envelope: Any = importlib.import_module("visqol.signal_utils")
    mapper: Any = importlib.import_module("visqol.quality_mapper").SpeechSimilarityToQualityMapper
    hilbert, scale = envelope._hilbert, mapper.FIT_SCALE
    envelope._hilbert, mapper.FIT_SCALE = _doubled, FLOAT32_SCALE
    try:
        yield
    finally:
        envelope._hilbert, mapper.FIT_SCALE = hilbert, scale


def _doubled(wav: NDArray[np.float64]) -> NDArray[np.float64]:
    """What the original takes for the analytic signal of `[T]`, and whose magnitude for the envelope.

    It doubles the positive frequencies but then goes back by a transform for real signals, which brings the negative
    ones back too: twice the signal but for its mean, and for the topmost bin where zeros are appended.
    """
    import numpy as np

    size = max(32, 1 << (len(wav) - 1).bit_length())
    spectrum = np.fft.rfft(wav, size)
    spectrum[1:-1] *= 2
    if size != len(wav):
        spectrum[-1] = 0
    return np.fft.irfft(spectrum, size)[: len(wav)]
