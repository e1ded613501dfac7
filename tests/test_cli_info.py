"""`sdc info`: what is in a stream, for people and for programs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bitstream_examples import (
    COVER,
    cover_example,
    example_header,
    long_example,
    random_codes,
    small_example,
    write_example,
)
from cli_examples import errors, sdc


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("a.sdc").write_bytes(small_example().data)
    return tmp_path


def test_one_file_is_shown_in_full() -> None:
    result = sdc("info", "a.sdc")
    assert result.exit_code == 0
    assert result.stderr == ""
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert lines[:9] == [
        "a.sdc",
        "duration 0.2 s",
        "audio 44100 Hz, 2 channel(s), coded as mono",
        "model toy (16000 Hz), weights 00010203",
        "size 305 B, 13.45 kbit/s",
        "payload 45 B, 1.98 kbit/s",
        "gain -1.5 dB before coding",
        "segments 2 of up to 0.14 s",
        "format 1.0, written by sdc test",
    ]
    assert lines[-2:] == ["speech 100 % 1.72 39 B 3 x 1024", "sfx 50 % 0.26 6 B 2 x 5"]


def test_several_files_are_shown_in_a_table_whose_rows_stay_whole() -> None:
    name = "a-name-that-is-much-longer-than-a-terminal-is-wide-" * 3 + ".sdc"
    Path(name).write_bytes(long_example().data)
    result = sdc("info", "a.sdc", name)
    assert result.exit_code == 0
    header, _, first, second = result.stdout.splitlines()
    assert header.split() == ["file", "duration", "size", "kbit/s", "domains", "model", "state"]
    assert " ".join(first.split()) == "a.sdc 0.2 s 305 B 13.45 speech, sfx toy whole"
    assert second.startswith(name)


def test_a_cover_is_shown_and_saved() -> None:
    Path("b.sdc").write_bytes(cover_example().data)
    result = sdc("info", "b.sdc", "--cover", "b.png")
    assert result.exit_code == 0
    assert "cover PNG, 2 x 1, 72 B" in [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert Path("b.png").read_bytes() == COVER
    found = json.loads(sdc("info", "b.sdc", "--json").stdout)["cover"]
    assert found == {"media_type": "image/png", "width": 2, "height": 1, "num_bytes": 72}
    assert errors(sdc("info", "b.sdc", "--cover", "b.png")) == ["b.png exists; pass --force to overwrite it"]
    assert sdc("info", "b.sdc", "--cover", "b.png", "--force").exit_code == 0


def test_a_cover_that_cannot_be_saved_is_told() -> None:
    Path("b.sdc").write_bytes(cover_example().data)
    kind = "b.jpg: would hold another kind of picture; name it b.png"
    assert errors(sdc("info", "b.sdc", "--cover", "b.jpg")) == [kind]
    none = "a.sdc: has no cover that could be saved; leave --cover out"
    assert errors(sdc("info", "a.sdc", "--cover", "a.png")) == [none]
    one = "saves the cover of one file to another; name one of each"
    for arguments in (["a.sdc", "b.sdc", "--cover", "b.png"], ["-", "--cover", "b.png"], ["b.sdc", "--cover", "-"]):
        assert errors(sdc("info", *arguments), 2) == [f"--cover {arguments[-1]}: {one}"]
    assert errors(sdc("info", "a.sdc", "--force"), 2) == ["--force is about the file of --cover; leave it out"]
    header = example_header()
    Path("c.sdc").write_bytes(write_example(header, [random_codes(header, 7)], [7], samples=999, cover=b"BM").data)
    assert "cover     neither JPEG nor PNG, 2 B" in sdc("info", "c.sdc").stdout
    assert errors(sdc("info", "c.sdc", "--cover", "c.png")) == ["c.sdc: its cover is neither JPEG nor PNG"]
    assert sorted(path.name for path in Path().iterdir()) == ["a.sdc", "b.sdc", "c.sdc"]


def test_channels_and_tags_are_shown_as_they_are() -> None:
    header = example_header(coded_channels=2, tags={"title": "[bold]:smile:"})
    Path("b.sdc").write_bytes(write_example(header, [random_codes(header, 7)], [7], samples=999).data)
    text = sdc("info", "b.sdc").stdout
    assert "coded as 2 channels" in text
    assert "[bold]:smile:" in text
    assert [line.split()[:2] for line in text.splitlines()[-4:]] == [
        ["1", "speech"],
        ["1", "sfx"],
        ["2", "speech"],
        ["2", "sfx"],
    ]


def test_json_is_one_object_per_file() -> None:
    first, second = map(json.loads, sdc("info", "a.sdc", "-", "--json", stdin=small_example().data).stdout.splitlines())
    assert (first["name"], second["name"]) == ("a.sdc", "-")
    assert first["streams"] == second["streams"]
    assert first["streams"][1] == {
        "channel": 0,
        "domain": "sfx",
        "stem": "sfx",
        "stage": 0,
        "num_codebooks": 2,
        "codebook_size": 5,
        "num_bytes": 6,
        "raw_bytes": 6,
        "bitrate": pytest.approx(0.2646),
        "active": 0.5,
        "silent": 0.5,
        "removed": 0.0,
        "damaged": 0.0,
    }


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_damaged_file_is_shown_as_far_as_it_goes_and_fails(options: list[str]) -> None:
    data = long_example().data
    Path("b.sdc").write_bytes(data[: len(data) // 2])
    result = sdc("info", "b.sdc", *options)
    assert "toy" in result.stdout
    lines = errors(result)
    assert all(line.startswith("b.sdc: ") for line in lines)
    assert "lost" in lines[-1]


def test_files_that_cannot_be_shown_fail_and_the_others_are_shown() -> None:
    Path("junk.sdc").write_bytes(b"hello world" * 10)
    Path("in").mkdir()
    result = sdc("info", "none.sdc", "junk.sdc", "a.sdc", "in")
    lines = errors(result)
    assert lines[:2] == ["none.sdc: no such file; check the name", "in: no .sdc files in this folder; name a file"]
    assert lines[2].startswith("junk.sdc: ")
    assert result.stdout.startswith("a.sdc\n")


def test_standard_input_can_be_named_once() -> None:
    assert errors(sdc("info", "-", "-", stdin=b""), exit_code=2) == [
        "standard input can be read only once; name - once"
    ]
