"""Recipes of codecs for bands of frequency: tables of branches, and what is refused about them."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest

from sdcodec_cli.engine.train.setup import changes
from sdcodec_cli.errors import RecipeError
from sdcodec_cli.families import of
from sdcodec_cli.families.bands import BandsRecipe, branch_recipe
from sdcodec_cli.recipe import StageFields, make_recipe, override, read_recipe, write_recipe
from sdcodec_cli.zoo import find

from tiny_models import tiny_bands


def with_branches(*changed: dict[str, Any], **model: Any) -> BandsRecipe:
    """The tiny recipe with some fields of its branches, and of its model, changed."""
    recipe = tiny_bands(rates=(16_000, 32_000))
    branches = tuple(
        dataclasses.replace(branch, **fields) for branch, fields in zip(recipe.branches, changed, strict=True)
    )
    return dataclasses.replace(recipe, branches=branches, model=dataclasses.replace(recipe.model, **model))


def test_tables_of_branches_survive_writing_and_reading(tmp_path):
    recipe = dataclasses.replace(tiny_bands("conv"), stages=(StageFields(parts=("branches.1",)),))
    write_recipe(recipe, tmp_path / "recipe.toml")
    assert read_recipe(tmp_path / "recipe.toml") == recipe


def test_fields_of_a_branch_are_set_by_its_number():
    recipe = override(tiny_bands(), {"branches.1.quantizer.num_codebooks": "5", "branches.0.latent_dim": "8"})
    assert isinstance(recipe, BandsRecipe)
    assert [branch.quantizer.num_codebooks for branch in recipe.branches] == [2, 5]
    assert [branch.latent_dim for branch in recipe.branches] == [8, 16]
    with pytest.raises(RecipeError, match="say which of the 2, from 0 to 1, as in branches.1.sample_rate"):
        override(tiny_bands(), {"branches.latent_dim": "8"})


def test_what_changed_in_a_branch_is_named():
    after = override(tiny_bands(), {"branches.1.quantizer.num_codebooks": "5"})
    assert list(changes(tiny_bands(), after)) == ["branches.1.quantizer.num_codebooks was 2 and is now 5"]


def test_a_branch_is_an_sd_codec_by_itself():
    recipe = tiny_bands(domains=("speech", "music"), activity=True)
    assert [(prefix, codec.family) for prefix, codec in of(recipe).codecs(recipe).items()] == [
        ("branches.0.", "sdcodec"),
        ("branches.1.", "sdcodec"),
    ]
    low = branch_recipe(recipe, 0)
    assert (low.model.sample_rate, low.model.domains, low.model.activity) == (16_000, ("speech", "music"), True)
    assert (low.encoder, low.quantizer) == (recipe.branches[0].encoder, recipe.branches[0].quantizer)


def test_streams_are_named_after_domain_and_branch():
    recipe = tiny_bands(rates=(16_000, 32_000, 48_000), domains=("speech", "music"))
    streams = of(recipe).streams(recipe)
    assert [stream.name for stream in streams] == ["speech", "music", "speech-2", "music-2", "speech-3", "music-3"]
    assert [stream.stem for stream in streams] == ["speech", "music"] * 3


def test_the_papers_recipe_has_two_kilobits_in_each_branch():
    recipe = find("bands-32k").recipe
    assert [stream.bitrate for stream in of(recipe).streams(recipe)] == [2.0, 2.0]
    for name, rate in (("dac-16k-2k", 2.0), ("dac-32k", 4.0)):
        baseline = find(name).recipe
        assert [stream.bitrate for stream in of(baseline).streams(baseline)] == [rate]


@pytest.mark.parametrize("name", ["bands-32k-mini", "dac-16k-2k-mini", "dac-32k-mini"])
def test_minis_have_the_bitrates_of_the_recipes_that_they_are_small_ones_of(name):
    small, large = (find(each).recipe for each in (name, name.removesuffix("-mini")))
    assert of(small).streams(small) == of(large).streams(large)
    assert small.model.sample_rate == large.model.sample_rate


@pytest.mark.parametrize(
    ("branches", "model", "message"),
    [
        (({}, {"sample_rate": 16_000}), {}, "branches.1.sample_rate must be more than 16000, that of the one before"),
        (({}, {"sample_rate": 44_100}), {}, "branches: 16000 and 44100 Hz are as 160 to 441; choose rates that are"),
        (({}, {}), {"sample_rate": 48_000}, "model.sample_rate is 48000, that of the last branch 32000; make them"),
        (({}, {"hop_length": 500}), {}, "branches.1: encoder.window_length must exceed hop_length by an even number"),
        (({}, {"latent_dim": 0}), {}, "branches.latent_dim must be positive"),
        (({}, {}), {"domains": ("a" * 32,)}, "model.domains: a domain's name must be 1 to 32"),
    ],
)
def test_branches_that_make_no_codec_are_refused(branches, model, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        with_branches(*branches, **model)


def test_two_streams_of_one_name_are_refused():
    with pytest.raises(ValueError, match="two streams have one name, of voice, voice-2, voice-2, voice-2-2"):
        tiny_bands(domains=("voice", "voice-2"))


def test_no_branches_are_too_few():
    with pytest.raises(ValueError, match="the number of branches must be between 1 and 4, got 0"):
        dataclasses.replace(tiny_bands(), branches=())


def test_a_branch_has_to_say_its_rate():
    table = {"hop_length": 320, "encoder": {"strides": [320]}, "decoder": {"strides": [320]}, "quantizer": {}}
    with pytest.raises(RecipeError, match="mine.toml: branches.sample_rate is missing; it has no default"):
        make_recipe({"name": "x", "family": "bands", "branches": [table]}, where="mine.toml")


def test_stages_name_branches():
    with pytest.raises(ValueError, match=re.escape("there is no 'branches.2'; choose among branches.0, branches.1")):
        dataclasses.replace(tiny_bands(), stages=(StageFields(parts=("branches.2",)),))
