"""The whole network: shapes, the mix as a sum of latents, the activity head."""

from __future__ import annotations

import pytest
import torch

from sdcodec_cli.families import build

from tiny_models import tiny_recipe


@pytest.mark.parametrize("kind", ["spectral", "conv"])
@pytest.mark.parametrize("length", [1, 319, 320, 4001])
@torch.no_grad()
def test_every_output_is_as_long_as_the_input(kind, length):
    torch.manual_seed(0)
    network = build(tiny_recipe(kind))
    outputs = network(torch.randn(2, 1, length))
    assert list(outputs) == ["mix", "speech", "music", "sfx"]
    assert {wav.shape for wav in outputs.values()} == {(2, 1, length)}


@torch.no_grad()
def test_the_mix_is_decoded_from_the_sum_of_the_latents():
    torch.manual_seed(0)
    network, wav = build(tiny_recipe()), torch.randn(1, 1, 6400)
    latents = network.quantize(network.encode(wav)).latents
    torch.testing.assert_close(network(wav)["mix"], network.decode(latents.sum(0)), atol=1e-6, rtol=0)
    torch.testing.assert_close(network(wav)["sfx"], network.decode(latents[2]), atol=1e-6, rtol=0)


@torch.no_grad()
def test_the_activity_head_gives_a_logit_per_domain_and_frame_and_may_be_left_out():
    torch.manual_seed(0)
    network = build(tiny_recipe())
    latent = network.encode(torch.randn(2, 1, 320 * 200))
    logits = network.activity_logits(latent)
    assert logits is not None
    assert logits.shape == (2, 3, 200)
    # It looks 15 frames to either side, and from there 45 more, and no further.
    changed = latent.clone()
    changed[..., 160:] = 0
    other = network.activity_logits(changed)
    assert other is not None
    torch.testing.assert_close(other[..., :100], logits[..., :100])
    assert not torch.equal(other[..., 100], logits[..., 100])
    assert build(tiny_recipe(activity=False)).activity_logits(latent) is None
