"""Envelopes in a stream: band gains in units of their own, which a reader may do without."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable
from typing import Any, BinaryIO, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdcodec_cli.bitstream import GainLayout, Header, Reader, Segment, Writer
from sdcodec_cli.bitstream.codings import GAIN_CODINGS, LOWEST_GAIN, NUM_GAINS, RANGE, RAW
from sdcodec_cli.bitstream.header import encode_header
from sdcodec_cli.bitstream.segment import ENVELOPE, EnvelopeUnit, encode_envelope, parse_envelope
from sdcodec_cli.bitstream.wire import varint
from sdcodec_cli.errors import CorruptStream

from bitstream_examples import (
    LAYOUT,
    CountingFile,
    Example,
    Pipe,
    block,
    envelope_example,
    example_header,
    pipe,
    random_codes,
    random_gains,
    read_all,
    same_codes,
    same_gains,
    with_checksum,
    write_example,
)


def kinds(reader: Reader) -> list[str]:
    return [problem.kind for problem in reader.problems]


def one_segment(**gains: Any) -> Example:
    """A segment of one channel, with gains or without."""
    header = example_header(envelope=LAYOUT)
    given = {0: random_gains(LAYOUT, 7)} if not gains else gains["gains"]
    return write_example(header, [random_codes(header, 7)], [7], gains=[given])


def units(example: Example, number: int) -> list[bytes]:
    """The segment with this number and what follows it, cut where the next unit begins."""
    data = example.block(number)
    starts = [0, *(place for place in range(len(data)) if data[place : place + 4] == ENVELOPE), len(data)]
    return [data[start:stop] for start, stop in itertools.pairwise(starts)]


def with_unit(change: Callable[[bytes], bytes]) -> tuple[Reader, Segment]:
    """What is read of one segment, when the body of its envelope is another one."""
    example = one_segment()
    segment, envelope = units(example, 0)
    data = example.head + segment + block(ENVELOPE, change(envelope[9:-4]))
    reader, (found,) = read_all(io.BytesIO(data))
    assert same_codes(found, example.segments[0])
    assert kinds(reader)[-1] == "truncated"
    reader.problems.pop()
    return reader, found


@pytest.mark.parametrize("delivery", ["file", "pipe", "drops"])
def test_gains_come_back_with_their_segments(delivery: str) -> None:
    example = envelope_example()
    sources = {"file": io.BytesIO(example.data), "pipe": pipe(example.data), "drops": pipe(example.data, most=1)}
    reader, segments = read_all(sources[delivery])
    assert reader.header == example.header
    assert reader.version == (1, 1)
    assert reader.problems == []
    for segment, codes, gains in zip(segments, example.segments, example.gains, strict=True):
        assert same_codes(segment, codes)
        assert same_gains(segment, gains)
        assert all(found.dtype == np.int64 for found in segment.gains.values())


def test_a_stream_that_has_no_envelope_is_of_version_1_0() -> None:
    header = example_header()
    example = write_example(header, [random_codes(header, 7)], [7])
    assert Reader(io.BytesIO(example.data)).version == (1, 0)


def test_an_envelope_stands_behind_its_segment_for_each_channel_that_has_one() -> None:
    example = envelope_example()
    assert [len(units(example, number)) for number in range(4)] == [3, 2, 1, 3]
    segment, first, second = units(example, 3)
    assert segment.startswith(b"\xf5SDs")
    for channel, unit in enumerate((first, second)):
        assert unit[:4] == b"senv"
        assert unit == block(b"senv", unit[9:-4])
        # Segment 3, then the channel.
        assert unit[9:11] == bytes([3, channel])


def test_the_bytes_of_gains_are_counted_as_payload() -> None:
    example = envelope_example()
    fo = io.BytesIO()
    writer = Writer(fo, example.header)
    stored = []
    for codes, gains in zip(example.segments, example.gains, strict=True):
        before = writer.payload_bytes - writer.gains_bytes
        writer.write(codes, gains=gains)
        stored.append(writer.payload_bytes - writer.gains_bytes - before)
    _, segments = read_all(io.BytesIO(example.data))
    assert writer.gains_bytes == sum(segment.gains_bytes for segment in segments) > 0
    assert [sum(segment.num_bytes.values()) for segment in segments] == stored
    # Sequence, channel, coding; head of 9 and checksum of 4.
    assert sum(len(unit) - 16 for number in range(4) for unit in units(example, number)[1:]) == writer.gains_bytes


def test_gains_are_found_by_seeking() -> None:
    example = envelope_example()
    fo = CountingFile(example.data)
    segments = list(Reader(fo).segments(start_frame=8, stop_frame=14))
    assert [segment.sequence for segment in segments] == [1]
    assert same_gains(segments[0], example.gains[1])
    assert not fo.seen & set(range(example.starts[0], example.starts[1]))


@pytest.mark.parametrize(("start", "stop"), [(0, 7), (6, 8), (20, None), (21, 30), (0, None)])
def test_seeking_gives_the_same_gains_as_scanning(start: int, stop: int | None) -> None:
    example = envelope_example()
    sources = io.BytesIO(example.data), io.BytesIO(example.data[: example.starts[-1]]), pipe(example.data)
    for fo in sources:
        for segment in Reader(fo).segments(start, stop):
            assert same_gains(segment, example.gains[segment.sequence])


def test_gains_come_with_a_segment_of_which_only_one_domain_is_wanted() -> None:
    example = envelope_example()
    for segment in Reader(io.BytesIO(example.data)).segments(domains=["sfx"]):
        assert same_gains(segment, example.gains[segment.sequence])


def test_an_envelope_that_was_taken_out_leaves_no_gains_and_no_problem() -> None:
    example = envelope_example()
    without = example.head + b"".join(units(example, number)[0] for number in range(4))
    reader, segments = read_all(io.BytesIO(without))
    assert kinds(reader) == ["truncated"]
    assert all(same_codes(segment, codes) for segment, codes in zip(segments, example.segments, strict=True))
    assert all(segment.gains == {} and segment.gains_bytes == 0 for segment in segments)
    # Of two channels, the first one's alone.
    segment, _, second = units(example, 0)
    reader, (found,) = read_all(io.BytesIO(example.head + segment + second))
    assert same_gains(found, {1: example.gains[0][1]})
    assert kinds(reader) == ["truncated"]


def test_a_reader_that_does_not_know_envelopes_passes_over_them_in_silence() -> None:
    """Version 1.0 skips field 8, which is even, and units of a type that begins with a small letter."""
    example = envelope_example()
    old = encode_header(example_header(coded_channels=2))
    for data in (example.data, example.data[: example.starts[-1]]):
        reader, segments = read_all(io.BytesIO(old + data[len(example.head) :]))
        assert reader.header.envelope is None
        assert set(kinds(reader)) <= {"truncated"}
        assert all(same_codes(segment, codes) for segment, codes in zip(segments, example.segments, strict=True))
        assert all(segment.gains == {} for segment in segments)


def test_every_flipped_bit_of_an_envelope_costs_this_one_alone() -> None:
    example = envelope_example()
    segment, *envelopes = units(example, 0)
    for channel, start in ((0, len(segment)), (1, len(segment) + len(envelopes[0]))):
        for bit in range(8 * len(envelopes[channel])):
            damaged = bytearray(example.data)
            damaged[example.starts[0] + start + bit // 8] ^= 1 << bit % 8
            for fo in (io.BytesIO(damaged), pipe(bytes(damaged))):
                reader, segments = read_all(fo)
                assert all(same_codes(found, codes) for found, codes in zip(segments, example.segments, strict=True))
                assert all(same_gains(segments[number], example.gains[number]) for number in (1, 2, 3))
                for other, gains in segments[0].gains.items():
                    assert np.array_equal(gains, example.gains[0][other])
                assert channel not in segments[0].gains
                assert reader.problems


def test_damaged_gains_are_named_with_their_time() -> None:
    example = envelope_example()
    damaged = bytearray(example.data)
    damaged[example.starts[2] - 5] ^= 1  # the last byte of the gains of segment 1
    reader, segments = read_all(io.BytesIO(damaged))
    assert segments[1].gains == {}
    assert segments[1].gains_bytes == 0
    assert [(problem.kind, problem.start_frame) for problem in reader.problems] == [("envelope", 7)]
    message = "an envelope is damaged in segment 1 (frames 7-13, 0.14-0.28 s): it sounds duller"
    assert reader.problems[0].message == message


def test_an_envelope_whose_head_is_damaged_is_passed_over() -> None:
    example = envelope_example()
    damaged = bytearray(example.data)
    damaged[example.starts[1] + len(units(example, 1)[0])] ^= 1
    reader, segments = read_all(io.BytesIO(damaged))
    assert segments[1].gains == {}
    assert [(problem.kind, problem.start_frame) for problem in reader.problems] == [("damage", None)]


def test_a_stream_cut_anywhere_gives_the_codes_that_are_whole_and_never_wrong_gains() -> None:
    example = envelope_example()
    for size in range(len(example.head), len(example.data)):
        for fo in (io.BytesIO(example.data[:size]), pipe(example.data[:size], most=50)):
            reader, segments = read_all(fo)
            assert kinds(reader)[-1] == "truncated"
            for number, segment in enumerate(segments):
                stop = example.starts[number] + len(units(example, number)[0])
                assert stop > size or same_codes(segment, example.segments[number])
                assert all(
                    np.array_equal(gains, example.gains[number][channel]) for channel, gains in segment.gains.items()
                )
                assert example.starts[number + 1] > size or same_gains(segment, example.gains[number])


@pytest.mark.parametrize("size", [1, 9, 12, -1])
def test_a_cut_through_an_envelope_leaves_its_segment(size: int) -> None:
    example = one_segment()
    segment, envelope = units(example, 0)
    reader, (found,) = read_all(io.BytesIO(example.head + segment + envelope[:size]))
    assert same_codes(found, example.segments[0])
    assert found.gains == {}
    assert kinds(reader)[-1] == "truncated"


def test_an_unknown_coding_is_reported_and_the_codes_are_used() -> None:
    reader, segment = with_unit(lambda body: body[:2] + b"\x02" + body[3:])
    assert segment.gains == {}
    assert kinds(reader) == ["envelope"]


def test_an_envelope_of_another_segment_is_not_applied_to_this_one() -> None:
    reader, segment = with_unit(lambda body: b"\x01" + body[1:])
    assert segment.gains == {}
    assert kinds(reader) == ["envelope"]


def test_an_envelope_of_a_channel_that_is_not_there_is_reported() -> None:
    reader, segment = with_unit(lambda body: body[:1] + b"\x01" + body[2:])
    assert segment.gains == {}
    assert kinds(reader) == ["envelope"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\0",
        b"\0\0",
        b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80",
        b"\0\0\0" + bytes(5),
        b"\0\0\0" + bytes(7),
        b"\0\0\0" + b"\x99" * 6,
        b"\0\0\1" + b"\xff" * 8,
        b"\0\0\1" + bytes(40),
    ],
)
def test_a_body_that_stands_for_no_gains_is_reported(body: bytes) -> None:
    reader, segment = with_unit(lambda _: body)
    assert segment.gains == {}
    assert kinds(reader) == ["envelope"]


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=100), st.sampled_from([b"", b"\0\0\0", b"\0\0\1"]))
def test_a_body_of_any_bytes_gives_gains_or_is_reported(body: bytes, begin: bytes) -> None:
    reader, segment = with_unit(lambda _: begin + body)
    assert kinds(reader) == ([] if segment.gains else ["envelope"])
    for gains in segment.gains.values():
        assert gains.shape == (3, 4)
        assert gains.min() >= LOWEST_GAIN
        assert gains.max() < LOWEST_GAIN + NUM_GAINS


def test_an_envelope_that_announces_gigabytes_costs_no_memory() -> None:
    example = one_segment()
    segment, _ = units(example, 0)
    data = example.head + segment + with_checksum(ENVELOPE + varint(2**31))
    reader, (found,) = read_all(pipe(data))  # which refuses to be asked for more than 64 KiB
    assert found.gains == {}
    assert "envelope" in kinds(reader)


def test_a_pipe_is_waited_for_only_where_an_envelope_may_come() -> None:
    header = example_header()
    plain = write_example(header, [random_codes(header, 7)] * 2, [7, 7])
    shaped = one_segment()

    def live(example: Example, arrived: int) -> Segment:
        class Live(Pipe):
            def read(self, size: int = -1) -> bytes:
                assert self._fo.tell() + size <= arrived, "this read would block"
                return super().read(size)

        return next(Reader(cast(BinaryIO, Live(example.data))).segments())

    assert same_codes(live(plain, plain.starts[1]), plain.segments[0])
    # All that belongs to this segment is there: that it has one channel only is known.
    assert same_gains(live(shaped, shaped.starts[1]), shaped.gains[0])


# --- the writer


def body_of(gains: Any) -> EnvelopeUnit:
    (_, envelope) = units(one_segment(gains={0: gains}), 0)
    return parse_envelope(envelope[9:-4])


def test_likely_gains_are_range_coded_and_unlikely_ones_are_raw() -> None:
    shape = 3, 4
    assert body_of(np.zeros(shape, dtype=int)).coding == RANGE
    unlikely = np.where(np.arange(12).reshape(shape) % 2, LOWEST_GAIN, LOWEST_GAIN + NUM_GAINS - 1)
    assert body_of(unlikely).coding == RAW
    assert len(body_of(unlikely).data) == 12 * 4 // 8


@pytest.mark.parametrize("coding", [RAW, RANGE])
def test_a_writer_may_use_either_coding(coding: int) -> None:
    gains = random_gains(LAYOUT, 7)
    data = GAIN_CODINGS[coding].encode(gains - LOWEST_GAIN, NUM_GAINS)
    reader, segment = with_unit(lambda _: encode_envelope(EnvelopeUnit(0, 0, coding, data)))
    assert same_gains(segment, {0: gains})
    assert reader.problems == []


@pytest.mark.parametrize(
    ("gains", "message"),
    [
        ({0: np.zeros((3, 3), int)}, r"gains must be \[3, 4\] integers from -3 to 5"),
        ({0: np.zeros((2, 4), int)}, r"gains must be \[3, 4\]"),
        ({0: np.zeros((3, 4))}, r"gains must be \[3, 4\] integers"),
        ({0: np.full((3, 4), -4)}, "from -3 to 5"),
        ({0: np.full((3, 4), 6)}, "from -3 to 5"),
        ({1: np.zeros((3, 4), int)}, "no channel 1 in a stream of 1"),
    ],
)
def test_gains_that_do_not_fit_the_header_are_a_wrong_call(gains: Any, message: str) -> None:
    fo = io.BytesIO()
    writer = Writer(fo, example_header(envelope=LAYOUT))
    before = fo.getvalue()
    with pytest.raises(ValueError, match=message):
        writer.write(random_codes(example_header(), 7), gains=gains)
    assert fo.getvalue() == before


def test_gains_need_a_header_that_says_what_they_are_for() -> None:
    writer = Writer(io.BytesIO(), example_header())
    with pytest.raises(ValueError, match="gains in a stream whose header has no envelope"):
        writer.write(random_codes(example_header(), 7), gains={0: random_gains(LAYOUT, 7)})


# --- the layout in the header


@pytest.mark.parametrize(
    "layout",
    [
        LAYOUT,
        GainLayout(frames=1, step_db=1 / 16, edges=(0, 1)),
        GainLayout(frames=255, step_db=255 / 16, edges=(*range(64), 1_000_000)),
    ],
)
def test_the_layout_is_in_the_header(layout: GainLayout) -> None:
    header = example_header(envelope=layout)
    assert Reader(io.BytesIO(encode_header(header))).header == header


@pytest.mark.parametrize(
    "change",
    [
        {"frames": 0},
        {"frames": 256},
        {"step_db": 0.0},
        {"step_db": 16.0},
        {"step_db": 0.1},
        {"step_db": float("nan")},
        {"edges": ()},
        {"edges": (300,)},
        {"edges": (300, 300)},
        {"edges": (300, 200)},
        {"edges": (-1, 200)},
        {"edges": (300, 1_000_001)},
        {"edges": tuple(range(66))},
    ],
)
def test_a_layout_that_a_header_cannot_state_is_a_wrong_call(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must"):
        GainLayout(**({"frames": 2, "step_db": 4.0, "edges": (320, 8000)} | change))


@pytest.mark.parametrize(
    "value",
    [
        *(b"", b"\x02", b"\x02\x40\x00\x00", b"\0\x40\1\0\1", b"\2\0\1\0\1"),
        *(b"\2\x40\1\1\1", b"\2\x40\1\0", b"\2\x40\1\0\1\2"),
    ],
)
def test_a_layout_that_makes_no_sense_is_refused_even_with_a_valid_checksum(value: bytes) -> None:
    body = encode_header(example_header())[18:-4] + b"\x08" + bytes([len(value)]) + value
    head = b"\x89SDC\r\n\x1a\n\x01\x01" + bytes(4) + len(body).to_bytes(4, "little")
    with pytest.raises(CorruptStream, match=r"^talk\.sdc: the header makes no sense: [^\n]+$"):
        Reader(io.BytesIO(with_checksum(head + body)), "talk.sdc")


def test_gains_of_a_segment_become_those_of_its_frames() -> None:
    gains = np.array([[1, 2, 3, 4]])
    assert LAYOUT.num_columns(7) == LAYOUT.num_columns(8) == 4
    assert LAYOUT.per_frame(gains, 7).tolist() == [[1, 1, 2, 2, 3, 3, 4]]


def test_a_header_says_nothing_of_an_envelope_unless_it_has_one() -> None:
    plain: Header = example_header()
    assert encode_header(example_header(envelope=None)) == encode_header(plain)
    assert encode_header(plain)[9] == 0
    assert encode_header(example_header(envelope=LAYOUT))[9] == 1
