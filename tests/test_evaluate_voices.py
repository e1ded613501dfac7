"""Judges of converted voices: known values, what has none, and what is said where a package is missing."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from sdcodec_cli.engine.evaluate import voices
from sdcodec_cli.engine.evaluate.voices import METRICS, Conversion, VoiceJudge, available, rate

RATE = 16_000


def needs(judge: VoiceJudge) -> pytest.MarkDecorator:
    return pytest.mark.skipif(available(judge) is not None, reason=available(judge) or "")


def bursts(seconds: float) -> np.ndarray:
    """Noise of a linear congruential generator that comes and goes, the same everywhere."""
    wav, state = np.empty(round(seconds * RATE), dtype=np.float32), 1
    for index in range(len(wav)):
        state = (1664525 * state + 1013904223) % 2**32
        wav[index] = 0.1 * (state / 2**31 - 1) * (np.sin(index / 1500) > 0)
    return wav


def tone(octaves: np.ndarray) -> np.ndarray:
    """A voice-like tone of three harmonics, whose fundamental is so many octaves above 150 Hz at each sample."""
    phase = 2 * np.pi * np.cumsum(150 * 2**octaves) / RATE
    return (0.1 * sum(np.sin(number * phase) / number for number in (1, 2, 3))).astype(np.float32)


GLIDE = 0.3 * np.sin(np.arange(2 * RATE) / 4000)


@pytest.fixture(scope="module")
def scene() -> np.ndarray:
    """Fourteen seconds of speech, with music and effects."""
    wav, sample_rate = soundfile.read(Path(__file__).resolve().parents[1] / "docs" / "scene.flac", dtype="float32")
    mono = wav if wav.ndim == 1 else wav.mean(1)
    return soxr.resample(mono, sample_rate, RATE).astype(np.float32)


@needs("similarity")
def test_whose_voice_it_is_is_what_the_package_says(scene: np.ndarray) -> None:
    # By resemblyzer 0.1.4 with librosa 0.11, of the same recordings without pauses and at −30 dB.
    pieces = [scene[: 2 * RATE], scene[2 * RATE : 4 * RATE], scene[2 * RATE : 100_000], bursts(2.0)]
    found = [voices.embed_voice(piece) for piece in pieces]
    golden = {(1, 0): 0.8006094, (2, 0): 0.6924848, (2, 1): 0.8659655, (3, 0): 0.7592766, (3, 2): 0.5881620}
    for (one, other), value in golden.items():
        assert found[one] @ found[other] == pytest.approx(value, abs=2e-5)


@needs("similarity")
def test_levels_and_pauses_do_not_change_whose_voice_it_is(scene: np.ndarray) -> None:
    spoken = scene[2 * RATE : 5 * RATE]
    said = Conversion(spoken, 0.1 * spoken, np.float32(2) * spoken, RATE)
    found = rate(said, "similarity")
    assert [found[metric][0] for metric in METRICS["similarity"]] == pytest.approx([1, 1, 1], abs=1e-5)
    frame = voices.PAUSE_FRAME
    padded = np.concatenate([np.zeros(20 * frame), spoken, np.zeros(20 * frame)]).astype(np.float32)
    kept = voices._without_pauses(padded)
    assert len(voices._without_pauses(spoken)) <= len(kept) <= len(voices._without_pauses(spoken)) + 6 * frame


@needs("words")
def test_words_are_those_that_the_recogniser_hears(scene: np.ndarray) -> None:
    # By pocketsphinx 5.1.1; weak indeed, for the scene has music and effects.
    heard = (
        "if the to the achievement history of units do to school who spew party and hackney could happen and it when"
    )
    assert " ".join(voices.hear_words(scene)) == heard


@needs("words")
def test_word_errors_are_per_word_that_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    heard = {1: ["a", "small", "cat"], 2: ["a", "small", "hat", "sat"]}
    monkeypatch.setattr(voices, "hear_words", lambda wav: heard[round(10 * float(wav.max()))])
    source, converted = np.full(RATE, 0.1, dtype=np.float32), np.full(RATE, 0.2, dtype=np.float32)
    assert rate(Conversion(source, source, converted, RATE), "words") == {"word_errors": (2 / 3, None)}
    given = Conversion(source, source, converted, RATE, "A small, small hat sat.")
    assert rate(given, "words") == {"word_errors": (1 / 5, None)}
    assert rate(Conversion(source, source, converted, RATE, "…"), "words") == {"word_errors": (None, "no_words")}


@needs("pitch")
def test_pitch_is_that_of_a_tone_to_a_sixth_of_a_semitone() -> None:
    found = voices.track_pitch(tone(np.full(2 * RATE, 0.5)))
    assert np.nanmedian(found) == pytest.approx(math.log2(150) + 0.5, abs=1 / 72)


@needs("pitch")
def test_a_melody_an_octave_higher_is_kept_and_one_upside_down_is_not() -> None:
    def compared(octaves: np.ndarray) -> tuple[float | None, float | None]:
        found = rate(Conversion(tone(GLIDE), tone(GLIDE), tone(octaves), RATE), "pitch")
        return found["pitch_correlation"][0], found["voicing_errors"][0]

    correlation, errors = compared(GLIDE + 1)
    assert correlation == pytest.approx(1, abs=0.02)
    assert errors == pytest.approx(0, abs=0.1)
    correlation, _ = compared(-GLIDE)
    assert correlation == pytest.approx(-1, abs=0.02)


@needs("pitch")
def test_what_is_not_voiced_has_no_pitch_to_keep() -> None:
    noise = bursts(2.0)
    found = rate(Conversion(tone(GLIDE), tone(GLIDE), noise, RATE), "pitch")
    assert found["pitch_correlation"] == (None, "unvoiced")
    assert found["voicing_errors"][0] == pytest.approx(1, abs=0.2)


def test_pitch_is_compared_where_both_are_voiced() -> None:
    said = np.array([np.nan, *np.linspace(7, 8, 20), 7.5, np.nan])
    found = np.array([np.nan, *np.linspace(6, 6.5, 20), np.nan, 6.2])
    compared = voices._compare_pitch(said, found)
    assert compared["pitch_correlation"][0] == pytest.approx(1)
    assert compared["voicing_errors"][0] == pytest.approx(2 / 23)
    assert voices._compare_pitch(said, np.where(np.isnan(found), np.nan, 7.0))["pitch_correlation"][1] == "unvoiced"


@pytest.mark.parametrize("judge", METRICS)
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"reference": np.zeros(100, dtype=np.float32)}, "too_short"),
        ({"source": np.zeros(RATE, dtype=np.float32)}, "silent_reference"),
        ({"reference": np.zeros(RATE, dtype=np.float32)}, "silent_reference"),
        ({"converted": np.zeros(RATE, dtype=np.float32)}, "silent"),
        ({"converted": np.full(RATE, np.nan, dtype=np.float32)}, "not_finite"),
    ],
    ids=["short", "silent source", "silent voice", "silent output", "nan"],
)
def test_what_cannot_be_judged_has_a_reason_and_no_judge_is_asked(judge, changes, reason) -> None:
    wavs = dict.fromkeys(("source", "reference", "converted"), 0.5 * np.ones(RATE, dtype=np.float32))
    found = rate(Conversion(**{**wavs, **changes}, sample_rate=RATE), judge)
    assert found == dict.fromkeys(METRICS[judge], (None, reason))


def test_source_and_converted_have_to_be_of_one_length() -> None:
    wav = np.ones(RATE, dtype=np.float32)
    with pytest.raises(ValueError, match=r"must be \[T\] of one length, got \(16000,\), \(15999,\)"):
        rate(Conversion(wav, wav, wav[1:], RATE), "pitch")


def test_a_judge_that_is_not_installed_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert available("pitch") == "swift-f0 is not installed; pip install '.[voices]' in the clone"
    assert available("words") == "pocketsphinx is not installed; pip install '.[voices]' in the clone"
