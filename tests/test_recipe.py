"""Recipes: defaults, reading, checks, overrides."""

from __future__ import annotations

import dataclasses
import math
import re

import pytest

from sdcodec_cli.errors import RecipeError
from sdcodec_cli.families.sdcodec import FAMILY, SDCodecRecipe
from sdcodec_cli.recipe import StageFields, make_recipe, override, read_recipe, write_recipe
from sdcodec_cli.zoo import list_models


def test_the_defaults_are_the_papers():
    recipe = SDCodecRecipe(name="paper")
    (stream, *_) = FAMILY.streams(recipe)
    assert (stream.frame_rate, stream.bitrate, stream.codebook_bitrate) == (50.0, 6.0, 0.5)
    assert recipe.mixing.track_probabilities == (0.6, 0.2, 0.2)
    assert recipe.mixing.loudness == (-17.0, -24.0, -21.0)
    assert recipe.training.steps == 400_000


def test_the_papers_recipe_of_the_zoo_says_what_the_defaults_say():
    entry = next(entry for entry in list_models() if entry.name == "sdcodec-16k")
    described = dataclasses.replace(entry.recipe.model, description="")
    assert dataclasses.replace(entry.recipe, model=described) == SDCodecRecipe(name="sdcodec-16k")


@pytest.mark.parametrize("entry", list_models(), ids=lambda entry: entry.name)
def test_every_recipe_survives_being_written_and_read(entry, tmp_path):
    write_recipe(entry.recipe, tmp_path / "recipe.toml")
    assert read_recipe(tmp_path / "recipe.toml") == entry.recipe


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"name": "x", "trainin": {}}, "unknown field trainin; did you mean training?"),
        ({"name": "x", "training": {"step": 1}}, "unknown field training.step; did you mean training.steps?"),
        ({"name": "x", "training": {"steps": "many"}}, "training.steps must be of type int, got 'many'"),
        ({"name": "x", "training": {"steps": True}}, "training.steps must be of type int, got True"),
        ({"name": "x", "training": {"schedule": "linear"}}, "training.schedule must be one of exponential, cosine"),
        ({"name": "x", "training": {"betas": [0.9]}}, "training.betas must have 2 entries, got 1"),
        ({"name": "x", "training": 3}, "training must be a table, got 3"),
        ({"name": "x", "model": {"hop_length": 160}}, "encoder.strides multiply to 320, but model.hop_length is 160"),
        ({"name": "x", "model": {"domains": ["a", "a"]}}, "model.domains names a domain twice"),
        ({"name": "x", "model": {"domains": ["mix"]}}, "model.domains: mix is reserved"),
        ({"name": "x", "quantizer": {"num_shared": 13}}, "quantizer.num_shared must be between 0 and num_codebooks"),
        ({"name": "x", "quantizer": {"num_shared": 12}}, "leaves nothing that tells domains apart"),
        (
            {
                "name": "x",
                "quantizer": {"projection": "hard"},
                "model": {"domains": ["a"]},
                "mixing": {"loudness": [-20.0], "track_probabilities": [1.0]},
            },
            "quantizer.projection: hard shares out the latent among domains; name two or more",
        ),
        (
            {"name": "x", "training": {"orthogonality_weight": 1.0}},
            "orthogonality_weight: is for soft projections only",
        ),
        ({"name": "x", "semantic": {"teacher": "hama"}}, "semantic.teacher and training.semantic_weight go together"),
        (
            {"name": "x", "training": {"semantic_weight": 1.0}},
            "semantic.teacher and training.semantic_weight go together",
        ),
        ({"name": "x", "semantic": {"teacher": "folder"}}, "a folder as teacher needs folder and width"),
        ({"name": "x", "semantic": {"teacher": "hama", "width": 3}}, "folder and width are for teacher"),
        (
            {
                "name": "x",
                "semantic": {"teacher": "hama"},
                "training": {"semantic_weight": 1.0},
                "model": {"sample_rate": 32000},
            },
            "semantic: hama hears 16000 Hz, not 32000; use a folder",
        ),
        (
            {
                "name": "x",
                "semantic": {"teacher": "hama"},
                "training": {"semantic_weight": 1.0},
                "model": {"domains": ["a", "b", "c"]},
            },
            "semantic: there is no domain speech to be taught",
        ),
        ({"name": "x", "model": {"causal": True, "activity": True}}, "model.causal: the activity head looks ahead"),
        ({"name": "x", "mixing": {"snr_range": [3.0, -3.0]}}, "mixing.snr_range must be two numbers, the lower first"),
        ({"name": "x", "mixing": {"domain_probabilities": [0.5]}}, "domain_probabilities needs one per domain, 3"),
        ({"name": "x", "encoder": {"kind": "spectral", "depth": 2}}, "window_length must be positive"),
        (
            {"name": "x", "mixing": {"domains": ["speech", "noise", "rain"]}},
            "mixing.domains: speech, noise, rain cannot be shared out among speech, music, sfx; name the",
        ),
        (
            {
                "name": "x",
                "encoder": {"kind": "spectral", "depth": 2, "window_length": 640, "context_window_length": 600},
            },
            "context_window_length must be even and more than window_length",
        ),
        (
            {
                "name": "x",
                "decoder": {"kind": "spectral", "depth": 2, "window_length": 640, "context_window_length": 800},
            },
            "context_window_length belongs to the encoder",
        ),
        (
            {"name": "x", "encoder": {"kind": "spectral", "depth": 2, "window_length": 640, "dilations": [1, 2, 4]}},
            "dilations must be 2 numbers, one for each block, of 1 or more, got [1, 2, 4]",
        ),
        (
            {"name": "x", "encoder": {"kind": "spectral", "depth": 2, "window_length": 640, "dilations": [1, 0]}},
            "dilations must be 2 numbers, one for each block, of 1 or more, got [1, 0]",
        ),
        ({"name": "x", "encoder": {"strides": [2], "dilations": [1]}}, "dilations belong to spectral networks"),
        (
            {
                "name": "x",
                "model": {"hop_length": 441},
                "encoder": {"kind": "spectral", "depth": 2, "window_length": 661},
                "decoder": {"kind": "spectral", "depth": 2, "window_length": 661},
            },
            "encoder.window_length must be even, and so the hop",
        ),
        ({"name": "x", "encoder": {"width": 64}}, "a conv network needs strides"),
        (
            {"name": "x", "encoder": {"strides": [2], "lstm_layers": 2}},
            "lstm_context must be between 1 and 100, got 0",
        ),
        (
            {"name": "x", "encoder": {"strides": [2], "lstm_context": 24}},
            "lstm_context is for an LSTM: set lstm_layers, or leave it out",
        ),
        ({"name": "x", "encoder": {"strides": [2], "lstm_layers": 5}}, "lstm_layers must be between 0 and 4, got 5"),
        (
            {"name": "x", "encoder": {"kind": "spectral", "depth": 2, "window_length": 640, "lstm_layers": 2}},
            "lstm_layers and lstm_context belong to conv networks",
        ),
        (
            {
                "name": "x",
                "model": {"latent_dim": 15},
                "decoder": {"width": 1536, "strides": [8, 5, 4, 2], "lstm_layers": 2, "lstm_context": 24},
            },
            "model.latent_dim must be even for the two directions of a BiLSTM, got 15",
        ),
        ({"name": "x", "mixing": {"track_probabilities": [0.5, 0.2]}}, "must be non-negative and add up to 1"),
        ({"name": "x", "mixing": {"seconds": 0.1}}, "mixing.seconds must be from 0.4"),
        ({}, "name"),
        ({"name": "x", "training": {"betas": [0.8, 1.5]}}, "training.betas must be at least 0 and less than 1"),
        ({"name": "x", "training": {"learning_rate": math.inf}}, "training.learning_rate must be positive and finite"),
        ({"name": "x", "training": {"snr_weight": -1}}, "training.snr_weight must be finite and not negative"),
        ({"name": "x", "training": {"mel_weight": math.nan}}, "training.mel_weight must be finite and not negative"),
        ({"name": "x", "training": {"average_decay": 1}}, "training.average_decay must be at least 0 and less than 1"),
        ({"name": "x", "training": {"gamma": 2}}, "training.gamma must be more than 0 and at most 1, got 2.0"),
        ({"name": "x", "discriminator": {"betas": [2, 2]}}, "discriminator.betas must be at least 0 and less than 1"),
        (
            {"name": "x", "augmentation": {"layering": [0.5]}},
            "augmentation.layering needs one probability per domain, 3",
        ),
        (
            {"name": "x", "augmentation": {"layering": [0, 0, 2]}},
            "augmentation.layering must be between 0 and 1, got 2",
        ),
        ({"name": "x", "mixing": {"peak": 5}}, "mixing.peak must be between -60 and 0, got 5.0"),
        ({"name": "x", "mixing": {"quiet_range": -3}}, "mixing.quiet_range must be between 0 and 60, got -3.0"),
        (
            {"name": "x", "mixing": {"loudness": [math.nan, -20, -20]}},
            "mixing.loudness must be between -70 and 0, got nan",
        ),
    ],
)
def test_a_recipe_that_makes_no_sense_says_why(tables, message):
    with pytest.raises(RecipeError) as caught:
        make_recipe(tables, where="mine.toml")
    assert message in str(caught.value)
    assert str(caught.value).startswith("mine.toml: ")


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"name": "a/b"}, "name: model must be a name, not a path, got 'a/b'"),
        ({"name": "x" * 65}, "name: length of model in bytes must be 1 to 64, got 65"),
        ({"name": "x", "model": {"domains": ["a b"]}}, "model.domains: a domain's name must be 1 to 32 of a-z 0-9 _ -"),
        ({"name": "x", "model": {"domains": [f"d{n}" for n in range(17)]}}, "model.domains must name 1 to 16 domains"),
        ({"name": "x", "model": {"sample_rate": 10**7}}, "model.sample_rate must be between 1 and 1000000"),
        ({"name": "x", "model": {"description": "a\nb"}}, "model.description must be one line"),
        ({"name": "x", "quantizer": {"num_codebooks": 65}}, "quantizer.num_codebooks must be between 1 and 64"),
        ({"name": "x", "quantizer": {"codebook_size": 65537}}, "quantizer.codebook_size must be between 2 and 65536"),
    ],
)
def test_what_a_stream_could_not_say_of_a_model_is_refused_before_it_is_trained(tables, message):
    domains = tables.get("model", {}).get("domains", ["a", "b", "c"])
    mixing = {"track_probabilities": [1.0], "loudness": [-20.0] * len(domains)}
    with pytest.raises(RecipeError) as caught:
        make_recipe({**tables, "mixing": mixing}, where="mine.toml")
    assert message in str(caught.value)


def test_a_codebook_of_a_thousand_entries_costs_the_bits_of_1024():
    recipe = override(SDCodecRecipe(name="x"), {"quantizer.codebook_size": "1000"})
    assert FAMILY.streams(recipe)[0].bitrate == FAMILY.streams(SDCodecRecipe(name="x"))[0].bitrate == 6.0


def test_a_missing_file_and_a_broken_one_are_named(tmp_path):
    with pytest.raises(RecipeError, match="No such file"):
        read_recipe(tmp_path / "none.toml")
    (tmp_path / "broken.toml").write_text("name = ")
    with pytest.raises(RecipeError, match=r"broken\.toml: not a TOML file"):
        read_recipe(tmp_path / "broken.toml")


def test_overrides_are_written_as_in_toml_and_checked():
    recipe = override(
        SDCodecRecipe(name="x"),
        {"training.steps": "10", "mixing.loudness": "[-1, -2, -3]", "training.schedule": "cosine"},
    )
    assert (recipe.training.steps, recipe.mixing.loudness, recipe.training.schedule) == (
        10,
        (-1.0, -2.0, -3.0),
        "cosine",
    )
    with pytest.raises(RecipeError, match=r"unknown field training\.stepz; did you mean training\.steps\?"):
        override(recipe, {"training.stepz": "1"})
    with pytest.raises(RecipeError, match="training.steps must be positive"):
        override(recipe, {"training.steps": "0"})
    with pytest.raises(RecipeError, match="name has no fields"):
        override(recipe, {"name.x": "0"})


def staged(*stages, **training):
    return make_recipe({"name": "x", "stages": list(stages), "training": {"steps": 10, **training}}, where="mine.toml")


def test_stages_share_out_the_steps_and_the_last_one_takes_the_rest():
    recipe = staged({"steps": 3, "parts": ["encoder"]}, {"steps": 2}, {"losses": ["mel"]})
    assert [stage.steps for stage in recipe.plan] == [3, 2, 5]
    assert [recipe.stage_of(step) for step in (0, 2, 3, 4, 5, 9, 10)] == [0, 0, 1, 1, 2, 2, 2]
    assert [stage.steps for stage in SDCodecRecipe(name="x").plan] == [400_000]


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([{"parts": ["head"]}], "stages.0.parts: there is no 'head'; choose among encoder, quantizer, decoder"),
        ([{"parts": ["activity"]}], "stages.0.parts: there is no 'activity'; choose among encoder, quantizer, decoder"),
        ([{"losses": ["melody"]}], "stages.0.losses: there is no 'melody'; choose among mel, snr"),
        ([{"steps": 0}, {"steps": 10}], "stages.0.steps: has none; only the last stage may leave it out"),
        ([{"steps": 4}, {"steps": 5}], "stages.steps add up to 9; make them, or training.steps (10), agree"),
        ([{"steps": 10}, {}], "stages.steps add up to 10 and leave nothing of training.steps, 10, for the last stage"),
        ([{"parts": ["decoder", "decoder"]}], "stages.0.parts names something twice"),
        ([{"losses": ["snr"]}], "stages.0: none of its losses has a weight; give one a weight"),
        (
            [{"parts": ["decoder"], "losses": ["codebook"]}],
            "stages.0: codebook depend on none of decoder; name other parts or losses",
        ),
        ([{"step": 4}], "unknown field stages.step; did you mean stages.steps?"),
        ([{"learning_rate": 0.0}], "stages.learning_rate must be positive"),
    ],
)
def test_stages_that_make_no_sense_are_refused(stages, message):
    with pytest.raises(RecipeError, match=re.escape(message)):
        staged(*stages)


def test_a_family_that_is_not_there_is_refused_with_those_that_are():
    with pytest.raises(RecipeError, match="mine.toml: family must be one of sdcodec.*; got 'wavenet'"):
        make_recipe({"name": "x", "family": "wavenet"}, where="mine.toml")


def test_stages_and_family_survive_writing_and_reading(tmp_path):
    recipe = staged({"steps": 3, "parts": ["encoder", "decoder"], "learning_rate": 0.5}, {"losses": ["mel"]})
    write_recipe(recipe, tmp_path / "recipe.toml")
    assert read_recipe(tmp_path / "recipe.toml") == recipe


def test_training_parts_of_former_recipes_are_a_stage_now():
    model = {"activity": True}
    former = make_recipe({"name": "x", "model": model, "training": {"parts": "activity"}}, where="mine.toml")
    assert former.stages == (StageFields(parts=("activity",), losses=("activity",)),)
    assert make_recipe({"name": "x", "training": {"parts": "all"}}, where="mine.toml") == SDCodecRecipe(name="x")


def test_fields_of_a_stage_are_set_by_its_number():
    recipe = staged({"steps": 3}, {})
    assert override(recipe, {"stages.0.steps": "4"}).plan[1].steps == 6
    with pytest.raises(RecipeError, match="--set stages.steps: say which of the 2, from 0 to 1, as in stages.1.steps"):
        override(recipe, {"stages.steps": "4"})
    with pytest.raises(RecipeError, match="--set stages.0: set a field of it, such as stages.0.steps"):
        override(recipe, {"stages.0": "4"})


def test_a_stage_that_is_not_there_cannot_be_set():
    with pytest.raises(RecipeError, match="--set stages.2.steps: say which of the 2, from 0 to 1"):
        override(staged({"steps": 3}, {}), {"stages.2.steps": "4"})
    with pytest.raises(RecipeError, match="--set stages.0.steps: the recipe has no stages; write them into"):
        override(SDCodecRecipe(name="x"), {"stages.0.steps": "4"})


def test_training_parts_and_stages_are_not_both_given():
    with pytest.raises(RecipeError, match="say the same; leave training.parts out"):
        staged({}, parts="activity")


def test_what_is_trained_is_what_the_losses_of_a_stage_depend_on():
    recipe = make_recipe({"name": "x", "model": {"activity": True}}, where="mine.toml")
    trained = {
        losses: recipe.trained_in(StageFields(losses=losses))
        for losses in ((), ("mel",), ("activity",), ("codebook",), ("commitment",))
    }
    assert trained == {
        (): ("encoder", "quantizer", "decoder", "activity"),
        ("mel",): ("encoder", "quantizer", "decoder"),
        ("activity",): ("encoder", "activity"),
        ("codebook",): ("quantizer",),
        ("commitment",): ("encoder", "quantizer"),
    }
