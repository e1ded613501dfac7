"""How many cores are free: of those that a process may use, as many as nothing else keeps busy."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sdcodec_cli.runtime import threads
from sdcodec_cli.runtime.threads import allowed_cores, free_cores


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """What the system's files say, one text for each time that they are read; the last one from then on."""
    said: dict[str, list[str]] = {}
    read = Path.read_text

    def read_text(path: Path, *arguments: object, **options: object) -> str:
        if str(path) not in ("/proc/loadavg", "/sys/fs/cgroup/cpu.max"):
            return read(path, *arguments, **options)  # type: ignore[arg-type]
        texts = said.get(str(path))
        if not texts:
            raise FileNotFoundError(path)
        return texts.pop(0) if len(texts) > 1 else texts[0]

    monkeypatch.setattr(Path, "read_text", read_text)
    return said


def cores(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(number)), raising=False)


def running(*counts: int) -> list[str]:
    """Load averages with as many threads that want a core, this one among them."""
    return [f"0.50 0.40 0.30 {count}/345 6789\n" for count in counts]


@pytest.mark.parametrize(
    ("allowed", "wanting", "free"),
    [
        (8, 1, 8),  # this thread alone
        (8, 4, 5),
        (8, 8, 1),
        (8, 100, 1),
        (2, 2, 1),
        (8, 0, 8),  # it was counted between two of our own steps
    ],
)
def test_cores_that_others_keep_busy_are_not_free_and_one_always_is(monkeypatch, files, allowed, wanting, free):
    cores(monkeypatch, allowed)
    files["/proc/loadavg"] = running(wanting)
    assert free_cores() == free


def test_what_runs_for_a_moment_does_not_count(monkeypatch, files):
    cores(monkeypatch, 8)
    files["/proc/loadavg"] = running(7, 2, 6)
    assert free_cores() == 7


@pytest.mark.parametrize("text", [None, "", "nonsense", "0.1 0.2 0.3", "0.1 0.2 0.3 x/y 1"])
def test_where_the_system_does_not_say_all_cores_are_free(monkeypatch, files, text):
    cores(monkeypatch, 6)
    if text is not None:
        files["/proc/loadavg"] = [text]
    assert free_cores() == 6


@pytest.mark.parametrize(
    ("quota", "allowed"),
    [
        ("400000 100000", 4),
        ("150000 100000", 2),
        ("20000 100000", 1),
        ("3200000 100000", 16),
        ("max 100000", 16),
        ("", 16),
        (None, 16),
    ],
)
def test_a_control_groups_quota_is_kept_to(monkeypatch, files, quota, allowed):
    cores(monkeypatch, 16)
    if quota is not None:
        files["/sys/fs/cgroup/cpu.max"] = [quota + "\n"]
    assert allowed_cores() == allowed


def test_a_process_that_may_use_one_core_asks_for_nothing(monkeypatch, files):
    cores(monkeypatch, 1)
    monkeypatch.setattr(threads, "_busy_elsewhere", lambda: pytest.fail("it asked"))
    assert free_cores() == 1


def test_a_system_without_affinities_has_the_cores_that_it_has(monkeypatch, files):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 12)
    assert allowed_cores() == 12
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert allowed_cores() == 1


def test_on_this_machine_it_is_from_one_to_all():
    assert 1 <= free_cores() <= allowed_cores()
