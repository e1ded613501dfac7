"""How listeners would rate speech: PESQ and ESTOI against a reference, DNSMOS without one. All at 16 kHz.

PESQ is that of ITU-T P.862.2, wide band, by the package `pesq`; ESTOI is that of Jensen and Taal (2016), by `pystoi`;
DNSMOS is the network of arXiv:2110.01763 after ITU-T P.835, which the package `speechmos` brings: the package itself
would need librosa, so only the network is used. Nothing of this is loaded until something is scored.

Legend: T samples.
"""

from __future__ import annotations

import functools
import importlib.util
import warnings
from typing import TYPE_CHECKING, Any, Literal

from .visqol import Score, unfit

if TYPE_CHECKING:
    from ...audio import Wav

SpeechJudge = Literal["pesq", "estoi", "dnsmos"]

SAMPLE_RATE = 16_000

PACKAGES: dict[SpeechJudge, tuple[str, str]] = {
    "pesq": ("pesq", "pesq"),
    "estoi": ("pystoi", "eval"),
    "dnsmos": ("speechmos", "eval"),
}
"""The package that each needs, and the extra that brings it."""

SHORTEST = 0.5
"""Seconds below which none is asked: PESQ needs 0.25, ESTOI 0.4."""

DNSMOS_SAMPLES = 144_160
"""What the network hears at once: 9.01 s."""

DNSMOS_MAPPINGS = {
    "dnsmos_sig": (-0.08397278, 1.22083953, 0.0052439),
    "dnsmos_bak": (-0.13166888, 1.60915514, -0.39604546),
    "dnsmos_ovrl": (-0.06766283, 1.11546468, 0.04602535),
}
"""Of the network's outputs to ratings, as polynomials: the speech itself, the background, the whole."""


def available(judge: SpeechJudge) -> str | None:
    """None if a judge can be asked, else a line that says what to install."""
    package, extra = PACKAGES[judge]
    if importlib.util.find_spec(package) is not None:
        return None
    return f"{judge.upper()} is not installed; pip install '.[{extra}]' in the clone"


def rate(reference: Wav, estimate: Wav, sample_rate: int, judge: SpeechJudge) -> dict[str, Score]:
    """Scores of an estimate by metric, two `[T]`, and of those that it has not, the reason.

    The reasons: `too_short`, `silent_reference`, `not_finite` (one of the signals), `no_utterances` (PESQ finds no
    speech in the reference), `too_little_speech` (ESTOI finds less than 0.4 s of it). To PESQ a silent estimate is 1.
    """
    metrics = list(DNSMOS_MAPPINGS) if judge == "dnsmos" else [judge]
    if reason := unfit(reference, estimate, sample_rate, SHORTEST):
        return dict.fromkeys(metrics, (None, reason))
    import numpy as np
    import soxr

    wavs = [soxr.resample(wav.astype(np.float64), sample_rate, SAMPLE_RATE) for wav in (reference, estimate)]
    if judge == "dnsmos":
        return {metric: (value, None) for metric, value in zip(metrics, _dnsmos(wavs[1]), strict=True)}
    return {judge: (_pesq if judge == "pesq" else _estoi)(*wavs)}


def _pesq(reference: Any, estimate: Any) -> Score:
    import pesq

    try:
        return float(pesq.pesq(SAMPLE_RATE, reference, estimate, "wb")), None
    except pesq.NoUtterancesError:
        return None, "no_utterances"
    except ValueError:  # it stumbles over the NaN that it makes of a silent estimate
        return 1.0, None


def _estoi(reference: Any, estimate: Any) -> Score:
    import numpy as np
    import pystoi

    # It adds the faintest of noises, by numpy's own generator: always the same ones, and nobody else notices.
    state = np.random.get_state()
    np.random.seed(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            return float(pystoi.stoi(reference, estimate, SAMPLE_RATE, extended=True)), None
    except RuntimeWarning:
        return None, "too_little_speech"
    finally:
        np.random.set_state(state)


def _dnsmos(wav: Any) -> list[float]:
    """Means over all hearings; what is too short for one is doubled until it is not, as by its authors."""
    import numpy as np

    while len(wav) < DNSMOS_SAMPLES:
        wav = np.concatenate([wav, wav])
    # From second to second; they do not count what is left of one.
    hearings = int(len(wav) // SAMPLE_RATE - DNSMOS_SAMPLES / SAMPLE_RATE) + 1
    heard = np.lib.stride_tricks.sliding_window_view(wav.astype(np.float32), DNSMOS_SAMPLES)[::SAMPLE_RATE][:hearings]
    session = _network()
    found = np.concatenate([session.run(None, {"input_1": samples[None]})[0] for samples in heard])
    mappings = zip(DNSMOS_MAPPINGS.values(), found.T, strict=True)
    return [float(np.polyval(mapping, values).mean()) for mapping, values in mappings]


@functools.lru_cache
def _network() -> Any:
    from importlib.resources import as_file, files

    from ...runtime.onnx import open_session

    with as_file(files("speechmos") / "dnsmos_models" / "sig_bak_ovr.onnx") as path:
        return open_session(path, threads=1)
