"""Codes by analysis by synthesis: those are chosen of which the decoder makes what is closest to the audio.

An encoder gives a good latent for all audio it may meet. For the audio at hand there is a better one nearby, found by
following the gradient of the distance between what the decoder puts out and what it should put out, past the codebooks
with the straight-through estimate of training (the idea is CELP's; for learned codecs see "Content Adaptive
Optimization for Neural Image Compression", arXiv:1906.01223, and "Improving Inference for Neural Image Compression",
arXiv:2006.04240). The stream stays what it was: any decoder reads it, at the same speed. What the distance is stands in
`nn.parts.Distance`.

Legend: N streams, D latent width, K codebooks, F frames.
"""

from __future__ import annotations

import operator

import numpy as np
from numpy.typing import NDArray

from ..runtime.model import Codes, Refiner

STEP = 0.18
"""By which an element of the latent moves, in standard deviations of the latent; steps shrink geometrically."""

LAST_STEP = 0.25
"""What they shrink to, relative to that."""

MEMORY = 0.9
"""Share of the past in the running mean of squared gradients."""


def refine(refiner: Refiner, latent: NDArray[np.float32], *, effort: int) -> Codes:
    """Codes whose mix, decoded, is closer to the audio than that of the encoder's own codes.

    Of all that was tried, the encoder's codes included, the closest is taken, over all frames given: a part of them may
    be further away than it was.

    Args:
        refiner: compares with the audio
        latent: what the encoder makes of it, `[D, F]`
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
