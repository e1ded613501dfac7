"""Analysis by synthesis: codes chosen by what the decoder makes of them.

An encoder gives a good latent for all audio it may meet. For the audio at hand there is a better one nearby, found by
following the gradient of the distance between what the decoder puts out and what it should put out, past the codebooks
with the straight-through estimate of training (the idea is CELP's; for learned codecs see "Content Adaptive
Optimization for Neural Image Compression", arXiv:1906.01223, and "Improving Inference for Neural Image Compression",
arXiv:2006.04240). The stream stays what it was: any decoder reads it, at the same speed.

Legend: N domains, D latent width, K codebooks, F frames, P frames before them, T samples.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..nn.sdcodec import SDCodec
from .distances import mel_distance, negative_snr

STEP = 0.18
"""By which an element of the latent moves, in standard deviations of the latent; steps shrink geometrically."""

LAST_STEP = 0.25
"""What they shrink to, relative to that."""

MEMORY = 0.9
"""Share of the past in the running mean of squared gradients."""

MEL_SCALES = ((512, 80), (2048, 320))
"""Two of training's scales, one for transients and one for harmonics: all seven cost three times as much."""

MEL_WEIGHT = 1.2
"""Of the mel distance, next to a signal-to-noise ratio in dB."""


@dataclass(frozen=True)
class Past:
    """The frames before those that are encoded, whose codes are decided."""

    mix: Tensor
    """Latent, `[1, D, P]`."""
    heard: Tensor
    """1 where any domain adds to it, else 0, `[P]`."""

    @property
    def num_frames(self) -> int:
        """P"""
        return len(self.heard)

    def then(self, mix: Tensor, gates: Tensor, context: int) -> Past:
        """The last `context` frames of this and what follows: latent `[1, D, F]` and gates `[N, F]`."""
        mix, heard = torch.cat([self.mix, mix], dim=-1), torch.cat([self.heard, gates.amax(0)])
        return Past(mix[..., -context:], heard[-context:])


def mixed(latents: Tensor, gates: Tensor) -> Tensor:
    """Latent of the mix, of those domains that add to it: `[N, 1, D, F]` and `[N, F]` to `[1, D, F]`."""
    return (latents * gates[:, None, None]).sum(0)


def distance(decoded: Tensor, wanted: Tensor, *, sample_rate: int) -> Tensor:
    """What refinement makes small: two `[T]` to a number.

    The signal-to-noise ratio is that of each second by itself, averaged, so that a quiet second counts like a loud one.
    """
    num_seconds = max(1, round(len(wanted) / sample_rate))
    pairs = zip(decoded.tensor_split(num_seconds), wanted.tensor_split(num_seconds), strict=True)
    snr = torch.cat([negative_snr(ours[None], theirs[None]) for ours, theirs in pairs]).mean()
    mel = mel_distance(decoded[None], wanted[None], sample_rate=sample_rate, scales=MEL_SCALES)
    return snr + MEL_WEIGHT * mel.squeeze(0)


def refine(
    network: SDCodec,
    wav: Tensor,
    latent: Tensor,
    gates: Tensor,
    past: Past,
    *,
    sample_rate: int,
    num_codebooks: int,
    effort: int,
) -> Tensor:
    """Codes whose mix, decoded, is closer to the audio than that of the encoder's own codes.

    Of all that was tried, the encoder's codes included, the closest is taken, over all frames given: a part of them may
    be further away than it was.

    Args:
        network: the codec
        wav: what the mix should be, at the model's rate and level, of the P + F frames, `[T]`; zeros are added if it is
            shorter
        latent: what the encoder makes of the F frames, `[1, D, F]`
        gates: 1 where a domain adds to the mix, else 0, `[N, F]`
        past: the P frames before
        sample_rate: of the audio, in Hz
        num_codebooks: levels that will be stored, 1 to K
        effort: steps along the gradient

    Returns:
        codes int64 `[N, num_codebooks, F]`
    """
    if not bool(gates.any()):
        return network.quantize(latent, num_codebooks=num_codebooks).codes[:, 0]
    heard = torch.cat([past.heard, gates.amax(0)]).repeat_interleave(network.hop_length)
    # The longest window of the mel scales has to fit in.
    heard = F.pad(heard, (0, max(0, MEL_SCALES[-1][0] - len(heard))))
    wanted = F.pad(wav, (0, len(heard) - len(wav))) * heard
    offset = torch.zeros_like(latent, requires_grad=True)
    squares = torch.zeros_like(latent)
    first_step = STEP * float(latent.std())

    def attempt() -> tuple[Tensor, Tensor]:
        """What the present offset comes to, and its codes."""
        quantized = network.quantize(latent + offset, num_codebooks=num_codebooks)
        decoded = network.decode(torch.cat([past.mix, mixed(quantized.latents, gates)], dim=-1))[0, 0]
        decoded = F.pad(decoded, (0, len(heard) - len(decoded))) * heard
        return distance(decoded, wanted, sample_rate=sample_rate), quantized.codes[:, 0]

    attempts = []
    for step in range(effort):
        with torch.enable_grad():
            reached, codes = attempt()
        attempts.append((float(reached.detach()), codes))
        (gradient,) = torch.autograd.grad(reached, offset)
        # Every element moves by its gradient relative to what that has lately been, quiet passages like loud ones
        # (RMSprop without its slow start; torch.optim takes longer to import than a short file to encode).
        squares.lerp_(gradient.square(), 1 - MEMORY)
        size = (squares / (1 - MEMORY ** (step + 1))).sqrt() + torch.finfo(torch.float32).tiny
        with torch.no_grad():
            offset -= first_step * LAST_STEP ** ((step + 0.5) / effort) * gradient / size
    with torch.no_grad():
        reached, codes = attempt()
    attempts.append((float(reached), codes))
    return min(attempts, key=operator.itemgetter(0))[1]
