"""Work on many files at once, and work that only one process at a time may do."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import IO, Any, TypeVar, cast

from ..errors import InputError, OutputError

Task = TypeVar("Task")
Answer = TypeVar("Answer")


def in_processes(work: Callable[[Task], Answer], tasks: Iterable[Task], jobs: int) -> Iterator[Answer]:
    """The answers of `work` to each task, in the order in which they are done.

    `work`, tasks and answers have to be picklable; an exception of `work` is raised here. With one job everything
    happens in this process. However the iteration ends, no worker is left; and if this process is killed, its workers
    end after the task they are at.

    Raises:
        InputError: a worker was killed
    """
    if jobs == 1:
        yield from map(work, tasks)
        return
    # Not forked: a copy of a process with threads (pyarrow's, torch's) may hang.
    context = multiprocessing.get_context("spawn")
    workers: dict[Connection, Any] = {}
    waiting = iter(tasks)
    try:
        with ctrl_c_held():
            for _ in range(jobs):
                ours, theirs = context.Pipe()
                worker = context.Process(target=_serve, args=(work, theirs), daemon=True)
                worker.start()
                theirs.close()
                workers[ours] = worker
        busy = {connection for connection in workers if _give(connection, waiting)}
        while busy:
            for ready in wait(list(busy)):
                connection = cast("Connection", ready)
                answer, error, trace = _answer(connection)
                if error is not None:
                    raise error from RuntimeError(trace)
                yield answer
                if not _give(connection, waiting):
                    busy.remove(connection)
    finally:
        for connection, worker in workers.items():
            worker.terminate()
            worker.join()
            connection.close()


def _give(connection: Connection, tasks: Iterator[Any]) -> bool:
    for task in tasks:
        with contextlib.suppress(BrokenPipeError):  # its answer tells
            connection.send(task)
        return True
    return False


def _answer(connection: Connection) -> tuple[Any, Exception | None, str]:
    try:
        answer: tuple[Any, Exception | None, str] = connection.recv()
    except (EOFError, ConnectionResetError) as end:
        raise InputError(
            "a worker process was killed, perhaps for want of memory; run it again with fewer --jobs"
        ) from end
    return answer


def _serve(work: Callable[[Any], Any], connection: Connection) -> None:
    """Work on tasks that arrive, and send the answers, until the process that gives them is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever gives the tasks ends this when Ctrl-C is pressed
    with contextlib.suppress(EOFError, ConnectionResetError, BrokenPipeError):
        while True:
            task = connection.recv()
            answer: tuple[Any, Exception | None, str]
            try:
                answer = (work(task), None, "")
            except Exception as error:
                answer = (None, error, traceback.format_exc())
            connection.send(answer)


@contextlib.contextmanager
def ctrl_c_held() -> Iterator[None]:
    """Hold Ctrl-C back until the block ends; processes that are started in it never get it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def num_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def own_cores() -> int:
    """This process's share of the cores: all of them, unless torchrun started several processes on this machine."""
    return max(1, num_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def _is_still(file: IO[bytes], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def exclusive(lock: Path) -> Iterator[None]:
    """Let one process at a time into the block while others wait, by a lock file; on Windows nobody waits.

    Raises:
        OutputError: `lock` cannot be written
    """
    if sys.platform == "win32":
        yield
        return
    import fcntl

    while True:
        try:
            file = open(lock, "ab")  # noqa: SIM115
        except OSError as error:
            raise OutputError(f"{lock}: cannot be written: {error.strerror}; choose another folder") from error
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            # Whoever had the lock has removed the file, and somebody else may have made a new one.
            if _is_still(file, lock):
                try:
                    yield
                finally:
                    lock.unlink(missing_ok=True)
                return
