"""The bar of `sdc train`, on a pseudo-terminal."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from sdcodec_cli.cli.console import Console, time_left, training_facts
from sdcodec_cli.engine.train.log import TrainingProgress

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs pseudo-terminals")

LOSSES = {"total": 1.25, "mel": 0.5, "snr": -3.25, "codebook": 0.0625, "commitment": 0.125}


def progress(step: int, steps: int = 1000) -> TrainingProgress:
    return TrainingProgress(step, steps, 38.24, 4320.0, LOSSES)


class Terminal:
    """Standard error as a pseudo-terminal of some width."""

    def __init__(self, columns: int) -> None:
        import fcntl
        import struct
        import termios

        self._ours, theirs = os.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.stream = os.fdopen(theirs, "w", encoding="utf-8")
        self._bytes = bytearray()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        # Linux ends the reading side with an error, others with an empty read.
        try:
            while chunk := os.read(self._ours, 4096):
                self._bytes += chunk
        except OSError:
            pass

    def text(self) -> str:
        """All that was written, which ends here."""
        if not self.stream.closed:
            self.stream.close()
            self._reader.join()
            os.close(self._ours)
        return self._bytes.decode().replace("\r\n", "\n")

    def bars(self) -> list[str]:
        """All pictures of the bar."""
        return [part for part in self.text().replace("\n", "\r").split("\r") if "%|" in part]

    def lines(self) -> list[str]:
        """The lines after all overwriting."""
        lines = []
        for line in self.text().split("\n"):
            cells: list[str] = []
            for part in line.split("\r"):
                cells[: len(part)] = part
            lines.append("".join(cells).rstrip())
        return lines


@contextmanager
def terminal(columns: int = 100) -> Iterator[Terminal]:
    terminal = Terminal(columns)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stderr", terminal.stream)
            yield terminal
    finally:
        terminal.text()


def test_what_is_said_is_above_the_bar_and_nothing_of_the_bar_stays() -> None:
    console = Console()
    with terminal() as screen:
        with console.training("runs/mine") as update:
            assert update is not None
            console.say("speech: 3.20 h to train on")
            for step in (1, 2, 3):
                update(progress(step))
                console.say(f"step {step}")
                console.fail("a.wav: is\nbroken")
        console.say("done")
    said = [line for step in (1, 2, 3) for line in (f"step {step}", "sdc: a.wav: is broken")]
    assert screen.lines() == ["speech: 3.20 h to train on", *said, "done", ""]
    assert len(screen.bars()) >= 3


@pytest.mark.parametrize(
    ("columns", "last"), [(50, "450/1000"), (80, "1 h 12 min left"), (120, "snr -3.250"), (200, "commitment 0.125")]
)
def test_the_bar_is_one_line_with_as_much_as_fits(columns: int, last: str) -> None:
    with terminal(columns) as screen, Console().training("runs/mine") as update:
        assert update is not None
        update(progress(450))
    line = screen.bars()[-1]
    assert line.startswith("runs/mine:  45%|█")
    assert line.endswith(last)
    assert len(line) <= columns


def test_a_resumed_run_begins_at_its_step() -> None:
    with terminal() as screen, Console().training("runs/mine") as update:
        assert update is not None
        update(progress(901))
    assert screen.bars()[0].startswith("runs/mine:  90%|")
    assert "901/1000, 38.2 audio s/s" in screen.bars()[0]


def test_fast_steps_are_not_all_drawn_but_the_last_one_is() -> None:
    started = time.monotonic()
    with terminal() as screen, Console().training("runs/mine") as update:
        assert update is not None
        for step in range(1, 1001):
            update(progress(step))
    assert len(screen.bars()) <= 3 + (time.monotonic() - started) / 0.2
    assert "1000/1000" in screen.bars()[-1]


def test_no_thread_is_there_when_the_loader_forks() -> None:
    with terminal() as screen:
        threads = threading.active_count()
        with Console().training("runs/mine") as update:
            assert update is not None
            update(progress(1))
            assert threading.active_count() == threads
    assert screen.bars()


def test_an_error_in_the_loop_takes_the_bar_away() -> None:
    console = Console()

    def train(update: Callable[[TrainingProgress], None] | None) -> None:
        assert update is not None
        update(progress(1))
        raise ZeroDivisionError

    with terminal() as screen:
        with pytest.raises(ZeroDivisionError), console.training("runs/mine") as update:
            train(update)
        console.say("after")
    assert screen.lines() == ["after", ""]


def test_quiet_draws_no_bar() -> None:
    with terminal() as screen, Console(quiet=True).training("runs/mine") as update:
        assert update is None
    assert screen.text() == ""


def test_without_a_terminal_there_are_only_the_lines(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console()
    with console.training("runs/mine") as update:
        assert update is None
        console.say("step 100")
    assert capsys.readouterr().err == "step 100\n"


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (3569, "59 min"),
        (3571, "1 h 0 min"),
        (4320, "1 h 12 min"),
        (200_000, "2 d 7 h"),
    ],
)
def test_the_time_left_is_coarse(seconds: float, expected: str) -> None:
    assert time_left(seconds) == expected


def test_the_steps_are_always_among_the_facts() -> None:
    assert training_facts(progress(7), 0) == "7/1000"
    assert training_facts(progress(7), 1000).endswith("commitment 0.125")
