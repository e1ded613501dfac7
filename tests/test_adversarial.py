"""The adversarial losses against values by hand and DAC's reduction spelled out."""

from __future__ import annotations

import pytest
import torch

from sdcodec_cli.nn.discriminator import Discriminators
from sdcodec_cli.nn.objectives.adversarial import deceiving_loss, discriminator_loss, feature_distance


def maps(*, shift: float) -> list[list[torch.Tensor]]:
    """Two networks, two rows; one layer before the scores, and two."""
    first = [torch.tensor([[0.0, 2.0], [4.0, 4.0]]) + shift, torch.tensor([[1.0, 0.0], [0.5, 0.5]])]
    second = [torch.zeros(2, 3) - 2 * shift, torch.ones(2, 1, 5), torch.tensor([[[3.0]], [[0.0]]])]
    return [first, second]


def drawn() -> tuple[list[list[torch.Tensor]], list[list[torch.Tensor]]]:
    """Feature maps of real and decoded rows, as the networks make them."""
    torch.manual_seed(0)
    networks = Discriminators(periods=(3,), window_lengths=(64,), band_edges=(0.5,), width=2)
    return networks(torch.randn(3, 1, 500)), networks(torch.randn(3, 1, 500))


def test_by_hand():
    # Scores of row 0 are (1, 0) and 3, of row 1 (0.5, 0.5) and 0.
    scores = maps(shift=0.0)
    # (0² + 1²) / 2 + 2², and 0.5² + 1².
    assert deceiving_loss(scores).tolist() == [4.5, 1.25]
    # As real the same; as decoded (1² + 0²) / 2 + 3², and 0.5² + 0².
    assert discriminator_loss(scores, scores).tolist() == [4.5 + 9.5, 1.25 + 0.25]
    # The first layer of each network differs by 0.5 and 1 everywhere, the scores do not count.
    assert feature_distance(maps(shift=0.5), scores).tolist() == [1.5, 1.5]


def test_perfect_scores_cost_nothing():
    real, decoded = [[torch.ones(2, 4)]], [[torch.zeros(2, 4)]]
    assert discriminator_loss(real, decoded).tolist() == [0, 0]
    assert discriminator_loss(decoded, real).tolist() == [2, 2]
    assert deceiving_loss(real).tolist() == [0, 0]


def test_the_mean_over_rows_is_dacs_loss():
    """DAC: means of whole tensors, summed over networks, and over the layers of each."""
    real, decoded = drawn()
    of_scores = sum((1 - r[-1]).square().mean() + d[-1].square().mean() for r, d in zip(real, decoded, strict=True))
    torch.testing.assert_close(discriminator_loss(real, decoded).mean(), of_scores)
    torch.testing.assert_close(deceiving_loss(decoded).mean(), sum((1 - d[-1]).square().mean() for d in decoded))
    of_features = sum(
        (ours - theirs).abs().mean()
        for r, d in zip(real, decoded, strict=True)
        for theirs, ours in zip(r[:-1], d[:-1], strict=True)
    )
    torch.testing.assert_close(feature_distance(real, decoded).mean(), of_features)


def test_rows_are_apart():
    real, decoded = drawn()
    for loss in (discriminator_loss, feature_distance):
        alone = loss([[m[1:2] for m in r] for r in real], [[m[1:2] for m in d] for d in decoded])
        torch.testing.assert_close(loss(real, decoded)[1:2], alone)


def test_real_features_get_no_gradient():
    real, decoded = ([[torch.randn(2, 3, requires_grad=True) for _ in range(2)]] for _ in range(2))
    feature_distance(real, decoded).sum().backward()
    assert real[0][0].grad is None
    assert decoded[0][0].grad is not None
    torch.testing.assert_close(decoded[0][0].grad, (decoded[0][0] - real[0][0]).sign().detach() / 3)


@pytest.mark.parametrize("loss", [discriminator_loss, feature_distance])
def test_bfloat16_features_are_averaged_in_float32(loss):
    real, decoded = drawn()
    half = [[[m.bfloat16() for m in layers] for layers in networks] for networks in (real, decoded)]
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(*half)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(real, decoded), atol=0, rtol=0.01)


def test_networks_of_different_depth_are_an_error():
    with pytest.raises(ValueError, match="zip"):
        feature_distance(maps(shift=0.0), maps(shift=0.0)[:1])
