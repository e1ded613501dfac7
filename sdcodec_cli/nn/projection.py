"""Projections that divide a latent among domains before each has its quantizer.

From "DeCodec: Rethinking Audio Codecs as Universal Disentangled Representation Learners", arXiv:2509.09201, for any
number of domains. Their maps P should add up to the identity and lead into subspaces that are orthogonal to each other.

Legend: B batch, N domains, D latent width, F frames.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize


class SoftProjection(nn.Module):
    """A free linear map per domain, as in the paper; a loss (`overlap`) pulls what they give apart.

    Args:
        num_domains: N
        latent_dim: D

    Shape: `[B, D, F]` to `[N, B, D, F]`
    """

    def __init__(self, *, num_domains: int, latent_dim: int) -> None:
        super().__init__()
        # The maps begin close to equal shares of the identity, and add up to it.
        noise = 0.1 * torch.randn(num_domains, latent_dim, latent_dim) / math.sqrt(latent_dim)
        self.weight = nn.Parameter(torch.eye(latent_dim) / num_domains + noise - noise.mean(0))

    def forward(self, latent: Tensor) -> Tensor:
        with torch.autocast(latent.device.type, enabled=False):
            return self.weight[:, None] @ latent.float()


class HardProjection(nn.Module):
    """Orthogonal subspaces by construction: domains share out the columns of one orthogonal matrix.

    With Q the columns of a domain, its map is `Q Qᵀ`: a projection, orthogonal to those of all other domains, and all
    of them add up to the identity. What the paper asks of its maps holds exactly, and there is no loss.

    Args:
        num_domains: N
        latent_dim: D, no less than N

    Shape: `[B, D, F]` to `[N, B, D, F]`
    """

    def __init__(self, *, num_domains: int, latent_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(latent_dim, latent_dim))
        nn.init.orthogonal_(self.weight)
        edges = [latent_dim * number // num_domains for number in range(num_domains + 1)]
        self.sizes = [stop - start for start, stop in itertools.pairwise(edges)]
        """Columns of each domain."""

    def forward(self, latent: Tensor) -> Tensor:
        # In 32 bits whatever surrounds it, as quantizing: half precision would turn the axes out of the right angle.
        with torch.autocast(latent.device.type, enabled=False):
            given = latent.float()
            return torch.stack([q @ (q.T @ given) for q in self.weight.split(self.sizes, dim=1)])


def fitted_axes(start: Tensor, sizes: list[int], products: Tensor) -> Tensor:
    """Columns of a `HardProjection` which let each domain keep as much as there is room for of what it looks at.

    With the columns Q of a domain and its product A, the sum over domains of tr(Qᵀ A Q) grows in every step, in which
    the nearest orthogonal matrix takes the place of all A Q side by side; eigenvectors of a single A are found so, too.

    Args:
        start: orthogonal, `[D, D]`
        sizes: columns of each domain
        products: symmetric and not negative, `[N, D, D]`: what a direction of the latent weighs for each domain

    Returns:
        `[D, D]`, orthogonal
    """
    axes = start.double()
    for _ in range(200):
        images = [product.double() @ q for product, q in zip(products, axes.split(sizes, dim=1), strict=True)]
        left, _, right = torch.linalg.svd(torch.cat(images, dim=1))
        axes = left @ right
    return axes.to(start.dtype)


def keep_orthogonal(module: nn.Module) -> None:
    """Let training turn the matrix of a `HardProjection` below `module`, but never bend it: Cayley's parametrization.

    `layers.fold_weights` makes a plain matrix of it again.
    """
    for part in module.modules():
        if isinstance(part, HardProjection) and not parametrize.is_parametrized(part):
            parametrizations.orthogonal(part, "weight", orthogonal_map="cayley")


def overlap(projected: Tensor) -> Tensor:
    """How far domains are from orthogonal in each frame: `[N, B, D, F]` to `[B]`, between 0 and the number of pairs.

    The squared cosine between two domains, averaged over frames and added up over pairs. The paper takes the inner
    product, which a smaller latent makes smaller, too.
    """
    unit = torch.nn.functional.normalize(projected, dim=2)
    pairs = itertools.combinations(unit, 2)
    return torch.stack([(one * other).sum(1).square().mean(-1) for one, other in pairs]).sum(0)
