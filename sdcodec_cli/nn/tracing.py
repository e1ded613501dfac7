"""Whether a network is being written down as a graph, for which some layers are put together from other operations."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

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
