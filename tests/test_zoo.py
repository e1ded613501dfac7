"""Models: listing, finding, hashing, writing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from audio_examples import full_disk

from sdcodec_cli import zoo
from sdcodec_cli.checkpoints import read_checkpoint
from sdcodec_cli.engine.train.trainer import start_from
from sdcodec_cli.errors import ModelError, OutputError
from sdcodec_cli.families import build
from sdcodec_cli.recipe import MixingFields
from sdcodec_cli.runtime.torch import load_network
from sdcodec_cli.weights import read, sha256

from tiny_models import tiny_recipe, write_tiny

NAMES = [
    "sdcodec-16k-mini",
    "bands-32k",
    "bands-32k-mini",
    "dac-16k",
    "dac-16k-2k",
    "dac-16k-2k-mini",
    "dac-32k",
    "dac-32k-mini",
    "decodec-16k",
    "decodec-16k-causal",
    "decodec-16k-mini",
    "sdcodec-16k",
    "sdcodec-16k-from-dac",
    "sdcodec-16k-orthogonal-mini",
    "sdcodec-16k-separation",
    "sdcodec-16k-shared4",
    "sdcodec-16k-shared8",
    "sdcodec-32k-mini",
    "tdanet-16k",
    "tdanet-16k-mini",
]


def test_the_zoo_has_its_models_the_default_first():
    assert [entry.name for entry in zoo.list_models()] == NAMES
    assert zoo.find().name == zoo.DEFAULT_MODEL


def test_every_recipe_has_the_name_of_its_folder():
    for entry in zoo.list_models():
        assert entry.folder.name == entry.name


@pytest.mark.parametrize(
    ("name", "millions"), [("sdcodec-16k", 74.82), ("sdcodec-16k-shared4", 74.60), ("sdcodec-16k-shared8", 74.39)]
)
def test_the_papers_models_have_as_many_weights_as_the_published_ones(name, millions):
    """Counted in the published code; weight norm's magnitudes, which we fold, and shapes on the meta device."""
    with torch.device("meta"):
        network = build(zoo.find(name).recipe)
    count = sum(parameter.numel() for parameter in network.parameters())
    magnitudes = sum(
        module.weight.shape[0]
        for module in network.modules()
        if isinstance(module, torch.nn.Conv1d | torch.nn.ConvTranspose1d)
    )
    magnitudes += sum(
        p.shape[:3].numel() for name, p in network.named_parameters() if name.endswith(("in_weight", "out_weight"))
    )
    assert (count + magnitudes) / 1e6 == pytest.approx(millions, abs=0.01)


@pytest.mark.parametrize(("name", "width", "ways"), [("decodec-16k", 512, 2), ("decodec-16k-causal", 1024, 1)])
def test_decodecs_encoder_and_decoder_have_lstms_of_two_layers_as_large_as_torchs(name, width, ways):
    with torch.device("meta"):
        network = build(zoo.find(name).recipe)
        reference = torch.nn.LSTM(1024, width, num_layers=2, bidirectional=ways == 2)
    expected = sum(parameter.numel() for name, parameter in reference.named_parameters() if "bias_hh" not in name)
    for part in (network.encoder, network.decoder):
        assert sum(parameter.numel() for parameter in part.lstm.parameters()) == expected


def sha256_of(entry):
    return sha256(read(zoo.weights_path(entry)))


def test_the_embedded_model_is_small_and_has_its_weights():
    entry = zoo.find()
    assert entry.size_bytes is not None
    assert entry.size_bytes <= 25 * 2**20
    network, digest = load_network(entry), sha256_of(entry)
    assert not network.training
    assert len(digest) == 32
    assert all(tensor.dtype == torch.float32 for tensor in network.state_dict().values())


def test_the_hash_follows_the_weights_and_not_the_file(tmp_path):
    one = sha256_of(zoo.find(write_tiny(tmp_path / "one", tiny_recipe(), seed=0)))
    same = sha256_of(zoo.find(write_tiny(tmp_path / "same", tiny_recipe(), seed=0)))
    other = sha256_of(zoo.find(write_tiny(tmp_path / "other", tiny_recipe(), seed=1)))
    assert one == same != other


def test_a_folder_is_found_by_any_path_and_must_be_a_model(tmp_path, monkeypatch):
    write_tiny(tmp_path / "mine", tiny_recipe())
    monkeypatch.chdir(tmp_path)
    for path in ("mine", "./mine", tmp_path / "mine"):
        assert zoo.find(path).name == "tiny-spectral"
    with pytest.raises(ModelError, match="not a model folder"):
        zoo.find(tmp_path)
    with pytest.raises(ModelError, match="no such model; the zoo has"):
        zoo.find("yours")


def test_a_model_is_written_whole_and_never_over_something_else(tmp_path):
    recipe = tiny_recipe()
    tensors = build(recipe).state_dict()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "diary.txt").write_text("dear diary")
    with pytest.raises(OutputError, match="is not a model folder, and will not be replaced"):
        zoo.write_model(tmp_path / "mine", recipe, tensors, card="", overwrite=True)
    assert (tmp_path / "mine" / "diary.txt").exists()
    zoo.write_model(tmp_path / "model", recipe, tensors, card="# one\n")
    with pytest.raises(OutputError, match="exists; pass --force"):
        zoo.write_model(tmp_path / "model", recipe, tensors, card="# two\n")
    zoo.write_model(tmp_path / "model", recipe, tensors, card="# two\n", overwrite=True)
    assert zoo.find(tmp_path / "model").card == "# two\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "model"]


def test_graphs_are_part_of_a_model_and_go_with_it(tmp_path):
    recipe = tiny_recipe()
    tensors = build(recipe).state_dict()
    zoo.write_model(tmp_path / "model", recipe, tensors, card="", graphs={"manifest.json": b"{}", "a.onnx": b"1"})
    assert {path.name for path in (tmp_path / "model" / "graphs").iterdir()} == {"manifest.json", "a.onnx"}
    # A model of several codecs has a folder for each.
    zoo.write_model(tmp_path / "model", recipe, tensors, card="", graphs={"branches.0/a.onnx": b"1"}, overwrite=True)
    zoo.write_model(tmp_path / "model", recipe, tensors, card="", overwrite=True)
    assert not (tmp_path / "model" / "graphs").exists()


def test_graphs_are_replaced_as_a_whole_or_not_at_all(tmp_path, monkeypatch):
    model = write_tiny(tmp_path / "model", tiny_recipe())
    before = {path.name: path.read_bytes() for path in model.iterdir()}
    zoo.replace_graphs(model, {"manifest.json": b"{}", "a.onnx": b"1"})
    zoo.replace_graphs(model, {"manifest.json": b"{}", "b.onnx": b"2"})

    def graphs() -> set[str]:
        return {path.name for path in (model / "graphs").iterdir()}

    assert graphs() == {"manifest.json", "b.onnx"}
    rename = Path.rename

    def full(path: Path, target: Path) -> Path:
        if target == model / "graphs" and not path.name.endswith("-before"):
            raise OSError(28, "No space left on device")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(OutputError, match=r"model: No space left on device; give a folder that can be written"):
        zoo.replace_graphs(model, {"c.onnx": b"3"})
    assert graphs() == {"manifest.json", "b.onnx"}
    assert {path.name: path.read_bytes() for path in model.iterdir() if path.is_file()} == before
    assert {path.name for path in model.iterdir()} == {*before, "graphs"}


def test_something_else_among_the_graphs_keeps_a_model_from_being_replaced(tmp_path):
    recipe = tiny_recipe()
    model = write_tiny(tmp_path / "model", recipe)
    zoo.replace_graphs(model, {"manifest.json": b"{}"})
    (model / "graphs" / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"has graphs/notes.txt in it, which would be lost"):
        zoo.write_model(model, recipe, build(recipe).state_dict(), card="", overwrite=True)
    assert (model / "graphs" / "notes.txt").read_text() == "mine"


def test_a_model_that_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
    recipe = tiny_recipe()
    tensors = build(recipe).state_dict()

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(OutputError, match="No space left on device"):
        zoo.write_model(tmp_path / "model", recipe, tensors, card="")
    assert list(tmp_path.iterdir()) == []


def test_weights_that_do_not_fit_on_the_disk_leave_nothing(tmp_path):
    recipe = tiny_recipe()
    tensors = build(recipe).state_dict()
    with full_disk(20_000), pytest.raises(OutputError, match=r"model: .*File too large.*; choose another -o"):
        zoo.write_model(tmp_path / "model", recipe, tensors, card="")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("num_shared", [0, 1, 3])
def test_started_from_dac_every_domain_codes_as_dac_does_and_in_time(tmp_path, num_shared):
    import dataclasses

    data = Path(__file__).parent / "data"
    imported = read_checkpoint(data / "official_dac_tiny.pth")
    dac = zoo.write_model(tmp_path / "dac", imported.recipe, imported.tensors, card="")
    sizes = imported.recipe
    recipe = dataclasses.replace(
        sizes,
        model=dataclasses.replace(sizes.model, domains=("speech", "music", "sfx"), activity=True),
        decoder=dataclasses.replace(sizes.decoder, upsampling="exact"),
        quantizer=dataclasses.replace(sizes.quantizer, num_shared=num_shared),
        mixing=MixingFields(),
    )
    network, given = build(recipe).requires_grad_(False), load_network(dac)
    start_from(network, recipe, dac)
    torch.manual_seed(0)
    wav = torch.randn(1, 1, 16_000) * 0.1
    expected = given.quantize(given.encode(wav))
    quantized = network.quantize(network.encode(wav))
    for domain in range(3):
        assert torch.equal(quantized.codes[domain], expected.codes[0])
    # DAC's own decoder loses samples at the end, and nothing before.
    theirs, ours = given.decode(expected.latents[0]), network.decode(quantized.latents[1])
    torch.testing.assert_close(ours[..., :8000], theirs[..., :8000], atol=1e-4, rtol=0)


def larger(recipe):
    import dataclasses

    encoder = dataclasses.replace(recipe.encoder, depth=4, dilations=(1, 1, 2, 4), context_window_length=1600)
    return dataclasses.replace(recipe, encoder=encoder, decoder=dataclasses.replace(recipe.decoder, depth=3))


def test_long_windows_that_are_added_change_nothing_at_first_and_learn_at_once(tmp_path):
    import dataclasses

    recipe = tiny_recipe()
    smaller = zoo.find(write_tiny(tmp_path / "smaller", recipe))
    windows = dataclasses.replace(recipe.encoder, context_window_length=1600)
    network, given = build(dataclasses.replace(recipe, encoder=windows)), load_network(smaller)
    start_from(network, recipe, smaller)
    wav = torch.randn(1, 1, 16_000, generator=torch.Generator().manual_seed(0)) * 0.1
    quantized, expected = network.quantize(network.encode(wav)), given.quantize(given.encode(wav))
    assert torch.equal(quantized.codes, expected.codes)
    torch.testing.assert_close(network.decode(quantized.latents[0]), given.decode(expected.latents[0]))
    network.decode(quantized.latents.sum(0)).square().sum().backward()
    added = network.encoder.embed_context.weight.grad
    assert added is not None
    assert bool(added.any())


@pytest.mark.parametrize(("depth", "shared"), [(4, [2, 2, 2, 2]), (3, [2, 2, 1]), (5, [3, 3, 3, 2, 2])])
def test_blocks_of_a_deeper_network_start_as_copies_that_share_what_one_did(tmp_path, depth, shared):
    import dataclasses

    recipe = tiny_recipe()
    smaller = zoo.find(write_tiny(tmp_path / "smaller", recipe))
    deeper = dataclasses.replace(
        recipe,
        encoder=dataclasses.replace(recipe.encoder, depth=depth),
        decoder=dataclasses.replace(recipe.decoder, depth=depth),
    )
    network, given = build(deeper).requires_grad_(False), load_network(smaller).requires_grad_(False)
    start_from(network, recipe, smaller)
    for part in ("encoder", "decoder"):
        blocks, theirs = getattr(network, part).blocks, getattr(given, part).blocks
        for number, (block, copies) in enumerate(zip(blocks, shared, strict=True)):
            source = theirs[number * len(theirs) // depth]
            torch.testing.assert_close(block.scale * copies, source.scale)
            assert torch.equal(block.project.weight, source.project.weight)
        assert sum(1 / copies for copies in shared) == pytest.approx(len(theirs))
    # Close to what it was, when there is nothing but the blocks to tell them apart.
    latent = torch.randn(1, recipe.model.latent_dim, 50, generator=torch.Generator().manual_seed(0))
    expected, found = given.decode(latent), network.decode(latent)
    for block in given.decoder.blocks:
        block.scale.zero_()
    assert (found - expected).square().mean() < 0.05 * (given.decode(latent) - expected).square().mean()


def test_a_start_from_a_larger_network_is_refused(tmp_path):
    other = zoo.find(write_tiny(tmp_path / "larger", larger(tiny_recipe())))
    with pytest.raises(ModelError, match="cannot be a start for this recipe"):
        start_from(build(tiny_recipe()), tiny_recipe(), other)


def test_a_start_of_another_size_is_refused(tmp_path):
    other = zoo.find(write_tiny(tmp_path / "conv", tiny_recipe("conv")))
    with pytest.raises(ModelError, match="cannot be a start for this recipe"):
        start_from(build(tiny_recipe()), tiny_recipe(), other)


def test_a_run_is_never_replaced_by_a_model_nor_any_folder_that_has_more_than_a_model_in_it(tmp_path):
    recipe = tiny_recipe()
    tensors = build(recipe).state_dict()
    model = write_tiny(tmp_path / "model", recipe)
    (model / "checkpoints").mkdir()
    with pytest.raises(OutputError, match="has checkpoints in it, which would be lost"):
        zoo.write_model(model, recipe, tensors, card="", overwrite=True)
    assert (model / "checkpoints").is_dir()


def test_a_model_that_cannot_take_its_place_leaves_the_one_that_is_there(tmp_path, monkeypatch):
    recipe = tiny_recipe()
    model = write_tiny(tmp_path / "model", recipe)
    rename = Path.rename

    def interrupted(path: Path, target: Path) -> Path:
        if target == model and not path.name.endswith("-before"):
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        zoo.write_model(model, recipe, build(recipe).state_dict(), card="# two\n", overwrite=True)
    assert zoo.find(model).card == "# tiny\n"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_bare_name_means_the_zoo_whatever_lies_in_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / zoo.DEFAULT_MODEL).mkdir()
    write_tiny(tmp_path / "dac-16k", tiny_recipe())
    monkeypatch.chdir(tmp_path)
    assert zoo.find().folder == zoo.find(zoo.DEFAULT_MODEL).folder == zoo.zoo_folder() / zoo.DEFAULT_MODEL
    assert zoo.find("dac-16k").name == "dac-16k"
    assert zoo.find("./dac-16k").name == "tiny-spectral"
