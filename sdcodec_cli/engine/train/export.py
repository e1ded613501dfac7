"""From a training run to a model folder."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ... import zoo
from ...errors import ModelError
from ...nn.layers import fold_weight_norm
from ...recipe import read_recipe
from . import checkpoint
from .trainer import make_trainable

TO_FILL_IN = "To be filled in:"


def export(
    run: Path,
    folder: Path,
    *,
    name: str | None = None,
    half: bool = False,
    best: bool = False,
    overwrite: bool = False,
) -> zoo.ModelEntry:
    """Write the averaged weights of a run as a model folder.

    Args:
        run: folder of the run
        folder: to make
        name: of the model; that of its recipe by default
        best: take the checkpoint that scored best on validation, not the last one
        half: store weights in 16 bits; they are computed with in 32 all the same
        overwrite: replace an existing model folder, but keep its card

    Raises:
        ModelError: no run in the folder, none that was validated, or a damaged one
        OutputError: the folder exists and `overwrite` is off, or it cannot be written
    """
    path = run / checkpoint.BEST if best else checkpoint.newest(run)
    if best and not path.exists():
        raise ModelError(f"{run}: has no best checkpoint, it was never validated; leave --best out")
    state = checkpoint.read(path)
    recipe = read_recipe(run / zoo.RECIPE)
    recipe = dataclasses.replace(recipe, name=name or recipe.name)
    network = zoo.build(recipe)
    make_trainable(network, recipe.training)
    network.load_state_dict(state["average"])
    fold_weight_norm(network)
    tensors = {name: tensor.half() if half else tensor for name, tensor in network.state_dict().items()}
    kept = folder / zoo.CARD
    card = kept.read_text(encoding="utf-8") if kept.is_file() else ""
    if not card or TO_FILL_IN in card:
        card = _card(recipe.name, state["step"])
    return zoo.write_model(folder, recipe, tensors, card=card, overwrite=overwrite)


def _card(name: str, step: int) -> str:
    return (
        f"# {name}\n\nTrained by `sdc train` for {step} steps; recipe.toml has every setting.\n\n"
        f"{TO_FILL_IN} training data and its licence, scores and the command that repeats them, limits.\n"
    )
