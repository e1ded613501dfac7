"""PESQ, ESTOI and DNSMOS: known values, what has none, and what is said where a package is missing."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from sdcodec_cli.data.parallel import ProcessPool
from sdcodec_cli.engine.evaluate import speech
from sdcodec_cli.engine.evaluate.judges import judges, resolved, score
from sdcodec_cli.engine.evaluate.settings import Settings
from sdcodec_cli.engine.evaluate.speech import available, rate
from sdcodec_cli.errors import SdcError

RATE = 16_000


# DNSMOS of so many seconds of what `bursts` makes, by speechmos 0.0.1.1 with librosa 0.11 and ONNX Runtime 1.32.
GOLDEN = {
    4.0: {"sig": 0.9342116172, "bak": 1.4630243240, "ovrl": 1.1612458956},
    7.3: {"sig": 1.4354042696, "bak": 1.9105823820, "ovrl": 1.4452765262},
    9.5: {"sig": 1.4033847422, "bak": 1.9220683986, "ovrl": 1.4347399047},
    15.0: {"sig": 1.4370910394, "bak": 1.8626607559, "ovrl": 1.4264447379},
}


def bursts(seconds: float) -> np.ndarray:
    """Noise of a linear congruential generator that comes and goes, the same everywhere."""
    wav, state = np.empty(round(seconds * RATE), dtype=np.float32), 1
    for index in range(len(wav)):
        state = (1664525 * state + 1013904223) % 2**32
        wav[index] = 0.1 * (state / 2**31 - 1) * (np.sin(index / 1500) > 0)
    return wav


def needs(judge):
    return pytest.mark.skipif(available(judge) is not None, reason=available(judge) or "")


@pytest.fixture(scope="module")
def voice() -> np.ndarray:
    """Four seconds of speech over rain."""
    wav, sample_rate = soundfile.read(Path(__file__).resolve().parents[1] / "docs" / "scene.flac", dtype="float32")
    mono = wav if wav.ndim == 1 else wav.mean(1)
    return soxr.resample(mono, sample_rate, RATE)[: 4 * RATE]


def noisy(wav: np.ndarray, level: float) -> np.ndarray:
    noise = np.random.default_rng(0).standard_normal(len(wav), dtype=np.float32)
    return wav + level * np.float32(wav.std()) * noise


@needs("pesq")
def test_pesq_of_what_is_not_changed_is_the_best_that_p862_2_has(voice):
    """4.5 of P.862 by the mapping of P.862.2."""
    best = 0.999 + 4 / (1 + np.exp(-1.3669 * 4.5 + 3.8224))
    for gain in (1.0, 0.1, -1.0):
        assert rate(voice, np.float32(gain) * voice, RATE, "pesq") == {"pesq": (pytest.approx(best, abs=1e-4), None)}


@needs("estoi")
def test_estoi_of_what_is_not_changed_is_1_and_comes_out_the_same_every_time(voice):
    assert rate(voice, 0.1 * voice, RATE, "estoi") == {"estoi": (pytest.approx(1.0, abs=1e-6), None)}
    np.random.seed(7)
    first = rate(voice, noisy(voice, 1.0), RATE, "estoi")
    drawn = np.random.standard_normal()
    np.random.seed(7)
    assert drawn == np.random.standard_normal()  # the generator that it draws from is left as it was
    assert rate(voice, noisy(voice, 1.0), RATE, "estoi") == first


@pytest.mark.parametrize(
    "judge", [pytest.param("pesq", marks=needs("pesq")), pytest.param("estoi", marks=needs("estoi"))]
)
def test_more_noise_is_worse_and_a_silent_estimate_is_worst(voice, judge):
    scores = [rate(voice, wav, RATE, judge)[judge][0] for wav in (noisy(voice, 0.1), noisy(voice, 1.0), 0 * voice)]
    assert scores == sorted(scores, reverse=True)
    assert scores[-1] == pytest.approx({"pesq": 1, "estoi": 0}[judge], abs=0.01)


@needs("dnsmos")
@pytest.mark.parametrize("seconds", [4.0, 9.5, 15.0, pytest.param(7.3, marks=pytest.mark.slow)])
def test_dnsmos_is_that_of_the_package(seconds):
    wav = bursts(seconds)
    expected = {f"dnsmos_{name}": (pytest.approx(value, abs=1e-5), None) for name, value in GOLDEN[seconds].items()}
    assert rate(wav, wav, RATE, "dnsmos") == expected


@pytest.mark.parametrize("judge", ["pesq", "estoi", "dnsmos"])
def test_what_cannot_be_compared_has_no_score_but_a_reason(voice, judge):
    metrics = ["dnsmos_sig", "dnsmos_bak", "dnsmos_ovrl"] if judge == "dnsmos" else [judge]
    broken = voice.copy()
    broken[5] = np.nan
    for wavs, reason in (
        ((voice[:7999], voice[:7999]), "too_short"),
        ((0 * voice, voice), "silent_reference"),
        ((voice, broken), "not_finite"),
    ):
        assert rate(*wavs, RATE, judge) == dict.fromkeys(metrics, (None, reason))


@needs("pesq")
@needs("estoi")
def test_a_reference_without_speech_has_no_score_but_a_reason():
    click = np.zeros(4 * RATE, dtype=np.float32)
    click[20_000:21_000] = np.random.default_rng(0).standard_normal(1000)
    assert rate(click, click, RATE, "pesq") == {"pesq": (None, "no_utterances")}
    assert rate(click, click, RATE, "estoi") == {"estoi": (None, "too_little_speech")}


@needs("pesq")
@needs("estoi")
@needs("dnsmos")
@pytest.mark.parametrize("judge", ["pesq", "estoi", pytest.param("dnsmos", marks=pytest.mark.slow)])
def test_other_rates_are_resampled(voice, judge):
    wavs = voice, noisy(voice, 0.3)
    wide = [soxr.resample(wav, RATE, 48_000) for wav in wavs]
    found, expected = rate(*wide, 48_000, judge), rate(*wavs, RATE, judge)
    assert {metric: value for metric, (value, _) in found.items()} == pytest.approx(
        {metric: value for metric, (value, _) in expected.items()}, abs=0.1
    )


def settings(**changes) -> Settings:
    return Settings(data_root=Path(), split="val", **{"visqol": "off", **changes})


def without(monkeypatch, *packages: str) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in packages else found(name))


def test_what_is_not_installed_is_left_out_and_said_or_an_error_if_it_was_asked_for(monkeypatch):
    without(monkeypatch, "pesq", "pystoi", "speechmos")
    notes: list[str] = []
    assert resolved(settings(), notes).speech == ()
    assert notes == [
        "no PESQ: PESQ is not installed; pip install '.[pesq]' in the clone",
        "no ESTOI: ESTOI is not installed; pip install '.[eval]' in the clone",
    ]
    with pytest.raises(SdcError, match=r"^DNSMOS is not installed; pip install '\.\[eval\]' in the clone$"):
        resolved(settings(speech=("dnsmos",)), notes)
    assert resolved(settings(speech=()), []).speech == ()


def test_dnsmos_is_asked_on_request_only_and_all_of_them_about_speech_only(monkeypatch):
    monkeypatch.setattr(speech, "available", lambda judge: None)
    asked = resolved(settings(), [])
    assert judges(asked, "speech") == ("pesq", "estoi")
    assert judges(asked, "music") == judges(asked, "mix") == ()
    more = resolved(settings(speech=("dnsmos", "pesq")), [])
    assert judges(more, "speech") == ("pesq", "dnsmos")


@needs("estoi")
def test_a_pool_gives_what_one_process_gives(voice):
    wavs = voice, noisy(voice, 0.5)
    with ProcessPool(score, 1) as pool:
        future = pool.submit((*wavs, RATE, "estoi"))
    assert future.result(0) == rate(*wavs, RATE, "estoi")


@needs("dnsmos")
def test_dnsmos_needs_none_of_what_its_package_imports(voice, monkeypatch):
    for name in ("librosa", "requests"):
        monkeypatch.setitem(sys.modules, name, None)
    speech._network.cache_clear()
    assert rate(voice, voice, RATE, "dnsmos")["dnsmos_ovrl"][1] is None
