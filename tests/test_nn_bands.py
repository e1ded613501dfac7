"""Branches that add up: what each is given, what comes out, codes there and back."""

from __future__ import annotations

import pytest
import torch

from sdcodec_cli.families import build
from sdcodec_cli.nn.bands import Bands
from sdcodec_cli.nn.resample import resample

from tiny_models import tiny_bands


def network(*args, **options) -> Bands:
    torch.manual_seed(0)
    built = build(tiny_bands(*args, **options)).eval()
    assert isinstance(built, Bands)
    return built


@pytest.mark.parametrize("kind", ["spectral", "conv"])
@pytest.mark.parametrize("domains", [("audio",), ("speech", "music")])
@torch.no_grad()
def test_every_branch_gives_the_mix_and_all_stems_at_its_rate(kind, domains):
    found = network(kind, domains=domains)(torch.randn(2, 1, 4001))
    assert [list(sums) for sums in found] == [["mix", *domains]] * 2
    assert [{wav.shape for wav in sums.values()} for sums in found] == [{(2, 1, 2001)}, {(2, 1, 4001)}]


@torch.no_grad()
def test_a_branch_codes_what_the_ones_before_it_lack_and_adds_what_it_makes_of_that():
    bands, wav = network(domains=("speech", "music")), torch.randn(1, 1, 6400)
    low, high = bands(wav)
    below = resample(low["mix"], 16_000, 32_000)
    added = bands.codecs[1](wav - below)
    torch.testing.assert_close(high["mix"], below + added["mix"], atol=1e-6, rtol=0)
    torch.testing.assert_close(high["music"], resample(low["music"], 16_000, 32_000) + added["music"])


@torch.no_grad()
def test_the_first_branch_is_the_codec_of_the_lower_rate_by_itself():
    bands, wav = network(), torch.randn(1, 1, 6400)
    alone = bands.codecs[0](resample(wav, 32_000, 16_000))
    torch.testing.assert_close(bands(wav)[0]["mix"], alone["mix"], atol=1e-6, rtol=0)


@pytest.mark.parametrize("rates", [(16_000, 32_000), (16_000, 32_000, 48_000), (16_000, 48_000)])
@pytest.mark.parametrize("length", [9600, 9601])
@torch.no_grad()
def test_codes_decode_to_what_the_network_makes_at_once(rates, length):
    bands, wav = network(rates=rates, domains=("speech", "music")), torch.randn(2, 1, length)
    codes = bands.encode(wav)
    assert [tuple(each.shape[:3]) for each in codes] == [(2, 2, 2)] * len(rates)
    for count, expected in enumerate(bands(wav), 1):
        for name, decoded in bands.decode(codes[:count]).items():
            torch.testing.assert_close(decoded[..., : expected[name].shape[-1]], expected[name], atol=1e-5, rtol=0)


@torch.no_grad()
def test_fewer_branches_have_the_same_codes():
    bands, wav = network(), torch.randn(1, 1, 6400)
    (low,) = bands.encode(wav, numbers=[0])
    assert torch.equal(low, bands.encode(wav)[0])


@torch.no_grad()
def test_a_branch_whose_codes_are_missing_adds_what_its_decoder_makes_of_nothing():
    bands, wav = network(), torch.randn(1, 1, 6400)
    low, high = bands.encode(wav)
    nothing = bands.codecs[1].decode(torch.zeros(1, 16, high.shape[-1]))
    found = bands.decode([low, torch.full_like(high, -1)])["mix"]
    torch.testing.assert_close(found, resample(bands.decode([low])["mix"], 16_000, 32_000) + nothing, atol=1e-6, rtol=0)
