"""Residual vector quantization with any number of shared levels."""

from __future__ import annotations

import pytest
import torch

from sdcodec_cli.nn.quantize import MultiSourceRVQ

LEVELS = 4


def rvq(num_shared: int, num_domains: int = 3) -> MultiSourceRVQ:
    torch.manual_seed(0)
    return MultiSourceRVQ(
        num_domains=num_domains,
        num_codebooks=LEVELS,
        num_shared=num_shared,
        codebook_size=32,
        codebook_dim=4,
        latent_dim=16,
    )


@pytest.mark.parametrize("num_shared", range(LEVELS + 1))
@torch.no_grad()
def test_codes_lead_back_to_the_quantized_latent(num_shared):
    quantizer, latent = rvq(num_shared), torch.randn(2, 16, 10)
    quantized = quantizer(latent)
    assert quantized.codes.shape == (3, 2, LEVELS, 10)
    assert quantized.codes.dtype == torch.int64
    for example in range(2):
        found = quantizer.dequantize(quantized.codes[:, example])
        torch.testing.assert_close(found, quantized.latents[:, example], atol=1e-5, rtol=0)


@pytest.mark.parametrize("num_shared", range(LEVELS + 1))
@torch.no_grad()
def test_codes_of_nothing_add_exactly_nothing_and_leave_what_is_beside_them(num_shared):
    """Biases of the way back included, which are no zeros here."""
    quantizer, latent = rvq(num_shared), torch.randn(1, 16, 10)
    for part in (quantizer.own, quantizer.shared):
        part.out_bias.normal_()
    codes = quantizer(latent).codes[:, 0]
    assert float(quantizer.dequantize(torch.full_like(codes, -1)).abs().max()) == 0
    gaps = codes.clone()
    gaps[1] = -1
    gaps[0, :, 3] = -1
    found, whole = quantizer.dequantize(gaps), quantizer.dequantize(codes)
    assert float(found[1].abs().max()) == 0
    assert float(found[0, :, 3].abs().max()) == 0
    torch.testing.assert_close(found[2], whole[2], atol=1e-6, rtol=0)
    kept = [frame for frame in range(10) if frame != 3]
    torch.testing.assert_close(found[0, :, kept], whole[0, :, kept], atol=1e-6, rtol=0)


@torch.no_grad()
def test_each_level_adds_its_entry_as_the_way_back_has_it():
    """A single code at a time, by hand."""
    quantizer = rvq(1)
    for index in range(LEVELS):
        codes = torch.full((3, LEVELS, 1), -1)
        codes[2, index] = 7
        part, stream, level = (quantizer.own, 2, index) if index < 3 else (quantizer.shared, 0, 0)
        part.out_bias.normal_()
        expected = part.out_weight[stream, level] @ part.codebook[stream, level, 7] + part.out_bias[stream, level]
        torch.testing.assert_close(quantizer.dequantize(codes)[2, :, 0], expected)


@torch.no_grad()
def test_a_code_is_the_entry_of_largest_cosine_similarity():
    quantizer, latent = rvq(0), torch.randn(1, 16, 6)
    own = quantizer.own
    projected = latent[0].T @ own.in_weight[1, 0].T + own.in_bias[1, 0]
    similarity = torch.nn.functional.cosine_similarity(projected[:, None], own.codebook[1, 0][None], dim=-1)
    assert torch.equal(quantizer(latent).codes[1, 0, 0], similarity.argmax(-1))


@torch.no_grad()
def test_leading_levels_decode_alone_as_if_quantizer_dropout_had_kept_them():
    quantizer, latent = rvq(1), torch.randn(2, 16, 5)
    codes = quantizer(latent).codes
    for kept in range(LEVELS + 1):
        dropped = quantizer(latent, keep=torch.full((3, 2), kept)).latents
        leading = codes.clone()
        leading[:, :, kept:] = -1
        for example in range(2):
            found = quantizer.dequantize(leading[:, example])
            torch.testing.assert_close(found, dropped[:, example], atol=1e-5, rtol=0)
        alone = quantizer(latent, weights=(torch.arange(LEVELS) < kept).float())
        assert torch.equal(alone.codes, codes)
        torch.testing.assert_close(alone.latents, dropped, atol=1e-5, rtol=0)


@torch.no_grad()
def test_with_everything_shared_all_domains_are_one_quantizer():
    quantized = rvq(LEVELS)(torch.randn(1, 16, 8))
    assert torch.equal(quantized.codes[0], quantized.codes[1])
    assert torch.equal(quantized.latents[0], quantized.latents[2])


@torch.no_grad()
def test_shared_levels_hold_one_set_of_weights_and_own_levels_one_per_domain():
    quantizer = rvq(1)
    assert quantizer.own.codebook.shape[:2] == (3, LEVELS - 1)
    assert quantizer.shared.codebook.shape[:2] == (1, 1)


def test_gradients_reach_encoder_codebooks_and_projections():
    quantizer, latent = rvq(1), torch.randn(2, 16, 5, requires_grad=True)
    quantized = quantizer(latent)
    (quantized.latents.sum() + quantized.codebook_loss.sum() + quantized.commitment_loss.sum()).backward()
    assert latent.grad is not None
    for name, parameter in quantizer.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.abs().sum() > 0), name


def test_what_the_first_level_adds_teaches_the_encoder_by_what_was_looked_up_and_not_by_what_was_found():
    quantizer, latent = rvq(1), torch.randn(2, 16, 10, requires_grad=True)
    found, looked_up = quantizer(latent, first=True).first
    alone = quantizer(latent, keep=torch.ones(3, 2, dtype=torch.int64)).latents
    torch.testing.assert_close(found, alone)
    own = quantizer.own
    weights = (latent, own.in_weight, own.codebook, own.out_weight)

    def reached(told: torch.Tensor) -> list[bool]:
        found = torch.autograd.grad(told.square().sum(), weights, allow_unused=True, retain_graph=True)
        return [each is not None and bool(each.any()) for each in found]

    assert reached(found) == [False, False, False, True]
    assert reached(looked_up) == [True, True, False, True]


def test_the_gradient_of_the_latent_is_a_sum_over_levels_and_no_product():
    """Of what each level's projections pass on; a product of 36 levels would explode."""
    quantizer, latent = rvq(0), torch.randn(1, 16, 5, requires_grad=True)
    direction = torch.randn(16, 5)
    (quantizer(latent).latents[1, 0] * direction).sum().backward()
    own = quantizer.own
    expected = sum(own.in_weight[1, k].T @ own.out_weight[1, k].T @ direction for k in range(LEVELS))
    torch.testing.assert_close(latent.grad[0], expected.detach())


@torch.no_grad()
def test_losses_are_for_training():
    quantizer, latent = rvq(0), torch.randn(1, 16, 5)
    with torch.enable_grad():
        assert quantizer(latent).commitment_loss.min() > 0
        assert quantizer.eval()(latent).commitment_loss.abs().max() == 0


def test_dropped_levels_and_their_losses_do_not_count():
    quantizer, latent = rvq(0), torch.randn(2, 16, 5)
    none = quantizer(latent, keep=torch.zeros(3, 2, dtype=torch.int64))
    assert float(none.latents.detach().abs().max()) == 0
    assert float(none.codebook_loss.detach().abs().max()) == 0


@pytest.mark.parametrize("num_shared", [-1, LEVELS + 1])
def test_an_impossible_number_of_shared_levels_is_refused(num_shared):
    with pytest.raises(ValueError, match="num_shared must be between 0 and num_codebooks = 4"):
        rvq(num_shared)
