"""`sdc decode`: what it asks of the engine, what it says, and how it fails."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sdcodec_cli.audio import FormatName, WriteOptions, bands
from sdcodec_cli.bitstream import codings
from sdcodec_cli.cli import options
from sdcodec_cli.engine import separate

from bitstream_examples import small_example
from cli_examples import Engine, errors, install, sdc


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SDC_DEVICE", raising=False)
    monkeypatch.delenv("SDC_RUNTIME", raising=False)
    Path("talk.sdc").write_bytes(small_example().data)
    return tmp_path


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    engine = Engine()
    install(engine, monkeypatch)
    return engine


def files() -> list[str]:
    return sorted(str(path) for path in Path().rglob("*") if path.is_file())


def test_a_stream_becomes_a_wav_beside_it_with_one_line_about_it(engine: Engine) -> None:
    result = sdc("decode", "talk.sdc")
    assert result.exit_code == 0
    assert result.stdout == ""
    assert result.stderr == "talk.decoded.wav: 61.2 s, 78x real time on cpu\n"
    assert engine.calls == [
        {
            "source": "talk.sdc",
            "targets": {"mix": "talk.decoded.wav"},
            "gains": {},
            "start": 0.0,
            "duration": None,
            "share": 0.6,
            "below": None,
            "texture": True,
            "film": None,
            "track": 1,
            "soundtrack": None,
            "write": WriteOptions(),
            "force_model": False,
            "overwrite": False,
        }
    ]
    assert engine.loaded == [("toy", "auto")]  # the model that the file names
    assert engine.made_with == [small_example().header.weights_sha256]


def test_every_option_reaches_the_engine(engine: Engine) -> None:
    arguments = "decode talk.sdc --stem speech -o voice.flac --gain speech=-6.5 --start 1.5 --duration 2 --envelope 1"
    more = "--below 8000 --no-texture --model other --force-model --runtime torch --device cpu --threads 2 --force"
    assert sdc(*arguments.split(), *more.split(), "--format", "flac-24", "--rescale").exit_code == 0
    (call,) = engine.calls
    assert call == {
        "source": "talk.sdc",
        "targets": {"speech": "voice.flac"},
        "gains": {"speech": -6.5},
        "start": 1.5,
        "duration": 2.0,
        "share": 1.0,
        "below": 8000.0,
        "texture": False,
        "film": None,
        "track": 1,
        "soundtrack": None,
        "write": WriteOptions(format="flac-24", rescale=True),
        "force_model": True,
        "overwrite": True,
    }
    assert engine.loaded == [("other", "cpu")]
    assert engine.computed == [("torch", 2)]


def test_gains_of_several_stems_make_the_mix(engine: Engine) -> None:
    assert sdc("decode", "talk.sdc", "--gain", "speech=-6", "--gain", "mix=3.5").exit_code == 0
    assert engine.calls[0]["gains"] == {"speech": -6.0, "mix": 3.5}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--stem speech --gain mix=-20", "--gain mix: nothing that is decoded has it; decode it with --stem mix"),
        ("--stem speech --gain sfx=-20", "--gain sfx: nothing that is decoded has it; decode it with --stem sfx"),
        ("--gain speech=-20 --gain speech=3", "--gain: a stem is named twice; give each one gain"),
    ],
)
def test_gains_that_would_do_nothing_are_refused(engine: Engine, arguments: str, message: str) -> None:
    (line,) = errors(sdc("decode", "talk.sdc", *arguments.split()), exit_code=2)
    assert line.startswith(message)
    assert engine.calls == []


def test_stems_can_be_asked_for_one_by_one_or_all_at_once(engine: Engine) -> None:
    assert sdc("decode", "talk.sdc", "--stem", "mix", "--stem", "speech").exit_code == 0
    assert files() == ["talk.decoded.wav", "talk.sdc", "talk.speech.wav"]
    assert sdc("decode", "talk.sdc", "--stem", "all", "-o", "out/").exit_code == 0
    assert files()[:2] == ["out/talk.sfx.wav", "out/talk.speech.wav"]


def test_a_model_is_loaded_once_for_many_files(engine: Engine) -> None:
    Path("b.sdc").write_bytes(small_example().data)
    assert sdc("decode", "b.sdc", "talk.sdc").exit_code == 0
    assert engine.loaded == [("toy", "auto")]


def test_what_is_left_of_a_damaged_file_is_kept_and_the_exit_code_is_1(engine: Engine) -> None:
    engine.result = {"problems": ("0.14 s to 0.20 s of speech are damaged",)}
    result = sdc("decode", "talk.sdc", "-q")
    assert errors(result) == ["talk.sdc: 0.14 s to 0.20 s of speech are damaged"]
    assert files() == ["talk.decoded.wav", "talk.sdc"]


def test_clipping_is_reported_with_a_way_out(engine: Engine) -> None:
    engine.result = {"clipped": {"mix": 120}}
    result = sdc("decode", "talk.sdc")
    assert result.exit_code == 0
    assert result.stderr.splitlines()[1] == (
        "talk.decoded.wav: 120 samples beyond full scale were limited to it; pass --rescale to make it softer, "
        "or --gain mix=-3"
    )


def test_json_is_one_object_per_input(engine: Engine) -> None:
    engine.result = {"clipped": {"mix": 0}}
    (line,) = sdc("decode", "talk.sdc", "--json", "-q").stdout.splitlines()
    assert json.loads(line) == {
        "input": "talk.sdc",
        "outputs": {"mix": "talk.decoded.wav"},
        "seconds": 61.23,
        "times_real_time": 77.7,
        "model": "toy",
        "device": "cpu",
        "clipped": {"mix": 0},
        "peak_db": {},
        "rescaled_db": 0.0,
        "envelope": 0.6,
        "band": 8000.0,
        "older_weights": None,
        "decoder_weights": "ab" * 32,
        "notes": [],
        "problems": [],
        "concealed": {},
    }


def test_standard_input_becomes_a_wav_on_standard_output(engine: Engine) -> None:
    result = sdc("decode", "-", "--gain", "speech=-3", stdin=small_example().data)
    assert result.exit_code == 0, result.stderr
    assert result.stdout_bytes.startswith(b"RIFF")


def test_files_that_are_no_streams_fail_before_a_model_is_loaded(engine: Engine) -> None:
    Path("a.sdc").write_bytes(b"hello world, this is no stream")
    Path("empty.sdc").touch()
    lines = errors(sdc("decode", "a.sdc", "empty.sdc", "none.sdc"))
    assert [line.split(":")[0] for line in lines] == ["none.sdc", "a.sdc", "empty.sdc"]
    assert engine.loaded == []


def test_a_stem_that_a_file_does_not_have_is_refused_with_a_choice(engine: Engine) -> None:
    (line,) = errors(sdc("decode", "-", "--stem", "music", stdin=small_example().data))
    assert line.startswith("stdin: has no music; choose from speech, sfx, mix")
    for option, value in (("--stem", "music"), ("--gain", "music=-3")):
        (line,) = errors(sdc("decode", "talk.sdc", option, value))
        assert line.startswith("talk.sdc: has no music; choose from speech, sfx, mix")
    assert engine.loaded == []


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["talk.sdc", "--stem", "all", "-o", "x.wav"], "-o x.wav: one file cannot hold several outputs"),
        (["talk.sdc", "-o", "-", "--json"], "--json and the output both need standard output"),
        (["-", "--stem", "all", "-o", "x/"], "what a pipe holds is not known in advance"),
    ],
)
def test_a_wrong_command_line_exits_with_2(engine: Engine, arguments: list[str], expected: str) -> None:
    (line,) = errors(sdc("decode", *arguments), exit_code=2)
    assert line.startswith(expected)


@pytest.mark.parametrize(
    "option",
    [
        "--gain=speech",
        "--gain==3",
        "--gain=speech=loud",
        "--gain=mix=41",
        "--gain=mix=nan",
        "--start=-1",
        "--duration=0",
        "--envelope=1.5",
        "--envelope=-0.1",
        "--envelope=nan",
        "--envelope=abc",
        *("--below=0", "--below=-8000", "--below=nan", "--below=low"),
    ],
)
def test_values_out_of_range_exit_with_2_and_a_line_that_names_the_option(engine: Engine, option: str) -> None:
    (line,) = errors(sdc("decode", "talk.sdc", option), exit_code=2)
    assert line.startswith(f"decode: {option.partition('=')[0]}: ")
    assert files() == ["talk.sdc"]


@pytest.mark.parametrize("start", ["-1", "nan", "inf", "soon"])
def test_a_start_that_is_no_time_exits_with_2(engine: Engine, start: str) -> None:
    result = sdc("decode", "a.sdc", "--start", start)
    assert result.exit_code == 2
    assert f"{start!r} is not a number of seconds from 0" in result.stderr


def test_numbers_that_the_command_line_repeats_are_those_of_the_engine():
    assert options.DEFAULT_SHARE == bands.SHARE
    assert options.FormatName == FormatName
    assert options.DEFAULT_VIEWS == separate.DEFAULT_VIEWS
    lowest, count = codings.ENVELOPE_GAINS.lowest, codings.ENVELOPE_GAINS.count
    assert bands.STEP_DB * lowest == bands.LOWEST_DB
    assert bands.STEP_DB * (lowest + count - 1) == bands.HIGHEST_DB


def test_what_was_concealed_is_said_behind_the_damage(engine: Engine) -> None:
    engine.result = {"problems": ("all streams are lost in 2.00-4.00 s",), "concealed": {"speech": 2.0, "sfx": 1.5}}
    result = sdc("decode", "talk.sdc")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-2:] == [
        "sdc: talk.sdc: all streams are lost in 2.00-4.00 s",
        "talk.sdc: concealed 2.00 s of speech and 1.50 s of sfx, made up from what is around them",
    ]


def test_a_domain_can_be_left_out_and_domains_added_up(engine: Engine) -> None:
    for arguments, expected in (
        (["--without", "speech"], "without-speech"),
        (["--stem", "speech", "--stem", "sfx", "--sum", "--gain", "sfx=-3"], "speech+sfx"),
    ):
        assert sdc("decode", "talk.sdc", *arguments).exit_code == 0
        assert engine.calls[-1]["targets"] == {expected: f"talk.{expected}.wav"}
    (line,) = errors(sdc("decode", "talk.sdc", "--without", "music"))
    assert line.startswith("talk.sdc: has no music; choose from speech, sfx")
    (line,) = errors(sdc("decode", "talk.sdc", "--without", "speech", "--without", "sfx"))
    assert line == "talk.sdc: has nothing without speech, sfx; leave one of them"
    (line,) = errors(sdc("decode", "talk.sdc", "--without", "speech", "--gain", "speech=3"), exit_code=2)
    assert line.startswith("--gain speech: nothing that is decoded has it")


def test_sound_goes_into_the_film_that_is_named(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_write", lambda *_: None)
    Path("film.mkv").touch()
    assert sdc("decode", "talk.sdc", "--without", "speech", "--film", "film.mkv", "--track", "2").exit_code == 0
    call = engine.calls[-1]
    assert (call["targets"], call["film"], call["track"]) == (
        {"without-speech": "talk.without-speech.mkv"},
        "film.mkv",
        2,
    )
    for arguments, code, expected in (
        (["--film", "film.mkv", "-o", "film.mkv", "-f"], 1, "film.mkv: is the film itself; choose another output"),
        (["--film", "film.mkv", "--start", "3"], 2, "--film: a film has sound from its beginning to its end"),
        (["--film", "film.mkv", "--stem", "all"], 0, ""),
        (["--film", "none.mkv"], 1, "none.mkv: no such file; check the name of the film"),
        (["--film", ""], 2, "--film is empty; name a film"),
        (
            ["--track", "2"],
            2,
            "--track 2: is of a film, and there is none; name it with --film, or leave the option out",
        ),
        (["-o", "film.mp4"], 2, "-o film.mp4: where is its picture? name the film that it comes from with --film"),
        (["--audio-codec", "aac"], 2, "--audio-codec is of films, and this writes sound alone"),
    ):
        result = sdc("decode", "talk.sdc", *arguments)
        assert result.exit_code == code, result.stderr
        assert expected in result.stderr
