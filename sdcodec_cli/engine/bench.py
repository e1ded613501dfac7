"""What this machine does, in times real time, and each part of a model next to the same part in torch."""

from __future__ import annotations

import io
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..audio import Wav
from ..bitstream import Reader
from ..runtime import CascadeModel, CodecModel, Model, SeparatorModel
from .codec import Codec
from .codes import Codes
from .separate import separate_wav
from .separator import Separator
from .stream import BLOCK_FRAMES
from .systems import ModelCodec


@dataclass(frozen=True)
class PartTime:
    """What one part of a model takes for a block of audio with the context around it."""

    part: str
    """What the model does in it."""
    seconds: float
    """The best of several times."""
    torch_seconds: float | None
    """In torch, in the same run; None where that is not installed, or is what the model runs in."""


@dataclass(frozen=True)
class BenchResult:
    """Speeds of one model, as multiples of real time."""

    model: str
    runtime: str
    """`onnx` or `torch`."""
    device: str
    processor: str
    """Its name, as the system has it."""
    threads: int
    seconds: float
    """Length of the signal."""
    separate: float
    """A mixture to its stems, as `sdc separate` does it."""
    parts: tuple[PartTime, ...]
    """Each part of the model by itself."""
    effort: int | None = None
    """Steps of analysis by synthesis behind `encode_refined`; null, as all that follows, for a model without codes."""
    encode: float | None = None
    """Audio to codes of all domains, the encoder's own, without an envelope."""
    encode_enveloped: float | None = None
    """The same with envelope and treble, for which the mix is decoded once."""
    encode_refined: float | None = None
    """With these and by analysis by synthesis; with effort 0 there is none of it, and this is the one before."""
    decode_mix: float | None = None
    """With envelope and treble, as all that follow."""
    decode_one: float | None = None
    """One stem."""
    decode_all: float | None = None
    """All stems in one go."""
    write: float | None = None
    """Codes of all domains to the bytes of a file, range-coded; null for a model without tables. None of it is in the
    numbers above."""
    read: float | None = None
    """The same bytes to codes."""


def bench(
    system: Codec | Separator,
    *,
    in_torch: Codec | Separator | None = None,
    seconds: float = 60.0,
    repeats: int = 3,
) -> BenchResult:
    """Measure a model on noise; the best of `repeats` counts.

    Args:
        system: the model; a codec at an effort
        in_torch: the same model in torch, whose parts are measured in turn with those of the first
        seconds: length of the signal
        repeats: of every measurement
    """
    wav = np.random.default_rng(0).standard_normal(round(seconds * system.sample_rate), dtype=np.float32) * 0.05

    def speed(run: Callable[[], object]) -> float:
        return seconds / min(_seconds(run) for _ in range(repeats))

    coding: dict[str, float] = _coding_speeds(system, wav, speed) if isinstance(system, Codec) else {}
    return BenchResult(
        model=system.name,
        runtime=system.runtime,
        device=system.device,
        processor=processor(),
        threads=system.model.runtime.threads,
        seconds=seconds,
        effort=system.effort if isinstance(system, Codec) else None,
        **coding,
        separate=speed(lambda: separate_wav(wav[None], codec=system)),
        parts=_part_times(system.model, None if in_torch is None else in_torch.model, repeats),
    )


def _coding_speeds(codec: Codec, wav: Wav, speed: Callable[[Callable[[], object]], float]) -> dict[str, float]:
    plain, wide = codec.at_effort(0), codec.wide_rate
    whole = wav if wide is None else np.resize(wav, len(wav) * wide // codec.sample_rate)

    def encode(at: Codec) -> Codes:
        return at.encode(whole, sample_rate=wide, active=codec.domains, normalize=False)

    codes = encode(plain)
    streams = {name: found[0] for name, found in codes.codes.items()}
    num_frames = next(iter(codes.active.values())).shape[-1]
    both = (codes.envelope, codes.treble)
    layouts = [None if each is None else each.layout for each in both]
    gains = [None if each is None else each.of_frames(0, num_frames) for each in both]

    def decode(*stems: str) -> object:
        decoder = codec.stream_decoder(stems, envelope=layouts[0], treble=layouts[1])
        return [*decoder.push(streams, num_frames, *gains), *decoder.finish()]

    encoded = speed(lambda: plain.encode(wav, active=codec.domains, normalize=False, envelope=False))
    leveled = speed(lambda: encode(plain))
    return {
        "encode": encoded,
        "encode_enveloped": leveled,
        "encode_refined": speed(lambda: encode(codec)) if codec.effort else leveled,
        "decode_mix": speed(lambda: decode("mix")),
        "decode_one": speed(lambda: decode(codec.domains[0])),
        "decode_all": speed(lambda: decode(*codec.domains)),
        **_file_speeds(codec, codes, speed),
    }


def _file_speeds(codec: Codec, codes: Codes, speed: Callable[[Callable[[], object]], float]) -> dict[str, float]:
    """Speeds of range coding, if the model has tables."""
    tables, system = codec.tables(), ModelCodec(codec)
    if tables is None:
        return {}
    system.written(codes, file := io.BytesIO())

    def read() -> object:
        reader = Reader(io.BytesIO(file.getvalue()))
        reader.tables = tables
        return list(reader.segments())

    return {"write": speed(lambda: system.written(codes, io.BytesIO())), "read": speed(read)}


def _part_times(model: Model, in_torch: Model | None, repeats: int) -> tuple[PartTime, ...]:
    ours = _runs(model)
    theirs = {} if in_torch is None else _runs(in_torch)
    times = []
    for part, run in ours.items():
        mine, others = [], []
        for _ in range(repeats + 1):  # the first use does not count, but may be the fastest
            mine.append(_seconds(run))
            if part in theirs:
                others.append(_seconds(theirs[part]))
        times.append(PartTime(part, min(mine), min(others) if others else None))
    return tuple(times)


def _runs(model: Model) -> dict[str, Callable[[], object]]:
    """Every part on the same block of noise."""
    if isinstance(model, SeparatorModel):
        block = np.random.default_rng(0).standard_normal(model.block_length, dtype=np.float32) * np.float32(0.05)
        return {"separate": lambda: model.separate(block)}
    if isinstance(model, CascadeModel):
        return {
            f"stage {number}: {part}": run
            for number, stage in enumerate(model.stages, 1)
            for part, run in _runs(stage).items()
        }
    assert isinstance(model, CodecModel)
    context, hop = model.analysis_context, model.hop_length
    noise = np.random.default_rng(0).standard_normal((BLOCK_FRAMES + 2 * context) * hop, dtype=np.float32) * 0.05
    inner = slice(context, context + BLOCK_FRAMES)
    latent = np.ascontiguousarray(model.analyse(noise).latent[:, inner])
    codes = model.quantize(latent)
    every = list(range(len(model.streams)))
    gates = np.ones((len(every), BLOCK_FRAMES), dtype=np.float32)
    around = noise[inner.start * hop : inner.stop * hop]
    refiner = model.refiner(around, codes[..., :0], gates, model.num_codebooks)
    return {
        "analyse": lambda: model.analyse(noise),
        "quantize": lambda: model.quantize(latent),
        "synthesize, mix": lambda: model.synthesize(codes, [every]),
        "synthesize, all stems": lambda: model.synthesize(codes, [[index] for index in every]),
        "refine, a step": lambda: refiner.attempt(latent, gradient=True),
        "refine, the last step": lambda: refiner.attempt(latent, gradient=False),
    }


def _seconds(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def processor() -> str:
    """The processor's name, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
