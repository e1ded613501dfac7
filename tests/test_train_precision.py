"""What `training.precision = auto` chooses, who keeps the choice, and Muon in either precision."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sdcodec_cli.engine.train import checkpoint, precision
from sdcodec_cli.engine.train.distributed import Processes
from sdcodec_cli.engine.train.loop import train
from sdcodec_cli.engine.train.muon import COEFFICIENTS, Muon, orthogonalize
from sdcodec_cli.engine.train.precision import Choice, choose_precision, product_seconds
from sdcodec_cli.engine.train.trainer import Trainer
from sdcodec_cli.recipe import override, read_recipe

from training_examples import QUICK, losses, short, train_and_stop

FAST, SLOW = "bfloat16", "float32"

pytestmark = pytest.mark.usefixtures("small_validation")


@pytest.fixture
def processor(monkeypatch):
    """A function that says how many times as fast as float32 the processor is in bfloat16."""

    def is_times_as_fast(times: float) -> None:
        seconds = {torch.float32: 0.004, torch.bfloat16: 0.004 / times}
        monkeypatch.setattr(precision, "product_seconds", seconds.__getitem__)

    return is_times_as_fast


@pytest.mark.parametrize(("times", "chosen"), [(2.0, FAST), (1.3, FAST), (1.1, SLOW), (0.125, SLOW)])
def test_bfloat16_is_chosen_where_it_is_clearly_faster(processor, times, chosen):
    processor(times)
    assert choose_precision("auto", "cpu").precision == chosen


def test_the_choice_is_said_with_both_measurements(processor):
    processor(0.125)
    assert choose_precision("auto", "cpu").line == (
        "precision: float32, as a product of matrices takes 4.00 ms in float32 and 32.00 ms in bfloat16 on a core here"
    )


@pytest.mark.parametrize("wanted", ["float32", "tf32", "bfloat16"])
def test_a_recipe_that_names_a_precision_gets_it_without_a_word(monkeypatch, wanted):
    monkeypatch.setattr(precision, "product_seconds", None)  # not called
    assert choose_precision(wanted, "cpu") == choose_precision(wanted, "cpu", FAST) == Choice(wanted)


@pytest.mark.parametrize(("supported", "chosen"), [(True, FAST), (False, SLOW)])
def test_a_gpu_is_asked_whether_it_has_bfloat16_or_only_emulates_it(monkeypatch, supported, chosen):
    def is_bf16_supported(including_emulation: bool = True) -> bool:
        return including_emulation or supported

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_bf16_supported)
    assert choose_precision("auto", "cuda").precision == chosen


def test_mps_devices_compute_in_float32():
    assert choose_precision("auto", "mps").precision == "float32"


@pytest.mark.parametrize(("taken", "best"), [([9.0, 0.05, 0.03, 0.04], 0.03), ([9.0, 2.0], 2.0)])
def test_the_best_product_counts_after_one_that_warms_up_and_within_a_tenth_of_a_second(monkeypatch, taken, best):
    now, left = 0.0, list(taken)

    def product(one: torch.Tensor, other: torch.Tensor) -> None:
        nonlocal now
        assert torch.get_num_threads() == 1
        assert one.dtype == other.dtype == torch.bfloat16
        now += left.pop(0)

    monkeypatch.setattr(torch, "mm", product)
    monkeypatch.setattr(precision.time, "perf_counter", lambda: now)
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert product_seconds(torch.bfloat16) == pytest.approx(best)
        assert (left, torch.get_num_threads()) == ([], 3)
    finally:
        torch.set_num_threads(threads)


def test_a_resumed_run_keeps_the_choice_and_repeats_the_losses_of_an_unbroken_one(corpus, tmp_path, processor):
    recipe = short(precision="auto", optimizer="muon")
    processor(2)
    train(recipe, data_root=corpus, run=tmp_path / "whole", options=QUICK)
    train_and_stop(recipe, corpus, tmp_path / "parts", QUICK, during=3)
    processor(0.1)  # another machine
    said: list[str] = []
    resumed = train(recipe, data_root=corpus, run=tmp_path / "parts", resume=True, options=QUICK, report=said.append)
    assert resumed.precision == "bfloat16"
    assert "precision: bfloat16, as in the run so far" in said
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    train(recipe, data_root=corpus, run=tmp_path / "other", options=QUICK)
    assert losses(tmp_path / "other") != losses(tmp_path / "whole")


def test_the_run_folder_has_what_was_asked_for_and_the_checkpoint_what_was_chosen(corpus, tmp_path, processor):
    processor(0.1)
    said: list[str] = []
    train(short(precision="auto", steps=1), data_root=corpus, run=tmp_path / "run", options=QUICK, report=said.append)
    assert len([line for line in said if line.startswith("precision: float32")]) == 1
    assert read_recipe(tmp_path / "run" / "recipe.toml").training.precision == "auto"
    assert checkpoint.read(checkpoint.newest(tmp_path / "run"))["precision"] == "float32"


def test_what_a_resumed_run_asks_for_counts_more_than_what_was_chosen(corpus, tmp_path, processor):
    processor(2)
    recipe = short(precision="auto", steps=1)
    train(recipe, data_root=corpus, run=tmp_path / "run", options=QUICK)
    changed = override(recipe, {"training.steps": "2", "training.precision": "float32"})
    assert train(changed, data_root=corpus, run=tmp_path / "run", resume=True, options=QUICK).precision == "float32"


def test_a_checkpoint_from_before_there_was_a_choice_can_be_continued(corpus, tmp_path, processor):
    train(short(steps=1), data_root=corpus, run=tmp_path / "run", options=QUICK)
    state = checkpoint.read(checkpoint.newest(tmp_path / "run"))
    del state["precision"]
    checkpoint.save(tmp_path / "run", state, keep=1)
    processor(2)
    recipe = short(steps=2, precision="auto")
    assert train(recipe, data_root=corpus, run=tmp_path / "run", resume=True, options=QUICK).precision == "bfloat16"


TWO_MINDS = """
import os, torch
from sdcodec_cli.engine.train import precision
from sdcodec_cli.engine.train.distributed import Processes
from sdcodec_cli.recipe import TrainingFields

fast = torch.bfloat16 if os.environ["RANK"] == "0" else torch.float32
precision.product_seconds = lambda dtype: 0.001 if dtype == fast else 0.01
processes = Processes("cpu", TrainingFields(precision="auto"))
with processes.autocast():
    # In one piece: two processes write at once.
    os.write(1, f'{processes.rank} {processes.precision} {torch.ones(2, 2).mm(torch.ones(2, 2)).dtype}\\n'.encode())
processes.end()
"""


@pytest.mark.slow
def test_all_processes_take_the_choice_of_the_first(tmp_path):
    (tmp_path / "minds.py").write_text(TWO_MINDS)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    root = str(Path(__file__).resolve().parents[1])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": root}
    done = subprocess.run(
        [*command, str(tmp_path / "minds.py")], capture_output=True, text=True, env=environment, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == ["0 bfloat16 torch.bfloat16", "1 bfloat16 torch.bfloat16"]


# --------------------------------------------------------------------------------------------------------------------
# Muon
# --------------------------------------------------------------------------------------------------------------------

SHAPES = [(48, 16), (16, 48), (32, 32)]


def gradient(shape: tuple[int, int], seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", SHAPES)
def test_singular_vectors_stay_and_singular_values_follow_the_published_polynomial(shape):
    left, values, right = torch.linalg.svd(gradient(shape).double(), full_matrices=False)
    values = values / values.norm()
    for _ in range(5):
        values = sum(a * values**power for a, power in zip(COEFFICIENTS, (1, 3, 5), strict=True))
    exact = left @ torch.diag(values) @ right
    torch.testing.assert_close(orthogonalize(gradient(shape), torch.float32).double(), exact, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("shape", [(48, 16), (16, 48)])
def test_the_update_is_orthogonal_but_for_a_third(shape):
    left, _, right = torch.linalg.svd(gradient(shape), full_matrices=False)
    found = left.T @ orthogonalize(gradient(shape), torch.float32) @ right.T
    values = found.diag()
    assert bool(((values > 0.67) & (values < 1.33)).all())
    assert (found - torch.diag(values)).abs().max() < 1e-4


def test_the_gradient_that_is_orthogonalized_stays_as_it_is_and_zero_stays_zero():
    matrix = gradient((8, 8))
    orthogonalize(matrix, torch.float32)
    assert torch.equal(matrix, gradient((8, 8)))
    assert not orthogonalize(torch.zeros(8, 8), torch.float32).any()


def steps(optimizer_of, shape: tuple[int, int]) -> torch.Tensor:
    matrix = torch.nn.Parameter(gradient(shape, seed=9))
    optimizer = optimizer_of([matrix])
    for step in range(4):
        optimizer.param_groups[0]["lr"] = 0.1 / (step + 1)
        matrix.grad = gradient(shape, seed=step)
        optimizer.step()
    return matrix.detach()


def theirs(matrices: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.Muon(matrices, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")


@pytest.mark.parametrize("shape", SHAPES)
def test_in_bfloat16_it_is_torchs_muon_to_the_bit(shape):
    ours = steps(lambda matrices: Muon(matrices, weight_decay=0.1, dtype=torch.bfloat16), shape)
    assert torch.equal(ours, steps(theirs, shape))


@pytest.mark.parametrize("shape", SHAPES)
def test_in_float32_it_is_torchs_muon_within_the_rounding_of_bfloat16(shape):
    ours = steps(lambda matrices: Muon(matrices, weight_decay=0.1, dtype=torch.float32), shape)
    start, other = gradient(shape, seed=9), steps(theirs, shape)
    # bfloat16 keeps 8 bits, and five iterations of three products each stretch what is lost.
    assert 0 < (ours - other).norm() < 0.05 * (other - start).norm()


def test_a_checkpoint_of_torchs_muon_is_continued():
    matrix = torch.nn.Parameter(gradient((8, 4)))
    old, new = theirs([matrix]), Muon([matrix], weight_decay=0.0, dtype=torch.bfloat16)
    matrix.grad = gradient((8, 4), seed=1)
    old.step()
    new.load_state_dict(old.state_dict())
    assert torch.equal(new.state[matrix]["momentum_buffer"], old.state[matrix]["momentum_buffer"])


@pytest.mark.parametrize(
    ("chosen", "dtype"), [("float32", torch.float32), ("tf32", torch.float32), ("bfloat16", torch.bfloat16)]
)
def test_muon_computes_in_the_precision_of_the_run(monkeypatch, chosen, dtype):
    recipe = short(precision=chosen, optimizer="muon")
    trainer = Trainer(recipe, Processes("cpu", recipe.training))
    seen = set()

    def record(matrix, dtype):
        seen.add(dtype)
        return matrix

    monkeypatch.setattr("sdcodec_cli.engine.train.muon.orthogonalize", record)
    for parameter in trainer.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    trainer.take_step()
    assert seen == {dtype}
