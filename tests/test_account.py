"""Users without an entry in passwd, as containers have them."""

from __future__ import annotations

import getpass
import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from sdcodec_cli.account import name_user
from sdcodec_cli.recipe import write_recipe

from training_examples import make_corpus, short

NAMES = ("LOGNAME", "USER", "LNAME", "USERNAME")


@pytest.fixture
def nobody(monkeypatch):
    """Nobody knows the name of the user."""

    def unknown(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in NAMES:
        monkeypatch.setenv(name, "")


def test_a_user_without_a_name_gets_one_of_their_number(nobody):
    with pytest.raises((KeyError, OSError)):
        getpass.getuser()
    name_user()
    assert getpass.getuser() == f"uid-{os.getuid()}"


def test_a_user_who_has_a_name_keeps_it(nobody, monkeypatch):
    monkeypatch.setenv("USER", "somebody")
    name_user()
    assert getpass.getuser() == "somebody"


# In torch 2.11 the first step of an optimizer imports the compiler, which asks for the name; 2.13 does without.
TRAIN = """
import getpass, pwd, sys, torch

def unknown(uid):
    raise KeyError(f"getpwuid(): uid not found: {uid}")

def step(optimizer, step=torch.optim.AdamW.step):
    getpass.getuser()
    return step(optimizer)

pwd.getpwuid, torch.optim.AdamW.step = unknown, step
from sdcodec_cli.engine.train import validation
validation.EXAMPLES, validation.SECONDS = 2, 1.0
from pathlib import Path
START
"""
COMMAND = "from sdcodec_cli.cli.app import main; main()"
FUNCTION = """
from sdcodec_cli.engine.train.loop import train
from sdcodec_cli.recipe import read_recipe
train(read_recipe(Path(sys.argv[5])), data_root=Path(sys.argv[3]), run=Path(sys.argv[7]))
"""


@pytest.mark.parametrize(
    "start", [COMMAND, pytest.param(FUNCTION, marks=pytest.mark.slow)], ids=["command", "function"]
)
def test_a_user_without_a_name_or_a_home_can_train(tmp_path, start):
    write_recipe(short(steps=1), tmp_path / "r.toml")
    arguments = ["--data-root", str(make_corpus(tmp_path / "corpus")), "--recipe", str(tmp_path / "r.toml")]
    environment = {name: value for name, value in os.environ.items() if name not in (*NAMES, "HOME")}
    environment |= {"PYTHONPATH": str(Path(__file__).resolve().parents[1]), "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", TRAIN.replace("START", start), "train", *arguments]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "run"), "--device", "cpu", "--workers", "0"],
        capture_output=True,
        text=True,
        env=environment,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "checkpoints" / "step-00000001.pt").is_file()
