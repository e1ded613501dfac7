"""What `sdc enhance`, `sdc background` and `sdc voice` have in common."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..progress import Progress
from .console import Console, duration, say_levels, source_name, speed, target_name
from .decode import named_model
from .options import Device, Runtime, count_processes, say_runtime

if TYPE_CHECKING:
    from ..bitstream import Header
    from ..engine.batch import Say
    from ..engine.codec import Codec
    from ..engine.coded import SpeechResult
    from ..engine.files import Job


@dataclass(frozen=True, kw_only=True)
class _Work:
    """What is done with one input; each process loads each model once."""

    run: Callable[..., SpeechResult]
    """Of the engine: takes an input, `target`, `codec` and `progress`."""
    model: str | None
    for_audio: str | None
    runtime: Runtime
    device: Device
    threads: int | None

    @functools.cached_property
    def _load(self) -> Callable[..., Codec]:
        from ..engine.codec import open_codec

        return functools.cache(
            functools.partial(open_codec, runtime=self.runtime, device=self.device, threads=self.threads)
        )

    def __call__(self, job: Job, say: Say, progress: Progress | None) -> SpeechResult:
        def codec(header: Header | None) -> Codec:
            if header is None:
                found = self._load(self.model or self.for_audio)
            elif self.model:
                found = self._load(self.model, made_with=header.weights_sha256)
            else:
                found = named_model(say, job.source, header, self._load)
            say_runtime(say, found, self.runtime)
            return found

        (target,) = job.targets.values()
        return self.run(job.source, target=target, codec=codec, progress=progress)


def run_jobs(
    console: Console,
    todo: tuple[Job, ...],
    run: Callable[..., SpeechResult],
    *,
    model: str | None,
    for_audio: str | None = None,
    runtime: Runtime,
    device: Device,
    threads: int | None,
    jobs: int,
) -> None:
    """Do something with each input, and say what became of it.

    Args:
        console: to say it
        todo: inputs and outputs
        run: what is done, see `_Work`
        model: that is used; that of a file where it is None
        for_audio: the model for audio then; None for the default one
        runtime: see `open_codec`, as what follows
        device: likewise
        threads: likewise
        jobs: processes that are wanted
    """
    from ..engine.batch import threads_for

    def show(result: SpeechResult) -> None:
        source, target = source_name(result.input), target_name(result.output)
        for note in result.notes:
            console.say(f"{source}: {note}")
        level = result.background_loudness
        behind = "" if level is None else f", its background at {level:.1f} LUFS"
        fast = speed(result.times_real_time, result.device)
        console.say(f"{target}: {duration(result.seconds)}{behind}, {fast}")
        say_levels(
            console,
            result.input,
            {"speech": target},
            clipped={"speech": result.clipped},
            peak_db={"speech": result.peak_db or 0.0},
            rescaled_db=result.rescaled_db,
        )
        for problem in result.problems:
            console.fail(f"{source}: {problem}")
        console.result(result)

    processes = count_processes(jobs, todo)
    work = _Work(
        run=run,
        model=model,
        for_audio=for_audio,
        runtime=runtime,
        device=device,
        threads=threads_for(threads, processes),
    )
    console.work(work, todo, processes=processes, show=show)
