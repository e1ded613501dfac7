"""Training of branches one after the other and together, by the same loop as all others."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from sdcodec_cli.data.pool import Pool
from sdcodec_cli.engine.train import checkpoint
from sdcodec_cli.engine.train.batches import make_batch
from sdcodec_cli.engine.train.distributed import Processes
from sdcodec_cli.engine.train.export import export
from sdcodec_cli.engine.train.loop import train
from sdcodec_cli.engine.train.trainer import Trainer
from sdcodec_cli.errors import ModelError
from sdcodec_cli.families import build, of
from sdcodec_cli.families.bands import BandsRecipe, branch_recipe
from sdcodec_cli.nn.bands import Bands
from sdcodec_cli.nn.distances import negative_snr
from sdcodec_cli.recipe import StageFields
from sdcodec_cli.runtime.load import load_model
from sdcodec_cli.runtime.torch import load_network
from sdcodec_cli.zoo import find

from tiny_models import noise_clips, tiny_bands, tiny_recipe, write_tiny
from training_examples import QUICK, losses, train_and_stop, validations

pytestmark = pytest.mark.usefixtures("without_graphs", "small_validation")

FIRST, SECOND, BOTH = StageFields(parts=("branches.0",)), StageFields(parts=("branches.1",)), StageFields()
CASCADE = tuple(dataclasses.replace(stage, steps=2) for stage in (FIRST, SECOND, BOTH))


def staged(*stages: StageFields, recipe: BandsRecipe | None = None, **training) -> BandsRecipe:
    recipe = recipe or tiny_bands()
    return dataclasses.replace(recipe, stages=stages, training=dataclasses.replace(recipe.training, **training))


def trainer_of(*stages: StageFields, **options) -> Trainer:
    recipe = staged(*stages, **options)
    return Trainer(recipe, Processes("cpu", recipe.training))


@pytest.fixture(scope="module")
def pool() -> Pool:
    domains = ("speech", "music", "sfx")
    return Pool(
        32_000, {name: noise_clips(seconds=8, count=2, seed=n, sample_rate=32_000) for n, name in enumerate(domains)}
    )


def changed(trainer: Trainer, pool: Pool) -> set[str]:
    """Parts, and discriminators, that a step of the trainer moves."""

    def weights() -> dict[str, torch.Tensor]:
        found = dict(trainer.model.named_parameters())
        if trainer.critic is not None:
            found |= {f"critic of {name}": parameter for name, parameter in trainer.critic.named_parameters()}
        return {name: parameter.detach().clone() for name, parameter in found.items()}

    before = weights()
    trainer.backward([make_batch(pool, trainer.recipe, range(2))])
    trainer.take_step()
    after = weights()
    moved = (name for name in before if not torch.equal(before[name], after[name]))
    return {".".join(name.split(".")[:2]) for name in moved}


# --------------------------------------------------------------------------------------------------------------- runs


def test_a_run_goes_through_all_stages_and_becomes_a_network_that_encodes_and_decodes(corpus, tmp_path):
    lines: list[str] = []
    options = dataclasses.replace(QUICK, validate_every=6)
    recipe = staged(*CASCADE, narrow_probability=0.3)
    train(recipe, data_root=corpus, run=tmp_path / "run", options=options, report=lines.append)
    begun = [line.split(" with ")[0] for line in lines if ": stage " in line]
    assert begun == [
        "step 0: stage 0 trains branches.0",
        "step 2: stage 1 trains branches.1",
        "step 4: stage 2 trains branches.0, branches.1",
    ]
    assert len(losses(tmp_path / "run")) == 6
    assert validations(tmp_path / "run")[-1].keys() == {"mix at 16 kHz", "mix at 32 kHz", "mean"}
    network = load_network(export(tmp_path / "run", tmp_path / "model", bits=16))
    assert isinstance(network, Bands)
    wav = torch.randn(1, 1, 6400) * 0.1
    decoded = network.decode(network.encode(wav))["mix"]
    torch.testing.assert_close(decoded, network(wav)[-1]["mix"], atol=1e-6, rtol=0)
    model = load_model(find(tmp_path / "model"), runtime="torch", device="cpu")
    assert [stream.name for stream in model.streams] == ["audio", "audio-2"]


def test_a_stopped_run_goes_on_where_an_unbroken_one_would_have_bit_for_bit(corpus, tmp_path):
    recipe = staged(*CASCADE, feature_weight=2.0, adversarial_weight=1.0)
    train(recipe, data_root=corpus, run=tmp_path / "whole", options=QUICK)
    train_and_stop(recipe, corpus, tmp_path / "parts", QUICK, during=4)  # the next one is the first of a stage
    train(recipe, data_root=corpus, run=tmp_path / "parts", resume=True, options=QUICK)
    one, other = (checkpoint.read(checkpoint.newest(tmp_path / name)) for name in ("whole", "parts"))
    for kind in ("average", "discriminators"):
        assert all(torch.equal(one[kind][name], other[kind][name]) for name in one[kind])


def test_without_stages_all_branches_learn_at_once(pool):
    trainer = trainer_of(
        recipe=tiny_bands(rates=(16_000, 32_000, 48_000)), steps=12, mel_scales_per_step=7, average_decay=0.0
    )
    batch = make_batch(pool, trainer.recipe, range(2))
    totals = []
    for _ in range(7):
        totals.append(float(trainer.backward([batch])["total"]))
        trainer.take_step()
    assert totals == sorted(totals, reverse=True)
    assert totals[-1] < 0.7 * totals[0]


# ------------------------------------------------------------------------------------------------------------- stages


@pytest.mark.parametrize(
    ("stage", "moved"), [(FIRST, {"branches.0"}), (SECOND, {"branches.1"}), (BOTH, {"branches.0", "branches.1"})]
)
def test_a_stage_moves_its_branches_and_their_discriminators_alone(pool, stage, moved):
    trainer = trainer_of(stage, feature_weight=2.0, adversarial_weight=1.0)
    assert changed(trainer, pool) == moved | {f"critic of {name}" for name in moved}


@pytest.mark.parametrize(("stage", "reached"), [(SECOND, False), (BOTH, True)])
def test_gradients_pass_from_a_branch_to_the_one_below_where_both_are_trained(pool, stage, reached):
    trainer = trainer_of(stage)
    batch = make_batch(pool, trainer.recipe, range(2))
    outputs = trainer.objective(trainer.mix(batch), batch.choices)
    outputs["1.decoded"].square().sum().backward()
    assert any(p.grad is not None and bool(p.grad.any()) for p in trainer.model.branches[0].parameters()) == reached


def test_codebooks_of_a_branch_start_from_data_when_it_is_first_trained(pool):
    stages = [dataclasses.replace(stage, steps=1) for stage in (FIRST, SECOND, BOTH)]
    trainer = trainer_of(*stages, steps=3, learning_rate=1e-9, average_decay=0.0)

    def codebooks() -> list[torch.Tensor]:
        return [codec.quantizer.shared.codebook.detach().clone() for codec in trainer.model.codecs]

    found = [codebooks()]
    for _ in stages:
        changed(trainer, pool)
        found.append(codebooks())
    begun = [
        [not torch.allclose(one, other, atol=1e-4) for one, other in zip(before, after, strict=True)]
        for before, after in itertools.pairwise(found)
    ]
    assert begun == [[True, False], [False, True], [False, False]]


# ------------------------------------------------------------------------------------------------------------- losses


def test_the_sum_of_branches_is_compared_at_the_rate_of_each(pool):
    trainer = trainer_of(BOTH)
    batch = make_batch(pool, trainer.recipe, range(2))
    stems = trainer.mix(batch)
    outputs = trainer.objective(stems, batch.choices)
    each = [
        negative_snr(outputs[f"{number}.decoded"].detach(), trainer.model.at_rate(stems, number).sum(1))
        for number in (0, 1)
    ]
    assert [len(wav[0]) for wav in (outputs["0.decoded"], outputs["1.decoded"])] == [8000, 16_000]
    found = trainer.objective.losses(outputs, stems, batch.choices, step=0)
    assert float(found["snr"].detach()) == pytest.approx(float(torch.stack(each).mean()), rel=1e-5)
    real, decoded = trainer.objective.compared(outputs, stems, batch.choices)
    assert torch.equal(real[1], stems[:, 0])
    assert torch.equal(decoded[1], outputs["1.decoded"])


def test_what_is_decoded_in_training_is_what_the_network_makes_by_itself(pool):
    recipe = staged(recipe=tiny_bands(domains=("speech", "music")), swap_probability=0.0, quantizer_dropout=0.0)
    trainer = Trainer(recipe, Processes("cpu", recipe.training))
    two = Pool(pool.sample_rate, {name: pool.clips[name] for name in recipe.model.domains})
    batch = make_batch(two, recipe, range(4))
    stems = trainer.mix(batch)
    with torch.no_grad():
        outputs = trainer.objective(stems, batch.choices)
        mixes = trainer.model(stems.sum(1)[:, None])
    both = [row for row, active in enumerate(batch.active.tolist()) if all(active)]
    assert batch.choices.mixtures.tolist() == both
    assert both
    for number in (0, 1):
        decoded = outputs[f"{number}.decoded"][len(batch.choices.stems[0]) :]
        torch.testing.assert_close(decoded, mixes[number]["mix"][both, 0], atol=1e-5, rtol=0)


def test_branches_trained_together_are_averaged_but_codebooks_and_commitment_summed(pool):
    trainers = [trainer_of(stage, swap_probability=0.0, codebook_renewal=False) for stage in (FIRST, SECOND, BOTH)]
    found = []
    for trainer in trainers:
        batch = make_batch(pool, trainer.recipe, range(2))
        stems = trainer.mix(batch)
        outputs = trainer.objective(stems, batch.choices)
        terms = trainer.objective.losses(outputs, stems, batch.choices, step=0)
        found.append({name: float(term.detach()) for name, term in terms.items()})
    first, second, both = found
    for name in ("mel", "snr"):
        assert both[name] == pytest.approx((first[name] + second[name]) / 2, rel=1e-4)
    for name in ("codebook", "commitment"):
        assert both[name] == pytest.approx(first[name] + second[name], rel=1e-4)
    fields = trainers[0].fields
    weights = {"mel": fields.mel_weight, "snr": fields.snr_weight, "codebook": 1.0, "commitment": 0.25}
    assert both["total"] == pytest.approx(sum(weight * both[name] for name, weight in weights.items()), rel=1e-4)


def test_discriminators_of_all_branches_are_averaged_for_the_codec_and_summed_for_themselves():
    critic = of(tiny_bands()).critic(staged(feature_weight=2.0, adversarial_weight=1.0))
    generator = torch.Generator().manual_seed(0)
    real, decoded = (
        {number: torch.randn(2, 4000 * (number + 1), generator=generator) for number in (0, 1)} for _ in range(2)
    )
    with torch.no_grad():
        both = critic(real, decoded)
        each = [critic({number: real[number]}, {number: decoded[number]}) for number in (0, 1)]
    for name, rows in both.items():
        expected = sum(float(losses[name].sum()) for losses in each) / (1 if name == "discriminator" else 2)
        assert float(rows.sum()) == pytest.approx(expected, rel=1e-4)


# ------------------------------------------------------------------------------------------------------------ choices


def test_a_narrow_example_comes_to_the_upper_branch_without_its_upper_band(pool):
    trainer = trainer_of(SECOND, narrow_probability=1.0)
    batch = make_batch(pool, trainer.recipe, range(2))
    stems = trainer.mix(batch)
    given: list[torch.Tensor] = []
    trainer.model.codecs[1].encoder.register_forward_pre_hook(lambda module, inputs: given.append(inputs[0][:, 0]))
    outputs = trainer.objective(stems, batch.choices)
    bands = trainer.model
    with torch.no_grad():
        below = bands.codecs[0](bands.at_rate(stems.sum(1)[:, None], 0))["mix"]
        narrow = bands.lifted(bands.at_rate(stems.sum(1), 0), 1, stems.shape[-1])
        expected = narrow - bands.lifted(below, 1, stems.shape[-1])[:, 0]
    torch.testing.assert_close(given[0], expected, atol=1e-5, rtol=0)
    assert torch.equal(outputs["1.stems"], stems)  # and is compared with all of it


def test_examples_are_narrow_as_often_as_the_recipe_says_whatever_else_is_chosen():
    active = np.ones((400, 1), dtype=bool)
    plain, narrow = (
        of(recipe).choose(active, recipe, range(400))
        for recipe in (staged(quantizer_dropout=0.5), staged(quantizer_dropout=0.5, narrow_probability=0.25))
    )
    assert not plain.narrow.any()
    assert 70 < int(narrow.narrow.sum()) < 130
    assert torch.equal(plain.keep, narrow.keep)


def test_fewer_codebooks_of_the_first_branch_mean_fewer_of_the_others_in_proportion():
    recipe = tiny_bands()
    low, high = recipe.branches
    more = dataclasses.replace(high, quantizer=dataclasses.replace(high.quantizer, num_codebooks=4))
    recipe = dataclasses.replace(recipe, branches=(low, more))
    recipe = staged(recipe=recipe, quantizer_dropout=0.7)
    chosen = of(recipe).choose(np.ones((50, 1), dtype=bool), recipe, range(50))
    assert {*zip(chosen.keep[0].tolist(), chosen.keep_above[0, 0].tolist(), strict=True)} == {(1, 2), (2, 4)}


# -------------------------------------------------------------------------------------------------------------- start


def test_the_first_branch_starts_from_a_codec_of_its_rate_and_the_others_anew(corpus, tmp_path):
    recipe = staged(SECOND)
    given = find(write_tiny(tmp_path / "low", branch_recipe(recipe, 0), seed=5))
    trainer = Trainer(recipe, Processes("cpu", recipe.training), initial=given)
    torch.manual_seed(recipe.training.seed)
    random = build(recipe)
    low, high = trainer.model.codecs
    stored = load_network(given).state_dict()
    assert all(torch.equal(value, stored[name]) for name, value in low.state_dict().items())
    assert torch.equal(high.quantizer.shared.codebook, random.codecs[1].quantizer.shared.codebook)
    assert trainer.random == {"branches.1"}


def test_a_start_from_all_branches_takes_all(tmp_path):
    recipe = staged(BOTH)
    given = find(write_tiny(tmp_path / "given", recipe, seed=5))
    trainer = Trainer(recipe, Processes("cpu", recipe.training), initial=given)
    assert trainer.random == set()
    other = tiny_bands(rates=(16_000, 48_000))
    with pytest.raises(ModelError, match="for audio at 16000 and 32000 Hz, the recipe for audio at 16000 and 48000 Hz"):
        Trainer(other, Processes("cpu", other.training), initial=given)


def test_a_codec_of_other_domains_is_no_start(tmp_path):
    recipe = staged(BOTH)
    given = find(write_tiny(tmp_path / "given", tiny_recipe()))
    with pytest.raises(ModelError, match="is for speech, music, sfx at 16000 Hz, the recipe for audio at 16000 and"):
        Trainer(recipe, Processes("cpu", recipe.training), initial=given)
