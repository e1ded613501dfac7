"""Runs as a cluster sees them: several processes, processes that are killed, processes that are told to go."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from sdcodec_cli.engine.train import checkpoint
from sdcodec_cli.engine.train.distributed import Processes, launch
from sdcodec_cli.engine.train.setup import RunOptions, share_of
from sdcodec_cli.errors import DeviceError, RecipeError
from sdcodec_cli.recipe import Recipe, TrainingFields, override, write_recipe

from training_examples import adversarial, losses, make_corpus, short, validations

SMALL_VALIDATION = """
import sys
from sdcodec_cli.engine.train import validation
validation.EXAMPLES, validation.SECONDS = 2, 1.0
from sdcodec_cli.cli.app import main
sys.exit(main())
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> Path:
    """`sdc` with a validation that takes a moment."""
    path = tmp_path_factory.mktemp("program") / "sdc.py"
    path.write_text(SMALL_VALIDATION)
    return path


class Cluster:
    """Starts `sdc train` in processes of its own."""

    def __init__(self, program: Path, corpus: Path, folder: Path) -> None:
        self.program, self.corpus, self.folder = program, corpus, folder

    def command(self, recipe: Recipe, name: str, *arguments: str, processes: int = 1) -> list[str]:
        path = self.folder / f"{name}.toml"
        write_recipe(recipe, path)
        python = [sys.executable]
        if processes > 1:
            python += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        where = ["--data-root", str(self.corpus), "--out", str(self.folder / name), "--device", "cpu"]
        how = ["--recipe", str(path), "--log-every", "1", "--workers", "1", *arguments]
        return [*python, str(self.program), "train", *where, *how]

    def start(self, recipe: Recipe, name: str, *arguments: str, processes: int = 1) -> subprocess.Popen[str]:
        command = self.command(recipe, name, *arguments, processes=processes)
        root = str(Path(__file__).resolve().parents[1])
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": root}
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
        )

    def run(self, recipe: Recipe, name: str, *arguments: str, processes: int = 1, exit_code: int = 0) -> str:
        process = self.start(recipe, name, *arguments, processes=processes)
        _, stderr = process.communicate(timeout=240)
        assert process.returncode == exit_code, stderr
        return stderr

    def wait_for_step(self, process: subprocess.Popen[str], name: str, step: int) -> None:
        metrics, deadline = self.folder / name / "metrics.jsonl", time.monotonic() + 120
        while not (metrics.exists() and f'"step": {step},' in metrics.read_text()):
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.01)


STEPS = 14
RECIPE = override(
    adversarial(batch_size=8, steps=STEPS, learning_rate=1e-4, warmup_steps=7, silence_probability=0.5),
    {"mixing.seconds": "0.4"},
)
OFTEN = ("--checkpoint-every", "2", "--validate-every", "7")


@pytest.fixture(scope="module")
def cluster(program, corpus, tmp_path_factory) -> Cluster:
    return Cluster(program, corpus, tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def whole(cluster) -> Path:
    """A run of one process that nothing happened to."""
    cluster.run(RECIPE, "whole", *OFTEN)
    return cluster.folder / "whole"


@pytest.fixture(scope="module")
def killed(cluster) -> Path:
    """A run of one process that was killed in the middle."""
    process = cluster.start(RECIPE, "killed", *OFTEN)
    step = random.Random(time.time()).randrange(3, 9)
    print(f"killed after step {step}")  # shown by pytest when something fails
    cluster.wait_for_step(process, "killed", step)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    stopped_at = checkpoint.step_of(checkpoint.newest(cluster.folder / "killed"))
    assert stopped_at in range(2, STEPS)
    return cluster.folder / "killed"


@pytest.fixture(scope="module")
def together(cluster) -> tuple[Path, str]:
    """A run of two processes that nothing happened to, and what it said."""
    said = cluster.run(RECIPE, "together", *OFTEN, processes=2)
    return cluster.folder / "together", said


@pytest.mark.slow
def test_two_processes_of_four_examples_lose_what_one_of_eight_loses(whole, together):
    one, two = losses(whole), losses(together[0])
    assert len(one) == STEPS
    for alone, both in zip(one, two, strict=True):
        assert both == pytest.approx(alone, rel=1e-5, abs=1e-5)
    assert validations(together[0])[0] == pytest.approx(validations(whole)[0], abs=1e-2)


@pytest.mark.slow
def test_only_one_of_two_processes_speaks(together):
    _, said = together
    assert len(re.findall("^step 2:", said, re.MULTILINE)) == 1
    assert len(re.findall(f"{STEPS} steps, .* finished$", said, re.MULTILINE)) == 1


@pytest.mark.slow
def test_a_run_that_was_killed_repeats_its_losses_bit_for_bit(cluster, whole, killed):
    shutil.copytree(killed, cluster.folder / "resumed")
    cluster.run(RECIPE, "resumed", "--resume", *OFTEN)
    assert losses(cluster.folder / "resumed") == losses(whole)
    assert validations(cluster.folder / "resumed") == validations(whole)
    last = [checkpoint.read(checkpoint.newest(run)) for run in (whole, cluster.folder / "resumed")]
    for part in ("model", "average", "discriminators"):
        for name, tensor in last[0][part].items():
            assert torch.equal(tensor, last[1][part][name]), name


@pytest.mark.slow
def test_a_run_that_was_killed_in_one_process_goes_on_in_two(cluster, whole, killed):
    shutil.copytree(killed, cluster.folder / "wider")
    cluster.run(RECIPE, "wider", "--resume", *OFTEN, processes=2)
    ours = losses(cluster.folder / "wider")
    assert [row["step"] for row in ours] == list(range(1, STEPS + 1))
    for alone, both in zip(losses(whole), ours, strict=True):
        assert both == pytest.approx(alone, rel=1e-5, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_sigterm_saves_and_a_resumed_run_repeats_the_losses(cluster, whole, together, processes):
    name = f"stopped-{processes}"
    process = cluster.start(RECIPE, name, "--validate-every", "7", processes=processes)
    cluster.wait_for_step(process, name, 3)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
    if processes == 1:
        assert process.returncode == 130
        assert "stopped, --resume continues it" in stderr
    stopped_at = checkpoint.step_of(checkpoint.newest(cluster.folder / name))
    assert stopped_at is not None
    assert 3 <= stopped_at < STEPS
    cluster.run(RECIPE, name, "--resume", "--validate-every", "7", processes=processes)
    assert losses(cluster.folder / name) == losses(whole if processes == 1 else together[0])


def test_a_batch_that_two_processes_cannot_share_is_refused():
    class Two:
        rank, world_size = 0, 2

    with pytest.raises(RecipeError, match="batch_size 3 cannot be shared by 2 processes; set it to a multiple of 2"):
        share_of(short(batch_size=3), Two(), RunOptions())


def test_gpus_are_one_torchrun_process_each(monkeypatch):
    became: list[list[str]] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(os, "execv", lambda path, command: became.append(command))
    launch(4, ["train", "--data-root", "d", "--gpus", "4"])
    (command,) = became
    assert command[1:6] == ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "4"]
    assert command[6:] == ["-m", "sdcodec_cli", "train", "--data-root", "d", "--gpus", "4"]


def test_more_gpus_than_there_are_is_one_line(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(DeviceError, match="--gpus 2: this machine has 1 CUDA devices"):
        launch(2, [])


@pytest.mark.parametrize(("precision", "short"), [("float32", False), ("bfloat16", False), ("tf32", True)])
def test_only_who_asks_for_it_gets_shortened_products_on_cuda(precision, short):
    Processes("cpu", TrainingFields(precision=precision))
    assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == (short, short)
