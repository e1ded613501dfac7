"""Audio at another rate: nothing is lost below nine tenths of the band, nothing is late, and gradients pass."""

from __future__ import annotations

import pytest
import torch

from sdcodec_cli.nn.resample import resample, resampled_length

EDGE = 200
"""Samples at either end that see the silence outside."""

RATES = [(16_000, 32_000), (16_000, 48_000), (32_000, 48_000), (32_000, 16_000), (48_000, 32_000), (48_000, 16_000)]


def sine(frequency: float, rate: int, length: int) -> torch.Tensor:
    return torch.sin(2 * torch.pi * frequency * torch.arange(length, dtype=torch.float64) / rate)


def level(wav: torch.Tensor) -> float:
    """Against a sine of full scale, in dB, away from the edges."""
    return float(10 * torch.log10(wav[EDGE:-EDGE].double().square().mean() / 0.5))


@pytest.mark.parametrize(("old", "new"), RATES)
@pytest.mark.parametrize("share", [0.01, 0.5, 0.89])
def test_a_sine_below_nine_tenths_of_the_band_is_the_same_sine(old, new, share):
    frequency = share * min(old, new) / 2
    found = resample(sine(frequency, old, old // 4), old, new)
    assert level(found - sine(frequency, new, new // 4)) < -90


@pytest.mark.parametrize(("old", "new"), [(old, new) for old, new in RATES if new < old])
def test_what_the_lower_rate_cannot_carry_is_gone(old, new):
    assert level(resample(sine(0.505 * new, old, old // 4), old, new)) < -90


@pytest.mark.parametrize(("old", "new"), RATES)
def test_an_impulse_stays_where_it_is(old, new):
    wav = torch.zeros(2, 1, old // 100)
    wav[..., 90] = 1
    found = resample(wav, old, new)
    assert found.shape == (2, 1, new // 100)
    assert found.argmax(-1).unique().tolist() == [90 * new // old]
    middle = found[0, 0, 90 * new // old - 50 : 90 * new // old + 51]
    torch.testing.assert_close(middle, middle.flip(0), atol=1e-6, rtol=0)


def test_a_constant_stays_one():
    torch.testing.assert_close(resample(torch.ones(4000), 16_000, 48_000)[EDGE:-EDGE], torch.ones(11_600))


@pytest.mark.parametrize("length", [1, 127, 128, 129, 4001])
def test_any_length_comes_back(length):
    assert resampled_length(length, 48_000, 32_000) == -(-length * 2 // 3)
    low = resample(torch.randn(2, length), 48_000, 32_000)
    assert low.shape == (2, -(-length * 2 // 3))
    assert resample(low, 32_000, 48_000, length=length).shape == (2, length)


def test_gradients_are_those_of_a_linear_map():
    wav = torch.randn(300, requires_grad=True)
    weights = torch.randn(600)
    (resample(wav, 16_000, 32_000) * weights).sum().backward()
    impulse = torch.zeros(300)
    impulse[123] = 1
    assert wav.grad is not None
    assert float(wav.grad[123]) == pytest.approx(float(resample(impulse, 16_000, 32_000) @ weights), rel=1e-4)


def test_half_precision_around_it_changes_nothing():
    wav = torch.randn(1000)
    with torch.autocast("cpu", torch.bfloat16):
        found = resample(wav, 16_000, 32_000)
    assert torch.equal(found, resample(wav, 16_000, 32_000))
