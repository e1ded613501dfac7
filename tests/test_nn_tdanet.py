"""TDANet: size, shapes, what it looks at, what it begins with."""

from __future__ import annotations

import pytest
import torch

from sdcodec_cli.nn.tdanet import TDANet
from sdcodec_cli.nn.tracing import for_graph

PAPER = {"num_stems": 3, "window_length": 64, "stride": 16, "num_filters": 33, "channels": 128, "width": 512}
PAPER |= {"depth": 5, "num_heads": 8, "num_iterations": 16, "joint_decoder": True, "magnitudes": False}
SMALL = {**PAPER, "channels": 8, "width": 16, "num_heads": 2, "num_iterations": 3}
LONG_WINDOWS = {**SMALL, "window_length": 640, "stride": 320, "num_filters": 640, "depth": 3}
LONG_WINDOWS |= {"joint_decoder": False, "magnitudes": True}
BOTH = pytest.mark.parametrize("sizes", [SMALL, LONG_WINDOWS], ids=["as in the paper", "long windows"])


def network(sizes, **others):
    torch.manual_seed(0)
    return TDANet(**{**sizes, **others})


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1)) * 0.05


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({}, 2.345e6),
        ({"num_stems": 2}, 2.33e6),
        ({"window_length": 32, "stride": 8, "num_filters": 17}, 2.32e6),  # 2 ms
    ],
)
def test_the_number_of_weights_is_that_of_the_published_network(changes, count):
    """As counted by running the published code, which states all but the first to three digits."""
    with torch.device("meta"):
        weights = sum(weight.numel() for weight in TDANet(**{**PAPER, **changes}).parameters())
    assert weights == pytest.approx(count, abs=500 if not changes else 5000)


@torch.no_grad()
def test_every_level_has_half_the_frames_of_the_one_before():
    block = network(PAPER, num_iterations=1).block
    levels = block.levels(torch.randn(2, 1008, 128))
    assert [tuple(level.shape) for level in levels] == [(2, 1008 >> level, 512) for level in range(5)]
    assert block(torch.randn(2, 1008, 128)).shape == (2, 1008, 128)


@torch.no_grad()
def test_a_second_of_audio_is_a_thousand_frames_of_33_filters():
    found = []
    net = network(PAPER, num_iterations=1)
    net.encoder.register_forward_hook(lambda module, inputs, output: found.append((inputs[0].shape, output.shape)))
    net(noise(1, 16_000))
    frames = 16_128 // 16  # whole hops of 256 samples, so that the coarsest level has whole frames
    assert found == [((1, frames, 64), (1, frames, 33))]


@BOTH
@pytest.mark.parametrize("length", [1, 255, 256, 257, 1280, 4001])
@torch.no_grad()
def test_stems_are_as_long_as_the_mixture(sizes, length):
    assert network(sizes)(noise(2, length)).shape == (2, 3, length)


@BOTH
@torch.no_grad()
def test_stems_add_up_to_the_mixture(sizes):
    wav = noise(2, 3000)
    torch.testing.assert_close(network(sizes)(wav).sum(1), wav)


@BOTH
@torch.no_grad()
def test_what_is_added_to_fill_up_a_hop_is_silence(sizes):
    net, wav = network(sizes), noise(1, 3000)
    filled = torch.cat([wav, torch.zeros(1, -3000 % net.hop_length)], dim=1)
    torch.testing.assert_close(net(wav), net(filled)[..., :3000])


@BOTH
@torch.no_grad()
def test_what_a_graph_is_made_of_gives_the_same_stems(sizes):
    net = network(sizes)
    wav = noise(1, 4 * net.hop_length)
    with for_graph():
        stems = net(wav)
    torch.testing.assert_close(stems, net(wav), rtol=1e-4, atol=1e-6)


@BOTH
def test_silence_makes_numbers_and_gradients_that_are_finite(sizes):
    net = network(sizes)
    stems = net(torch.zeros(1, 2560))
    stems.square().sum().backward()
    assert bool(torch.isfinite(stems).all())
    assert all(bool(torch.isfinite(weight.grad).all()) for weight in net.parameters())


@BOTH
@torch.no_grad()
def test_examples_of_a_batch_do_not_see_each_other(sizes):
    """The published code attends over the batch, because its attention takes the first axis for time."""
    net, wavs = network(sizes), noise(2, 4000)
    alone = torch.cat([net(wav[None]) for wav in wavs])
    torch.testing.assert_close(net(wavs), alone, rtol=1e-4, atol=1e-6)


@torch.no_grad()
def test_attention_carries_what_is_far_away_in_time():
    """Beyond the reach of all convolutions; norms, which see everything too, are left out."""
    attention = network(SMALL).block.attention
    attention.widen, attention.narrow = attention.widen[0], attention.narrow[0]
    frames = torch.randn(1, 60, 16)
    changed = frames.clone()
    changed[:, -1] += torch.randn(16)
    assert float((attention(changed) - attention(frames))[:, :10].abs().max()) > 1e-4


@torch.no_grad()
def test_attention_tells_one_order_of_frames_from_another():
    attention = network(SMALL).block.attention
    attention.narrow[0].weight.zero_()  # the perceptron, whose convolution tells them apart anyway
    frames = torch.randn(1, 20, 16)
    assert float((attention(frames.flip(1)).flip(1) - attention(frames)).abs().max()) > 1e-2


@BOTH
def test_every_weight_is_used(sizes):
    net = network(sizes)
    (net(noise(2, 5120)) - noise(2, 3, 5120)).square().mean().backward()
    assert [name for name, weight in net.named_parameters() if not bool(weight.grad.any())] == []


@BOTH
def test_the_block_is_the_same_in_every_iteration(sizes):
    counts = [sum(w.numel() for w in network(sizes, num_iterations=number).parameters()) for number in (1, 8)]
    assert counts[0] == counts[1]
    runs = []
    net = network(sizes, num_iterations=4)
    net.block.register_forward_hook(lambda *_: runs.append(1))
    net(noise(1, 2560))
    assert len(runs) == 4


@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("stride", [128, 320])
@torch.no_grad()
def test_filters_with_magnitudes_begin_as_a_transform_and_its_inverse(stride, joint):
    net = network({**LONG_WINDOWS, "joint_decoder": joint}, stride=stride)
    net.masks.weight.zero_()  # what is left is the offset: a third of everything to each stem
    wav = noise(1, 16_000)
    inner = slice(640, -640)  # at the ends fewer windows overlap
    for stem in net(wav).unbind(1):
        error = (stem - wav / 3)[:, inner].square().mean() / wav[:, inner].square().mean()
        assert float(error) < 1e-3  # the mean under each window is left out


@torch.no_grad()
def test_magnitudes_do_not_tell_a_signal_from_its_negative():
    net, wav = network(LONG_WINDOWS), noise(1, 6400)
    torch.testing.assert_close(net(-wav), -net(wav))


def test_windows_and_filters_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="window_length: must be a multiple of stride and an even number more, got 60"):
        network(SMALL, window_length=60)
    with pytest.raises(ValueError, match="num_filters: must be even and at most 64 with magnitudes, got 33"):
        network(SMALL, magnitudes=True)
