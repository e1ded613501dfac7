"""Residual vector quantization, for several streams at once.

Legend: B batch, F frames, D latent width, N streams (one per domain), K codebooks per stream, d codebook width,
V entries of a codebook.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .tracing import is_for_graph


@dataclass(frozen=True)
class Quantized:
    """What `MultiSourceRVQ` makes of a latent."""

    latents: Tensor
    """Quantized latent of each domain, `[N, B, D, F]`."""
    first: Tensor | None
    """What the first codebook of each domain adds to that, and would without the look-up, `[2, N, B, D, F]`; if asked.

    Gradients reach the encoder by the second alone. Straight through the look-up they would be taken at the entry, and
    push latents away from it without end: what the look-up of a taught codebook lost grew to 60 % in 400 steps.
    """
    codes: Tensor
    """Codes of each domain, int64 `[N, B, K, F]`."""
    commitment_loss: Tensor
    """Mean squared distance that pulls the encoder towards the codebooks, per domain and example, `[N, B]`; zero
    outside of training."""
    codebook_loss: Tensor
    """The same distance, pulling the codebooks towards the encoder, `[N, B]`."""


class ParallelRVQ(nn.Module):
    """N residual vector quantizers of equal shape side by side, so that each codebook is one batched product.

    For each codebook the residual is projected to a few dimensions, the entry of largest cosine similarity is taken and
    projected back (DAC, arXiv:2306.06546).

    Args:
        num_streams: N
        num_codebooks: K
        codebook_size: V
        codebook_dim: d
        latent_dim: D
    """

    def __init__(
        self, *, num_streams: int, num_codebooks: int, codebook_size: int, codebook_dim: int, latent_dim: int
    ) -> None:
        super().__init__()
        shape = (num_streams, num_codebooks)
        self.in_weight = nn.Parameter(torch.empty(*shape, codebook_dim, latent_dim))
        self.in_bias = nn.Parameter(torch.zeros(*shape, codebook_dim))
        self.codebook = nn.Parameter(torch.randn(*shape, codebook_size, codebook_dim))
        self.out_weight = nn.Parameter(torch.empty(*shape, latent_dim, codebook_dim))
        self.out_bias = nn.Parameter(torch.zeros(*shape, latent_dim))
        with torch.no_grad():
            for weight in (self.in_weight, self.out_weight):
                bound = 1 / math.sqrt(weight.shape[-1])
                weight.uniform_(-bound, bound)

    def project_in(self, index: int, residual: Tensor) -> Tensor:
        """`[N, M, D]` to `[N, M, d]`."""
        return torch.baddbmm(self.in_bias[:, index, None], residual, self.in_weight[:, index].transpose(1, 2))

    def project_out(self, index: int, entries: Tensor) -> Tensor:
        """`[N, M, d]` to `[N, M, D]`."""
        return torch.baddbmm(self.out_bias[:, index, None], entries, self.out_weight[:, index].transpose(1, 2))

    @torch.no_grad()
    def nearest(self, index: int, projected: Tensor) -> Tensor:
        """Index of the entry of largest cosine similarity: `[N, M, d]` to int64 `[N, M]`."""
        # Both sides are normalized although the left one's length does not change the winner: published weights are
        # then reproduced to the last bit of a tie.
        entries = F.normalize(self.codebook[:, index], dim=-1)
        similarity = torch.bmm(F.normalize(projected, dim=-1), entries.transpose(1, 2))
        # The same index as argmax, of the first if there are several; on a CPU torch finds it twelve times faster.
        return similarity.argmax(-1) if is_for_graph() else similarity.max(-1).indices

    def look_up(self, index: int, indices: Tensor, stream: Tensor) -> Tensor:
        """Entries of a codebook: int64 `[N, M]` and the stream of each row `[N, 1]`, to `[N, M, d]`."""
        entries = self.codebook[:, index]
        if is_for_graph():
            return F.embedding(indices + stream * entries.shape[1], entries.flatten(0, 1))
        return entries[stream, indices]

    def dequantize(self, codes: Tensor) -> Tensor:
        """Latents `[N, M, D]` from codes of all codebooks, int64 `[N, K, M]`, -1 for those left out."""
        num_streams, num_codebooks, _ = codes.shape
        first = torch.arange(num_streams * num_codebooks, device=codes.device).view(num_streams, num_codebooks, 1)
        present = (codes >= 0).to(self.codebook.dtype).transpose(1, 2)
        rows = codes.clamp_min(0) + first * self.codebook.shape[2]
        entries = F.embedding(rows, self.codebook.flatten(0, 2)).transpose(1, 2) * present[..., None]
        # All codebooks in one product: entries side by side, matrices one below the other.
        matrices = self.out_weight.transpose(2, 3).flatten(1, 2)
        return torch.baddbmm(present @ self.out_bias, entries.flatten(2), matrices)


Observer = Callable[[ParallelRVQ, int, Tensor, Tensor], None]
"""Gets a quantizer, the number of a codebook, what was looked up `[N, M, d]` and what was found `[N, M]`."""


class MultiSourceRVQ(nn.Module):
    """One residual vector quantizer per domain; the last codebooks may be shared.

    From "Learning Source Disentanglement in Neural Audio Codec", arXiv:2409.11228. With `num_shared` equal to
    `num_codebooks` there is one quantizer for everything, and this is DAC.

    Args:
        num_domains: N
        num_codebooks: K, per domain, shared ones included
        num_shared: how many of the last ones all domains have in common, 0 to K
        codebook_size: V
        codebook_dim: d
        latent_dim: D
    """

    def __init__(
        self,
        *,
        num_domains: int,
        num_codebooks: int,
        num_shared: int,
        codebook_size: int,
        codebook_dim: int,
        latent_dim: int,
    ) -> None:
        super().__init__()
        if not 0 <= num_shared <= num_codebooks:
            raise ValueError(f"num_shared must be between 0 and num_codebooks = {num_codebooks}, got {num_shared}")
        self.num_domains, self.num_codebooks, self.num_shared = num_domains, num_codebooks, num_shared
        self.codebook_size = codebook_size

        def rvq(num_streams: int, num_codebooks: int) -> ParallelRVQ:
            return ParallelRVQ(
                num_streams=num_streams,
                num_codebooks=num_codebooks,
                codebook_size=codebook_size,
                codebook_dim=codebook_dim,
                latent_dim=latent_dim,
            )

        self.own = rvq(num_domains, num_codebooks - num_shared)
        self.shared = rvq(1, num_shared)

    def _codebook(self, index: int) -> tuple[ParallelRVQ, int]:
        own = self.num_codebooks - self.num_shared
        return (self.own, index) if index < own else (self.shared, index - own)

    def forward(
        self,
        latent: Tensor,
        *,
        keep: Tensor | None = None,
        weights: Tensor | None = None,
        observe: Observer | None = None,
        first: bool = False,
    ) -> Quantized:
        """Quantize a latent for every domain.

        Args:
            latent: `[B, D, F]`, the same for all domains, or one for each, `[N, B, D, F]`
            weights: what each codebook adds to the latents is multiplied by this, `[K]`, or None for one
            keep: int64 `[N, B]`, how many codebooks each domain of each example uses (quantizer dropout); None is all
            observe: called for every codebook, for statistics on the codebooks
            first: whether `Quantized.first` is wanted
        """
        batch, width, frames = latent.shape[-3:]
        domains, rows = self.num_domains, batch * frames
        # Quantizing in 32 bits whatever surrounds it: half precision would decide ties at random.
        with torch.autocast(latent.device.type, enabled=False):
            flat = latent.float().transpose(-2, -1).flatten(-3, -2)
            residual = flat.expand(domains, -1, -1)
            total = torch.zeros_like(residual)
            added: Tensor | None = None
            codes, commitment, codebook = [], [], []
            for index in range(self.num_codebooks):
                rvq, number = self._codebook(index)
                # A shared codebook treats the rows of all domains as one long stream.
                merged = residual.reshape(rvq.in_weight.shape[0], -1, width)
                projected = rvq.project_in(number, merged)
                indices = rvq.nearest(number, projected)
                entries = rvq.look_up(number, indices, torch.arange(len(merged), device=latent.device)[:, None])
                if observe is not None:
                    observe(rvq, number, projected.detach(), indices)
                codes.append(indices.view(domains, batch, frames))
                if torch.is_grad_enabled() and self.training:
                    used = torch.ones(()) if keep is None else (keep > index).float()[..., None]
                    error = (projected - entries.detach()).square().view(domains, batch, -1)
                    commitment.append((error * used).mean(-1))
                    error = (projected.detach() - entries).square().view(domains, batch, -1)
                    codebook.append((error * used).mean(-1))
                if first and index == 0:
                    both = (rvq.project_out(number, each) for each in (entries.detach(), projected))
                    added = torch.stack([each.view(domains, batch, frames, width) for each in both]).transpose(3, 4)
                if torch.is_grad_enabled():
                    # Straight-through: the gradient passes the look-up as if it were not there.
                    entries = projected + (entries - projected).detach()
                quantized = rvq.project_out(number, entries).view(domains, rows, width)
                if keep is not None:
                    quantized = quantized * (keep > index).repeat_interleave(frames, dim=1)[..., None]
                total = total + (quantized if weights is None else quantized * weights[index])
                # No gradient from codebook to codebook: over many (36 make 18 kbit/s) the product of all explodes.
                residual = residual - quantized.detach()
        zero = latent.new_zeros(domains, batch, dtype=torch.float32)
        return Quantized(
            latents=total.view(domains, batch, frames, width).transpose(2, 3),
            first=added,
            codes=torch.stack(codes, dim=2),
            commitment_loss=torch.stack(commitment).sum(0) if commitment else zero,
            codebook_loss=torch.stack(codebook).sum(0) if codebook else zero,
        )

    def dequantize(self, codes: Tensor) -> Tensor:
        """Latents from codes of all domains: int64 `[N, K, F]`, -1 for codebooks left out, to `[N, D, F]`."""
        own = self.num_codebooks - self.num_shared
        # Quantizers without codebooks are left out: ONNX Runtime takes no products of nothing.
        parts = [self.own.dequantize(codes[:, :own])] if own else []
        if self.num_shared:
            # A shared codebook treats the frames of all domains as one long stream.
            long = codes[:, own:].transpose(0, 1).flatten(1)[None]
            parts.append(self.shared.dequantize(long).unflatten(1, (len(codes), -1))[0])
        return sum(parts[1:], parts[0]).transpose(1, 2)
