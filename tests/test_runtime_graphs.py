"""Networks written down as graphs: those of the embedded model, and what new ones compute."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from sdcodec_cli import load_codec, weights, zoo
from sdcodec_cli.engine.codec import Codec
from sdcodec_cli.families import build, of
from sdcodec_cli.families.sdcodec import FAMILY
from sdcodec_cli.recipe import Recipe
from sdcodec_cli.runtime.graphs import IR_VERSION, OPSET, make_graphs
from sdcodec_cli.runtime.onnx import MANIFEST, VERSION, read_manifest
from sdcodec_cli.zoo import GRAPHS, WEIGHTS

from tiny_models import tiny_bands, tiny_recipe, write_tiny

EMBEDDED = zoo.find().folder


def graph(part: str) -> onnx.ModelProto:
    return onnx.load(EMBEDDED / GRAPHS / f"{part}.onnx", load_external_data=False)


OPEN = None
"""An axis of any length."""


def inputs(model: onnx.ModelProto) -> dict[str, list[int | None]]:
    """Their names and shapes."""
    return {
        entry.name: [dim.dim_value if dim.HasField("dim_value") else OPEN for dim in entry.type.tensor_type.shape.dim]
        for entry in model.graph.input
    }


# The graphs of the embedded model, as they are committed.


def test_the_embedded_model_has_a_graph_of_every_part_and_nothing_else():
    graphs = {f"{part}.onnx" for part in FAMILY.parts}
    assert {path.name for path in (EMBEDDED / GRAPHS).iterdir()} == {MANIFEST, *graphs}
    manifest = read_manifest(EMBEDDED, FAMILY, FAMILY.parts)
    assert manifest["version"] == VERSION
    assert list(manifest["weights"]) == list(FAMILY.parts)


def test_their_contexts_are_the_networks():
    manifest = read_manifest(EMBEDDED, FAMILY, FAMILY.parts)
    assert {name: manifest[name] for name in FAMILY.sizes} == FAMILY.measured(
        build(recipe := zoo.find().recipe), recipe
    )


def test_the_manifest_names_the_weights_that_each_graph_takes_from_the_file():
    shapes = {name: list(tensor.shape) for name, tensor in weights.unpack(weights.read(EMBEDDED / WEIGHTS)).items()}
    used = set()
    for part, names in read_manifest(EMBEDDED, FAMILY, FAMILY.parts)["weights"].items():
        external = {
            entry.name: list(entry.dims)
            for entry in graph(part).graph.initializer
            if entry.data_location == onnx.TensorProto.EXTERNAL
        }
        assert sorted(external) == sorted(names)
        assert external == {name: shapes[name] for name in names}
        used |= set(names)
    assert used == {name for name in shapes if shapes[name] and 0 not in shapes[name]}


def test_all_weights_come_from_the_file_and_graphs_stay_small():
    """A weight that was written into a graph would be there when the file's has changed."""
    for part in FAMILY.parts:
        model = graph(part)
        inside = [entry for entry in model.graph.initializer if entry.data_location != onnx.TensorProto.EXTERNAL]
        # The largest tables are those of a transform in two steps.
        assert max(int(np.prod(entry.dims)) for entry in inside) <= 10_000
        assert (EMBEDDED / GRAPHS / f"{part}.onnx").stat().st_size < 400_000


def test_they_are_of_a_version_that_old_runtimes_read():
    for part in FAMILY.parts:
        model = graph(part)
        assert model.ir_version == IR_VERSION
        assert {entry.domain: entry.version for entry in model.opset_import}[""] == OPSET
        assert {node.domain for node in model.graph.node} == {""}


def test_their_inputs_are_those_of_the_contract():
    assert inputs(graph("analyse")) == {"wav": [OPEN]}
    assert inputs(graph("quantize")) == {"latent": [256, OPEN]}
    assert inputs(graph("synthesize")) == {"codes": [3, 12, OPEN], "stems": [OPEN, 3]}
    assert inputs(graph("target")) == {"wanted": [OPEN]}
    expected = {
        "latent": [256, OPEN],
        "past": [3, 12, OPEN],
        "gates": [3, OPEN],
        "levels": [12],
        "audible": [OPEN],
        "wanted": [OPEN],
        "seconds": [OPEN, OPEN],
        "mel0": [OPEN, 80],
        "mel1": [OPEN, 320],
    }
    for part in ("refine", "distance"):
        assert inputs(graph(part)) == expected
        assert list(inputs(graph(part))) == list(expected)


def test_no_root_is_taken_of_what_may_be_zero():
    """The exporter takes a constant below 1e-8 for zero and leaves out adding it.

    The gradient of such a root of silence is no number, and refinement then keeps the encoder's codes.
    """
    for part in FAMILY.parts:
        model = graph(part).graph
        constants = {entry.name: entry for entry in model.initializer}
        made_by = {name: node for node in model.node for name in node.output}
        for node in model.node:
            if node.op_type == "Sqrt":
                before = made_by[node.input[0]]
                bounds = [
                    float(numpy_helper.to_array(constants[name]))
                    for name in before.input
                    if name in constants and not constants[name].dims
                ]
                assert any(bound > 0 for bound in bounds), f"{part}: the root of {before.op_type}"


# Graphs that are made now.


@pytest.fixture(scope="module", params=["spectral", "conv", "lstm"])
def made(request, tmp_path_factory) -> Path:
    """A tiny model with graphs."""
    recipe = tiny_recipe(request.param)
    folder = write_tiny(tmp_path_factory.mktemp("model") / request.param, recipe)
    zoo.replace_graphs(folder, make_graphs(recipe))
    return folder


def both(folder: Path) -> tuple[Codec, Codec]:
    one, other = (load_codec(folder, runtime=name, device="cpu", threads=1, effort=0) for name in ("onnx", "torch"))
    assert (one.runtime, other.runtime) == ("onnx", "torch")
    return one, other


def noise(length: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(length, dtype=np.float32) * np.float32(0.05)


@pytest.mark.slow
def test_a_folder_with_graphs_is_still_a_model_folder_that_may_be_replaced(made):
    assert load_codec(made, device="cpu").runtime == "onnx"
    manifest = json.loads((made / GRAPHS / MANIFEST).read_text())
    assert set(manifest["weights"]) == set(FAMILY.parts)
    zoo.check_new_model(made, overwrite=True)


@pytest.mark.slow
@pytest.mark.parametrize("length", [320, 5000, 40_000])
def test_their_parts_compute_what_torch_does_at_any_length(made, length):
    one, other = (codec.model for codec in both(made))
    heard, expected = one.analyse(noise(length)), other.analyse(noise(length))
    np.testing.assert_allclose(heard.latent, expected.latent, atol=1e-4, rtol=1e-4)
    np.testing.assert_allclose(heard.activity, expected.activity, atol=1e-5)
    codes = other.quantize(expected.latent)
    assert (one.quantize(expected.latent) == codes).mean() >= 0.999
    codes[0, 2:] = -1
    codes[1, :, :1] = -1
    stems = [[0, 1, 2], [1]]
    np.testing.assert_allclose(one.synthesize(codes, stems), other.synthesize(codes, stems), atol=1e-4, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("frames", "past"), [(1, 0), (40, 0), (40, 7)])
@pytest.mark.parametrize("silent", [False, True])
def test_their_distance_and_gradient_are_torchs(made, frames, past, silent):
    models = [codec.model for codec in both(made)]
    wav = noise((past + frames) * 320)
    latent = models[1].analyse(wav).latent
    codes = models[1].quantize(latent)[..., :past]
    gates = np.ones((3, frames), dtype=np.float32)
    if silent:
        gates[:, frames // 2 + 1 :] = 0
        gates[0] = 0
    found, expected = (model.refiner(wav, codes, gates, 3).attempt(latent[:, past:], gradient=True) for model in models)
    assert found.distance == pytest.approx(expected.distance, abs=1e-3)
    assert np.isfinite(found.gradient).all()
    error = np.linalg.norm(found.gradient - expected.gradient)
    assert error <= 1e-3 * np.linalg.norm(expected.gradient)


@pytest.mark.slow
def test_audio_goes_through_them_from_end_to_end(made):
    one, other = both(made)
    wav = noise(200_000)
    codes = other.encode(wav)
    same = [(one.encode(wav).codes[domain] == codes.codes[domain]).mean() for domain in codes.codes]
    assert min(same) >= 0.999
    np.testing.assert_allclose(one.decode(codes), other.decode(codes), atol=1e-4)
    refined = one.at_effort(2).encode(wav)
    assert not np.array_equal(refined.codes["speech"], codes.codes["speech"])


@pytest.mark.slow
def test_a_model_that_shares_all_codebooks_decodes_without_products_of_nothing():
    """Which ONNX Runtime refuses."""
    recipe = next(iter(of(tiny_bands()).codecs(tiny_bands()).values()))
    made = onnx.load_from_string(make_graphs(recipe, ("synthesize",))["synthesize.onnx"]).graph
    shapes = {node.input[1] for node in made.node if node.op_type == "Reshape"}
    known = [numpy_helper.to_array(entry).tolist() for entry in made.initializer if entry.name in shapes]
    assert known
    assert not [shape for shape in known if 0 in shape]


@pytest.mark.slow
def test_graphs_of_a_recipe_are_the_same_bytes_whoever_makes_them():
    """So that a change of them in a repository is a change of the network."""
    import torch

    torch.manual_seed(0)
    one = make_graphs(tiny_recipe())
    torch.manual_seed(1)
    assert make_graphs(tiny_recipe()) == one
    (part,) = make_graphs(tiny_recipe(), ("synthesize",)).keys() - {MANIFEST}
    assert make_graphs(tiny_recipe(), ("synthesize",))[part] == one[part]


def test_every_codec_of_a_model_has_a_folder_for_its_graphs(monkeypatch):
    """What is in it is what `tiny_recipe` shows above: those of an SD-Codec."""
    asked: list[tuple[int, str]] = []

    def graphs_of(recipe: Recipe, parts: Sequence[str] | None) -> dict[str, bytes]:
        asked.append((recipe.model.sample_rate, recipe.family))
        return {MANIFEST: b"", "analyse.onnx": b""}

    monkeypatch.setattr("sdcodec_cli.runtime.graphs._graphs_of", graphs_of)
    folders = ("branches.0", "branches.1")
    assert set(make_graphs(tiny_bands())) == {
        f"{folder}/{name}" for folder in folders for name in (MANIFEST, "analyse.onnx")
    }
    assert asked == [(16_000, "sdcodec"), (32_000, "sdcodec")]
