"""Training of a model without codes, by the same loop as all others."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from sdcodec_cli.engine.separator import open_separator
from sdcodec_cli.engine.train import checkpoint
from sdcodec_cli.engine.train.distributed import Processes
from sdcodec_cli.engine.train.export import export
from sdcodec_cli.engine.train.loop import train
from sdcodec_cli.engine.train.trainer import Trainer
from sdcodec_cli.errors import ModelError
from sdcodec_cli.families import build, of
from sdcodec_cli.nn.objectives import Choices
from sdcodec_cli.recipe import StageFields
from sdcodec_cli.zoo import find

from tiny_models import tiny_recipe, tiny_separator, write_tiny
from training_examples import QUICK, losses, train_and_stop, validations

pytestmark = pytest.mark.usefixtures("without_graphs", "small_validation")


def test_a_run_learns_and_becomes_a_model_that_separates(corpus, tmp_path):
    recipe = tiny_separator()
    recipe = dataclasses.replace(recipe, training=dataclasses.replace(recipe.training, steps=40, average_decay=0.0))
    options = dataclasses.replace(QUICK, workers=0, validate_every=40)
    train(recipe, data_root=corpus, run=tmp_path / "run", options=options)
    totals = [row["total"] for row in losses(tmp_path / "run")]
    assert sum(totals[-5:]) < sum(totals[:5]) - 10
    assert validations(tmp_path / "run")[-1].keys() == {"speech", "music", "sfx", "mean"}
    entry = export(tmp_path / "run", tmp_path / "model", bits=16)
    assert open_separator(entry.folder, runtime="torch", device="cpu", threads=1).domains == ("speech", "music", "sfx")


def test_a_stopped_run_goes_on_where_an_unbroken_one_would_have_bit_for_bit(corpus, tmp_path):
    options = dataclasses.replace(QUICK, workers=0)
    train(tiny_separator(), data_root=corpus, run=tmp_path / "whole", options=options)
    train_and_stop(tiny_separator(), corpus, tmp_path / "parts", options, during=3)
    train(tiny_separator(), data_root=corpus, run=tmp_path / "parts", resume=True, options=options)
    one, other = (checkpoint.read(checkpoint.newest(tmp_path / name)) for name in ("whole", "parts"))
    assert all(torch.equal(one["average"][name], other["average"][name]) for name in one["average"])


def test_a_domain_that_is_not_there_is_to_be_silent_and_the_others_are_to_be_right():
    recipe = tiny_separator()
    objective = of(recipe).objective(build(recipe), recipe, recipe.plan[0])
    stems = torch.randn(2, 3, 8000, generator=torch.Generator().manual_seed(0)) * 0.1
    active = torch.tensor([[True, True, False], [True, True, True]])
    stems = stems * active[..., None]
    perfect = objective.losses({"stems": stems}, stems, Choices(active), step=0)
    assert float(perfect["snr"]) == pytest.approx((2 + 3) / 2 * -30, abs=0.1)
    assert float(perfect["leakage"]) == pytest.approx(-30 / 2, abs=0.01)
    leaking = stems.clone()
    leaking[0, 2] = stems[0].sum(0)
    found = objective.losses({"stems": leaking}, stems, Choices(active), step=0)
    assert float(found["leakage"]) == pytest.approx(0.0, abs=0.01)
    assert float(found["total"]) == pytest.approx(float(found["snr"] + found["leakage"]))


def test_a_codec_is_no_start_for_it(corpus, tmp_path):
    write_tiny(tmp_path / "codec", tiny_recipe())
    with pytest.raises(
        ModelError,
        match="tiny-spectral: cannot be a start .*, it is of the family sdcodec, the recipe of",
    ):
        train(tiny_separator(), data_root=corpus, run=tmp_path / "run", initial=find(tmp_path / "codec"))


def test_one_that_runs_its_block_more_often_starts_from_the_same_weights(corpus, tmp_path):
    recipe = tiny_separator()
    longer = dataclasses.replace(recipe, separator=dataclasses.replace(recipe.separator, num_iterations=3))
    write_tiny(tmp_path / "short", recipe)
    options = dataclasses.replace(QUICK, workers=0)
    assert train(
        longer, data_root=corpus, run=tmp_path / "run", initial=find(tmp_path / "short"), options=options
    ).finished


@pytest.mark.parametrize("part", tiny_separator().parts)
@pytest.mark.parametrize("alone", [True, False])
def test_every_part_can_be_trained_alone_or_held_still(part, alone):
    recipe = tiny_separator()
    parts = tuple(name for name in recipe.parts if (name == part) == alone)
    recipe = dataclasses.replace(recipe, stages=(StageFields(parts=parts),))
    trainer = Trainer(recipe, Processes("cpu", recipe.training))
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    stems = torch.randn(4, 3, 8000, generator=torch.Generator().manual_seed(0)) * 0.1
    objective = trainer.objective
    active = Choices(torch.ones(4, 3, dtype=torch.bool))
    objective.losses(trainer.wrapped_objective(stems, active), stems, active, step=0)["total"].backward()
    trainer.take_step()
    moved = {name.split(".")[0] for name, p in trainer.model.named_parameters() if not torch.equal(before[name], p)}
    assert moved == set(parts)


def test_a_start_of_other_domains_or_another_rate_is_refused(corpus, tmp_path):
    write_tiny(tmp_path / "given", tiny_separator())
    model = tiny_separator().model
    for changed in ({"domains": ("music", "speech", "sfx")}, {"sample_rate": 8000}):
        recipe = dataclasses.replace(tiny_separator(), model=dataclasses.replace(model, **changed))
        with pytest.raises(ModelError, match="tiny-tdanet: is for speech, music, sfx at 16000 Hz, the recipe for "):
            train(recipe, data_root=corpus, run=tmp_path / "run", initial=find(tmp_path / "given"))
