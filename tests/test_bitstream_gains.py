"""Envelopes and treble in a stream: band gains in units of their own, which a reader may do without."""

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
from sdcodec_cli.bitstream.codings import RANGE, RAW
from sdcodec_cli.bitstream.fields import encode_header
from sdcodec_cli.bitstream.segment import GainsUnit, encode_gains, parse_gains
from sdcodec_cli.bitstream.wire import varint
from sdcodec_cli.errors import CorruptStream

from bitstream_examples import (
    ENVELOPES,
    TREBLES,
    CountingFile,
    Example,
    Kind,
    Pipe,
    block,
    example_header,
    gains_example,
    pipe,
    random_codes,
    random_gains,
    read_all,
    same_codes,
    same_gains,
    with_checksum,
    write_example,
)


@pytest.fixture(scope="module", params=[ENVELOPES, TREBLES], ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> Kind:
    return cast(Kind, request.param)


def problems(reader: Reader) -> list[str]:
    return [problem.kind for problem in reader.problems]


def one_segment(kind: Kind, **gains: Any) -> Example:
    """A segment of one channel, with gains or without."""
    header = kind.header()
    given = {0: random_gains(kind, 7)} if not gains else gains["gains"]
    return write_example(header, [random_codes(header, 7)], [7], **{kind.key: [given]})


def units(example: Example, number: int) -> list[bytes]:
    """The segment with this number and what follows it, cut where the next unit begins."""
    data = example.block(number)
    starts = [place for place in range(len(data)) if data[place : place + 4] in (ENVELOPES.unit, TREBLES.unit)]
    return [data[start:stop] for start, stop in itertools.pairwise([0, *starts, len(data)])]


def with_unit(kind: Kind, change: Callable[[bytes], bytes]) -> tuple[Reader, Segment]:
    """What is read of one segment, when the body of its gains is another one."""
    example = one_segment(kind)
    segment, unit = units(example, 0)
    data = example.head + segment + block(kind.unit, change(unit[9:-4]))
    reader, (found,) = read_all(io.BytesIO(data))
    assert same_codes(found, example.segments[0])
    assert problems(reader)[-1] == "truncated"
    reader.problems.pop()
    return reader, found


@pytest.mark.parametrize("delivery", ["file", "pipe", "drops"])
@pytest.mark.parametrize("kinds", [[ENVELOPES], [TREBLES], [ENVELOPES, TREBLES]])
def test_gains_come_back_with_their_segments(kinds: list[Kind], delivery: str) -> None:
    example = gains_example(*kinds)
    sources = {"file": io.BytesIO(example.data), "pipe": pipe(example.data), "drops": pipe(example.data, most=1)}
    reader, segments = read_all(sources[delivery])
    assert reader.header == example.header
    assert reader.version == (1, max(kind.minor for kind in kinds))
    assert reader.problems == []
    for number, (segment, codes) in enumerate(zip(segments, example.segments, strict=True)):
        assert same_codes(segment, codes)
        for kind in (ENVELOPES, TREBLES):
            assert same_gains(kind.of(segment), kind.of(example)[number])
            assert all(found.dtype == np.int64 for found in kind.of(segment).values())


def test_a_stream_that_has_no_gains_is_of_version_1_0() -> None:
    header = example_header()
    example = write_example(header, [random_codes(header, 7)], [7])
    assert Reader(io.BytesIO(example.data)).version == (1, 0)


def test_gains_stand_behind_their_segment_for_each_channel_that_has_any(kind: Kind) -> None:
    example = gains_example(kind)
    assert [len(units(example, number)) for number in range(4)] == [3, 2, 1, 3]
    segment, first, second = units(example, 3)
    assert segment.startswith(b"\xf5SDs")
    for channel, unit in enumerate((first, second)):
        assert unit == block({"envelope": b"senv", "treble": b"strb"}[kind.name], unit[9:-4])
        # Segment 3, then the channel.
        assert unit[9:11] == bytes([3, channel])


def test_treble_stands_behind_the_envelopes_that_older_readers_look_for() -> None:
    example = gains_example(ENVELOPES, TREBLES)
    assert [unit[:4] for unit in units(example, 0)[1:]] == [b"senv", b"senv", b"strb", b"strb"]


def test_the_bytes_of_gains_are_counted_as_payload(kind: Kind) -> None:
    example = gains_example(kind)
    fo = io.BytesIO()
    writer = Writer(fo, example.header)
    stored = []
    for codes, gains in zip(example.segments, kind.of(example), strict=True):
        before = writer.payload_bytes - kind.num_bytes(writer)
        writer.write(codes, **{kind.key: gains})
        stored.append(writer.payload_bytes - kind.num_bytes(writer) - before)
    _, segments = read_all(io.BytesIO(example.data))
    assert kind.num_bytes(writer) == sum(map(kind.num_bytes, segments)) > 0
    assert writer.gains_bytes + writer.treble_bytes == kind.num_bytes(writer)
    assert [sum(segment.num_bytes.values()) for segment in segments] == stored
    # Sequence, channel, coding; head of 9 and checksum of 4.
    assert sum(len(unit) - 16 for number in range(4) for unit in units(example, number)[1:]) == kind.num_bytes(writer)


def test_gains_are_found_by_seeking(kind: Kind) -> None:
    example = gains_example(kind)
    fo = CountingFile(example.data)
    segments = list(Reader(fo).segments(start_frame=8, stop_frame=14))
    assert [segment.sequence for segment in segments] == [1]
    assert same_gains(kind.of(segments[0]), kind.of(example)[1])
    assert not fo.seen & set(range(example.starts[0], example.starts[1]))


@pytest.mark.parametrize(("start", "stop"), [(0, 7), (6, 8), (20, None), (21, 30), (0, None)])
def test_seeking_gives_the_same_gains_as_scanning(start: int, stop: int | None) -> None:
    example = gains_example(ENVELOPES, TREBLES)
    sources = io.BytesIO(example.data), io.BytesIO(example.data[: example.starts[-1]]), pipe(example.data)
    for fo in sources:
        for segment in Reader(fo).segments(start, stop):
            assert same_gains(segment.gains, example.gains[segment.sequence])
            assert same_gains(segment.treble, example.treble[segment.sequence])


def test_gains_come_with_a_segment_of_which_only_one_domain_is_wanted(kind: Kind) -> None:
    example = gains_example(kind)
    for segment in Reader(io.BytesIO(example.data)).segments(domains=["sfx"]):
        assert same_gains(kind.of(segment), kind.of(example)[segment.sequence])


def test_gains_that_were_taken_out_are_none_and_no_problem(kind: Kind) -> None:
    example = gains_example(kind)
    without = example.head + b"".join(units(example, number)[0] for number in range(4))
    reader, segments = read_all(io.BytesIO(without))
    assert problems(reader) == ["truncated"]
    assert all(same_codes(segment, codes) for segment, codes in zip(segments, example.segments, strict=True))
    assert all(kind.of(segment) == {} and kind.num_bytes(segment) == 0 for segment in segments)
    # Of two channels, the first one's alone.
    segment, _, second = units(example, 0)
    reader, (found,) = read_all(io.BytesIO(example.head + segment + second))
    assert same_gains(kind.of(found), {1: kind.of(example)[0][1]})
    assert problems(reader) == ["truncated"]


def test_gains_of_one_kind_may_be_taken_out_and_those_of_the_other_stay(kind: Kind) -> None:
    example = gains_example(ENVELOPES, TREBLES)
    kept = [unit for number in range(4) for unit in units(example, number) if not unit.startswith(kind.unit)]
    reader, segments = read_all(io.BytesIO(example.head + b"".join(kept)))
    other = TREBLES if kind is ENVELOPES else ENVELOPES
    assert problems(reader) == ["truncated"]
    for number, segment in enumerate(segments):
        assert same_codes(segment, example.segments[number])
        assert kind.of(segment) == {}
        assert same_gains(other.of(segment), other.of(example)[number])


def test_a_reader_that_does_not_know_gains_passes_over_them_in_silence(kind: Kind) -> None:
    """Earlier versions skip fields 8 and 10, which are even, and units of a type that begins with a small letter."""
    example = gains_example(kind)
    old = encode_header(example_header(coded_channels=2))
    for data in (example.data, example.data[: example.starts[-1]]):
        reader, segments = read_all(io.BytesIO(old + data[len(example.head) :]))
        assert (reader.header.envelope, reader.header.treble) == (None, None)
        assert set(problems(reader)) <= {"truncated"}
        assert all(same_codes(segment, codes) for segment, codes in zip(segments, example.segments, strict=True))
        assert all(kind.of(segment) == {} for segment in segments)


def test_a_reader_that_knows_envelopes_alone_has_them_of_streams_with_treble() -> None:
    example = gains_example(ENVELOPES, TREBLES)
    old = encode_header(ENVELOPES.header(coded_channels=2))
    reader, segments = read_all(io.BytesIO(old + example.data[len(example.head) : example.starts[-1]]))
    assert problems(reader) == ["truncated"]
    for number, segment in enumerate(segments):
        assert same_codes(segment, example.segments[number])
        assert same_gains(segment.gains, example.gains[number])
        assert segment.treble == {}


def test_every_flipped_bit_of_gains_costs_these_alone(kind: Kind) -> None:
    example = gains_example(kind)
    segment, *unit_of = units(example, 0)
    for channel, start in ((0, len(segment)), (1, len(segment) + len(unit_of[0]))):
        # Both kinds are read by the same lines: for one of them, one bit of each byte is enough.
        for bit in range(0, 8 * len(unit_of[channel]), 1 if kind is ENVELOPES else 9):
            damaged = bytearray(example.data)
            damaged[example.starts[0] + start + bit // 8] ^= 1 << bit % 8
            for fo in (io.BytesIO(damaged), pipe(bytes(damaged))):
                reader, segments = read_all(fo)
                assert all(same_codes(found, codes) for found, codes in zip(segments, example.segments, strict=True))
                assert all(same_gains(kind.of(segments[number]), kind.of(example)[number]) for number in (1, 2, 3))
                for other, gains in kind.of(segments[0]).items():
                    assert np.array_equal(gains, kind.of(example)[0][other])
                assert channel not in kind.of(segments[0])
                assert reader.problems


def test_damaged_treble_leaves_the_envelope_and_the_other_way_round(kind: Kind) -> None:
    example = gains_example(ENVELOPES, TREBLES)
    other = TREBLES if kind is ENVELOPES else ENVELOPES
    segment, *rest = units(example, 0)
    for place in (place for place, unit in enumerate(rest) if unit.startswith(kind.unit)):
        data = [
            bytes(unit[:-5] + bytes([unit[-5] ^ 1]) + unit[-4:]) if n == place else unit for n, unit in enumerate(rest)
        ]
        reader, segments = read_all(
            io.BytesIO(example.head + segment + b"".join(data) + example.data[example.starts[1] : example.starts[-1]])
        )
        assert problems(reader) == [kind.name, "truncated"]
        assert all(same_codes(found, codes) for found, codes in zip(segments, example.segments, strict=True))
        assert all(same_gains(other.of(found), gains) for found, gains in zip(segments, other.of(example), strict=True))
        channel = place % 2
        assert same_gains(kind.of(segments[0]), {1 - channel: kind.of(example)[0][1 - channel]})


def test_damaged_gains_are_named_with_their_time(kind: Kind) -> None:
    example = gains_example(kind)
    damaged = bytearray(example.data)
    damaged[example.starts[2] - 5] ^= 1  # the last byte of the gains of segment 1
    reader, segments = read_all(io.BytesIO(damaged))
    assert kind.of(segments[1]) == {}
    assert kind.num_bytes(segments[1]) == 0
    assert [(problem.kind, problem.start_frame) for problem in reader.problems] == [(kind.name, 7)]
    assert reader.problems[0].message == kind.message.format("segment 1 (frames 7-13, 0.14-0.28 s)")


def test_gains_of_which_the_head_is_damaged_are_passed_over(kind: Kind) -> None:
    example = gains_example(kind)
    damaged = bytearray(example.data)
    damaged[example.starts[1] + len(units(example, 1)[0])] ^= 1
    reader, segments = read_all(io.BytesIO(damaged))
    assert kind.of(segments[1]) == {}
    assert [(problem.kind, problem.start_frame) for problem in reader.problems] == [("damage", None)]


def test_a_stream_cut_anywhere_gives_the_codes_that_are_whole_and_never_wrong_gains() -> None:
    example = gains_example(ENVELOPES, TREBLES)
    for size in range(len(example.head), len(example.data)):
        for fo in (io.BytesIO(example.data[:size]), pipe(example.data[:size], most=50)):
            reader, segments = read_all(fo)
            assert problems(reader)[-1] == "truncated"
            for number, segment in enumerate(segments):
                stop = example.starts[number] + len(units(example, number)[0])
                assert stop > size or same_codes(segment, example.segments[number])
                for kind in (ENVELOPES, TREBLES):
                    written = kind.of(example)[number]
                    assert all(np.array_equal(gains, written[channel]) for channel, gains in kind.of(segment).items())
                    assert example.starts[number + 1] > size or same_gains(kind.of(segment), written)


@pytest.mark.parametrize("size", [1, 9, 12, -1])
def test_a_cut_through_gains_leaves_their_segment(kind: Kind, size: int) -> None:
    example = one_segment(kind)
    segment, unit = units(example, 0)
    reader, (found,) = read_all(io.BytesIO(example.head + segment + unit[:size]))
    assert same_codes(found, example.segments[0])
    assert kind.of(found) == {}
    assert problems(reader)[-1] == "truncated"


@pytest.mark.parametrize("wrong", ["coding", "segment", "channel"])
def test_gains_of_an_unknown_coding_or_of_something_else_are_reported_and_the_codes_used(
    kind: Kind, wrong: str
) -> None:
    changes: dict[str, Callable[[bytes], bytes]] = {
        "coding": lambda body: body[:2] + b"\x02" + body[3:],
        "segment": lambda body: b"\x01" + body[1:],
        "channel": lambda body: body[:1] + b"\x01" + body[2:],
    }
    reader, segment = with_unit(kind, changes[wrong])
    assert kind.of(segment) == {}
    assert problems(reader) == [kind.name]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\0",
        b"\0\0",
        b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80",
        b"\0\0\0" + bytes(5),
        b"\0\0\0" + bytes(9),
        b"\0\0\0" + b"\x99" * 6,
        b"\0\0\0" + b"\xff" * 8,
        b"\0\0\0" + bytes(7) + b"\x10",
        b"\0\0\1" + b"\xff" * 28,
        b"\0\0\1" + bytes(40),
    ],
)
def test_a_body_that_stands_for_no_gains_is_reported(kind: Kind, body: bytes) -> None:
    reader, segment = with_unit(kind, lambda _: body)
    assert kind.of(segment) == {}
    assert problems(reader) == [kind.name]


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=100), st.sampled_from([b"", b"\0\0\0", b"\0\0\1"]))
def test_a_body_of_any_bytes_gives_gains_or_is_reported(kind: Kind, body: bytes, begin: bytes) -> None:
    reader, segment = with_unit(kind, lambda _: begin + body)
    assert problems(reader) == ([] if kind.of(segment) else [kind.name])
    for gains in kind.of(segment).values():
        assert gains.shape == (3, 4)
        assert gains.min() >= kind.gains.lowest
        assert gains.max() < kind.gains.lowest + kind.gains.count


def test_gains_that_announce_gigabytes_cost_no_memory(kind: Kind) -> None:
    example = one_segment(kind)
    segment, _ = units(example, 0)
    data = example.head + segment + with_checksum(kind.unit + varint(2**31))
    reader, (found,) = read_all(pipe(data))  # which refuses to be asked for more than 64 KiB
    assert kind.of(found) == {}
    assert kind.name in problems(reader)


def live(example: Example, arrived: int) -> Segment:
    """The first segment, as soon as so many bytes are there."""

    class Live(Pipe):
        def read(self, size: int = -1) -> bytes:
            assert self._fo.tell() + size <= arrived, "this read would block"
            return super().read(size)

    return next(Reader(cast(BinaryIO, Live(example.data))).segments())


def test_a_pipe_is_waited_for_only_where_gains_may_come(kind: Kind) -> None:
    header = example_header()
    plain = write_example(header, [random_codes(header, 7)] * 2, [7, 7])
    assert same_codes(live(plain, plain.starts[1]), plain.segments[0])
    # All that belongs to this segment is there: that it has one channel and one kind of gains only is known.
    shaped = one_segment(kind)
    assert same_gains(kind.of(live(shaped, shaped.starts[1])), kind.of(shaped)[0])
    # And two of each here.
    both = gains_example(ENVELOPES, TREBLES)
    assert same_gains(kind.of(live(both, both.starts[1])), kind.of(both)[0])


# --- the writer


def body_of(kind: Kind, gains: Any) -> GainsUnit:
    (_, unit) = units(one_segment(kind, gains={0: gains}), 0)
    return parse_gains(unit[9:-4])


def test_likely_gains_are_range_coded_and_unlikely_ones_are_raw() -> None:
    shape = 3, 4
    assert body_of(ENVELOPES, np.zeros(shape, dtype=int)).coding == RANGE
    unlikely = np.where(np.arange(12).reshape(shape) % 2, -3, 5)
    assert body_of(ENVELOPES, unlikely).coding == RAW
    assert len(body_of(ENVELOPES, unlikely).data) == 12 * 4 // 8


@pytest.mark.parametrize("seed", range(5))
def test_the_coding_with_fewer_bytes_is_taken(kind: Kind, seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, kind.gains.count, (3, 4))
    taken = body_of(kind, values + kind.gains.lowest)
    sizes = {coding: len(kind.gains.codings[coding].encode(values, kind.gains.count)) for coding in (RAW, RANGE)}
    assert len(taken.data) == sizes[taken.coding] == min(sizes.values())
    assert sizes[RAW] == {"envelope": 12 * 4 // 8, "treble": 8}[kind.name]  # 4 bits, or 5


@pytest.mark.parametrize("coding", [RAW, RANGE])
def test_a_writer_may_use_either_coding(kind: Kind, coding: int) -> None:
    gains = random_gains(kind, 7)
    data = kind.gains.codings[coding].encode(gains - kind.gains.lowest, kind.gains.count)
    reader, segment = with_unit(kind, lambda _: encode_gains(GainsUnit(0, 0, coding, data)))
    assert same_gains(kind.of(segment), {0: gains})
    assert reader.problems == []


@pytest.mark.parametrize(
    ("gains", "message"),
    [
        ({0: np.zeros((3, 3), int)}, r"gains of {} must be \[3, 4\] integers from {} to {}"),
        ({0: np.zeros((2, 4), int)}, r"gains of {} must be \[3, 4\]"),
        ({0: np.zeros((3, 4))}, r"gains of {} must be \[3, 4\] integers"),
        ({0: np.full((3, 4), -13)}, "from {1} to {2}"),
        ({0: np.full((3, 4), 7)}, "from {1} to {2}"),
        ({1: np.zeros((3, 4), int)}, "no channel 1 in a stream of 1"),
    ],
)
def test_gains_that_do_not_fit_the_header_are_a_wrong_call(kind: Kind, gains: Any, message: str) -> None:
    fo = io.BytesIO()
    writer = Writer(fo, kind.header())
    before = fo.getvalue()
    expected = {"envelope": ("an envelope", -3, 5), "treble": ("treble", -12, 6)}[kind.name]
    with pytest.raises(ValueError, match=message.format(*expected)):
        writer.write(random_codes(example_header(), 7), **{kind.key: gains})
    assert fo.getvalue() == before


def test_the_lowest_and_the_highest_gains_come_back(kind: Kind) -> None:
    gains = np.where(np.arange(12).reshape(3, 4) % 3, *{"envelope": (-3, 5), "treble": (-12, 6)}[kind.name])
    _, (segment,) = read_all(io.BytesIO(one_segment(kind, gains={0: gains}).data))
    assert same_gains(kind.of(segment), {0: gains})


def test_gains_need_a_header_that_says_what_they_are_for(kind: Kind) -> None:
    other = TREBLES if kind is ENVELOPES else ENVELOPES
    for header, wrong in ((example_header(), kind), (kind.header(), other)):
        writer = Writer(io.BytesIO(), header)
        with pytest.raises(ValueError, match=f"gains in a stream whose header has no {wrong.name}"):
            writer.write(random_codes(header, 7), **{wrong.key: {0: random_gains(wrong, 7)}})


# --- the layout in the header


@pytest.mark.parametrize(
    "layout",
    [
        ENVELOPES.layout,
        GainLayout(frames=1, step_db=1 / 16, edges=(0, 1)),
        GainLayout(frames=255, step_db=255 / 16, edges=(*range(64), 1_000_000)),
    ],
)
def test_the_layout_of_envelopes_is_in_the_header(layout: GainLayout) -> None:
    header = example_header(envelope=layout)
    assert Reader(io.BytesIO(encode_header(header))).header == header


@pytest.mark.parametrize(
    ("rate", "hop", "edges"),
    [
        (16_000, 320, TREBLES.layout.edges),
        (16_000, 320, (5400, 16_000)),  # a third of the way from 0 to 16 kHz, 5333 Hz, is the least
        (16_000, 320, (8000, *range(9000, 9062), 16_000)),
        (24_000, 75, (11_200, 24_000)),
        (44_100, 512, (22_050, 44_100)),
    ],
)
def test_the_layout_of_treble_is_in_the_header(rate: int, hop: int, edges: tuple[int, ...]) -> None:
    layout = GainLayout(frames=255, step_db=4.0, edges=edges)
    for envelope in (None, ENVELOPES.layout):
        header = example_header(sample_rate=rate, hop_length=hop, envelope=envelope, treble=layout)
        assert Reader(io.BytesIO(encode_header(header))).header == header


@pytest.mark.parametrize(
    "edges",
    [
        (7600, 15_999),  # not twice the band
        (7600, 16_001),
        (7610, 16_000),  # between two bins of 25 Hz
        (7625, 16_000),  # bin 305, not a multiple of four
        (5300, 16_000),  # not enough below it to copy
        (8100, 16_000),  # above the model's band
        (0, 16_000),
    ],
)
def test_treble_that_cannot_be_made_is_refused(edges: tuple[int, ...]) -> None:
    layout = GainLayout(frames=2, step_db=4.0, edges=edges)
    with pytest.raises(ValueError, match=f"treble cannot be made from {edges[0]} to {edges[1]} Hz"):
        example_header(treble=layout)
    value = bytes([2, 64, 1]) + varint(edges[0]) + varint(edges[1])
    with pytest.raises(CorruptStream, match=r"^talk\.sdc: the header makes no sense: treble cannot be made from "):
        Reader(io.BytesIO(with_field(TREBLES, value)), "talk.sdc")


def with_field(kind: Kind, value: bytes) -> bytes:
    """A header with a field of gains that a writer would refuse."""
    body = encode_header(example_header())[18:-4] + bytes([kind.field, len(value)]) + value
    head = b"\x89SDC\r\n\x1a\n\x01" + bytes([kind.minor]) + bytes(4) + len(body).to_bytes(4, "little")
    return with_checksum(head + body)


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
def test_a_layout_that_makes_no_sense_is_refused_even_with_a_valid_checksum(kind: Kind, value: bytes) -> None:
    with pytest.raises(CorruptStream, match=r"^talk\.sdc: the header makes no sense: [^\n]+$"):
        Reader(io.BytesIO(with_field(kind, value)), "talk.sdc")


def test_gains_of_a_segment_become_those_of_its_frames(kind: Kind) -> None:
    gains = np.array([[1, 2, 3, 4]])
    assert kind.layout.num_columns(7) == kind.layout.num_columns(8) == 4
    assert kind.layout.per_frame(gains, 7).tolist() == [[1, 1, 2, 2, 3, 3, 4]]


def test_a_header_says_nothing_of_gains_unless_there_are_some(kind: Kind) -> None:
    plain: Header = example_header()
    assert encode_header(example_header(**{kind.name: None})) == encode_header(plain)
    assert encode_header(plain)[9] == 0
    assert encode_header(kind.header())[9] == kind.minor
