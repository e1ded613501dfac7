"""Ratio masks: decoded stems as shares of a mixture's spectrum, whose phase and channels stay as they are.

From "Learning Source Disentanglement in Neural Audio Codec", arXiv:2409.11228, IV-D: each decoded stem gives a
magnitude, and its share of the sum of all magnitudes is what it gets of the mixture's spectrum.

Legend: N domains, C channels, T samples, F frames.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW_LENGTH, HOP_LENGTH = 1024, 256
"""Of the mask's Hann-windowed spectrum, in samples (arXiv:2409.11228)."""

QUIET = 1e-8
"""Magnitude below which no domain has a claim, and the mixture is shared out equally."""


def ratio_masks(stems: Tensor) -> Tensor:
    """Share of each domain in every bin: spectra `[N, bins, F]` to masks that add up to one.

    Where all are silent the shares are equal, so nothing is divided by zero and nothing of the mixture is lost.
    """
    magnitudes = stems.abs()
    total = magnitudes.sum(0, keepdim=True)
    return torch.where(total > QUIET, magnitudes / total.clamp_min(QUIET), 1 / len(magnitudes))


@torch.inference_mode()
def mask_mixture(mixture: Tensor, stems: Tensor, *more: Tensor) -> Tensor:
    """Share a mixture out by the mask that decoded stems make, or by the mean of several masks.

    Args:
        mixture: `[C, T]`
        stems: decoded, `[N, T]`
        more: stems of other views of the mixture

    Returns:
        `[N, C, T]`, which add up to the mixture
    """
    length = mixture.shape[-1]
    window = torch.hann_window(WINDOW_LENGTH, device=mixture.device)
    # Reflection at the edges needs half a window of signal.
    short = (0, max(0, WINDOW_LENGTH - length))

    def spectrum(wav: Tensor) -> Tensor:
        return torch.stft(F.pad(wav, short), WINDOW_LENGTH, HOP_LENGTH, window=window, return_complex=True)

    masks = torch.stack([ratio_masks(spectrum(view)) for view in (stems, *more)]).mean(0)
    masked = masks[:, None] * spectrum(mixture)
    wavs = torch.istft(masked.flatten(0, 1), WINDOW_LENGTH, HOP_LENGTH, window=window, length=length + short[1])
    return wavs.reshape(*masked.shape[:2], -1)[..., :length]
