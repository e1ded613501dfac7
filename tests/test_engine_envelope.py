"""The envelope: levels in bands are measured, chosen in steps that are worth their bits, and changed by the decoder."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdcodec_cli.bitstream import GainLayout
from sdcodec_cli.bitstream.codings import ENVELOPE_GAINS, RANGE, TREBLE_GAINS, GainKind
from sdcodec_cli.engine.envelope import PRICE, UNIT_BITS, Bands, choose_gains, layout_for
from sdcodec_cli.engine.shaper import StreamShaper

RATES = [(16_000, 320), (8000, 160), (11_025, 221), (22_050, 441), (24_000, 75), (44_100, 512), (48_000, 961)]
"""Of models, with samples per frame; odd ones, too, and such whose frames are long or short."""
LOWEST_GAIN, HIGHEST_GAIN = -3, 5


def noise(length: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(length).astype(np.float32) * np.float32(0.1)


def bands_of(rate: int = 16_000, hop: int = 320) -> Bands:
    return Bands(layout_for(rate, hop), rate, hop)


def shaper_of(bands: Bands, num_stems: int, share: float) -> StreamShaper:
    # Frames of windows of two hops.
    return StreamShaper(len(bands._window) // 2, num_stems, envelope=bands, share=share, treble=None)


def shaped(bands: Bands, wavs: np.ndarray, gains: np.ndarray, share: float = 1.0) -> np.ndarray:
    """`[S, T]` in one piece."""
    shaper = shaper_of(bands, len(wavs), share)
    shaper.push_gains(gains.shape[1], gains, None)
    return np.concatenate([shaper.push(wavs), shaper.finish()], axis=-1)


def level(wav: np.ndarray, rate: int, low: float, high: float) -> float:
    """In dB, of all frequencies between two."""
    power = np.square(np.abs(np.fft.rfft(wav)))
    hertz = np.fft.rfftfreq(len(wav), 1 / rate)
    return float(10 * np.log10(power[(hertz >= low) & (hertz < high)].sum()))


def filtered(wav: np.ndarray, rate: int, low: float, high: float, decibels: float) -> np.ndarray:
    """With another level between two frequencies."""
    spectrum = np.fft.rfft(wav)
    hertz = np.fft.rfftfreq(len(wav), 1 / rate)
    spectrum[(hertz >= low) & (hertz < high)] *= 10 ** (decibels / 20)
    return np.fft.irfft(spectrum, n=len(wav)).astype(np.float32)


# Bands and times.


def test_a_fine_envelope_has_half_as_many_bands_again_twice_as_often():
    layout = layout_for(16_000, 320, fine=True)
    assert (layout.num_bands, layout.frames, layout.step_db) == (25, 1, 4.0)
    assert (layout.edges[0], layout.edges[-1]) == (356, 8000)


def test_a_model_at_16_khz_has_16_bands_every_40_ms():
    layout = layout_for(16_000, 320)
    assert (layout.num_bands, layout.frames, layout.step_db) == (16, 2, 4.0)
    assert (layout.edges[0], layout.edges[-1]) == (320, 8000)
    # 20 of equal width from 50 Hz to 8 kHz, in equivalent rectangular bandwidths: 21.4 log10(1 + 0.00437 f).
    widths = np.diff(21.4 * np.log10(1 + 0.00437 * np.array(layout.edges)))
    np.testing.assert_allclose(widths, (33.266 - 1.8363) / 20, atol=0.02)


@pytest.mark.parametrize(("rate", "hop"), [*RATES, (16_000, 1), (96_000, 65_536), (1000, 100)])
def test_any_model_has_bands_up_to_half_its_rate_and_gains_for_some_40_ms(rate, hop):
    layout = layout_for(rate, hop)
    assert layout.edges[-1] == rate // 2
    assert all(low < high for low, high in itertools.pairwise(layout.edges))
    assert layout.frames * hop / rate == pytest.approx(0.04, abs=0.5 * hop / rate) or layout.frames in (1, 255)


def test_bands_are_the_same_at_any_rate_as_far_as_it_reaches():
    one, other = layout_for(16_000, 320).edges, layout_for(48_000, 960).edges
    assert other[: len(one)] == one
    assert layout_for(8000, 160).edges == (*(edge for edge in one if edge < 3800), 4000)


# What is missing.


@pytest.mark.parametrize(("rate", "hop"), RATES)
def test_audio_that_is_as_loud_as_it_should_be_wants_no_gains(rate, hop):
    bands, wav = bands_of(rate, hop), noise(21 * hop)
    assert np.abs(bands.wanted(wav, wav)).max() == 0


@pytest.mark.parametrize("decibels", [-8.0, 4.0, 12.0])
def test_a_band_that_is_off_by_some_steps_wants_just_those(decibels):
    bands, wav = bands_of(), noise(101 * 320)
    edges = bands.layout.edges
    wanted = bands.wanted(wav, filtered(wav, 16_000, edges[9], edges[10], decibels))
    assert wanted.shape == (16, 50)
    # Bands are cut by windows of 40 ms: neighbours get a little of it.
    assert wanted[9].mean() == pytest.approx(-decibels / 4, abs=0.35)
    assert np.abs(np.delete(wanted, [8, 9, 10], axis=0)).max() < 0.1


def test_a_gain_is_for_the_frames_that_it_is_said_to_be_for():
    bands, wav = bands_of(), noise(21 * 320)
    quiet = wav.copy()
    quiet[320 // 2 + 8 * 320 : 320 // 2 + 12 * 320] /= 10  # frames 8 to 11, 20 dB: 5 steps
    wanted = bands.wanted(wav, quiet)
    assert wanted.shape == (16, 10)
    assert 3 < wanted[:, [4, 5]].mean() < 5  # windows reach half a frame beyond
    assert np.abs(wanted[:, [0, 1, 2, 7, 8, 9]]).max() < 1e-6


def test_the_last_frames_of_a_segment_may_be_fewer():
    bands, wav = bands_of(), noise(8 * 320)
    wanted = bands.wanted(wav, wav / 10)
    assert wanted.shape == (16, 4)
    np.testing.assert_allclose(wanted, 5, atol=1e-3)


def test_what_is_not_heard_wants_no_gains():
    bands = bands_of()
    assert np.abs(bands.wanted(noise(21 * 320) * np.float32(1e-5), np.zeros(21 * 320, np.float32))).max() < 0.3
    assert not bands.wanted(np.zeros(21 * 320, np.float32), np.zeros(21 * 320, np.float32)).any()


def test_a_band_without_a_bin_is_left_alone():
    layout = GainLayout(frames=1, step_db=4.0, edges=(101, 102, 8000))
    bands, wav = Bands(layout, 16_000, 320), noise(5 * 320)
    assert not bands.wanted(wav, wav / 2)[0].any()
    assert bands.wanted(wav, wav / 2)[1] == pytest.approx(20 * np.log10(2) / 4)


# Changing levels.


@pytest.mark.parametrize(("rate", "hop"), RATES)
def test_gains_of_zero_change_nothing(rate, hop):
    bands, wavs = bands_of(rate, hop), np.stack([noise(13 * hop), noise(13 * hop, seed=1)])
    out = shaped(bands, wavs, np.zeros((bands.layout.num_bands, 13), dtype=np.int64))
    assert out.shape == wavs.shape
    assert out.dtype == np.float32
    assert np.abs(out - wavs).max() < 1e-6


@pytest.mark.parametrize(("rate", "hop"), RATES)
@pytest.mark.parametrize("share", [1.0, 0.5])
def test_a_step_makes_its_band_louder_by_its_share_and_no_other(rate, hop, share):
    frames = 2 * rate // hop
    bands, wav = bands_of(rate, hop), noise(frames * hop)
    edges = bands.layout.edges
    band = bands.layout.num_bands - 3
    gains = np.zeros((bands.layout.num_bands, frames), dtype=np.int64)
    gains[band] = 1
    (out,) = shaped(bands, wav[None], gains, share)
    margin = 2 * rate / hop / 2  # a bin and the width of the window
    for number, (low, high) in enumerate(itertools.pairwise(edges)):
        if high - low > 3 * margin:
            inside = low + margin, high - margin
            change = level(out, rate, *inside) - level(wav, rate, *inside)
            assert change == pytest.approx(4 * share if number == band else 0, abs=0.15)
    if edges[0] > 2 * margin:
        below = level(out, rate, 0, edges[0] - margin) - level(wav, rate, 0, edges[0] - margin)
        assert below == pytest.approx(0, abs=0.01)


def test_the_last_band_reaches_to_half_the_rate():
    bands, frames = bands_of(), 50
    wav = np.cos(np.pi * np.arange(frames * 320)).astype(np.float32)[None] * np.float32(0.1)  # 8 kHz
    gains = np.zeros((16, frames), dtype=np.int64)
    gains[-1] = 1
    inner = slice(640, -640)
    np.testing.assert_allclose(shaped(bands, wav, gains)[:, inner], wav[:, inner] * 10 ** (4 / 20), atol=1e-5)


def test_all_gains_alike_are_a_gain_of_what_is_above_the_first_edge():
    bands, frames = bands_of(), 60
    wav = filtered(noise(frames * 320), 16_000, 0, 450, -200)[None]
    out = shaped(bands, wav, np.full((16, frames), -2))
    np.testing.assert_allclose(out[:, 320:-320], wav[:, 320:-320] * 10 ** (-8 / 20), atol=1e-4)


def test_gains_are_heard_where_their_frames_are():
    bands, wav, frames = bands_of(), noise(30 * 320)[None], 30
    gains = np.zeros((16, frames), dtype=np.int64)
    gains[:, 10] = 5
    change = np.abs(shaped(bands, wav, gains) - wav)[0].reshape(frames, 320).max(1)
    assert np.flatnonzero(change > 1e-6).tolist() == [9, 10, 11]
    assert change[10] == change.max()


def test_the_ends_have_the_gains_of_the_first_and_the_last_frame():
    bands, frames = bands_of(), 20
    wav = filtered(noise(3 * frames * 320), 16_000, 0, 500, -200)[None, frames * 320 : 2 * frames * 320]
    out = shaped(bands, wav, np.full((16, frames), 1))
    ratio = np.square(out).reshape(frames, 320).mean(1) / np.square(wav).reshape(frames, 320).mean(1)
    np.testing.assert_allclose(10 * np.log10(ratio), 4, atol=0.7)


def test_stems_that_are_shaped_alike_still_add_up():
    bands, frames = bands_of(), 20
    stems = np.stack([noise(frames * 320, seed=seed) for seed in range(3)])
    gains = np.random.default_rng(0).integers(LOWEST_GAIN, HIGHEST_GAIN + 1, (16, frames))
    whole = shaped(bands, stems.sum(0, keepdims=True), gains)[0]
    np.testing.assert_allclose(shaped(bands, stems, gains).sum(0), whole, atol=1e-5)


@pytest.mark.parametrize(("rate", "hop"), RATES)
@pytest.mark.parametrize("sizes", [[1] * 23, [23], [2, 20, 1], [7, 1, 1, 14], [5, 18]])
def test_pieces_are_what_the_whole_is_bit_for_bit(rate, hop, sizes):
    bands = bands_of(rate, hop)
    wavs = np.stack([noise(23 * hop), noise(23 * hop, seed=1)])
    gains = np.random.default_rng(2).integers(LOWEST_GAIN, HIGHEST_GAIN + 1, (bands.layout.num_bands, 23))
    shaper, pieces = shaper_of(bands, 2, 0.6), []
    for start, stop in itertools.pairwise([0, *itertools.accumulate(sizes)]):
        shaper.push_gains(stop - start, gains[:, start:stop], None)
        pieces.append(shaper.push(wavs[:, start * hop : stop * hop]))
        assert stop * hop - sum(piece.shape[-1] for piece in pieces) == min(stop * hop, hop + hop // 2)
    pieces.append(shaper.finish())
    assert np.array_equal(np.concatenate(pieces, axis=-1), shaped(bands, wavs, gains, 0.6))


def test_nothing_comes_out_where_nothing_went_in():
    assert shaper_of(bands_of(), 2, 1.0).finish().shape == (2, 0)


def test_what_was_wanted_is_there_when_it_is_applied():
    """Decoded audio that is too dull by whole steps has the levels of the original again."""
    bands, wav, frames = bands_of(), noise(200 * 320), 200
    edges = bands.layout.edges
    dull = filtered(filtered(wav, 16_000, edges[8], edges[11], -4), 16_000, edges[11], 8001, -12)
    half = np.pad(dull, (160, 160)), np.pad(wav, (160, 160))
    wanted = bands.wanted(half[1], half[0])
    gains = choose_gains(wanted, max_bits=1e9)
    assert gains is not None
    back = shaped(bands, dull[None], bands.layout.per_frame(gains, frames))[0]
    before, after = (np.abs(bands.wanted(half[1], np.pad(each, (160, 160)))).mean() for each in (dull, back))
    assert before > 1
    assert after < 0.12


# Choosing gains.

each_kind = pytest.mark.parametrize("kind", [ENVELOPE_GAINS, TREBLE_GAINS], ids=["envelope", "treble"])


def ends_of(kind: GainKind) -> tuple[int, int]:
    return kind.lowest, kind.lowest + kind.count - 1


def bits_of(gains: np.ndarray, kind: GainKind = ENVELOPE_GAINS) -> int:
    return UNIT_BITS + 8 * len(kind.codings[RANGE].encode(gains - kind.lowest, kind.count))


@each_kind
def test_steps_that_are_worth_their_bits_come_back_exactly(kind):
    lowest, highest = ends_of(kind)
    slope = np.repeat(np.arange(16) // 6, 50).reshape(16, 50)
    rising = slope + 3 * (np.arange(50) // 25)
    for steps in (slope, rising, np.full((16, 50), lowest), np.full((16, 50), highest)):
        if (steps == kind.absent).all():
            continue
        assert np.array_equal(choose_gains(steps.astype(float), max_bits=1e9, kind=kind), steps)
        near = steps + np.random.default_rng(0).uniform(-0.2, 0.2, steps.shape)
        assert np.array_equal(choose_gains(near, max_bits=1e9, kind=kind), steps)


@each_kind
def test_gains_beyond_the_steps_there_are_become_the_last_ones(kind):
    lowest, highest = ends_of(kind)
    least = choose_gains(np.full((16, 50), -40.0), max_bits=1e9, kind=kind)
    assert least is None if lowest == kind.absent else np.array_equal(least, np.full((16, 50), lowest))
    most = choose_gains(np.full((16, 50), 40.0), max_bits=1e9, kind=kind)
    assert np.array_equal(most, np.full((16, 50), highest))


@each_kind
@pytest.mark.parametrize("spread", [0.0, 0.1, 0.3])
def test_where_nothing_is_to_be_gained_there_are_none(kind, spread):
    wanted = np.random.default_rng(1).normal(kind.absent, spread, (16, 50))
    assert choose_gains(wanted, max_bits=1e9, kind=kind) is None


def test_a_single_gain_is_not_worth_a_place_in_the_file():
    wanted = np.zeros((16, 50))
    wanted[5, 20] = 3
    assert choose_gains(wanted, max_bits=1e9) is None
    # Squared, a hundred of them are.
    wanted[5:10, 20:40] = 3
    assert choose_gains(wanted, max_bits=1e9) is not None


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([ENVELOPE_GAINS, TREBLE_GAINS]),
    *(st.integers(0, 2**32), st.floats(0.1, 8), st.integers(1, 24), st.integers(1, 50), st.floats(0, 3000)),
)
def test_gains_never_take_more_than_they_may_and_are_never_worse_than_none(
    kind, seed, spread, num_bands, columns, max_bits
):
    rng = np.random.default_rng(seed)
    wanted = rng.normal(rng.uniform(-3, 3), spread, (num_bands, columns))
    gains = choose_gains(wanted, max_bits, kind)
    if gains is None:
        return
    lowest, highest = ends_of(kind)
    assert gains.shape == wanted.shape
    assert gains.dtype == np.int64
    assert gains.min() >= lowest
    assert gains.max() <= highest
    # In whole bytes; integers of 32 bits take a thousandth more.
    assert bits_of(gains, kind) <= 1.001 * max_bits + 16
    within = wanted.clip(lowest - 0.5, highest + 0.5)
    error, nothing = (np.square(within - each).sum() for each in (gains, kind.absent))
    assert error + PRICE * (bits_of(gains, kind) - 16) < nothing


@pytest.mark.parametrize(("kind", "max_bits"), [(ENVELOPE_GAINS, 1000), (TREBLE_GAINS, 1400)])
def test_gains_that_need_more_than_they_may_take_become_coarser_instead_of_none(kind, max_bits):
    wanted = np.random.default_rng(3).normal(1, 0.7, (16, 50))
    fine, coarse = (choose_gains(wanted, limit, kind) for limit in (1e9, max_bits))
    assert bits_of(coarse, kind) <= max_bits + 16 < bits_of(fine, kind)
    error, more, all_of_it = (np.square(wanted - gains).sum() for gains in (fine, coarse, kind.absent))
    assert error < more < 0.5 * all_of_it


def test_unlikely_gains_are_kept_as_long_as_they_help():
    """Such as those of a tone, whose decoded noise is far too loud in bands between others that are right."""
    wanted = np.where(np.arange(16)[:, None] % 2, 1.0, -6.0) + np.random.default_rng(1).normal(0, 1, (16, 50))
    assert choose_gains(wanted, max_bits=1200) is not None


@each_kind
def test_there_is_no_room_for_gains_in_a_few_frames(kind):
    assert choose_gains(np.full((16, 2), 3.0), max_bits=UNIT_BITS, kind=kind) is None
