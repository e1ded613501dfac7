"""The picture of a cover in a stream: a unit behind the header, which a reader may do without."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest

from sdcodec_cli.bitstream import Reader, Writer
from sdcodec_cli.bitstream.fields import encode_header
from sdcodec_cli.bitstream.limits import MAX_COVER_BYTES

from bitstream_examples import COVER, block, cover_example, pipe, read_all, same_codes

MESSAGE = "the cover is damaged; it is lost, and nothing else is by that"


@pytest.mark.parametrize("delivery", ["file", "pipe", "drops"])
def test_a_cover_comes_back_and_so_does_the_rest(delivery: str) -> None:
    example = cover_example()
    sources = {"file": io.BytesIO(example.data), "pipe": pipe(example.data), "drops": pipe(example.data, most=1)}
    reader = Reader(sources[delivery])
    assert (reader.version, reader.header) == ((1, 6), replace(example.header, cover_bytes=len(COVER)))
    assert reader.cover() == COVER
    for segment, codes in zip(reader.segments(), example.segments, strict=True):
        assert same_codes(segment, codes)
    assert (reader.problems, reader.unknown) == ([], set())


def test_a_reader_that_does_not_ask_passes_it_over() -> None:
    reader, segments = read_all(pipe(cover_example().data))
    assert len(segments) == 2
    assert (reader.problems, reader.unknown) == ([], set())
    with pytest.raises(ValueError, match="cannot seek, and the cover was in front of the segments"):
        reader.cover()


def test_all_but_header_and_cover_is_as_without_one() -> None:
    example, fo = cover_example(), io.BytesIO()
    writer = Writer(fo, example.header)
    for codes, length, gains in zip(example.segments, example.lengths, example.gains, strict=True):
        writer.write(codes, length, gains=gains)
    writer.close(example.original_samples)
    assert writer.bytes_written == len(fo.getvalue())
    start = fo.getvalue().index(b"\xf5SDs")
    assert fo.getvalue()[start:].startswith(example.data[example.starts[0] : example.starts[-1]])
    assert fo.getvalue()[9] == 1  # the minor version


def test_a_header_that_is_taken_over_without_its_cover_announces_none() -> None:
    fo = io.BytesIO()
    Writer(fo, replace(cover_example().header, cover_bytes=5)).close(0)
    reader = Reader(io.BytesIO(fo.getvalue()))
    assert (reader.header.cover_bytes, reader.cover()) == (None, None)


@pytest.mark.parametrize("place", [2, 6, 12, -1])  # in its type, the checksum of its head, its body and the end of that
def test_a_damaged_cover_is_told_and_nothing_else_is_lost(place: int) -> None:
    example = cover_example()
    data, start = bytearray(example.data), example.data.index(b"covr")
    data[example.starts[0] - 1 if place < 0 else start + place] ^= 1
    reader = Reader(io.BytesIO(bytes(data)))
    assert reader.cover() is None
    assert [problem.message for problem in reader.problems] == [MESSAGE]
    assert all(map(same_codes, reader.segments(), example.segments))
    assert [problem.kind for problem in reader.problems if problem.kind != "damage"] == ["cover"]


@pytest.mark.parametrize("stray", [block(b"covr", COVER), b""])
def test_a_cover_that_is_not_the_one_announced_is_unknown(stray: bytes) -> None:
    example = cover_example()
    header = encode_header(replace(example.header, cover_bytes=len(COVER) + 1))
    reader = Reader(io.BytesIO(header + stray + example.data[example.starts[0] : example.starts[-1]]))
    assert reader.cover() is None
    assert [problem.kind for problem in reader.problems] == ["cover"]
    assert len(list(reader.segments())) == 2
    assert reader.unknown == ({b"covr"} if stray else set())


def test_a_picture_has_bytes_and_not_too_many() -> None:
    for picture in (b"", bytes(MAX_COVER_BYTES + 1)):
        with pytest.raises(ValueError, match=f"bytes of a cover must be 1 to {MAX_COVER_BYTES}, got {len(picture)}"):
            Writer(io.BytesIO(), cover_example().header, cover=picture)
