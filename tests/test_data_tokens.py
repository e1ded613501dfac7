"""Files of tokens: the same arrays in four formats, checked when they are read, and examples for training."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdcodec_cli.bitstream import DomainEntry, Header, LowerModel
from sdcodec_cli.data.tokens import (
    DAMAGED,
    FORMATS,
    PRESENT,
    REMOVED,
    SILENT,
    Format,
    GainTokens,
    StreamTokens,
    Tokens,
    TokensDataset,
    read_tokens,
    to_bytes,
)
from sdcodec_cli.errors import InputError, MissingExtra

from bitstream_examples import ENVELOPES, TREBLES, example_header

ROOT = Path(__file__).resolve().parents[1]


def stream(entry: DomainEntry, frames: int, channels: int = 1, seed: int = 0) -> StreamTokens:
    """Random codes that are all there."""
    lead = () if channels == 1 else (channels,)
    codes = np.random.default_rng(seed).integers(0, entry.codebook_size, (*lead, entry.num_codebooks, frames))
    return StreamTokens(
        codes.astype(np.uint16),
        np.zeros((*lead, frames), np.uint8),
        np.full((*lead, frames), entry.num_codebooks, np.uint8),
    )


def small_tokens(**changes: Any) -> Tokens:
    """Segments of 7 and 3 frames; one domain is silent in the second."""
    header = example_header(**changes)
    streams = {entry.name: stream(entry, 10, header.coded_channels) for entry in header.domains}
    streams["sfx"].state[..., 7:] = SILENT
    streams["sfx"].num_codebooks[..., 7:] = 0
    gains: dict[str, GainTokens] = {}
    lead = () if header.coded_channels == 1 else (header.coded_channels,)
    for kind in (ENVELOPES, TREBLES):
        if getattr(header, kind.name) is not None:
            steps = np.random.default_rng(1).integers(-3, 4, (*lead, 3, 4 + 2)).astype(np.int8)
            gains[kind.name] = GainTokens(steps, np.ones((*lead, 2), np.uint8))
    return Tokens(header, 8000, np.array([7, 3], np.uint16), streams, **gains)


def everything() -> Tokens:
    """Two channels, envelope and treble, tags that JSON has to escape."""
    return small_tokens(
        coded_channels=2, envelope=ENVELOPES.layout, treble=TREBLES.layout, tags={"title": 'Ein "Märchen"\n'}
    )


def write(path: Path, tokens: Tokens) -> Path:
    path.write_bytes(to_bytes(tokens, path.suffix[1:]))  # type: ignore[arg-type]
    return path


def same(one: Tokens, other: Tokens) -> bool:
    def arrays(tokens: Tokens) -> list[np.ndarray]:
        parts = [*tokens.streams.values(), tokens.envelope, tokens.treble]
        found = [getattr(part, field.name) for part in parts if part for field in dataclasses.fields(part)]
        return [tokens.segments, *found]

    pairs = list(zip(arrays(one), arrays(other), strict=True))
    return (one.header, one.num_samples) == (other.header, other.num_samples) and all(
        a.dtype == b.dtype and np.array_equal(a, b) for a, b in pairs
    )


@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_holds_all_that_was_written(kind: Format, tmp_path: Path) -> None:
    empty = dataclasses.replace(
        small_tokens(),
        num_samples=0,
        segments=np.zeros(0, np.uint16),
        streams={entry.name: stream(entry, 0) for entry in example_header().domains},
    )
    for tokens in (small_tokens(), everything(), empty):
        (found,) = read_tokens(write(tmp_path / f"a.{kind}", tokens))
        assert same(found, tokens)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_stream_of_a_lower_stage_may_have_more_frames(kind: Format, tmp_path: Path) -> None:
    lower = LowerModel(model="low", weights_sha256=bytes(32), sample_rate=8000, hop_length=80, context_frames=1)
    low = DomainEntry(name="low", stem="audio", num_codebooks=1, codebook_size=65_536, stage=0)
    high = DomainEntry(name="high", stem="audio", num_codebooks=2, codebook_size=4, stage=1)
    header = example_header(lower=(lower,), domains=(low, high))
    tokens = Tokens(header, 10, np.array([5], np.uint16), {"low": stream(low, 10), "high": stream(high, 5)})
    (found,) = read_tokens(write(tmp_path / f"a.{kind}", tokens))
    assert same(found, tokens)


def test_the_arrays_have_plain_names_and_types_for_other_programs(tmp_path: Path) -> None:
    with np.load(write(tmp_path / "a.npz", everything())) as stored:
        kinds = {name: str(stored[name].dtype) for name in stored.files if name != "header"}
        assert json.loads(str(stored["header"]))["streams"][0]["name"] == "speech"
    assert kinds == {
        "segments": "uint16",
        **{f"codes.{name}": "uint16" for name in ("speech", "sfx")},
        **{f"{what}.{name}": "uint8" for what in ("state", "num_codebooks") for name in ("speech", "sfx")},
        **{f"{name}.gains": "int8" for name in ("envelope", "treble")},
        **{f"{name}.present": "uint8" for name in ("envelope", "treble")},
    }
    row = json.loads(to_bytes(small_tokens(), "jsonl"))
    assert row["codes.sfx"] == small_tokens().streams["sfx"].codes.tolist()
    assert (row["header"]["frame_rate"], row["header"]["num_samples"], row["header"]["version"]) == (50.0, 8000, 1)


def test_rows_of_several_files_may_stand_in_one_beside_columns_of_others(tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    two = [small_tokens(), small_tokens(gain_db=2.0)]
    lines = [json.loads(to_bytes(tokens, "jsonl")) for tokens in two]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({**line, "text": "hello"}) for line in lines))
    tables = [parquet.read_table(io.BytesIO(to_bytes(tokens, "parquet"))) for tokens in two]
    table = pyarrow.concat_tables(tables).append_column("text", [["hello", "world"]])
    parquet.write_table(table, tmp_path / "a.parquet", row_group_size=1)
    for name in ("a.jsonl", "a.parquet"):
        found = read_tokens(tmp_path / name)
        assert [same(one, other) for one, other in zip(found, two, strict=True)] == [True, True]


GONE = object()

WRONG: list[tuple[str, list[Any], Any, str]] = [
    ("codes.sfx", [], GONE, "codes.sfx is missing"),
    ("codes.sfx", [0, 0], 5, "codes.sfx must be from 0 to 4, got 0 to 5"),
    ("codes.sfx", [0, 0], -1, "codes.sfx must be from 0 to 65535, got -1 to 4"),
    ("codes.sfx", [0, 0], 0.5, "codes.sfx must be whole numbers, got float64"),
    ("codes.sfx", [1], GONE, "codes.sfx must have the shape [2, 10], got [1, 10]"),
    ("codes.sfx", [0, 0], GONE, "is no jsonl file of tokens (setting an array element with a sequence"),
    ("state.sfx", [0], GONE, "state.sfx must have the shape [10], got [9]"),
    ("state.sfx", [0], 4, "state.sfx must be from 0 to 3, got 0 to 4"),
    ("state.sfx", [8], 0, "num_codebooks.sfx must be that of whole layer groups, 1, 2, where the state is 0"),
    ("state.speech", [8], 1, "state.speech must be the same within a segment, but changes at frame 8"),
    ("num_codebooks.speech", [1], 2, "num_codebooks.speech must be the same within a segment, but changes"),
    ("num_codebooks.speech", [1], 1, "num_codebooks.speech must be that of whole layer groups, 2, 3, where"),
    ("segments", [], GONE, "segments is missing"),
    ("segments", [], [[7, 3]], "segments must have the shape [0], got [1, 2]"),
    ("segments", [0], 8, "segments must be from 1 to 7, got 3 to 8"),
    ("segments", [0], 6, "codes.speech must have the shape [3, 9], got [3, 10]"),
    ("envelope.gains", [0], GONE, "envelope.gains must have the shape [3, 6], got [2, 6]"),
    ("envelope.gains", [0, 0], 99, "envelope.gains must be from -"),
    ("envelope.present", [0], 2, "envelope.present must be from 0 to 1, got 1 to 2"),
    ("header", [], GONE, "is no jsonl file of tokens ('header')"),
    ("header", [], [], "is no jsonl file of tokens (its header is no object)"),
    ("header", ["version"], 2, "its header is of version 2, this is for 1"),
    ("header", ["num_samples"], 10**9, "num_samples is 1000000000, which 10 frames do not hold"),
    ("header", ["num_samples"], "x", "'x' is no whole number"),
    ("header", ["hop_length"], 1.5, "its header makes no sense: hop_length: 1.5 is no whole number"),
    ("header", ["model"], 3, "its header makes no sense: model: 3 is no text"),
    ("header", ["weights_sha256"], "zz", "its header makes no sense: weights_sha256: non-hexadecimal"),
    ("header", ["coded_channels"], 9, "its header makes no sense: coded_channels must be 1 or 2, got 9"),
    ("header", ["streams"], [1], "its header makes no sense: domains: 1 is no object"),
    ("header", ["sample_rate"], GONE, "its header makes no sense: sample_rate is missing"),
]
"""What is changed in a row, where, to what, and what is said of it."""


@pytest.mark.parametrize(("name", "place", "value", "message"), WRONG)
def test_the_first_thing_that_does_not_fit_is_named_in_a_line(
    name: str, place: list[Any], value: Any, message: str, tmp_path: Path
) -> None:
    row = json.loads(to_bytes(small_tokens(envelope=ENVELOPES.layout), "jsonl"))
    *way, last = [name, *place]
    inside = row
    for step in way:
        inside = inside[step]
    if value is GONE:
        del inside[last]
    else:
        inside[last] = value
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    with pytest.raises(InputError) as caught:
        read_tokens(tmp_path / "a.jsonl")
    text = str(caught.value)
    assert message in text
    assert text.startswith(f"{tmp_path / 'a.jsonl'}: ")
    assert text.endswith("; write it again with sdc tokens")
    assert "\n" not in text


@pytest.mark.parametrize("kind", FORMATS)
def test_what_is_no_file_of_its_format_is_an_error_in_a_line(kind: Format, tmp_path: Path) -> None:
    path = tmp_path / f"a.{kind}"
    with pytest.raises(InputError, match=r"cannot be read: "):
        read_tokens(path)
    whole = to_bytes(small_tokens(), kind)
    for data in (b"", b"\x00\xffgarbage" * 9, whole[: len(whole) // 2], whole[:10] + b"\xff" * 20 + whole[30:]):
        path.write_bytes(data)
        try:
            found = read_tokens(path)
        except InputError as error:
            assert "\n" not in str(error)  # noqa: PT017
        else:
            assert (found, kind) == ([], "jsonl")


def test_other_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a.txt: is no file of tokens; their names end in .jsonl, .npz, .parquet"):
        read_tokens(tmp_path / "a.txt")


def test_without_pyarrow_parquet_names_the_extra_and_the_others_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(
        MissingExtra, match=r"^a Parquet file of tokens: needs pyarrow; pip install 'sdcodec-cli\[train\]'"
    ):
        to_bytes(small_tokens(), "parquet")
    for kind in ("npz", "safetensors", "jsonl"):
        assert to_bytes(small_tokens(), kind)  # type: ignore[arg-type]


# --- examples


def test_examples_have_one_length_and_a_value_for_nothing(tmp_path: Path) -> None:
    tokens = small_tokens()
    tokens.streams["speech"].num_codebooks[:7] = 2  # its third codebook was left out
    (tmp_path / "below").mkdir()
    write(tmp_path / "below" / "a.npz", tokens)
    (tmp_path / "other.txt").touch()
    examples = TokensDataset(tmp_path, num_frames=4)
    assert (len(examples), examples.streams) == (3, ("speech", "sfx"))
    assert examples.num_values == {"speech": 1025, "sfx": 6}
    first, second, third = (examples[index] for index in range(3))
    assert np.array_equal(first["speech"][:2], tokens.streams["speech"].codes[:2, :4])
    assert (first["speech"][2] == 1024).all()
    assert np.array_equal(second["sfx"][:, :3], tokens.streams["sfx"].codes[:, 4:7])
    assert (second["sfx"][:, 3:] == 5).all()  # silent
    assert np.array_equal(third["speech"][:, :2], tokens.streams["speech"].codes[:, 8:])
    assert (third["speech"][:, 2:] == 1024).all()  # behind the end
    assert {array.dtype for array in third.values()} == {np.dtype(np.int64)}
    with pytest.raises(IndexError):
        examples[3]


def test_channels_are_examples_by_themselves_and_streams_can_be_chosen(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", everything())
    examples = TokensDataset(tmp_path, num_frames=10, streams=["sfx"], num_codebooks=1)
    assert len(examples) == 2
    assert [examples[index]["sfx"].shape for index in range(2)] == [(1, 10), (1, 10)]
    assert np.array_equal(examples[1]["sfx"][0, :7], everything().streams["sfx"].codes[1, 0, :7])


def test_a_folder_of_no_use_and_wrong_arguments_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no files of tokens in this folder"):
        TokensDataset(tmp_path, num_frames=4)
    write(tmp_path / "a.npz", small_tokens())
    with pytest.raises(ValueError, match=r"there is no stream voice; choose from speech, sfx"):
        TokensDataset(tmp_path, num_frames=4, streams=["voice"])
    with pytest.raises(ValueError, match="must be at least 1, got 0"):
        TokensDataset(tmp_path, num_frames=0)
    write(tmp_path / "b.npz", small_tokens(weights_sha256=bytes(32)))
    with pytest.raises(InputError, match=r"b.npz: has other streams than the files before it"):
        TokensDataset(tmp_path, num_frames=4)


@pytest.mark.slow
def test_the_script_in_the_documents_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("codes").mkdir()
    entry = DomainEntry(name="speech", num_codebooks=4, codebook_size=8)
    header: Header = example_header(domains=(entry,), segment_frames=100)
    tokens = Tokens(header, 0, np.array([100], np.uint16), {"speech": stream(entry, 100)})
    write(Path("codes/a.safetensors"), tokens)
    page = (ROOT / "docs/tokens.md").read_text(encoding="utf-8")
    script = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)[0]
    names: dict[str, Any] = {}
    exec(script.replace("FRAMES, CODEBOOKS, WIDTH = 250, 4, 128", "FRAMES, CODEBOOKS, WIDTH = 100, 4, 32"), names)
    first, last = names["losses"]
    assert last < first
    example = names["torch"].from_numpy(names["examples"][0]["speech"])[None]
    late = names["delayed"](example, 8)
    assert all((late[0, k, k : k + 100] == example[0, k]).all() and (late[0, k, :k] == 8).all() for k in range(4))


def test_states_say_where_codes_are() -> None:
    tokens = small_tokens()
    sfx = tokens.streams["sfx"]
    assert sfx.there.all(axis=0).tolist() == [True] * 7 + [False] * 3
    assert (PRESENT, SILENT, REMOVED, DAMAGED) == (0, 1, 2, 3)
