"""In which frames domains are active, as their audio tells: of tensors in training, of arrays in evaluation.

Legend: N domains, F frames, H hop length.
"""

from __future__ import annotations

from typing import Any, TypeVar

Array = TypeVar("Array")
"""An array of numpy, or a tensor of torch."""


LEVEL, ABOVE_LEVEL = -60.0, -80.0
"""Level of a frame in dBFS from which on a domain is active; of what is above a band, which is quieter."""


def active_frames(frames: Array, *, level: float = LEVEL) -> Array:
    """In which frames each domain is active: stems cut into frames, `[..., N, F, H]`, to bool `[..., N, F]`.

    That is where its stem is above a level in dBFS and within 40 dB of the mixture.
    """
    given: Any = frames
    energy = (given**2).mean(-1)
    mixture = (given.sum(-3) ** 2).mean(-1)[..., None, :]
    found: Array = (energy > 10 ** (level / 10)) & (energy > 1e-4 * mixture)
    return found
