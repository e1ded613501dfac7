"""Codecs for bands of frequency, one after the other: each codes what the sum of those before it lacks.

From "Soft Disentanglement in Frequency Bands for Neural Audio Codecs", arXiv:2510.03735.

Legend: B batch, T samples at the highest rate, t samples at the rate of a branch, F frames, N domains, K codebooks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from .layers import pad_to_multiple
from .quantize import Observer
from .resample import resample
from .sdcodec import SDCodec


class Bands(nn.Module):
    """Branches, each an SD-Codec at a rate of its own, whose outputs add up.

    Args:
        codecs: that of the lowest rate first, all of the same domains
        sample_rates: of each, in Hz, rising
    """

    def __init__(self, codecs: Sequence[SDCodec], sample_rates: Sequence[int]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(codecs)
        self.sample_rates = tuple(sample_rates)
        self.domains = codecs[0].domains

    @property
    def codecs(self) -> tuple[SDCodec, ...]:
        """The branches, that of the lowest rate first."""
        return tuple(cast(SDCodec, branch) for branch in self.branches)

    def at_rate(self, wav: Tensor, number: int) -> Tensor:
        """Audio of the highest rate at that of a branch: `[..., T]` to `[..., t]`."""
        return resample(wav, self.sample_rates[-1], self.sample_rates[number])

    def lifted(self, wav: Tensor, number: int, length: int) -> Tensor:
        """Audio of the branch before at the rate of a branch: `[..., t']` to `[..., length]`."""
        return resample(wav, self.sample_rates[number - 1], self.sample_rates[number], length=length)

    def forward(self, wav: Tensor) -> list[dict[str, Tensor]]:
        """The mix and each stem that every branch comes to, with those before it: `[B, 1, T]` to `[B, 1, t]` each."""
        sums: list[dict[str, Tensor]] = []
        for number, codec in enumerate(self.codecs):
            given = self._whole(wav, number)
            below = (
                {name: self.lifted(each, number, given.shape[-1]) for name, each in sums[-1].items()} if sums else {}
            )
            added = codec(given - below["mix"] if below else given)
            sums.append({name: below[name] + each if below else each for name, each in added.items()})
        lengths = [self.at_rate(wav, number).shape[-1] for number in range(len(sums))]
        return [
            {name: each[..., :length] for name, each in found.items()}
            for found, length in zip(sums, lengths, strict=True)
        ]

    def encode(self, wav: Tensor, *, count: int | None = None, observe: Observer | None = None) -> list[Tensor]:
        """Codes of the first `count` branches, or of all, int64 `[N, B, K, F]` each, of audio `[B, 1, T]`.

        `observe` is called for every codebook, see `MultiSourceRVQ.forward`.
        """
        codes: list[Tensor] = []
        below: Tensor | None = None
        codecs = self.codecs[:count]
        for number, codec in enumerate(codecs):
            given = self._whole(wav, number)
            below = None if below is None else self.lifted(below, number, given.shape[-1])
            quantized = codec.quantize(codec.encode(given if below is None else given - below), observe=observe)
            codes.append(quantized.codes)
            if number + 1 < len(codecs):
                mix = codec.decode(quantized.latents.sum(0))
                below = mix if below is None else below + mix
        return codes

    def _whole(self, wav: Tensor, number: int) -> Tensor:
        """Audio of the highest rate as a branch takes it: at its rate, in whole frames."""
        return pad_to_multiple(self.at_rate(wav, number), self.codecs[number].hop_length)

    def decode(self, codes: Sequence[Tensor]) -> dict[str, Tensor]:
        """The mix and each stem out of codes of the first branches, `[B, 1, F * hop]` each at the rate of the last one.

        Codes of -1 stand for nothing.
        """
        sums: dict[str, Tensor] = {}
        for number, (codec, given) in enumerate(zip(self.codecs, codes, strict=False)):
            batch = given.shape[1]
            # Quantizers know no batches here: its frames come one example after the other.
            latents = codec.quantizer.dequantize(given.transpose(1, 2).flatten(2))
            latents = latents.unflatten(2, (batch, -1)).transpose(1, 2)
            stacked = torch.cat([latents.sum(0, keepdim=True), latents])
            wavs = codec.decode(stacked.flatten(0, 1)).unflatten(0, stacked.shape[:2])
            added = dict(zip(("mix", *self.domains), wavs, strict=True))
            length = wavs.shape[-1]
            sums = {name: wav + self.lifted(sums[name], number, length) if sums else wav for name, wav in added.items()}
        return sums
