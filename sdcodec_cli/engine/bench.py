"""What this machine does, in times real time.

Every figure stands beside a peer measured in the same run: the plain network on the whole signal at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from .codec import Codec


@dataclass(frozen=True)
class BenchResult:
    """Speeds of one model, as multiples of real time."""

    model: str
    device: str
    threads: int
    seconds: float
    """Length of the signal."""
    effort: int
    """Steps of analysis by synthesis behind `encode_refined`."""
    encode: float
    """Audio to codes of all domains, the encoder's own."""
    encode_refined: float
    """The same by analysis by synthesis; with effort 0 there is none of it, and this is `encode`."""
    decode_mix: float
    decode_one: float
    """One stem."""
    decode_all: float
    """All stems in one go."""
    encode_ratio: float
    """Speed of `encode` relative to the plain network on the whole signal at once."""
    decode_ratio: float
    """Speed of `decode_all` relative to the plain network on the whole signal at once."""


def bench(codec: Codec, *, seconds: float = 60.0, repeats: int = 3) -> BenchResult:
    """Measure a model on noise; the best of `repeats` counts."""
    generator = torch.Generator().manual_seed(0)
    wav = torch.randn(round(seconds * codec.sample_rate), generator=generator) * 0.05
    plain = codec.at_effort(0)
    codes = plain.encode(wav, present=codec.domains)
    network, stacked = codec.network, torch.stack(list(codes.codes.values()))

    def encode(codec_at_effort: Codec) -> object:
        return codec_at_effort.encode(wav, present=codec.domains, normalize=False)

    def encode_plain() -> object:
        with torch.inference_mode():
            return network.quantize(network.encode(wav.to(codec.device)[None, None])).codes.cpu()

    def decode(*stems: str) -> object:
        decoder = codec.stream_decoder(stems)
        return [*decoder.push({d: c[0] for d, c in codes.codes.items()}, stacked.shape[-1]), *decoder.finish()]

    def decode_plain() -> object:
        with torch.inference_mode():
            return network.decode(network.quantizer.decode(stacked.to(codec.device), range(len(stacked)))[:, 0]).cpu()

    def speed(run: Callable[[], object]) -> float:
        times = []
        for _ in range(repeats):
            began = time.perf_counter()
            run()
            times.append(time.perf_counter() - began)
        return seconds / min(times)

    encoded, decoded = speed(lambda: encode(plain)), speed(lambda: decode(*codec.domains))
    return BenchResult(
        model=codec.name,
        device=str(codec.device),
        threads=torch.get_num_threads(),
        seconds=seconds,
        effort=codec.effort,
        encode=encoded,
        encode_refined=speed(lambda: encode(codec)) if codec.effort else encoded,
        decode_mix=speed(lambda: decode("mix")),
        decode_one=speed(lambda: decode(codec.domains[0])),
        decode_all=decoded,
        encode_ratio=encoded / speed(encode_plain),
        decode_ratio=decoded / speed(decode_plain),
    )
