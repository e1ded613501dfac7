"""Whole streams: what is written is read, from files and pipes, in part and in full."""

from __future__ import annotations

import io
from typing import Any, BinaryIO, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdcodec_cli.bitstream import DomainEntry, End, Reader, Segment, Writer

from bitstream_examples import (
    CountingFile,
    Example,
    Pipe,
    example_header,
    long_example,
    pipe,
    random_codes,
    read_all,
    same_codes,
    small_example,
    write_example,
)


@st.composite
def examples(draw: st.DrawFn) -> Example:
    entries = []
    for name in draw(st.lists(st.sampled_from(["speech", "music", "sfx"]), min_size=1, max_size=3, unique=True)):
        groups = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
        entries.append(
            DomainEntry(
                name=name,
                num_codebooks=sum(groups),
                codebook_size=draw(st.sampled_from([2, 3, 5, 256, 1000, 1024, 65_536])),
                groups=tuple(groups),
            )
        )
    channels = draw(st.sampled_from([1, 1, 2, 6]))
    header = example_header(original_channels=channels, coded_channels=channels, domains=tuple(entries))
    lengths = draw(st.lists(st.integers(1, 7), max_size=4))
    segments = []
    for number, length in enumerate(lengths):
        codes: dict[Any, Any] = dict(random_codes(header, length, seed=number))
        for index, key in enumerate(header.streams):
            state = draw(st.sampled_from(["active", "active", "silent", "removed", "reduced"]))
            if state == "silent":
                codes[key] = None
            elif state == "removed":
                del codes[key]
            elif state == "reduced":
                codes[key] = codes[key][: header.domain_of(index).groups[0]]
        segments.append(codes)
    return write_example(header, segments, lengths, samples=draw(st.integers(0, 800 * sum(lengths))))


@settings(max_examples=80, deadline=None)
@given(examples(), st.sampled_from(["file", "pipe", "drops"]))
def test_what_is_written_is_read(example: Example, delivery: str) -> None:
    sources = {"file": io.BytesIO(example.data), "pipe": pipe(example.data), "drops": pipe(example.data, most=1)}
    reader, segments = read_all(sources[delivery])
    assert reader.header == example.header
    assert [segment.num_frames for segment in segments] == example.lengths
    assert [segment.start_frame for segment in segments] == np.cumsum([0, *example.lengths])[:-1].tolist()
    for number, (segment, codes) in enumerate(zip(segments, example.segments, strict=True)):
        assert segment.sequence == number
        assert same_codes(segment, codes)
        assert segment.removed == set(example.header.streams) - codes.keys()
    assert reader.end == End(sum(example.lengths), example.original_samples)
    assert reader.problems == []


def test_silent_and_removed_streams_are_told_apart() -> None:
    header = example_header()
    example = write_example(header, [{(0, "speech"): None}], [5])
    _, (segment,) = read_all(io.BytesIO(example.data))
    assert segment.codes == {}
    assert segment.silent == {(0, "speech")}
    assert segment.removed == {(0, "sfx")}


def test_a_silent_segment_costs_a_handful_of_bytes() -> None:
    example = write_example(example_header(), [{(0, "speech"): None, (0, "sfx"): None}], [7])
    assert len(example.block(0)) == 14


def test_255_channels_are_possible() -> None:
    entry = DomainEntry(name="speech", num_codebooks=4, codebook_size=1024)
    header = example_header(original_channels=255, coded_channels=255, domains=(entry,))
    codes = {**random_codes(header, 3), (254, "speech"): None}
    reader, (segment,) = read_all(io.BytesIO(write_example(header, [codes], [3]).data))
    assert same_codes(segment, codes)
    assert reader.problems == []


def test_a_stream_without_segments_is_whole() -> None:
    example = write_example(example_header(), [], [])
    for fo in (io.BytesIO(example.data), pipe(example.data)):
        reader, segments = read_all(fo)
        assert (segments, reader.end, reader.problems) == ([], End(0, 0), [])


def test_the_end_is_known_at_once_in_a_file_and_at_last_in_a_pipe() -> None:
    example = small_example()
    assert Reader(io.BytesIO(example.data)).end == End(10, 8_000)
    reader = Reader(pipe(example.data))
    assert reader.end is None
    list(reader.segments())
    assert reader.end == End(10, 8_000)


def test_a_stream_may_start_anywhere_in_a_file() -> None:
    example = long_example()
    fo = io.BytesIO(b"something else" + example.data)
    fo.seek(len(b"something else"))
    reader = Reader(fo)
    assert reader.end is not None
    assert [segment.sequence for segment in reader.segments(start_frame=30)] == [4, 5, 6]
    assert reader.problems == []


def parts(segments: list[Segment]) -> list[Any]:
    return [
        (segment.sequence, segment.start_frame, {key: codes.tolist() for key, codes in segment.codes.items()})
        for segment in segments
    ]


def test_seeking_gives_the_same_as_scanning() -> None:
    example = long_example()
    without_index = example.data[: example.starts[-1]]
    total = sum(example.lengths)
    for start in range(total + 2):
        for stop in (None, start, start + 1, start + 9, total):
            reader, scanning = Reader(io.BytesIO(example.data)), Reader(io.BytesIO(without_index))
            found = parts(list(reader.segments(start, stop)))
            assert found == parts(list(scanning.segments(start, stop)))
            assert found == parts(list(Reader(pipe(example.data)).segments(start, stop)))
            assert reader.problems == []


def test_seeking_returns_the_segments_that_touch_the_range() -> None:
    reader = Reader(io.BytesIO(long_example().data))
    assert [segment.sequence for segment in reader.segments(13, 15)] == [1, 2]
    assert [segment.sequence for segment in reader.segments(14, 21)] == [2]
    assert [segment.sequence for segment in reader.segments(43)] == [6]
    assert list(reader.segments(44)) == []
    assert list(reader.segments(7, 7)) == []


def test_seeking_does_not_read_what_lies_before() -> None:
    example = long_example()
    fo = CountingFile(example.data)
    list(Reader(fo).segments(start_frame=28, stop_frame=30))
    untouched = range(example.starts[0], example.starts[4])
    assert not fo.seen & set(untouched)


def test_only_the_chunks_of_wanted_domains_are_read() -> None:
    header = example_header()
    codes = random_codes(header, 7)
    example = write_example(header, [codes], [7])
    fo = CountingFile(example.data)
    reader = Reader(fo)
    (segment,) = reader.segments(domains=["sfx"])
    assert segment.codes.keys() == {(0, "sfx")}
    assert np.array_equal(segment.codes[0, "sfx"], codes[0, "sfx"])
    assert segment.silent == segment.removed == set()
    # 3 codebooks x 7 frames x 10 bit, in layer groups of 2 and 1: 18 and 9 bytes.
    assert len(example.data) - len(fo.seen) == 18 + 9
    assert reader.problems == []


def test_an_unknown_domain_is_a_wrong_call() -> None:
    with pytest.raises(ValueError, match="no domain music in this stream; it has speech, sfx"):
        Reader(io.BytesIO(small_example().data)).segments(domains=["music"])


def test_a_file_can_be_read_again_and_a_pipe_cannot() -> None:
    example = small_example()
    reader = Reader(io.BytesIO(example.data))
    assert parts(list(reader.segments())) == parts(list(reader.segments()))
    reader = Reader(pipe(example.data))
    list(reader.segments())
    with pytest.raises(ValueError, match="only once"):
        reader.segments()


def test_a_segment_is_returned_before_the_next_byte_has_arrived() -> None:
    example = small_example()
    arrived = example.starts[1]

    class Live(Pipe):
        def read(self, size: int = -1) -> bytes:
            assert self._fo.tell() + size <= arrived, "this read would block"
            return super().read(size)

    segment = next(Reader(cast(BinaryIO, Live(example.data))).segments())
    assert same_codes(segment, example.segments[0])


class Sink(io.RawIOBase):
    """Output that cannot seek or read, and takes at most 7 bytes at a time."""

    def __init__(self) -> None:
        self.data = b""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        taken = bytes(data)[:7]
        self.data += taken
        return len(taken)


def test_the_writer_needs_no_seeking_and_survives_short_writes() -> None:
    example, sink = small_example(), Sink()
    writer = Writer(cast(BinaryIO, sink), example.header)
    for codes, num_frames in zip(example.segments, example.lengths, strict=True):
        writer.write(codes, num_frames)
    writer.close(example.original_samples)
    assert sink.data == example.data
    assert not sink.closed


def test_the_writer_counts_its_bytes() -> None:
    header = example_header()
    fo = io.BytesIO()
    writer = Writer(fo, header)
    writer.write(random_codes(header, 7))
    # speech 18 + 9 bytes as above; sfx 7 x 3 bit in 3 bytes, twice.
    assert writer.payload_bytes == 18 + 9 + 3 + 3
    assert writer.bytes_written == len(fo.getvalue())


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.int64])
def test_codes_may_be_integers_of_any_kind(dtype: Any) -> None:
    entry = DomainEntry(name="speech", num_codebooks=1, codebook_size=100)
    header = example_header(domains=(entry,))
    codes = {(0, "speech"): np.arange(7, dtype=dtype)[None]}
    _, (segment,) = read_all(io.BytesIO(write_example(header, [codes], [7]).data))
    assert segment.codes[0, "speech"].tolist() == [list(range(7))]
    assert segment.codes[0, "speech"].dtype == np.int64


speech, sfx = (0, "speech"), (0, "sfx")


@pytest.mark.parametrize(
    ("codes", "num_frames", "message"),
    [
        ({}, None, "num_frames must be given"),
        ({speech: None}, None, "num_frames must be given"),
        ({speech: None}, 0, "1 to 7 frames"),
        ({speech: None}, 8, "1 to 7 frames"),
        ({speech: np.zeros((3, 8), int)}, None, "1 to 7 frames"),
        ({speech: np.zeros((3, 0), int)}, None, "1 to 7 frames"),
        ({speech: np.zeros((3, 4), int)}, 5, "5 and 4 frames"),
        ({speech: np.zeros((3, 4), int), sfx: np.zeros((2, 5), int)}, None, "4 and 5 frames"),
        ({speech: np.zeros(4, int)}, None, "must be"),
        ({speech: np.zeros((1, 4), int)}, None, "layer groups"),
        ({speech: np.zeros((4, 4), int)}, None, "layer groups"),
        ({speech: np.zeros((0, 4), int)}, None, "layer groups"),
        ({speech: np.zeros((3, 4))}, None, "integers"),
        ({speech: np.full((3, 4), 1024)}, None, "0 to 1023"),
        ({sfx: np.full((2, 4), 5)}, None, "0 to 4"),
        ({speech: np.full((3, 4), -1)}, None, "0 to 1023"),
        ({(1, "speech"): None}, 4, "no such stream"),
        ({(0, "music"): None}, 4, "no such stream"),
    ],
)
def test_codes_that_do_not_fit_the_header_are_a_wrong_call(codes: Any, num_frames: int | None, message: str) -> None:
    fo = io.BytesIO()
    writer = Writer(fo, example_header())
    before = fo.getvalue()
    with pytest.raises(ValueError, match=message):
        writer.write(codes, num_frames)
    assert fo.getvalue() == before


def test_a_stream_that_is_lost_has_no_codes() -> None:
    writer = Writer(io.BytesIO(), example_header())
    with pytest.raises(ValueError, match="lost"):
        writer.write({speech: None}, 4, lost=[speech])
    with pytest.raises(ValueError, match="no such stream"):
        writer.write({}, 4, lost=[(0, "music")])


def test_nothing_can_be_written_after_the_end() -> None:
    writer = Writer(io.BytesIO(), example_header())
    writer.close(0)
    with pytest.raises(ValueError, match="closed"):
        writer.write({speech: None}, 4)
    with pytest.raises(ValueError, match="closed"):
        writer.close(0)


@pytest.mark.parametrize("samples", [-1, 11 * 882 + 1])
def test_the_frames_must_hold_the_samples(samples: int) -> None:
    writer = Writer(io.BytesIO(), example_header(segment_frames=10))
    writer.write({speech: None}, 10)
    # A frame is 320 samples at 16 kHz: 882 at 44.1 kHz; one more than there are is allowed for rounding.
    with pytest.raises(ValueError, match="do not hold"):
        writer.close(samples)
    writer.close(11 * 882)


def test_three_domains_cost_two_percent_more_than_their_codes() -> None:
    names = ("speech", "music", "sfx")
    entries = tuple(DomainEntry(name=name, num_codebooks=12, codebook_size=1024) for name in names)
    header = example_header(domains=entries, segment_frames=100)
    fo = io.BytesIO()
    writer = Writer(fo, header)
    codes = random_codes(header, 100)
    for _ in range(300):
        writer.write(codes)
    writer.close(600 * 44_100)
    assert writer.payload_bytes == 600 * 18_000 // 8
    assert writer.bytes_written / writer.payload_bytes < 1.021
