"""Networks that are being written down as graphs, for which some layers are put together from other operations."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass

from torch import Tensor, nn

Axes = dict[str, dict[int, str]]
"""Open axes of each input, by their names."""


@dataclass(frozen=True)
class GraphPart:
    """A part of a network with what it takes to write it down as a graph."""

    module: nn.Module
    """A function of tensors that only uses weights of the network."""
    inputs: dict[str, Tensor]
    """Examples of the inputs, by name; lengths of open axes must have nothing in common."""
    axes: Axes
    """Axes of inputs whose lengths are open."""
    outputs: tuple[str, ...]


_FOR_GRAPH: ContextVar[bool] = ContextVar("for_graph", default=False)


@contextlib.contextmanager
def for_graph() -> Iterator[None]:
    """Make layers of operations that graphs have, and that are fast there, while the block runs."""
    token = _FOR_GRAPH.set(True)
    try:
        yield
    finally:
        _FOR_GRAPH.reset(token)


def is_for_graph() -> bool:
    """Whether a graph is made at the moment."""
    return _FOR_GRAPH.get()
