"""The models that ship with the package, on the sample that ships with the repository, and the README's commands."""

from __future__ import annotations

import functools
import math
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from audio_examples import si_sdr
from speech_examples import codes_of

from sdcodec_cli import Codec, compress, decode, load_codec
from sdcodec_cli.engine.voice import convert_voice, default_model

ROOT = Path(__file__).resolve().parents[1]
SCENE = ROOT / "docs" / "scene.flac"
SHIPPED = sorted(path.parent.name for path in (ROOT / "models").glob("*/weights.safetensors"))


@functools.cache
def shipped(name: str) -> Codec:
    return load_codec(name, device="cpu")


def test_the_sample_survives_at_eighteen_kilobits(embedded, coded, scene):
    _, decoded = coded(embedded.effort)
    assert si_sdr(decoded, scene) > 4
    assert np.square(decoded).mean() / np.square(scene).mean() == pytest.approx(1, abs=0.4)


@pytest.mark.parametrize("name", SHIPPED)
def test_the_card_is_that_of_these_weights(name):
    card = (ROOT / "models" / name / "CARD.md").read_text()
    size = (ROOT / "models" / name / "weights.safetensors").stat().st_size / 2**20
    digest = shipped(name).weights_sha256.hex()[:16]
    assert re.search(rf"\| weights \| {size:.1f} MiB in (8|16) bits; SHA-256 of the tensors `{digest}…` \|", card)


def test_more_codebooks_come_closer(embedded, coded, scene):
    scores = [si_sdr(coded(embedded.effort, count)[1], scene) for count in (1, 6, None)]
    assert scores == sorted(scores)
    assert scores[-1] > scores[0] + 2


def test_a_truncated_file_gives_what_is_there(embedded, scene, tmp_path):
    """Range-coded segments are read several at a time, so that its end is met before its first one is decoded."""
    soundfile.write(tmp_path / "a.wav", scene[: 7 * 16_000], 16_000)
    compress(tmp_path / "a.wav", tmp_path / "a.sdc", codec=embedded.at_effort(0))
    data = (tmp_path / "a.sdc").read_bytes()
    for kept, least in ((0.5, 2), (0.99, 6)):
        (tmp_path / "cut.sdc").write_bytes(data[: int(kept * len(data))])
        result = decode(tmp_path / "cut.sdc", {"mix": tmp_path / "cut.wav"}, codec=embedded, overwrite=True)
        assert result.problems
        assert least <= result.seconds <= 7
        assert soundfile.info(tmp_path / "cut.wav").frames == round(result.seconds * 16_000)


def test_the_voice_is_where_it_is_heard(embedded, coded):
    """It speaks from 3.5 to 11.5 s of 14."""
    codes, _ = coded(embedded.effort)
    speech = np.square(embedded.decode(codes, stem="speech")).reshape(14, -1).mean(-1)
    inside, outside = speech[4:11].mean(), np.concatenate([speech[:3], speech[12:]]).mean()
    assert 10 * math.log10(inside / (outside + 1e-12)) > 6


def test_a_voice_is_converted_after_the_install(tmp_path):
    """To its own: codes stay what they were."""
    name = default_model()
    assert name in SHIPPED
    codec = shipped(name).at_effort(0)
    compress(SCENE, tmp_path / "scene.sdc", codec=codec)
    convert_voice(tmp_path / "scene.sdc", tmp_path / "scene.sdc", tmp_path / "voice.sdc", codec=codec)
    before, after = (codes_of(tmp_path / name)[0, "speech"] for name in ("scene.sdc", "voice.sdc"))
    assert (before >= 0).mean() > 0.5
    assert np.array_equal(after, before)


def readme_commands() -> list[tuple[str, str]]:
    """Command lines, and what the page says they print."""
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.findall(r"^\$ (.*)\n((?:(?!\$ |```).*\n)*)", page, re.MULTILINE)


def without_speed(text: str) -> list[str]:
    """Lines, as they are on any machine."""
    return [re.sub(r", [\d.]+x real time.*", "", line).rstrip() for line in text.strip().splitlines()]


def assert_alike(found: list[str], shown: list[str]) -> None:
    """The same lines; sizes may differ by 2 %, since gains depend on how a processor rounds."""
    size = r"[\d.]+(?= k?B| kbit/s)"
    assert [re.sub(size, "#", line) for line in found] == [re.sub(size, "#", line) for line in shown]
    for one, other in zip(found, shown, strict=True):
        assert list(map(float, re.findall(size, one))) == pytest.approx(
            list(map(float, re.findall(size, other))), rel=0.02
        )


def test_the_readme_shows_commands():
    assert sum(line.startswith("sdc ") for line, _ in readme_commands()) >= 4


def test_the_readmes_commands_run_one_after_the_other_and_say_what_it_shows(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "scene.flac").write_bytes(SCENE.read_bytes())
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    for line, shown in readme_commands():
        assert shlex.split(line)[0] == "sdc"
        done = subprocess.run(
            line,
            shell=True,
            cwd=tmp_path,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert_alike(without_speed(done.stdout + done.stderr), without_speed(shown))


@pytest.mark.parametrize(
    "path", sorted((ROOT / "tests" / "data" / "weights").glob("*.sdc")), ids=lambda path: path.stem
)
def test_files_made_with_weights_that_once_shipped_decode_to_what_they_decoded_to(path, tmp_path):
    """The channels of the file beside it: mix, then the stems in the model's order, in 24 bits."""
    codec = shipped(path.stem.split("_")[0])
    expected, rate = soundfile.read(path.with_suffix(".flac"), dtype="float32")
    stems = ("mix", *codec.domains)
    decode(path, {stem: tmp_path / f"{stem}.wav" for stem in stems}, codec=codec, texture=False)
    for stem, wanted in zip(stems, expected.T, strict=True):
        found, found_rate = soundfile.read(tmp_path / f"{stem}.wav", dtype="float32")
        assert (found_rate, len(found)) == (rate, len(wanted))
        error = np.square(found - wanted).mean() / np.square(wanted).mean()
        assert 10 * math.log10(error + 1e-12) < -80, stem  # written in 16 bits
