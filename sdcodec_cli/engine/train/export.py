"""From a training run to a model folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ... import weights, zoo
from ...errors import ModelError
from ...families import build, of
from ...nn.layers import fold_weights
from ...recipe import Recipe, read_recipe
from ...runtime.graphs import make_graphs
from ...runtime.model import DECODING
from . import checkpoint
from .older import Replaced, TakenOver, take_over
from .trainer import make_trainable

TO_FILL_IN = "To be filled in:"

MAKING_GRAPHS = "writing the network down as graphs for ONNX Runtime, which takes a minute or two"


def _nothing(line: str) -> None:
    pass


def export(
    run: Path,
    folder: Path,
    *,
    name: str | None = None,
    bits: int = 32,
    best: bool = False,
    replaces: Replaced | None = None,
    overwrite: bool = False,
    report: Callable[[str], None] = _nothing,
) -> zoo.ModelEntry:
    """Write the averaged weights of a run as a model folder.

    Args:
        run: folder of the run
        folder: to make
        name: of the model; that of its recipe by default
        best: take the checkpoint that scored best on validation, not the last one
        bits: of each weight in the file, see `weights.pack`
        replaces: a model whose files are to be decoded still
        overwrite: replace an existing model folder, but keep its card
        report: gets a line about what takes long

    Raises:
        ModelError: no run in the folder, none that was validated, or a damaged one; see `older.take_over`
        OutputError: the folder exists and `overwrite` is off, or it cannot be written
    """
    path = run / checkpoint.BEST if best else checkpoint.newest(run)
    if best and not path.exists():
        raise ModelError(f"{run}: has no best checkpoint, it was never validated; leave --best out")
    state = checkpoint.read(path)
    recipe = read_recipe(run / zoo.RECIPE)
    recipe = dataclasses.replace(recipe, name=name or recipe.name)
    network = build(recipe)
    make_trainable(network, recipe)
    network.load_state_dict(state["average"])
    fold_weights(network)
    kept = folder / zoo.CARD
    card = kept.read_text(encoding="utf-8") if kept.is_file() else ""
    if not card or TO_FILL_IN in card:
        card = _card(recipe.name, f"Trained by `sdc train` for {state['step']} steps")
    return write(
        folder,
        recipe,
        network.state_dict(),
        bits=bits,
        card=card,
        replaces=replaces,
        overwrite=overwrite,
        report=report,
    )


def write(
    folder: Path,
    recipe: Recipe,
    tensors: Mapping[str, Any],
    *,
    bits: int,
    card: str,
    replaces: Replaced | None = None,
    overwrite: bool,
    report: Callable[[str], None] = _nothing,
) -> zoo.ModelEntry:
    """Write a model folder with the graphs of its recipe; `tensors` are of numpy or torch."""
    packed = weights.pack({name: np.asarray(tensor) for name, tensor in tensors.items()}, bits)
    taken = take_over(replaces, packed) if replaces else TakenOver()
    report(MAKING_GRAPHS)
    return zoo.write_model(
        folder,
        recipe,
        packed,
        card=card,
        graphs=make_graphs(recipe),
        decodes=taken.decodes,
        older=taken.older,
        overwrite=overwrite,
    )


def export_stage(
    entry: zoo.ModelEntry,
    folder: Path,
    *,
    number: int,
    overwrite: bool = False,
    report: Callable[[str], None] = _nothing,
) -> zoo.ModelEntry:
    """Write one stage of a model as a model by itself, which files of the whole name and it decodes alone.

    Args:
        entry: the whole
        folder: to make
        number: which one, from 1, that of the lowest rate
        overwrite: replace an existing model folder
        report: gets a line about what takes long

    Raises:
        ValueError: the model has no such stage, or it is another model
        ModelError: it has no weights
        OutputError: the folder exists and `overwrite` is off, or it cannot be written
    """
    codecs = list(of(entry.recipe).codecs(entry.recipe).items())
    if len(codecs) == 1 or not 1 <= number <= len(codecs):
        has = "is a single codec" if len(codecs) == 1 else f"has the stages 1 to {len(codecs)}"
        raise ValueError(f"{entry.name} {has}, so there is no stage {number} of it")
    prefix, recipe = codecs[number - 1]
    if prefix in of(entry.recipe).references(entry.recipe):
        raise ValueError(f"this stage of {entry.name} is the model {recipe.name}; use that")
    stored = weights.read(zoo.weights_path(entry))
    graphs = entry.folder / zoo.GRAPHS / prefix.removesuffix(".")
    if graphs.is_dir():
        made = {path.name: path.read_bytes() for path in graphs.iterdir()}
    else:
        report(MAKING_GRAPHS)
        made = make_graphs(recipe)
    name = zoo.stage_name(entry.name, prefix)
    return zoo.write_model(
        folder,
        dataclasses.replace(recipe, name=name),
        weights.within(stored, prefix),
        card=f"# {name}\n\nStage {number} of `{entry.name}`, by itself; that model's card has everything else.\n",
        graphs=made,
        overwrite=overwrite,
    )


def add_graphs(entry: zoo.ModelEntry, *, report: Callable[[str], None] = _nothing) -> None:
    """Write graphs into a model folder, in place of those that it may have.

    Raises:
        ModelError: the folder has no weights
        OutputError: it cannot be written
    """
    zoo.weights_path(entry, decoding=True)
    report(MAKING_GRAPHS)
    zoo.replace_graphs(entry.folder, make_graphs(entry.recipe, DECODING if entry.is_decoder else None))


def average(
    entries: Sequence[zoo.ModelEntry],
    folder: Path,
    *,
    name: str,
    bits: int = 32,
    replaces: Replaced | None = None,
    overwrite: bool = False,
    report: Callable[[str], None] = _nothing,
) -> zoo.ModelEntry:
    """Write the mean of the weights of several models as a model folder, with the recipe of the last one.

    Weights of one run, or of runs that began from the same weights, have means that are as good as they are or better
    (arXiv:2203.05482); those of runs that have nothing in common do not.

    Args:
        entries: the models; one that comes twice counts twice
        folder: to make
        name: of the model
        bits: of each weight in the file, see `weights.pack`
        replaces: a model whose files are to be decoded still
        overwrite: replace an existing model folder
        report: gets a line about what takes long

    Raises:
        ModelError: a model has no weights, or others have other shapes; see `older.take_over`
        OutputError: the folder exists and `overwrite` is off, or it cannot be written
    """
    sums: dict[str, NDArray[np.float32]] = {}
    for entry in entries:
        given = weights.unpack(weights.read(zoo.weights_path(entry)))
        shapes = {key: value.shape for key, value in given.items()}
        first, model = entries[0].recipe.model, entry.recipe.model
        if (first.domains, first.sample_rate) != (model.domains, model.sample_rate):
            raise ModelError(
                f"{entry.folder}: has other domains, or another rate, than {entries[0].folder}; leave it out"
            )
        if sums and shapes != {key: value.shape for key, value in sums.items()}:
            raise ModelError(f"{entry.folder}: has not the shape of {entries[0].folder}; average models of one recipe")
        sums = {key: sums[key] + value if sums else value for key, value in given.items()}
    recipe = dataclasses.replace(entries[-1].recipe, name=name)
    means = {key: value / len(entries) for key, value in sums.items()}
    parts = ", ".join(f"`{entry.folder}`" for entry in entries)
    card = _card(name, f"Mean of the weights of {parts}")
    return write(folder, recipe, means, bits=bits, card=card, replaces=replaces, overwrite=overwrite, report=report)


def _card(name: str, origin: str) -> str:
    return (
        f"# {name}\n\n{origin}; recipe.toml has every setting.\n\n"
        f"{TO_FILL_IN} training data and its licence, scores and the command that repeats them, limits.\n"
    )
