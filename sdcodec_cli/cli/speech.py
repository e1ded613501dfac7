"""What `sdc enhance`, `sdc background` and `sdc voice` have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..progress import Progress
from .console import Console, duration, say_levels, source_name, speed, target_name
from .loading import Models
from .options import Device, Runtime, count_processes, select

if TYPE_CHECKING:
    from ..audio import WriteOptions
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
    models: Models

    def __call__(self, job: Job, say: Say, progress: Progress | None) -> SpeechResult:
        def codec(header: Header | None) -> Codec:
            return self.models.codec_for(say, job.source, header)

        (target,) = job.targets.values()
        return self.run(job.source, target=target, codec=codec, progress=progress)


def settle(
    console: Console,
    inputs: list[str],
    output: str | None,
    made: str,
    *,
    model: str | None,
    sdc: bool,
    write: WriteOptions,
    shard: str | None,
    skip_existing: bool,
    force: bool,
    beside: str | None = None,
) -> tuple[Job, ...]:
    """The inputs and outputs of a command, after its options; see `plan_speech`."""
    from ..engine.plans import plan_speech
    from ..zoo import find

    only = select(skip_existing=skip_existing, force=force, shard=shard)
    domains = find(model).recipe.model.domains
    return console.settle(
        lambda: plan_speech(
            inputs, output, made, sdc=sdc, overwrite=force, domains=domains, only=only, beside=beside, write=write
        )
    )


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
    models = Models(
        model=model, for_audio=for_audio, runtime=runtime, device=device, threads=threads_for(threads, processes)
    )
    console.work(_Work(run=run, models=models), todo, processes=processes, show=show)
