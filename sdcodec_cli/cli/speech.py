"""What `sdc enhance`, `sdc background` and `sdc voice` have in common."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from .console import Console, duration, source_name, speed, target_name
from .decode import named_model
from .options import Device, Runtime, say_runtime

if TYPE_CHECKING:
    from ..bitstream import Header
    from ..engine.codec import Codec
    from ..engine.coded import CodecFor, SpeechResult
    from ..engine.files import Job
    from ..progress import Progress


class Work(Protocol):
    """What is done to one input."""

    def __call__(self, source: str, target: str, *, codec: CodecFor, progress: Progress | None) -> SpeechResult: ...


def run_jobs(
    console: Console,
    jobs: tuple[Job, ...],
    work: Work,
    *,
    model: str | None,
    for_audio: str | None = None,
    runtime: Runtime,
    device: Device,
    threads: int | None,
) -> None:
    """Do some work for each input, and say what became of it.

    Args:
        console: to say it
        jobs: inputs and outputs
        work: what is done
        model: that is used; that of a file where it is None
        for_audio: the model for audio then; None for the default one
        runtime: see `open_codec`, as what follows
        device: likewise
        threads: likewise
    """
    from ..engine.codec import open_codec

    load = functools.cache(functools.partial(open_codec, runtime=runtime, device=device, threads=threads))
    for job in jobs:
        with console.catching(), job.folders():
            (target,) = job.targets.values()
            with console.progress(job.source) as progress:
                codec = _finder(console, job.source, load, model=model, for_audio=for_audio, runtime=runtime)
                result = work(job.source, target, codec=codec, progress=progress)
            name = target_name(result.output)
            for note in result.notes:
                console.say(f"{source_name(result.input)}: {note}")
            level = result.background_loudness
            behind = "" if level is None else f", its background at {level:.1f} LUFS"
            fast = speed(result.times_real_time, result.device)
            console.say(f"{name}: {duration(result.seconds)}{behind}, {fast}")
            if result.clipped:
                console.say(f"{name}: {result.clipped} samples beyond full scale were limited to it")
            for problem in result.problems:
                console.fail(f"{source_name(result.input)}: {problem}")
            console.result(result)


def _finder(
    console: Console,
    source: str,
    load: Callable[..., Codec],
    *,
    model: str | None,
    for_audio: str | None,
    runtime: Runtime,
) -> CodecFor:
    def codec(header: Header | None) -> Codec:
        if header is None:
            found = load(model or for_audio)
        elif model:
            found = load(model, made_with=header.weights_sha256)
        else:
            found = named_model(console, source, header, load)
        say_runtime(console, found, runtime)
        return found

    return codec
