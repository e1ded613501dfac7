"""The codec network: one encoder, one quantizer per domain, one decoder.

Legend: B batch, T samples, F frames, D latent width, N domains, K codebooks.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .activity import ActivityHead
from .autoencoder import ConvDecoder, ConvEncoder
from .layers import pad_to_multiple
from .projection import HardProjection, SoftProjection
from .quantize import MultiSourceRVQ, Observer, Quantized
from .spectral import SpectralDecoder, SpectralEncoder


class SDCodec(nn.Module):
    """Encoder, quantizers and decoder of "Learning Source Disentanglement in Neural Audio Codec", arXiv:2409.11228.

    Args:
        domains: names, in the order of the quantizers
        hop_length: samples per frame
        encoder, decoder: a pair that agrees on the hop length and the latent width
        quantizer: one residual quantizer per domain
        latent_dim: D
        activity: whether a head on the latent tells which domains are active (not in the paper)
        projection: gives every quantizer a part of the latent of its own; without it all are fed the same
        semantic_width: numbers that a head tells of each frame from the first codebook of a domain; 0 for no such head
    """

    def __init__(
        self,
        *,
        domains: Sequence[str],
        hop_length: int,
        encoder: ConvEncoder | SpectralEncoder,
        quantizer: MultiSourceRVQ,
        decoder: ConvDecoder | SpectralDecoder,
        latent_dim: int,
        activity: bool,
        projection: SoftProjection | HardProjection | None = None,
        semantic_width: int = 0,
    ) -> None:
        super().__init__()
        self.domains = tuple(domains)
        self.hop_length = hop_length
        self.encoder = encoder
        self.quantizer = quantizer
        self.decoder = decoder
        self.activity = ActivityHead(latent_dim=latent_dim, num_domains=len(self.domains)) if activity else None
        self.projection = projection
        self.semantic = _semantic_head(latent_dim, semantic_width) if semantic_width else None

    def encode(self, wav: Tensor) -> Tensor:
        """Waveform `[B, 1, T]` to latent `[B, D, ceil(T / hop_length)]`; the end is padded with zeros."""
        return self.encoder(pad_to_multiple(wav, self.hop_length))

    def activity_logits(self, latent: Tensor) -> Tensor | None:
        """Whether each domain is active, as logits `[B, N, F]`; None for a model without the head."""
        return None if self.activity is None else self.activity(latent)

    def quantize(
        self,
        latent: Tensor,
        *,
        keep: Tensor | None = None,
        weights: Tensor | None = None,
        observe: Observer | None = None,
    ) -> Quantized:
        """See `MultiSourceRVQ.forward`."""
        return self.quantizer(self.project(latent), keep=keep, weights=weights, observe=observe)

    def project(self, latent: Tensor) -> Tensor:
        """What quantizers are fed: `[N, B, D, F]`, or the latent `[B, D, F]` itself where all are fed the same."""
        return latent if self.projection is None else self.projection(latent)

    def decode(self, latent: Tensor) -> Tensor:
        """Latent `[B, D, F]`, of one domain or a sum over domains, to waveform `[B, 1, F * hop_length]`."""
        return self.decoder(latent)

    def forward(self, wav: Tensor) -> dict[str, Tensor]:
        """The mix and each stem, as the paper resynthesizes them: each `[B, 1, T]`, like the input."""
        latents = self.quantize(self.encode(wav)).latents
        stacked = torch.cat([latents.sum(0, keepdim=True), latents])
        wavs = self.decode(stacked.flatten(0, 1)).unflatten(0, stacked.shape[:2])[..., : wav.shape[-1]]
        return dict(zip(("mix", *self.domains), wavs, strict=True))


def _semantic_head(latent_dim: int, width: int) -> nn.Sequential:
    """Not linear: entries of a codebook have few numbers, of which sums do not tell many phonemes apart."""
    return nn.Sequential(
        nn.LayerNorm(latent_dim), nn.Linear(latent_dim, latent_dim), nn.GELU(), nn.Linear(latent_dim, width)
    )
