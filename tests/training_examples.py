"""What the tests of training share: a corpus of a second per domain, and a recipe that trains in a moment."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from sdcodec_cli.engine.train.loop import TrainResult, train
from sdcodec_cli.engine.train.setup import RunOptions
from sdcodec_cli.engine.train.trainer import Trainer
from sdcodec_cli.recipe import Recipe

from tiny_models import tiny_recipe

QUICK = RunOptions(workers=1, log_every=1, validate_every=1000, checkpoint_every=1000)


def make_corpus(root: Path) -> Path:
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


def short(kind: str = "spectral", **changes: Any) -> Recipe:
    """A tiny recipe of six steps with four examples each."""
    recipe = tiny_recipe(kind)
    training = {
        "batch_size": 4,
        "steps": 6,
        "learning_rate": 3e-3,
        "average_decay": 0.9,
        "mel_scales_per_step": 2,
        "precision": "float32",
        "codebook_renewal": True,
    }
    return dataclasses.replace(recipe, training=dataclasses.replace(recipe.training, **{**training, **changes}))


def adversarial(kind: str = "spectral", **changes: Any) -> Recipe:
    return short(kind, feature_weight=2.0, adversarial_weight=1.0, **changes)


def rows(run: Path, having: str) -> list[dict[str, Any]]:
    """The rows of `metrics.jsonl` that have something."""
    every = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row for row in every if having in row]


def losses(run: Path) -> list[dict[str, float]]:
    """The rows of losses of a run, each with its step."""
    return [{"step": row["step"], **row["loss"]} for row in rows(run, "loss")]


def validations(run: Path) -> list[dict[str, float]]:
    return [row["validation"] for row in rows(run, "validation")]


def train_and_stop(recipe: Recipe, corpus: Path, run: Path, options: RunOptions, *, during: int) -> TrainResult:
    """SIGTERM during a step, without a shorter schedule."""
    steps = itertools.count(1)
    original = Trainer.take_step

    def interrupted(self: Trainer) -> None:
        if next(steps) == during:
            os.kill(os.getpid(), signal.SIGTERM)
        original(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "take_step", interrupted)
        return train(recipe, data_root=corpus, run=run, options=options)
