"""A head on the latent that tells which domains are active.

Legend: B batch, D latent width, F frames, N domains.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

WIDTH = 128

KERNEL_SIZE, DILATION = 31, 3
"""The first look is over 31 frames, the second over every third of 91: 2.4 s together at 50 frames/s. A voice is told
from a noise by how it goes on, and a tune from a chime."""


class ActivityHead(nn.Module):
    """Two looks over neighbouring frames, with pointwise layers around them.

    Shape: latent `[B, D, F]` to logits `[B, N, F]`
    """

    def __init__(self, *, latent_dim: int, num_domains: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(latent_dim)
        self.embed = nn.Linear(latent_dim, WIDTH)
        self.near = _depthwise(dilation=1)
        self.mix = nn.Linear(WIDTH, WIDTH)
        self.far = _depthwise(dilation=DILATION)
        self.project = nn.Linear(WIDTH, num_domains)

    def forward(self, latent: Tensor) -> Tensor:
        x = F.relu(self.embed(self.norm(latent.transpose(1, 2))))
        x = F.relu(x + self.near(x.transpose(1, 2)).transpose(1, 2))
        x = x + F.relu(self.mix(x))
        x = F.relu(x + self.far(x.transpose(1, 2)).transpose(1, 2))
        return self.project(x).transpose(1, 2)

    @property
    def context_frames(self) -> int:
        """Latent frames on each side that a frame's logits depend on."""
        return KERNEL_SIZE // 2 * (1 + DILATION)


def _depthwise(*, dilation: int) -> nn.Conv1d:
    return nn.Conv1d(WIDTH, WIDTH, KERNEL_SIZE, padding=dilation * (KERNEL_SIZE // 2), dilation=dilation, groups=WIDTH)
