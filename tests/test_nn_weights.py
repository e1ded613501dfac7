"""Weights in fewer bits: how close they stay, and what they take."""

from __future__ import annotations

import pytest
import torch

from sdcodec_cli import load_codec, zoo
from sdcodec_cli.nn.weights import SCALE, pack, unpack

from tiny_models import tiny_recipe


def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "a.weight": torch.randn(5, 300, generator=generator) * torch.tensor([1e-3, 1, 50, 0, 2])[:, None],
        "b.weight": torch.randn(4, 10, 7, generator=generator),
        "short.weight": torch.randn(4, 1, 7, generator=generator),
        "a.bias": torch.randn(5, generator=generator),
        "codebook": torch.randn(2, 64, 80, generator=generator),
    }


def test_whole_numbers_are_off_by_half_a_step_of_their_row_at_most():
    given = tensors()
    packed = pack(given, 8)
    assert {name for name, tensor in packed.items() if tensor.dtype == torch.int8} == {"a.weight", "b.weight"}
    back = unpack(packed)
    assert back.keys() == given.keys()
    for name in ("a.weight", "b.weight"):
        step = given[name].flatten(1).abs().amax(1) / 127
        error = (back[name] - given[name]).flatten(1).abs().amax(1)
        assert (error <= 0.501 * step).all()
        assert error[0] > 0.3 * step[0]
        largest = back[name].flatten(1).abs().amax(1)
        torch.testing.assert_close(largest, given[name].flatten(1).abs().amax(1))
    for name in ("short.weight", "a.bias", "codebook"):
        assert torch.equal(back[name], given[name].half().float())


@pytest.mark.parametrize(("bits", "dtype"), [(32, torch.float32), (16, torch.float16)])
def test_wider_weights_have_their_width_and_no_scales(bits, dtype):
    given = tensors()
    packed = pack(given, bits)
    assert {tensor.dtype for tensor in packed.values()} == {dtype}
    assert all(torch.equal(tensor, given[name].to(dtype).float()) for name, tensor in unpack(packed).items())


def test_other_widths_are_refused():
    with pytest.raises(ValueError, match="weights are stored in 32, 16 or 8 bits, not 4"):
        pack(tensors(), 4)


def test_a_model_in_8_bits_is_smaller_and_loads_as_what_is_stored(tmp_path):
    recipe = tiny_recipe()
    network = zoo.build(recipe)
    wide = zoo.write_model(tmp_path / "wide", recipe, pack(network.state_dict(), 32), card="")
    small = zoo.write_model(tmp_path / "small", recipe, pack(network.state_dict(), 8), card="")
    assert small.size_bytes < 0.55 * wide.size_bytes
    loaded, digest = zoo.load(small)
    assert digest != zoo.load(wide)[1]
    expected = unpack(pack(network.state_dict(), 8))
    assert all(torch.equal(tensor, expected[name]) for name, tensor in loaded.state_dict().items())
    assert not any(name.endswith(SCALE) for name in loaded.state_dict())
    codec = load_codec(tmp_path / "small")
    assert codec.decode(codec.encode(torch.randn(2000))).shape == (2000,)
