"""`sdc data`: what it says, and with which exit code it ends."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from cli_examples import errors, sdc

RATE = 16_000


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for split in ("train", "valid"):
        for domain in ("speech", "music", "sfx"):
            folder = tmp_path / "corpus" / split / domain
            folder.mkdir(parents=True)
            wav = rng.standard_normal(RATE * 2) * (0.1 if split == "train" else 0.05)
            soundfile.write(folder / "a.wav", wav, RATE)
    return Path("corpus")


def test_scan_says_how_much_there_is_and_writes_a_manifest_into_the_folder(root: Path) -> None:
    result = sdc("data", "scan", root)
    assert result.exit_code == 0
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        "corpus: reading 6 files",
        "corpus/manifest.parquet: speech 2 files, 0.00 h; music 2 files, 0.00 h; sfx 2 files, 0.00 h",
    ]
    assert (root / "manifest.parquet").is_file()
    assert sdc("data", "scan", root, "-q").stderr == ""


def test_scan_names_the_list_of_what_cannot_be_read_and_still_succeeds(root: Path) -> None:
    (root / "train" / "sfx" / "b.wav").write_bytes(b"nonsense")
    soundfile.write(root / "train" / "sfx" / "c.wav", np.zeros(RATE), RATE)
    result = sdc("data", "scan", root, "-o", "list.parquet", "--jobs", "1")
    assert result.exit_code == 0
    assert result.stderr.splitlines()[2:] == [
        "1 files cannot be read; list.unreadable.txt says why",
        "1 files are shorter than 0.1 s or silent, and will not be used",
    ]
    assert "b.wav: not audio" in Path("list.unreadable.txt").read_text()


def test_scan_prints_json(root: Path) -> None:
    result = sdc("data", "scan", root, "--headers-only", "--json", "-q")
    assert result.stderr == ""
    assert json.loads(result.stdout) == {
        "manifest": "corpus/manifest.parquet",
        "files": {"speech": 2, "music": 2, "sfx": 2},
        "seconds": {"speech": 4.0, "music": 4.0, "sfx": 4.0},
        "unreadable": 0,
        "unreadable_list": None,
        "reused": 0,
        "left_out": 0,
    }
    assert json.loads(sdc("data", "scan", root, "--headers-only", "--json").stdout)["reused"] == 6


def test_scan_of_nothing_readable_is_an_error(root: Path) -> None:
    for path in root.rglob("*.wav"):
        path.write_bytes(b"nonsense")
    (line,) = errors(sdc("data", "scan", "-q", root))
    assert line == "corpus: none of its 6 audio files can be read; corpus/manifest.unreadable.txt says why"
    shutil.rmtree(root / "train" / "music")
    shutil.rmtree(root / "valid" / "music")
    (line,) = errors(sdc("data", "scan", "-q", root))
    assert line.startswith("corpus: no audio files of music; understood are folders named like the domains")
    (line,) = errors(sdc("data", "scan", "missing"))
    assert line.startswith("missing")


def test_mix_makes_the_same_set_from_a_folder_a_manifest_and_with_any_number_of_jobs(root: Path) -> None:
    options = ["--count", "2", "--seconds", "2", "--seed", "3"]
    assert sdc("data", "mix", "--data-root", root, "-o", "one", "--jobs", "1", *options).exit_code == 0
    assert not (root / "manifest.parquet").exists()
    sdc("data", "scan", root)
    result = sdc("data", "mix", "--data-root", root / "manifest.parquet", "-o", "two", "--jobs", "2", *options)
    assert result.stderr == "two: 2 mixtures of 2 s\n"
    files = sorted(path.relative_to("one") for path in Path("one").rglob("*.wav"))
    assert len(files) == 8
    for file in files:
        assert ("one" / file).read_bytes() == ("two" / file).read_bytes()


def test_mix_uses_the_split_that_it_makes_or_else_the_folder_that_it_is_given(root: Path) -> None:
    for path in (root / "valid").rglob("*.wav"):
        time = np.arange(RATE * 2) / RATE
        soundfile.write(path, 0.3 * np.sin(2 * np.pi * 1000 * time), RATE)

    def is_a_tone(folder: str) -> bool:
        spectrum = np.abs(np.fft.rfft(soundfile.read(Path(folder) / "0000" / "music.wav")[0]))
        return bool(spectrum.max() > 0.1 * spectrum.sum())

    options = ["--count", "1", "--seconds", "1"]
    for split, folder, tone in (("val", "cv", True), ("train", "tr", False)):
        assert sdc("data", "mix", "--data-root", root, "-o", "set", "--split", split, *options).exit_code == 0
        assert is_a_tone(f"set/{folder}") == tone
    (line,) = errors(
        sdc("data", "mix", "-q", "--data-root", root, "-o", "set", "--split", "test", *options), exit_code=2
    )
    assert line.endswith(
        f"has no test split, only train, valid; choose another --split, or give the folder of one, such as {root}/valid"
    )
    result = sdc("data", "mix", "--data-root", root / "valid", "-o", "other", *options)
    assert result.stderr.splitlines() == [
        f"{root / 'valid'}: reading the headers of 3 files",
        f"{root / 'valid'}: 3 files, 0.00 h",
        f"{root / 'valid'}: has no splits; the val set is mixed from all of it",
        "other: 1 mixture of 1 s",
    ]
    assert is_a_tone("other/cv")


def test_mix_at_a_higher_rate_leaves_out_files_that_have_nothing_at_the_top(root: Path) -> None:
    options = ["--split", "train", "--count", "1", "--seconds", "1", "--sample-rate", "32000"]
    (line,) = errors(sdc("data", "mix", "-q", "--data-root", root, "-o", "set", *options))
    assert line.endswith("add some, and run sdc data scan again, or choose a lower rate")
    assert "has no clips of speech in split train that have 32000 Hz or more, last 0.1 s" in line
    time = np.arange(44_100) / 44_100
    for domain in ("speech", "music", "sfx"):
        soundfile.write(root / "train" / domain / "high.wav", 0.1 * np.sin(2 * np.pi * 12_000 * time), 44_100)
    result = sdc("data", "mix", "--data-root", root, "-o", "set", *options)
    said = "1 files of speech, 1 files of music, 1 files of sfx in split train have fewer than 32000 Hz (left out)"
    assert said in result.stderr
    for stem in ("mix", "speech", "music", "sfx"):
        wav, rate = soundfile.read(Path("set") / "tr" / "0000" / f"{stem}.wav")
        assert (rate, len(wav)) == (32_000, 32_000)
        assert np.abs(np.fft.rfft(wav)).argmax() == 12_000


def test_mix_reports_a_broken_file_and_leaves_it_out(root: Path) -> None:
    (root / "valid" / "speech" / "broken.wav").write_bytes(b"nonsense")
    result = sdc("data", "mix", "--data-root", root, "-o", "set", "--count", "1", "--seconds", "1")
    assert result.exit_code == 0
    (line,) = (line for line in result.stderr.splitlines() if "broken.wav" in line)
    assert line.endswith("(left out)")
    assert (Path("set") / "cv" / "0000" / "mix.wav").is_file()


def test_mix_refuses_a_split_that_exists_and_a_folder_without_audio(root: Path) -> None:
    Path("set/cv").mkdir(parents=True)
    (line,) = errors(sdc("data", "mix", "-q", "--data-root", root, "-o", "set"))
    assert line == "set/cv exists; choose another -o, or remove it"
    Path("empty").mkdir()
    (line,) = errors(sdc("data", "mix", "-q", "--data-root", "empty", "-o", "other"))
    assert line.startswith("empty: no audio files of speech, music, sfx")
    assert not Path("other").exists()
