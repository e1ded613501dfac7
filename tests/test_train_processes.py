"""Runs as a cluster sees them: several processes, processes that are killed, processes that are told to go."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from sdcodec_cli.engine.train import checkpoint
from sdcodec_cli.engine.train.distributed import launch
from sdcodec_cli.errors import DeviceError
from sdcodec_cli.recipe import Recipe, write_recipe

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
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
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


@pytest.fixture
def cluster(program, corpus, tmp_path) -> Cluster:
    return Cluster(program, corpus, tmp_path)


@pytest.mark.parametrize("make", [short, adversarial])
def test_two_processes_of_four_examples_lose_what_one_of_eight_loses(cluster, make):
    recipe = make(batch_size=8, steps=20, learning_rate=1e-4, silence_probability=0.5)
    cluster.run(recipe, "one")
    cluster.run(recipe, "two", processes=2)
    one, two = losses(cluster.folder / "one"), losses(cluster.folder / "two")
    assert len(one) == 20
    for alone, together in zip(one, two, strict=True):
        assert together == pytest.approx(alone, rel=1e-5, abs=1e-5)
    (first,), (second,) = validations(cluster.folder / "one"), validations(cluster.folder / "two")
    assert second == pytest.approx(first, abs=1e-2)


def test_a_run_that_was_killed_in_one_process_goes_on_in_two(cluster):
    recipe = short(steps=12, learning_rate=1e-4)
    cluster.run(recipe, "whole")
    process = cluster.start(recipe, "parts", "--checkpoint-every", "2")
    cluster.wait_for_step(process, "parts", 5)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    cluster.run(recipe, "parts", "--resume", processes=2)
    for whole, parts in zip(losses(cluster.folder / "whole"), losses(cluster.folder / "parts"), strict=True):
        assert parts == pytest.approx(whole, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize(("make", "step"), [(short, 3), (adversarial, 8)])
def test_a_run_that_was_killed_repeats_its_losses_bit_for_bit(cluster, make, step):
    recipe = make(steps=12)
    cluster.run(recipe, "whole")
    process = cluster.start(recipe, "parts", "--checkpoint-every", "2")
    cluster.wait_for_step(process, "parts", step)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    stopped_at = checkpoint.newest(cluster.folder / "parts")
    assert checkpoint.step_of(stopped_at) in range(2, 12)
    cluster.run(recipe, "parts", "--resume")
    assert losses(cluster.folder / "parts") == losses(cluster.folder / "whole")
    last = [checkpoint.read(checkpoint.newest(cluster.folder / name)) for name in ("whole", "parts")]
    for name, tensor in last[0]["model"].items():
        assert torch.equal(tensor, last[1]["model"][name]), name


@pytest.mark.parametrize("processes", [1, 2])
def test_sigterm_saves_and_a_resumed_run_repeats_the_losses(cluster, processes):
    recipe = short(steps=400, learning_rate=1e-4, warmup_steps=400)
    process = cluster.start(recipe, "parts", processes=processes)
    cluster.wait_for_step(process, "parts", 3)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
    if processes == 1:
        assert process.returncode == 130
        assert "stopped, --resume continues it" in stderr
    stopped_at = checkpoint.step_of(checkpoint.newest(cluster.folder / "parts"))
    assert stopped_at is not None
    assert 3 <= stopped_at < 400
    end = ["--set", f"training.steps={stopped_at + 3}"]
    cluster.run(recipe, "parts", "--resume", *end, processes=processes)
    cluster.run(recipe, "whole", *end, processes=processes)
    assert losses(cluster.folder / "parts") == losses(cluster.folder / "whole")


def test_only_one_of_two_processes_speaks(cluster):
    stderr = cluster.run(short(steps=2), "run", processes=2)
    assert len(re.findall("^step 2:", stderr, re.MULTILINE)) == 1
    assert len(re.findall("2 steps, .* finished$", stderr, re.MULTILINE)) == 1


def test_a_batch_that_two_processes_cannot_share_is_one_line(cluster):
    stderr = cluster.run(short(batch_size=3), "run", processes=2, exit_code=1)
    assert "training.batch_size 3 cannot be shared by 2 processes; set it to a multiple of 2" in stderr


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
