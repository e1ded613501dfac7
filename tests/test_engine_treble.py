"""Treble: what lies above a model's band is copied up from the upper half of that, steadily, at the levels told."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from sdcodec_cli.audio.bands import STEP_DB
from sdcodec_cli.bitstream.codings import TREBLE_GAINS
from sdcodec_cli.bitstream.entries import treble_fits
from sdcodec_cli.engine.envelope import Bands, choose_gains, layout_for
from sdcodec_cli.engine.shaper import StreamShaper
from sdcodec_cli.engine.treble import Treble, treble_layout_for

RATE, HOP = 16_000, 320
MODELS = [(16_000, 320), (8000, 160), (16_000, 512), (22_050, 441), (24_000, 75)]
"""Rates with samples per frame; odd ones and short ones, too."""
NOTHING = TREBLE_GAINS.absent


def noise(length: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(length).astype(np.float32) * np.float32(0.1)


def treble_of(rate: int = RATE, hop: int = HOP) -> Treble:
    layout = treble_layout_for(rate, hop)
    assert layout is not None
    return Treble(layout, rate, hop)


def made(
    treble: Treble, wavs: np.ndarray, gains: np.ndarray, *, bands: Bands | None = None, hop: int = HOP
) -> np.ndarray:
    """`[S, T]` with treble, `[S, 2 T]`; gains of treble and 2 steps of the envelope, if there is one."""
    shaper = StreamShaper(hop, len(wavs), envelope=bands, share=1.0, treble=treble)
    levels = np.full((bands.layout.num_bands, gains.shape[1]), 2) if bands else None
    shaper.push_gains(gains.shape[1], levels, gains)
    return np.concatenate([shaper.push(wavs), shaper.finish()], axis=-1)


def gains_of(treble: Treble, frames: int, steps: int) -> np.ndarray:
    return np.full((treble.layout.num_bands, frames), steps)


def filtered(wav: np.ndarray, rate: int, low: float, high: float) -> np.ndarray:
    """What lies between two frequencies."""
    hertz = np.fft.rfftfreq(len(wav), 1 / rate)
    return np.fft.irfft(np.fft.rfft(wav) * ((hertz >= low) & (hertz < high)), n=len(wav)).astype(np.float32)


def interpolated(wav: np.ndarray) -> np.ndarray:
    """The same at twice the rate, with nothing above, by a transform of all of it."""
    return 2 * np.fft.irfft(np.fft.rfft(wav), n=2 * len(wav))


def level(wav: np.ndarray) -> float:
    """Mean power in dB."""
    return float(10 * np.log10(np.square(wav, dtype=np.float64).mean() + 1e-30))


# Bands.


def test_a_model_at_16_khz_has_8_bands_every_40_ms_above_7600_hz():
    layout = treble_layout_for(16_000, 320)
    assert (layout.num_bands, layout.frames, layout.step_db) == (8, 2, 4.0)
    assert (layout.edges[0], layout.edges[-1]) == (7600, 16_000)
    np.testing.assert_allclose(np.diff(np.log2(layout.edges)), np.log2(16_000 / 7600) / 8, atol=1e-3)


@pytest.mark.parametrize(("rate", "hop"), [*MODELS, (24_000, 480), (12_000, 64), (1000, 100), (16_000, 65_536)])
def test_models_of_up_to_24_khz_have_treble_that_a_stream_can_state(rate, hop):
    layout = treble_layout_for(rate, hop)
    assert treble_fits(layout.edges, rate, hop)
    assert layout.edges[0] <= 0.95 * rate / 2
    assert layout.edges[-1] == rate
    assert layout.frames * hop / rate == pytest.approx(0.04, abs=0.5 * hop / rate) or layout.frames == 1


@pytest.mark.parametrize(("rate", "hop"), [(44_100, 512), (48_000, 960), (11_025, 221), (22_050, 256), (16_000, 1)])
def test_a_model_that_reaches_higher_or_has_no_bins_at_whole_hertz_has_none(rate, hop):
    assert treble_layout_for(rate, hop) is None


# What is added.


@pytest.mark.parametrize(("rate", "hop"), MODELS)
def test_where_nothing_is_added_audio_is_interpolated(rate, hop):
    frames = 12_800 // hop
    treble, wav = treble_of(rate, hop), filtered(noise(frames * hop), rate, 0, 0.45 * rate)
    (out,) = made(treble, wav[None], gains_of(treble, frames, NOTHING), hop=hop)
    assert out.shape == (2 * frames * hop,)
    assert out.dtype == np.float32
    inner = slice(2000, -2000)
    assert level((out - interpolated(wav))[inner]) < level(wav) - 60


@pytest.mark.parametrize("steps", [-3, 6])
def test_what_is_below_stays_as_it_is_whatever_is_added(steps):
    treble, wav = treble_of(), filtered(noise(100 * HOP), RATE, 0, 7600)
    (out,) = made(treble, wav[None], gains_of(treble, 100, steps))
    inner = slice(4 * HOP, -4 * HOP)
    error = filtered(out - interpolated(wav), 2 * RATE, 0, 7400)[inner]
    assert level(error) < level(wav) - 60 + max(0, STEP_DB * steps)


@pytest.mark.parametrize(("rate", "hop"), MODELS)
def test_a_steady_tone_is_copied_to_two_steady_tones(rate, hop):
    """At 16 kHz from 3400 … 7600 Hz by 4200 and 8400 Hz: 6 kHz to 10.2 and 14.4 kHz."""
    treble, frames = treble_of(rate, hop), 8192 // hop + 40
    first = treble.layout.edges[0]
    shift = (rate - first) / 2
    assert (rate, hop) != (16_000, 320) or shift == 4200
    tone = 6000 if (rate, hop) == (16_000, 320) else first - 0.437 * shift
    wav = np.sin(2 * np.pi * tone / rate * np.arange(frames * hop)).astype(np.float32) * np.float32(0.1)
    (out,) = made(treble, wav[None], gains_of(treble, frames, 0), hop=hop)
    length = 16_384
    window = np.blackman(length) / (0.05 * np.blackman(length).sum())
    middle = out[len(out) // 2 - length // 2 :][:length] * window
    spectrum = 20 * np.log10(np.abs(np.fft.rfft(middle)))
    hertz = np.fft.rfftfreq(length, 0.5 / rate)
    peaks = np.zeros(len(hertz), dtype=bool)
    for place in (tone, tone + shift, tone + 2 * shift):
        peaks |= np.abs(hertz - place) < 8 * rate / length
        assert np.abs(middle @ np.exp(-1j * np.pi * place / rate * np.arange(length))) == pytest.approx(1, abs=0.01)
    # A tone whose level wavers has lines beside it.
    assert spectrum[~peaks].max() < -40


def test_gains_are_levels_of_copies_in_their_bands():
    treble, wav = treble_of(), noise(200 * HOP)
    gains = np.array([-8, -4, 0, -2, -5, -1, -6, -3])[:, None].repeat(200, axis=1)
    (out,) = made(treble, wav[None], gains)
    source = level(filtered(wav, RATE, 3400, 7600)) - 10 * np.log10(4200)
    for steps, (low, high) in zip(gains[:, 0], itertools.pairwise(treble.layout.edges), strict=True):
        if low > 8000:  # below, there is the audio itself
            inside = level(filtered(out, 2 * RATE, low + 50, high - 50)) - 10 * np.log10(high - low - 100)
            assert inside - source == pytest.approx(STEP_DB * steps, abs=1.0)


def test_the_lowest_gain_is_nothing_at_all():
    treble, wav = treble_of(), filtered(noise(60 * HOP), RATE, 0, 7000)
    gains = gains_of(treble, 60, 0)
    gains[3:] = NOTHING
    (out,) = made(treble, wav[None], gains)
    above = filtered(out, 2 * RATE, treble.layout.edges[3] + 200, 16_001)[4 * HOP : -4 * HOP]
    assert level(above) < level(wav) - 60


def test_treble_is_made_of_what_is_decoded_whatever_the_envelope_does_to_that():
    treble, wav = treble_of(), noise(60 * HOP)
    gains = gains_of(treble, 60, -2)
    (bare,), (loud,) = (
        made(treble, wav[None], gains, bands=bands) for bands in (None, Bands(layout_for(RATE, HOP), RATE, HOP))
    )
    difference = level(filtered(loud, 2 * RATE, 1000, 7500)) - level(filtered(bare, 2 * RATE, 1000, 7500))
    assert difference == pytest.approx(8, abs=0.2)
    above = [filtered(each, 2 * RATE, 8200, 16_001)[4 * HOP : -4 * HOP] for each in (bare, loud)]
    assert level(above[0] - above[1]) < level(above[0]) - 30


def test_stems_that_have_the_same_gains_add_up_above_too():
    treble, stems = treble_of(), np.stack([noise(20 * HOP, seed=seed) for seed in range(3)])
    gains = np.random.default_rng(0).integers(-12, 7, (8, 20))
    (whole,) = made(treble, stems.sum(0, keepdims=True), gains)
    np.testing.assert_allclose(made(treble, stems, gains).sum(0), whole, atol=2e-4)


def test_gains_are_heard_where_their_frames_are():
    treble, wav = treble_of(), filtered(noise(30 * HOP), RATE, 0, 7500)
    gains = gains_of(treble, 30, NOTHING)
    gains[:, 10] = 5
    change = np.abs(made(treble, wav[None], gains) - made(treble, wav[None], gains_of(treble, 30, NOTHING)))[0]
    assert np.flatnonzero(change.reshape(30, 2 * HOP).max(1) > 1e-6).tolist() == [9, 10, 11]


@pytest.mark.parametrize(("rate", "hop"), MODELS)
@pytest.mark.parametrize("sizes", [[1] * 23, [2, 20, 1], [7, 1, 1, 14]])
def test_pieces_are_what_the_whole_is_bit_for_bit(rate, hop, sizes):
    """Of which some come without gains, as segments do that have nothing above."""
    treble, bands = treble_of(rate, hop), Bands(layout_for(rate, hop), rate, hop)
    wavs = np.stack([noise(23 * hop), noise(23 * hop, seed=1)])
    gains = np.random.default_rng(2).integers(-12, 7, (8, 23))
    shaper, pieces = StreamShaper(hop, 2, envelope=bands, share=1.0, treble=treble), []
    levels = np.full((bands.layout.num_bands, 23), 2)
    for number, (start, stop) in enumerate(itertools.pairwise([0, *itertools.accumulate(sizes)])):
        if number % 3 == 1:
            gains[:, start:stop] = NOTHING
        shaper.push_gains(stop - start, levels[:, start:stop], None if number % 3 == 1 else gains[:, start:stop])
        pieces.append(shaper.push(wavs[:, start * hop : stop * hop]))
    pieces.append(shaper.finish())
    assert np.array_equal(np.concatenate(pieces, axis=-1), made(treble, wavs, gains, bands=bands, hop=hop))


@pytest.mark.parametrize("frames", [0, 1, 2])
def test_of_few_frames_as_much_comes_out_as_went_in(frames):
    shaper = StreamShaper(HOP, 2, envelope=None, share=0.0, treble=treble_of())
    if frames:
        shaper.push_gains(frames, None, np.zeros((8, frames), dtype=np.int64))
        out = [shaper.push(np.zeros((2, frames * HOP), dtype=np.float32))]
    out = [*(out if frames else []), shaper.finish()]
    assert np.concatenate(out, axis=-1).shape == (2, 2 * frames * HOP)


# What is wanted.


def around(wav: np.ndarray, factor: int = 1) -> np.ndarray:
    """With half a frame more on either side."""
    return np.pad(wav, factor * HOP // 2)


@pytest.mark.parametrize("decibels", [-30, -20, -6])
def test_noise_above_comes_back_at_its_level(decibels):
    """Decoded audio is noise up to 7.6 kHz; the original is that, and noise above 8 kHz that is so much softer."""
    treble, frames = treble_of(), 200
    wide = filtered(noise(2 * frames * HOP, seed=1), 2 * RATE, 8000, 16_001) * np.float32(10 ** (decibels / 20))
    decoded = filtered(noise(frames * HOP), RATE, 0, 7600) / np.float32(np.sqrt(2))
    original = (interpolated(decoded) + wide).astype(np.float32)
    gains = choose_gains(treble.wanted(around(original, 2), around(decoded)), max_bits=1e9, kind=TREBLE_GAINS)
    assert gains is not None
    (out,) = made(treble, decoded[None], treble.layout.per_frame(gains, frames))
    # Of what is loud right below the first band, windows let a little into it.
    for low, high in itertools.pairwise(treble.layout.edges[1:]):
        found, there = (level(filtered(each, 2 * RATE, low, high)) for each in (out, original))
        assert found == pytest.approx(there, abs=2.2)


def test_gains_are_what_copies_lack_in_steps_and_times():
    treble, frames = treble_of(), 100
    decoded = noise(frames * HOP)
    (copied,) = made(treble, decoded[None], gains_of(treble, frames, 0))
    quiet = copied.copy()
    quiet[: 100 * HOP] *= np.float32(10 ** (-12 / 20))
    wanted = treble.wanted(around(quiet, 2), around(decoded))
    assert wanted.shape == (8, 50)
    np.testing.assert_allclose(wanted[1:, 1:24].mean(1), -3, atol=0.15)
    np.testing.assert_allclose(wanted[1:, 26:-1].mean(1), 0, atol=0.15)


@pytest.mark.parametrize("what", ["nothing above", "silence"])
def test_where_nothing_is_above_nothing_is_stored(what):
    treble, decoded = treble_of(), filtered(noise(50 * HOP), RATE, 0, 7300)
    original = interpolated(decoded).astype(np.float32)
    if what == "silence":
        original, decoded = np.zeros_like(original), np.zeros_like(decoded)
    wanted = treble.wanted(around(original, 2), around(decoded))
    assert np.isfinite(wanted).all()
    assert choose_gains(wanted, max_bits=1e9, kind=TREBLE_GAINS) is None
