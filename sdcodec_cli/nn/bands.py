"""Codecs for bands of frequency, one after the other: each codes what the sum of those before it lacks.

From "Soft Disentanglement in Frequency Bands for Neural Audio Codecs", arXiv:2510.03735. A branch that codes only what
is above the band of the one before is ours.

Legend: B batch, T samples at the highest rate, t samples at the rate of a branch, F frames, N domains, K codebooks.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from ..recipe import Residual
from .layers import pad_to_multiple
from .quantize import Observer
from .resample import resample
from .sdcodec import SDCodec


class Bands(nn.Module):
    """Branches, each an SD-Codec at a rate of its own, whose outputs add up.

    Args:
        codecs: that of the lowest rate first, all of the same domains
        sample_rates: of each, in Hz, rising
        residuals: what each codes, see `BranchFields.residual`
    """

    def __init__(self, codecs: Sequence[SDCodec], sample_rates: Sequence[int], residuals: Sequence[Residual]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(codecs)
        self.sample_rates, self.residuals = tuple(sample_rates), tuple(residuals)
        self.domains = codecs[0].domains

    @property
    def codecs(self) -> tuple[SDCodec, ...]:
        """The branches, that of the lowest rate first."""
        return tuple(cast(SDCodec, branch) for branch in self.branches)

    @property
    def own(self) -> tuple[SDCodec, ...]:
        """Those that have weights of their own, see `frozen`."""
        return tuple(codec for codec in self.codecs if any(True for _ in codec.parameters()))

    def needed(self, numbers: Collection[int]) -> list[int]:
        """Numbers of the branches that have to run for these: all below one that codes the whole residual, too."""
        highest = max((number for number in numbers if self.residuals[number] == "whole"), default=-1)
        return sorted({*numbers, *range(highest + 1)})

    def at_rate(self, wav: Tensor, number: int) -> Tensor:
        """Audio of the highest rate at that of a branch: `[..., T]` to `[..., t]`."""
        return resample(wav, self.sample_rates[-1], self.sample_rates[number])

    def lifted(self, wav: Tensor, number: int, length: int) -> Tensor:
        """Audio of the branch before at the rate of a branch: `[..., t']` to `[..., length]`."""
        return resample(wav, self.sample_rates[number - 1], self.sample_rates[number], length=length)

    def above(self, wav: Tensor, number: int) -> Tensor:
        """What audio at the rate of a branch has above the band of the one before: `[..., t]`."""
        low = resample(wav, self.sample_rates[number], self.sample_rates[number - 1])
        return wav - self.lifted(low, number, wav.shape[-1])

    def forward(self, wav: Tensor) -> list[dict[str, Tensor]]:
        """The mix and each stem that every branch comes to, with those before it: `[B, 1, T]` to `[B, 1, t]` each."""
        sums: list[dict[str, Tensor]] = []
        for number, codec in enumerate(self.codecs):
            given = self._whole(wav, number)
            below = (
                {name: self.lifted(each, number, given.shape[-1]) for name, each in sums[-1].items()} if sums else {}
            )
            if self.residuals[number] == "above":
                given = self.above(given, number)
            elif below:
                given = given - below["mix"]
            added = codec(given)
            sums.append({name: below[name] + each if below else each for name, each in added.items()})
        lengths = [self.at_rate(wav, number).shape[-1] for number in range(len(sums))]
        return [
            {name: each[..., :length] for name, each in found.items()}
            for found, length in zip(sums, lengths, strict=True)
        ]

    def encode(
        self, wav: Tensor, *, numbers: Collection[int] | None = None, observe: Observer | None = None
    ) -> list[Tensor]:
        """Codes of all branches, or of those `needed` for some, int64 `[N, B, K, F]` each, of audio `[B, 1, T]`.

        `observe` is called for every codebook, see `MultiSourceRVQ.forward`.
        """
        codes: list[Tensor] = []
        below: Tensor | None = None
        run = self.needed(range(len(self.codecs)) if numbers is None else numbers)
        for number in run:
            codec, given = self.codecs[number], self._whole(wav, number)
            below = None if below is None else self.lifted(below, number, given.shape[-1])
            if self.residuals[number] == "above":
                given = self.above(given, number)
            elif below is not None:
                given = given - below
            quantized = codec.quantize(codec.encode(given), observe=observe)
            codes.append(quantized.codes)
            if self.sum_is_wanted(run, number):
                mix = codec.decode(quantized.latents.sum(0))
                below = mix if below is None else below + mix
            else:
                below = None
        return codes

    def sum_is_wanted(self, run: Sequence[int], number: int) -> bool:
        """Whether one of those that run after a branch is given what the sum up to this one lacks."""
        return any(self.residuals[each] == "whole" for each in run if each > number)

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


def frozen(codec: SDCodec) -> SDCodec:
    """The codec with buffers instead of parameters: nothing trains, averages or stores them."""
    for module in codec.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            delattr(module, name)
            module.register_buffer(name, parameter.detach(), persistent=False)
    return codec
