"""What a runtime is: something that runs the parts of one model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class Runtime(Protocol):
    """Runs the parts of one model, which its family names (`families`)."""

    name: str
    """`onnx` or `torch`."""
    device: str
    """Where it computes, as people call it: `cpu`, `cuda`, `mps`."""
    threads: int
    """How many threads it computes with on a CPU."""
    sizes: dict[str, int]
    """Of the network, see `Family.sizes`."""

    def run(self, part: str, *inputs: NDArray[Any]) -> list[NDArray[np.float32]]:
        """Outputs of a part."""
        ...

    def prepare(self, parts: Sequence[str], *, wait: bool) -> None:
        """Get parts ready, in the background or at once; without it they get ready when they are first run."""
        ...
