"""Streams of parts, and segments that are copied as bytes: what is said, what is refused, what stays damaged."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from sdcodec_cli.bitstream import DomainEntry, Header, LowerModel, Part, Reader, StoredChunk, Writer
from sdcodec_cli.bitstream.codings import LOST, RANGE, RAW
from sdcodec_cli.bitstream.fields import encode_header
from sdcodec_cli.bitstream.wire import varint
from sdcodec_cli.errors import CorruptStream, StreamError, UnsupportedStream

from bitstream_examples import (
    ENVELOPES,
    TREBLES,
    Example,
    copied,
    damaged_gains_example,
    example_header,
    gains_example,
    long_example,
    part_of,
    parts_example,
    pipe,
    random_codes,
    range_coded_example,
    range_coded_tables,
    read_all,
    same_codes,
    same_gains,
    small_example,
    treble_example,
    with_checksum,
    write_example,
)

FRAME = 882
"""Samples at 44,100 Hz."""


def read(data: bytes) -> Header:
    return Reader(io.BytesIO(data), "talk.sdc").header


def of_parts(header: Header, *parts: Part) -> Header:
    return replace(header, parts=parts, original_samples=sum(part.num_samples for part in parts))


def staged() -> Header:
    """Of two stages, and two parts with other streams."""
    names = [("speech", "speech", 0), ("sfx", "sfx", 0), ("speech-2", "speech", 1)]
    entries = tuple(
        DomainEntry(name=name, stem=stem, stage=stage, num_codebooks=2, codebook_size=64) for name, stem, stage in names
    )
    low = LowerModel(model="low", weights_sha256=bytes(32), sample_rate=16_000, hop_length=320, context_frames=7)
    header = example_header(
        sample_rate=32_000, hop_length=640, lower=(low,), domains=entries, envelope=ENVELOPES.layout
    )
    lone = part_of(header, num_frames=9, num_samples=9 * FRAME, domains=entries[::2], gain_db=3.0, envelope=None)
    return of_parts(header, part_of(header, num_frames=5, num_samples=99), lone)


def test_parts_are_read_as_they_were_written() -> None:
    for header in (parts_example().header, staged()):
        data = encode_header(header)
        assert read(data) == header
        assert data[8:10] == b"\1\4"
        assert data[10] & 1 << 3


def test_without_parts_a_header_is_what_it_was() -> None:
    assert encode_header(example_header())[8:12] == b"\1\0\0\0"
    assert read(encode_header(example_header())).parts == ()


def test_each_part_has_a_header_of_its_own_and_the_frames_after_those_before() -> None:
    header = parts_example().header
    assert [part.gain_db for part in header.of_parts] == [-1.5, 2.25, -1.5]
    assert [header.part_at(frame) for frame in (0, 9, 10, 14, 15, 24)] == [0, 0, 1, 1, 2, 2]
    with pytest.raises(ValueError, match="a stream of 25 frames has no frame 25"):
        header.part_at(25)
    assert header.frames_left(8) == 2
    assert header.stems == ("speech", "sfx")
    assert header.by_lower_models == []
    (below,) = staged().by_lower_models
    assert [[entry.name for entry in part.domains] for part in below.parts] == [["speech", "sfx"], ["speech"]]


def test_times_are_those_that_are_played() -> None:
    header = parts_example().header
    played = 5000 / 44_100
    assert header.seconds_at(1) == 0  # context of the first part
    assert header.seconds_at(2) == pytest.approx((FRAME - 5) / 44_100)
    assert header.seconds_at(10) == pytest.approx(played)
    assert header.seconds_at(12) == pytest.approx(played + 2 / 50)
    assert header.seconds_at(25) == pytest.approx(2 * played + 5 / 50)


def with_table(table: bytes, required: int = 1 << 3) -> bytes:
    """A header with this table of parts, and a valid checksum."""
    data = encode_header(example_header(original_samples=FRAME))
    body = data[18:-4] + b"\x1b" + varint(len(table)) + table
    return with_checksum(data[:10] + bytes([required, 0, 0, 0]) + len(body).to_bytes(4, "little") + body)


def row(frames: int, origin: int, first: int, samples: int, fields: bytes = b"") -> bytes:
    return b"".join(map(varint, (frames, origin, first, samples, len(fields)))) + fields


def test_the_refusals_below_start_from_something_valid() -> None:
    (part,) = read(with_table(row(2, 5, 5 * FRAME, FRAME, b"\x10\1?"))).parts  # an unknown even field is skipped
    assert part.gain_db == -1.5
    assert (part.num_frames, part.origin, part.first_sample, part.num_samples) == (2, 5, 5 * FRAME, FRAME)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (b"", "a varint has no end"),
        (row(0, 0, 0, FRAME), "frames of a part must be 1"),
        (row(2, 0, 0, 0), "samples of a part must be 1"),
        (row(2, 5, 5 * FRAME - 1, FRAME), r"samples 4409-5290 of a part are not in its frames 5-6"),
        (row(2, 5, 7 * FRAME + 1, FRAME), r"are not in its frames 5-6"),
        (row(2, 2**40, 2**40 * FRAME, FRAME), "origin of a part"),
        (row(2, 0, 0, FRAME + 1), "its parts have 883 samples, not 882"),
        (row(2, 0, 0, FRAME, b"\x11\2\0\0"), "not those of its first part"),
        (row(2, 0, 0, FRAME, b"\x11\1\0"), "gain does not have 2 bytes"),
        (row(2, 0, 0, FRAME, b"\x11\2\x80\xfe" * 2), "field 17 comes 2 times"),
        (row(2, 0, 0, FRAME, b"\5\2\x80\x3e"), "a part has fields that it cannot have"),
        (row(2, 0, 0, FRAME, b"\x19\1\0"), "a part has fields that it cannot have"),
        (row(2, 0, 0, FRAME) + b"\1", "varint"),
        (row(2, 0, 0, FRAME, b"\x13\1\0"), "not those of its first part"),
    ],
)
def test_a_table_of_parts_that_makes_no_sense_is_refused(table: bytes, message: str) -> None:
    with pytest.raises(CorruptStream, match=rf"talk\.sdc: the header makes no sense: .*{message}"):
        read(with_table(table))


def test_a_part_with_a_field_of_the_future_is_refused() -> None:
    with pytest.raises(UnsupportedStream, match="header field 99 is unknown"):
        read(with_table(row(2, 0, 0, FRAME, b"\x63\0")))


def test_the_feature_bit_and_the_parts_belong_together() -> None:
    with pytest.raises(CorruptStream, match="the feature bits do not match the parts"):
        read(with_table(row(2, 0, 0, FRAME), required=0))


def test_no_segment_has_frames_of_two_parts() -> None:
    header = of_parts(example_header(), *[part_of(example_header(), num_frames=5, num_samples=99)] * 2)
    writer = Writer(io.BytesIO(), header)
    writer.write(random_codes(header, 3))
    with pytest.raises(ValueError, match="a segment must have 1 to 2 frames, got 3"):
        writer.write(random_codes(header, 3))
    writer.write(random_codes(header, 2))
    with pytest.raises(ValueError, match="5 frames do not hold 198 samples"):
        writer.close(198)
    writer.write(random_codes(header, 5))
    with pytest.raises(ValueError, match="a stream of 10 frames has no frame 10"):
        writer.write(random_codes(header, 1))


def test_codes_and_gains_of_parts_come_back_from_a_file_and_from_a_pipe() -> None:
    example = parts_example()
    for fo in (io.BytesIO(example.data), pipe(example.data, most=7)):
        reader, segments = read_all(fo)
        assert reader.problems == []
        for found, codes, gains in zip(segments, example.segments, example.gains, strict=True):
            assert same_codes(found, codes)
            assert same_gains(found.gains, gains)
    assert [segment.removed for segment in segments] == [frozenset()] * 3 + [{(0, "sfx")}] + [frozenset()]
    assert [segment.sequence for segment in Reader(io.BytesIO(example.data)).segments(12, 17)] == [2, 3]
    assert [len(segment.codes) for segment in Reader(io.BytesIO(example.data)).segments(domains=["sfx"])] == [
        *(1, 0, 0, 0, 1)
    ]


def test_range_coded_parts_have_their_own_layer_groups() -> None:
    example = range_coded_example()
    speech = DomainEntry(name="speech", num_codebooks=2, codebook_size=16, groups=(2,))
    one = part_of(example.header, num_frames=20, num_samples=99)
    header = of_parts(example.header, one, replace(one, domains=(speech,)))
    codes = example.segments[0]
    fewer = {(0, "speech"): codes[0, "speech"][:2]}  # type: ignore[index]
    again = write_example(header, [codes, fewer], [20, 20], samples=198, tables=range_coded_tables())
    reader, segments = read_all(io.BytesIO(again.data), range_coded_tables())
    assert reader.problems == []
    assert same_codes(segments[0], codes)
    assert same_codes(segments[1], fewer)
    first, second = (segment.chunks[0, "speech"] for segment in segments)
    assert [chunk.coding for chunk in first] == [RANGE, RANGE]
    assert second == first[:1]


def test_flipped_bits_are_harmless_or_noticed() -> None:
    example = parts_example()
    for bit in range(len(example.head) * 8, len(example.data) * 8, 59):
        data = bytearray(example.data)
        data[bit // 8] ^= 1 << bit % 8
        reader, segments = read_all(io.BytesIO(bytes(data)))
        assert reader.problems
        for segment in segments:
            for key, codes in segment.codes.items():
                written = example.segments[segment.sequence][key]
                assert written is not None
                assert np.array_equal(codes, written[: len(codes)])


def test_mutated_headers_of_parts_never_break_the_reader() -> None:
    example, chance = parts_example(), random.Random(3)
    body = example.head[18:-4]
    place = body.rindex(b"\x1b")
    refused = 0
    for _ in range(120):
        out = bytearray(body)
        for _ in range(chance.choice([1, 1, 2, 5])):
            out[chance.randrange(place, len(out))] = chance.choice([0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)])
        head = with_checksum(example.head[:14] + len(out).to_bytes(4, "little") + out)
        try:
            list(Reader(io.BytesIO(head + example.data[len(example.head) :])).segments())
        except StreamError:
            refused += 1
    assert 40 < refused < 120


def examples() -> Iterator[Example]:
    yield from (small_example(), long_example(), gains_example(ENVELOPES, TREBLES), treble_example())
    yield from (range_coded_example(), parts_example())


def test_copied_segments_are_the_same_bytes() -> None:
    for example in examples():
        assert copied(example.data) == example.data


def test_a_copy_needs_a_place_for_everything() -> None:
    (segment, _) = Reader(io.BytesIO(gains_example(ENVELOPES).data)).segments(0, 10, decode=False)
    header = gains_example(ENVELOPES).header
    for changes, message in (
        ({"envelope": None}, "gains in a stream whose header has none"),
        ({"domains": header.domains[:1]}, r"no such stream in the header: \(0, 'sfx'\)"),
        ({"segment_frames": 5}, "a segment must have 1 to 5 frames, got 7"),
    ):
        with pytest.raises(ValueError, match=message):
            Writer(io.BytesIO(), replace(header, **changes), copies=True).copy(segment)
    long = replace(segment, chunks={(0, "sfx"): (StoredChunk(RAW, bytes(4)),)})
    with pytest.raises(ValueError, match="more bytes than raw ones"):
        Writer(io.BytesIO(), header, copies=True).copy(long)


def test_what_is_damaged_is_lost_in_the_copy_and_reported_as_before() -> None:
    damaged = damaged_gains_example()
    lost = copied(damaged)
    (before, found), (after, again) = (read_all(io.BytesIO(data)) for data in (damaged, lost))
    assert after.problems == before.problems
    assert [problem.kind for problem in after.problems] == ["envelope", "chunk"]
    for one, other in zip(found, again, strict=True):
        assert one.codes.keys() == other.codes.keys()
        assert all(np.array_equal(one.codes[key], other.codes[key]) for key in one.codes)
        assert (one.silent, one.removed) == (other.silent, other.removed)
        assert same_gains(one.gains, other.gains)
    assert again[0].chunks[0, "sfx"][1] == StoredChunk(LOST)
    assert copied(lost) == lost


def test_what_is_damaged_is_reported_without_being_decoded() -> None:
    reader = Reader(io.BytesIO(damaged_gains_example()))
    list(reader.segments(decode=False))
    assert reader.problems == read_all(io.BytesIO(damaged_gains_example()))[0].problems
