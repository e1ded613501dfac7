"""The commands with the real engine and a small untrained model: files in, files out."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch
from numpy.typing import NDArray

from sdcodec_cli.families import build
from sdcodec_cli.families.sdcodec import SDCodecRecipe
from sdcodec_cli.recipe import CodecModelFields, CodecTrainingFields, NetworkFields, QuantizerFields
from sdcodec_cli.zoo import write_model

from cli_examples import errors, sdc

RATE = 44_100
SECONDS = 3.3


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    network = NetworkFields(kind="spectral", window_length=640, width=16, depth=1)
    recipe = SDCodecRecipe(
        name="tiny",
        model=CodecModelFields(latent_dim=16),
        encoder=network,
        decoder=network,
        quantizer=QuantizerFields(num_codebooks=4, codebook_size=16, codebook_dim=4),
        training=CodecTrainingFields(quantizer_dropout=0.5),
    )
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models") / "tiny"
    write_model(folder, recipe, build(recipe).state_dict(), card="# tiny")
    return folder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SDC_DEVICE", "cpu")
    monkeypatch.setenv("SDC_RUNTIME", "torch")  # the model has no graphs
    return tmp_path


@pytest.fixture
def talk(folder: Path) -> NDArray[np.float64]:
    narrow = 0.1 * np.random.default_rng(0).standard_normal((round(SECONDS * 8_000), 2))
    wav: NDArray[np.float64] = soxr.resample(narrow, 8_000, RATE)  # nothing that the model's 16 kHz would leave out
    soundfile.write("talk.wav", wav, RATE)
    return wav


def test_a_file_goes_all_the_way_and_keeps_rate_and_length(talk: NDArray[np.float64], model: Path) -> None:
    result = sdc("compress", "talk.wav", "--model", model)
    assert result.exit_code == 0, result.stderr
    assert result.stderr.splitlines()[-1].startswith("talk.sdc: 3.3 s, ")
    assert result.stderr.splitlines()[-1].endswith("x real time on cpu")
    report = json.loads(sdc("info", "talk.sdc", "--json").stdout)
    assert (report["model"], report["original_rate"], report["original_samples"]) == ("tiny", RATE, len(talk))
    result = sdc("decode", "talk.sdc", "--model", model, "--stem", "mix", "--stem", "all")
    assert result.exit_code == 0, result.stderr
    names = ["talk.decoded.wav", "talk.music.wav", "talk.sfx.wav", "talk.speech.wav", "talk.wav"]
    assert sorted(path.name for path in Path().glob("*.wav")) == names
    for name in names[:-1]:
        info = soundfile.info(name)
        assert (info.samplerate, info.channels, info.frames) == (RATE, 1, len(talk))


def test_an_excerpt_with_gain_equals_that_part_of_the_whole(talk: NDArray[np.float64], model: Path) -> None:
    assert sdc("compress", "talk.wav", "--model", model, "-q").exit_code == 0
    assert sdc("decode", "talk.sdc", "--model", model, "-o", "whole.wav", "--gain", "mix=-20").exit_code == 0
    arguments = ["decode", "talk.sdc", "--model", str(model), "-o", "part.wav", "--gain", "mix=-20"]
    assert sdc(*arguments, "--start", "1", "--duration", "0.5").exit_code == 0
    whole, part = soundfile.read("whole.wav")[0], soundfile.read("part.wav")[0]
    assert len(part) == RATE // 2
    np.testing.assert_allclose(part, whole[RATE : RATE + RATE // 2], atol=2e-4)


def test_fewer_codebooks_named_domains_and_kept_channels_are_stored(talk: NDArray[np.float64], model: Path) -> None:
    options = ["--codebooks", "2", "--domains", "speech,sfx", "--channels", "keep", "--json", "-q"]
    result = sdc("compress", "talk.wav", *options)
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["activity"].keys() == {"speech", "sfx"}
    report = json.loads(sdc("info", "talk.sdc", "--json").stdout)
    assert [(s["channel"], s["domain"], s["num_codebooks"]) for s in report["streams"]] == [
        (0, "speech", 2),
        (0, "sfx", 2),
        (1, "speech", 2),
        (1, "sfx", 2),
    ]
    (line,) = errors(sdc("decode", "talk.sdc", "--stem", "music"))
    assert line == "talk.sdc: has no music; choose from speech, sfx, mix, all"


def test_codebooks_that_the_model_does_not_have_are_a_wrong_command_line(
    talk: NDArray[np.float64], model: Path
) -> None:
    (line,) = errors(sdc("compress", "talk.wav", "--model", str(model), "--codebooks", "5"), exit_code=2)
    assert line == "--codebooks 5: tiny has 1 to 4 codebooks, not 5"


def test_pipes_carry_the_same_bytes_as_files(talk: NDArray[np.float64], model: Path) -> None:
    assert sdc("compress", "talk.wav", "--model", model, "-q").exit_code == 0
    piped = sdc("compress", "-", "--model", model, "-q", stdin=Path("talk.wav").read_bytes())
    assert piped.stdout_bytes == Path("talk.sdc").read_bytes()
    assert sdc("decode", "talk.sdc", "--model", model, "-q").exit_code == 0
    decoded = sdc("decode", "-", "--model", model, "-q", stdin=piped.stdout_bytes)
    assert decoded.stdout_bytes == Path("talk.decoded.wav").read_bytes()


def test_a_damaged_file_is_decoded_as_far_as_possible_and_fails(talk: NDArray[np.float64], model: Path) -> None:
    assert sdc("compress", "talk.wav", "--model", model, "-q").exit_code == 0
    data = bytearray(Path("talk.sdc").read_bytes())
    data[len(data) // 2] ^= 0xFF
    Path("talk.sdc").write_bytes(data)
    result = sdc("decode", "talk.sdc", "--model", model, "-q")
    assert all(line.startswith("talk.sdc: ") for line in errors(result))
    assert soundfile.info("talk.decoded.wav").frames == len(talk)


def test_a_file_that_names_an_unknown_model_says_how_to_name_one(talk: NDArray[np.float64], model: Path) -> None:
    assert sdc("compress", "talk.wav", "--model", model, "-q").exit_code == 0
    (line,) = errors(sdc("decode", "talk.sdc"))
    assert line.startswith("talk.sdc: was made with tiny, which cannot be used (tiny: no such model; the zoo has")
    assert line.endswith("; name the folder of that model with --model DIR")


def test_stems_are_separated_with_the_rate_and_channels_of_the_input(talk: NDArray[np.float64], model: Path) -> None:
    result = sdc("separate", "talk.wav", "--model", model, "-o", "stems")
    assert result.exit_code == 0, result.stderr
    stems = [soundfile.read(f"stems/talk.{stem}.wav") for stem in ("speech", "music", "sfx")]
    assert all(rate == RATE and wav.shape == talk.shape for wav, rate in stems)
    added = np.sum([wav for wav, _ in stems], axis=0)
    inner = slice(RATE // 100, -RATE // 100)  # a resampler knows nothing beyond the ends
    np.testing.assert_allclose(added[inner], talk[inner], atol=3e-3)


def test_an_impossible_format_leaves_nothing_behind(talk: NDArray[np.float64], model: Path) -> None:
    assert sdc("compress", "talk.wav", "--model", model, "-q").exit_code == 0
    (line,) = errors(sdc("decode", "talk.sdc", "--model", model, "-o", "talk.mp3", "--audio-bitrate", "100"))
    assert line.startswith("talk.mp3: MP3 of 1 channel(s) at 44100 Hz takes 32, 40, ")
    assert sorted(path.name for path in Path().iterdir()) == ["talk.sdc", "talk.wav"]


def test_stems_are_rescaled_alike(talk: NDArray[np.float64], model: Path) -> None:
    options = ["--model", str(model), "--json", "-q"]
    sdc("compress", "talk.wav", *options, "-f")
    sdc("decode", "talk.sdc", *options, "--stem", "mix", "--stem", "speech", "--format", "wav-float")
    loud = ["--gain", "mix=40", "--gain", "speech=6", "--rescale", "-f"]
    rescaled = sdc("decode", "talk.sdc", *options, "--stem", "mix", "--stem", "speech", *loud, "-o", "loud/")
    found = json.loads(rescaled.stdout)
    assert found["clipped"] == {"mix": 0, "speech": 0}
    assert found["rescaled_db"] == pytest.approx(-max(found["peak_db"].values()), abs=1e-4)
    assert found["rescaled_db"] < 0
    before, after = (soundfile.read(f"{folder}talk.speech.wav")[0] for folder in ("", "loud/"))
    np.testing.assert_allclose(after, before * 10 ** ((6 + found["rescaled_db"]) / 20), atol=2**-15)


def test_a_device_that_is_not_there_is_refused(talk: NDArray[np.float64], model: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    (line,) = errors(sdc("compress", "talk.wav", "--model", model, "--device", "cuda"))
    assert line.startswith("cuda: not available on this machine")


def test_an_excerpt_has_at_least_one_sample(talk: NDArray[np.float64], model: Path) -> None:
    assert sdc("compress", "talk.wav", "--model", str(model)).exit_code == 0
    result = sdc("decode", "talk.sdc", "--duration", "1e-9", "-o", "blink.wav", "--model", str(model))
    assert result.exit_code == 0, result.stderr
    assert soundfile.info("blink.wav").frames == 1


def test_a_bitrate_is_kept_to_and_said_what_it_comes_to(talk: NDArray[np.float64], model: Path) -> None:
    options = ("--model", model, "--domains", "all", "--no-treble")
    result = sdc("compress", "talk.wav", *options, "--bitrate", "1.9", "--no-envelope")
    assert "talk.wav: 1.8 kbit/s, with 3 of 4 codebooks\n" in result.stderr
    result = sdc("compress", "talk.wav", *options, "--bitrate", "100", "--force")
    assert " kbit/s, with 4 of 4 codebooks and a coarse envelope\n" in result.stderr


@pytest.mark.skipif(os.name != "posix", reason="names are text there")
def test_file_names_need_not_be_text(talk: NDArray[np.float64], model: Path) -> None:
    odd = Path(os.fsdecode(b"\xff\xfe.wav"))
    try:
        Path("talk.wav").rename(odd)
    except OSError:
        pytest.skip("this file system wants text")
    assert sdc("compress", ".", "--model", model).exit_code == 0
    assert sdc("decode", ".", "--model", model).exit_code == 0
    assert Path(os.fsdecode(b"\xff\xfe.decoded.wav")).stat().st_size == odd.stat().st_size // 2 + 22


def test_a_folder_can_be_separated_twice(talk: NDArray[np.float64], model: Path) -> None:
    for options in ((), ("--force",)):
        result = sdc("separate", ".", "--model", model, *options)
        assert result.exit_code == 0, result.stderr
    assert ".: left out what sdc made of others there, 3 in all, such as talk.music.wav; " in result.stderr
    assert sorted(path.name for path in Path().iterdir()) == [f"talk{x}.wav" for x in (".music", ".sfx", ".speech", "")]
