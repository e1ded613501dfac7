"""Pitch of signals that are known, however they arrive."""

from __future__ import annotations

import numpy as np
import pytest

from sdcodec_cli.audio.pitch import LOWEST, PitchTracker

RATE, HOP = 16_000, 320


def tracked(wav: np.ndarray, block: int = 10_000) -> np.ndarray:
    """Pitch in Hz."""
    tracker = PitchTracker(RATE, HOP)
    pieces = [tracker.push(wav[start : start + block].astype(np.float32)) for start in range(0, len(wav), block)]
    return LOWEST * 2 ** np.concatenate([*pieces, tracker.finish()])


def voice(pitch: np.ndarray) -> np.ndarray:
    """Twelve harmonics of a pitch in Hz that goes down as those of a voice do, `[T]`."""
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    return 0.1 * sum(np.sin(number * phase) / number for number in range(1, 13))


def test_the_pitch_of_a_voice_that_rises_is_found_in_every_frame_but_the_first_and_last():
    pitch = np.linspace(80, 320, 2 * RATE)
    found = tracked(voice(pitch))
    assert len(found) == 100
    np.testing.assert_allclose(found[2:-2], pitch[HOP // 2 :: HOP][2:-2], rtol=0.03)


def test_noise_and_silence_have_no_pitch():
    noise = 0.1 * np.random.default_rng(0).standard_normal(RATE)
    assert np.isnan(tracked(noise)).mean() > 0.9
    assert np.isnan(tracked(np.zeros(RATE))).all()


@pytest.mark.parametrize("block", [1, 333, 1600])
def test_pitch_does_not_depend_on_how_the_audio_arrives(block):
    wav = voice(np.full(RATE // 4, 120.0))
    np.testing.assert_allclose(tracked(wav, block), tracked(wav), rtol=1e-5)
