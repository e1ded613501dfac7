"""A model whose lowest branch is another model and whose upper one codes what is above: from the recipe to files."""

from __future__ import annotations

import dataclasses
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from sdcodec_cli import load_codec, weights, zoo
from sdcodec_cli.bitstream import Reader
from sdcodec_cli.data.pool import Pool
from sdcodec_cli.engine.codec import Codec
from sdcodec_cli.engine.compress import compress
from sdcodec_cli.engine.decode import decode
from sdcodec_cli.engine.train import checkpoint
from sdcodec_cli.engine.train.batches import make_batch
from sdcodec_cli.engine.train.distributed import Processes
from sdcodec_cli.engine.train.export import export, export_stage
from sdcodec_cli.engine.train.loop import train
from sdcodec_cli.engine.train.trainer import Trainer
from sdcodec_cli.errors import ModelError, RecipeError
from sdcodec_cli.families import of
from sdcodec_cli.families.bands import BandsRecipe
from sdcodec_cli.nn.distances import mel_distance
from sdcodec_cli.nn.resample import resample
from sdcodec_cli.recipe import ReferenceFields, StageFields, make_recipe, read_recipe, write_recipe

from cli_examples import errors, sdc
from tiny_models import noise_clips, tiny_bands, tiny_recipe, write_tiny
from training_examples import QUICK, validations

pytestmark = pytest.mark.usefixtures("without_graphs", "small_validation")

DOMAINS = ("speech", "music", "sfx")


def digest_of(folder: Path) -> bytes:
    return weights.sha256(weights.read(folder / zoo.WEIGHTS))


def above(folder: Path, digest: str | None = None, **changes: Any) -> BandsRecipe:
    """The model of a folder, and a branch above it."""
    recipe = tiny_bands(domains=DOMAINS, activity=True)
    reference = ReferenceFields(model=str(folder), weights_sha256=digest or digest_of(folder).hex())
    upper = dataclasses.replace(recipe.branches[1], residual="above")
    training = dataclasses.replace(recipe.training, **changes.pop("training", {}))
    return dataclasses.replace(recipe, branches=(reference, upper), training=training, **changes)


@pytest.fixture(scope="module")
def lower(tmp_path_factory) -> Path:
    recipe = tiny_recipe()
    recipe = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, effort=1, texture=1400.0))
    return write_tiny(tmp_path_factory.mktemp("lower") / "low", recipe)


def trained(lower: Path) -> Trainer:
    recipe = above(lower)
    return Trainer(recipe, Processes("cpu", recipe.training))


@pytest.fixture(scope="module")
def whole(lower) -> Path:
    """A model above that of `lower`, with random weights of its own."""
    return write_tiny(lower.parent / "whole", above(lower), seed=1)


@pytest.fixture(scope="module")
def codec(whole) -> Codec:
    return load_codec(whole, device="cpu")


# -------------------------------------------------------------------------------------------------------------- recipe


def test_a_reference_survives_writing_and_reading(lower, tmp_path):
    recipe = above(lower)
    write_recipe(recipe, tmp_path / "recipe.toml")
    assert read_recipe(tmp_path / "recipe.toml") == recipe
    assert recipe.parts == ("branches.1",)
    assert recipe.codecs[0] == zoo.find(lower).recipe
    assert [stream.num_codebooks for stream in of(recipe).streams(recipe)] == [4, 4, 4, 2, 2, 2]


def test_the_recipe_of_the_zoo_refers_to_the_model_that_ships():
    recipe = zoo.find("sdcodec-32k-mini").recipe
    (reference,) = of(recipe).references(recipe).values()
    assert reference.weights_sha256 == digest_of(zoo.find(reference.model).folder).hex()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stages": (StageFields(parts=("branches.0",)),)}, "stages.0.parts: branches.0 is tiny-spectral, which stays"),
        ({"training": {"level_weight": 1.0}}, "training.level_weight is about what a branch with residual"),
        ({"training": {"narrow_probability": 0.5}}, "training.narrow_probability is about what a branch with"),
    ],
)
def test_what_does_not_go_with_a_reference_is_refused(lower, changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        above(lower, **changes)


def test_branches_that_cannot_be_are_refused(lower):
    recipe = above(lower)
    reference, upper = recipe.branches
    for branches, message in (
        ((reference,), "there is nothing above the model that is referred to"),
        ((upper, reference), "branches.1.model: only the first branch can be another model"),
        ((dataclasses.replace(upper, sample_rate=16_000), upper), "branches.0.residual: there is nothing below"),
        ((dataclasses.replace(reference, model="gone"), upper), "branches.0.model: gone: no such model; the zoo has"),
        ((dataclasses.replace(reference, model="bands-32k"), upper), "is of the family bands; give a model of"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            dataclasses.replace(recipe, branches=branches)
    with pytest.raises(ValueError, match=re.escape("model.loudness is -20.0, that of tiny-spectral -27.0; make them")):
        dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, loudness=-20.0))
    for fields, message in (
        ({"model": "some/where", "weights_sha256": "0" * 64}, "must be a name of the zoo or an absolute path"),
        ({"model": "x", "weights_sha256": "0"}, "branches.weights_sha256 must be 64 hexadecimal digits"),
        ({"model": "x", "weights": "0"}, "unknown field branches.weights; did you mean branches.weights_sha256?"),
    ):
        with pytest.raises(RecipeError, match=re.escape(message)):
            make_recipe({"name": "x", "family": "bands", "branches": [fields]}, where="mine.toml")


# ------------------------------------------------------------------------------------------------------------ training


def test_training_never_runs_moves_or_stores_the_model_below(lower):
    trainer = trained(lower)
    bands = trainer.model
    bands.codecs[0].encoder.register_forward_pre_hook(lambda module, inputs: pytest.fail("it was run"))
    pool = Pool(32_000, {d: noise_clips(seconds=8, count=2, seed=n, sample_rate=32_000) for n, d in enumerate(DOMAINS)})
    batch = make_batch(pool, trainer.recipe, range(2))
    for _ in range(2):
        trainer.backward([batch])
        trainer.take_step()
    trainer.renew_codebooks(batch)
    tensors = weights.unpack(weights.read(lower / zoo.WEIGHTS))
    assert all(
        np.array_equal(buffer, tensors[name]) for name, buffer in bands.codecs[0].named_buffers() if name in tensors
    )
    assert tensors.keys() <= dict(bands.codecs[0].named_buffers()).keys()
    state = trainer.state()
    for kind in ("model", "average"):
        assert all(name.startswith("branches.1.") for name in state[kind])
    assert not state["random"]


@torch.no_grad()
def test_a_branch_above_is_given_and_compared_with_what_is_above_alone(lower):
    trainer = trained(lower)
    time = torch.arange(16_000, dtype=torch.float64) / 32_000
    low, high = (0.1 * torch.sin(2 * torch.pi * hertz * time).float() for hertz in (1000, 12_000))
    stems = torch.stack([torch.stack([low, high, 0 * low])] * 2)
    given: list[torch.Tensor] = []
    trainer.model.codecs[1].encoder.register_forward_pre_hook(lambda module, inputs: given.append(inputs[0][:, 0]))
    choices = of(trainer.recipe).choose(np.ones((2, 3), dtype=bool), trainer.recipe, range(2))
    outputs = trainer.objective(stems, choices)
    inner = slice(1000, 15_000)
    for found in (given[0], outputs["1.stems"].sum(1)):
        torch.testing.assert_close(found[0, inner], high[inner], atol=1e-4, rtol=0)
    assert float(outputs["1.stems"][:, 0, inner].abs().max()) < 1e-4


@torch.no_grad()
def test_what_has_nothing_above_loses_nothing_there(lower):
    trainer = trained(lower)
    noise = torch.randn(2, 3, 8000, generator=torch.Generator().manual_seed(0)) * 0.1 * torch.hann_window(8000)
    choices = of(trainer.recipe).choose(np.ones((2, 3), dtype=bool), trainer.recipe, range(2))
    for stems, something in ((noise, True), (resample(noise, 8000, 32_000), False)):
        found = trainer.objective.losses(trainer.objective(stems, choices), stems, choices, step=0)
        assert (float(found["mel"]) != 0, float(found["snr"]) != 0) == (something, something)


@torch.no_grad()
def test_bands_below_a_frequency_have_no_part_in_the_mel_distance():
    wanted = torch.randn(1, 16_000, generator=torch.Generator().manual_seed(0)) * 0.1
    low = resample(resample(wanted, 32_000, 8000), 8000, 32_000, length=16_000)
    near, far = (float(mel_distance(wanted - low, wanted, sample_rate=32_000, lowest=hz)) for hz in (8000.0, 0.0))
    assert near < 0.2 < far


def test_a_run_becomes_a_model_without_the_weights_below(lower, corpus, tmp_path):
    recipe = above(lower, mixing=dataclasses.replace(above(lower).mixing, min_sample_rate=0), training={"steps": 3})
    options = dataclasses.replace(QUICK, validate_every=3)
    train(recipe, data_root=corpus, run=tmp_path / "run", options=options)
    assert "mix above 8 kHz" in validations(tmp_path / "run")[-1]
    assert not any(
        key.startswith("branches.0.") for key in checkpoint.read(checkpoint.newest(tmp_path / "run"))["model"]
    )
    entry = export(tmp_path / "run", tmp_path / "model", bits=16)
    assert all(name.startswith("branches.1.") for name in weights.read(entry.folder / zoo.WEIGHTS))
    train(recipe, data_root=corpus, run=tmp_path / "again", initial=entry, options=QUICK)
    with pytest.raises(ValueError, match="this stage of tiny-bands is the model tiny-spectral; use that"):
        export_stage(entry, tmp_path / "stage", number=1)


# ------------------------------------------------------------------------------------------------------ in the engine


def test_files_name_the_model_below_which_decodes_them_to_the_byte_what_it_makes_itself(codec, lower, tmp_path):
    alone = load_codec(lower, device="cpu")
    wav = np.random.default_rng(0).standard_normal(20_001).astype(np.float32) * 0.05
    soundfile.write(tmp_path / "a.wav", wav, 32_000, subtype="FLOAT")
    compress(tmp_path / "a.wav", tmp_path / "whole.sdc", codec=codec)
    compress(tmp_path / "a.wav", tmp_path / "alone.sdc", codec=alone, treble=False)
    with (tmp_path / "whole.sdc").open("rb") as file:
        (below,) = Reader(file).header.lower
    assert (below.model, below.weights_sha256) == ("tiny-spectral", digest_of(lower))

    def decoded(name: str, by: Codec, **options: Any) -> bytes:
        decode(tmp_path / name, {"mix": tmp_path / "back.wav"}, codec=by, overwrite=True, **options)
        return (tmp_path / "back.wav").read_bytes()

    expected = decoded("alone.sdc", alone)
    assert decoded("whole.sdc", alone) == decoded("whole.sdc", codec, below=8000) == expected
    plain = decoded("alone.sdc", alone, texture=False)
    assert decoded("whole.sdc", codec, below=8000, texture=False) == plain != expected
    assert decoded("whole.sdc", codec) != expected


@pytest.mark.parametrize("length", [1, 640, 641, 20_001, 150_000])
def test_what_the_upper_stage_codes_is_above_whatever_is_decoded_below(codec, length):
    wav = np.random.default_rng(0).standard_normal(length).astype(np.float32) * 0.05
    few, many = (codec.encode(wav, num_codebooks=count, normalize=False, active=DOMAINS) for count in (2, 4))
    assert np.array_equal(few.codes["music-2"], many.codes["music-2"][:, :1])
    if length < 10_000:
        return
    given = torch.from_numpy(wav)[None, None]
    given = given - resample(resample(given, 32_000, 16_000), 16_000, 32_000, length=length)
    network = torch.nn.functional.pad(given, (0, -length % 640))
    stage = codec.stages[1]
    expected = stage.quantize(stage.analyse(network[0, 0].numpy()).latent)
    assert (many.codes["music-2"][0] == expected[1]).mean() > 0.98


def test_effort_below_is_that_of_the_model_and_none_above(codec):
    assert codec.effort == 1
    assert [stage.effort for stage in codec.stages] == [1, 0]


def test_the_hash_of_a_model_depends_on_the_one_below(lower, codec, tmp_path):
    other = write_tiny(tmp_path / "other", zoo.find(lower).recipe, seed=7)
    moved = load_codec(write_tiny(tmp_path / "moved", above(other), seed=1), device="cpu")
    assert moved.stages[1].weights_sha256 == codec.stages[1].weights_sha256
    assert moved.weights_sha256 != codec.weights_sha256


def test_other_weights_below_are_refused_in_training_and_use(lower, whole, tmp_path):
    other = write_tiny(tmp_path / "other", zoo.find(lower).recipe, seed=7)
    recipe = above(other, digest_of(lower).hex())
    message = re.escape(
        f"{other}: has other weights ({digest_of(other).hex()[:8]}) than the model above it was made for"
    )
    with pytest.raises(ModelError, match=message):
        Trainer(recipe, Processes("cpu", recipe.training))
    shutil.copytree(whole, tmp_path / "whole")
    write_recipe(recipe, tmp_path / "whole" / zoo.RECIPE)
    with pytest.raises(ModelError, match=message):
        load_codec(tmp_path / "whole", device="cpu")
    (other / zoo.WEIGHTS).unlink()
    with pytest.raises(ModelError, match="tiny-spectral: this recipe comes without weights; train them"):
        load_codec(tmp_path / "whole", device="cpu")


def test_show_says_which_stage_is_another_model(whole, lower):
    lines = sdc("models", "show", whole).stdout.splitlines()
    assert "  stage 1  16000 Hz, 4 x 64, up to 1.2 kbit/s, the model tiny-spectral" in lines
    assert "  effort   1 by default" in lines
    (line,) = errors(sdc("models", "export", whole, "--stage", "1", "-o", whole.parent / "x"), exit_code=2)
    assert line == "--stage 1: this stage of tiny-bands is the model tiny-spectral; use that"
