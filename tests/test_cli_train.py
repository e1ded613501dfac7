"""`sdc train`: which recipe it takes, and how it fails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sdcodec_cli import zoo
from sdcodec_cli.engine.train.loop import TrainResult
from sdcodec_cli.engine.train.setup import RunOptions
from sdcodec_cli.recipe import write_recipe

from cli_examples import errors, sdc
from tiny_models import tiny_recipe


class Loop:
    """Stand-in for the training loop."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.error: Exception | None = None
        self.finished = True

    def __call__(self, recipe: Any, **options: Any) -> TrainResult:
        self.calls.append({"recipe": recipe, **options})
        if self.error:
            raise self.error
        return TrainResult(str(options["run"]), 3, self.finished, 1.5, 1, "float32")


@pytest.fixture
def loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Loop:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SDC_DEVICE", raising=False)
    loop = Loop()
    monkeypatch.setattr("sdcodec_cli.engine.train.loop.train", loop)
    return loop


def test_the_recipe_is_the_default_models_with_the_fields_that_are_set(loop: Loop) -> None:
    result = sdc("train", "--data-root", "d", "--out", "run", "--set", "training.steps=7", "--device", "cpu", "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout) == {
        "run": "run",
        "step": 3,
        "finished": True,
        "audio_seconds": 1.5,
        "processes": 1,
        "precision": "float32",
    }
    (call,) = loop.calls
    assert (call["recipe"].name, call["recipe"].training.steps) == ("sdcodec-16k-mini", 7)
    assert (call["run"], call["data_root"], call["device"]) == (Path("run"), Path("d"), "cpu")


def test_how_it_is_done_reaches_the_loop(loop: Loop) -> None:
    numbers = {"micro-batch": 4, "workers": 0, "log-every": 1, "validate-every": 2, "checkpoint-every": 3, "keep": 4}
    options = [f"--{name}={number}" for name, number in numbers.items()]
    sdc("train", "--data-root", "d", *options, "--cache", "c", "--cache-hours", "0.5", "--compile", "--seed", "7")
    (call,) = loop.calls
    assert call["options"] == RunOptions(
        micro_batch=4,
        workers=0,
        cache=Path("c"),
        cache_hours=0.5,
        log_every=1,
        validate_every=2,
        checkpoint_every=3,
        keep=4,
        compiled=True,
    )
    assert call["recipe"].training.seed == 7


def test_several_gpus_are_handed_to_torchrun_unless_it_was_the_one_that_called(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Became(BaseException):
        """`exec` does not come back."""

    def become(gpus: int, arguments: list[str]) -> None:
        raise Became

    monkeypatch.setattr("sdcodec_cli.engine.train.distributed.launch", become)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(Became):
        sdc("train", "--data-root", "d", "--gpus", "2")
    assert loop.calls == []
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert sdc("train", "--data-root", "d", "--gpus", "2", "--device", "cpu").exit_code == 0
    assert len(loop.calls) == 1


def test_a_resumed_run_keeps_its_recipe(loop: Loop) -> None:
    Path("run").mkdir()
    write_recipe(tiny_recipe(), Path("run/recipe.toml"))
    assert sdc("train", "--data-root", "d", "--out", "run", "--resume", "--set", "training.steps=9").exit_code == 0
    assert sdc("train", "--data-root", "d", "--out", "run", "--resume", "--recipe", "dac-16k").exit_code == 0
    first, second = (call["recipe"] for call in loop.calls)
    assert (first.name, first.training.steps) == (tiny_recipe().name, 9)
    assert second.name == "dac-16k"


def test_a_run_with_the_name_of_a_model_of_the_zoo_is_not_mistaken_for_it(loop: Loop) -> None:
    Path("sdcodec-16k/checkpoints").mkdir(parents=True)
    write_recipe(tiny_recipe(), Path("sdcodec-16k/recipe.toml"))
    assert sdc("train", "--data-root", "d", "--out", "sdcodec-16k", "--resume").exit_code == 0
    assert loop.calls[-1]["recipe"] == tiny_recipe()
    assert sdc("train", "--data-root", "d", "--out", "new", "--init", "sdcodec-16k").exit_code == 0
    assert loop.calls[-1]["initial"].folder == zoo.zoo_folder() / "sdcodec-16k"


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("training.stepz=3", "--set: unknown field training.stepz; did you mean training.steps?"),
        ("training.steps=many", "--set: training.steps must be of type int, got 'many'"),
        ("training", "--set training: write it as key=value, such as training.steps=1000"),
    ],
)
def test_a_setting_that_makes_no_sense_is_a_wrong_command_line(loop: Loop, setting: str, expected: str) -> None:
    assert errors(sdc("train", "--data-root", "d", "--set", setting), exit_code=2) == [expected]
    assert loop.calls == []


def test_a_run_that_is_stopped_exits_with_130_and_says_how_to_go_on(loop: Loop) -> None:
    loop.finished = False
    result = sdc("train", "--data-root", "d", "--out", "run", "--device", "cpu")
    assert result.exit_code == 130
    assert result.stderr.splitlines()[-1].endswith("stopped, --resume continues it")


def test_a_run_folder_that_cannot_be_written_is_one_line(loop: Loop) -> None:
    loop.error = OSError(28, "No space left on device")
    (line,) = errors(sdc("train", "--data-root", "d", "--out", "run", "--device", "cpu"))
    assert line == "run: cannot be written: No space left on device; free some space or choose another --out"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--resume", "--init", "m"], "--init is where a run begins; leave it out with --resume"),
        (
            ["--init", "earlier"],
            "--init earlier: is a run; make a model of it first: sdc models export earlier -o MODEL",
        ),
        (["--recipe", "nosuch.toml"], "--recipe nosuch.toml: no such file"),
        (["--seed", "1", "--set", "training.seed=2"], "--seed and --set training.seed differ; give one of them"),
    ],
)
def test_arguments_that_contradict_are_one_line(loop: Loop, arguments: list[str], expected: str) -> None:
    Path("earlier/checkpoints").mkdir(parents=True)
    assert errors(sdc("train", "--data-root", "d", "--out", "run", *arguments), exit_code=2) == [expected]


def test_a_run_whose_recipe_is_lost_is_not_continued_with_another(loop: Loop) -> None:
    (line,) = errors(sdc("train", "--data-root", "d", "--out", "run", "--resume"), exit_code=2)
    assert line.startswith("run: has no recipe.toml to continue with")


def test_training_goes_on_when_nobody_listens(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(line: str) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("sdcodec_cli.cli.console._to_stderr", broken)
    assert sdc("train", "--data-root", "d", "--out", "run", "--device", "cpu").exit_code == 0
    loop.calls[0]["report"]("a line")
