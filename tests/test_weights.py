"""Weights in fewer bits: how close they stay, and what they take; the hash that names them."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from sdcodec_cli import load_codec, zoo
from sdcodec_cli.errors import ModelError
from sdcodec_cli.families import build
from sdcodec_cli.runtime.torch import load_network
from sdcodec_cli.weights import SCALE, pack, read, sha256, unpack

from tiny_models import tiny_recipe


def tensors() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "a.weight": rng.standard_normal((5, 300), dtype=np.float32) * np.float32([1e-3, 1, 50, 0, 2])[:, None],
        "b.weight": rng.standard_normal((4, 10, 7), dtype=np.float32),
        "short.weight": rng.standard_normal((4, 1, 7), dtype=np.float32),
        "a.bias": rng.standard_normal(5, dtype=np.float32),
        "codebook": rng.standard_normal((2, 64, 80), dtype=np.float32),
    }


def largest(tensor: np.ndarray) -> np.ndarray:
    """Magnitude of each row."""
    return np.abs(tensor).reshape(len(tensor), -1).max(1)


def network_weights(seed: int = 0) -> dict[str, np.ndarray]:
    """Of a tiny network, random."""
    rng = np.random.default_rng(seed)
    shapes = {name: tensor.shape for name, tensor in build(tiny_recipe()).state_dict().items()}
    return {name: rng.standard_normal(shape, dtype=np.float32) * np.float32(0.1) for name, shape in shapes.items()}


def test_whole_numbers_are_off_by_half_a_step_of_their_row_at_most():
    given = tensors()
    packed = pack(given, 8)
    assert {name for name, tensor in packed.items() if tensor.dtype == np.int8} == {"a.weight", "b.weight"}
    back = unpack(packed)
    assert back.keys() == given.keys()
    for name in ("a.weight", "b.weight"):
        step = largest(given[name]) / 127
        error = largest(back[name] - given[name])
        assert (error <= 0.501 * step).all()
        assert error[0] > 0.3 * step[0]
        np.testing.assert_allclose(largest(back[name]), largest(given[name]), rtol=1e-6)
    for name in ("short.weight", "a.bias", "codebook"):
        assert np.array_equal(back[name], given[name].astype(np.float16).astype(np.float32))


@pytest.mark.parametrize(("bits", "dtype"), [(32, np.float32), (16, np.float16)])
def test_wider_weights_have_their_width_and_no_scales(bits, dtype):
    given = tensors()
    packed = pack(given, bits)
    assert {tensor.dtype for tensor in packed.values()} == {np.dtype(dtype)}
    back = unpack(packed)
    assert {tensor.dtype for tensor in back.values()} == {np.dtype(np.float32)}
    assert all(np.array_equal(tensor, given[name].astype(dtype).astype(np.float32)) for name, tensor in back.items())


def test_other_widths_are_refused():
    with pytest.raises(ValueError, match="weights are stored in 32, 16 or 8 bits, not 4"):
        pack(tensors(), 4)


def test_a_model_in_8_bits_is_smaller_and_loads_as_what_is_stored(tmp_path):
    recipe, weights = tiny_recipe(), network_weights()
    wide = zoo.write_model(tmp_path / "wide", recipe, pack(weights, 32), card="")
    small = zoo.write_model(tmp_path / "small", recipe, pack(weights, 8), card="")
    assert small.size_bytes < 0.55 * wide.size_bytes
    assert sha256(read(zoo.weights_path(small))) != sha256(read(zoo.weights_path(wide)))
    loaded = load_network(small)
    expected = unpack(pack(weights, 8))
    assert all(np.array_equal(tensor.numpy(), expected[name]) for name, tensor in loaded.state_dict().items())
    assert not any(name.endswith(SCALE) for name in loaded.state_dict())
    codec = load_codec(tmp_path / "small")
    noise = np.random.default_rng(0).standard_normal(2000)
    assert codec.decode(codec.encode(noise)).shape == (2000,)


def test_the_hash_is_over_names_types_shapes_and_values_in_the_order_of_names():
    """Written out by hand: files name weights by it, so it must stay what it is."""
    given = {"b": np.float16([[1, -2]]), "a": np.float32(0.5), "c": np.int8([3, -4])}
    written = b"a float32 []\n" + bytes.fromhex("0000003f")
    written += b"b float16 [1, 2]\n" + bytes.fromhex("003c00c0")
    written += b"c int8 [2]\n" + bytes.fromhex("03fc")
    assert sha256(given) == hashlib.sha256(written).digest()


def test_the_hash_of_the_embedded_model_is_the_one_that_files_have_been_made_with():
    digest = sha256(read(zoo.weights_path(zoo.find())))
    assert digest.hex()[:16] in (zoo.find().card or "")


def test_the_hash_follows_values_types_shapes_and_names_and_not_the_order_in_memory():
    plain = {"x": np.arange(6, dtype=np.float32).reshape(2, 3)}
    same = {"x": np.asfortranarray(plain["x"])}
    others = [
        {"y": plain["x"]},
        {"x": plain["x"].reshape(3, 2)},
        {"x": plain["x"].view(np.int32)},
        {"x": plain["x"] + 1},
    ]
    assert sha256(same) == sha256(plain)
    assert len({sha256(given) for given in [plain, *others]}) == 5


@pytest.mark.parametrize("content", [b"", b"garbage", (1 << 62).to_bytes(8, "little") + b"{}"])
def test_a_damaged_file_is_named_with_what_to_do(tmp_path, content):
    (tmp_path / "weights.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match=r"weights.safetensors: the weights cannot be read \(.*\); restore or re-im"):
        read(tmp_path / "weights.safetensors")


def test_a_file_that_is_missing_is_named(tmp_path):
    with pytest.raises(ModelError, match="none.safetensors: the weights cannot be read"):
        read(tmp_path / "none.safetensors")
