"""Damaged streams. The law: never a wrong code without a problem, never an exception, never more memory than bytes."""

from __future__ import annotations

import io
import random
import tracemalloc
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO

import numpy as np
import pytest

from sdcodec_cli.bitstream import DomainEntry, End, Header, Reader, Segment, Writer
from sdcodec_cli.bitstream.codings import RANGE, RAW
from sdcodec_cli.bitstream.fields import encode_header
from sdcodec_cli.bitstream.reader import MAX_PROBLEMS
from sdcodec_cli.bitstream.wire import varint
from sdcodec_cli.errors import StreamError
from sdcodec_cli.prediction import CodeTables

from bitstream_examples import (
    Example,
    block,
    example_header,
    long_example,
    pipe,
    random_codes,
    range_coded_tables,
    read_all,
    same_codes,
    small_example,
    with_checksum,
    write_example,
)

KINDS = {"chunk", "gap", "order", "truncated", "damage", "block", "junk", "more"}


def kinds(reader: Reader) -> list[str]:
    return [problem.kind for problem in reader.problems]


def check(data: bytes, example: Example) -> Iterator[tuple[Reader, list[Segment]]]:
    """Read `data`, an `example` damaged behind its header, from a file and a pipe, and hold the reader to the law."""
    for fo in (io.BytesIO(data), pipe(data, most=50)):
        reader = Reader(fo)
        segments = list(reader.segments())
        assert reader.header == example.header
        starts = np.cumsum([0, *example.lengths]).tolist()
        for segment in segments:
            written = example.segments[segment.sequence]
            assert (segment.start_frame, segment.num_frames) == (
                starts[segment.sequence],
                example.lengths[segment.sequence],
            )
            for key, codes in segment.codes.items():
                assert np.array_equal(codes, np.asarray(written[key])[: len(codes)])
            assert segment.silent == {key for key, value in written.items() if value is None}
        if not reader.problems:
            assert len(segments) == len(example.segments)
            assert all(same_codes(segment, example.segments[segment.sequence]) for segment in segments)
            assert reader.end == End(starts[-1], example.original_samples)
        for problem in reader.problems:
            assert problem.kind in KINDS
            assert "\n" not in problem.message
        yield reader, segments


def test_every_flipped_bit_is_harmless_or_noticed() -> None:
    example = small_example()
    for bit in range(len(example.head) * 8, len(example.data) * 8):
        damaged = bytearray(example.data)
        damaged[bit // 8] ^= 1 << bit % 8
        for reader, _ in check(bytes(damaged), example):
            assert reader.problems


def test_a_flipped_bit_costs_one_segment_at_most() -> None:
    example = long_example()
    intact = len(example.segments)
    for bit in range(len(example.head) * 8, example.starts[-1] * 8, 3):
        damaged = bytearray(example.data)
        damaged[bit // 8] ^= 1 << bit % 8
        for reader, segments in check(bytes(damaged), example):
            assert sum(same_codes(segment, example.segments[segment.sequence]) for segment in segments) == intact - 1
            assert set(kinds(reader)) <= {"chunk", "gap"}
            assert len(reader.problems) == 1


def test_a_file_cut_anywhere_gives_all_that_is_left_and_says_so() -> None:
    example = long_example(3)
    for size in range(len(example.head), len(example.data)):
        whole = sum(stop <= size for stop in example.starts[1:])
        for reader, segments in check(example.data[:size], example):
            assert kinds(reader)[-1] == "truncated"
            assert reader.end is None
            assert all(same_codes(segments[number], example.segments[number]) for number in range(whole))


def test_the_chunks_before_a_cut_are_used() -> None:
    example = write_example(example_header(), [random_codes(example_header(), 7)], [7])
    # The payload: speech base 18 bytes, sfx base 3, speech refinement 9, sfx refinement 3.
    stop = example.starts[1]
    expected = {0: (3, 2), 1: (3, 1), 3: (3, 1), 4: (2, 1), 12: (2, 1), 13: (2, 0), 15: (2, 0), 16: (0, 0), 33: (0, 0)}
    for missing, (speech, sfx) in expected.items():
        reader, (segment,) = read_all(io.BytesIO(example.data[: stop - missing]))
        found = {key: len(codes) for key, codes in segment.codes.items()}
        assert found == {key: count for key, count in {(0, "speech"): speech, (0, "sfx"): sfx}.items() if count}
        assert kinds(reader)[-1] == "truncated"


def corrupt_byte(data: bytes, position: int) -> bytes:
    return data[:position] + bytes([data[position] ^ 0xFF]) + data[position + 1 :]


def test_a_damaged_refinement_leaves_the_layers_below_it() -> None:
    example = small_example()
    reader, segments = read_all(io.BytesIO(corrupt_byte(example.data, example.starts[1] - 4)))
    assert len(segments[0].codes[0, "speech"]) == 2
    assert len(segments[0].codes[0, "sfx"]) == 2
    assert [(problem.kind, problem.start_frame) for problem in reader.problems] == [("chunk", 0)]
    message = "speech is damaged in segment 0 (frames 0-6, 0.00-0.14 s): only its first 2 codebooks are used"
    assert reader.problems[0].message == message


def test_a_damaged_base_loses_that_stream_and_no_other() -> None:
    example = small_example()
    reader, segments = read_all(io.BytesIO(corrupt_byte(example.data, example.starts[1] - 33)))
    assert segments[0].codes.keys() == {(0, "sfx")}
    assert segments[0].silent == segments[0].removed == set()
    assert reader.problems[0].message.endswith("it is lost there")
    assert same_codes(segments[1], example.segments[1])


def test_damage_in_domains_that_nobody_asked_for_is_not_reported() -> None:
    example = small_example()
    reader = Reader(io.BytesIO(corrupt_byte(example.data, example.starts[1] - 33)))
    assert [segment.codes.keys() for segment in reader.segments(domains=["sfx"])] == [{(0, "sfx")}, set()]
    assert reader.problems == []


def test_the_channel_of_a_damaged_chunk_is_named() -> None:
    header = example_header(coded_channels=2)
    example = write_example(header, [random_codes(header, 7)], [7])
    reader, _ = read_all(io.BytesIO(corrupt_byte(example.data, example.starts[1] - 1)))
    assert reader.problems[0].message.startswith("sfx of channel 2 is damaged in segment 0")


def test_a_gap_is_reported_once_with_its_frames() -> None:
    example = long_example()
    for damaged in (
        corrupt_byte(corrupt_byte(example.data, example.starts[2]), example.starts[3] + 6),
        example.data[: example.starts[2]]
        + bytes(example.starts[4] - example.starts[2])
        + example.data[example.starts[4] :],
        example.data[: example.starts[2]] + example.data[example.starts[4] :],
        example.data[: example.starts[2]] + b"\xf5SDs" * 9 + example.data[example.starts[4] :],
    ):
        for reader, segments in check(damaged, example):
            assert [segment.sequence for segment in segments] == [0, 1, 4, 5, 6]
            assert [(problem.kind, problem.start_frame) for problem in reader.problems] == [("gap", 14)]
            assert "frames 14-27, 0.28-0.56 s" in reader.problems[0].message


def test_a_gap_outside_the_wanted_range_is_not_reported() -> None:
    example = long_example()
    damaged = corrupt_byte(example.data[: example.starts[-1]], example.starts[1])
    reader = Reader(io.BytesIO(damaged))
    assert [segment.sequence for segment in reader.segments(20, 30)] == [2, 3, 4]
    assert reader.problems == []


def test_missing_segments_at_the_end_are_a_gap() -> None:
    example = long_example()
    for reader, segments in check(example.data[: example.starts[5]] + example.tail, example):
        assert len(segments) == 5
        assert [(problem.kind, problem.start_frame) for problem in reader.problems] == [("gap", 35)]


def test_of_two_equal_segments_the_first_counts() -> None:
    example = long_example()
    twice = example.data[: example.starts[3]] + example.block(1) + example.data[example.starts[3] :]
    for reader, segments in check(twice, example):
        assert [segment.sequence for segment in segments] == list(range(7))
        assert kinds(reader) == ["order"]
        assert (
            "segment 1 (frames 7-13, 0.14-0.28 s) is ignored: it comes twice or too late" in reader.problems[0].message
        )


def test_segments_in_the_wrong_order_are_reported() -> None:
    example = long_example()
    order = [0, 2, 1, 3, 4, 5, 6]
    swapped = example.head + b"".join(example.block(number) for number in order) + example.tail
    for reader, segments in check(swapped, example):
        assert [segment.sequence for segment in segments] == [0, 2, 3, 4, 5, 6]
        assert kinds(reader) == ["gap", "order"]


def test_lost_and_inserted_bytes_cost_two_segments_at_most() -> None:
    example = long_example()
    chance = random.Random(0)
    for _ in range(300):
        position = chance.randrange(example.starts[0], example.starts[-1])
        lost, inserted = chance.choice([(1, 0), (5, 0), (0, 1), (0, 40), (3, 3)])
        damaged = example.data[:position] + chance.randbytes(inserted) + example.data[position + lost :]
        for reader, segments in check(damaged, example):
            intact = sum(same_codes(segment, example.segments[segment.sequence]) for segment in segments)
            assert intact >= len(example.segments) - 2
            assert reader.end == End(44, 1000)


def test_junk_between_segments_costs_nothing_but_is_reported() -> None:
    example = long_example()
    for junk in (b"\0", b"\xf5SDs", b"SDCE" * 3, b"abcd\x05", bytes(10_000)):
        data = example.data[: example.starts[2]] + junk + example.data[example.starts[2] :]
        for reader, segments in check(data, example):
            assert len(segments) == 7
            assert kinds(reader) == ["damage"]
            assert (
                f"bytes {example.starts[2]}-{example.starts[2] + len(junk)} are damaged" in reader.problems[0].message
            )


@pytest.mark.parametrize("junk", [b"\0", b"ID3", small_example().data])
def test_bytes_after_the_end_are_reported_and_ignored(junk: bytes) -> None:
    example = small_example()
    for reader, segments in check(example.data + junk, example):
        assert len(segments) == 2
        assert kinds(reader) == ["junk"]
        assert reader.end == End(10, 8_000)


def test_the_end_of_another_stream_is_not_taken_for_this_ones() -> None:
    example = small_example()
    assert Reader(io.BytesIO(example.data + long_example().data)).end is None


# --- blocks of other kinds


def test_skippable_blocks_are_skipped_in_silence() -> None:
    example = long_example()
    extra = block(b"cueX", b"\xf5SDs and SDCE inside") + block(b"zzzz", b"")
    data = example.data[: example.starts[3]] + extra + example.data[example.starts[3] :]
    for reader, segments in check(data, example):
        assert len(segments) == 7
        assert reader.problems == []


def test_unknown_blocks_that_matter_are_reported() -> None:
    example = small_example()
    data = example.data[: example.starts[1]] + block(b"NEWS", b"?") + example.data[example.starts[1] :]
    for reader, segments in check(data, example):
        assert len(segments) == 2
        assert kinds(reader) == ["block"]
        assert "block NEWS" in reader.problems[0].message


def test_damage_in_a_skippable_block_does_not_reach_the_segments() -> None:
    example = small_example()
    extra = block(b"cues", b"0123456789")
    start = example.starts[1]
    for bit in range(len(extra) * 8):
        damaged = bytearray(example.data[:start] + extra + example.data[start:])
        damaged[start + bit // 8] ^= 1 << bit % 8
        for reader, segments in check(bytes(damaged), example):
            assert len(segments) == 2
            assert len(reader.problems) == 1
            assert set(kinds(reader)) <= {"block", "damage"}


def test_a_skippable_block_that_lost_bytes_does_not_take_the_next_segment_with_it() -> None:
    example = small_example()
    extra = block(b"cues", b"0123456789")
    start = example.starts[1]
    data = example.data[:start] + extra[:-6] + example.data[start:]
    for reader, segments in check(data, example):
        assert len(segments) == 2
        assert "block" in kinds(reader)


def test_a_long_skippable_block_is_passed_over_in_bounded_memory() -> None:
    example = small_example()
    body = bytes(3_000_000)
    extra = with_checksum(b"cues" + varint(len(body))) + with_checksum(body)
    data = example.data[: example.starts[1]] + extra + example.data[example.starts[1] :]
    for fo in (io.BytesIO(data), pipe(data)):
        assert peak_memory(lambda fo=fo: read_all(fo)) < 1_000_000


# --- the index


def test_a_damaged_index_is_noticed_and_replaced_by_scanning() -> None:
    example = long_example()
    expected = [segment.sequence for segment in Reader(io.BytesIO(example.data)).segments(30)]
    for position in range(example.starts[-1], len(example.data) - 45):
        reader = Reader(io.BytesIO(corrupt_byte(example.data, position)))
        assert [segment.sequence for segment in reader.segments(30)] == expected
        assert "the index does not lead to frame 30" in reader.problems[0].message


def wrong_indexes() -> Iterator[bytes]:
    """Index bodies with correct checksums and wrong contents."""
    example = long_example()
    starts, lengths = list(example.starts[:-1]), list(example.lengths)

    def body(offsets: Sequence[int], frames: Sequence[int], count: int | None = None) -> bytes:
        deltas = np.diff([0, *offsets]).tolist()
        out = varint(len(offsets) if count is None else count)
        return out + b"".join(varint(delta) + varint(num) for delta, num in zip(deltas, frames, strict=True))

    yield body([start + 1 for start in starts], lengths)
    yield body([starts[0], *starts[2:], starts[-1] + 20], lengths)
    yield body(starts, [6, *lengths[1:-1], lengths[-1] + 1])
    yield body(starts, [*lengths[:-1], 1])
    yield body(starts[:-1], lengths[:-1])
    yield body(starts, lengths, count=3)
    yield body(starts, lengths, count=2**62)
    yield body([*starts[:-1], 2**40], lengths)
    yield body(starts, [0, *lengths[1:]])
    yield body([], [])
    yield b""
    yield body(starts, lengths) + b"\0"


@pytest.mark.parametrize("body", list(wrong_indexes()))
def test_an_index_that_lies_is_found_out(body: bytes) -> None:
    example = long_example()
    end = example.data[-45:]
    offset = example.starts[-1] + len(block(b"SIDX", body))
    end = block(b"SDCE", end[9:-12] + offset.to_bytes(8, "little"))
    data = example.data[: example.starts[-1]] + block(b"SIDX", body) + end
    reader = Reader(io.BytesIO(data))
    assert reader.end is not None
    for start in (5, 13, 30, 43):
        expected = list(Reader(pipe(example.data)).segments(start))
        found = list(reader.segments(start))
        assert [segment.sequence for segment in found] == [segment.sequence for segment in expected]
        assert all(same_codes(segment, example.segments[segment.sequence]) for segment in found)


def test_an_end_that_cannot_be_true_is_not_believed() -> None:
    example = small_example()
    place = (len(example.data) - 45).to_bytes(8, "little")
    for total, samples in ((10, 11 * 882 + 1), (10, 2**64 - 1), (2**63, 100)):
        body = total.to_bytes(8, "little") + samples.to_bytes(8, "little") + bytes(8) + place
        reader, segments = read_all(io.BytesIO(example.data[:-45] + block(b"SDCE", body)))
        assert len(segments) == 2
        assert reader.end is None
        assert kinds(reader) == ["truncated"]


def test_segments_beyond_the_announced_end_are_reported() -> None:
    example = small_example()
    place = (len(example.data) - 45).to_bytes(8, "little")
    end = block(b"SDCE", (7).to_bytes(8, "little") + bytes(16) + place)
    assert kinds(read_all(io.BytesIO(example.data[:-45] + end))[0]) == ["order"]
    assert kinds(read_all(pipe(example.data[:-45] + end))[0]) == ["block"]


# --- bytes made to deceive: every checksum is right


def segment_bytes(fields: bytes, payload: bytes = b"") -> bytes:
    return with_checksum(b"\xf5SDs" + varint(len(fields)) + fields) + payload


def read_segments(data: bytes) -> tuple[Reader, list[Segment]]:
    """`data` after the header of the example, which has streams 0 and 1 with two layer groups each."""
    return read_all(io.BytesIO(encode_header(example_header()) + data))


def chunk(stream: int, group: int, data: bytes, coding: int = 0, length: int | None = None) -> bytes:
    length = len(data) if length is None else length
    return bytes([stream, group << 4 | coding]) + varint(length) + with_checksum(data)[-4:]


speech_base, speech_top, sfx_base = bytes(3), bytes(2), bytes(1)


def test_the_deceptions_below_start_from_something_valid() -> None:
    fields = b"\0\0\1" + b"\0" + b"\3" + chunk(0, 0, speech_base) + chunk(1, 0, sfx_base) + chunk(0, 1, speech_top)
    reader, (segment,) = read_segments(segment_bytes(fields, speech_base + sfx_base + speech_top))
    assert {key: codes.shape for key, codes in segment.codes.items()} == {(0, "speech"): (3, 1), (0, "sfx"): (1, 1)}
    assert kinds(reader) == ["truncated"]


@pytest.mark.parametrize(
    "fields",
    [
        b"",
        b"\0\0\0\0\0",
        b"\0\0\x08\0\0",
        b"\0\0\1\x04\0",
        b"\0\0\1\0\1",
        b"\0\0\1\0\0\0",
        b"\0\0\1\0\xff\xff\xff\x7f",
        b"\0" + varint(2**40) + b"\1\0\0",
        b"\0" + b"\xff" * 9 + b"\1\0\0",
        b"\0\x80\0\1\0\0",
        b"\0\0\1\0\1" + chunk(2, 0, speech_base),
        b"\0\0\1\0\1" + chunk(0, 2, speech_base),
        b"\0\0\1\0\1" + chunk(0, 1, speech_top),
        b"\0\0\1\1\1" + chunk(0, 0, speech_base),
        b"\0\0\1\0\2" + chunk(0, 0, speech_base) * 2,
        b"\0\0\1\0\2" + chunk(1, 0, sfx_base) + chunk(0, 0, speech_base),
        b"\0\0\1\0\2" + chunk(0, 0, speech_base) + chunk(0, 1, speech_top) + b"x",
        b"\0\0\1\0\1" + chunk(0, 0, speech_base, length=2),
        b"\0\0\1\0\1" + chunk(0, 0, speech_base, length=4),
        b"\0\0\1\0\1" + chunk(0, 0, speech_base, length=2**31),
        b"\0\0\1\0\1" + chunk(0, 0, speech_base, coding=1, length=2**31),
    ],
)
def test_a_segment_head_that_makes_no_sense_is_passed_over(fields: bytes) -> None:
    good = segment_bytes(b"\0\0\1\3\0")
    reader, segments = read_segments(segment_bytes(fields, speech_base) + good)
    assert [segment.silent for segment in segments] == [{(0, "speech"), (0, "sfx")}]
    assert kinds(reader) == ["damage", "truncated"]


@pytest.mark.parametrize(
    ("sequence", "start"),
    [(0, 1), (1, 0), (1, 8), (2, 1), (2, 15), (2**50, 5)],
)
def test_a_segment_whose_number_does_not_fit_its_time_is_ignored(sequence: int, start: int) -> None:
    reader, segments = read_segments(segment_bytes(varint(sequence) + varint(start) + b"\1\3\0"))
    assert segments == []
    assert kinds(reader) == ["order", "truncated"]


def test_codes_beyond_the_codebook_are_damage() -> None:
    payload = b"\x05"
    reader, (segment,) = read_segments(segment_bytes(b"\0\0\1\0\1" + chunk(1, 0, payload), payload))
    assert segment.codes == {}
    assert kinds(reader) == ["chunk", "truncated"]


def test_padding_that_is_not_zero_is_damage() -> None:
    payload = b"\x08"
    reader, (segment,) = read_segments(segment_bytes(b"\0\0\1\0\1" + chunk(1, 0, payload), payload))
    assert segment.codes == {}
    assert kinds(reader) == ["chunk", "truncated"]


def test_a_coding_of_the_future_loses_its_chunk_only() -> None:
    fields = b"\0\0\1\0\2" + chunk(0, 0, b"ab", coding=1) + chunk(1, 0, sfx_base)
    reader, (segment,) = read_segments(segment_bytes(fields, b"ab" + sfx_base))
    assert segment.codes.keys() == {(0, "sfx")}
    assert kinds(reader) == ["chunk", "truncated"]


def test_problems_are_listed_up_to_a_limit() -> None:
    late = segment_bytes(b"\0\0\1\3\0")
    segments = b"".join(segment_bytes(varint(n) + varint(n) + b"\1\3\0") for n in range(1200))
    damaged = b"".join(
        segment_bytes(varint(n) + varint(n) + b"\1\0\1" + chunk(1, 0, b"\x07"), b"\x07") for n in range(1200, 2400)
    )
    reader, found = read_segments(segments + late + damaged)
    assert len(found) == 2400
    assert len(reader.problems) == MAX_PROBLEMS + 1
    assert reader.problems[-1].kind == "more"


def test_mutations_with_valid_checksums_never_break_the_reader() -> None:
    example = long_example(3)
    chance = random.Random(1)
    for _ in range(1500):
        data = b"".join(mutated_blocks(example, chance))
        for fo in (io.BytesIO(data), pipe(data, most=chance.choice([1, 13, 9999]))):
            try:
                reader = Reader(fo)
            except StreamError:
                continue
            check_sanity(reader, list(reader.segments(chance.choice([0, 0, 0, 5, 30]))))


def mutated_blocks(example: Example, chance: random.Random) -> Iterator[bytes]:
    """The blocks of a stream, some with bytes replaced, removed or inserted before their checksum was computed."""

    def mutate(data: bytes, probability: float) -> bytes:
        if chance.random() > probability or not data:
            return data
        out = bytearray(data)
        for _ in range(chance.choice([1, 1, 2, 5])):
            position = chance.randrange(len(out))
            replacement = bytes([chance.choice([0, 1, 2, 0x7F, 0x80, 0xFF, chance.randrange(256)])])
            out[position : position + chance.choice([0, 1, 1, 1, 2])] = replacement
        return bytes(out)

    body = mutate(example.head[18:-4], 0.2)
    yield with_checksum(example.head[:14] + len(body).to_bytes(4, "little") + body)
    for number in range(len(example.segments)):
        data = example.block(number)
        stop = 5 + data[4]
        yield segment_bytes(mutate(data[5:stop], 0.4), mutate(data[stop + 4 :], 0.1))
    index, end = example.tail[:-45], example.tail[-45:]
    yield block(b"SIDX", mutate(index[9:-4], 0.3))
    yield block(b"SDCE", mutate(end[9:-4], 0.3))


def check_sanity(reader: Reader, segments: Sequence[Segment]) -> None:
    """What must hold of any result, of whatever bytes."""
    stop = 0
    for segment in segments:
        assert segment.start_frame >= stop
        assert 1 <= segment.num_frames <= reader.header.segment_frames
        stop = segment.start_frame + segment.num_frames
        for key, codes in segment.codes.items():
            entry = reader.header.domain_of(reader.header.streams.index(key))
            assert codes.shape[1] == segment.num_frames
            assert len(codes) <= entry.num_codebooks
            assert codes.min() >= 0
            assert codes.max() < entry.codebook_size
            assert key not in segment.silent | segment.removed


def test_garbage_after_the_magic_never_breaks_the_reader() -> None:
    chance = random.Random(2)
    header = encode_header(example_header())
    for _ in range(300):
        garbage = chance.randbytes(chance.randrange(300))
        with pytest.raises(StreamError):
            Reader(io.BytesIO(b"\x89SDC\r\n\x1a\n" + garbage))
        words = [b"\xf5SDs", b"SIDX", b"SDCE", b"\xff" * 5, b"\0\0", garbage[:40]]
        data = header + b"".join(chance.choice(words) for _ in range(20))
        for fo in (io.BytesIO(data), pipe(data, most=7)):
            reader, segments = read_all(fo)
            assert segments == []
            assert kinds(reader) == ["truncated"]


# --- memory


def peak_memory(action: Callable[[], object]) -> int:
    tracemalloc.start()
    action()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def liars() -> Iterator[bytes]:
    """Streams of a few bytes that announce gigabytes, with correct checksums where that takes them further."""
    many = tuple(DomainEntry(name=f"d{n}", num_codebooks=64, codebook_size=65_536, groups=(4,) * 16) for n in range(16))
    wide = example_header(original_channels=16, coded_channels=16, domains=many, segment_frames=500)
    header = encode_header(example_header())
    huge = varint(2**31)
    yield header + with_checksum(b"cues" + huge)
    yield header + with_checksum(b"SIDX" + huge) + bytes(100)
    yield header + with_checksum(b"SDCE" + huge)
    yield header + b"\xf5SDs" + huge + bytes(100)
    yield header + segment_bytes(b"\0\0\1\0" + huge)
    yield encode_header(wide) + b"\xf5SDs" + varint(60_000) + bytes(10)
    # 4096 chunks of 4000 bytes, of which none is there.
    entries = b"".join(
        varint(stream) + bytes([group << 4]) + varint(4000) + bytes(4) for group in range(16) for stream in range(256)
    )
    yield encode_header(wide) + segment_bytes(b"\0\0" + varint(500) + bytes(32) + varint(4096) + entries)
    count = block(b"SIDX", varint(2**60))
    place = (len(header) + len(count)).to_bytes(8, "little")
    numbers = (100).to_bytes(8, "little") + bytes(8) + len(header).to_bytes(8, "little") + place
    yield header + count + block(b"SDCE", numbers)


@pytest.mark.parametrize("data", list(liars()))
def test_announced_gigabytes_are_not_allocated(data: bytes) -> None:
    for fo in (io.BytesIO(data), pipe(data)):
        assert peak_memory(lambda fo=fo: list(Reader(fo).segments(start_frame=50))) < 8_000_000


def swellers() -> Iterator[tuple[bytes, CodeTables | None]]:
    """Streams whose few bytes are rightly many codes: of one bit each, or range-coded, where zeros need no bytes."""

    def segment(header: Header, num_frames: int, coding: int) -> bytes:
        entry, num_streams = header.domains[0], len(header.streams)
        data = b"" if coding else bytes(entry.chunk_bytes(0, num_frames))
        entries = b"".join(
            varint(stream) + bytes([group << 4 | coding]) + varint(len(data)) + zlib.crc32(data).to_bytes(4, "little")
            for group in range(len(entry.groups))
            for stream in range(num_streams)
        )
        count = num_streams * len(entry.groups)
        fields = b"\0\0" + varint(num_frames) + bytes((num_streams + 7) // 8) + varint(count) + entries
        return segment_bytes(fields, data * count)

    def wide(num_codebooks: int, size: int, channels: int, tables: bytes | None = None) -> Header:
        domains = (
            DomainEntry(name="speech", num_codebooks=num_codebooks, codebook_size=size, groups=(num_codebooks,)),
        )
        return example_header(
            original_channels=channels,
            coded_channels=channels,
            domains=domains,
            segment_frames=500,
            tables_sha256=tables,
        )

    most, tables = wide(64, 2, 32), range_coded_tables()
    yield encode_header(most) + segment(most, 500, RAW), None
    more = wide(64, 2, 33)  # one channel more than a segment may hold: damage
    yield encode_header(more) + segment(more, 500, RAW), None
    coded = wide(3, 16, 255, tables.sha256)
    yield encode_header(coded) + segment(coded, 200, RANGE), tables


@pytest.mark.parametrize(("data", "tables"), list(swellers()))
def test_few_bytes_are_never_more_than_64_mib_of_codes(data: bytes, tables: CodeTables | None) -> None:
    def read(fo: BinaryIO) -> None:
        reader = Reader(fo)
        reader.tables = tables
        for _ in reader.segments():
            pass

    assert len(data) < 200_000
    assert peak_memory(lambda: read(io.BytesIO(data))) < 2**26


def test_memory_stays_bounded_whatever_bit_is_flipped() -> None:
    example = small_example()
    for bit in range(len(example.head) * 8, len(example.data) * 8, 19):
        damaged = bytearray(example.data)
        damaged[bit // 8] ^= 1 << bit % 8
        assert peak_memory(lambda data=bytes(damaged): list(check(data, example))) < 500_000


def test_a_long_pipe_is_read_in_constant_memory() -> None:
    header = example_header(segment_frames=100)
    fo = io.BytesIO()
    writer = Writer(fo, header)
    codes = random_codes(header, 100)
    for _ in range(2500):
        writer.write(codes)
    writer.close(0)
    source = pipe(fo.getvalue())
    assert writer.bytes_written > 1_000_000
    assert peak_memory(lambda: sum(1 for _ in Reader(source).segments())) < 300_000


def test_damage_is_searched_in_constant_memory() -> None:
    data = encode_header(example_header()) + random.Random(3).randbytes(2_000_000)
    for fo in (io.BytesIO(data), pipe(data)):
        assert peak_memory(lambda fo=fo: read_all(fo)) < 300_000
