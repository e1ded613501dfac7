"""Filtering in chunks is what scipy computes sample by sample."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal

from sdcodec_cli.audio import k_weighting
from sdcodec_cli.audio.filters import CHUNK, ChunkFilter


def in_chunks(sections: np.ndarray, wav: np.ndarray) -> np.ndarray:
    chunk_filter = ChunkFilter(sections, len(wav))
    state, filtered = chunk_filter.start(), []
    for begin in range(0, wav.shape[1], CHUNK):
        output, state = chunk_filter(wav[:, begin : begin + CHUNK], state)
        filtered.append(output)
    return np.concatenate(filtered, axis=1)


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 44_100, 48_000, 192_000, 384_000])
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_a_stream_of_chunks_is_filtered_as_scipy_filters_the_whole(rate: int, channels: int) -> None:
    wav = np.random.default_rng(0).standard_normal((channels, 3 * CHUNK))
    expected = scipy.signal.sosfilt(k_weighting(rate), wav, axis=-1)
    np.testing.assert_allclose(in_chunks(k_weighting(rate), wav), expected, rtol=0, atol=1e-9 * np.abs(expected).max())


def test_silence_after_a_sound_becomes_silent() -> None:
    wav = np.zeros((1, 3 * CHUNK))
    wav[0, :1000] = np.random.default_rng(0).standard_normal(1000)
    found = np.abs(in_chunks(k_weighting(48_000), wav)).reshape(-1, 1024).max(1)
    assert found[0] > 1
    assert found[-1] < 1e-60


@pytest.mark.parametrize("count", [1, 3])
def test_any_number_of_sections_is_taken_and_each_may_resonate(count: int) -> None:
    sections = scipy.signal.butter(2 * count, 0.1, output="sos")
    assert len(sections) == count
    wav = np.random.default_rng(0).standard_normal((2, 3 * CHUNK))
    np.testing.assert_allclose(in_chunks(sections, wav), scipy.signal.sosfilt(sections, wav, axis=-1), atol=1e-12)


def test_a_chunk_gives_equal_bits_whatever_came_through_the_filter_before() -> None:
    chunk_filter, wav = ChunkFilter(k_weighting(16_000), 2), np.random.default_rng(0).standard_normal((2, CHUNK))
    first, after = chunk_filter(wav, chunk_filter.start())
    chunk_filter(3 * wav, after)
    again, same = chunk_filter(wav, chunk_filter.start())
    assert np.array_equal(first, again)
    assert np.array_equal(after, same)
