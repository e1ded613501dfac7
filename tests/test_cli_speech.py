"""`sdc enhance`, `sdc background` and `sdc voice`: files, folders and pipes, in and out, and how they fail."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import soundfile
from speech_examples import header_of, small_codec, sound, write

from sdcodec_cli.bitstream import Reader

from cli_examples import errors, sdc


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, a recording as audio and as codes, and another one."""
    folder = tmp_path_factory.mktemp("made")
    small_codec("decodec", folder)
    write(folder / "talk.wav", sound(0.5))
    write(folder / "rain.wav", sound(0.3, seed=1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SDC_RUNTIME", "torch")
        result = sdc("compress", folder / "talk.wav", "--model", folder / "decodec", "--effort", 0, "--device", "cpu")
        assert result.exit_code == 0, result.stderr
    return folder


@pytest.fixture(autouse=True)
def folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SDC_DEVICE", "cpu")
    monkeypatch.setenv("SDC_RUNTIME", "torch")
    for name in ("talk.wav", "talk.sdc", "rain.wav"):
        Path(name).write_bytes((made / name).read_bytes())
    return tmp_path


@pytest.fixture
def model(made: Path) -> str:
    return str(made / "decodec")


def names() -> set[str]:
    return {str(path) for path in Path().rglob("*") if path.is_file()} - {"talk.wav", "talk.sdc", "rain.wav"}


COMMANDS = {
    "enhanced": ["enhance"],
    "exchanged": ["background", "--with", "rain.wav", "--snr", "10"],
    "converted": ["voice", "--like", "rain.wav"],
}


@pytest.mark.parametrize("kind", COMMANDS)
def test_a_file_appears_beside_its_input_with_a_line_about_it(kind, model):
    result = sdc(*COMMANDS[kind], "talk.sdc", "--model", model)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"talk.{kind}.wav: 0.5 s, ")
    assert line.endswith("x real time on cpu")
    assert names() == {f"talk.{kind}.wav"}
    assert soundfile.info(f"talk.{kind}.wav").frames == soundfile.info("talk.wav").frames


@pytest.mark.parametrize("kind", COMMANDS)
def test_the_suffix_of_an_output_says_what_it_is_and_json_what_became_of_it(kind, model):
    result = sdc(*COMMANDS[kind], "talk.wav", "--model", model, "-o", "out.sdc", "--json", "-q")
    assert (result.exit_code, result.stderr) == (0, "")
    found = json.loads(result.stdout)
    assert (found["input"], found["output"], found["seconds"]) == ("talk.wav", "out.sdc", 0.5)
    assert (found["model"], found["clipped"], found["problems"]) == ("tiny-decodec", 0, [])
    assert (found["background_loudness"] is not None) == (kind == "exchanged")
    kept = ("speech", "background") if kind == "exchanged" else ("speech",)
    assert header_of(Path("out.sdc")).stems == kept


def test_a_folder_is_searched_for_both_and_another_filled(model):
    Path("in/deep").mkdir(parents=True)
    for name in ("in/a.sdc", "in/a.enhanced.wav"):
        Path(name).write_bytes(Path("talk.sdc").read_bytes())
    Path("in/deep/b.wav").write_bytes(Path("talk.wav").read_bytes())
    result = sdc("enhance", "in", "-o", "out/", "--sdc", "--model", model)
    assert result.exit_code == 0, result.stderr
    assert "in: left out what sdc made of others there, 1 in all" in result.stderr
    assert {name for name in names() if name.startswith("out/")} == {"out/a.enhanced.sdc", "out/deep/b.enhanced.sdc"}


def test_codes_and_audio_go_through_pipes(model):
    codes = sdc("enhance", "-", "--sdc", "-q", "--model", model, stdin=Path("talk.wav").read_bytes())
    assert codes.exit_code == 0, codes.stderr
    assert Reader(io.BytesIO(codes.stdout_bytes)).header.stems == ("speech",)
    audio = sdc("enhance", "-", "-q", "--model", model, stdin=codes.stdout_bytes)
    assert audio.exit_code == 0, audio.stderr
    wav, _ = soundfile.read(io.BytesIO(audio.stdout_bytes))
    assert len(wav) == soundfile.info("talk.wav").frames


def test_the_background_may_come_from_standard_input(model):
    options = ("--with", "-", "--snr", "10", "--model", model, "-q")
    assert sdc("background", "talk.sdc", *options, stdin=Path("rain.wav").read_bytes()).exit_code == 0
    assert names() == {"talk.exchanged.wav"}
    (line,) = errors(sdc("background", "-", *options, stdin=b""), exit_code=2)
    assert line == "standard input can be read only once; name - once"
    (line,) = errors(sdc("background", "talk.sdc", "rain.wav", *options, "-o", "out/", stdin=b""), exit_code=2)
    assert line == "standard input can be read only once, and there are several inputs; name a file instead"


def test_an_existing_output_stays_unless_forced(model):
    Path("talk.enhanced.wav").write_text("mine")
    line = "talk.enhanced.wav exists; pass --force to overwrite it"
    assert errors(sdc("enhance", "talk.sdc", "--model", model)) == [line]
    assert sdc("enhance", "talk.sdc", "--model", model, "-f").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["enhance", "no.wav"], "no.wav: no such file; check the name"),
        (["enhance", "talk.sdc", "-o", "a.txt"], "a.txt: cannot write .txt; use one of .wav, "),
        (["enhance", "talk.sdc", "-o", "a.wav", "--sdc"], "a.wav: would hold a .sdc stream; name it a.sdc"),
        (["enhance", "talk.sdc"], "talk.sdc: was made with tiny-decodec, which cannot be used "),
        (["background", "talk.sdc", "--with", "talk.wav", "-o", "talk.wav"], "talk.wav: is an input; choose another"),
        (["background", "talk.sdc", "--with", "no.wav", "--model", "{}"], "no.wav: no such file; check the name"),
        (["voice", "talk.wav", "--like", "rain.wav", "--model", "dac-16k"], "dac-16k: this recipe comes without"),
        (
            ["voice", "talk.wav", "--like", "rain.wav", "--model", "sdcodec-16k-mini"],
            "sdcodec-16k-mini: has no codebook",
        ),
    ],
)
def test_what_cannot_be_done_is_one_line(arguments, line, model):
    (found,) = errors(sdc(*(argument.format(model) for argument in arguments)))
    assert found.startswith(line)
    assert not names()


@pytest.mark.parametrize(
    "arguments",
    [
        "enhance talk.sdc --background 41",
        "background talk.sdc --with a --snr x",
        "background talk.sdc",
        "voice talk.sdc",
    ],
)
def test_a_wrong_command_line_exits_with_2(arguments):
    assert sdc(*arguments.split()).exit_code == 2


def test_damage_is_told_and_the_exit_code_is_1(model):
    data = bytearray(Path("talk.sdc").read_bytes())
    data[data.index(b"\xf5SDs") + 5] ^= 0xFF
    Path("talk.sdc").write_bytes(data)
    result = sdc("enhance", "talk.sdc", "--model", model, "-q")
    (line,) = errors(result)
    assert line.startswith("talk.sdc: all streams are lost in frames 0-24")
    assert names() == {"talk.enhanced.wav"}


@pytest.mark.parametrize(
    "kind", ["enhanced", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("exchanged", "converted"))]
)
def test_format_bitrate_and_rescaling_are_those_of_audio(kind, model):
    result = sdc(
        *COMMANDS[kind], "talk.sdc", "--model", model, "--format", "opus", "--audio-bitrate", "32", "--rescale"
    )
    assert result.exit_code == 0, result.stderr
    assert soundfile.info(f"talk.{kind}.opus").subtype == "OPUS"


def test_a_format_of_audio_and_sdc_do_not_go_together(model):
    message = "--format, --audio-bitrate and --rescale are of audio, and a .sdc is written; leave them out"
    for more in (["--sdc", "--format", "mp3"], ["-o", "a.sdc", "--rescale"]):
        assert errors(sdc("enhance", "talk.sdc", "--model", model, *more), 2) == [message]
    assert not names()
