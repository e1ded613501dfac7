"""Projections that divide a latent among domains: what holds exactly, what begins so, and what training keeps."""

from __future__ import annotations

import pytest
import torch

from sdcodec_cli.nn.layers import fold_weights
from sdcodec_cli.nn.projection import HardProjection, SoftProjection, fitted_axes, keep_orthogonal, overlap

LATENT = torch.randn(2, 16, 5, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def assert_orthogonal_projections(projection: HardProjection, num_domains: int) -> None:
    parts = projection(LATENT)
    torch.testing.assert_close(parts.sum(0), LATENT, atol=1e-5, rtol=0)
    for number, part in enumerate(parts):
        again = projection(part)
        torch.testing.assert_close(again[number], part, atol=1e-5, rtol=0)  # P P = P
        assert float(again[[n for n in range(num_domains) if n != number]].abs().max()) < 1e-5  # P Q = 0


@pytest.mark.parametrize("num_domains", [2, 3])
def test_hard_projections_add_up_to_the_identity_and_are_orthogonal_whatever_training_does(num_domains):
    projection = HardProjection(num_domains=num_domains, latent_dim=16)
    assert sum(projection.sizes) == 16
    assert_orthogonal_projections(projection, num_domains)
    before = projection(LATENT)[0].detach()
    keep_orthogonal(projection)
    torch.testing.assert_close(projection(LATENT)[0], before, atol=1e-5, rtol=0)
    optimizer = torch.optim.AdamW(projection.parameters(), lr=0.05)
    for _ in range(5):
        projection(LATENT)[0].square().sum().neg().backward()
        optimizer.step()
        optimizer.zero_grad()
    trained = projection(LATENT)[0].detach()
    assert float(trained.square().sum()) > 1.2 * float(before.square().sum())
    fold_weights(projection)
    assert [name for name, _ in projection.named_parameters()] == ["weight"]
    torch.testing.assert_close(projection(LATENT)[0], trained, atol=1e-5, rtol=0)
    assert_orthogonal_projections(projection, num_domains)


def test_axes_are_fitted_to_the_directions_that_each_domain_looks_at():
    generator = torch.Generator().manual_seed(0)
    axes = torch.linalg.qr(torch.randn(16, 16, generator=generator)).Q
    powers = torch.rand(16, generator=generator) + 0.5
    # Three domains look at directions at right angles to each other: there is room for all of them.
    wanted = [slice(0, 3), slice(3, 8), slice(8, 12)]
    products = torch.stack([axes[:, own] * powers[own] @ axes[:, own].T for own in wanted])
    projection = HardProjection(num_domains=3, latent_dim=16)
    found = fitted_axes(projection.weight.detach(), projection.sizes, products)
    projection.weight.data.copy_(found)
    assert_orthogonal_projections(projection, 3)
    for q, own in zip(found.split(projection.sizes, dim=1), wanted, strict=True):
        torch.testing.assert_close(q @ (q.T @ axes[:, own]), axes[:, own], atol=1e-3, rtol=0)


def test_soft_projections_begin_as_nearly_equal_shares_that_add_up():
    parts = SoftProjection(num_domains=3, latent_dim=16)(LATENT)
    torch.testing.assert_close(parts.sum(0), LATENT, atol=1e-5, rtol=0)
    assert 2 < float(overlap(parts).detach().min()) < 3  # of three pairs


def test_the_overlap_of_domains_is_the_squared_cosine_between_them():
    one, other = torch.zeros(2, 1, 4, 3), torch.zeros(2, 1, 4, 3)
    one[0, :, 0], one[1, :, 1] = 5, 0.1  # at right angles
    other[0, :, 0], other[1, :, 0], other[1, :, 1] = 1, 2, 2  # 45 degrees
    assert overlap(one).tolist() == [0]
    assert overlap(other).tolist() == pytest.approx([0.5])
