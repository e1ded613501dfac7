"""`sdc extend`: what it writes where, what it says, and how it fails; the engine is the real one and needs no model."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sdcodec_cli.audio import resampled

from cli_examples import errors, sdc
from film_examples import film


def noise(rate: int, seconds: float = 0.2) -> np.ndarray:
    """White up to 8 kHz, at any rate."""
    wav = (0.1 * np.random.default_rng(0).standard_normal(round(seconds * 16_000))).astype(np.float32)
    return resampled(wav, 16_000, rate)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that ends at 8 kHz, and one that goes on above."""
    monkeypatch.chdir(tmp_path)
    soundfile.write("talk.wav", noise(16_000), 16_000)
    soundfile.write("song.wav", np.random.default_rng(0).normal(0, 0.1, 9600), 48_000)
    return tmp_path


def names() -> set[str]:
    return {str(path) for path in Path().rglob("*") if path.is_file()}


def test_a_file_is_extended_beside_its_input() -> None:
    result = sdc("extend", "talk.wav")
    assert result.exit_code == 0
    (line,) = result.stderr.splitlines()
    assert line.startswith("talk.extended.wav: 0.2 s at 32 kHz, ")
    assert line.endswith("x real time on cpu")
    assert soundfile.info("talk.extended.wav").samplerate == 32_000
    assert soundfile.info("talk.extended.wav").frames == 6400


def test_a_file_that_goes_on_above_is_left_alone_and_force_replaces_that() -> None:
    before = names()
    result = sdc("extend", "song.wav", "-o", "new/song.flac")
    assert result.exit_code == 1  # as everywhere: only a name that ends in a slash is a folder to be made
    result = sdc("extend", "song.wav", "-o", "new/")
    assert result.exit_code == 0
    line = "song.wav: has something above 8 kHz already and is left alone; --force replaces that\n"
    assert (result.stdout, result.stderr) == ("", line)
    assert names() == before
    assert not Path("new").exists()
    assert sdc("extend", "song.wav", "-o", "new/", "--force").exit_code == 0
    assert soundfile.info("new/song.extended.wav").samplerate == 48_000


def test_an_existing_output_is_overwritten_with_force_alone() -> None:
    Path("talk.extended.wav").write_text("mine")
    assert errors(sdc("extend", "talk.wav")) == ["talk.extended.wav exists; pass --force to overwrite it"]
    assert Path("talk.extended.wav").read_text() == "mine"
    assert sdc("extend", "talk.wav", "-f").exit_code == 0
    assert soundfile.info("talk.extended.wav").frames == 6400


def test_a_folder_is_searched_without_what_was_extended_before() -> None:
    Path("in/deep").mkdir(parents=True)
    for name in ("in/a.wav", "in/a.decoded.wav", "in/deep/b.wav"):
        Path(name).write_bytes(Path("talk.wav").read_bytes())
    assert sdc("extend", "in", "-o", "out/", "-q").exit_code == 0
    made = {"out/a.extended.wav", "out/a.decoded.extended.wav", "out/deep/b.extended.wav"}
    assert made < names()
    assert sdc("extend", "in", "-q").exit_code == 0
    result = sdc("extend", "in", "-o", "again/")
    assert "left out what sdc made of others there, 3 in all" in result.stderr
    assert len([name for name in names() if name.startswith("again/")]) == 3


def test_audio_goes_through_a_pipe() -> None:
    result = sdc("extend", "-", "-o", "-", "-q", stdin=Path("talk.wav").read_bytes())
    assert result.exit_code == 0
    wav, rate = soundfile.read(io.BytesIO(result.stdout_bytes))
    assert (len(wav), rate) == (6400, 32_000)


@pytest.mark.parametrize("suffix", [".flac", ".ogg", ".mp3"])
def test_the_suffix_of_an_output_is_its_format(suffix: str) -> None:
    assert sdc("extend", "talk.wav", "-o", f"bright{suffix}").exit_code == 0
    assert soundfile.info(f"bright{suffix}").samplerate == 32_000


def test_a_track_of_a_film_is_extended() -> None:
    dull = noise(48_000, 0.5)[None]
    film(Path("film.mkv"), [np.zeros_like(dull), dull], codec="flac", rate=48_000)
    assert sdc("extend", "film.mkv", "--track", "2", "-q").exit_code == 0
    wav, rate = soundfile.read("film.extended.wav")
    assert rate == 48_000
    assert np.square(wav).mean() > 1e-3


def test_json_is_one_object_per_input() -> None:
    lines = sdc("extend", "talk.wav", "song.wav", "--json", "-q").stdout.splitlines()
    talk, song = map(json.loads, lines)
    assert (talk["output"], talk["input_rate"], talk["output_rate"]) == ("talk.extended.wav", 16_000, 32_000)
    assert (talk["above"], talk["replaced"], talk["clipped"], talk["notes"]) == (0, False, 0, [])
    assert (song["output"], song["above"]) == (None, 1)


def test_samples_beyond_full_scale_are_told() -> None:
    soundfile.write("talk.wav", np.sign(noise(16_000)) * 0.99, 16_000)
    assert "samples beyond full scale were limited to it" in sdc("extend", "talk.wav").stderr


def test_one_input_that_fails_does_not_stop_the_others() -> None:
    soundfile.write("phone.wav", noise(16_000)[:1600], 8000)
    result = sdc("extend", "phone.wav", "talk.wav", "-o", "out/")
    assert result.exit_code == 1
    assert result.stderr.startswith("sdc: phone.wav: its band ends at 4000 Hz, and 8000 are needed; take a file with")
    assert "out/talk.extended.wav" in names()
    assert errors(sdc("extend", "nothing.wav")) == ["nothing.wav: no such file; check the name"]


def test_a_wrong_command_line_exits_with_2() -> None:
    (line,) = errors(sdc("extend", "talk.wav", "song.wav", "-o", "one.wav"), exit_code=2)
    assert line.startswith("-o one.wav: one file cannot hold several outputs")
    assert sdc("extend", "talk.wav", "--track", "0").exit_code == 2


def test_a_format_its_bitrate_and_rescaling_are_chosen() -> None:
    result = sdc("extend", "talk.wav", "--format", "opus", "--audio-bitrate", "64")
    assert result.stderr.splitlines()[0] == ("talk.wav: written at 48000 Hz, because Opus does not take 32000")
    assert soundfile.info("talk.extended.opus").subtype == "OPUS"
    assert sdc("extend", "talk.wav", "-o", "-", "--format", "flac-24", "-q").stdout_bytes[:4] == b"fLaC"
    soundfile.write("loud.wav", np.sign(noise(16_000)) * 0.99, 16_000)
    (said,) = sdc("extend", "loud.wav", "--format", "wav-float", "--rescale").stderr.splitlines()[1:]
    assert said.startswith("loud.wav: it was made ")
    assert said.endswith(" dB softer, to stay within full scale")
    assert 0.999 < np.abs(soundfile.read("loud.extended.wav")[0]).max() <= 1
    (said,) = sdc("extend", "loud.wav", "--format", "wav-float", "-f").stderr.splitlines()[1:]
    assert said.endswith(" dB beyond full scale, which floats keep")
    assert np.abs(soundfile.read("loud.extended.wav")[0]).max() > 1


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        ("--audio-bitrate 64", 2, "a bitrate of 64 kbit/s: WAV has none to choose; ask for ogg, opus, mp3 or m4a with"),
        ("--format flac --audio-bitrate 64", 2, "--audio-bitrate 64: 16 bit FLAC has no bitrate to choose; ogg, opus"),
        ("--format mp3 -o a.flac", 1, "a.flac: would hold MP3; name it a.mp3"),
        (
            "-o a.flac --audio-bitrate 64",
            1,
            "a.flac: 16 bit FLAC has no bitrate to choose; ogg, opus, mp3 or m4a have one",
        ),
        ("--format mp3 --audio-bitrate 100", 1, "talk.extended.mp3: MP3 of 1 channel(s) at 32000 Hz takes 32, 40, 48"),
    ],
)
def test_formats_and_bitrates_that_cannot_be_are_refused(arguments: str, exit_code: int, message: str) -> None:
    before = names()
    (line,) = errors(sdc("extend", "talk.wav", *arguments.split()), exit_code)
    assert line.startswith(message)
    assert names() == before
