"""Signals that wait while something must not be interrupted."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType


@contextlib.contextmanager
def signals_wait() -> Iterator[None]:
    """Let signals wait for the end of the block, such as a call into libsndfile.

    libsndfile calls Python to write. An exception there, such as that of Ctrl-C, is lost in its C code, and with it
    the wish to stop and the bytes that were to be written. A file that is just being created would be left behind.
    """
    if threading.current_thread() is not threading.main_thread():  # no other thread runs handlers
        yield
        return
    handlers: dict[int, Callable[[int, FrameType | None], object]] = {
        number: handler for number in signal.valid_signals() if callable(handler := signal.getsignal(number))
    }
    waiting: list[tuple[int, FrameType | None]] = []

    def note(number: int, frame: FrameType | None) -> None:
        waiting.append((number, frame))

    try:
        for number in handlers:
            signal.signal(number, note)
        yield
    finally:
        raised: BaseException | None = None
        left = dict(handlers)
        while left:
            # A handler that is back already may raise while the others are still to come.
            try:
                for number in list(left):
                    signal.signal(number, left[number])
                    del left[number]
            except BaseException as error:
                raised = error
        for number, frame in waiting:
            handlers[number](number, frame)
        if raised is not None:
            raise raised
