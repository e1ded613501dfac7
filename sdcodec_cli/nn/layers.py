"""Building blocks of the networks.

Legend: B batch, C channels, T samples, F frames.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from .tracing import is_for_graph


class Snake(nn.Module):
    """Periodic activation `x + sin²(αx) / α` with one learned frequency per channel.

    From "Neural Networks Fail to Learn Periodic Functions and How to Fix It", arXiv:2006.08195; used in DAC,
    arXiv:2306.06546, whose 1e-9 in the denominator is kept because published weights were trained with it.

    Shape: `[B, C, T]` to `[B, C, T]`
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(1, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + (self.alpha + 1e-9).reciprocal() * torch.sin(self.alpha * x).square()


class _CausalConv1d(nn.Conv1d):
    """A convolution that sees nothing of what comes after a sample, or after the samples of one step of its stride."""

    def forward(self, x: Tensor) -> Tensor:
        (width,), (stride,), (dilation,) = self.kernel_size, self.stride, self.dilation
        return super().forward(F.pad(x, ((width - 1) * dilation + 1 - stride, 0)))


def convolution(
    channels_in: int, channels_out: int, width: int, *, dilation: int = 1, stride: int = 1, causal: bool = False
) -> nn.Conv1d:
    """A convolution that gives one sample for each step of its stride: `[B, C, T]` to `[B, C', T / stride]`.

    Its width is odd, or twice the stride.
    """
    if causal:
        return _CausalConv1d(channels_in, channels_out, width, stride=stride, dilation=dilation)
    padding = width // 2 * dilation if stride == 1 else math.ceil(stride / 2)
    return nn.Conv1d(channels_in, channels_out, width, stride=stride, dilation=dilation, padding=padding)


class ResidualUnit(nn.Module):
    """Dilated convolution of width 7 and a pointwise one, around a skip connection (DAC, arXiv:2306.06546).

    Shape: `[B, C, T]` to `[B, C, T]`
    """

    def __init__(self, channels: int, dilation: int, *, causal: bool = False) -> None:
        super().__init__()
        self.snake1 = Snake(channels)
        self.conv1 = convolution(channels, channels, 7, dilation=dilation, causal=causal)
        self.snake2 = Snake(channels)
        self.conv2 = nn.Conv1d(channels, channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(self.snake2(self.conv1(self.snake1(x))))


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution over time, then a two-layer perceptron on each frame, around a skip connection.

    From "A ConvNet for the 2020s", arXiv:2201.03545, in one dimension and with ReLU, which on a CPU is a third faster
    to train than GELU. The layout is `[B, F, C]`, the one that the perceptron's matrix products want, where nearly
    all the arithmetic is.

    Shape: `[B, F, C]` to `[B, F, C]`
    """

    def __init__(self, channels: int, *, kernel_size: int, expansion: int, scale: float, dilation: int = 1) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(channels, channels, kernel_size, groups=channels, dilation=dilation)
        self.norm = nn.LayerNorm(channels)
        self.expand = nn.Linear(channels, expansion * channels)
        self.project = nn.Linear(expansion * channels, channels)
        self.scale = nn.Parameter(torch.full((channels,), scale))

    def forward(self, x: Tensor) -> Tensor:
        if is_for_graph():
            convolved = _Depthwise.apply(x.transpose(1, 2), self.depthwise.weight, self.depthwise.dilation[0])
            convolved = convolved.transpose(1, 2) + self.depthwise.bias
        else:
            convolved = self._convolved(x)
        y = self.norm(convolved)
        return x + self.scale * self.project(F.relu(self.expand(y)))

    def _convolved(self, x: Tensor) -> Tensor:
        (dilation,) = self.depthwise.dilation
        # A one-row picture in channels-last order is `[B, F, C]` in memory: as such it needs no transposed copy. In 32
        # bits on a CPU, where the way back takes three times as long in bfloat16.
        with torch.autocast("cpu", enabled=False):
            picture = F.conv2d(
                x.to(self.depthwise.weight.dtype).transpose(1, 2).unsqueeze(2),
                self.depthwise.weight.unsqueeze(2),
                self.depthwise.bias,
                padding=(0, self.depthwise.kernel_size[0] // 2 * dilation),
                dilation=(1, dilation),
                groups=x.shape[-1],
            )
        return picture.squeeze(2).transpose(1, 2)


class _Depthwise(torch.autograd.Function):
    """A depthwise convolution whose gradient towards the input is another, with the kernel turned round.

    Shape: `[B, C, F]` and kernel `[C, 1, width]` to `[B, C, F]`
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, dilation: int) -> Tensor:
        ctx.save_for_backward(kernel)
        ctx.dilation = dilation
        return _same_length(x, kernel, dilation)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (kernel,) = ctx.saved_tensors
        return _same_length(gradient, kernel.flip(-1), ctx.dilation), None, None


def _same_length(x: Tensor, kernel: Tensor, dilation: int) -> Tensor:
    reach = kernel.shape[-1] // 2 * dilation
    return F.conv1d(x, kernel, padding=reach, dilation=dilation, groups=len(kernel))


class _WeightNorm(nn.Module):
    """`weight = magnitude * direction / ‖direction‖`, the norm taken over all but the leading `keep` axes."""

    def __init__(self, keep: int) -> None:
        super().__init__()
        self.keep = keep

    def forward(self, magnitude: Tensor, direction: Tensor) -> Tensor:
        axes = tuple(range(self.keep, direction.dim()))
        return magnitude * direction / torch.linalg.vector_norm(direction, dim=axes, keepdim=True)

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        axes = tuple(range(self.keep, weight.dim()))
        return torch.linalg.vector_norm(weight, dim=axes, keepdim=True), weight


def add_weight_norm(module: nn.Module) -> None:
    """Split the weights of all convolutions below `module` into magnitude and direction, for training.

    Stored weights are always plain; this only changes how they are learned (arXiv:1602.07868).
    """
    for part in module.modules():
        if isinstance(part, nn.Conv1d | nn.ConvTranspose1d) and not parametrize.is_parametrized(part):
            parametrize.register_parametrization(part, "weight", _WeightNorm(keep=1))


def fold_weights(module: nn.Module) -> None:
    """Undo `add_weight_norm`, and `projection.keep_orthogonal`: weights are plain tensors again, of the same values."""
    for part in module.modules():
        if parametrize.is_parametrized(part):
            parametrize.remove_parametrizations(part, "weight")


def pad_to_multiple(wav: Tensor, hop_length: int) -> Tensor:
    """Zeros at the end until the length is a whole number of hops, and at least one.

    Shape: `[..., T]` to `[..., ceil(T / hop_length) * hop_length]`
    """
    frames = max(1, math.ceil(wav.shape[-1] / hop_length))
    return F.pad(wav, (0, frames * hop_length - wav.shape[-1]))
