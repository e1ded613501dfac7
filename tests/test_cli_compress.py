"""`sdc compress`: what it asks of the engine, what it says, and how it fails."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sdcodec_cli.errors import ModelError

from cli_examples import Engine, errors, install, sdc


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SDC_DEVICE", raising=False)
    monkeypatch.delenv("SDC_RUNTIME", raising=False)
    soundfile.write("talk.wav", np.zeros(1600), 16_000)
    return tmp_path


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    engine = Engine()
    install(engine, monkeypatch)
    return engine


def test_a_file_becomes_a_stream_beside_it_with_one_line_about_it(engine: Engine) -> None:
    result = sdc("compress", "talk.wav")
    assert result.exit_code == 0
    assert result.stdout == ""
    assert result.stderr == "talk.sdc: 61.2 s, 46 kB, 6.0 kbit/s, 38x real time on cpu\n"
    assert Path("talk.sdc").read_bytes().startswith(b"\x89SDC")
    (call,) = engine.calls
    assert call.pop("codec").name == "toy"
    assert call == {
        "source": "talk.wav",
        "target": "talk.sdc",
        "bitrate": None,
        "num_codebooks": None,
        "domains": "auto",
        "channels": "mono",
        "envelope": True,
        "fine": None,
        "treble": True,
        "track": 1,
        "cover": False,
        "live": False,
        "level": None,
        "overwrite": False,
    }
    assert engine.loaded == [(None, "auto")]
    assert engine.computed == [("auto", None)]
    assert engine.efforts == [None]
    assert engine.prepared == [{"decode": True}]  # to know what the decoded mix lacks


def test_every_option_reaches_the_engine(engine: Engine) -> None:
    arguments = "compress talk.wav -o x.sdc --model sdcodec-16k-mini --bitrate 3 --domains speech,music --channels keep"
    more = "--no-envelope --no-treble --effort 0 --runtime onnx --device cpu --threads 3 --force"
    assert sdc(*arguments.split(), *more.split()).exit_code == 0
    (call,) = engine.calls
    assert (call["target"], call["bitrate"], call["domains"]) == ("x.sdc", 3.0, ["speech", "music"])
    assert (call["channels"], call["overwrite"]) == ("keep", True)
    assert (call["envelope"], call["treble"]) == (False, False)
    assert engine.loaded == [("sdcodec-16k-mini", "cpu")]
    assert engine.computed == [("onnx", 3)]
    assert engine.efforts == [0]
    assert engine.prepared == [{"decode": False}]


def test_stereo_is_handed_on_and_needs_the_decoder_whatever_else_is_stored(engine: Engine) -> None:
    assert sdc("compress", "talk.wav", "--channels", "stereo", "--no-envelope", "--no-treble").exit_code == 0
    assert engine.calls[-1]["channels"] == "stereo"
    assert engine.prepared == [{"decode": True}]


def test_the_device_and_the_runtime_can_come_from_the_environment(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SDC_DEVICE", "cpu")
    monkeypatch.setenv("SDC_RUNTIME", "torch")
    assert sdc("compress", "talk.wav").exit_code == 0
    assert engine.loaded == [(None, "cpu")]
    assert engine.computed == [("torch", None)]


def test_a_number_of_codebooks_is_handed_on(engine: Engine) -> None:
    assert sdc("compress", "talk.wav", "--codebooks", "3").exit_code == 0
    assert (engine.calls[-1]["bitrate"], engine.calls[-1]["num_codebooks"]) == (None, 3)


def test_a_fine_envelope_is_handed_on(engine: Engine) -> None:
    assert sdc("compress", "talk.wav", "--fine", "--domains", "sfx,music,speech").exit_code == 0
    assert (engine.calls[-1]["envelope"], engine.calls[-1]["fine"]) == (True, True)
    assert sdc("compress", "talk.wav", "--coarse", "-f").exit_code == 0
    assert (engine.calls[-1]["envelope"], engine.calls[-1]["fine"]) == (True, False)


def test_options_may_stand_anywhere(engine: Engine) -> None:
    assert sdc("compress", "-q", "talk.wav", "-f", "-o", "x.sdc").exit_code == 0
    assert sdc("compress", "-fq", "-ox.sdc", "talk.wav").exit_code == 0


def test_quiet_prints_nothing_but_errors(engine: Engine) -> None:
    engine.result = {"channels_note": "stereo, mixed down to mono", "notes": ("odd",)}
    result = sdc("compress", "talk.wav", "-q")
    assert (result.stdout, result.stderr) == ("", "")
    assert errors(sdc("compress", "talk.wav", "-q")) == ["talk.sdc exists; pass --force to overwrite it"]


def test_json_is_one_object_per_input_with_unrounded_numbers(engine: Engine) -> None:
    soundfile.write("b.wav", np.zeros(1600), 16_000)
    result = sdc("compress", "talk.wav", "b.wav", "--json", "-q")
    first, second = map(json.loads, result.stdout.splitlines())
    assert (first["input"], first["output"], second["output"]) == ("talk.wav", "talk.sdc", "b.sdc")
    assert first["seconds"] == 61.23
    assert first["channels_note"] is None


def test_numbers_that_json_cannot_express_are_null(engine: Engine) -> None:
    engine.result = {"times_real_time": float("inf")}
    assert json.loads(sdc("compress", "talk.wav", "--json").stdout)["times_real_time"] is None


def test_notes_come_before_the_summary(engine: Engine) -> None:
    engine.result = {"channels_note": "2 channels, mixed down to mono", "notes": ("resampled from 44100 Hz",)}
    assert sdc("compress", "talk.wav").stderr.splitlines()[:2] == [
        "talk.wav: 2 channels, mixed down to mono",
        "talk.wav: resampled from 44100 Hz",
    ]


def test_an_existing_output_is_refused_before_a_model_is_loaded(engine: Engine) -> None:
    Path("talk.sdc").write_bytes(b"precious")
    assert errors(sdc("compress", "talk.wav")) == ["talk.sdc exists; pass --force to overwrite it"]
    assert engine.loaded == []
    assert Path("talk.sdc").read_bytes() == b"precious"
    assert sdc("compress", "talk.wav", "--force").exit_code == 0


def test_after_a_failure_the_other_inputs_are_done(engine: Engine) -> None:
    Path("bad.wav").write_bytes(b"RIFF????" * 10)
    soundfile.write("z.wav", np.zeros(1600), 16_000)
    result = sdc("compress", "none.wav", "bad.wav", "talk.wav", "z.wav", "-q")
    first, second = errors(result)
    assert first == "none.wav: no such file; check the name"
    assert second.startswith("bad.wav: ")
    assert sorted(path.name for path in Path().glob("*.sdc")) == ["talk.sdc", "z.sdc"]


def test_an_unknown_model_is_one_line(engine: Engine) -> None:
    (line,) = errors(sdc("compress", "talk.wav", "--model", "none"))
    assert line.startswith("none: no such model; the zoo has ")
    assert "sdcodec-16k-mini" in line


def test_an_error_of_the_engine_is_one_line_and_leaves_nothing_behind(engine: Engine) -> None:
    engine.error = ModelError("toy: broken\nin two lines")
    assert errors(sdc("compress", "talk.wav")) == ["toy: broken in two lines"]
    assert [path.name for path in Path().iterdir()] == ["talk.wav"]


def test_an_interruption_exits_with_130_and_leaves_nothing_behind(engine: Engine) -> None:
    engine.error = KeyboardInterrupt()
    assert sdc("compress", "talk.wav").exit_code == 130
    assert [path.name for path in Path().iterdir()] == ["talk.wav"]


def test_an_unexpected_exception_is_not_hidden(engine: Engine) -> None:
    engine.error = ZeroDivisionError("bug")
    with pytest.raises(ZeroDivisionError):
        sdc("compress", "talk.wav")
    assert [path.name for path in Path().iterdir()] == ["talk.wav"]


def test_standard_streams_have_names_for_people_and_a_dash_for_programs(engine: Engine) -> None:
    engine.result = {"notes": ("odd",)}
    talk = Path("talk.wav").read_bytes()
    first, second = sdc("compress", "-", stdin=talk).stderr.splitlines()
    assert (first, second[:7]) == ("stdin: odd", "stdout:")
    assert json.loads(sdc("compress", "-", "-o", "x.sdc", "--json", stdin=talk).stdout)["input"] == "-"


def test_a_folder_is_not_made_for_a_file_that_fails(engine: Engine) -> None:
    Path("bad.wav").write_bytes(b"RIFF????" * 10)
    assert len(errors(sdc("compress", "bad.wav", "-o", "new/deep/"))) == 1
    assert not Path("new").exists()


def test_standard_input_becomes_standard_output(engine: Engine) -> None:
    result = sdc("compress", "-", stdin=Path("talk.wav").read_bytes())
    assert result.exit_code == 0, result.stderr
    assert result.stdout_bytes.startswith(b"\x89SDC")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["talk.wav", "b.wav", "-o", "x.sdc"], "-o x.sdc: one file cannot hold several outputs; name a folder"),
        (["talk.wav", "-o", ""], "-o is empty; name a file, a folder, or - for standard output"),
        ([""], "the name of an input is empty; name a file, a folder, or - for standard input"),
        (["talk.wav", "-o", "-", "--json"], "--json and the output both need standard output; pass -o FILE"),
        (["talk.wav", "--domains", "voice"], "--domains voice: the model has no voice; choose auto, all, or from"),
        (["talk.wav", "--codebooks", "13"], "--codebooks 13: toy has 1 to 12 codebooks, not 13"),
        (
            ["talk.wav", "--codebooks", "3", "--bitrate", "6"],
            "--bitrate and --codebooks say the same; pass one of them",
        ),
        (["talk.wav", "--fine", "--no-envelope"], "--fine is about the envelope; leave it out, or --no-envelope"),
        (["talk.wav", "--fine", "--domains", "sfx"], "--fine is about the envelope; leave it out, or --domains"),
        (["talk.wav", "--coarse", "--domains", "sfx"], "--coarse is about the envelope; leave it out, or --domains"),
    ],
)
def test_a_wrong_command_line_exits_with_2(engine: Engine, arguments: list[str], expected: str) -> None:
    (line,) = errors(sdc("compress", *arguments), exit_code=2)
    assert line.startswith(expected)
    assert not Path("talk.sdc").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["talk.wav", "--bitrate", "0"],
        ["talk.wav", "--bitrate", "nan"],
        ["talk.wav", "--bitrate", "fast"],
        ["talk.wav", "--codebooks", "0"],
        ["talk.wav", "--domains", "auto,speech"],
        ["talk.wav", "--domains", "speech,speech"],
        ["talk.wav", "--domains", ""],
        ["talk.wav", "--channels", "both"],
        ["talk.wav", "--effort", "-1"],
        ["talk.wav", "--effort", "101"],
        ["talk.wav", "--effort", "most"],
        ["talk.wav", "--device", "tpu"],
        ["talk.wav", "--runtime", "jax"],
        ["talk.wav", "--threads", "0"],
        ["talk.wav", "--unknown"],
    ],
)
def test_values_out_of_range_exit_with_2_and_a_line_that_names_the_option(engine: Engine, arguments: list[str]) -> None:
    (line,) = errors(sdc("compress", *arguments), exit_code=2)
    assert line.startswith("compress: ")
    assert all(argument in line for argument in arguments if argument.startswith("--"))
    assert engine.loaded == []


def test_a_file_name_that_is_no_text_still_makes_valid_json(engine: Engine) -> None:
    name = os.fsdecode(b"caf\xe9.wav")
    Path("talk.wav").rename(name)
    (line,) = sdc("compress", name, "--json", "-q").stdout.splitlines()
    found = json.loads(line)
    assert (found["input"], found["output"]) == ("caf\\xe9.wav", "caf\\xe9.sdc")


def test_the_track_of_a_film_is_handed_on(engine: Engine) -> None:
    assert sdc("compress", "talk.wav", "--track", "3", "-f").exit_code == 0
    assert engine.calls[-1]["track"] == 3
    assert sdc("compress", "talk.wav", "--track", "0", "-f").exit_code == 2


def test_a_cover_is_stored_on_request(engine: Engine) -> None:
    assert sdc("compress", "talk.wav", "--cover").exit_code == 0
    assert engine.calls[-1]["cover"] is True


def test_a_live_source_has_a_level_that_is_assumed(engine: Engine) -> None:
    assert sdc("compress", "talk.wav", "--live", "-o", "a.sdc").exit_code == 0
    assert sdc("compress", "talk.wav", "--live", "--level", "-20.5", "-o", "b.sdc").exit_code == 0
    assert [(call["live"], call["level"]) for call in engine.calls] == [(True, None), (True, -20.5)]


def test_a_live_source_that_ended_too_early_leaves_a_file_and_fails(engine: Engine) -> None:
    engine.result = {"problems": ("stdin: cannot be read further: Input/output error",)}
    result = sdc("compress", "talk.wav", "--live", "-q")
    assert errors(result) == ["stdin: cannot be read further: Input/output error"]
    assert Path("talk.sdc").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--level", "-20"], "--level is about live sources; leave it out, or pass --live"),
        (["--live", "--track", "2"], "--track 2: WAV, which --live takes, has one track; leave one of them out"),
        (
            ["--live", "--bitrate", "6"],
            "--bitrate reads the input in advance, which --live cannot; pass --codebooks instead",
        ),
        (["--live", "--cover"], "--cover: WAV, which --live takes, has none; leave one of them out"),
        (["--live", "other.wav"], "--live takes one input, not 2; name one, or leave --live out"),
    ],
)
def test_what_contradicts_live_is_a_wrong_call(engine: Engine, arguments: list[str], message: str) -> None:
    soundfile.write("other.wav", np.zeros(1600), 16_000)
    assert errors(sdc("compress", "talk.wav", *arguments), exit_code=2) == [message]
    assert engine.loaded == []


@pytest.mark.parametrize("level", ["5", "-71", "loud", "nan"])
def test_a_level_that_cannot_be_is_a_wrong_call(engine: Engine, level: str) -> None:
    result = sdc("compress", "talk.wav", "--live", f"--level={level}")
    assert result.exit_code == 2
    assert f"{level!r} is not a level from -70 to 0 LUFS" in result.stderr
