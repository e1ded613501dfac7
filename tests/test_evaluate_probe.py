"""The probe: it learns what there is to learn from features, and nothing from those that hold nothing."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from sdcodec_cli.engine.evaluate import probe
from sdcodec_cli.engine.evaluate.probe import Utterance, available, train_probe

PHONEMES = ("a", "b", "t͡ʃ")


def spoken(count: int, seed: int, *, vectors: bool = False, noise: float = 0.0) -> list[Utterance]:
    """Utterances of eight phonemes, of three frames each with a pause of two between them.

    Features are codes, two for each phoneme, or a direction for each; a share of codes is replaced at random.
    """
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        said = rng.integers(0, 3, 8)
        codes = np.zeros(42, dtype=np.int64)
        for place, number in enumerate(said):
            codes[5 * place + 1 : 5 * place + 4] = 1 + 2 * number + rng.integers(0, 2, 3)
        wrong = rng.random(len(codes)) < noise
        codes[wrong] = rng.integers(0, 7, wrong.sum())
        phonemes = tuple(PHONEMES[number] for number in said)
        features = 5 + 100 * np.eye(7, dtype=np.float32)[codes] if vectors else codes
        found.append(Utterance(features, phonemes))
    return found


@pytest.mark.parametrize("vectors", [False, True], ids=["codes", "vectors"])
def test_phonemes_are_told_from_codes_and_from_vectors_of_any_scale(vectors: bool) -> None:
    found = train_probe(spoken(30, 0, vectors=vectors), num_values=None if vectors else 7, steps=40)
    assert found.phonemes == tuple(sorted(PHONEMES))
    held_out = spoken(10, 1, vectors=vectors)
    assert found.error_rate(held_out) < 0.05
    assert found.hear(held_out[0].features) == held_out[0].phonemes


def test_noise_in_features_makes_errors_and_seeds_decide_all() -> None:
    first, again = (train_probe(spoken(20, 0), num_values=7, steps=40) for _ in range(2))
    noisy = spoken(10, 1, noise=0.5)
    assert first.error_rate(noisy) == again.error_rate(noisy) > first.error_rate(spoken(10, 1)) + 0.1


def test_what_holds_more_phonemes_than_frames_teaches_nothing() -> None:
    with pytest.raises(ValueError, match="no utterance to learn from"):
        train_probe([Utterance(np.zeros(4, dtype=np.int64), ("a",) * 3)], num_values=2, steps=1)
    found = train_probe(spoken(4, 0), num_values=7, steps=1)
    with pytest.raises(ValueError, match="nothing is said"):
        found.error_rate([Utterance(np.zeros(4, dtype=np.int64), ())])


def test_the_teacher_hears_no_phonemes_in_silence() -> None:
    pytest.importorskip("hama")
    assert probe.hear_phonemes(np.zeros(16_000, dtype=np.float32)) == ()


def test_what_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert available() == "hama is not installed; pip install '.[phonemes]' in the clone"
