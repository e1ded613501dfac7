"""What people see: progress, summaries and errors on standard error, tables and JSON on standard output."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import math
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import typer

from ..errors import OutputError, SdcError
from ..progress import Progress, StagedProgress

if TYPE_CHECKING:
    from ..engine.batch import Result, Work
    from ..engine.edit import EditResult
    from ..engine.files import Job, Plan
    from ..engine.stem_files import StemsResult
    from ..engine.train.log import TrainingProgress

REDRAW_SECONDS = 0.2
"""Seconds between two drawings of the bar of training, whose steps may be much faster, and between two events."""


class Console:
    """Prints for one command, as `--quiet`, `--json`, `--progress` and terminals ask for; knows if something failed."""

    def __init__(self, *, quiet: bool = False, json: bool = False, progress: Literal["auto", "json"] = "auto") -> None:
        self._quiet = quiet
        self._events = EventProgress() if progress == "json" else None
        self.json = json
        self._failed = False
        self._print: Callable[[str], None] = _to_stderr
        self._began = time.monotonic()
        self._counts = {"done": 0, "there already": 0, "failed": 0}
        """Inputs of a command that makes files of them."""
        self._worked = False

    def say(self, line: str) -> None:
        """A line for people, unless they asked for quiet."""
        if self._quiet:
            return
        if self._events:
            emit("note", message=line)
        else:
            self._tell(line)

    def fail(self, problem: object) -> None:
        """A line about something that went wrong, which makes the exit code 1."""
        self._failed = True
        if self._events:
            emit("error", message=" ".join(str(problem).split("\n")))
        else:
            self._tell(_complaint(problem))

    def _tell(self, line: str) -> None:
        with contextlib.suppress(OSError):  # whoever listened is gone, or the log's disk is full: the work goes on
            self._print(line)

    def settle(self, plan: Callable[[], Plan]) -> tuple[Job, ...]:
        """The jobs of a plan, after a line for each failure and note; wrong arguments end the command."""
        try:
            settled = plan()
        except ValueError as error:
            wrong(error)
        if self.json and any("-" in job.targets.values() for job in settled.jobs):
            wrong("--json and the output both need standard output; pass -o FILE")
        for note in settled.notes:
            self.say(note)
        for failure in settled.failures:
            self.fail(failure)
        if not (settled.jobs or settled.notes or settled.failures or settled.skipped):
            self.say("there is nothing to do in this part of the inputs")
        self._counts["there already"] += len(settled.skipped)
        self._counts["failed"] += len(settled.failures)
        return settled.jobs

    def work(self, work: Work[Result], jobs: Sequence[Job], *, processes: int, show: Callable[[Result], None]) -> None:
        """Do the work on all inputs, and show each result; a line for each that fails."""
        from ..engine.batch import outcomes

        self._worked = self._worked or bool(jobs)
        found = outcomes(work, jobs, processes=processes, say=self.say, watch=self.progress, watch_each=self._events)
        with contextlib.closing(found):
            for outcome in found:
                if self._events:
                    emit("end", file=source_name(outcome.job.source), ok=outcome.error is None)
                if outcome.error is not None:
                    self.fail(outcome.error)
                    self._counts["failed"] += 1
                    continue
                assert outcome.result is not None
                with self.catching():
                    show(outcome.result)
                self._counts["done"] += 1

    @contextlib.contextmanager
    def catching(self) -> Iterator[None]:
        """Turn an `SdcError` into a line on standard error, so that the next input gets its turn."""
        try:
            yield
        except SdcError as error:
            self.fail(error)

    @contextlib.contextmanager
    def progress(self, label: str, unit: str = "s of audio") -> Iterator[Progress | None]:
        """A bar while the block runs, if standard error is a terminal; or events, but workers tell theirs."""
        if self._events:
            with contextlib.nullcontext() if unit == "inputs" else self._events(label, unit) as events:
                yield events
            return
        if self._quiet or not sys.stderr.isatty():
            yield None
            return
        from tqdm import tqdm

        label = source_name(label)
        # Closed and redrawn in place, so that nothing of it stays behind.
        with (
            tqdm(desc=label, unit=unit, file=sys.stderr, leave=False, dynamic_ncols=True, bar_format=_UNKNOWN) as bar,
            self._above(tqdm),
        ):
            yield _Bar(bar, label)

    @contextlib.contextmanager
    def _above(self, bar: Any) -> Iterator[None]:
        """Print above the bars of a class while the block runs."""
        before, self._print = self._print, lambda line: bar.write(readable(line), file=sys.stderr)
        try:
            yield
        finally:
            self._print = before

    @contextlib.contextmanager
    def training(self, label: str) -> Iterator[Callable[[TrainingProgress], None] | None]:
        """A bar of steps while the block runs, if standard error is a terminal; what is said appears above it."""
        if self._quiet or not sys.stderr.isatty():
            yield None
            return
        from tqdm import tqdm

        class Bar(tqdm):  # type: ignore[misc]
            # No thread that redraws: it would be there when the loader of the examples forks.
            monitor_interval = 0

        starting = "{desc}: starting"
        with (
            Bar(desc=label, file=sys.stderr, leave=False, dynamic_ncols=True, bar_format=starting) as bar,
            self._above(Bar),
        ):
            drawn = -math.inf

            def update(progress: TrainingProgress) -> None:
                nonlocal drawn
                now = time.monotonic()
                if now - drawn < REDRAW_SECONDS and progress.step < progress.steps:
                    return
                drawn, bar.n, bar.total = now, progress.step, progress.steps
                # Beside the label, the percentage and a bar that can still be seen.
                room = (bar.format_dict["ncols"] or 80) - len(label) - len(": 100% || ") - 10
                bar.bar_format = "{l_bar}{bar}| " + training_facts(progress, room)
                bar.refresh()

            yield update

    def result(self, value: Any) -> None:
        """A dataclass as one line of JSON on standard output, if `--json` asked for it."""
        if self.json:
            put(as_json(value))

    def finish(self) -> None:
        """End the command, after a summary if there were several inputs, with exit code 1 if anything failed."""
        total, there = sum(self._counts.values()), self._counts["there already"]
        if there or (self._worked and total > 1):
            counts = ", ".join(f"{count} {what}" for what, count in self._counts.items() if count)
            took = duration(time.monotonic() - self._began)
            self.say(f"{total} input{'s' * (total > 1)}: {counts}; {took}")
        if self._failed:
            raise typer.Exit(1)


_KNOWN = "{desc}: {percentage:3.0f}% |{bar}| {n:.0f}/{total:.0f} {unit}, {remaining} left"
_UNKNOWN = "{desc}: {n:.0f} {unit}, {elapsed}"


class _Bar(StagedProgress):
    """A bar of tqdm, which begins anew with each stage."""

    def __init__(self, bar: Any, label: str) -> None:
        self._bar, self._label = bar, label

    def begin(self, stage: str) -> None:
        bar = self._bar
        bar.total, bar.bar_format, bar.initial = None, _UNKNOWN, 0
        bar.set_description_str(f"{self._label}: {stage}", refresh=False)
        bar.reset()

    def __call__(self, done: float, total: float | None) -> None:
        bar = self._bar
        if total is not None and bar.total is None:
            # What was done before this run does not count for its speed.
            bar.total, bar.bar_format, bar.initial = total, _KNOWN, done
        bar.update(done - bar.n)


@dataclass(frozen=True)
class EventProgress:
    """Shows progress as events on standard error; picklable, so that worker processes can do so, too."""

    @contextlib.contextmanager
    def __call__(self, label: str, unit: str) -> Iterator[Progress]:
        """Events about one input while the block runs."""
        events = _Events(source_name(label))
        yield events
        events.tell()


class _Events(StagedProgress):
    """Tells of one input, not too often; of each stage also where it ended."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._stage: str | None = None
        self._waiting: tuple[float, float | None] | None = None
        self._told = -math.inf

    def begin(self, stage: str) -> None:
        self.tell()
        self._stage, self._told = stage, -math.inf

    def __call__(self, done: float, total: float | None) -> None:
        self._waiting = (done, total)
        if time.monotonic() - self._told >= REDRAW_SECONDS:
            self.tell()

    def tell(self) -> None:
        """What has not been told yet."""
        if self._waiting is not None:
            done, total = self._waiting
            emit("progress", file=self._file, stage=self._stage, done=done, total=total)
            self._waiting, self._told = None, time.monotonic()


def emit(event: str, **fields: object) -> None:
    """An event on standard error, a JSON object in one line."""
    line = json.dumps(_plain({"event": event, **fields}), allow_nan=False)
    with contextlib.suppress(OSError):
        # In one piece, because processes share standard error.
        sys.stderr.write(line + "\n")
        sys.stderr.flush()


def wrong(problem: object) -> NoReturn:
    """End with a line about a wrong command line, and exit code 2."""
    report(problem)
    raise typer.Exit(2)


def report(problem: object) -> None:
    """One line on standard error, beginning with the name of the program."""
    _to_stderr(_complaint(problem))


def _complaint(problem: object) -> str:
    return "sdc: " + " ".join(str(problem).split("\n"))


def _to_stderr(line: str) -> None:
    print(readable(line), file=sys.stderr)


def put(text: str) -> None:
    """A result as a line on standard output.

    Raises:
        OutputError: standard output cannot be written, as on a full disk
    """
    try:
        print(readable(text), flush=True)
    except BrokenPipeError:
        raise  # whoever reads has read enough
    except OSError as error:
        # What is still in the buffer would fail once more at the end of the program.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise OutputError(f"stdout: cannot be written: {error.strerror}; redirect it to another place") from error


def source_name(name: str) -> str:
    """An input as people read it."""
    return "stdin" if name == "-" else name


def target_name(name: str) -> str:
    """An output as people read it."""
    return "stdout" if name == "-" else name


def as_json(value: Any) -> str:
    """A dataclass as JSON in one line; numbers that JSON cannot express become null."""
    return json.dumps(_plain(dataclasses.asdict(value)), allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {readable(str(key)): _plain(entry) for key, entry in value.items()}
    if isinstance(value, str):
        return readable(value)
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def readable(text: str) -> str:
    r"""Valid UTF-8 in any case: bytes of a file's name that are not UTF-8 become `\xNN`.

    >>> print(readable("caf\udce9.wav"))
    caf\xe9.wav
    """
    # Python holds such a byte as a code of its own that belongs to no character.
    return re.sub("[\ud800-\udfff]", lambda found: f"\\x{ord(found[0]) & 0xFF:02x}", text)


def table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = (), whole: Sequence[str] = ()
) -> None:
    """A table on standard output; columns named in `right` are aligned to the right, those in `whole` never folded."""
    import rich.box
    import rich.console
    import rich.table

    terminal = sys.stdout.isatty()
    text = io.StringIO()
    # In a file or a pipe nothing is folded: one row stays one line.
    console = rich.console.Console(
        file=text,
        force_terminal=terminal,
        width=None if terminal else 1000,
        markup=False,
        emoji=False,
        highlight=False,
    )
    grid = rich.table.Table(box=rich.box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column in columns:
        grid.add_column(
            column, justify="right" if column in right else "left", overflow="fold", no_wrap=column in whole
        )
    for row in rows:
        grid.add_row(*row)
    console.print(grid)
    put("\n".join(line.rstrip() for line in text.getvalue().splitlines()))


def say_audio(console: Console, result: StemsResult, *, softer: str = "") -> None:
    """A summary line for audio that was written, and what there is to say of full scale.

    Args:
        console: to say it
        result: what was written
        softer: more advice against clipping that ends the line about a stem, with `{stem}` for its name
    """
    names = ", ".join(target_name(name) for name in result.outputs.values())
    console.say(f"{names}: {duration(result.seconds)}, {speed(result.times_real_time, result.device)}")
    say_levels(
        console,
        result.input,
        {stem: target_name(name) for stem, name in result.outputs.items()},
        clipped=result.clipped,
        peak_db=result.peak_db,
        rescaled_db=result.rescaled_db,
        softer=softer,
    )


def say_levels(
    console: Console,
    source: str,
    names: Mapping[str, str],
    *,
    clipped: Mapping[str, int],
    peak_db: Mapping[str, float],
    rescaled_db: float,
    softer: str = "",
) -> None:
    """A line for each output that goes beyond full scale, or one for all that were made softer; see `StemsResult`."""
    if rescaled_db < 0:
        what = "it was" if len(names) == 1 else "all its outputs alike were"
        console.say(f"{source_name(source)}: {what} made {-rescaled_db:.2f} dB softer, to stay within full scale")
        return
    for stem, name in names.items():
        if count := clipped.get(stem, 0):
            console.say(
                f"{name}: {count} samples beyond full scale were limited to it; pass --rescale to make it softer"
                f"{softer.format(stem=stem)}"
            )
        elif peak_db.get(stem, 0.0) > 0:
            console.say(f"{name}: goes {peak_db[stem]:.2f} dB beyond full scale, which floats keep")


def say_edit(console: Console, result: EditResult) -> None:
    """A summary line for a `.sdc` file made of others, its notes, and what is damaged in it."""
    parts = f", {result.parts} parts" if result.parts > 1 else ""
    size = f"{num_bytes(result.bytes)} of {num_bytes(result.input_bytes)}"
    console.say(f"{target_name(result.output)}: {duration(result.seconds)}{parts}, {size}")
    for note in result.notes:
        console.say(f"{target_name(result.output)}: {note}")
    for problem in result.problems:
        console.fail(problem)
    console.result(result)


def num_bytes(count: int) -> str:
    """A size for people.

    >>> num_bytes(999), num_bytes(46_300), num_bytes(2_345_678)
    ('999 B', '46 kB', '2.3 MB')
    """
    if count < 1000:
        return f"{count} B"
    if count < 999_500:
        return f"{count / 1000:.0f} kB"
    if count < 999_950_000:
        return f"{count / 1e6:.1f} MB"
    return f"{count / 1e9:.2f} GB"


def duration(seconds: float) -> str:
    """A duration for people.

    >>> duration(61.24), duration(3725)
    ('61.2 s', '1 h 2 min 5 s')
    """
    if seconds < 600:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min {rest} s" if hours else f"{minutes} min {rest} s"


def time_left(seconds: float) -> str:
    """A coarse duration for people who wait.

    >>> time_left(42.4), time_left(90), time_left(4320), time_left(200_000)
    ('42 s', '2 min', '1 h 12 min', '2 d 7 h')
    """
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 24 else f"{hours // 24} d {hours % 24} h"


def training_facts(progress: TrainingProgress, room: int) -> str:
    """Steps, speed, time left and losses, as many of them as `room` characters hold."""
    facts = [
        f"{progress.step}/{progress.steps}",
        f"{progress.audio_seconds:.1f} audio s/s",
        f"{time_left(progress.seconds_left)} left",
        *(f"{name} {value:.3f}" for name, value in progress.losses.items()),
    ]
    while len(facts) > 1 and len(", ".join(facts)) > room:
        facts.pop()
    return ", ".join(facts)


def speed(times_real_time: float, device: str) -> str:
    """How fast, and where.

    >>> speed(38.2, "cpu"), speed(0.84, "cpu")
    ('38x real time on cpu', '0.84x real time on cpu')
    """
    digits = f"{times_real_time:.0f}" if times_real_time >= 10 else f"{times_real_time:.2g}"
    return f"{digits}x real time on {device}"
