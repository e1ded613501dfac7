"""What lies above a model's band goes to stems, which add up to the audio."""

from __future__ import annotations

import numpy as np
import pytest

from sdcodec_cli.engine.whole_band import WholeBandSeparator

RATE = 16_000


class Weights:
    """A model that gives two stems fixed shares of each channel, which change places after a while."""

    def __init__(self, *, change: float = 1e9):
        self.shares = np.array([[0.9, 0.2], [0.1, 0.8]], dtype=np.float32)
        self.change, self.done = round(change * RATE), 0

    def push(self, wav):
        times = np.arange(self.done, self.done + wav.shape[-1])
        self.done += wav.shape[-1]
        shares = np.where(times < self.change, self.shares[..., None], self.shares[::-1, :, None])
        if len(times):
            yield (shares * wav).astype(np.float32)

    def finish(self):
        return iter(())


def noise(seconds, rate, seed=0):
    return (0.1 * np.random.default_rng(seed).standard_normal((2, round(seconds * rate)))).astype(np.float32)


def separated(wav, rate, *, piece=None, change=1e9):
    separator = WholeBandSeparator(Weights(change=change), rate=rate, model_rate=RATE, num_stems=2, channels=2)
    piece = piece or wav.shape[-1]
    pieces = [out for at in range(0, wav.shape[-1], piece) for out in separator.push(wav[:, at : at + piece])]
    return np.concatenate([*pieces, *separator.finish()], axis=-1)


def above(wav, rate, edge):
    spectrum = np.fft.rfft(wav)
    spectrum[..., np.fft.rfftfreq(wav.shape[-1], 1 / rate) < edge] = 0
    return np.fft.irfft(spectrum, wav.shape[-1])


def decibels(part, whole):
    return 10 * np.log10(np.square(part).mean() / np.square(whole).mean() + 1e-30)


@pytest.mark.parametrize("rate", [8000, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("seconds", [0.001, 1.3])
def test_stems_add_up_to_the_audio_at_any_rate(rate, seconds):
    wav = noise(seconds, rate)
    stems = separated(wav, rate)
    assert stems.shape == (2, *wav.shape)
    assert decibels(stems.sum(0) - wav, wav) < -120


@pytest.mark.parametrize("rate", [44_100, 48_000])
def test_stems_have_the_share_above_that_they_have_at_the_top_of_the_band(rate):
    wav = noise(2.0, rate)
    high = above(wav, rate, 8500)
    for stem, shares in zip(separated(wav, rate), Weights().shares, strict=True):
        for found, given, share in zip(above(stem, rate, 8500), high, shares, strict=True):
            np.testing.assert_allclose(
                found[rate // 10 : -rate // 10], share * given[rate // 10 : -rate // 10], atol=0.02
            )


def test_shares_above_follow_those_below_within_a_frame():
    wav = noise(2.0, 48_000)
    stems = above(separated(wav, 48_000, change=1.0), 48_000, 8500)
    high = above(wav, 48_000, 8500)
    before, after = slice(24_000, 48_000 - 1536), slice(48_000 + 1536, 72_000)
    for part, share in ((before, 0.9), (after, 0.1)):
        assert decibels(stems[0, 0, part] - share * high[0, part], high[0, part]) < -50


def test_stems_do_not_depend_on_how_audio_arrives():
    wav = noise(1.5, 44_100)
    np.testing.assert_allclose(separated(wav, 44_100, piece=5000), separated(wav, 44_100), atol=1e-6)


def test_audio_with_nothing_at_the_top_of_the_band_is_shared_out_as_it_is_below():
    time = np.arange(48_000) / 48_000
    wav = (0.1 * np.sin(2 * np.pi * 500 * time) + 0.01 * np.sin(2 * np.pi * 12_000 * time)).astype(np.float32)
    stems = separated(np.stack([wav, wav]), 48_000)
    high = above(np.stack([wav, wav]), 48_000, 8500)
    middle = slice(4800, -4800)
    assert decibels((above(stems[0], 48_000, 8500) - 0.9 * high)[0, middle], high[0, middle]) < -30


def test_silence_stays_silence():
    assert not separated(np.zeros((2, 5000), dtype=np.float32), 48_000).any()
