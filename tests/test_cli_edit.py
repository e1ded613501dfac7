"""`sdc strip`, `sdc cut` and `sdc join`: what they say, and how they fail."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sdcodec_cli.bitstream import Reader

from bitstream_examples import example_header, long_example, parts_example, random_codes, small_example, write_example
from cli_examples import errors, sdc


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("a.sdc").write_bytes(small_example().data)
    return tmp_path


def files() -> list[str]:
    return sorted(str(path) for path in Path().rglob("*") if path.is_file())


def test_a_stripped_file_is_summed_up_in_lines_about_what_is_gone() -> None:
    result = sdc("strip", "a.sdc", "--domains", "speech", "--codebooks", "2", "-o", "b.sdc")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr.splitlines() == ["b.sdc: 0.2 s, 257 B of 305 B", "b.sdc: removed: sfx"]
    text = sdc("info", "b.sdc").stdout
    assert [line.split() for line in text.splitlines()[-2:]] == [
        ["speech", "100", "%", "1.15", "26", "B", "2", "x", "1024"],
        ["sfx", "removed", "0.00", "0", "B", "2", "x", "5"],
    ]


def test_domains_may_be_given_in_a_list_or_one_by_one() -> None:
    for number, arguments in enumerate(("--domains speech,sfx", "--domains speech --domains sfx")):
        assert sdc("strip", "a.sdc", *arguments.split(), "-o", f"{number}.sdc").exit_code == 0
        assert Path(f"{number}.sdc").read_bytes() == Path("a.sdc").read_bytes()


def test_an_excerpt_is_shown_as_one() -> None:
    assert sdc("cut", "a.sdc", "--start", "0.1", "--duration", "0.05", "-o", "b.sdc").stderr == (
        "b.sdc: 0.1 s, 319 B of 305 B\n"
    )
    text = " ".join(sdc("info", "b.sdc").stdout.split())
    assert "duration 0.1 s" in text
    assert "parts an excerpt, 0.2 s of context around it" in text
    assert "format 1.4" in text


def test_joined_files_are_shown_with_their_lengths_and_gains() -> None:
    header = example_header(gain_db=4.0, tags={"title": "B"})
    Path("b.sdc").write_bytes(write_example(header, [random_codes(header, 7)], [7], samples=4410).data)
    result = sdc("join", "a.sdc", "b.sdc", "-o", "c.sdc")
    assert result.stderr.splitlines() == ["c.sdc: 0.3 s, 2 parts, 405 B of 578 B", "c.sdc: its tags are those of a.sdc"]
    text = " ".join(sdc("info", "c.sdc").stdout.split())
    assert "gain -1.5 to +4.0 dB before coding parts 2, of 0.2 s, 0.1 s; 0.1 s of context around them" in text
    (report,) = map(json.loads, sdc("info", "c.sdc", "--json").stdout.splitlines())
    assert [part["gain_db"] for part in report["parts"]] == [-1.5, 4.0]
    assert report["parts"][1] == {"seconds": 0.1, "before": 0.0, "behind": pytest.approx(0.04), "gain_db": 4.0}
    assert report["duration"] == (8000 + 4410) / 44_100


def test_info_knows_streams_that_only_some_parts_have() -> None:
    Path("b.sdc").write_bytes(parts_example().data)
    (report,) = map(json.loads, sdc("info", "b.sdc", "--json").stdout.splitlines())
    assert [(stream["domain"], stream["num_codebooks"]) for stream in report["streams"]] == [("speech", 3), ("sfx", 2)]
    speech, sfx = report["streams"]
    assert (speech["active"], sfx["active"], sfx["silent"], sfx["removed"]) == (1.0, 0.4, 0.2, 0.4)
    assert report["envelope"]["present"] == 0.8
    assert report["problems"] == []


def test_json_is_one_object() -> None:
    result = sdc("join", "a.sdc", "a.sdc", "-o", "b.sdc", "--json", "-q")
    assert result.stderr == ""
    assert json.loads(result.stdout) == {
        "inputs": ["a.sdc", "a.sdc"],
        "output": "b.sdc",
        "seconds": 16_000 / 44_100,
        "bytes": Path("b.sdc").stat().st_size,
        "input_bytes": 610,
        "parts": 2,
        "notes": [],
        "problems": [],
    }


def test_commands_go_through_pipes() -> None:
    data = Path("a.sdc").read_bytes()
    for arguments in ("strip - --codebooks 2", "cut - --start 0.1", "join - a.sdc"):
        result = sdc(*arguments.split(), "-o", "-", stdin=data)
        assert result.exit_code == 0
        assert result.stderr.startswith("stdout: 0.")
        assert sdc(*arguments.replace("-", "a.sdc", 1).split(), "-o", "b.sdc", "-f").exit_code == 0
        assert result.stdout_bytes == Path("b.sdc").read_bytes()


def test_damage_is_said_and_the_exit_code_is_1() -> None:
    data = bytearray(long_example().data)
    data[long_example().starts[1] - 1] ^= 1
    Path("a.sdc").write_bytes(data)
    line = "a.sdc: sfx is damaged in segment 0 (frames 0-6, 0.00-0.14 s): only its first 1 codebooks are used"
    for arguments in ("strip a.sdc --domains sfx", "cut a.sdc", "join a.sdc"):
        result = sdc(*arguments.split(), "-q", "-o", f"{arguments[:3]}.sdc")
        assert errors(result) == [line]
        assert errors(sdc("info", f"{arguments[:3]}.sdc")) == [line.replace("a.sdc", f"{arguments[:3]}.sdc")]


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        ("strip a.sdc -o b.sdc", 2, "nothing to leave out; say what stays with --domains, --codebooks or --below"),
        ("strip a.sdc --domains music -o b.sdc", 1, "a.sdc: has no music; choose from speech, sfx"),
        ("cut a.sdc --start 9 -o b.sdc", 1, "a.sdc: ends before 9 s; give an earlier --start"),
        ("cut x.sdc -o b.sdc", 1, "x.sdc: no such file; check the name"),
        ("cut a.sdc -o a.sdc", 1, "a.sdc: is an input; choose another output with -o"),
        ("cut a.sdc -o c.sdc", 1, "c.sdc exists; pass --force to overwrite it"),
        ("cut a.sdc -o b.wav", 1, "b.wav: would hold a .sdc stream; name it b.sdc"),
        ("cut . -o b.sdc", 2, ".: is a folder; name a file in it"),
        ("cut a.sdc -o - --json", 2, "--json and the output both need standard output; pass -o FILE"),
        ("join a.sdc x.sdc -o b.sdc", 1, "x.sdc: no such file; check the name"),
        ("join a.sdc c.sdc -o c.sdc --force", 1, "c.sdc: is an input; choose another output with -o"),
        ("join - - -o b.sdc", 2, "standard input can be read only once; name - once"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(arguments: str, code: int, line: str) -> None:
    Path("c.sdc").write_bytes(b"mine")
    assert errors(sdc(*arguments.split()), code) == [line]
    assert files() == ["a.sdc", "c.sdc"]
    assert Path("c.sdc").read_bytes() == b"mine"


def test_an_output_is_named_and_may_be_a_folder_or_be_replaced() -> None:
    assert sdc("cut", "a.sdc").exit_code == 2
    assert sdc("cut", "a.sdc", "-o", "out/").exit_code == 0
    assert files() == ["a.sdc", "out/a.sdc"]
    assert sdc("join", "a.sdc", "out/a.sdc", "-o", "out/", "--force").exit_code == 1  # an input
    Path("b.sdc").write_bytes(b"old")
    assert sdc("cut", "a.sdc", "-o", "b.sdc", "--force").exit_code == 0
    with Path("b.sdc").open("rb") as file:
        assert Reader(file).end is not None
