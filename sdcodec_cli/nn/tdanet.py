"""TDANet, which separates a mixture with one small block of layers that it runs over its features again and again.

From "An efficient encoder-decoder architecture with top-down attention for speech separation", arXiv:2209.15200. A
learned filterbank makes frames of the audio; a U-shaped block, whose weights all iterations share, looks at them at
several time scales; every stem is what a mask leaves of the frames, turned back into audio. Stems add up to the
mixture: what they lack of it is shared out equally ("Differentiable consistency constraints for improved deep speech
enhancement", arXiv:1811.08521), in training as in use.

Features are `[B, F, C]`, the layout that products of matrices want, where most of the arithmetic is.

Legend: B batch, T samples, F frames, C channels, N stems, G frames of the coarsest level.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .fourier import cut_frames, overlap_add
from .tracing import is_for_graph

KERNEL_SIZE = 5
"""Frames that depthwise convolutions see."""
QUIET = 1e-8
"""Power below which a pair of filters is taken to hear nothing."""
EPS = 1e-8
"""Added to the variance that a norm divides by."""
POSITION_PERIOD = 10_000
"""Of the slowest of the sinusoids that tell positions apart, over 2π."""


class TDANet(nn.Module):
    """A mixture to its stems, in the order in which the network was trained to give them.

    Args:
        num_stems: N
        window_length: samples that a frame sees
        stride: samples per frame
        num_filters: of the filterbank
        channels: between iterations
        width: channels inside of the block
        depth: levels of the block's pyramid; each has half the frames of the one before
        num_heads: of attention
        num_iterations: how often the block is run
        joint_decoder: whether a stem is made of the masked frames of all stems, as in the published code, or of its
            own alone and by the same filters for all; with long windows the former would have most of the weights
        magnitudes: whether the block sees logarithms of the power of pairs of filters, which begin as cosines and
            sines, in place of what the filters give, and the decoder begins as their inverse; ours, for long windows

    Shape: `[B, T]` to `[B, N, T]`, for any T
    """

    def __init__(
        self,
        *,
        num_stems: int,
        window_length: int,
        stride: int,
        num_filters: int,
        channels: int,
        width: int,
        depth: int,
        num_heads: int,
        num_iterations: int,
        joint_decoder: bool,
        magnitudes: bool,
    ) -> None:
        super().__init__()
        if window_length % stride or (window_length - stride) % 2:
            raise ValueError(
                f"window_length: must be a multiple of stride and an even number more, got {window_length}"
            )
        if magnitudes and (num_filters % 2 or num_filters > window_length):
            raise ValueError(
                f"num_filters: must be even and at most {window_length} with magnitudes, got {num_filters}"
            )
        self.num_stems, self.num_iterations = num_stems, num_iterations
        self.joint_decoder, self.magnitudes = joint_decoder, magnitudes
        self.stride, self.overlap = stride, (window_length - stride) // 2
        self.hop_length = stride * 2 ** (depth - 1)
        self.encoder = nn.Linear(window_length, num_filters, bias=False)
        num_seen = num_filters // 2 if magnitudes else num_filters
        self.norm = GlobalNorm(num_seen)
        self.bottleneck = nn.Linear(num_seen, channels)
        self.block = UConvBlock(channels, width, depth, num_heads)
        self.again = nn.Conv1d(channels, channels, 1, groups=channels)
        self.again_activation, self.mask_activation = nn.PReLU(), nn.PReLU()
        self.masks = nn.Linear(channels, num_stems * num_filters)
        together = num_stems if joint_decoder else 1
        self.decoder = nn.Linear(together * num_filters, together * window_length, bias=False)
        with torch.no_grad():
            self.masks.bias.fill_(1 / num_stems)  # begins with equal shares; at 0 a ReLU would be shut half the time
            if magnitudes:
                filters = _fourier_filters(num_filters, window_length, stride)
                self.encoder.weight.copy_(filters)
                self.decoder.weight.copy_(torch.block_diag(*[filters.T] * together))

    def forward(self, wav: Tensor) -> Tensor:
        length = wav.shape[-1]
        frames = self.encoder(self._framed(F.pad(wav, (0, -length % self.hop_length))))
        seen = _log_power(frames.float()) if self.magnitudes else frames
        features = self._iterate(self.bottleneck(self.norm(seen)))
        masks = F.relu(self.masks(self.mask_activation(features)))
        masked = masks.unflatten(-1, (self.num_stems, -1)) * frames[:, :, None]
        decoded = self.decoder(masked.flatten(2) if self.joint_decoder else masked).float()
        stems = self._added(decoded.flatten(2).unflatten(-1, (self.num_stems, -1)).transpose(1, 2))[..., :length]
        return stems + (wav - stems.sum(1))[:, None] / self.num_stems

    def _framed(self, wav: Tensor) -> Tensor:
        """`[B, F stride]`, with zeros before and after, cut into overlapping frames: `[B, F, window_length]`."""
        return cut_frames(F.pad(wav, (self.overlap, self.overlap)), self.encoder.in_features, self.stride)

    def _added(self, frames: Tensor) -> Tensor:
        """Overlapping frames added up where they are: `[B, N, F, window_length]` to `[B, N, F stride]`."""
        wav = overlap_add(frames, self.stride)
        return wav[..., self.overlap : wav.shape[-1] - self.overlap]

    def _iterate(self, features: Tensor) -> Tensor:
        x = self.block(features)
        scale, offset = self.again.weight[:, 0, 0], self.again.bias
        for _ in range(self.num_iterations - 1):
            x = self.block(self.again_activation((features + x) * scale + offset))
        return x


class UConvBlock(nn.Module):
    """Bottom-up through the levels of a pyramid, attention over the sum of them all, and top-down again.

    Shape: `[B, F, C]` to `[B, F, C]`, F a multiple of 2^(depth - 1)
    """

    def __init__(self, channels: int, width: int, depth: int, num_heads: int) -> None:
        super().__init__()
        self.expand = nn.Sequential(nn.Linear(channels, width), GlobalNorm(width), nn.PReLU())
        self.down = nn.ModuleList(Depthwise(width, stride=1 if level == 0 else 2) for level in range(depth))
        self.attention = GlobalAttention(width, num_heads)
        self.fuse = nn.ModuleList(LocalAttention(width) for _ in range(depth - 1))
        self.project = nn.Linear(width, channels)

    def forward(self, x: Tensor) -> Tensor:
        levels = self.levels(x)
        factors = [2**level for level in reversed(range(len(levels)))]  # frames for one of the coarsest level
        pooled = [_pooled(level, factor) for level, factor in zip(levels, factors, strict=True)]
        gate = self.attention(torch.stack(pooled).sum(0)).sigmoid()
        gated = [level * _repeated(gate, factor) for level, factor in zip(levels, factors, strict=True)]
        top = gated.pop()
        for fine, fuse in zip(reversed(gated), self.fuse, strict=True):
            top = fuse(fine, top)
        return x + self.project(top)

    def levels(self, x: Tensor) -> list[Tensor]:
        """The pyramid, from fine to coarse: `[B, F / 2^level, width]` each."""
        x = self.expand(x)
        levels = []
        for down in self.down:
            x = down(x)
            levels.append(x)
        return levels


class GlobalAttention(nn.Module):
    """Every frame asks all others; then a perceptron that looks at its neighbours.

    Shape: `[B, G, C]` to `[B, G, C]`
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm_in, self.norm_out = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.widen = nn.Sequential(nn.Linear(width, 2 * width, bias=False), GlobalNorm(2 * width))
        self.near = Depthwise(2 * width, norm=False)
        self.narrow = nn.Sequential(nn.Linear(2 * width, width, bias=False), GlobalNorm(width))

    def forward(self, x: Tensor) -> Tensor:
        frames = self.norm_in(x)
        frames = frames + _positions(frames)
        # In 32 bits: over the few frames of the coarsest level bfloat16 is no faster.
        heads = self.query_key_value(frames).float().unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(heads[0], heads[1], heads[2])
        x = x + self.norm_out(frames + self.project(attended.transpose(1, 2).flatten(2)))
        return x + self.narrow(F.relu(self.near(self.widen(x))))


class LocalAttention(nn.Module):
    """A level, weighted and shifted by what the next coarser one makes of it.

    Shape: `[B, F, C]` and `[B, F / 2, C]` to `[B, F, C]`
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed, self.weight, self.shift = (Depthwise(width, bias=False) for _ in range(3))

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        weight, shift = self.weight(coarse).sigmoid(), self.shift(coarse)
        return self.embed(fine) * _repeated(weight, 2) + _repeated(shift, 2)


class Depthwise(nn.Module):
    """A convolution over time, of each channel by itself, and a norm.

    Shape: `[B, F, C]` to `[B, F / stride, C]`
    """

    def __init__(self, channels: int, *, stride: int = 1, bias: bool = True, norm: bool = True) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(channels, channels, KERNEL_SIZE, stride, groups=channels, bias=bias)
        self.norm = GlobalNorm(channels) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        kernel, bias = self.convolution.weight, self.convolution.bias
        # As a one-row picture whose channels come last in memory it needs no transposed copy; in 32 bits, because on a
        # CPU the way back takes longer in bfloat16.
        with torch.autocast(x.device.type, enabled=False):
            picture = F.conv2d(
                x.to(kernel.dtype).transpose(1, 2).unsqueeze(2),
                kernel.unsqueeze(2),
                bias,
                stride=(1, self.convolution.stride[0]),
                padding=(0, KERNEL_SIZE // 2),
                groups=len(kernel),
            )
        return self.norm(picture.squeeze(2).transpose(1, 2))


class GlobalNorm(nn.Module):
    """Layer norm over all frames and channels of an example, with a scale and an offset for each channel.

    Shape: `[B, F, C]` to `[B, F, C]`
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        # ONNX Runtime's own norm is off by a hundred times as much as these sums; torch's, of channels that come last,
        # ends the program on the way back to an input that needs no gradient (2.13, CPU).
        if is_for_graph() or (torch.is_grad_enabled() and not x.requires_grad):
            centred = x - x.mean((1, 2), keepdim=True)
            deviation = centred.square().mean((1, 2), keepdim=True).clamp_min(EPS).sqrt()
            return centred / deviation * self.weight + self.bias
        picture = x.float().transpose(1, 2).unsqueeze(2)
        return F.group_norm(picture, 1, self.weight, self.bias, eps=EPS).squeeze(2).transpose(1, 2)


def _log_power(frames: Tensor) -> Tensor:
    """Log of the power of every two filters: `[..., C]` to `[..., C / 2]`."""
    even, odd = frames.unflatten(-1, (-1, 2)).unbind(-1)
    # log(power + QUIET), written so that the exporter of graphs, to which 1e-8 is nothing, does not leave the sum out.
    return torch.log1p((even.square() + odd.square()) / QUIET) + math.log(QUIET)


def _fourier_filters(num_filters: int, window_length: int, stride: int) -> Tensor:
    """Cosines and sines in turn, under the root of a Hann window: `[num_filters, window_length]`.

    As many filters as samples are their own inverse, but for a signal's mean.
    """
    cycles = torch.arange(num_filters)[:, None] // 2 + 1
    angles = 2 * torch.pi / window_length * cycles * (torch.arange(window_length) + 0.5 - window_length / 2)
    filters = torch.where(torch.arange(num_filters)[:, None] % 2 == 0, angles.cos(), angles.sin())
    filters = torch.where(2 * cycles == window_length, filters * 0.5**0.5, filters)  # would count twice
    return filters * torch.hann_window(window_length).sqrt() * (2 * stride**0.5 / window_length)


def _pooled(x: Tensor, factor: int) -> Tensor:
    """Means of so many frames: `[B, F, C]` to `[B, F / factor, C]`."""
    return x.unflatten(1, (-1, factor)).mean(2)


def _repeated(x: Tensor, factor: int) -> Tensor:
    """Every frame so many times: `[B, F, C]` to `[B, F * factor, C]`."""
    return x[:, :, None].expand(-1, -1, factor, -1).flatten(1, 2)


def _positions(frames: Tensor) -> Tensor:
    """Sinusoids from fast to slow, all sines before all cosines: `[B, G, C]` to `[G, C]`."""
    length, channels = frames.shape[1:]
    rates = POSITION_PERIOD ** (-torch.arange(0, channels, 2, device=frames.device) / channels)
    angles = torch.arange(length, device=frames.device)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class Separate(nn.Module):
    """What a runtime runs: a block `[T]` to its stems `[N, T]`, T a multiple of the network's `hop_length`."""

    def __init__(self, network: TDANet) -> None:
        super().__init__()
        self.network = network

    def forward(self, wav: Tensor) -> Tensor:
        return self.network(wav[None])[0]
