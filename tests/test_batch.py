"""Many inputs at once, and shared out among machines."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdcodec_cli.data import parallel
from sdcodec_cli.engine import batch
from sdcodec_cli.engine.batch import Outcome, Shard, outcomes, parse_shard, processes_for, threads_for
from sdcodec_cli.engine.files import Job, Plan, Selection
from sdcodec_cli.engine.plans import plan_compress, plan_decode
from sdcodec_cli.progress import Progress

from batch_examples import Copy
from bitstream_examples import small_example

ROOT = Path(__file__).resolve().parents[1]

needs_signals = pytest.mark.skipif(sys.platform == "win32", reason="Windows has other signals")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def jobs(*texts: str) -> list[Job]:
    """An input with each text, copied into a folder that is not there yet."""
    for number, text in enumerate(texts):
        Path(str(number)).write_text(text)
    return [Job(str(number), {"copy": f"out/{number}"}) for number in range(len(texts))]


class Shown:
    """What is said, and how progress goes."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.watched: list[tuple[str, str]] = []
        self.progress: list[tuple[float, float | None]] = []

    @contextlib.contextmanager
    def watch(self, label: str, unit: str) -> Iterator[Progress | None]:
        self.watched.append((label, unit))
        yield lambda done, total: self.progress.append((done, total))


def run(todo: list[Job], processes: int, shown: Shown | None = None) -> list[Outcome[int]]:
    shown = shown or Shown()
    return list(outcomes(Copy(), todo, processes=processes, say=shown.lines.append, watch=shown.watch))


def files() -> list[str]:
    return sorted(str(path) for path in Path("out").rglob("*"))


def test_one_process_does_inputs_one_after_the_other_in_this_one() -> None:
    shown = Shown()
    first, second, third = run(jobs("a", "bad", "c"), 1, shown)
    assert (first.result, third.result) == (os.getpid(), os.getpid())
    assert (str(second.error), second.result) == ("1: is bad", None)
    assert shown.lines == ["0: begun", "1: begun", "2: begun"]
    assert shown.watched == [(name, "s of audio") for name in "012"]
    assert files() == ["out/0", "out/2"]


@needs_signals
def test_several_processes_share_inputs_and_one_that_dies_fails_its_own_only() -> None:
    shown = Shown()
    found = {each.job.source: each for each in run(jobs("kill", "a", "bad", "b", "c"), 2, shown)}
    assert str(found["0"].error) == (
        "0: a worker process was killed, perhaps for want of memory; run it again with fewer --jobs"
    )
    assert str(found["2"].error) == "2: is bad"
    pids = {found[name].result for name in "134"}
    assert None not in pids
    assert os.getpid() not in pids
    assert [name for name in files() if "sdc-part" not in name] == ["out/1", "out/3", "out/4"]
    assert sorted(shown.lines) == ["1: begun", "2: begun", "3: begun", "4: begun"]
    assert (shown.watched, shown.progress[-1]) == ([("2 processes", "inputs")], (5, 5))
    assert not multiprocessing.active_children()


@needs_signals
@pytest.mark.slow
@pytest.mark.parametrize("how", ["Ctrl-C", "SIGTERM"])
def test_an_interruption_stops_all_workers_and_leaves_no_half_files(how: str) -> None:
    jobs("a", "wait", "wait")
    script = Path("run.py")
    script.write_text("""
import contextlib, signal, sys
from sdcodec_cli.engine.batch import outcomes
from sdcodec_cli.engine.files import Job
from batch_examples import Copy

def stop(number, frame):
    raise SystemExit(128 + number)

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, stop)
    jobs = [Job(str(number), {"copy": f"out/{number}"}) for number in range(3)]
    no_bar = lambda label, unit: contextlib.nullcontext()
    for outcome in outcomes(Copy(), jobs, processes=3, say=lambda line: None, watch=no_bar):
        print(outcome.job.source, flush=True)
""")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    process = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "0\n"
    while len(files()) < 3:
        time.sleep(0.05)
    if how == "Ctrl-C":
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to everybody
    else:
        process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == (-signal.SIGINT if how == "Ctrl-C" else 128 + signal.SIGTERM)
    assert files() == ["out/0"]


def test_a_shard_is_every_nth_name_of_the_sorted_ones() -> None:
    names = [f"{number:02}" for number in range(10)]
    parts = [Shard(number, 3).of(reversed(names)) for number in (1, 2, 3)]  # type: ignore[arg-type]
    assert sorted(parts[0]) == ["00", "03", "06", "09"]
    assert sorted(set.union(*parts)) == names
    assert sum(map(len, parts)) == 10
    assert Shard(5, 5).of({"a"}) == set()


def test_a_shard_is_given_or_what_torchrun_or_a_slurm_array_say() -> None:
    assert parse_shard("3/16") == Shard(3, 16)
    assert parse_shard("auto", {"RANK": "0", "WORLD_SIZE": "4"}) == Shard(1, 4)
    array = {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_COUNT": "16"}
    assert parse_shard("auto", array) == Shard(7, 16)
    steps = {"SLURM_ARRAY_TASK_ID": "8", "SLURM_ARRAY_TASK_STEP": "4", "SLURM_ARRAY_TASK_COUNT": "3"}
    assert parse_shard("auto", steps) == Shard(3, 3)


@pytest.mark.parametrize(
    ("text", "environment", "message"),
    [
        ("0/3", {}, "'0/3' is not auto, or i/n with i from 1 to n, such as 3/16"),
        ("4/3", {}, "'4/3' is not auto"),
        ("3", {}, "'3' is not auto"),
        ("a/b", {}, "'a/b' is not auto"),
        ("auto", {}, "auto: this runs neither under torchrun nor in a SLURM array; give i/n"),
        ("auto", {"WORLD_SIZE": "2"}, "auto: the environment does not say which part this is"),
        ("auto", {"RANK": "2", "WORLD_SIZE": "2"}, "auto: the environment does not say which part this is"),
        ("auto", {"SLURM_ARRAY_TASK_ID": "9", "SLURM_ARRAY_TASK_COUNT": "3"}, "auto: the environment does not say"),
        (
            "auto",
            {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_STEP": "2", "SLURM_ARRAY_TASK_COUNT": "9"},
            "auto: the environment does not say",
        ),
    ],
)
def test_a_shard_that_cannot_be_is_refused(text: str, environment: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        parse_shard(text, environment)


def test_processes_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "allowed_cores", lambda: 8)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    many = [Job("a", {})] * 100
    assert [processes_for(wanted, many) for wanted in (0, 1, 3, 99)] == [8, 1, 3, 99]
    assert [processes_for(0, many[:2]), processes_for(4, [])] == [2, 1]
    assert [threads_for(None, processes) for processes in (1, 2, 3, 8, 99)] == [None, 4, 2, 1, 1]
    assert threads_for(5, 8) == 5
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert (processes_for(0, many), threads_for(None, 2)) == (2, 1)


def plan(*inputs: str, output: str | None = None, **selected: object) -> Plan:
    only = Selection(**selected)  # type: ignore[arg-type]
    return plan_compress(inputs, output, overwrite=False, only=only)


def test_inputs_whose_outputs_are_there_are_left_out() -> None:
    for name in ("a.wav", "b.wav", "b.sdc"):
        Path(name).touch()
    found = plan("a.wav", "b.wav", skip_existing=True)
    assert ([job.source for job in found.jobs], found.skipped, found.failures) == (["a.wav"], ("b.wav",), ())
    Path("c.sdc").write_bytes(small_example().data)
    Path("c.sfx.wav").touch()
    only = Selection(skip_existing=True)
    found = plan_decode(["c.sdc"], None, ["sfx"], overwrite=False, only=only)
    assert (found.jobs, found.skipped) == ((), ("c.sdc",))
    # One of two is there: outputs of an input appear together, so it is somebody else's.
    found = plan_decode(["c.sdc"], None, ["all"], overwrite=False, only=only)
    assert [str(error) for error in found.failures] == ["c.sfx.wav exists; pass --force to overwrite it"]


def test_shards_divide_what_is_found_and_inputs_of_one_output_stay_together() -> None:
    Path("in").mkdir()
    for name in ("a.flac", "a.wav", "b.wav", "c.wav", "d.wav"):
        Path("in", name).touch()
    parts = [plan("in", output="out/", shard=Shard(number, 2)) for number in (1, 2)]
    assert [[job.source for job in part.jobs] for part in parts] == [
        ["in/a.flac", "in/c.wav"],
        ["in/b.wav", "in/d.wav"],
    ]
    assert ["would write out/a.sdc" in str(error) for error in parts[0].failures] == [True]
    assert parts[1].failures == ()
    # What is there already does not move the others.
    Path("out").mkdir()
    Path("out/a.sdc").touch()
    again = plan("in", output="out/", shard=Shard(2, 2), skip_existing=True)
    assert [job.source for job in again.jobs] == ["in/b.wav", "in/d.wav"]


@needs_signals
def test_workers_that_do_not_stop_are_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "PATIENCE", 0.1)

    def interrupted() -> None:
        with parallel.ProcessPool(time.sleep, 1, lasting=True):
            (worker,) = multiprocessing.active_children()
            os.kill(worker.pid, signal.SIGSTOP)  # type: ignore[arg-type]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not multiprocessing.active_children()
