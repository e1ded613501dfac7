"""What a runtime is: something that runs the parts of one model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

Part = Literal["analyse", "quantize", "synthesize", "target", "refine", "distance"]
"""See `nn.parts`, where each is a module with its inputs and outputs."""

PARTS: tuple[Part, ...] = get_args(Part)

ENCODING: tuple[Part, ...] = ("analyse", "quantize")
REFINING: tuple[Part, ...] = ("target", "refine", "distance")
DECODING: tuple[Part, ...] = ("synthesize",)


class Runtime(Protocol):
    """Runs the parts of one model."""

    name: str
    """`onnx` or `torch`."""
    device: str
    """Where it computes, as people call it: `cpu`, `cuda`, `mps`."""
    threads: int
    """How many threads it computes with on a CPU."""
    analysis_context: int
    """Frames on each side that what is heard in a frame depends on."""
    synthesis_context: int
    """Frames on each side that the audio of a frame depends on."""

    def run(self, part: Part, *inputs: NDArray[Any]) -> list[NDArray[np.float32]]:
        """Outputs of a part."""
        ...

    def prepare(self, parts: Sequence[Part], *, wait: bool) -> None:
        """Get parts ready, in the background or at once; without it they get ready when they are first run."""
        ...
