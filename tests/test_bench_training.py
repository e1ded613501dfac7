"""The benchmarks of training, and the plain step of bench_step.py that stands beside the product's."""

from __future__ import annotations

import json

import bench_step
import numpy as np
import pytest
import soundfile
import torch

from sdcodec_cli.engine import bench_training
from sdcodec_cli.engine.bench_training import StepCost
from sdcodec_cli.engine.train.batches import level
from sdcodec_cli.engine.train.distributed import Processes
from sdcodec_cli.engine.train.trainer import Trainer
from sdcodec_cli.families import build, of
from sdcodec_cli.recipe import write_recipe

from cli_examples import errors, sdc
from training_examples import adversarial, short


def test_the_plain_quantizer_is_ours_one_domain_after_the_other():
    torch.manual_seed(0)
    model = build(short())
    latent = torch.randn(2, 16, 30)
    ours = model.quantize(latent)
    for domain in range(3):
        plain, loss = bench_step.plain_quantize(model, latent, domain)
        torch.testing.assert_close(plain, ours.latents[domain], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(loss, ours.codebook_loss[domain].mean(), atol=1e-6, rtol=1e-4)


def test_the_plain_step_trains_both_sides():
    recipe = adversarial(mask_weight=0.1)
    model, discriminators = build(recipe), of(recipe).critic(recipe).discriminators
    optimizers = [torch.optim.AdamW(part.parameters(), lr=1e-3) for part in (model, discriminators)]
    # The plain step has no activity head.
    parts = [
        [p for name, p in part.named_parameters() if p.numel() and not name.startswith("activity.")]
        for part in (model, discriminators)
    ]
    before = [[p.clone() for p in part] for part in parts]
    batch = bench_training.noise_batch(recipe)
    bench_step.plain_step(model, discriminators, optimizers, level(batch, recipe), batch.active, recipe)
    for part, old in zip(parts, before, strict=True):
        moved = [not torch.equal(p, q) for p, q in zip(part, old, strict=True)]
        assert sum(moved) > 0.9 * len(moved)


def test_a_step_is_shared_out_among_all_its_parts():
    cost = bench_training.measure_step(adversarial(), "cpu", 1)
    assert set(cost.parts) == set(bench_training.PARTS)
    assert min(cost.parts.values()) > 0


def test_a_step_of_so_many_examples_is_measured(monkeypatch, tmp_path):
    monkeypatch.setattr(bench_training, "alone", lambda *arguments: StepCost(0.5, 100, {"codec": 0.5}))
    write_recipe(short(), tmp_path / "r.toml")
    result = sdc("bench", "--recipe", str(tmp_path / "r.toml"), "--batch-size", "6", "--device", "cpu", "--json")
    found = json.loads(result.stdout)
    assert found["batch_size"] == 6
    assert found["step"] == {"seconds": 0.5, "memory_bytes": 100, "parts": {"codec": 0.5}}
    assert found["audio_seconds"] == pytest.approx(6 * 0.5 / 0.5)


def test_a_step_is_measured_in_the_precision_that_is_fast_here(monkeypatch, tmp_path):
    times = {torch.float32: 0.004, torch.bfloat16: 0.032}
    monkeypatch.setattr("sdcodec_cli.engine.train.precision.product_seconds", times.get)
    measured = []

    def alone(measure, recipe, device, steps):
        measured.append(recipe.training.precision)
        return StepCost(0.5, 100, {})

    monkeypatch.setattr(bench_training, "alone", alone)
    write_recipe(short(precision="auto"), tmp_path / "r.toml")
    result = sdc("bench", "--recipe", str(tmp_path / "r.toml"), "--device", "cpu")
    assert measured == ["float32"]
    assert result.stderr.splitlines() == [
        "precision: float32, as a product of matrices takes 4.00 ms in float32 and 32.00 ms in bfloat16 on a core here"
    ]
    assert result.stdout.splitlines()[0].endswith("a step of 4 examples in float32")


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_the_loader_is_compared_to_decoding_alone(tmp_path):
    rng = np.random.default_rng(0)
    for domain in ("speech", "music", "sfx"):
        (tmp_path / domain).mkdir()
        soundfile.write(tmp_path / domain / "a.flac", rng.standard_normal((48_000 * 2, 2)) * 0.1, 48_000)
    result = sdc("bench", "--data-root", str(tmp_path), "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["crop_seconds"] > found["audio_seconds"] > 0
    assert found["per_core"] == pytest.approx(found["crop_seconds"] / found["decode_limit"])


def test_two_measurements_at_once_are_refused():
    (line,) = errors(sdc("bench", "--recipe", "sdcodec-16k", "--data-root", "d"), exit_code=2)
    assert line == "--recipe and --data-root are two measurements; give one of them"


@pytest.mark.parametrize("option", ["--recipe", "--data-root"])
@pytest.mark.parametrize("of_coding", ["--model", "--seconds", "--effort"])
def test_what_is_of_coding_has_no_place_in_the_cost_of_training(option, of_coding):
    (line,) = errors(sdc("bench", option, "sdcodec-16k", of_coding, "2"), exit_code=2)
    assert line == f"{of_coding} is of encoding and decoding; leave it out with --recipe and --data-root"


def test_the_critic_sees_real_audio_once():
    recipe = adversarial()
    trainer = Trainer(recipe, Processes("cpu", recipe.training))
    seen: list[int] = []
    trainer.critic.discriminators.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    batch = bench_training.noise_batch(recipe)
    trainer.backward([batch])
    rows = batch.choices.stems.shape[1] + len(batch.choices.mixtures)
    assert seen == [2 * rows, rows]


@pytest.mark.parametrize(("option", "needed"), [("--batch-size", "--recipe NAME"), ("--workers", "--data-root DIR")])
def test_options_of_another_measurement_are_refused(option, needed):
    (line,) = errors(sdc("bench", option, "3"), exit_code=2)
    assert line.startswith(option)
    assert line.endswith(f"; pass {needed} with it")
