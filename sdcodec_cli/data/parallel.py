"""Work on many files at once, and work that only one process at a time may do."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, as_completed, wait
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Generic, TypeVar

from ..errors import InputError, OutputError, SdcError
from ..stop import end_program

Task = TypeVar("Task")
Answer = TypeVar("Answer")

PATIENCE = 10.0
"""Seconds that the workers of a lasting pool have to clean up when it is stopped."""


def in_processes(work: Callable[[Task], Answer], tasks: Iterable[Task], jobs: int) -> Iterator[Answer]:
    """The answers of `work` to each task, in the order in which they are done; an exception of `work` is raised here.

    With one job everything happens in this process, with more in a `ProcessPool`.

    Raises:
        InputError: a worker was killed
    """
    if jobs == 1:
        yield from map(work, tasks)
        return
    with ProcessPool(work, jobs) as pool:
        waiting: set[Future[Answer]] = set()
        for task in tasks:
            if len(waiting) >= 2 * jobs:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
            waiting.add(pool.submit(task))
        yield from (future.result() for future in as_completed(waiting))


class ProcessPool(Generic[Task, Answer]):
    """Processes that call `work` on one task after the other, started on entry; tasks and answers have to be picklable.

    On a normal exit what was submitted is finished; on an exception, Ctrl-C among them, it is dropped. Either way no
    process is left, and if this one is killed, the workers end after the task they are at.

    Args:
        work: what is called, picklable
        jobs: number of processes
        lasting: a worker that is killed fails the task that it had and no other, and another one takes its place; and
            workers that are stopped may clean up, for which they have `PATIENCE`
    """

    def __init__(self, work: Callable[[Task], Answer], jobs: int, *, lasting: bool = False) -> None:
        if jobs < 1:
            raise ValueError(f"jobs must be at least 1, got {jobs}")
        self._work, self._jobs, self._lasting = work, jobs, lasting
        # Bounded, so that whoever submits waits while everybody has enough to do.
        self._queue: queue.Queue[tuple[Future[Answer], Task] | None] = queue.Queue(2 * jobs)
        self._failure: SdcError | None = None
        self._workers: list[Any] = []
        self._threads: list[threading.Thread] = []
        self._starting = threading.Lock()

    def __enter__(self) -> ProcessPool[Task, Answer]:
        try:
            if sys.platform != "win32":
                # Started by the first worker otherwise, which would let go of Ctrl-C.
                resource_tracker.ensure_running()
            with ctrl_c_held():
                for _ in range(self._jobs):
                    thread = threading.Thread(target=self._drive, args=(self._start(),), daemon=True)
                    thread.start()
                    self._threads.append(thread)
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def _start(self) -> Connection:
        """Another worker; `_failure` if there is to be none any more."""
        # Not forked: a copy of a process with threads (pyarrow's, torch's) may hang.
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        with self._starting, theirs, ctrl_c_held():
            if self._failure is not None:
                raise self._failure
            worker = context.Process(target=_serve, args=(self._work, theirs), daemon=True)
            worker.start()
            self._workers.append(worker)
        return ours

    def submit(self, task: Task) -> Future[Answer]:
        """What `work` returns or raises, later; waits while enough is waiting already.

        The task must not change until then.

        Raises:
            InputError: a worker was killed; futures raise it too
        """
        if self._failure is not None:
            raise self._failure
        future: Future[Answer] = Future()
        self._queue.put((future, task))
        return future

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is not None:
                with self._starting:
                    self._failure = self._failure or SdcError("stopped before it was done; run it again")
                if self._lasting:
                    self._stop()
                self._kill()
            for _ in self._threads:
                self._queue.put(None)
            for thread in self._threads:
                thread.join()
        finally:
            self._kill()

    def _stop(self) -> None:
        """Ask the workers to end, and wait for those that have something to clean up."""
        for worker in self._workers:
            worker.terminate()
        deadline = time.monotonic() + PATIENCE
        for worker in self._workers:
            worker.join(max(0.0, deadline - time.monotonic()))

    def _kill(self) -> None:
        for worker in self._workers:
            worker.kill()
        for worker in self._workers:
            worker.join()

    def _drive(self, worker: Connection) -> None:
        """Hand tasks to one worker, and its answers to those who wait; once a worker is dead, nothing but errors."""
        while (item := self._queue.get()) is not None:
            future, task = item
            if not future.set_running_or_notify_cancel():
                continue
            try:
                if self._failure is not None:
                    raise self._failure
                if worker.closed:
                    worker = self._start()
                future.set_result(self._ask(worker, task))
            except Exception as error:
                future.set_exception(error)
        worker.close()

    def _ask(self, worker: Connection, task: Task) -> Answer:
        try:
            worker.send(task)
            answer, error, trace = worker.recv()
        except (EOFError, OSError) as end:
            worker.close()
            killed = InputError(
                "a worker process was killed, perhaps for want of memory; run it again with fewer --jobs"
            )
            if not self._lasting:
                self._failure = self._failure or killed
            raise self._failure or killed from end
        if error is not None:
            raise error from RuntimeError(trace)
        found: Answer = answer
        return found


def _serve(work: Callable[[Any], Any], connection: Connection) -> None:
    """Work on tasks that arrive, and send the answers, until the process that gives them is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever gives the tasks ends this when Ctrl-C is pressed
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), end_program)
    # Before numpy is loaded: there are as many workers as cores, and none needs threads of its own.
    os.environ.update(NUMBA_NUM_THREADS="1", OMP_NUM_THREADS="1")
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
