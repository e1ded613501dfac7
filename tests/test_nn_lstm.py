"""An LSTM over windows of frames: torch's own is the reference."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sdcodec_cli.nn.lstm import WindowedLSTM
from sdcodec_cli.nn.tracing import for_graph

CHANNELS = 8

both_ways = pytest.mark.parametrize("causal", [False, True])


def windowed(*, causal: bool, context: int, layers: int = 2) -> WindowedLSTM:
    torch.manual_seed(0)
    network = WindowedLSTM(channels=CHANNELS, layers=layers, context=context, causal=causal)
    return network.double().requires_grad_(False)


def torchs(network: WindowedLSTM) -> torch.nn.LSTM:
    """An LSTM of torch's with the same weights."""
    causal = network.layers[0].backwards is None
    width = CHANNELS if causal else CHANNELS // 2
    lstm = torch.nn.LSTM(CHANNELS, width, num_layers=len(network.layers), bidirectional=not causal).double()
    for number, layer in enumerate(network.layers):
        for direction, suffix in ((layer.forwards, ""), (layer.backwards, "_reverse")):
            if direction is not None:
                given = {
                    "weight_ih": direction.input.weight,
                    "weight_hh": direction.recurrent.weight,
                    "bias_ih": direction.input.bias,
                    "bias_hh": torch.zeros_like(direction.input.bias),
                }
                for name, value in given.items():
                    getattr(lstm, f"{name}_l{number}{suffix}").data = value
    return lstm.requires_grad_(False)


def noise(frames: int) -> Tensor:
    return torch.randn(2, CHANNELS, frames, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@both_ways
def test_where_windows_hold_all_frames_it_is_torchs_lstm_around_a_skip_connection(causal):
    network, x = windowed(causal=causal, context=11), noise(12)
    expected = x + torchs(network)(x.permute(2, 0, 1))[0].permute(1, 2, 0)
    torch.testing.assert_close(network(x), expected)


@both_ways
def test_each_frame_of_a_layer_is_what_torchs_lstm_says_at_it_of_the_frames_around_it(causal):
    context, x = 4, noise(20)
    network = windowed(causal=causal, context=context, layers=1)
    reference, found = torchs(network), (network(x) - x).permute(2, 0, 1)
    for frame in (0, 2, 10, 19):
        first = max(0, frame - context)
        last = frame + (0 if causal else context)
        seen = x.permute(2, 0, 1)[first : last + 1]
        before = reference(seen[: frame - first + 1])[0][-1]
        after = reference(seen[frame - first :])[0][0]
        width = CHANNELS if causal else CHANNELS // 2
        torch.testing.assert_close(found[frame], torch.cat([before[:, :width], after[:, width:]], dim=-1))


@both_ways
def test_what_it_says_of_a_frame_does_not_depend_on_where_the_audio_begins(causal):
    network, x = windowed(causal=causal, context=3), noise(40)
    reach = network.context_frames
    whole = network(x)
    for start, stop in ((5, 30), (6, 40)):
        part = network(x[..., start:stop])
        inner = slice(start + reach, stop - (0 if causal else reach))
        torch.testing.assert_close(part[..., reach : reach + inner.stop - inner.start], whole[..., inner])


def test_causal_ones_see_nothing_of_what_comes_after_a_frame():
    network, x = windowed(causal=True, context=5), noise(20)
    other = x.clone()
    other[..., 12:] = 0
    assert torch.equal(network(x)[..., :12], network(other)[..., :12])


@both_ways
def test_what_graphs_have_of_it_computes_the_same_and_the_same_gradient(causal):
    network, given, weights = windowed(causal=causal, context=4), noise(15), noise(15)

    def with_gradient() -> tuple[Tensor, Tensor]:
        x = given.clone().requires_grad_()
        y = network(x)
        return y.detach(), torch.autograd.grad((y * weights).square().sum(), x)[0]

    expected = with_gradient()
    with for_graph():
        torch.testing.assert_close(with_gradient(), expected)
        torch.testing.assert_close(network(given), expected[0])
