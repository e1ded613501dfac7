"""The filter between stages as audio arrives: that of training, whatever the pieces."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sdcodec_cli.audio.sinc import StreamSinc
from sdcodec_cli.nn.resample import resample

RATES = [(16_000, 32_000), (32_000, 48_000), (16_000, 48_000), (48_000, 16_000)]


def noise(length: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (2, length)).astype(np.float32)


def lifted(wav: np.ndarray, old: int, new: int, sizes: list[int]) -> np.ndarray:
    """Audio at another rate, given in pieces of these sizes, the last one over and over."""
    sinc, pieces, start = StreamSinc(old, new, len(wav)), [], 0
    while start < wav.shape[-1]:
        size = sizes.pop(0) if len(sizes) > 1 else sizes[0]
        pieces.append(sinc.push(wav[:, start : start + size]))
        start += size
    return np.concatenate([*pieces, sinc.flush()], axis=-1)


@pytest.mark.parametrize(("old", "new"), RATES)
@pytest.mark.parametrize("length", [1, 127, 128, 1001])
def test_it_is_the_filter_of_training(old, new, length):
    wav = noise(length)
    found = lifted(wav, old, new, [length])
    np.testing.assert_allclose(found, resample(torch.from_numpy(wav), old, new).numpy(), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("old", "new"), RATES)
@pytest.mark.parametrize("sizes", [[5, 9000, 0, 3, 64], [127], [4095]])
def test_pieces_give_what_the_whole_does_to_the_bit(old, new, sizes):
    wav = noise(20_001)
    assert np.array_equal(lifted(wav, old, new, sizes), lifted(wav, old, new, [20_001]))


def test_nothing_stays_nothing():
    sinc = StreamSinc(16_000, 32_000, 2)
    assert sinc.flush().shape == (2, 0)


@pytest.mark.parametrize(("old", "new"), RATES)
def test_it_is_the_formula_of_the_format(old, new):
    """docs/format.md, Stages, sample by sample."""
    wav, common = noise(901)[:1], math.gcd(old, new)
    s, t = old // common, new // common
    width, beta = math.ceil(64 * s / min(s, t)), 10.06126
    found = lifted(wav, old, new, [901])[0]
    for n in (0, 1, len(found) // 2, len(found) - 1):
        d = np.arange(-300, 1300) - n * old / new
        inside = np.sqrt(np.clip(1 - (d / width) ** 2, 0, None))
        h = np.sinc(0.95 * d * min(s, t) / s) * np.i0(beta * inside) * (np.abs(d) < width)
        assert found[n] == pytest.approx(float(h[300:1201] @ wav[0] / h.sum()), abs=1e-5)
