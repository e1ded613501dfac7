"""In which frames domains are active, as their audio tells: of tensors in training, of arrays in evaluation.

Legend: N domains, F frames, H hop length.
"""

from __future__ import annotations

from typing import Any, TypeVar

Array = TypeVar("Array")
"""An array of numpy, or a tensor of torch."""


def heard(frames: Array) -> Array:
    """In which frames each domain is active: stems cut into frames, `[..., N, F, H]`, to bool `[..., N, F]`.

    That is where its stem is above −60 dBFS and within 40 dB of the mixture.
    """
    given: Any = frames
    energy = (given**2).mean(-1)
    mixture = (given.sum(-3) ** 2).mean(-1)[..., None, :]
    found: Array = (energy > 1e-6) & (energy > 1e-4 * mixture)
    return found
