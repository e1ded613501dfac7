"""`sdc separate`: what it asks of the engine, what it says, and how it fails."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sdcodec_cli.audio import Soundtrack
from sdcodec_cli.engine.separate import MAX_VIEWS

from cli_examples import Engine, errors, install, sdc


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SDC_DEVICE", raising=False)
    monkeypatch.delenv("SDC_RUNTIME", raising=False)
    Path("film.wav").touch()
    return tmp_path


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    engine = Engine()
    install(engine, monkeypatch)
    return engine


def test_every_stem_of_the_model_is_written_by_default(engine: Engine) -> None:
    result = sdc("separate", "film.wav", "-o", "stems/", *["--device", "cpu", "--runtime", "onnx", "--threads", "1"])
    assert result.exit_code == 0
    names = [f"stems/film.{stem}.wav" for stem in ("speech", "music", "sfx")]
    assert sorted(map(str, Path("stems").iterdir())) == sorted(names)
    assert result.stderr == f"{', '.join(names)}: 61.2 s, 78x real time on cpu\n"
    assert engine.loaded == [(None, "cpu")]
    assert engine.computed == [("onnx", 1)]
    assert engine.efforts == [0]
    assert engine.prepared == [{}]


def test_one_stem_can_go_to_a_named_file_or_to_standard_output(engine: Engine) -> None:
    assert sdc("separate", "film.wav", "--stem", "speech", "-o", "voice.flac").exit_code == 0
    assert engine.calls[-1]["targets"] == {"speech": "voice.flac"}
    result = sdc("separate", "film.wav", "--stem", "speech", "-o", "-", "-q")
    assert result.stdout_bytes.startswith(b"RIFF")


def test_stems_are_written_beside_the_input_without_an_output(engine: Engine) -> None:
    assert sdc("separate", "film.wav", "--stem", "music", "--stem", "sfx", "--stem", "music").exit_code == 0
    assert engine.calls[-1]["targets"] == {"music": "film.music.wav", "sfx": "film.sfx.wav"}
    assert errors(sdc("separate", "film.wav", "--stem", "sfx")) == ["film.sfx.wav exists; pass --force to overwrite it"]
    assert sdc("separate", "film.wav", "--stem", "sfx", "-f").exit_code == 0


def test_the_number_of_views_is_handed_on_and_is_the_engines_by_default(engine: Engine) -> None:
    for given, expected in (([], None), (["--views", "1"], 1), (["--views", str(MAX_VIEWS)], MAX_VIEWS)):
        assert sdc("separate", "film.wav", "-f", *given).exit_code == 0
        assert engine.calls[-1]["views"] == expected
    for wrong in ("0", str(MAX_VIEWS + 1), "many"):
        assert "--views" in sdc("separate", "film.wav", "-f", "--views", wrong).stderr
    assert len(engine.calls) == 3


def test_json_is_one_object_per_input(engine: Engine) -> None:
    (line,) = sdc("separate", "film.wav", "--json", "-q").stdout.splitlines()
    found = json.loads(line)
    assert (found["outputs"]["sfx"], found["views"]) == ("film.sfx.wav", 4)


def test_clipping_is_told(engine: Engine) -> None:
    engine.result = {"clipped": {"speech": 3}}
    result = sdc("separate", "film.wav", "--stem", "speech")
    assert result.exit_code == 0
    assert result.stderr.splitlines() == [
        "film.speech.wav: 61.2 s, 78x real time on cpu",
        "film.speech.wav: 3 samples beyond full scale were limited to it; pass --rescale to make it softer",
    ]


def test_a_single_stem_may_go_to_a_device(engine: Engine) -> None:
    assert sdc("separate", "film.wav", "--stem", "speech", "-o", "/dev/null").exit_code == 0
    assert engine.calls[-1]["targets"] == {"speech": "/dev/null"}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["film.wav", "--stem", "voice"], "--stem voice: the model has no such domain; choose from speech, music, sfx"),
        (
            ["film.wav", "--stem", "music,sfx"],
            "--stem music,sfx: takes one domain at a time; give --stem music --stem sfx",
        ),
        (["film.wav", "--without", "a,b"], "--without a,b: takes one domain at a time; give --without a --without b"),
        (
            ["film.wav", "-o", "a.avi"],
            "-o a.avi: one file cannot hold several stems; name a folder, such as -o stems/, or",
        ),
        (["film.wav", "--stem", "mix"], "--stem mix: the model has no such domain"),
        (["film.wav", "-o", "-"], "-o -: standard output cannot hold several outputs"),
        (["-"], "standard output cannot hold several stems; name a folder, such as -o out/"),
    ],
)
def test_a_wrong_command_line_exits_with_2(engine: Engine, arguments: list[str], expected: str) -> None:
    (line,) = errors(sdc("separate", *arguments), exit_code=2)
    assert line.startswith(expected)
    assert engine.loaded == []


def test_notes_and_the_track_of_a_film(engine: Engine) -> None:
    engine.result = {"notes": ("odd",)}
    result = sdc("separate", "film.wav", "--track", "2")
    assert result.stderr.splitlines()[0] == "film.wav: odd"
    assert engine.calls[-1]["track"] == 2
    assert sdc("separate", "film.wav", "--track", "0", "-f").exit_code == 2


def test_a_cover_is_taken_along_on_request(engine: Engine) -> None:
    for arguments in ([], ["--cover"]):
        assert sdc("separate", "film.wav", "--format", "m4a", "-f", *arguments).exit_code == 0
    assert [call["cover"] for call in engine.calls] == [False, True]
    assert engine.calls[-1]["targets"]["sfx"] == "film.sfx.m4a"


def test_a_domain_can_be_left_out_and_domains_added_up(engine: Engine) -> None:
    for arguments, expected in (
        (["--without", "speech"], ["without-speech"]),
        (["--without", "speech", "--without", "sfx"], ["without-speech+sfx"]),
        (["--without", "speech", "--stem", "speech"], ["speech", "without-speech"]),
        (["--stem", "music", "--stem", "sfx", "--sum"], ["music+sfx"]),
    ):
        assert sdc("separate", "film.wav", "-f", *arguments).exit_code == 0
        assert engine.calls[-1]["targets"] == {name: f"film.{name}.wav" for name in expected}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--without", "voice"], "--without voice: the model has no such domain; choose from speech, music, sfx"),
        (["--without", "speech", "--without", "sfx", "--without", "music"], "--without: leaves nothing; leave one"),
        (["--sum"], "--sum: of what? name two domains or more with --stem"),
        (["--sum", "--stem", "all", "--stem", "sfx"], "--sum: of what? name two domains or more with --stem"),
        (["--title", "Music"], "--title is of films, and this writes sound alone; ask for a film with --film"),
        (["--film", "--cover"], "--cover is of sound alone, and this writes a film, which keeps its own; leave it out"),
        (["--film", "--language", "German"], "--language must have three small letters (ISO 639-2), such as eng"),
    ],
)
def test_what_contradicts_itself_is_refused(engine: Engine, arguments: list[str], expected: str) -> None:
    (line,) = errors(sdc("separate", "film.wav", *arguments), exit_code=2)
    assert line.startswith(expected)
    assert engine.loaded == []


def test_a_film_is_written_where_its_name_or_an_option_says_so(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_write", lambda *_: None)
    Path("film.mp4").touch()
    named = ["--without", "speech", "-o", "out.mkv", "--audio-codec", "opus", "--audio-bitrate", "128"]
    assert sdc("separate", "film.mp4", *named).exit_code == 0
    assert engine.calls[-1]["targets"] == {"without-speech": "out.mkv"}
    assert engine.calls[-1]["soundtrack"] == Soundtrack(codec="opus", bitrate=128)
    assert sdc("separate", "film.mp4", "--film").exit_code == 0
    assert engine.calls[-1]["targets"] == {name: f"film.{name}.mp4" for name in ("speech", "music", "sfx")}
    assert sdc("separate", "film.mp4", "--without", "sfx", "--add-track", "--language", "deu").exit_code == 0
    assert engine.calls[-1]["targets"] == {"without-sfx": "film.without-sfx.mp4"}
    assert engine.calls[-1]["soundtrack"] == Soundtrack(add=True, language="deu", title="without sfx")


def test_a_suffix_that_is_not_written_names_those_of_sound_and_of_films(engine: Engine) -> None:
    assert errors(sdc("separate", "film.wav", "--stem", "sfx", "-o", "a.avi")) == [
        "a.avi: cannot write .avi; use one of .wav, .flac, .ogg, .opus, .mp3, .m4a, or, for a film, .m4v, .mkv, .mov, "
        ".mp4, .webm"
    ]
    assert engine.loaded == []


def test_what_cannot_become_a_film_is_refused_before_a_model_is_loaded(engine: Engine) -> None:
    assert errors(sdc("separate", "film.wav", "--film", "--without", "sfx")) == [
        "film.without-sfx.wav: a film cannot be .wav; use one of .mp4, .m4v, .mov, .mkv, .webm with -o, or leave out "
        "--film and --add-track to write sound alone"
    ]
    (line,) = errors(sdc("separate", "-", "--without", "sfx", "-o", "a.mp4"))
    assert line == "stdin: is a pipe, and a film is read more than once; save it first"
    (line,) = errors(sdc("separate", "film.wav", "--film", "--stem", "sfx", "-o", "-"), exit_code=2)
    assert line.startswith("a film cannot go to standard output")
    assert engine.loaded == []


def test_a_format_and_rescaling_are_of_sound_alone(engine: Engine) -> None:
    for given, instead in (
        (["--format", "flac"], "choose --audio-codec"),
        (["--rescale"], "write a .wav instead of a film"),
    ):
        (line,) = errors(sdc("separate", "film.wav", "--film", *given), exit_code=2)
        assert line == f"{given[0]} is of sound alone, and this writes a film; leave it out, or {instead}"
    assert engine.calls == []
