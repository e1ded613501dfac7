"""Batches, the objective, and codebook upkeep: one step of training, taken apart."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from sdcodec_cli.data.pool import Pool
from sdcodec_cli.engine.train.batches import Batch, Share, level, load_batches, make_batch
from sdcodec_cli.engine.train.codebooks import CodebookWatch
from sdcodec_cli.engine.train.distributed import Processes
from sdcodec_cli.engine.train.trainer import Trainer, schedule
from sdcodec_cli.engine.train.validation import Validator
from sdcodec_cli.families import build, of
from sdcodec_cli.nn.distances import MEL_SCALES
from sdcodec_cli.nn.objectives.terms import draw_scales
from sdcodec_cli.recipe import CodecTrainingFields, Recipe, override

from tiny_models import noise_clips, tiny_recipe
from training_examples import adversarial, short

DOMAINS = ("speech", "music", "sfx")


@pytest.fixture(scope="module")
def pool() -> Pool:
    return Pool(16_000, {domain: noise_clips(seconds=20, count=4, seed=n) for n, domain in enumerate(DOMAINS)})


def same(one: Batch, other: Batch) -> bool:
    pairs = [
        (getattr(one.choices, field.name), getattr(other.choices, field.name))
        for field in dataclasses.fields(one.choices)
        if field.name != "guide"
    ]
    assert one.choices.guide is other.choices.guide is None
    return torch.equal(one.crops, other.crops) and all(torch.equal(ours, theirs) for ours, theirs in pairs)


# ------------------------------------------------------------------------------------------------------------ batches


@pytest.mark.parametrize(("world", "micro"), [(1, 8), (2, 4), (2, 2), (4, 1)])
def test_processes_share_every_step_without_drawing_an_example_twice(world, micro):
    taken: list[int] = []
    for rank in range(world):
        share = Share(rank, world, micro).indices(8, first_step=3)
        taken += [index for _ in range(8 // world // micro) for index in next(share)]
    assert taken == list(range(24, 32))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_gives_the_same_batches_for_any_number_of_workers(pool, workers):
    recipe = short()
    loader = iter(load_batches(pool, recipe, Share(0, 1, 4), first_step=5, workers=workers, pin=False))
    for number in range(3):
        assert same(next(loader), make_batch(pool, recipe, range(20 + 4 * number, 24 + 4 * number)))


def test_halves_of_a_batch_make_the_same_choices_as_the_whole(pool):
    recipe = short(swap_probability=0.7, silence_probability=0.5, quantizer_dropout=0.5)
    whole = make_batch(pool, recipe, range(8)).choices
    halves = [make_batch(pool, recipe, range(0, 4)).choices, make_batch(pool, recipe, range(4, 8)).choices]
    assert torch.equal(whole.keep, torch.cat([half.keep for half in halves], dim=1))
    shifted = [half.sources + 4 * n for n, half in enumerate(halves)]
    assert torch.equal(whole.sources, torch.cat(shifted, dim=1))
    for name in ("stems", "silent"):
        rows = [getattr(half, name) + torch.tensor([[4 * n], [0]]) for n, half in enumerate(halves)]
        assert torch.equal(getattr(whole, name), torch.cat(rows, dim=1))


def choices_of(active: list[list[bool]], **changes):
    recipe = short(**changes)
    return of(recipe).choose(np.array(active), recipe, range(len(active)))


def test_stems_and_mixtures_of_two_domains_or_more_are_decoded():
    choices = choices_of([[True, False, False], [True, True, False], [True, True, True]], swap_probability=0.0)
    assert choices.stems.T.tolist() == [[0, 0], [1, 0], [1, 1], [2, 0], [2, 1], [2, 2]]
    assert choices.mixtures.tolist() == [1, 2]
    assert choices.silent.shape == (2, 0)
    assert choices.keep.shape == (3, 3)


def test_stems_of_mixtures_are_decoded_as_often_as_the_recipe_says_and_all_others_always():
    active = [[True, True, False], [True, False, False]] * 50
    stems = choices_of(active, stem_probability=0.3).stems
    examples = set(stems[0].tolist())
    assert set(range(1, 100, 2)) <= examples
    assert 8 < len(examples) - 50 < 24
    assert all((stems[0] == example).sum() == (2 if example % 2 == 0 else 1) for example in examples)
    assert choices_of(active, stem_probability=0.0).stems[0].tolist() == list(range(1, 100, 2))


def test_absent_domains_are_decoded_as_silence_as_often_as_the_recipe_says():
    active = [[True, False, False]] * 400
    silent = choices_of(active, silence_probability=0.25).silent
    assert 150 < silent.shape[1] < 250
    assert 0 not in silent[1].tolist()


def test_neighbours_exchange_domains_and_the_targets_follow():
    choices = choices_of([[True, True, True]] * 200, swap_probability=1.0)
    own = torch.arange(200).expand(3, -1)
    exchanged = choices.sources != own
    assert torch.equal(torch.where(exchanged, own ^ 1, own), choices.sources)
    assert 0.35 < float(exchanged.float().mean()) < 0.65
    stems, recipe = torch.randn(200, 3, 10), short()
    objective = of(recipe).objective(build(recipe), recipe, recipe.plan[0])
    wanted = objective.compared({"decoded": torch.zeros(800, 10)}, stems, choices)[0][600:]
    expected = sum(stems[choices.sources[n], n] for n in range(3))
    torch.testing.assert_close(wanted, expected)


def test_quantizer_dropout_keeps_one_level_or_more():
    keep = choices_of([[True, True, True]] * 200, quantizer_dropout=0.5).keep
    assert set(keep.unique().tolist()) == {1, 2, 3, 4}
    assert 0.5 < float((keep == 4).float().mean()) < 0.75
    assert set(choices_of([[True] * 3] * 50, quantizer_dropout=0.0).keep.unique().tolist()) == {4}


# ---------------------------------------------------------------------------------------------------------- objective


def one_step(recipe: Recipe, pool: Pool, indices: range) -> tuple[dict[str, torch.Tensor], torch.nn.Module]:
    torch.manual_seed(0)
    trainer = Trainer(recipe, Processes("cpu", recipe.training))
    return trainer.backward([make_batch(pool, recipe, indices)]), trainer.model


def test_absent_domains_have_finite_losses_and_gradients(pool):
    recipe = override(short(silence_probability=1.0), {"mixing.track_probabilities": "[1.0, 0.0, 0.0]"})
    values, model = one_step(recipe, pool, range(4))
    assert all(bool(torch.isfinite(value)) for value in values.values()), values
    gradients = [p.grad for p in model.parameters() if p.requires_grad]
    assert all(gradient is not None and bool(torch.isfinite(gradient).all()) for gradient in gradients)


def test_losses_add_up_over_outputs_and_average_over_examples(pool):
    recipe = short(codebook_renewal=False, swap_probability=0.0, quantizer_dropout=0.0, mel_scales_per_step=7)
    batch = make_batch(pool, recipe, range(6))
    trainer = Trainer(recipe, Processes("cpu", recipe.training))
    stems = trainer.mix(batch)
    total = 0.0
    for row in range(6):
        alone = of(recipe).choose(batch.active[row : row + 1].numpy(), recipe, range(row, row + 1))
        outputs = trainer.objective(stems[row : row + 1], alone)
        for wanted, decoded in zip(*trainer.objective.compared(outputs, stems[row : row + 1], alone), strict=True):
            decoded = decoded.detach()
            total += float(10 * ((decoded - wanted).square().sum() / wanted.square().sum() + 1e-3).log10())
    values = trainer.backward([batch])
    assert float(values["snr"]) == pytest.approx(total / 6, rel=1e-3)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_scales_of_blocks_are_slower_than_what_they_scale(optimizer):
    recipe = short(optimizer=optimizer, learning_rate=1e-3, warmup_steps=0, weight_decay=0.0)
    trainer = Trainer(recipe, Processes("cpu", recipe.training))
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    for p in trainer.model.parameters():
        p.grad = torch.ones_like(p) if p.requires_grad else None
    trainer.take_step()
    moved = {name: float((before[name] - p.detach()).mean()) for name, p in trainer.model.named_parameters()}
    for part in ("encoder", "decoder"):
        assert moved[f"{part}.blocks.0.scale"] == pytest.approx(0.05e-3, rel=1e-2)
        assert moved[f"{part}.blocks.0.depthwise.bias"] == pytest.approx(1e-3, rel=1e-2)
    assert all(moved[name] != 0 for name, p in trainer.model.named_parameters() if p.requires_grad)


def test_a_model_of_one_domain_codes_the_sum_of_those_it_is_trained_on(pool):
    several = short(swap_probability=0.0)
    recipe = dataclasses.replace(
        several,
        model=dataclasses.replace(several.model, domains=("audio",)),
        mixing=dataclasses.replace(several.mixing, domains=("speech", "music", "sfx")),
    )
    batch, trainer = make_batch(pool, recipe, range(4)), Trainer(recipe, Processes("cpu", recipe.training))
    stems = trainer.mix(batch)
    torch.testing.assert_close(stems[:, 0], level(make_batch(pool, several, range(4)), several).sum(1))
    assert batch.choices.stems.T.tolist() == [[row, 0] for row in range(4)]
    assert batch.choices.mixtures.numel() == 0
    assert bool(torch.isfinite(trainer.backward([batch])["total"]))
    assert Validator(pool, recipe)(trainer.model).scores.keys() == {"mix", "audio", "audio separated"}


def test_only_domains_that_are_active_are_added_to_a_mixture(pool):
    recipe = override(
        short(swap_probability=0.0, codebook_renewal=False), {"mixing.track_probabilities": "[0.0, 1.0, 0.0]"}
    )
    batch = make_batch(pool, recipe, range(1))
    trainer = Trainer(recipe, Processes("cpu", recipe.training))
    stems = trainer.mix(batch)
    outputs = trainer.objective(stems, batch.choices)
    latents = trainer.model.quantize(trainer.model.encode(stems.sum(1)[:, None]), keep=batch.choices.keep).latents
    mixture = trainer.model.decode(latents[batch.active[0]].sum(0))[:, 0]
    torch.testing.assert_close(outputs["decoded"][-1:], mixture, atol=1e-4, rtol=1e-3)


def test_a_sample_of_mel_scales_is_right_on_average_and_the_same_in_all_processes():
    drawn = [draw_scales(2, seed=1, step=step) for step in range(200)]
    assert drawn == [draw_scales(2, seed=1, step=step) for step in range(200)]
    counts = [sum(scale in scales for scales in drawn) for scale in MEL_SCALES]
    assert sum(counts) == 400
    assert min(counts) > 35


def test_learning_rates_rise_and_fall_as_the_recipe_says():
    paper = CodecTrainingFields()
    assert schedule(paper, 0, paper.steps) == pytest.approx(1e-4)
    assert schedule(paper, 9_999, paper.steps) == pytest.approx(1.0)
    assert schedule(paper, 10_000 + 100_000, paper.steps) == pytest.approx(0.999996**100_000)
    cosine = CodecTrainingFields(schedule="cosine", steps=1100, warmup_steps=100, final_learning_rate=0.1)
    assert [schedule(cosine, step, 1100) for step in (99, 600, 1100)] == pytest.approx([1.0, 0.55, 0.1])


def test_codebooks_move_at_a_rate_of_their_own(pool):
    def moved(rate: float) -> list[float]:
        recipe = adversarial(adversarial_start=1000, codebook_renewal=False, codebook_rate=rate)
        trainer = Trainer(recipe, Processes("cpu", recipe.training))
        quantizer = trainer.model.quantizer.own
        weights = (quantizer.codebook.detach(), quantizer.in_weight.detach())
        before = [weight.clone() for weight in weights]
        trainer.backward([make_batch(pool, recipe, range(4))])
        trainer.take_step()
        return [float((now - then).abs().max()) for now, then in zip(weights, before, strict=True)]

    slow, fast = moved(1.0), moved(5.0)
    assert fast == pytest.approx([5 * slow[0], slow[1]], rel=1e-3)


# ----------------------------------------------------------------------------------------------------- discriminators


def test_a_single_backward_pass_gives_both_sides_their_own_gradients():
    torch.manual_seed(0)
    recipe = adversarial()
    critic = of(recipe).critic(recipe)
    real, decoded = torch.randn(3, 4000) * 0.1, (torch.randn(3, 4000) * 0.1).requires_grad_()
    losses = critic(real, decoded)
    (losses["adversarial"] + losses["feature"]).sum().backward(retain_graph=True)
    assert all(parameter.grad is None for parameter in critic.parameters())
    assert decoded.grad is not None
    before = decoded.grad.clone()
    losses["discriminator"].sum().backward()
    assert all(parameter.grad is not None for parameter in critic.parameters())
    assert torch.equal(decoded.grad, before)


def test_discriminators_join_at_their_step(pool):
    recipe = adversarial(adversarial_start=1, mask_weight=0.2)
    trainer = Trainer(recipe, Processes("cpu", recipe.training))
    first = trainer.backward([make_batch(pool, recipe, range(4))])
    trainer.take_step()
    second = trainer.backward([make_batch(pool, recipe, range(4, 8))])
    assert "discriminator" not in first
    assert {"discriminator", "adversarial", "feature", "discriminator_gradient_norm"} <= second.keys()
    fields = recipe.training
    expected = sum(
        weight * float(second[name])
        for name, weight in {
            "mel": fields.mel_weight,
            "snr": fields.snr_weight,
            "leakage": fields.snr_weight,
            "mask": fields.mask_weight,
            "codebook": fields.codebook_weight,
            "commitment": fields.commitment_weight,
            "activity": fields.activity_weight,
            "adversarial": fields.adversarial_weight,
            "feature": fields.feature_weight,
        }.items()
    )
    assert float(second["total"]) == pytest.approx(expected, rel=1e-5)


def test_discriminators_only_learn_while_they_warm_up(pool):
    recipe = adversarial(adversarial_warmup=1)
    without = override(recipe, {"training.adversarial_weight": "0", "training.feature_weight": "0"})
    recipes = [recipe, without]
    gradients, trainers = [], [Trainer(recipe, Processes("cpu", recipe.training)) for recipe in recipes]
    for recipe, trainer in zip(recipes, trainers, strict=True):
        trainer.backward([make_batch(pool, recipe, range(4))])
        gradients.append(next(trainer.model.decoder.parameters()).grad)
    torch.testing.assert_close(*gradients)
    critic = trainers[0].critic
    assert critic is not None
    assert any(float(parameter.grad.abs().sum()) > 0 for parameter in critic.parameters())


@pytest.mark.slow
def test_discriminators_learn_to_tell_decoded_from_real(pool):
    recipe = override(
        adversarial(learning_rate=1e-12, warmup_steps=0, codebook_renewal=False, swap_probability=0.0),
        {"discriminator.learning_rate": "3e-3"},
    )
    trainer = Trainer(recipe, Processes("cpu", recipe.training))
    batch, found = make_batch(pool, recipe, range(4)), []
    for _ in range(40):
        values = trainer.backward([batch])
        found.append(float(values["discriminator"]))
        trainer.take_step()
    assert found[-1] < 0.5 * found[0]


# ---------------------------------------------------------------------------------------------------------- codebooks


def test_unused_codebook_entries_are_replaced_by_what_was_looked_up():
    torch.manual_seed(0)
    recipe = tiny_recipe()
    model = build(recipe)
    with torch.no_grad():
        model.quantizer.own.codebook[0, 0] = 0.0
        model.quantizer.own.codebook[0, 0, :, 0] = 1.0  # all alike: one is used, the others never
    watch, latent = CodebookWatch({"": model.quantizer}, Processes("cpu", recipe.training)), torch.randn(4, 16, 200)
    model.quantize(latent, observe=watch)
    perplexity, dead = watch.report()
    assert perplexity.keys() == dead.keys() == {"own 0", "own 1", "own 2", "shared 0"}
    assert (perplexity["own 0"][0], dead["own 0"][0]) == (pytest.approx(1.0), 63)
    assert watch.renew(lambda observe: model.quantize(latent, observe=observe), seed=0) >= 63
    model.quantize(latent, observe=watch)
    perplexity, dead = watch.report()
    assert perplexity["own 0"][0] > 10
    assert dead["own 0"][0] < 30


def test_perplexity_is_that_of_the_counts():
    recipe = tiny_recipe()
    quantizer = build(recipe).quantizer
    watch = CodebookWatch({"": quantizer}, Processes("cpu", recipe.training))
    indices = torch.tensor([[0, 0, 1, 1], [5, 5, 5, 5], [1, 2, 3, 4]])
    watch(quantizer.own, 0, torch.zeros(3, 4, 4), indices)
    perplexity, dead = watch.report()
    assert [perplexity[f"own {n}"][0] for n in range(3)] == pytest.approx([2.0, 1.0, 4.0], rel=1e-5)
    assert [dead[f"own {n}"][0] for n in range(3)] == [62, 63, 60]
    perplexity, dead = watch.report()
    assert np.isnan(perplexity["own 0"]).all()  # nothing was looked up since
    assert dead["own 0"] == [64, 64, 64]


def test_codebooks_that_start_from_data_are_used(pool):
    used = []
    for renewal in (False, True):
        recipe = short(codebook_renewal=renewal)
        trainer = Trainer(recipe, Processes("cpu", recipe.training))
        trainer.backward([make_batch(pool, recipe, range(4))])
        _, dead = trainer.watch.report()
        used.append(sum(sum(levels) for levels in dead.values()))
    assert used[1] < 0.9 * used[0]


def test_outputs_and_losses_agree_on_what_is_silent(pool):
    recipe = override(short(silence_probability=1.0), {"mixing.track_probabilities": "[1.0, 0.0, 0.0]"})
    batch = make_batch(pool, recipe, range(2))
    trainer = Trainer(recipe, Processes("cpu", recipe.training))
    stems = trainer.mix(batch)
    outputs = trainer.objective(stems, batch.choices)
    wanted, _ = trainer.objective.compared(outputs, stems, batch.choices)
    assert (len(wanted), len(outputs["decoded"])) == (2, 6)
    outputs["decoded"] = torch.cat([wanted, torch.zeros(4, stems.shape[-1])])
    losses = trainer.objective.losses(outputs, stems, batch.choices, step=0)
    assert float(losses["mel"]) == 0
    assert float(losses["leakage"]) == pytest.approx(2 * -30.0, abs=0.01)
    assert float(losses["snr"]) == pytest.approx(-30.0, abs=0.01)
