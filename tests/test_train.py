"""The training loop: it learns, it resumes, it stops when it should."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from sdcodec_cli import load_codec, zoo
from sdcodec_cli.engine.train.codebooks import CodebookWatch
from sdcodec_cli.engine.train.export import export
from sdcodec_cli.engine.train.loop import learning_rate, train
from sdcodec_cli.engine.train.objective import objective
from sdcodec_cli.errors import InputError, ModelError, OutputError
from sdcodec_cli.recipe import QuantizerFields, Recipe, TrainingFields, override

from tiny_models import tiny_recipe


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(0)
    time = np.arange(16_000) / 16_000
    sounds = {
        "speech": np.sin(2 * np.pi * 200 * time) * (np.sin(2 * np.pi * 4 * time) > 0),
        "music": sum(np.sin(2 * np.pi * f * time) for f in (262, 330, 392)),
        "sfx": rng.standard_normal(16_000),
    }
    for split in ("train", "valid"):
        for domain, wav in sounds.items():
            (root / split / domain).mkdir(parents=True)
            soundfile.write(root / split / domain / "a.wav", 0.1 * wav, 16_000)
    return root


def short(**changes) -> Recipe:
    recipe = tiny_recipe()
    training = {"batch_size": 4, "steps": 6, "learning_rate": 3e-3, "average_decay": 0.9, "mel_scales_per_step": 2}
    return dataclasses.replace(recipe, training=dataclasses.replace(recipe.training, **{**training, **changes}))


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_loss_falls_and_the_run_can_be_exported_and_used(corpus, tmp_path, optimizer):
    recipe = short(steps=200, batch_size=2, optimizer=optimizer, schedule="cosine", silence_probability=0.5)
    result = train(recipe, data_root=corpus, run=tmp_path / "run")
    assert result.finished
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [100, 200]
    assert rows[1]["mel"] < 0.95 * rows[0]["mel"]
    assert {"mix", "speech", "speech separated"} <= set(rows[1]["valid"])
    entry = export(tmp_path / "run", tmp_path / "model", half=True, name="mine")
    assert entry.name == "mine"
    codec = load_codec(entry.folder)
    assert codec.decode(codec.encode(torch.randn(1000))).shape == (1000,)
    assert entry.size_bytes is not None
    with pytest.raises(OutputError, match="exists; pass --force"):
        export(tmp_path / "run", tmp_path / "model")


def weights(run: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(run / "checkpoint.pt", weights_only=True)["model"]
    return state


def test_a_resumed_run_ends_where_an_unbroken_one_does_bit_for_bit(corpus, tmp_path, monkeypatch):
    # Codebooks are renewed in step 4, from what was counted before and after the break.
    monkeypatch.setattr("sdcodec_cli.engine.train.loop._revives", lambda step, steps: step == 4)
    train(short(), data_root=corpus, run=tmp_path / "whole")
    # Stops after three steps as SIGTERM would, without a shorter schedule.
    stopped = _train_and_stop(short(), corpus, tmp_path / "parts", after=3)
    assert (stopped.step, stopped.finished) == (3, False)
    resumed = train(short(), data_root=corpus, run=tmp_path / "parts", resume=True)
    assert (resumed.step, resumed.finished) == (6, True)
    for name, tensor in weights(tmp_path / "whole").items():
        assert torch.equal(tensor, weights(tmp_path / "parts")[name]), name


def _train_and_stop(recipe: Recipe, corpus: Path, run: Path, *, after: int):
    import os
    import signal

    from sdcodec_cli.engine.train import loop

    calls = 0
    original = loop.objective

    def counting(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == after:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*args, **kwargs)

    loop.objective = counting
    try:
        return train(recipe, data_root=corpus, run=run)
    finally:
        loop.objective = original


def test_a_loss_that_is_not_finite_stops_before_the_step_and_names_it(corpus, tmp_path, monkeypatch):
    from sdcodec_cli.engine.train import loop
    from sdcodec_cli.errors import SdcError

    original = loop.objective

    def broken(*args, **kwargs):
        losses = original(*args, **kwargs)
        return {**losses, "total": losses["total"] * float("nan"), "mel": losses["mel"] * float("nan")}

    monkeypatch.setattr(loop, "objective", broken)
    with pytest.raises(SdcError, match="step 0: total, mel is not finite"):
        train(short(), data_root=corpus, run=tmp_path / "run")


def test_a_run_folder_is_neither_overwritten_nor_resumed_by_mistake(corpus, tmp_path):
    with pytest.raises(ModelError, match="there is no run in this folder; leave --resume out"):
        train(short(), data_root=corpus, run=tmp_path / "run", resume=True)
    train(short(steps=1), data_root=corpus, run=tmp_path / "run")
    with pytest.raises(ModelError, match="there is a run in this folder; pass --resume"):
        train(short(), data_root=corpus, run=tmp_path / "run")
    with pytest.raises(ModelError, match="there is no run in this folder"):
        export(tmp_path / "elsewhere", tmp_path / "model")


def test_a_data_root_without_audio_is_an_error(tmp_path):
    with pytest.raises(InputError, match="no audio files"):
        train(short(), data_root=tmp_path, run=tmp_path / "run")


def test_data_of_nothing_but_silence_is_an_error(tmp_path):
    for domain in ("speech", "music", "sfx"):
        (tmp_path / "root" / domain).mkdir(parents=True)
        soundfile.write(tmp_path / "root" / domain / "a.wav", np.zeros(16_000), 16_000)
    with pytest.raises(InputError, match="draws in a row were silent"):
        train(short(), data_root=tmp_path / "root", run=tmp_path / "run")


def test_a_conv_recipe_trains_too(corpus, tmp_path):
    recipe = tiny_recipe("conv", activity=False)
    assert train(override(recipe, {"training.steps": "2"}), data_root=corpus, run=tmp_path / "run").finished
    export(tmp_path / "run", tmp_path / "model")
    assert set(load_codec(tmp_path / "model").network.state_dict()) == set(zoo.build(recipe).state_dict())


def test_learning_rates_rise_and_fall_as_the_recipe_says():
    paper = TrainingFields()
    assert learning_rate(paper, 0) == pytest.approx(1e-8)
    assert learning_rate(paper, 9_999) == pytest.approx(1e-4)
    assert learning_rate(paper, 10_000 + 100_000) == pytest.approx(1e-4 * 0.999996**100_000)
    cosine = TrainingFields(schedule="cosine", steps=1100, warmup_steps=100, learning_rate=1.0, final_learning_rate=0.1)
    assert [learning_rate(cosine, step) for step in (99, 600, 1100)] == pytest.approx([1.0, 0.55, 0.1])


def test_absent_domains_have_finite_losses_and_gradients():
    torch.manual_seed(0)
    recipe = short(silence_probability=1.0, swap_probability=1.0)
    model, generator = zoo.build(recipe), torch.Generator().manual_seed(0)
    for present in ([[True, False, False]] * 2, [[True, True, True], [False, True, False]]):
        mask = torch.tensor(present)
        stems = torch.randn(2, 3, 8000) * 0.05 * mask[..., None]
        losses = objective(model, stems, mask, recipe.training, sample_rate=16_000, generator=generator)
        assert all(bool(torch.isfinite(value)) for value in losses.values()), losses
        losses["total"].backward()
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in model.parameters())


def test_unused_codebook_entries_are_replaced_by_what_was_looked_up():
    torch.manual_seed(0)
    model = zoo.build(tiny_recipe())
    with torch.no_grad():
        model.quantizer.own.codebook[0, 0] = 0.0
        model.quantizer.own.codebook[0, 0, :, 0] = 1.0  # all alike: one is used, the others never
    watch, latent = CodebookWatch(model.quantizer), torch.randn(4, 16, 200)
    model.quantize(latent, observe=watch)
    before = watch.usage()
    assert watch.revive(lambda observe: model.quantize(latent, observe=observe), seed=0) >= 63
    model.quantize(latent, observe=watch)
    assert watch.usage() > before


def test_the_activity_head_can_be_trained_alone_on_a_model_that_stays_as_it_is(corpus, tmp_path):
    recipe = short(steps=1)
    train(recipe, data_root=corpus, run=tmp_path / "all")
    first = export(tmp_path / "all", tmp_path / "first")
    alone = short(steps=200, parts="activity")
    with pytest.raises(ModelError, match="needs model.activity, and --init"):
        train(alone, data_root=corpus, run=tmp_path / "none")
    train(alone, data_root=corpus, run=tmp_path / "head", initial=first)
    row = json.loads((tmp_path / "head" / "metrics.jsonl").read_text().splitlines()[-1])
    assert row["activity"] < 0.5
    before, after = (
        zoo.load(first)[0].state_dict(),
        zoo.load(export(tmp_path / "head", tmp_path / "second"))[0].state_dict(),
    )
    for name, tensor in before.items():
        assert torch.equal(tensor, after[name]) != name.startswith("activity."), name


def test_a_checkpoint_that_is_damaged_or_of_another_recipe_is_refused_by_name(corpus, tmp_path):
    run = tmp_path / "run"
    train(short(steps=1), data_root=corpus, run=run)
    wider = dataclasses.replace(short(steps=1), quantizer=QuantizerFields(num_codebooks=2, codebook_size=32))
    with pytest.raises(ModelError, match="run: its checkpoint does not fit the recipe"):
        train(wider, data_root=corpus, run=run, resume=True)
    checkpoint = run / "checkpoint.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(ModelError, match=r"checkpoint\.pt: is damaged"):
        train(short(steps=1), data_root=corpus, run=run, resume=True)
    with pytest.raises(ModelError, match=r"checkpoint\.pt: is damaged"):
        export(run, tmp_path / "model")


def test_a_full_disk_keeps_the_checkpoint_before_and_leaves_no_half_one(corpus, tmp_path, monkeypatch):
    run = tmp_path / "run"
    train(short(steps=1), data_root=corpus, run=run)
    before = (run / "checkpoint.pt").read_bytes()

    def full(number):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        train(short(steps=2), data_root=corpus, run=run, resume=True)
    assert (run / "checkpoint.pt").read_bytes() == before
    assert not list(run.glob("*.partial"))
