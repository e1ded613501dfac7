"""The parts of a codec, which runtimes run: what they compute, and that they do in either way that they are made."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from sdcodec_cli.families import build
from sdcodec_cli.nn import parts
from sdcodec_cli.nn.distances import mel_distance
from sdcodec_cli.nn.layers import ConvNeXtBlock
from sdcodec_cli.nn.sdcodec import SDCodec
from sdcodec_cli.nn.tracing import for_graph

from tiny_models import tiny_recipe

HOP = 320
KINDS = ["spectral", "conv", "lstm"]


def network(kind: str, **options: object) -> SDCodec:
    torch.manual_seed(0)
    return build(tiny_recipe(kind, **options)).eval().requires_grad_(False)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def refine_inputs(codec: SDCodec, frames: int = 40, past: int = 10) -> tuple[Tensor, ...]:
    """A latent and what it is compared with."""
    wav = noise((frames + past) * HOP) * 0.05
    latent = codec.encode(wav[None, None])
    codes = codec.quantize(latent).codes[:, 0]
    seconds = torch.ones(1, frames + past)
    mels = parts.Target(16_000)(wav)
    gates, levels = torch.ones(3, frames), torch.ones(4)
    return latent[0, :, past:], codes[..., :past], gates, levels, torch.ones(len(wav)), wav, seconds, *mels


@pytest.mark.parametrize("kind", KINDS)
def test_analysis_is_the_encoder_and_the_heads_probabilities(kind):
    codec, wav = network(kind), noise(50 * HOP)
    latent, activity = parts.modules(codec, 16_000)["analyse"](wav)
    torch.testing.assert_close(latent, codec.encode(wav[None, None])[0])
    logits = codec.activity_logits(latent[None])
    assert logits is not None
    torch.testing.assert_close(activity, logits[0].sigmoid())


def test_a_model_without_a_head_hears_everything_everywhere():
    _, activity = parts.Analyse(network("spectral", activity=False))(noise(50 * HOP))
    assert activity.shape == (3, 50)
    assert bool((activity == 1).all())


@pytest.mark.parametrize("kind", KINDS)
def test_stems_are_decoded_from_the_latents_of_their_domains_added_up(kind):
    codec = network(kind)
    latent = codec.encode(noise(1, 1, 30 * HOP))
    quantized = codec.quantize(latent)
    codes = parts.Quantize(codec)(latent[0])
    assert torch.equal(codes, quantized.codes[:, 0])
    stems = torch.tensor([[1.0, 1, 1], [0, 1, 0], [1, 0, 1]])
    wavs = parts.Synthesize(codec)(codes, stems)
    latents = quantized.latents[:, 0]
    mixed = torch.stack([latents.sum(0), latents[1], latents[0] + latents[2]])
    torch.testing.assert_close(wavs, codec.decode(mixed)[:, 0], atol=1e-5, rtol=1e-4)


class Playback(nn.Module):
    """Stands in for a codec whose latent is the audio itself, a frame to a column, in one domain and one codebook."""

    hop_length = HOP

    def quantize(self, latent: Tensor, *, weights: Tensor) -> SimpleNamespace:
        return SimpleNamespace(latents=latent[None] * weights.sum(), codes=latent.new_zeros(1, 1, 1, latent.shape[-1]))

    def decode(self, latent: Tensor) -> Tensor:
        return latent.transpose(1, 2).flatten(1)[:, None]


Playback.quantizer = SimpleNamespace(dequantize=lambda past: torch.zeros(1, HOP, past.shape[-1]))


def playback_distance(decoded: Tensor, wanted: Tensor, audible: Tensor | None = None) -> float:
    """What `Distance` says of two signals of whole seconds."""
    frames = len(decoded) // HOP
    audible = torch.ones_like(wanted) if audible is None else audible
    seconds = torch.eye(len(wanted) // 16_000).repeat_interleave(16_000 // HOP, dim=1)
    wanted = wanted * audible
    mels = parts.Target(16_000)(wanted)
    latent = decoded.view(frames, HOP).T
    past = torch.zeros(1, 1, 0, dtype=torch.int64)
    gates, levels = torch.ones(1, frames), torch.ones(1)
    distance, _ = parts.Distance(Playback(), 16_000)(latent, past, gates, levels, audible, wanted, seconds, *mels)
    return float(distance)


def test_the_distance_is_the_mean_of_each_seconds_ratio_and_the_mel_distance():
    loud, quiet = 0.3 * noise(16_000), 0.003 * noise(16_000, seed=1)
    gain = torch.cat([torch.full_like(loud, 1.1), torch.full_like(quiet, 1.2)])
    ratios = [10 * math.log10(error**2 + 0.001) for error in (0.1, 0.2)]  # no more than 30 dB
    mel = 7 * float(gain.log10().mean())  # of seven scales
    wanted = torch.cat([loud, quiet])
    assert playback_distance(gain * wanted, wanted) == pytest.approx(sum(ratios) / 2 + 1.2 * mel, abs=0.02)


def test_its_mel_distance_is_that_of_training_over_two_of_its_scales():
    one, other = 0.1 * noise(32_000), 0.1 * noise(32_000, seed=1)
    ratios = [10 * math.log10(2 + 0.001)] * 2
    mel = mel_distance(one[None], other[None], sample_rate=16_000, scales=parts.REFINE_SCALES)
    assert playback_distance(one, other) == pytest.approx(sum(ratios) / 2 + 1.2 * float(mel), abs=0.1)


def test_the_same_audio_is_as_near_as_can_be_and_where_nothing_is_heard_nothing_counts():
    wav = 0.1 * noise(32_000)
    assert playback_distance(wav, wav) == pytest.approx(-30, abs=0.01)
    audible = torch.ones(32_000)
    audible[16_000:] = 0
    changed = torch.cat([wav[:16_000], noise(16_000, seed=2)])
    assert playback_distance(changed, wav, audible) == pytest.approx(-30, abs=0.01)
    assert playback_distance(changed, wav) > -10


@pytest.mark.parametrize("kind", KINDS)
def test_refinement_is_the_distance_and_its_gradient_by_the_straight_through_estimate(kind):
    codec = network(kind)
    latent, *others = refine_inputs(codec)
    distance, codes, gradient = parts.Refine(codec, 16_000)(latent, *others)
    plain, same = parts.Distance(codec, 16_000)(latent, *others)
    torch.testing.assert_close(distance, plain)
    assert torch.equal(codes, same)
    wanted = latent.clone().requires_grad_()
    (expected,) = torch.autograd.grad(parts.Distance(codec, 16_000)(wanted, *others)[0], wanted)
    torch.testing.assert_close(gradient, expected)
    assert float(gradient.abs().max()) > 0
    assert not gradient.requires_grad


def test_codebooks_that_are_not_stored_and_domains_that_are_not_heard_add_nothing():
    codec = network("spectral")
    latent, past, gates, levels, *rest = refine_inputs(codec)
    levels[2:], gates[1] = 0, 0
    distance, codes = parts.Distance(codec, 16_000)(latent, past, gates, levels, *rest)
    codes = codes.clone()
    codes[:, 2:], codes[1] = -1, -1
    decoded = parts.Synthesize(codec)(torch.cat([past, codes], dim=-1), torch.ones(1, 3))[0]
    wanted = rest[1]
    error = (decoded - wanted).square().sum() / (wanted.square().sum() + 1e-6)
    mel = mel_distance(decoded[None], wanted[None], sample_rate=16_000, scales=parts.REFINE_SCALES)
    assert float(distance) == pytest.approx(float(10 * (error + 0.001).log10() + 1.2 * mel), abs=1e-3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("silent", [False, True])
def test_parts_made_for_graphs_compute_the_same(kind, silent):
    """Where nothing is heard, roots of zero must not spoil the gradient."""
    codec = network(kind)
    latent, past, gates, levels, audible, wanted, seconds, *mels = refine_inputs(codec)
    if silent:
        gates[:, 20:] = 0
        audible[30 * HOP :] = 0
        wanted = wanted * audible
        mels = parts.Target(16_000)(wanted)
    codes = parts.Quantize(codec)(latent)
    calls = {
        "analyse": (noise(40 * HOP) * 0.05,),
        "quantize": (latent,),
        "synthesize": (codes, torch.tensor([[1.0, 1, 1], [1, 0, 0]])),
        "target": (wanted,),
        "refine": (latent, past, gates, levels, audible, wanted, seconds, *mels),
        "distance": (latent, past, gates, levels, audible, wanted, seconds, *mels),
    }
    modules = parts.modules(codec, 16_000)
    assert set(modules) == set(calls)
    for part, inputs in calls.items():
        expected = modules[part](*inputs)
        with for_graph():
            found = modules[part](*inputs)
        for ours, theirs in zip(
            *((each if isinstance(each, tuple) else (each,)) for each in (found, expected)), strict=True
        ):
            assert bool(torch.isfinite(ours).all()), part
            torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=1e-3, msg=part)


@pytest.mark.parametrize("dilation", [1, 2, 8])
def test_the_depthwise_convolution_of_graphs_and_its_gradient_are_the_plain_ones(dilation):
    torch.manual_seed(0)
    block = ConvNeXtBlock(6, kernel_size=7, expansion=2, scale=1.0, dilation=dilation).double().requires_grad_(False)
    x = torch.randn(2, 25, 6, dtype=torch.float64, requires_grad=True)
    towards = torch.randn(2, 25, 6, dtype=torch.float64)
    expected = block(x)
    (wanted,) = torch.autograd.grad((expected * towards).sum(), x)
    with for_graph():
        found = block(x)
        (gradient,) = torch.autograd.grad((found * towards).sum(), x)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradient, wanted)
