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


class _Ended(Exception):
    """A signal came while something was waited for."""


class EndingSignals:
    """Makes Ctrl-C (SIGINT), SIGTERM and SIGHUP the end of what is read, for the block; a second one acts as ever.

    Those that are ignored stay so.
    """

    def __init__(self) -> None:
        self.came = False
        """Whether one came."""
        self._waiting = False
        self._former: dict[int, object] = {}

    def __enter__(self) -> EndingSignals:
        if threading.current_thread() is threading.main_thread():  # no other thread may set handlers
            for name in ("SIGINT", "SIGTERM", "SIGHUP"):
                number = getattr(signal, name, None)
                if number is not None and signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._former[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exc: object) -> None:
        for number in list(self._former):
            signal.signal(number, self._former.pop(number))  # type: ignore[arg-type]

    def read(self, call: Callable[[], bytes]) -> bytes:
        """What a call brings that may have to wait; nothing once a signal came."""
        try:
            return self._read(call)
        except _Ended:
            return b""

    def _read(self, call: Callable[[], bytes]) -> bytes:
        self._waiting = True
        try:
            return b"" if self.came else call()
        finally:
            self._waiting = False

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.came = True
        self.__exit__()
        if self._waiting:
            raise _Ended
