"""Many inputs: one after the other or in several processes, and shared out among machines.

What a command does with one input is a `Work`. It is called in this process, or unpickled once in each of several
workers, which keep what they have loaded for all the inputs that they get. One that is killed fails the input that it
had. Outputs appear whole (`audio.output`), so that whatever was interrupted can go on where it stopped.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from ..errors import InputError, SdcError
from ..progress import Progress
from ..runtime.threads import allowed_cores

if TYPE_CHECKING:
    from .files import Job

Result = TypeVar("Result")
Made = TypeVar("Made", covariant=True)

Say = Callable[[str], None]
"""Takes a line for people."""

Watch = Callable[[str, str], AbstractContextManager[Progress | None]]
"""Given a label and a unit, shows progress while a block runs."""


UNIT = "s of audio"
"""Of progress on one input."""


class Work(Protocol[Made]):
    """What is done with one input; picklable, if several processes are to do it."""

    def __call__(self, job: Job, say: Say, progress: Progress | None) -> Made:
        """Make the outputs of one input.

        Raises:
            SdcError: it cannot be done; others go on
        """
        ...


@dataclass(frozen=True)
class Outcome(Generic[Result]):
    """What became of one input: a result or an error."""

    job: Job
    result: Result | None
    error: SdcError | None


@dataclass(frozen=True)
class Shard:
    """One of several parts that inputs are shared out into."""

    number: int
    """From 1."""
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise ValueError(f"a shard must be i/n with i from 1 to n, such as 3/16, got {self.number}/{self.count}")

    def of(self, names: Collection[str]) -> set[str]:
        """Those of the names that are in this part, which depends on nothing but the set of all names."""
        return set(sorted(names)[self.number - 1 :: self.count])


def parse_shard(text: str, environment: Mapping[str, str] = os.environ) -> Shard:
    """`3/16`, or `auto`: what torchrun, or a SLURM array, says to this process.

    Raises:
        ValueError: neither, or nothing is said
    """
    if text != "auto":
        number, _, count = text.partition("/")
        try:
            return Shard(int(number), int(count))
        except ValueError:
            raise ValueError(f"{text!r} is not auto, or i/n with i from 1 to n, such as 3/16") from None

    def number_of(name: str, default: str | None = None) -> int:
        return int(environment[name] if default is None else environment.get(name, default))

    try:
        if "WORLD_SIZE" in environment:
            return Shard(1 + number_of("RANK"), number_of("WORLD_SIZE"))
        if "SLURM_ARRAY_TASK_ID" in environment:
            first, step = number_of("SLURM_ARRAY_TASK_MIN", "0"), number_of("SLURM_ARRAY_TASK_STEP", "1")
            place, rest = divmod(number_of("SLURM_ARRAY_TASK_ID") - first, step)
            if rest:
                raise ValueError("a task between two steps")
            return Shard(1 + place, number_of("SLURM_ARRAY_TASK_COUNT"))
    except (KeyError, ValueError, ZeroDivisionError):
        raise ValueError(
            "auto: the environment does not say which part this is (RANK and WORLD_SIZE, or SLURM_ARRAY_TASK_ID, _MIN "
            "and _COUNT of an array without holes); give i/n"
        ) from None
    raise ValueError("auto: this runs neither under torchrun nor in a SLURM array; give i/n")


def own_cores() -> int:
    """This process's share of the cores: all that are allowed, unless torchrun started several on this machine."""
    return max(1, allowed_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def processes_for(wanted: int, jobs: Sequence[Job]) -> int:
    """How many processes work on inputs: as many as are wanted, 0 for one per core, but no more than inputs."""
    return max(1, min(wanted or own_cores(), len(jobs)))


def threads_for(wanted: int | None, processes: int) -> int | None:
    """How many threads each process computes with, so that they do not fight for cores; None is up to the runtime."""
    if wanted is not None or processes == 1:
        return wanted
    return max(1, own_cores() // processes)


def outcomes(
    work: Work[Result],
    jobs: Sequence[Job],
    *,
    processes: int,
    say: Say,
    watch: Watch,
    watch_each: Watch | None = None,
) -> Generator[Outcome[Result], None, None]:
    """Do the work, and say what became of each input, in the order in which they are done.

    Closing the iterator, and any exception, stops the workers; what they were writing is removed.

    Args:
        work: what is done
        jobs: inputs and outputs, of which none is standard input or output if there are several processes
        processes: 1 for this one alone
        say: for lines of the work; those of another process arrive together
        watch: for progress: on each input, or on all of them if there are several processes
        watch_each: for progress of several processes on each input, within these; picklable
    """
    if processes == 1:
        for job in jobs:
            try:
                with job.folders(), watch(job.source, UNIT) as progress:
                    result = work(job, say, progress)
            except SdcError as error:
                yield Outcome(job, None, error)
            else:
                yield Outcome(job, result, None)
        return
    yield from _in_workers(_Quietly(work, watch_each), jobs, processes, say, watch)


def _in_workers(
    work: _Quietly[Result], jobs: Sequence[Job], processes: int, say: Say, watch: Watch
) -> Iterator[Outcome[Result]]:
    from ..data.parallel import ProcessPool

    with contextlib.ExitStack() as stack:
        todo = []
        for job in jobs:
            try:
                # Here, because a worker would take away the folder of another that has yet to write into it.
                stack.enter_context(job.folders())
                todo.append(job)
            except SdcError as error:
                yield Outcome(job, None, error)
        progress = stack.enter_context(watch(f"{processes} processes", "inputs"))
        pool = stack.enter_context(ProcessPool(work, processes, lasting=True))
        waiting: dict[Future[_Answer[Result]], Job] = {}
        done = len(jobs) - len(todo)

        def finished() -> Iterator[Outcome[Result]]:
            nonlocal done
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                job = waiting.pop(future)
                done += 1
                if progress:
                    progress(done, len(jobs))
                try:
                    answer = future.result()
                except InputError as error:  # of the pool: a worker was killed
                    yield Outcome(job, None, InputError(f"{job.source}: {error}"))
                    continue
                for line in answer.said:
                    say(line)
                yield Outcome(job, answer.result, answer.error)

        for job in todo:
            if len(waiting) >= 2 * processes:
                yield from finished()
            waiting[pool.submit(job)] = job
        while waiting:
            yield from finished()


@dataclass(frozen=True)
class _Answer(Generic[Result]):
    """What a worker sends back."""

    said: tuple[str, ...]
    result: Result | None
    error: SdcError | None


@dataclass(frozen=True)
class _Quietly(Generic[Result]):
    """Work that keeps what it says."""

    work: Work[Result]
    watch: Watch | None

    def __call__(self, job: Job) -> _Answer[Result]:
        said: list[str] = []
        try:
            with contextlib.nullcontext() if self.watch is None else self.watch(job.source, UNIT) as progress:
                result = self.work(job, said.append, progress)
        except SdcError as error:
            return _Answer(tuple(said), None, error)
        return _Answer(tuple(said), result, None)
