"""A head on the latent that tells which domains are present.

Legend: B batch, D latent width, F frames, N domains.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

WIDTH = 128
KERNEL_SIZE = 31
"""Frames that a decision looks at, 0.6 s at 50 frames/s: a voice is told from a noise by how it goes on."""


class ActivityHead(nn.Module):
    """Two pointwise layers around a look over neighbouring frames.

    Shape: latent `[B, D, F]` to logits `[B, N, F]`
    """

    def __init__(self, *, latent_dim: int, num_domains: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(latent_dim)
        self.embed = nn.Linear(latent_dim, WIDTH)
        self.depthwise = nn.Conv1d(WIDTH, WIDTH, KERNEL_SIZE, padding=KERNEL_SIZE // 2, groups=WIDTH)
        self.project = nn.Linear(WIDTH, num_domains)

    def forward(self, latent: Tensor) -> Tensor:
        x = F.relu(self.embed(self.norm(latent.transpose(1, 2))))
        x = F.relu(x + self.depthwise(x.transpose(1, 2)).transpose(1, 2))
        return self.project(x).transpose(1, 2)
