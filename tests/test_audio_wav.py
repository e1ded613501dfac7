"""Down-mixing and resampling: the same samples, however audio was cut into blocks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soxr
from audio_examples import RATE, noise

from sdcodec_cli.audio import StreamResampler, downmix


def test_downmixing_takes_the_mean(tmp_path: Path) -> None:
    wav = noise(0.1, channels=3)
    np.testing.assert_allclose(downmix(wav), wav.mean(axis=0, keepdims=True), atol=1e-7)
    assert downmix(wav[:1]) is not None
    np.testing.assert_array_equal(downmix(wav[:1]), wav[:1])


@pytest.mark.parametrize(
    ("in_rate", "out_rate"), [(44_100, 16_000), (16_000, 48_000), (8_000, 16_000), (96_000, 16_000)]
)
@pytest.mark.parametrize("sizes", [(1,) * 50, (0, 7, 0, 1000, 1), (100_000,)])
def test_resampling_in_pieces_equals_resampling_at_once(in_rate: int, out_rate: int, sizes: tuple[int, ...]) -> None:
    wav = noise(0.5, in_rate, channels=2)
    resampler = StreamResampler(in_rate, out_rate, 2)
    pieces, position = [], 0
    for size in (*sizes, wav.shape[1]):
        pieces.append(resampler.push(wav[:, position : position + size]))
        position += size
    result = np.concatenate([*pieces, resampler.flush()], axis=1)
    np.testing.assert_array_equal(result, soxr.resample(np.ascontiguousarray(wav.T), in_rate, out_rate).T)
    assert result.shape[1] == pytest.approx(0.5 * out_rate, abs=1)


def test_equal_rates_pass_audio_through_untouched() -> None:
    resampler, wav = StreamResampler(RATE, RATE, 1), noise(0.1)
    np.testing.assert_array_equal(resampler.push(wav), wav)
    assert resampler.flush().shape == (1, 0)


def test_a_resampler_that_got_nothing_returns_nothing() -> None:
    resampler = StreamResampler(44_100, RATE, 2)
    assert resampler.push(np.zeros((2, 0), np.float32)).shape == (2, 0)
    assert resampler.flush().shape == (2, 0)
