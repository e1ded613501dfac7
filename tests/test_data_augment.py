"""Augmentations on signals with known answers: levels of tones, lags, what stays as it is."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from scipy import signal

from sdcodec_cli.data import augment as module
from sdcodec_cli.data.augment import (
    LAYER_RANGE,
    REVERB_GAP,
    REVERB_RANGE,
    REVERB_SECONDS,
    augment,
    change_speed,
    gain_db,
    layer,
    speed_factor,
)
from sdcodec_cli.recipe import AugmentationFields

RATE = 16_000
EFFECTS = ("polarity", "reverb", "equalizer", "bandwidth", "codec")


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def tone(hertz: float, seconds: float = 1.0, rate: int = RATE) -> NDArray[np.float32]:
    return (0.3 * np.sin(2 * math.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def impulse(length: int = 8192) -> NDArray[np.float32]:
    wav = np.zeros(length, dtype=np.float32)
    wav[length // 2] = 1
    return wav


def babble(seconds: float = 1.0, rate: int = RATE) -> NDArray[np.float32]:
    """Noise with a falling spectrum in syllables, about as loud as speech."""
    wav = signal.lfilter([1], [1, -0.9], rng(1).standard_normal(round(seconds * rate)))
    wav *= np.repeat(rng(2).uniform(0.1, 1, 10), len(wav) // 10)
    return (0.2 * wav / np.abs(wav).max()).astype(np.float32)


def lag(later: NDArray[np.float32], wav: NDArray[np.float32]) -> int:
    return int(np.argmax(signal.correlate(later, wav, method="fft"))) - (len(wav) - 1)


def likeness(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def response(wav: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Frequencies in Hz and levels in dB of what came out for an impulse."""
    levels = 20 * np.log10(np.abs(np.fft.rfft(wav)) + 1e-9)
    return np.fft.rfftfreq(len(wav), 1 / RATE), levels


def test_off_means_untouched():
    wav, fields = babble(), AugmentationFields()
    untouched = wav.copy()
    assert augment(wav, RATE, fields, rng()) is wav
    assert np.array_equal(wav, untouched)
    assert speed_factor(fields, rng()) == 1.0
    assert gain_db(fields, rng()) == 0.0
    assert np.array_equal(change_speed(wav, len(wav)), wav)


@pytest.mark.parametrize("effect", EFFECTS)
def test_the_same_draw_has_the_same_result_and_leaves_its_input_alone(effect):
    wav, fields = babble(), AugmentationFields(**{effect: 1.0})
    untouched = wav.copy()
    one, same = augment(wav, RATE, fields, rng(3)), augment(wav, RATE, fields, rng(3))
    assert np.array_equal(one, same)
    assert np.array_equal(wav, untouched)
    assert one.dtype == np.float32
    assert one.shape == wav.shape
    assert not np.array_equal(one, wav)


@pytest.mark.parametrize("effect", EFFECTS)
def test_each_happens_as_often_as_the_fields_say_and_when_it_does_no_matter_what_the_others_do(effect):
    wav, alone = babble(0.1), AugmentationFields(**{effect: 0.3})
    happens = [augment(wav, RATE, alone, rng(seed)) is not wav for seed in range(300)]
    assert 60 < sum(happens) < 120
    without = AugmentationFields(**{name: 1.0 for name in EFFECTS if name != effect})
    for seed in range(20):
        one, other = rng(seed), rng(seed)
        changed = augment(wav, RATE, dataclasses.replace(without, **{effect: 0.3}), one)
        assert np.array_equal(changed, augment(wav, RATE, without, other)) != happens[seed]
        assert one.random() == other.random()


def test_polarity_turns_a_stem_upside_down():
    wav = babble()
    assert np.array_equal(augment(wav, RATE, AugmentationFields(polarity=1.0), rng()), -wav)


def test_speed_and_gain_stay_within_their_ranges_and_use_them():
    fields, source = AugmentationFields(speed_range=0.05, gain_range=6.0), rng()
    factors = [speed_factor(fields, source) for _ in range(500)]
    gains = [gain_db(fields, source) for _ in range(500)]
    assert 0.95 <= min(factors) < 0.952
    assert 1.048 < max(factors) <= 1.05
    assert -6 <= min(gains) < -5.9
    assert 5.9 < max(gains) <= 6


def test_the_second_of_two_layers_is_weaker_by_up_to_the_range():
    one, other = tone(300), 0.01 * tone(1000)
    weaker = []
    for seed in range(60):
        added = layer(one, other, rng(seed)) - one
        assert likeness(added, other) > 0.9999
        weaker.append(10 * np.log10(np.square(one).mean() / np.square(added).mean()))
    assert -0.01 < min(weaker) < 1
    assert LAYER_RANGE - 1 < max(weaker) < LAYER_RANGE + 0.01


@pytest.mark.parametrize("factor", [0.5, 0.95, 1.0371, 1.5])
def test_faster_is_higher_and_not_louder(factor):
    length = 16_000
    faster = change_speed(tone(1000, round(length * factor) / RATE), length)
    assert faster.shape == (length,)
    assert faster.dtype == np.float32
    middle = faster[2000:-2000]
    wanted = tone(1000 * round(length * factor) / length)[2000:-2000]
    assert likeness(middle, wanted) == pytest.approx(1, abs=1e-4)
    assert float(np.linalg.norm(middle) / np.linalg.norm(wanted)) == pytest.approx(1, abs=1e-3)


def test_what_would_be_above_the_highest_frequency_after_speeding_up_is_gone():
    assert float(np.abs(change_speed(tone(7800, 1.2), RATE)[500:-500]).max()) < 1e-3


def test_a_room_adds_a_tail_of_the_promised_length_and_strength_after_the_sound_itself():
    fields, click = AugmentationFields(reverb=1.0), np.zeros(2 * RATE, dtype=np.float32)
    click[100] = 0.5
    falls, ratios, gaps = [], [], []
    for seed in range(60):
        wav = augment(click, RATE, fields, rng(seed))
        assert np.abs(wav[:100]).max() < 1e-6
        assert wav[100] == pytest.approx(0.5, abs=1e-6)
        tail = wav[101:].astype(np.float64)
        ratios.append(10 * math.log10(0.25 / np.square(tail).sum()))
        # Inaudible before the tail begins and after it has ended: what is left there is the transform's rounding.
        heard = np.flatnonzero(np.abs(tail) > 1e-6)
        gaps.append(heard[0] / RATE)
        # What is yet to come falls as the tail itself does; the first 30 dB of it are far above rounding.
        left = 10 * np.log10(np.square(tail[heard[0] : heard[-1]])[::-1].cumsum()[::-1])
        falls.append(2 * np.argmax(left < left[0] - 30) / RATE)
    assert REVERB_SECONDS[0] * 0.8 < min(falls) < REVERB_SECONDS[0] * 1.3
    assert REVERB_SECONDS[1] * 0.7 < max(falls) < REVERB_SECONDS[1] * 1.2
    assert -0.01 < min(ratios) < 2
    assert REVERB_RANGE - 2 < max(ratios) < REVERB_RANGE + 0.01
    assert REVERB_GAP[0] <= min(gaps) < 0.005
    assert 0.025 < max(gaps) < REVERB_GAP[1] + 0.001


def test_the_equalizer_stays_within_its_gains_and_comes_in_all_shapes():
    fields = AugmentationFields(equalizer=1.0)
    lows, highs, most = [], [], []
    for seed in range(100):
        _, levels = response(augment(impulse(), RATE, fields, rng(seed)))
        lows.append(float(levels[2]))
        highs.append(float(levels[-1]))
        most.append(float(np.abs(levels).max()))
    # A shelf and a wide peak may add up in between; the ends of the spectrum have one shelf each.
    assert max(most) < 13
    for ends in (lows, highs):
        assert max(map(abs, ends)) < 6.6
        assert min(ends) < -5
        assert max(ends) > 5


def test_shelves_and_peak_have_their_gain_where_they_should():
    """At zero, at the centre, and at the highest frequency the cookbook's filters have exactly their gain."""
    frequency = 2000 / RATE
    for section, places in (
        (module._shelf(frequency, 6.0, high=False), {0: 6, 2000: 3, 8000: 0}),
        (module._peak(frequency, -4.0, quality=2.0), {0: 0, 2000: -4, 8000: 0}),
        (module._shelf(frequency, -6.0, high=True), {0: 0, 2000: -3, 8000: -6}),
    ):
        _, gains = signal.sosfreqz([section], worN=list(places), fs=RATE)
        assert (20 * np.log10(np.abs(gains))).tolist() == pytest.approx(list(places.values()), abs=1e-6)


def test_a_low_pass_keeps_what_is_below_kills_what_is_above_and_shifts_nothing():
    fields, cutoffs = AugmentationFields(bandwidth=1.0), []
    for seed in range(50):
        wav = augment(impulse(), RATE, fields, rng(seed))
        assert int(np.argmax(wav)) == 4096
        np.testing.assert_allclose(wav[4096 - 200 : 4096], wav[4096 + 200 : 4096 : -1], atol=1e-6)
        frequencies, levels = response(wav)
        cutoff = float(frequencies[np.argmax(levels < -6)]) if levels.min() < -6 else RATE / 2
        cutoffs.append(cutoff)
        assert float(np.abs(levels[frequencies < cutoff - 150]).max()) < 0.1
        assert float(levels[frequencies > cutoff + 150].max(initial=-99)) < -40
    assert 1990 <= min(cutoffs) < 2300
    assert 7000 < max(cutoffs) <= 8000
    assert 15 < sum(cutoff < 4000 for cutoff in cutoffs) < 35


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_codecs_come_back_on_time_at_the_same_level_and_sound_alike(rate):
    wav, fields = babble(rate=rate), AugmentationFields(codec=1.0)
    results = {}
    for seed in range(40):
        own = augment(wav, rate, fields, rng(seed))
        results.setdefault(own.tobytes(), own)
    # All eight, told apart by what they did.
    assert len(results) == 8
    for coded in results.values():
        assert coded.shape == wav.shape
        # Above 16 kHz Opus may be up to 40 µs early, and makes up most of what is above 8 kHz.
        assert 0 >= lag(coded, wav) >= (0 if rate == RATE else -2)
        assert likeness(coded, wav) > (0.9 if rate == RATE else 0.75)
        assert float(np.linalg.norm(coded) / np.linalg.norm(wav)) == pytest.approx(1, abs=0.2)


def test_quiet_stems_do_not_drown_in_the_noise_of_a_codec():
    wav, fields = babble() * np.float32(1e-3), AugmentationFields(codec=1.0)
    assert all(likeness(augment(wav, RATE, fields, rng(seed)), wav) > 0.9 for seed in range(20))


def test_silence_stays_silence():
    wav = np.zeros(RATE, dtype=np.float32)
    for effect in EFFECTS:
        assert not augment(wav, RATE, AugmentationFields(**{effect: 1.0}), rng()).any()


def test_a_format_that_cannot_be_written_is_left_out(monkeypatch):
    whole = soundfile.SoundFile

    def limited(*arguments, **options):
        if options.get("format") == "MP3":
            raise soundfile.LibsndfileError(1)
        return whole(*arguments, **options)

    module._usable_codings.cache_clear()
    try:
        monkeypatch.setattr(soundfile, "SoundFile", limited)
        assert {coding.format for coding, _ in module._usable_codings(RATE)} == {"OGG", "WAV"}
    finally:
        module._usable_codings.cache_clear()
