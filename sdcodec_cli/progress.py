"""How whoever shows progress hears of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

Progress = Callable[[float, float | None], None]
"""Called while work goes on, with how much of it is done and, where known, how much there is: seconds of audio, unless
the function that takes it says otherwise."""


class StagedProgress(ABC):
    """Progress that tells stages of work apart, such as measuring a file and then coding it: both go through it."""

    @abstractmethod
    def begin(self, stage: str) -> None:
        """What is told from now on is about another stage, of this name."""

    @abstractmethod
    def __call__(self, done: float, total: float | None) -> None:
        """See `Progress`."""


def in_stage(progress: Progress | None, stage: str, *, main: bool = True) -> Progress | None:
    """What hears of a stage of work that now begins.

    A function that knows no stages hears of the main one alone, because it would take the others for the whole.
    """
    if isinstance(progress, StagedProgress):
        progress.begin(stage)
        return progress
    return progress if main else None
