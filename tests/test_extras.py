"""What is said where an extra is not installed, and what works all the same."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from sdcodec_cli.errors import MissingExtra
from sdcodec_cli.extras import MODULES, require

from bitstream_examples import small_example
from cli_examples import errors, sdc

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TRAIN = "pip install 'sdcodec-cli[train]', or in a clone pip install '.[train]'"
EVAL = "pip install 'sdcodec-cli[eval]', or in a clone pip install '.[eval]'"


@pytest.fixture
def without(monkeypatch):
    """A function after which modules cannot be found."""

    def hide(*names: str) -> None:
        for name in names:
            monkeypatch.setitem(sys.modules, name, None)

    return hide


@pytest.mark.parametrize(
    "command",
    [
        ["train", "--data-root", "d"],
        ["data", "scan", "d"],
        ["data", "mix", "--data-root", "d", "-o", "out"],
        ["bench", "--recipe", "sdcodec-16k-mini"],
        ["bench", "--data-root", "d"],
        ["models", "import", "a.pth", "-o", "out"],
        ["models", "export", "run", "-o", "out"],
        ["models", "average", "one", "other", "-o", "out"],
    ],
    ids=lambda command: " ".join(word for word in command[:2]),
)
def test_what_needs_the_extra_for_training_says_how_to_install_it(without, tmp_path, monkeypatch, command) -> None:
    monkeypatch.chdir(tmp_path)
    without("torch", "accelerate")
    (line,) = errors(sdc(*command))
    name = " ".join(command[:2]) if command[0] in ("data", "models", "bench") else command[0]
    assert line == f"sdc {name}: needs torch, accelerate; {TRAIN}"
    assert not any(tmp_path.iterdir())


def test_evaluation_says_how_to_install_its_extra(without) -> None:
    without("scipy")
    (line,) = errors(sdc("eval", "--data-root", "d"))
    assert line == f"sdc eval: needs scipy; {EVAL}"


def test_an_extra_that_is_installed_is_no_matter(without) -> None:
    require("train", "sdc train")
    without("tensorboard")
    require("eval", "sdc eval")
    with pytest.raises(MissingExtra, match="^sdc train: needs tensorboard;"):
        require("train", "sdc train")


def test_what_needs_no_extra_works_without_them(without, tmp_path) -> None:
    without("torch", "onnx", "onnxscript", "accelerate", "tensorboard", "pyarrow", "PIL", "scipy")
    (tmp_path / "a.sdc").write_bytes(small_example().data)
    for command in (["models", "list"], ["models", "show", "sdcodec-16k-mini"], ["info", tmp_path / "a.sdc"]):
        assert sdc(*command).exit_code == 0


PROJECT = tomllib.loads((Path(__file__).resolve().parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.mark.parametrize("extra", sorted(MODULES.keys() & PROJECT["optional-dependencies"].keys()))
def test_what_an_extra_is_asked_for_is_what_it_brings(extra) -> None:
    requirements = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"][extra]]
    brought = {re.split(r"[^\w-]", requirement)[0] for requirement in requirements}
    assert {name.replace("PIL", "pillow") for name in MODULES[extra]} <= brought
