"""The parts of a codec as functions of arrays, which is how the engine knows a model, in whatever runtime.

A model is run part by part. torch runs the modules below as they are; `graphs` writes each of them down for other
runtimes. Codes of -1 stand for nothing: a codebook that is missing, a domain that is silent.

Legend: T samples, F frames, P frames before them, D latent width, N domains, K codebooks, S stems.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..audio.mel import mel_edges, triangles
from .distances import MEL_SCALES, decibels, log_mel, mel_bank
from .sdcodec import SDCodec
from .tracing import Axes, GraphPart, is_for_graph

REFINE_SCALES = ((512, 80), (2048, 320))
"""Two of training's mel scales, one for transients and one for harmonics: all seven cost three times as much."""

MEL_WEIGHT = 1.2
"""Of the mel distance, next to a signal-to-noise ratio in dB."""

CEILING = 30.0
"""Signal-to-noise ratio in dB beyond which more counts little."""


class Analyse(nn.Module):
    """Audio to latent and activity: `[T]`, T a multiple of the hop length, to `[D, F]` and probabilities `[N, F]`.

    In a model without an activity head every domain is active everywhere.
    """

    def __init__(self, codec: SDCodec) -> None:
        super().__init__()
        self.codec = codec

    def forward(self, wav: Tensor) -> tuple[Tensor, Tensor]:
        latent = self.codec.encoder(wav[None, None])
        logits = self.codec.activity_logits(latent)
        if logits is None:
            return latent[0], torch.ones_like(latent[0, :1]).expand(len(self.codec.domains), -1).contiguous()
        return latent[0], logits[0].sigmoid()


class Quantize(nn.Module):
    """Latent to codes of all domains: `[D, F]` to int64 `[N, K, F]`."""

    def __init__(self, codec: SDCodec) -> None:
        super().__init__()
        self.codec = codec

    def forward(self, latent: Tensor) -> Tensor:
        return self.codec.quantize(latent[None]).codes[:, 0]


class Synthesize(nn.Module):
    """Codes to stems: int64 `[N, K, F]` and `[S, N]`, one where a domain belongs to a stem, to `[S, T]`."""

    def __init__(self, codec: SDCodec) -> None:
        super().__init__()
        self.codec = codec

    def forward(self, codes: Tensor, stems: Tensor) -> Tensor:
        latents = self.codec.quantizer.dequantize(codes)
        mixed = (stems @ latents.flatten(1)).unflatten(1, latents.shape[1:])
        return self.codec.decode(mixed)[:, 0]


class Target(nn.Module):
    """What refinement compares: audio `[T]` to log mel magnitudes of each scale `[F', M]`."""

    def __init__(self, sample_rate: int) -> None:
        super().__init__()
        self.sample_rate = sample_rate
        for index, (_, bands) in enumerate(REFINE_SCALES):
            # A graph makes the bank of its edges, which are a thousandth of its size.
            edges = torch.from_numpy(mel_edges(bands, sample_rate)).float()
            self.register_buffer(f"edges{index}", edges, persistent=False)

    def forward(self, wav: Tensor) -> tuple[Tensor, ...]:
        mels = []
        for index, (window_length, bands) in enumerate(REFINE_SCALES):
            if is_for_graph():
                bins = torch.linspace(0, self.sample_rate / 2, window_length // 2 + 1)[:, None]
                bank = triangles(self.get_buffer(f"edges{index}"), bins)
            else:
                bank = mel_bank(window_length, bands, self.sample_rate).to(wav.device)
            mels.append(log_mel(wav[None], bank)[0])
        return tuple(mels)


class Distance(nn.Module):
    """How far what the decoder makes of a latent is from the audio, and its codes.

    The signal-to-noise ratio is that of each second by itself, averaged, so that a quiet second counts like a loud one.

    Shape:
        latent: `[D, F]`, with the offset added
        past: codes of the frames before, int64 `[N, K, P]`
        gates: one where a domain adds to the mix, `[N, F]`
        levels: one for each codebook that will be stored, `[K]`
        audible: one where any stream is active, else zero, `[T]`; T is a number of hops, no less than P + F
        wanted: the audio where it is, `[T]`
        seconds: one where a hop belongs to a second, `[n, T / hop]`
        mels: what `Target` makes of `wanted`
        returns: distance `[]` and codes `[N, K, F]`
    """

    def __init__(self, codec: SDCodec, sample_rate: int) -> None:
        super().__init__()
        self.codec, self.target = codec, Target(sample_rate)

    def forward(
        self,
        latent: Tensor,
        past: Tensor,
        gates: Tensor,
        levels: Tensor,
        audible: Tensor,
        wanted: Tensor,
        seconds: Tensor,
        *mels: Tensor,
    ) -> tuple[Tensor, Tensor]:
        quantized = self.codec.quantize(latent[None], weights=levels)
        mix = (quantized.latents * gates[:, None, None]).sum(0)
        before = self.codec.quantizer.dequantize(past).sum(0)[None]
        decoded = self.codec.decode(torch.cat([before, mix], dim=-1))[0, 0]
        decoded = F.pad(decoded, (0, wanted.shape[0] - decoded.shape[0])) * audible
        error, reference = (self._per_second(wav, seconds) for wav in (decoded - wanted, wanted))
        snr = decibels(error, reference, -CEILING).mean()
        mel = torch.zeros_like(snr)
        for ours, theirs in zip(self.target(decoded), mels, strict=True):
            mel = mel + (ours - theirs).abs().mean()
        return snr + MEL_WEIGHT * len(MEL_SCALES) / len(REFINE_SCALES) * mel, quantized.codes[:, 0]

    def _per_second(self, wav: Tensor, seconds: Tensor) -> Tensor:
        """Energy of each second: `[T]` to `[n]`."""
        return seconds @ wav.square().unflatten(0, (-1, self.codec.hop_length)).sum(1)


class Refine(nn.Module):
    """`Distance` with its gradient towards the latent: distance `[]`, codes `[N, K, F]` and gradient `[D, F]`."""

    def __init__(self, codec: SDCodec, sample_rate: int) -> None:
        super().__init__()
        self.distance = Distance(codec, sample_rate)

    def forward(self, latent: Tensor, *others: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with torch.enable_grad():
            latent = latent.detach().requires_grad_()
            distance, codes = self.distance(latent, *others)
            (gradient,) = torch.autograd.grad(distance, latent)
        return distance.detach(), codes, gradient


def modules(codec: SDCodec, sample_rate: int) -> dict[str, nn.Module]:
    """Every part of a codec, by its name."""
    return {
        "analyse": Analyse(codec),
        "quantize": Quantize(codec),
        "synthesize": Synthesize(codec),
        "target": Target(sample_rate),
        "refine": Refine(codec, sample_rate),
        "distance": Distance(codec, sample_rate),
    }


FRAMES, PAST, SECONDS = 23, 11, 3
"""Lengths that parts are traced with; any will do that have nothing in common."""


def graph_parts(codec: SDCodec, sample_rate: int) -> dict[str, GraphPart]:
    """Every part with examples of its inputs, their open axes, and the names of its outputs."""
    quantizer = codec.quantizer
    num, width = len(codec.domains), quantizer.own.in_weight.shape[-1]
    length = (FRAMES + PAST) * codec.hop_length
    wav, latent = torch.randn(length), torch.randn(width, FRAMES)
    codes = torch.randint(0, quantizer.own.codebook.shape[2], (num, quantizer.num_codebooks, PAST))
    mels = Target(sample_rate)(wav)
    others = {
        "past": codes,
        "gates": torch.ones(num, FRAMES),
        "levels": torch.ones(quantizer.num_codebooks),
        "audible": torch.ones(length),
        "wanted": wav,
        "seconds": torch.ones(SECONDS, FRAMES + PAST),
        **{f"mel{index}": mel for index, mel in enumerate(mels)},
    }
    axes: Axes = {
        "past": {2: "past"},
        "gates": {1: "frames"},
        "audible": {0: "samples"},
        "wanted": {0: "samples"},
        "seconds": {0: "seconds", 1: "hops"},
        **{f"mel{index}": {0: f"mel_frames{index}"} for index in range(len(mels))},
    }
    given = {"latent": latent}, {"latent": {1: "frames"}}
    refinement = {**given[0], **others}, {**given[1], **axes}
    mel_names = tuple(f"mel{index}" for index in range(len(mels)))
    part = modules(codec, sample_rate)
    return {
        "analyse": GraphPart(part["analyse"], {"wav": wav}, {"wav": {0: "samples"}}, ("latent", "activity")),
        "quantize": GraphPart(part["quantize"], *given, ("codes",)),
        "synthesize": GraphPart(
            part["synthesize"],
            {"codes": codes, "stems": torch.ones(2, num)},
            {"codes": {2: "frames"}, "stems": {0: "stems"}},
            ("wavs",),
        ),
        "target": GraphPart(part["target"], {"wanted": wav}, {"wanted": {0: "samples"}}, mel_names),
        "refine": GraphPart(part["refine"], *refinement, ("distance", "codes", "gradient")),
        "distance": GraphPart(part["distance"], *refinement, ("distance", "codes")),
    }
