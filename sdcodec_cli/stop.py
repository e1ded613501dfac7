"""What a signal that ends the program raises, so that it cannot be lost."""

from __future__ import annotations

from types import FrameType
from typing import NoReturn

_asked: list[BaseException] = []


def ask_to_stop(error: BaseException) -> NoReturn:
    """Raise what ends the program, in the handler of a signal; `stop_if_asked` raises it again if it was lost."""
    _asked[:] = [error]
    raise error


def end_program(number: int, frame: FrameType | None) -> NoReturn:
    """The handler of a signal: end through an exception, so that half-written files are removed."""
    ask_to_stop(SystemExit(128 + number))


def stop_if_asked() -> None:
    """Raise what the handler of a signal has raised before, wherever that went.

    C code that calls Python may drop its exceptions: Python's own compiler does, while a module is imported. So whoever
    reads a block of audio asks, and so does an output before it gets its name.
    """
    if _asked:
        raise _asked[0]
