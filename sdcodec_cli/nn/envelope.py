"""The envelope as training sees it: decoded audio after a share of the gains that it lacks has been applied.

Legend: R rows, T samples, F frames, K bins.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

from ..audio import bands
from ..audio.bands import FLOOR, HIGHEST_DB, LOWEST_DB, STEP_DB
from .fourier import cut_frames, overlap_add


def with_envelope(decoded: Tensor, wanted: Tensor, *, hop_length: int, sample_rate: int, share: float) -> Tensor:
    """Decoded rows with a share of the gains that bring bands to the levels that are wanted: two `[R, T]` to `[R, T]`.

    Gains are rounded to steps, and have no gradient. T is a whole number of times that a gain is for.
    """
    margin, window = hop_length + hop_length // 2, _window(hop_length).to(decoded.device)
    bank, spread = (table.to(decoded.device) for table in _tables(hop_length, sample_rate))

    def transformed(wavs: Tensor) -> Tensor:
        """Spectra of all frames, and of one more before and behind them."""
        padded = F.pad(wavs, (margin, 3 * hop_length - margin))
        return torch.fft.rfft(cut_frames(padded, len(window), hop_length) * window)

    spectra = transformed(decoded)
    with torch.no_grad():
        theirs = transformed(wanted)
        gains = _levels(theirs[:, 1:-1], bank, hop_length) - _levels(spectra[:, 1:-1], bank, hop_length)
        frames = bands.frames_per_gain(sample_rate, hop_length)
        held = gains.unflatten(1, (-1, frames)).mean(2)
        held = ((held / STEP_DB).round() * STEP_DB).clamp(LOWEST_DB, HIGHEST_DB).repeat_interleave(frames, dim=1)
        held = torch.cat([held[:, :1], held, held[:, -1:]], dim=1)
        factors = 10 ** (share * (held @ spread) / 20)
    shaped = torch.fft.irfft(spectra * factors, n=len(window)) * window
    return overlap_add(shaped, hop_length)[:, margin : margin + decoded.shape[-1]]


def _levels(spectra: Tensor, bank: Tensor, hop_length: int) -> Tensor:
    """In dB: complex `[R, F, K]` to `[R, F, bands]`."""
    power = spectra.real.square() + spectra.imag.square()
    return 10 * torch.log10(power @ bank / hop_length + FLOOR)


@functools.lru_cache
@torch.inference_mode(False)
def _window(hop_length: int) -> Tensor:
    return torch.sin(torch.pi * (torch.arange(2 * hop_length) + 0.5) / (2 * hop_length))


@functools.lru_cache
@torch.inference_mode(False)
def _tables(hop_length: int, sample_rate: int) -> tuple[Tensor, Tensor]:
    """Means over the bands `[K, bands]`, and which band each bin is in `[bands, K]`."""
    bank = torch.from_numpy(bands.band_bank(bands.envelope_edges(sample_rate), 2 * hop_length, sample_rate))
    return bank, (bank > 0).T.float()
