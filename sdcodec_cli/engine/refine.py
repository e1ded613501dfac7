"""Analysis by synthesis: among the codes that were tried, those that decode to what is closest to the audio.

An encoder is trained to give a good latent for any audio. For the audio at hand there is a better one nearby. It is
found by a few steps along the gradient of the distance between the decoded mix and the audio; gradients pass the
codebooks by the straight-through estimate, as in training (the idea is CELP's; for learned codecs see "Content Adaptive
Optimization for Neural Image Compression", arXiv:1906.01223, and "Improving Inference for Neural Image Compression",
arXiv:2006.04240). Any decoder reads the resulting codes, at the same speed. `nn.parts.Distance` is the distance.

Legend: N streams, D latent width, K codebooks, F frames.
"""

from __future__ import annotations

import operator

import numpy as np
from numpy.typing import NDArray

from ..runtime.model import Codes, Refiner

STEP = 0.18
"""Standard deviations of the latent by which the first step moves each element; later steps shrink geometrically."""

LAST_STEP = 0.25
"""Size of the last step, relative to the first."""

MEMORY = 0.9
"""Share of the past in the running mean of squared gradients."""


def refine(refiner: Refiner, latent: NDArray[np.float32], *, effort: int) -> Codes:
    """Codes whose decoded mix is closer to the audio than that of the encoder's own codes.

    Every step is tried, the encoder's own codes first, and the closest over all frames together are returned; in some
    of the frames they may be further away than the encoder's.

    Args:
        refiner: decodes a latent and measures its distance from the audio
        latent: of the encoder, `[D, F]`
        effort: steps along the gradient

    Returns:
        codes `[N, K, F]`
    """
    offset, squares = np.zeros_like(latent), np.zeros_like(latent)
    first_step = STEP * float(latent.std(dtype=np.float64))
    attempts = []
    for step in range(effort):
        attempt = refiner.attempt(latent + offset, gradient=True)
        attempts.append((attempt.distance, attempt.codes))
        gradient = attempt.gradient
        assert gradient is not None
        # Every element moves by its gradient relative to what that has lately been, quiet passages like loud ones
        # (RMSprop without its slow start).
        squares += np.float32(1 - MEMORY) * (np.square(gradient) - squares)
        size = np.sqrt(squares / np.float32(1 - MEMORY ** (step + 1))) + np.finfo(np.float32).tiny
        offset -= np.float32(first_step * LAST_STEP ** ((step + 0.5) / effort)) * gradient / size
    last = refiner.attempt(latent + offset, gradient=False)
    attempts.append((last.distance, last.codes))
    return min(attempts, key=operator.itemgetter(0))[1]
