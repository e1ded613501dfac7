"""The time-domain encoder and decoder of DAC, for any strides and widths.

Source: "High-Fidelity Audio Compression with Improved RVQGAN", arXiv:2306.06546; SD-Codec uses its 16 kHz sizes, and
DeCodec (arXiv:2509.09201) has an LSTM beside the convolutions.

Legend: B batch, C channels, T samples, F frames, D latent width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import ResidualUnit, Snake, convolution
from .lstm import WindowedLSTM

Upsampling = Literal["exact", "dac", "sdcodec", "causal"]
"""How a transposed convolution of stride s, whose raw output is s samples too long, is trimmed.

==========  =================  =================================  =========================
name        trimmed left       length for L input samples         comment
==========  =================  =================================  =========================
`exact`     ceil(s / 2)        L·s                                mirrors the encoder: no lag
`dac`       ceil(s / 2)        L·s, less one where s is odd       published DAC weights
`sdcodec`   floor(s / 2)       L·s, one more where s is odd       published SD-Codec weights
`causal`    nothing            L·s                                nothing of what comes later
==========  =================  =================================  =========================

All but the last agree for even strides. With strides 8, 5, 4, 2, `dac` ends 8 samples short and `sdcodec` 8 samples
late.
"""

DILATIONS = (1, 3, 9)


class EncoderStage(nn.Module):
    """Three residual units, then a strided convolution that doubles the width.

    Shape: `[B, C, T]` to `[B, 2 C, T / stride]`
    """

    def __init__(self, channels: int, stride: int, *, causal: bool) -> None:
        super().__init__()
        self.units = nn.Sequential(*(ResidualUnit(channels, dilation, causal=causal) for dilation in DILATIONS))
        self.snake = Snake(channels)
        self.down = convolution(channels, 2 * channels, 2 * stride, stride=stride, causal=causal)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.snake(self.units(x)))


class DecoderStage(nn.Module):
    """A transposed convolution that halves the width, then three residual units.

    Shape: `[B, C, L]` to `[B, C / 2, L * stride]`, exactly so with `upsampling` `exact` and `causal`
    """

    def __init__(self, channels: int, stride: int, upsampling: Upsampling) -> None:
        super().__init__()
        self.snake = Snake(channels)
        self.stride, self.causal = stride, upsampling == "causal"
        trimmed = {"sdcodec": stride // 2, "causal": 0}.get(upsampling, math.ceil(stride / 2))
        self.up = nn.ConvTranspose1d(
            channels,
            channels // 2,
            2 * stride,
            stride=stride,
            padding=trimmed,
            output_padding=stride % 2 if upsampling == "exact" else 0,
        )
        units = (ResidualUnit(channels // 2, dilation, causal=self.causal) for dilation in DILATIONS)
        self.units = nn.Sequential(*units)

    def forward(self, x: Tensor) -> Tensor:
        raised = self.up(self.snake(x))
        return self.units(raised[..., : x.shape[-1] * self.stride] if self.causal else raised)


class ConvEncoder(nn.Module):
    """Waveform to latent by strided convolutions.

    Args:
        width: channels after the first convolution; each stage doubles them
        strides: downsampling of each stage; their product is the hop length
        latent_dim: channels of the latent
        causal: whether a frame depends on nothing that comes after its samples
        lstm: on the latent, of as many channels; none by default

    Shape: `[B, 1, T]`, T a multiple of the hop length, to `[B, D, T / hop_length]`
    """

    def __init__(
        self,
        *,
        width: int,
        strides: Sequence[int],
        latent_dim: int,
        causal: bool = False,
        lstm: WindowedLSTM | None = None,
    ) -> None:
        super().__init__()
        self.strides, self.causal = tuple(strides), causal
        self.conv_in = convolution(1, width, 7, causal=causal)
        stages = (EncoderStage(width << i, stride, causal=causal) for i, stride in enumerate(strides))
        self.stages = nn.Sequential(*stages)
        self.snake_out = Snake(width << len(strides))
        self.conv_out = convolution(width << len(strides), latent_dim, 3, causal=causal)
        self.lstm = lstm

    def forward(self, wav: Tensor) -> Tensor:
        latent = self.conv_out(self.snake_out(self.stages(self.conv_in(wav))))
        return latent if self.lstm is None else self.lstm(latent)

    @property
    def context_frames(self) -> int:
        """Frames of audio on each side that one latent frame depends on, its own excluded; rounded up."""
        reach, step = 3, 1
        for stride in self.strides:
            reach += step * (3 * sum(DILATIONS) + math.ceil(stride / 2))
            step *= stride
        # What is not behind a sample is twice as far before it.
        frames = math.ceil((reach + step) * (1 + self.causal) / step)
        return frames + (0 if self.lstm is None else self.lstm.context_frames)


class ConvDecoder(nn.Module):
    """Latent to waveform by transposed convolutions; the last one is followed by tanh.

    Args:
        width: channels after the first convolution; each stage halves them
        strides: upsampling of each stage; their product is the hop length
        latent_dim: channels of the latent
        upsampling: how odd strides are trimmed, see `Upsampling`
        lstm: on the latent, of as many channels; none by default

    Shape: `[B, D, F]` to `[B, 1, F * hop_length]`
    """

    def __init__(
        self,
        *,
        width: int,
        strides: Sequence[int],
        latent_dim: int,
        upsampling: Upsampling = "exact",
        lstm: WindowedLSTM | None = None,
    ) -> None:
        super().__init__()
        self.strides, self.causal = tuple(strides), upsampling == "causal"
        self.hop_length = math.prod(strides)
        self.lstm = lstm
        self.conv_in = convolution(latent_dim, width, 7, causal=self.causal)
        self.stages = nn.Sequential(*(DecoderStage(width >> i, stride, upsampling) for i, stride in enumerate(strides)))
        self.snake_out = Snake(width >> len(strides))
        self.conv_out = convolution(width >> len(strides), 1, 7, causal=self.causal)

    def forward(self, latent: Tensor) -> Tensor:
        seen = latent if self.lstm is None else self.lstm(latent)
        wav = torch.tanh(self.conv_out(self.snake_out(self.stages(self.conv_in(seen)))))
        # Published paddings miss the length by a few samples; both make it up at the end.
        return F.pad(wav, (0, latent.shape[-1] * self.hop_length - wav.shape[-1]))

    @property
    def context_frames(self) -> int:
        """Latent frames on each side that a frame of output depends on; rounded up."""
        samples, rate = 3, 1
        for stride in reversed(self.strides):
            samples += rate * 3 * sum(DILATIONS)
            rate *= stride
            samples += rate
        frames = math.ceil((samples + 3 * rate) * (1 + self.causal) / rate)
        return frames + (0 if self.lstm is None else self.lstm.context_frames)
