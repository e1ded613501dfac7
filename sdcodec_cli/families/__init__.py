"""The kinds of models, a module each. See `family` for what each has to say."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, cast

from ..recipe import Recipe
from .family import Codebooks, Family, Stream

if TYPE_CHECKING:
    from torch import nn

FAMILIES = ("sdcodec", "tdanet", "bands", "decodec")
"""Names of the modules here, which recipes know them by."""

__all__ = ["FAMILIES", "Codebooks", "Family", "Stream", "build", "find", "of"]


def find(name: str) -> Family[Any]:
    """The family of this name."""
    return cast(Family[Any], importlib.import_module(f".{name}", __package__).FAMILY)


def of(recipe: Recipe) -> Family[Any]:
    """The family of a recipe."""
    return find(recipe.family)


def build(recipe: Recipe) -> nn.Module:
    """The network that a recipe describes, with random weights."""
    network: nn.Module = of(recipe).build(recipe)
    return network
