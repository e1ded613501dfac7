"""The frame-domain encoder and decoder: a short-time spectrum in, a short-time spectrum out.

All layers run at the frame rate of the latent, which on a CPU costs a tenth of strided convolutions. The blocks are
ConvNeXt's (arXiv:2201.03545) and the idea of decoding to a spectrum is Vocos' (arXiv:2306.00814); in place of Vocos'
magnitude and phase the decoder predicts a compressed complex spectrum, whose waveform can be compared sample by sample.

Legend: B batch, T samples, F frames, D latent width, W window length.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .fourier import cut_frames, irfft, overlap_add, rfft
from .layers import ConvNeXtBlock

KERNEL_SIZE = 7
EXPANSION = 4


def _blocks(width: int, dilations: Sequence[int]) -> nn.Sequential:
    return nn.Sequential(
        *(
            ConvNeXtBlock(
                width, kernel_size=KERNEL_SIZE, expansion=EXPANSION, scale=1 / len(dilations), dilation=dilation
            )
            for dilation in dilations
        )
    )


def _magnitude(real: Tensor, imag: Tensor) -> Tensor:
    """Of a spectrum; the bound keeps the gradient of the root finite at exact zeros.

    No offset: the exporter of graphs leaves out adding a constant below 1e-8.
    """
    return (real.square() + imag.square()).clamp_min(1e-20).sqrt()


def _reach(blocks: nn.Sequential) -> int:
    """Frames on each side that a frame of the last block's output depends on."""
    return sum(KERNEL_SIZE // 2 * cast(ConvNeXtBlock, block).depthwise.dilation[0] for block in blocks)


class SpectralEncoder(nn.Module):
    """Waveform to latent through a windowed Fourier transform, or through two.

    The waveform is read from the short windows. Long ones, of which only magnitudes are used, tell the harmonics of
    voices and instruments apart, as separation of speech, music and effects wants it ("The Cocktail Fork Problem",
    arXiv:2110.09958, uses several windows to that end).

    Args:
        window_length: samples under one (periodic Hann) window, an even number of samples more than the hop
        context_window_length: samples under one of the long windows, even; 0 for none
        hop_length: samples per frame
        width: channels of the blocks
        dilations: of the blocks' convolutions, one for each block
        latent_dim: channels of the latent

    Shape: `[B, 1, T]`, T a multiple of the hop length, to `[B, D, T / hop_length]`
    """

    def __init__(
        self,
        *,
        window_length: int,
        hop_length: int,
        width: int,
        dilations: Sequence[int],
        latent_dim: int,
        context_window_length: int = 0,
    ) -> None:
        super().__init__()
        self.window_length, self.hop_length = window_length, hop_length
        self.context_window_length = context_window_length
        self.register_buffer("window", torch.hann_window(window_length, dtype=torch.float32), persistent=False)
        self.window: Tensor
        self.embed = nn.Linear(window_length + 2, width)
        if context_window_length:
            self.register_buffer(
                "context_window", torch.hann_window(context_window_length, dtype=torch.float32), persistent=False
            )
            self.context_window: Tensor
            self.embed_context = nn.Linear(context_window_length // 2 + 1, width, bias=False)
        self.norm_in = nn.LayerNorm(width)
        self.blocks = _blocks(width, dilations)
        self.norm_out = nn.LayerNorm(width)
        self.project = nn.Linear(width, latent_dim)

    def forward(self, wav: Tensor) -> Tensor:
        # Square-root compression: music and noise fall 60 dB from low to high bins, and all of them should be heard.
        real, imag = self._spectrum(wav, self.window)
        scale = (_magnitude(real, imag) + 1e-4).rsqrt()
        # Real and imaginary part of each bin side by side.
        x = self.embed(torch.stack([real * scale, imag * scale], dim=-1).flatten(-2))
        if self.context_window_length:
            magnitude = _magnitude(*self._spectrum(wav, self.context_window))
            x = x + self.embed_context(magnitude * (magnitude + 1e-4).rsqrt())
        return self.project(self.norm_out(self.blocks(self.norm_in(x)))).transpose(1, 2)

    def _spectrum(self, wav: Tensor, window: Tensor) -> tuple[Tensor, Tensor]:
        """One spectrum per hop, in its middle: `[B, 1, T]` to two `[B, F, bins]`."""
        margin = (len(window) - self.hop_length) // 2
        frames = cut_frames(F.pad(wav[:, 0], (margin, margin)), len(window), self.hop_length)
        return rfft(frames.float() * window)

    @property
    def context_frames(self) -> int:
        """Frames of audio on each side that one latent frame depends on, its own excluded."""
        margin = (max(self.window_length, self.context_window_length) - self.hop_length) // 2
        return _reach(self.blocks) + -(-margin // self.hop_length)


class SpectralDecoder(nn.Module):
    """Latent to waveform through an inverse windowed Fourier transform with overlap-add.

    Args: as for `SpectralEncoder`

    Shape: `[B, D, F]` to `[B, 1, F * hop_length]`
    """

    def __init__(
        self, *, window_length: int, hop_length: int, width: int, dilations: Sequence[int], latent_dim: int
    ) -> None:
        super().__init__()
        self.window_length, self.hop_length = window_length, hop_length
        self.register_buffer("window", torch.hann_window(window_length, dtype=torch.float32), persistent=False)
        self.window: Tensor
        self.embed = nn.Linear(latent_dim, width)
        self.norm_in = nn.LayerNorm(width)
        self.blocks = _blocks(width, dilations)
        self.norm_out = nn.LayerNorm(width)
        self.project = nn.Linear(width, window_length + 2)

    def forward(self, latent: Tensor) -> Tensor:
        x = self.norm_out(self.blocks(self.norm_in(self.embed(latent.transpose(1, 2)))))
        real, imag = self.project(x).float().unflatten(-1, (-1, 2)).unbind(-1)
        # Undoes the encoder's compression, so that the network works on the same scale at both ends.
        scale = _magnitude(real, imag) + 1e-4
        frames = irfft(real * scale, imag * scale) * self.window
        # What the squared windows add up to is divided out.
        envelope = self.window.square().expand(1, frames.shape[-2], -1)
        return (self._hops(frames) / self._hops(envelope))[:, None]

    def _hops(self, frames: Tensor) -> Tensor:
        """Sum of overlapping frames, trimmed to the hops they stand for: `[B, F, W]` to `[B, F * hop]`."""
        margin = (self.window_length - self.hop_length) // 2
        return overlap_add(frames, self.hop_length)[:, margin : margin + frames.shape[-2] * self.hop_length]

    @property
    def context_frames(self) -> int:
        """Latent frames on each side that a frame of output depends on."""
        margin = (self.window_length - self.hop_length) // 2
        return _reach(self.blocks) + -(-margin // self.hop_length)
