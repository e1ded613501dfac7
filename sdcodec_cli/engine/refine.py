"""Analysis by synthesis: codes chosen by what the decoder makes of them.

An encoder gives a good latent for all audio it may meet. For the audio at hand there is a better one nearby, found by
following the gradient of the distance between what the decoder puts out and what it should put out, past the codebooks
with the straight-through estimate of training (the idea is CELP's; for learned codecs see "Content Adaptive
Optimization for Neural Image Compression", arXiv:1906.01223, and "Improving Inference for Neural Image Compression",
arXiv:2006.04240). The stream stays what it was: any decoder reads it, at the same speed.

Legend: N domains, D latent width, K codebooks, F frames, P frames before them, T samples.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..nn.sdcodec import SDCodec
from .train.losses import mel_distance, negative_snr

MAX_EFFORT = 100
"""Steps beyond which nothing is gained that anyone would wait for."""

STEP = 0.18
"""Length that steps begin at, in standard deviations of the latent."""

LAST_STEP = 0.25
"""Length that they shrink to, relative to that."""

MEMORY = 0.9
"""Share of the past in the running mean of squared gradients."""

MEL_SCALES = ((512, 80), (2048, 320))
"""Two of training's scales, one for transients and one for harmonics: all seven cost three times as much."""

MEL_WEIGHT = 1.2
"""Of the mel distance, next to a signal-to-noise ratio in dB."""


def refine(
    network: SDCodec,
    wav: Tensor,
    latent: Tensor,
    gates: Tensor,
    *,
    before: Tensor,
    heard_before: Tensor,
    sample_rate: int,
    num_codebooks: int,
    effort: int,
) -> Tensor:
    """Codes whose mix, decoded, is closer to the audio than that of the encoder's own codes.

    Of all that was tried, the encoder's codes included, the closest is taken.

    Args:
        network: the codec
        wav: what the mix should be, at the model's rate and level, of the P + F frames, `[T]`; zeros are added if it is
            shorter
        latent: what the encoder makes of the F frames, `[1, D, F]`
        gates: 1 where a domain adds to the mix, else 0, `[N, F]`
        before: latent of the mix in the P frames before, which are decided, `[1, D, P]`
        heard_before: 1 where any domain adds to it, else 0, `[P]`
        sample_rate: of the audio, in Hz
        num_codebooks: levels that will be stored, 1 to K
        effort: steps along the gradient

    Returns:
        codes int64 `[N, num_codebooks, F]`
    """
    heard = torch.cat([heard_before, gates.amax(0)]).repeat_interleave(network.hop_length)
    # The longest window of the mel scales has to fit in.
    heard = F.pad(heard, (0, max(0, MEL_SCALES[-1][0] - len(heard))))
    wanted = F.pad(wav, (0, len(heard) - len(wav))) * heard
    keep = None
    if num_codebooks < network.quantizer.num_codebooks:
        keep = torch.full((len(gates), 1), num_codebooks, device=latent.device)
    offset = torch.zeros_like(latent, requires_grad=True)
    squares = torch.zeros_like(latent)
    longest = STEP * float(latent.std())

    def attempt() -> tuple[Tensor, Tensor]:
        quantized = network.quantize(latent + offset, keep=keep)
        mix = torch.cat([before, (quantized.latents * gates[:, None, None]).sum(0)], dim=-1)
        decoded = network.decode(mix)[0]
        decoded = F.pad(decoded, (0, len(heard) - decoded.shape[-1])) * heard
        mel = mel_distance(decoded, wanted[None], sample_rate=sample_rate, scales=MEL_SCALES)
        distance = negative_snr(decoded, wanted[None]) + MEL_WEIGHT * mel
        return quantized.codes[:, 0, :num_codebooks], distance.sum()

    tried = []
    for step in range(effort if bool(gates.any()) else 0):
        with torch.enable_grad():
            codes, distance = attempt()
        tried.append((float(distance.detach()), codes))
        (gradient,) = torch.autograd.grad(distance, offset)
        # Every element moves by its gradient relative to what that has lately been, quiet passages like loud ones
        # (RMSprop without its slow start; torch.optim takes longer to import than a short file to encode).
        squares.lerp_(gradient.square(), 1 - MEMORY)
        scale = (squares / (1 - MEMORY ** (step + 1))).sqrt() + torch.finfo(torch.float32).tiny
        with torch.no_grad():
            offset -= longest * LAST_STEP ** ((step + 0.5) / effort) * gradient / scale
    codes, distance = attempt()
    tried.append((float(distance), codes))
    return min(tried, key=lambda attempted: attempted[0])[1]
