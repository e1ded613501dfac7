"""Transforms as matrix products and frames as slices, for graphs, against what torch has."""

from __future__ import annotations

import pytest
import torch

from sdcodec_cli.nn.fourier import cut_frames, irfft, overlap_add, rfft
from sdcodec_cli.nn.tracing import for_graph, is_for_graph

# Powers of two, the models' windows, odd factors, and twice a prime, which no factor of use divides.
LENGTHS = [2, 4, 6, 10, 18, 30, 32, 162, 194, 512, 640, 1600, 2048]


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("length", LENGTHS)
def test_a_transform_by_products_is_torchs(length):
    frames = noise(2, 3, length)
    expected = torch.fft.rfft(frames)
    with for_graph():
        real, imag = rfft(frames)
    torch.testing.assert_close(torch.complex(real, imag), expected)
    torch.testing.assert_close(torch.complex(*rfft(frames)), expected)


@pytest.mark.parametrize("length", LENGTHS)
def test_its_inverse_is_torchs(length):
    """Imaginary parts of the first and the last bin, which no real frame has, do not count."""
    real, imag = noise(2, 3, length // 2 + 1), noise(2, 3, length // 2 + 1).flip(0)
    expected = torch.fft.irfft(torch.complex(real, imag), n=length)
    with for_graph():
        found = irfft(real, imag)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(irfft(real, imag), expected)


@pytest.mark.parametrize("length", LENGTHS)
def test_gradients_of_the_products_are_those_of_torchs_transforms(length):
    frames, towards = noise(3, length).requires_grad_(), noise(2, 3, length // 2 + 1)

    def gradients() -> list[torch.Tensor]:
        real, imag = rfft(frames)
        back = irfft(real * towards[0], imag * towards[1])
        return [
            torch.autograd.grad((real * towards[0] + imag * towards[1]).sum(), frames, retain_graph=True)[0],
            torch.autograd.grad(back.square().sum(), frames)[0],
        ]

    expected = gradients()
    with for_graph():
        found = gradients()
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_tone_is_in_its_bin():
    frames = torch.cos(2 * torch.pi * 5 * torch.arange(640, dtype=torch.float64) / 640)[None]
    for kind in (for_graph(), None):
        with kind or torch.no_grad():
            real, imag = rfft(frames)
        expected = torch.zeros(1, 321, dtype=torch.float64)
        expected[0, 5] = 320
        torch.testing.assert_close(real, expected, atol=1e-10, rtol=0)
        torch.testing.assert_close(imag, torch.zeros_like(imag), atol=1e-10, rtol=0)


SIZES = [(640, 320), (1600, 320), (2048, 320), (512, 128), (700, 320), (320, 320), (8, 3), (3, 1)]


@pytest.mark.parametrize(("window", "hop"), SIZES)
@pytest.mark.parametrize("more", [0, 1, 5])
def test_frames_are_torchs_unfolded_ones_in_both_modes(window, hop, more):
    """What is left after the last whole frame has no part in any."""
    wav = noise(2, window + 4 * hop + min(more, hop - 1))
    expected = wav.unfold(-1, window, hop)
    with for_graph():
        assert torch.equal(cut_frames(wav, window, hop), expected)
    assert torch.equal(cut_frames(wav, window, hop), expected)


@pytest.mark.parametrize(("window", "hop"), SIZES)
@pytest.mark.parametrize("count", [1, 2, 7])
def test_overlapping_frames_add_up_as_torch_folds_them_in_both_modes(window, hop, count):
    frames = noise(2, count, window)
    length = (count - 1) * hop + window
    folded = torch.nn.functional.fold(frames.transpose(1, 2), (1, length), (1, window), stride=(1, hop))
    expected = folded[:, 0, 0]
    with for_graph():
        torch.testing.assert_close(overlap_add(frames, hop), expected)
    torch.testing.assert_close(overlap_add(frames, hop), expected)


def test_graphs_are_made_in_the_block_that_says_so_and_nowhere_else():
    assert not is_for_graph()
    with for_graph():
        assert is_for_graph()
    with pytest.raises(ZeroDivisionError), for_graph():
        raise ZeroDivisionError
    assert not is_for_graph()
