"""The networks that learn to tell decoded from real audio; needed in training only.

From "High-Fidelity Audio Compression with Improved RVQGAN" (DAC), arXiv:2306.06546: one network per period on the
waveform (arXiv:2010.05646), one per window length on bands of the complex spectrum.

Legend: R rows, T samples, C channels, P period, F frames, W window length.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

SLOPE = 0.1
PEAK = 0.8

NARROWEST = 9
"""Bins of the narrowest band. The strided layers then see three or more; of one or two, oneDNN's bfloat16 convolution
makes NaNs out of memory that it never wrote (torch 2.11, CPU)."""

SILENCE = 1e-4
"""Peak below which a row is not made louder. DAC has no such limit, and at digital silence a gradient of 1e9."""


class Discriminators(nn.Module):
    """All networks, each on the same rows, which are first freed of their mean and brought to the same peak.

    Args:
        periods: one network for each, on the waveform folded to that many columns
        window_lengths: one network for each, on the spectrum with windows of that many samples
        band_edges: where the spectrum is split, as shares of the highest frequency
        width: channels of the spectral networks, and of the first layer of the period networks

    Shape:
        wav: `[R, 1, T]`, at least two samples
        returns: per network the outputs of all its layers, rows leading; the last are its scores, about 1 where a row
            sounds real and about 0 where it sounds decoded
    """

    def __init__(
        self, *, periods: Sequence[int], window_lengths: Sequence[int], band_edges: Sequence[float], width: int
    ) -> None:
        super().__init__()
        self.networks = nn.ModuleList(
            [
                *(PeriodDiscriminator(period, width) for period in periods),
                *(SpectralDiscriminator(window_length, band_edges, width) for window_length in window_lengths),
            ]
        )

    def forward(self, wav: Tensor) -> list[list[Tensor]]:
        if wav.shape[-1] < 2:
            raise ValueError(f"discriminators need at least 2 samples, got {wav.shape[-1]}")
        wav = wav.float()
        wav = wav - wav.mean(-1, keepdim=True)
        wav = wav * (PEAK / wav.abs().amax(-1, keepdim=True).clamp_min(SILENCE))
        return [network(wav) for network in self.networks]


class PeriodDiscriminator(nn.Module):
    """Convolutions over every P-th sample, the same for each of the P phases.

    Shape: `[R, 1, T]` to feature maps `[R, P, C, ceil(T / P) / stride]`
    """

    def __init__(self, period: int, width: int) -> None:
        super().__init__()
        self.period = period
        widths = (1, width, 4 * width, 16 * width, 32 * width, 32 * width)
        self.layers = nn.ModuleList(
            weight_norm(nn.Conv1d(before, after, kernel_size=5, stride=stride, padding=2))
            for (before, after), stride in zip(itertools.pairwise(widths), (3, 3, 3, 3, 1), strict=True)
        )
        self.score = weight_norm(nn.Conv1d(widths[-1], 1, kernel_size=3, padding=1))

    def forward(self, wav: Tensor) -> list[Tensor]:
        wav = _reflected(wav, 0, -wav.shape[-1] % self.period)
        # Phases as rows of a one-dimensional convolution: on a CPU 1.1 to 3 times as fast as columns of a picture.
        x = wav.unflatten(-1, (-1, self.period)).permute(0, 3, 1, 2).flatten(0, 1)
        maps = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), SLOPE, inplace=True)
            maps.append(x)
        maps.append(self.score(x))
        return [m.unflatten(0, (-1, self.period)) for m in maps]


class SpectralDiscriminator(nn.Module):
    """Convolutions over time and frequency of the complex spectrum, with weights of their own in each band.

    Shape: `[R, 1, T]` to feature maps `[R, C, F, bins]`, F the number of hops of W / 4 that cover the samples
    """

    def __init__(self, window_length: int, band_edges: Sequence[float], width: int) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(window_length), persistent=False)
        self.window: Tensor
        bins = window_length // 2 + 1
        # The band edges are DAC's, whose last layer also sees the bands side by side.
        self.edges = [int(edge * bins) for edge in (0, *band_edges, 1)]
        if any(high - low < NARROWEST for low, high in itertools.pairwise(self.edges)):
            raise ValueError(
                f"band_edges leave fewer than {NARROWEST} bins in a band of window_length {window_length}; "
                f"move them apart, or take longer windows"
            )
        self.bands = nn.ModuleList(_band_layers(width) for _ in self.edges[1:])
        self.score = weight_norm(nn.Conv2d(width, 1, kernel_size=3, padding=1))

    def forward(self, wav: Tensor) -> list[Tensor]:
        picture = self.spectrum(wav)
        maps, tops = [], []
        for (low, high), layers in zip(itertools.pairwise(self.edges), self.bands, strict=True):
            x = picture[..., low:high]
            assert isinstance(layers, nn.ModuleList)
            for layer in layers:
                x = F.leaky_relu(layer(x), SLOPE, inplace=True)
                maps.append(x)
            tops.append(x)
        return [*maps, self.score(torch.cat(tops, dim=-1))]

    def spectrum(self, wav: Tensor) -> Tensor:
        """Real and imaginary part, `[R, 1, T]` to `[R, 2, F, W / 2 + 1]`; each frame is about the middle of its hop."""
        window_length = len(self.window)
        hop = window_length // 4
        margin = window_length - hop
        wav = _reflected(wav[:, 0], margin // 2, margin - margin // 2 + -wav.shape[-1] % hop)
        spectrum = torch.fft.rfft(wav.unfold(-1, window_length, hop) * self.window)
        # The two parts lie next to each other: a view is already the channels-last layout that convolutions are
        # fastest in, and all that follow keep it.
        return torch.view_as_real(spectrum).permute(0, 3, 1, 2)


def _band_layers(width: int) -> nn.ModuleList:
    """Five layers that keep the frame rate and have an eighth of the bins in the end."""
    layers = [nn.Conv2d(2, width, kernel_size=(3, 9), padding=(1, 4))]
    for _ in range(3):
        layers.append(nn.Conv2d(width, width, kernel_size=(3, 9), stride=(1, 2), padding=(1, 4)))
    layers.append(nn.Conv2d(width, width, kernel_size=3, padding=1))
    return nn.ModuleList(weight_norm(layer) for layer in layers)


def _reflected(wav: Tensor, left: int, right: int) -> Tensor:
    """Continue `[..., T]` by its mirror image, as often as it takes if it is shorter than what is asked for."""
    while left or right:
        room = wav.shape[-1] - 1
        before, after = min(left, room), min(right, room)
        parts = [wav[..., 1 : before + 1].flip(-1), wav, wav[..., room - after : room].flip(-1)]
        wav, left, right = torch.cat(parts, dim=-1), left - before, right - after
    return wav
