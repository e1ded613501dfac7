"""What a model takes over from one that it replaces, so that files made with that can still be decoded.

Quantizers define codes: where a model has those of the other, its own decoder is right for them. Where it has not, it
may keep the other's decoder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ... import weights, zoo
from ...errors import ModelError
from ...families import of
from ...runtime.graphs import make_graphs
from ...runtime.model import DECODING
from ...runtime.onnx import MANIFEST, has_graphs, read_manifest
from ...weights import Weights


@dataclass(frozen=True)
class Replaced:
    """A model that is replaced."""

    entry: zoo.ModelEntry
    keep: bool = False
    """Keep its decoder, because the quantizers are other ones."""


@dataclass(frozen=True)
class TakenOver:
    """What of it becomes part of the model that replaces it."""

    decodes: tuple[bytes, ...] = ()
    """Older weights whose files the new ones decode."""
    older: Mapping[str, bytes] = field(default_factory=dict)
    """Files of the folder `older`."""


def take_over(replaced: Replaced, tensors: Weights) -> TakenOver:
    """What a model of these tensors, as they are stored, takes over.

    Raises:
        ModelError: the model that is replaced has no weights, no codes, or several codecs; its quantizers are other
            ones and its decoder is not to be kept, or they are the same and it is
    """
    entry = replaced.entry
    family = of(entry.recipe)
    stored = weights.read(zoo.weights_path(entry))
    if not family.decoding:
        several = "is several codecs, of which nothing can be taken over"
        why = several if family.streams(entry.recipe) else "has no codes, so there are no files of it to decode"
        raise ModelError(f"{entry.folder}: {why}; leave --replaces out")
    made_with = (weights.sha256(stored), *entry.decodes)
    older = {**zoo.tables_to_keep(entry.folder), **zoo.older_files(entry.folder)}
    different = _first_difference(stored, tensors, family.decoding[0])
    if not replaced.keep:
        if different:
            raise ModelError(
                f"{entry.folder}: its {different} is not that of the new weights, which cannot decode its files then; "
                "pass --keep-older to keep its decoder for them"
            )
        own = weights.sha256(tensors)
        return TakenOver(tuple(digest for digest in made_with if digest != own), older)
    if not different:
        raise ModelError(
            f"{entry.folder}: its quantizers are those of the new weights, which decode its files; "
            "leave --keep-older out"
        )
    kept = {name: tensor for name, tensor in stored.items() if name.startswith(family.decoding)}
    files = {
        zoo.RECIPE: (entry.folder / zoo.RECIPE).read_bytes(),
        zoo.DECODER: zoo.weights_file(kept, made_with),
        **{f"{zoo.GRAPHS}/{name}": data for name, data in _graphs(entry).items()},
    }
    return TakenOver(older={**older, **{f"{made_with[0].hex()[:8]}/{name}": data for name, data in files.items()}})


def _first_difference(before: Weights, after: Weights, prefix: str) -> str | None:
    """Name of the first tensor of the quantizers that is not the same in both, in 32 bits; None if all are."""
    one, other = (
        {name: tensor for name, tensor in weights.unpack(tensors).items() if name.startswith(prefix)}
        for tensors in (before, after)
    )
    names = sorted(one.keys() | other.keys())
    same = (name in one and name in other and np.array_equal(one[name], other[name]) for name in names)
    return next((name for name, equal in zip(names, same, strict=True) if not equal), None)


def _graphs(entry: zoo.ModelEntry) -> dict[str, bytes]:
    """Files of graphs that decode: those that there are, so that the same is computed as ever."""
    if not has_graphs(entry.folder):
        return make_graphs(entry.recipe, DECODING)
    manifest = read_manifest(entry.folder, of(entry.recipe), DECODING)
    manifest["weights"] = {part: manifest["weights"][part] for part in DECODING}
    graphs = {f"{part}.onnx": (entry.folder / zoo.GRAPHS / f"{part}.onnx").read_bytes() for part in DECODING}
    return {**graphs, MANIFEST: (json.dumps(manifest, indent=1) + "\n").encode()}
