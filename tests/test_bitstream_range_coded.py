"""Streams whose codes are range-coded: with their tables, with others, without any, and damaged."""

from __future__ import annotations

import io
import random
import zlib
from collections.abc import Iterator

import numpy as np
import pytest

from sdcodec_cli.bitstream import Reader, Writer
from sdcodec_cli.bitstream.codings import RANGE, RAW
from sdcodec_cli.bitstream.fields import encode_header
from sdcodec_cli.bitstream.segment import Chunk, SegmentHead, encode_segment
from sdcodec_cli.errors import UnsupportedStream
from sdcodec_cli.prediction import CodeTables

from bitstream_examples import (
    Example,
    pipe,
    range_coded_example,
    range_coded_header,
    range_coded_tables,
    read_all,
    same_codes,
    write_example,
)
from prediction_examples import toy_tables

TABLES = range_coded_tables()
EXAMPLE = range_coded_example()


def codings(example: Example) -> list[dict[tuple[int, int], int]]:
    """Of each segment, by stream and layer group."""
    reader = Reader(io.BytesIO(example.data))
    found = [reader._scanner.unit_at(start) for start in example.starts[:-1]]
    return [{(chunk.stream, chunk.group): chunk.coding for chunk in each.head.chunks} for each in found]  # type: ignore[union-attr]


def test_codes_come_back_from_a_file_and_from_a_pipe() -> None:
    for fo in (io.BytesIO(EXAMPLE.data), pipe(EXAMPLE.data, most=5)):
        reader, segments = read_all(fo, TABLES)
        assert reader.version == (1, 3)
        assert all(same_codes(found, given) for found, given in zip(segments, EXAMPLE.segments, strict=True))
        assert reader.problems == []


def test_each_chunk_is_raw_where_that_is_not_larger() -> None:
    speech = [{group: coding for (stream, group), coding in each.items() if stream == 0} for each in codings(EXAMPLE)]
    assert speech == [{0: RANGE, 1: RANGE}, {0: RANGE, 1: RAW}, {0: RAW, 1: RAW}, {0: RANGE, 1: RANGE}]
    assert all(coding == RAW for each in codings(EXAMPLE) for (stream, _), coding in each.items() if stream == 1)


@pytest.mark.parametrize("together", [2, 3, 100])
def test_segments_that_are_written_together_are_the_same_bytes(together: int) -> None:
    fo = io.BytesIO()
    writer = Writer(fo, EXAMPLE.header, tables=TABLES, together=together)
    for codes, num_frames in zip(EXAMPLE.segments, EXAMPLE.lengths, strict=True):
        writer.write(codes, num_frames)
    writer.close(EXAMPLE.original_samples)
    assert fo.getvalue() == EXAMPLE.data
    assert writer.saved_bytes > 0
    assert 0 < writer.saved_percent < 100


def test_two_channels_are_coded_each_by_itself() -> None:
    header = range_coded_header(coded_channels=2)
    fo = io.BytesIO()
    writer = Writer(fo, header, tables=TABLES)
    speech = EXAMPLE.segments[0][0, "speech"]
    codes = {(0, "speech"): speech, (1, "speech"): None if speech is None else speech[:, ::-1], (1, "sfx"): None}
    writer.write(codes)
    writer.close(0)
    _, (segment,) = read_all(io.BytesIO(fo.getvalue()), TABLES)
    assert same_codes(segment, codes)


def test_a_reader_without_the_tables_says_what_it_needs() -> None:
    for tables in (None, toy_tables(speech={"most": 30})):
        reader = Reader(io.BytesIO(EXAMPLE.data), "a.sdc")
        reader.tables = tables
        with pytest.raises(UnsupportedStream) as error:
            next(reader.segments())
        assert str(error.value) == (
            f"a.sdc: its codes need the tables {TABLES.sha256.hex()[:8]}... of toy, which are not here; name the model "
            "that it was made with (--model DIR)"
        )


def test_a_reader_without_the_tables_can_check_what_there_is() -> None:
    reader = Reader(io.BytesIO(EXAMPLE.data))
    segments = list(reader.segments(decode=False))
    assert [dict(segment.num_codebooks) for segment in segments] == [
        *[{(0, "speech"): 3, (0, "sfx"): 2}] * 3,
        {(0, "speech"): 3},
    ]
    assert all(segment.codes == {} for segment in segments)
    assert sum(segments[0].num_bytes.values()) < sum(segments[0].raw_bytes.values())
    assert reader.problems == []


def test_a_writer_refuses_tables_that_the_header_does_not_name() -> None:
    for header, tables in ((range_coded_header(tables_sha256=None), TABLES), (EXAMPLE.header, None)):
        with pytest.raises(ValueError, match="the tables are not those that the header names"):
            Writer(io.BytesIO(), header, tables=tables)


def test_codes_are_raw_should_they_not_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    right = CodeTables.decode

    def wrong(self, segments, groups):  # type: ignore[no-untyped-def]
        found = right(self, segments, groups)
        return [{key: each + (key == ("speech", 1)) for key, each in codes.items()} for codes in found]

    monkeypatch.setattr(CodeTables, "decode", wrong)
    example = write_example(EXAMPLE.header, EXAMPLE.segments, EXAMPLE.lengths, tables=TABLES)
    monkeypatch.undo()
    assert [each[0, 1] for each in codings(example)] == [RAW] * 4
    _, segments = read_all(io.BytesIO(example.data), TABLES)
    assert all(same_codes(found, given) for found, given in zip(segments, example.segments, strict=True))


def damaged(seed: int, count: int) -> Iterator[bytes]:
    rng = random.Random(seed)
    for _ in range(count):
        data = bytearray(EXAMPLE.data)
        data[rng.randrange(len(EXAMPLE.head), len(data))] ^= 1 << rng.randrange(8)
        yield bytes(data)


def test_a_flipped_bit_is_noticed_and_costs_one_segment_at_most() -> None:
    for data in damaged(0, 60):
        reader, segments = read_all(io.BytesIO(data), TABLES)
        whole = sum(same_codes(each, EXAMPLE.segments[each.sequence]) for each in segments)
        assert reader.problems
        assert whole >= len(EXAMPLE.segments) - 1


def with_chunks(data: list[bytes], num_frames: int) -> bytes:
    """A stream of one segment with these chunks of speech, checksums and all."""
    chunks = tuple(Chunk(0, group, RANGE, len(each), zlib.crc32(each)) for group, each in enumerate(data))
    head = SegmentHead(0, 0, num_frames, frozenset(), chunks)
    return encode_header(EXAMPLE.header) + encode_segment(head, EXAMPLE.header) + b"".join(data)


def test_forged_chunks_are_codes_or_damage() -> None:
    rng = random.Random(1)
    for _ in range(40):
        num_frames = rng.randrange(1, 21)
        data = [rng.randbytes(rng.randrange(0, num_frames + 1)), rng.randbytes(rng.randrange(0, num_frames // 2 + 1))]
        reader, (segment,) = read_all(io.BytesIO(with_chunks(data, num_frames)), TABLES)
        codes = segment.codes.get((0, "speech"), np.zeros((0, num_frames), dtype=int))
        assert codes.shape[1] == num_frames
        assert ((codes >= 0) & (codes < 16)).all()
        assert (len(codes) < 3) == any(problem.kind == "chunk" for problem in reader.problems)


def test_a_damaged_base_takes_what_is_above_it_along() -> None:
    # The last share of a range belongs to no value.
    reader, (segment,) = read_all(io.BytesIO(with_chunks([b"\xff" * 20, b""], 20)), TABLES)
    assert segment.codes == {}
    assert [problem.message for problem in reader.problems if problem.kind == "chunk"] == [
        "speech is damaged in segment 0 (frames 0-19, 0.00-0.40 s): it is lost there"
    ]


def test_range_coded_chunks_of_streams_that_tables_are_not_for_are_damaged() -> None:
    chunk = Chunk(1, 0, RANGE, 2, zlib.crc32(b"ab"))
    head = encode_segment(SegmentHead(0, 0, 9, frozenset({0}), (chunk,)), EXAMPLE.header)
    reader, (segment,) = read_all(io.BytesIO(encode_header(EXAMPLE.header) + head + b"ab"), TABLES)
    assert segment.codes == {}
    assert "chunk" in [problem.kind for problem in reader.problems]
