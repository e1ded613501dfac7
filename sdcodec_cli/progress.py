"""How whoever shows progress hears of it."""

from collections.abc import Callable

Progress = Callable[[float, float | None], None]
"""Called while work goes on, with how much of it is done and, where known, how much there is: seconds of audio, unless
the function that takes it says otherwise."""
