"""Runs: they learn, they resume, they stop when they should, and nothing makes them lose what they had."""

from __future__ import annotations

import dataclasses
import shutil
import types
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from sdcodec_cli import load_codec, zoo
from sdcodec_cli.engine.train import checkpoint
from sdcodec_cli.engine.train.distributed import Processes
from sdcodec_cli.engine.train.export import export
from sdcodec_cli.engine.train.loop import train
from sdcodec_cli.engine.train.means import Means
from sdcodec_cli.engine.train.older import Replaced
from sdcodec_cli.engine.train.setup import RunOptions, changes
from sdcodec_cli.engine.train.trainer import Trainer
from sdcodec_cli.errors import InputError, ModelError, OutputError, RecipeError, SdcError
from sdcodec_cli.families import build
from sdcodec_cli.nn.objectives.sdcodec import CodecObjective
from sdcodec_cli.recipe import QuantizerFields, StageFields, make_recipe, override, read_recipe
from sdcodec_cli.runtime.torch import load_network
from sdcodec_cli.weights import read, sha256
from sdcodec_cli.zoo import weights_path

from cli_examples import sdc
from tiny_models import tiny_recipe, write_tiny
from training_examples import QUICK, adversarial, losses, make_corpus, rows, short, train_and_stop, validations

pytestmark = pytest.mark.usefixtures("without_graphs", "small_validation")


@pytest.fixture(scope="module")
def whole(corpus, small_validation, tmp_path_factory) -> Path:
    """The run of a recipe of six steps that nothing happened to; not to be changed."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    train(short(), data_root=corpus, run=run, options=QUICK)
    return run


@pytest.fixture(scope="module")
def after_one_step(corpus, small_validation, tmp_path_factory) -> Path:
    """See `run`."""
    run = tmp_path_factory.mktemp("runs") / "one"
    train(short(steps=1), data_root=corpus, run=run, options=QUICK)
    return run


@pytest.fixture
def run(after_one_step, tmp_path) -> Path:
    """A run that has come to the end of its only step."""
    return Path(shutil.copytree(after_one_step, tmp_path / "run"))


@pytest.mark.parametrize("optimizer", [pytest.param("adamw", marks=pytest.mark.slow), "muon"])
def test_the_loss_falls_and_the_run_can_be_exported_and_used(corpus, tmp_path, optimizer):
    recipe = short(
        steps=60,
        batch_size=2,
        learning_rate=1e-2,
        optimizer=optimizer,
        schedule="cosine",
        silence_probability=0.5,
    )
    options = dataclasses.replace(QUICK, log_every=30, validate_every=30)
    result = train(recipe, data_root=corpus, run=tmp_path / "run", options=options)
    assert (result.finished, result.processes) == (True, 1)
    rows = losses(tmp_path / "run")
    assert [row["step"] for row in rows] == [30, 60]
    assert rows[1]["mel"] < 0.8 * rows[0]["mel"]
    (first, _) = validations(tmp_path / "run")
    assert {"mix", "speech", "speech separated", "mean"} <= first.keys()
    done = sdc(
        "models", "export", str(tmp_path / "run"), "-o", str(tmp_path / "model"), "--bits", "8", "--name", "mine"
    )
    assert done.exit_code == 0, done.stderr
    assert zoo.find(tmp_path / "model").name == "mine"
    codec = load_codec(tmp_path / "model")
    assert codec.decode(codec.encode(torch.randn(1000))).shape == (1000,)
    with pytest.raises(OutputError, match="exists; pass --force"):
        export(tmp_path / "run", tmp_path / "model")


def weights(run: Path) -> dict[str, torch.Tensor]:
    state = checkpoint.read(checkpoint.newest(run))
    return {**state["average"], **{f"discriminators.{name}": value for name, value in state["discriminators"].items()}}


@pytest.mark.parametrize("make", [short, pytest.param(adversarial, marks=pytest.mark.slow)])
def test_a_stopped_run_goes_on_where_an_unbroken_one_would_have_bit_for_bit(corpus, tmp_path, monkeypatch, make):
    # Codebooks are renewed in step 4, from what was counted before and after the break; rows are means of two steps.
    monkeypatch.setattr(Trainer, "renews_codebooks", property(lambda trainer: trainer.step == 4))
    options = dataclasses.replace(QUICK, workers=1, log_every=2, validate_every=2)
    train(make(), data_root=corpus, run=tmp_path / "whole", options=options)
    stopped = train_and_stop(make(), corpus, tmp_path / "parts", options, during=3)
    assert (stopped.step, stopped.finished) == (3, False)
    resumed = train(make(), data_root=corpus, run=tmp_path / "parts", resume=True, options=options)
    assert (resumed.step, resumed.finished) == (6, True)
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    assert validations(tmp_path / "parts") == validations(tmp_path / "whole")
    ours, theirs = weights(tmp_path / "parts"), weights(tmp_path / "whole")
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert torch.equal(tensor, ours[name]), name


def test_files_that_came_later_do_not_change_what_a_resumed_run_draws(whole, tmp_path):
    root = make_corpus(tmp_path / "growing")
    train_and_stop(short(), root, tmp_path / "parts", QUICK, during=3)
    soundfile.write(root / "train" / "speech" / "b.wav", np.random.default_rng(1).standard_normal(16_000) * 0.1, 16_000)
    train(short(), data_root=root, run=tmp_path / "parts", resume=True, options=QUICK)
    assert losses(tmp_path / "parts") == losses(whole)


def test_the_recipe_in_the_run_folder_repeats_the_run(corpus, whole, tmp_path):
    again = read_recipe(whole / "recipe.toml")
    train(again, data_root=corpus, run=tmp_path / "again", options=QUICK)
    train(short(seed=4), data_root=corpus, run=tmp_path / "other", options=QUICK)
    assert losses(tmp_path / "again") == losses(whole)
    assert losses(tmp_path / "other") != losses(whole)


@pytest.mark.parametrize("workers", [1, 2])
def test_who_reads_examples_does_not_change_the_losses(corpus, whole, tmp_path, workers):
    train(short(), data_root=corpus, run=tmp_path / "other", options=dataclasses.replace(QUICK, workers=workers))
    assert losses(tmp_path / "other") == losses(whole)


@pytest.mark.parametrize("options", [{"cache_hours": 0.0}, {"micro_batch": 2}])
def test_how_a_run_is_done_does_not_change_its_losses(corpus, tmp_path, options):
    # Micro-batches see other codebook rows at the start; everything else is the same to rounding.
    recipe = short(codebook_renewal="micro_batch" not in options, learning_rate=1e-4)
    train(recipe, data_root=corpus, run=tmp_path / "plain", options=QUICK)
    train(recipe, data_root=corpus, run=tmp_path / "other", options=dataclasses.replace(QUICK, **options))
    for ours, theirs in zip(losses(tmp_path / "plain"), losses(tmp_path / "other"), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4 if "cache_hours" in options else 1e-5)


def test_the_last_checkpoints_and_the_best_are_kept(corpus, tmp_path, monkeypatch):
    from sdcodec_cli.engine.train import validation

    scores = iter([1.0, 3.0, 2.0, 2.5, 0.0, 1.0])
    monkeypatch.setattr(validation.Validation, "score", property(lambda self: self.scores["mean"]))
    original = validation.Validator.__call__

    def scored(self, model):
        return dataclasses.replace(original(self, model), scores={"mean": next(scores)})

    monkeypatch.setattr(validation.Validator, "__call__", scored)
    options = dataclasses.replace(QUICK, validate_every=1, checkpoint_every=1, keep=2)
    train(short(), data_root=corpus, run=tmp_path / "run", options=options)
    assert [path.name for path in checkpoint.checkpoints(tmp_path / "run")] == ["step-00000005.pt", "step-00000006.pt"]
    assert checkpoint.read(tmp_path / "run" / "best.pt")["step"] == 2
    best = load_network(export(tmp_path / "run", tmp_path / "best", best=True)).state_dict()
    last = load_network(export(tmp_path / "run", tmp_path / "last")).state_dict()
    assert any(not torch.equal(best[name], last[name]) for name in best)


def test_a_loss_that_is_not_finite_stops_before_the_step_names_it_and_leaves_something_to_look_at(
    corpus, tmp_path, monkeypatch
):
    original = CodecObjective.losses

    def broken(*args, **kwargs):
        found = original(*args, **kwargs)
        return {**found, "total": found["total"] * float("nan"), "mel": found["mel"] * float("nan")}

    run = tmp_path / "run"
    monkeypatch.setattr(CodecObjective, "losses", broken)
    with pytest.raises(SdcError, match="step 0: total, mel, gradient_norm not finite; the step was not taken"):
        train(short(), data_root=corpus, run=run, options=QUICK)
    left = torch.load(run / "not-finite.pt", weights_only=True)
    assert left["step"] == 0
    assert left["stems"].shape == (4, 3, 8000)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in left["model"].values())
    monkeypatch.setattr(CodecObjective, "losses", original)
    assert train(short(learning_rate=1e-4), data_root=corpus, run=run, resume=True, options=QUICK).finished


def test_a_run_folder_is_neither_overwritten_nor_resumed_by_mistake(corpus, run, tmp_path):
    with pytest.raises(ModelError, match="there is no run in this folder; leave --resume out"):
        train(short(), data_root=corpus, run=tmp_path / "elsewhere", resume=True)
    with pytest.raises(ModelError, match="there is a run in this folder; pass --resume"):
        train(short(), data_root=corpus, run=run)
    with pytest.raises(ModelError, match="there is no run in this folder; make one"):
        export(tmp_path / "elsewhere", tmp_path / "model")


def test_a_data_root_without_audio_is_an_error_and_leaves_no_run_behind(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty"):
        train(short(), data_root=tmp_path / "empty", run=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_data_of_nothing_but_silence_is_an_error(tmp_path):
    for domain in ("speech", "music", "sfx"):
        (tmp_path / "root" / domain).mkdir(parents=True)
        soundfile.write(tmp_path / "root" / domain / "a.wav", np.zeros(16_000), 16_000)
    with pytest.raises(InputError, match="draws in a row were silent"):
        train(short(), data_root=tmp_path / "root", run=tmp_path / "run", options=QUICK)


def test_files_that_vanish_during_a_run_end_it_by_name(tmp_path):
    root = make_corpus(tmp_path / "root")
    options = dataclasses.replace(QUICK, cache_hours=0.0, workers=0)
    recipe = override(short(), {"mixing.track_probabilities": "[1.0, 0.0, 0.0]"})
    train_and_stop(recipe, root, tmp_path / "run", options, during=2)
    for path in (root / "train").rglob("*.wav"):
        path.unlink()
    with pytest.raises(InputError, match=r"a\.wav"):
        train(recipe, data_root=root, run=tmp_path / "run", resume=True, options=options)


@pytest.mark.parametrize("make", [short, adversarial])
def test_a_conv_recipe_trains_too_in_half_precision(corpus, tmp_path, make):
    recipe = override(make("conv", precision="bfloat16"), {"model.activity": "false", "training.steps": "2"})
    assert train(recipe, data_root=corpus, run=tmp_path / "run", options=QUICK).finished
    export(tmp_path / "run", tmp_path / "model")
    stored = load_codec(tmp_path / "model").model.runtime.network.state_dict()
    assert set(stored) == set(build(recipe).state_dict())


def test_the_activity_head_can_be_trained_alone_on_a_model_that_stays_as_it_is(corpus, run, tmp_path):
    first = export(run, tmp_path / "first")
    # Discriminators, of a recipe that has them, have nothing to learn from here.
    tables = dataclasses.asdict(adversarial(steps=60, learning_rate=1e-2))
    tables["training"]["parts"] = "activity"  # as it was written before there were stages
    alone = make_recipe(tables, where="test")
    with pytest.raises(ModelError, match="no stage trains encoder, quantizer, decoder, .* with --init"):
        train(alone, data_root=corpus, run=tmp_path / "none")
    train(alone, data_root=corpus, run=tmp_path / "head", initial=first, options=QUICK)
    assert np.mean([row["activity"] for row in losses(tmp_path / "head")[-20:]]) < 0.5
    before = load_network(first).state_dict()
    second = export(tmp_path / "head", tmp_path / "second", replaces=Replaced(first))
    assert second.decodes == (sha256(read(weights_path(first))),)
    after = load_network(second).state_dict()
    for name, tensor in before.items():
        assert torch.equal(tensor, after[name]) != name.startswith("activity."), name


def staged():
    """Two steps of everything, then four of the decoder alone, half as fast."""
    stages = (StageFields(steps=2), StageFields(parts=("decoder",), losses=("mel", "snr"), learning_rate=0.5))
    return dataclasses.replace(short(), stages=stages)


def test_stages_follow_one_another_and_train_only_their_parts(corpus, tmp_path):
    options = dataclasses.replace(QUICK, checkpoint_every=2, keep=9)
    train(staged(), data_root=corpus, run=tmp_path / "run", options=options)
    second, last = (checkpoint.read(checkpoint.path_of(tmp_path / "run", step)) for step in (2, 6))
    for kind in ("model", "average"):
        moved = {name.split(".")[0] for name in last[kind] if not torch.equal(second[kind][name], last[kind][name])}
        assert moved == {"decoder"}
    assert all(torch.equal(second["model"][name], second["average"][name]) for name in second["model"])
    rates = [row["learning_rate"]["adamw"] for row in rows(tmp_path / "run", "learning_rate")]
    peak = short().training.learning_rate
    assert rates[:4] == pytest.approx([peak / 2, peak, peak / 4, peak / 2])  # each stage rises over two steps
    assert losses(tmp_path / "run")[-1]["total"] == pytest.approx(
        sum(
            getattr(short().training, weight) * losses(tmp_path / "run")[-1][name]
            for name, weight in {"mel": "mel_weight", "snr": "snr_weight", "leakage": "snr_weight"}.items()
        ),
        rel=1e-5,
    )


def test_stages_are_told_as_they_begin_and_when_they_are_too_short(corpus, tmp_path):
    told = []
    train(staged(), data_root=corpus, run=tmp_path / "run", options=QUICK, report=told.append)
    begun = [line for line in told if "trains" in line]
    assert begun == [
        "step 0: stage 0 trains encoder, quantizer, decoder, activity with mel, snr, codebook, commitment, activity "
        "for 2 steps",
        "step 2: stage 1 trains decoder with mel, snr for 4 steps",
    ]
    assert "2 steps are within the rise of training.warmup_steps, 2: it learns little" in told
    changed = list(changes(staged(), override(staged(), {"stages.0.steps": "3"})))
    assert changed == ["stages.0.steps was 2 and is now 3"]


def test_what_no_loss_of_a_stage_reaches_is_not_trained_by_it():
    stages = (StageFields(steps=3, losses=("mel",)), StageFields(losses=("activity",)))
    recipe = dataclasses.replace(short(), stages=stages)
    trainer = Trainer(recipe, Processes("cpu", recipe.training))
    trained = []
    for number in range(2):
        trainer._begin(number)
        named = trainer.model.named_parameters()
        trained.append({name.split(".")[0] for name, parameter in named if parameter.requires_grad})
    assert trained == [{"encoder", "quantizer", "decoder"}, {"encoder", "activity"}]


@pytest.mark.parametrize("during", [1, 2, 3])
def test_stages_that_are_interrupted_end_as_if_they_were_not(corpus, tmp_path, during):
    train(staged(), data_root=corpus, run=tmp_path / "whole", options=QUICK)
    assert train_and_stop(staged(), corpus, tmp_path / "parts", QUICK, during=during).step == during
    assert train(staged(), data_root=corpus, run=tmp_path / "parts", resume=True, options=QUICK).finished
    one, other = (checkpoint.read(checkpoint.newest(tmp_path / name))["average"] for name in ("whole", "parts"))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_what_a_resumed_run_changes_of_its_optimizer_counts(corpus, tmp_path, optimizer):
    train(short(steps=1, optimizer=optimizer), data_root=corpus, run=tmp_path / "run", options=QUICK)
    changed = short(steps=2, optimizer=optimizer, weight_decay=0.3, betas=(0.5, 0.6))
    train(changed, data_root=corpus, run=tmp_path / "run", resume=True, options=QUICK)
    groups = [
        group
        for state in checkpoint.read(checkpoint.newest(tmp_path / "run"))["optimizers"].values()
        for group in state["param_groups"]
    ]
    assert all(group["weight_decay"] == 0.3 for group in groups)
    assert all(tuple(group["betas"]) == (0.5, 0.6) for group in groups if "betas" in group)
    assert any("betas" in group for group in groups)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), "run: out of memory on the device; .* --micro-batch"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal"), "run: a process that reads .* --workers"),
    ],
)
def test_too_little_memory_is_one_line_that_says_what_to_do(corpus, tmp_path, monkeypatch, error, expected):
    def fail(self: Trainer, share: object) -> None:
        raise error

    monkeypatch.setattr(Trainer, "backward", fail)
    with pytest.raises(SdcError, match=expected):
        train(short(), data_root=corpus, run=tmp_path / "run", options=QUICK)


def test_what_was_measured_before_a_break_does_not_depend_on_the_number_of_processes_after_it():
    def processes(count: int) -> Processes:
        # As many that do the same.
        return types.SimpleNamespace(world_size=count, is_first=True, device="cpu", sum=lambda values: values * count)

    before, after = Means(), Means()
    for _ in range(3):
        before.add({"loss": torch.tensor(2.0)})
        before.waited += 0.5
    after.load_state(before.state(processes(8)), processes(2))
    after.add({"loss": torch.tensor(6.0)})
    means, _ = after.take(processes(2))
    assert means == pytest.approx({"loss": 3.0, "input_wait": 1.5 / 4})


def test_a_checkpoint_that_is_damaged_or_of_another_recipe_is_refused_by_name(corpus, run, tmp_path):
    wider = dataclasses.replace(short(steps=1), quantizer=QuantizerFields(num_codebooks=2, codebook_size=32))
    with pytest.raises(ModelError, match="the checkpoint does not fit the recipe"):
        train(wider, data_root=corpus, run=run, resume=True)
    path = checkpoint.newest(run)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ModelError, match=r"step-00000001\.pt: is damaged .* remove it to continue from the"):
        train(short(steps=1), data_root=corpus, run=run, resume=True)
    with pytest.raises(ModelError, match=r"step-00000001\.pt: is damaged"):
        export(run, tmp_path / "model")


def test_a_full_disk_keeps_the_checkpoint_before_and_leaves_no_half_one(corpus, run, monkeypatch):
    before = checkpoint.newest(run).read_bytes()

    def full(number):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sdcodec_cli.engine.train.checkpoint.os.fsync", full)
    with pytest.raises(OutputError, match="No space left on device; free some space and continue with --resume"):
        train(short(steps=2), data_root=corpus, run=run, resume=True, options=QUICK)
    assert [path.read_bytes() for path in checkpoint.checkpoints(run)] == [before]
    assert not list(run.rglob("*.partial"))


@pytest.mark.parametrize(
    ("options", "expected"),
    [({"micro_batch": 3}, "--micro-batch 3: the 4 examples of a process must be a multiple of it")],
)
def test_a_batch_that_cannot_be_shared_out_is_refused(corpus, tmp_path, options, expected):
    with pytest.raises(RecipeError, match=expected):
        train(short(), data_root=corpus, run=tmp_path / "run", options=RunOptions(**options))


def test_a_model_of_other_sizes_is_no_start(corpus, run, tmp_path):
    entry = export(run, tmp_path / "model")
    with pytest.raises(ModelError, match="cannot be a start for this recipe"):
        train(tiny_recipe("conv"), data_root=corpus, run=tmp_path / "other", initial=entry)


def test_discriminators_that_cannot_be_built_are_a_wrong_recipe(corpus, tmp_path):
    recipe = override(adversarial(), {"discriminator.band_edges": "[0.01]"})
    with pytest.raises(RecipeError, match=r"discriminator\.band_edges leave fewer than 9 bins"):
        train(recipe, data_root=corpus, run=tmp_path / "run", options=QUICK)


def test_a_resumed_run_says_what_was_changed_and_takes_no_step_back(corpus, tmp_path):
    run, said = tmp_path / "run", []
    train(short(steps=4), data_root=corpus, run=run, options=QUICK)
    with pytest.raises(RecipeError, match="training.steps 3: the run has come to step 4 already"):
        train(short(steps=3), data_root=corpus, run=run, resume=True, options=QUICK)
    assert read_recipe(run / "recipe.toml").training.steps == 4
    train(short(steps=5, seed=7), data_root=corpus, run=run, resume=True, options=QUICK, report=said.append)
    assert f"{run}: training.steps was 4 and is now 5" in said
    assert f"{run}: training.seed was 0 and is now 7" in said


def test_a_run_goes_on_with_data_that_were_moved(tmp_path):
    root = make_corpus(tmp_path / "here")
    options = dataclasses.replace(QUICK, cache_hours=0.0)
    train(short(), data_root=root, run=tmp_path / "whole", options=options)
    train_and_stop(short(), root, tmp_path / "parts", options, during=3)
    root.rename(tmp_path / "there")
    with pytest.raises(InputError, match="here: no such folder; give the one that the run was started with"):
        train(short(), data_root=root, run=tmp_path / "parts", resume=True, options=options)
    train(short(), data_root=tmp_path / "there", run=tmp_path / "parts", resume=True, options=options)
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")


def test_a_checkpoint_that_cannot_be_read_is_not_called_damaged(corpus, run, monkeypatch):
    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(torch, "load", refuse)
    with pytest.raises(ModelError, match="cannot be read: Permission denied; restore it, or its permissions"):
        train(short(steps=2), data_root=corpus, run=run, resume=True, options=QUICK)


def test_a_run_that_is_stopped_before_its_first_step_keeps_the_codebooks_it_was_given(corpus, tmp_path, monkeypatch):
    given = zoo.find(write_tiny(tmp_path / "given", short()))
    monkeypatch.setattr("sdcodec_cli.engine.train.loop.StopOnSignal.requested", True, raising=False)
    monkeypatch.setattr("sdcodec_cli.engine.train.loop.StopOnSignal.__init__", lambda self: None)
    run = tmp_path / "run"
    assert train(short(), data_root=corpus, run=run, initial=given, options=QUICK).step == 0
    monkeypatch.undo()
    recipe = short(steps=1, learning_rate=1e-9)
    train(recipe, data_root=corpus, run=run, resume=True, options=QUICK)
    before, after = load_network(given).quantizer.own.codebook, weights(run)["quantizer.own.codebook"]
    torch.testing.assert_close(after, before)


def test_the_best_checkpoint_is_found_again_after_a_crash_before_it_was_named(corpus, tmp_path):
    options = dataclasses.replace(QUICK, validate_every=2)
    run = tmp_path / "run"
    train(short(steps=2), data_root=corpus, run=run, options=options)
    (run / checkpoint.BEST).unlink()
    train(short(steps=2), data_root=corpus, run=run, resume=True, options=options)
    assert checkpoint.read(run / checkpoint.BEST)["step"] == 2


def test_silent_validation_clips_are_said_and_not_scored(tmp_path):
    corpus = make_corpus(tmp_path / "corpus")
    soundfile.write(corpus / "valid" / "sfx" / "a.wav", np.zeros(16_000), 16_000)
    said: list[str] = []
    options = dataclasses.replace(QUICK, validate_every=1)
    train(short(steps=1), data_root=corpus, run=tmp_path / "run", options=options, report=said.append)
    assert any(line.startswith("no validation: ") and "sfx" in line for line in said)
    assert validations(tmp_path / "run") == []


def test_a_model_folder_is_not_taken_for_a_run(corpus, tmp_path):
    model = write_tiny(tmp_path / "model", short())
    with pytest.raises(ModelError, match="is a model, which a run would spoil"):
        train(short(), data_root=corpus, run=model, options=QUICK)


def test_examples_may_end_within_a_frame(corpus, tmp_path):
    recipe = dataclasses.replace(short(steps=1), mixing=dataclasses.replace(short().mixing, seconds=0.499))
    assert train(recipe, data_root=corpus, run=tmp_path / "run", options=QUICK).finished


def test_an_odd_number_of_examples_at_a_time_is_said_to_leave_one_out_of_the_exchange(corpus, tmp_path):
    said: list[str] = []
    options = dataclasses.replace(QUICK, micro_batch=1)
    train(short(steps=1), data_root=corpus, run=tmp_path / "run", options=options, report=said.append)
    assert "examples at a time: 1; the last one has none to exchange domains with" in said


def test_what_comes_before_the_first_step_is_said_when_it_begins_and_when_it_is_done(corpus, tmp_path):
    said: list[str] = []
    train(short(steps=1), data_root=corpus, run=tmp_path / "run", options=QUICK, report=said.append)
    assert said[:6] == [
        f"{corpus}: reading the headers of 6 files",
        f"{corpus}: 6 files, 0.00 h",
        f"{tmp_path / 'run' / 'cache'}: decoding 3 files of train, 0.00 h",
        f"{tmp_path / 'run' / 'cache'}: 3 files of train decoded in 0 s",
        f"{tmp_path / 'run' / 'cache'}: decoding 3 files of valid, 0.00 h",
        f"{tmp_path / 'run' / 'cache'}: 3 files of valid decoded in 0 s",
    ]
