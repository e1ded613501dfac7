"""Streams of several stages: what the header says of them, codes of more frames, and what happens without some."""

from __future__ import annotations

import io
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdcodec_cli.bitstream import DomainEntry, GainLayout, Header, LowerModel, Reader, Writer
from sdcodec_cli.bitstream.fields import encode_header
from sdcodec_cli.bitstream.wire import varint
from sdcodec_cli.errors import CorruptStream

from bitstream_examples import example_header, with_checksum

STAGES = 1 << 2
TABLE = 25


def low(name: str = "low", *, sample_rate: int = 16_000, hop_length: int = 160) -> LowerModel:
    return LowerModel(
        model=name, weights_sha256=bytes(32), sample_rate=sample_rate, hop_length=hop_length, context_frames=7
    )


def entry(name: str, stem: str = "", stage: int = 0) -> DomainEntry:
    return DomainEntry(name=name, stem=stem, stage=stage, num_codebooks=2, codebook_size=64)


ENTRIES = (entry("speech"), entry("sfx"), entry("speech-2", "speech", 1), entry("sfx-2", "sfx", 1))


def staged(*lower: LowerModel, domains: tuple[DomainEntry, ...] = ENTRIES) -> Header:
    """A model of 50 frames per second above one of 100."""
    return example_header(sample_rate=32_000, hop_length=640, domains=domains, lower=lower or (low(),))


def read(data: bytes) -> Header:
    return Reader(io.BytesIO(data), "talk.sdc").header


def with_table(header: Header, table: bytes | None, required: int = STAGES) -> bytes:
    """A header whose table of stages is another one, or is missing, with a valid checksum."""
    data = encode_header(header)
    body, out = data[18:-4], b""
    while body:
        tag, size = body[0], body[1]
        size, start = (size, 2) if size < 128 else (size - 128 + 128 * body[2], 3)
        out += body[: start + size] if tag != TABLE else b""
        body = body[start + size :]
    if table is not None:
        out += bytes([TABLE]) + varint(len(table)) + table
    return with_checksum(data[:10] + required.to_bytes(2, "little") + bytes(2) + len(out).to_bytes(4, "little") + out)


LOW = b"\x03low" + bytes(32) + b"\x80\x7d\xa0\x01\x07"
"""16,000 Hz, 160 samples per frame, 7 frames of context."""
STREAMS = b"\x00\x06speech\x00\x03sfx\x01\x06speech\x01\x03sfx"


@st.composite
def headers(draw: st.DrawFn) -> Header:
    """Any rates that ascend, and as many frames of each stage in one of the last as go into its hop."""
    sizes = sorted(draw(st.sets(st.integers(1, 100), min_size=2, max_size=4)))
    lower = tuple(
        low(f"low {size}", sample_rate=8000 * size, hop_length=160 * size // draw(st.sampled_from([1, 2, 4, 5])))
        for size in sizes[:-1]
    )
    places = draw(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, len(lower))), min_size=1, unique=True))
    domains = tuple(entry(f"{stem}-{stage}", stem, stage) for stem, stage in places)
    return example_header(sample_rate=8000 * sizes[-1], hop_length=160 * sizes[-1], domains=domains, lower=lower)


@settings(max_examples=40, deadline=None)
@given(headers())
def test_stages_are_read_as_they_were_written(header: Header) -> None:
    assert read(encode_header(header)) == header


def test_the_table_is_what_the_format_says() -> None:
    assert encode_header(staged()) == with_table(staged(), b"\x01" + LOW + STREAMS)


def test_streams_with_stages_are_of_version_1_2_and_need_the_feature() -> None:
    data = encode_header(staged())
    assert Reader(io.BytesIO(data)).version == (1, 2)
    assert int.from_bytes(data[10:12], "little") == STAGES
    assert Reader(io.BytesIO(encode_header(example_header()))).version == (1, 0)


@pytest.mark.parametrize(("table", "required"), [(None, STAGES), (b"\x01" + LOW + STREAMS, 0)])
def test_the_feature_bit_and_the_table_come_together(table: bytes | None, required: int) -> None:
    with pytest.raises(CorruptStream, match="feature bits do not match the stages"):
        read(with_table(staged(), table, required))


@pytest.mark.parametrize(
    "table",
    [
        b"",
        b"\x00" + STREAMS,
        b"\x01",
        b"\x01" + LOW,
        b"\x01" + LOW[:-1],
        b"\x01" + LOW + STREAMS[:-1],
        b"\x01" + LOW + STREAMS + b"\x00",
        b"\x02" + LOW + STREAMS,
        b"\x02" + LOW + LOW + STREAMS,
        b"\x01" + LOW + STREAMS.replace(b"\x01\x03sfx", b"\x02\x03sfx"),
        b"\x01" + LOW + STREAMS.replace(b"\x01\x03sfx", b"\x01\x00"),
        b"\x01" + LOW + STREAMS.replace(b"\x01\x03sfx", b"\x01\x03s.x"),
        b"\x01" + LOW.replace(b"\x03low", b"\x03../") + STREAMS,
        b"\x01" + LOW.replace(b"\x03low", b"\x00") + STREAMS,
        b"\x01" + LOW.replace(b"\xa0\x01", b"\x00") + STREAMS,  # a hop of nothing
        b"\x01" + LOW.replace(b"\xa0\x01", b"\xa1\x01") + STREAMS,  # 161 samples: no whole number of frames
        b"\x01" + LOW.replace(b"\xa0\x01", b"\x80\x05") + STREAMS,  # 640 samples: half a frame
        b"\x01" + LOW.replace(b"\x80\x7d\xa0\x01", b"\x80\xfa\x01\xc0\x02") + STREAMS,  # the rate of the whole
        b"\x08" + LOW * 8 + STREAMS,
    ],
)
def test_tables_that_make_no_sense_are_refused_in_one_line(table: bytes) -> None:
    with pytest.raises(CorruptStream, match=r"^talk\.sdc: the header makes no sense: [^\n]+$"):
        read(with_table(staged(), table))


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_any_other_table_gives_stages_that_make_sense_or_is_refused(data: st.DataObject) -> None:
    table = bytearray(b"\x01" + LOW + STREAMS)
    for _ in range(data.draw(st.integers(1, 3))):
        table[data.draw(st.integers(0, len(table) - 1))] = data.draw(st.integers(0, 255))
    try:
        header = read(with_table(staged(), bytes(table)))
    except CorruptStream:
        return
    rates = [stage.sample_rate for stage in header.stages]
    assert all(one < other for one, other in itertools.pairwise(rates))
    assert all(header.frames_in(each, 1) >= 1 for each in header.domains)


def test_a_stream_of_several_stages_has_no_treble() -> None:
    treble = GainLayout(frames=2, step_db=4.0, edges=(7400, 16_000))
    assert example_header(treble=treble).treble == treble
    with pytest.raises(ValueError, match="have no treble"):
        example_header(sample_rate=32_000, hop_length=640, domains=ENTRIES, lower=(low(hop_length=320),), treble=treble)


def test_without_its_upper_stages_a_header_is_that_of_the_lower_model() -> None:
    header = staged()
    assert header.stems == ("speech", "sfx")
    below = header.up_to(0)
    assert (below.model, below.sample_rate, below.hop_length, below.context_frames) == ("low", 16_000, 160, 7)
    assert [each.name for each in below.domains] == ["speech", "sfx"]
    assert below.lower == ()


def codes(num_frames: int, seed: int = 0) -> dict[tuple[int, str], np.ndarray]:
    """Of a stretch of time; twice as many of the first stage."""
    rng = np.random.default_rng(seed)
    return {
        (0, each.name): rng.integers(0, 64, (2, num_frames * (1 if each.stage else 2))) for each in staged().domains
    }


def written(*segments: dict[tuple[int, str], np.ndarray | None], num_frames: int | None = None) -> bytes:
    file = io.BytesIO()
    writer = Writer(file, staged())
    for segment in segments:
        writer.write(segment, num_frames)
    writer.close(0)
    return file.getvalue()


def test_codes_of_stages_of_more_frames_come_back() -> None:
    given_codes = [codes(7, 1), codes(7, 2), codes(3, 3)]
    found = list(Reader(io.BytesIO(written(*given_codes))).segments())
    assert [segment.num_frames for segment in found] == [7, 7, 3]
    for segment, expected in zip(found, given_codes, strict=True):
        assert segment.codes.keys() == expected.keys()
        assert all(np.array_equal(segment.codes[key], expected[key]) for key in expected)


def test_the_last_stage_alone_says_how_many_frames_a_segment_has() -> None:
    reader = Reader(io.BytesIO(written(codes(7, 1), codes(7, 2))))
    (segment,) = reader.segments(8, 9, ["speech"])
    assert (segment.start_frame, segment.codes[0, "speech"].shape) == (7, (2, 14))


@pytest.mark.parametrize(("name", "frames"), [("speech", 13), ("speech", 7), ("speech-2", 14)])
def test_a_stage_of_another_number_of_frames_is_refused(name: str, frames: int) -> None:
    wrong = codes(7) | {(0, name): np.zeros((2, frames), dtype=np.int64)}
    with pytest.raises(ValueError, match="frames in one segment"):
        written(wrong)


def test_streams_of_a_stage_are_silent_removed_or_damaged_by_themselves() -> None:
    full = codes(7)
    lacking = {key: value for key, value in full.items() if key != (0, "sfx-2")}
    data = bytearray(written(lacking | {(0, "speech-2"): None}))
    reader = Reader(io.BytesIO(bytes(data)))
    (segment,) = reader.segments()
    assert segment.silent == {(0, "speech-2")}
    assert segment.removed == {(0, "sfx-2")}
    assert not reader.problems
    data = bytearray(written(full))
    data[data.rfind(b"SIDX") - 1] ^= 1  # the last byte of the last chunk
    reader = Reader(io.BytesIO(bytes(data)))
    (segment,) = reader.segments()
    assert segment.codes.keys() == lacking.keys()
    assert [problem.message for problem in reader.problems] == [
        "sfx-2 is damaged in segment 0 (frames 0-6, 0.00-0.14 s): it is lost there"
    ]
