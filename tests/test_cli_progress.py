"""Where long runs are: bars of several stages on a terminal, and events for programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from test_cli_console_training import terminal

from sdcodec_cli.cli import console as module
from sdcodec_cli.cli.console import Console
from sdcodec_cli.progress import Progress, in_stage

from cli_examples import sdc


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    soundfile.write("talk.wav", np.random.default_rng(0).normal(0, 0.1, 3200), 16_000)
    return tmp_path


def work(progress: Progress | None) -> None:
    """Two passes over 4 s of audio."""
    for stage, main in (("measuring", False), ("coding", True)):
        heard = in_stage(progress, stage, main=main)
        if heard:
            for done in (1.0, 2.0, 3.0, 4.0):
                heard(done, 4.0)


def events(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_bar_names_the_stage_and_begins_anew_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tqdm.tqdm.mininterval", 0, raising=False)
    with terminal() as screen, Console().progress("talk.wav") as progress:
        assert progress is not None
        work(progress)
        progress(4.0, 4.0)
    pictures = [part.strip() for part in screen.text().split("\r") if ":" in part]
    assert any(picture.startswith("talk.wav: measuring: 0 s of audio") for picture in pictures)
    assert any(picture.startswith("talk.wav: coding: 0 s of audio") for picture in pictures)


def test_a_function_that_knows_no_stages_hears_of_the_main_one() -> None:
    told: list[tuple[float, float | None]] = []
    work(lambda done, total: told.append((done, total)))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_events_are_a_json_object_per_line_and_the_end_of_each_stage_is_among_them(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    console = Console(progress="json")
    with console.progress("caf\udce9.wav") as progress:
        work(progress)
    console.say("a note")
    console.fail("a.wav: is\nbroken")
    *progressed, note, error = events(capsys.readouterr().err)
    of_file = {"event": "progress", "file": "caf\\xe9.wav"}
    # Between the first and the last of a stage there is one in a while.
    assert progressed == [
        {**of_file, "stage": stage, "done": done, "total": 4.0} for stage in ("measuring", "coding") for done in (1, 4)
    ]
    assert note == {"event": "note", "message": "a note"}
    assert error == {"event": "error", "message": "a.wav: is broken"}
    monkeypatch.setattr(module, "REDRAW_SECONDS", 0)
    with console.progress("-") as progress:
        work(progress)
    found = events(capsys.readouterr().err)
    assert [each["done"] for each in found] == [1, 2, 3, 4] * 2
    assert {each["file"] for each in found} == {"stdin"}


def test_a_command_tells_of_all_stages_and_of_the_end_of_each_input() -> None:
    Path("empty.wav").touch()
    result = sdc("extend", "talk.wav", "empty.wav", "--progress", "json", "--quiet", "--json", "--rescale")
    assert result.exit_code == 1
    *told, end, error, failed = events(result.stderr)
    done = {"event": "progress", "file": "talk.wav", "done": 0.2, "total": 0.2}
    assert told == [{**done, "stage": "measuring"}, {**done, "stage": "extending"}, {**done, "stage": "writing"}]
    assert end == {"event": "end", "file": "talk.wav", "ok": True}
    assert sorted([error["event"], failed["event"]]) == ["end", "error"]
    assert [each["input"] for each in events(result.stdout)] == ["talk.wav"]


def test_workers_tell_of_the_inputs_that_they_have(capfd: pytest.CaptureFixture[str]) -> None:
    soundfile.write("b.wav", np.random.default_rng(0).normal(0, 0.1, 3200), 16_000)
    result = sdc("extend", "talk.wav", "b.wav", "--jobs", "2", "--progress", "json")
    assert result.exit_code == 0
    # What this process says is in the result, what workers say goes to the real standard error.
    from_workers = events(capfd.readouterr().err)
    assert {(each["file"], each["stage"]) for each in from_workers} == {
        (file, stage) for file in ("talk.wav", "b.wav") for stage in ("measuring", "extending")
    }
    ended = [each["file"] for each in events(result.stderr) if each["event"] == "end"]
    assert sorted(ended) == ["b.wav", "talk.wav"]
