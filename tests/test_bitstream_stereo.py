"""Places of domains in a stream: units behind their segment, which a reader may do without."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest

from sdcodec_cli.bitstream import DomainEntry, Header, LowerModel, Reader, Writer
from sdcodec_cli.bitstream.codings import LOST, RANGE, RAW, STEREO_GAINS
from sdcodec_cli.bitstream.segment import STEREO, GainsUnit, encode_gains
from sdcodec_cli.errors import CorruptStream

from bitstream_examples import (
    STEREO_LAYOUT,
    block,
    copied,
    example_header,
    pipe,
    random_codes,
    random_places,
    read_all,
    same_codes,
    stereo_example,
    with_checksum,
    write_example,
)


def stereo_header(**changes: Any) -> Header:
    return example_header(**{"stereo": STEREO_LAYOUT, **changes})


def with_unit(unit: GainsUnit) -> tuple[list[str], dict[str, Any]]:
    """Problems, and places, of a stream whose only segment has this unit behind it."""
    header = stereo_header()
    example = write_example(header, [random_codes(header, 7)], [7])
    reader, (segment,) = read_all(io.BytesIO(example.head + example.block(0) + block(STEREO, encode_gains(unit))))
    assert same_codes(segment, example.segments[0])
    return [problem.message for problem in reader.problems[:-1]], segment.places


@pytest.mark.parametrize("delivery", ["file", "pipe", "drops"])
def test_places_come_back_with_their_segments(delivery: str) -> None:
    example = stereo_example()
    sources = {"file": io.BytesIO(example.data), "pipe": pipe(example.data), "drops": pipe(example.data, most=1)}
    reader, segments = read_all(sources[delivery])
    assert (reader.header, reader.version, reader.problems) == (example.header, (1, 5), [])
    for segment, codes, places in zip(segments, example.segments, example.places, strict=True):
        assert same_codes(segment, codes)
        assert segment.places.keys() == places.keys()
        assert all(np.array_equal(segment.places[stem], places[stem]) for stem in places)
        assert set(segment.places_bytes) == set(places)


def test_places_stand_behind_the_envelopes_that_older_readers_look_for() -> None:
    data = stereo_example().block(0)
    assert 0 < data.index(b"senv") < data.index(b"ster")
    assert data.count(b"ster") == 2


def test_likely_places_are_range_coded_and_others_raw() -> None:
    reader, _ = read_all(io.BytesIO(stereo_example().data))
    units = [segment.units[STEREO] for segment in reader.segments()]
    assert [[unit.coding for unit in of_segment] for of_segment in units] == [[RANGE, RANGE], [RAW], [], [RANGE]]


def test_bytes_of_places_are_counted_as_payload() -> None:
    example, fo = stereo_example(), io.BytesIO()
    writer = Writer(fo, example.header)
    writer.write(example.segments[0], places=example.places[0])
    with_places, stereo_bytes = writer.payload_bytes, writer.stereo_bytes
    writer.write(example.segments[0])
    assert 0 < stereo_bytes == writer.stereo_bytes
    assert with_places - stereo_bytes == writer.payload_bytes - with_places


def test_places_of_the_lowest_stage_are_those_of_the_domain() -> None:
    low = LowerModel(model="low", weights_sha256=bytes(32), sample_rate=8000, hop_length=160, context_frames=1)
    domains = [DomainEntry(name=name, num_codebooks=1, codebook_size=4) for name in ("speech", "sfx")]
    upper = [
        DomainEntry(name=f"{entry.name}-2", stem=entry.name, stage=1, num_codebooks=1, codebook_size=4)
        for entry in domains
    ]
    header = stereo_header(lower=(low,), domains=(*domains, *upper))
    assert [header.stream_of(stem) for stem in header.stems] == [0, 1]
    example = write_example(header, [random_codes(header, 7)], [7], places=[{"sfx": random_places(7)}])
    _, (segment,) = read_all(io.BytesIO(example.data))
    assert list(segment.places) == ["sfx"]


@pytest.mark.parametrize(
    "unit",
    [
        GainsUnit(0, 0, RAW, b"\0" * 3),
        GainsUnit(0, 0, RAW, b"\0" * 12),  # widths of -8
        GainsUnit(0, 2, RANGE, b""),
        GainsUnit(1, 0, RANGE, b""),
        GainsUnit(0, 0, LOST, b""),
        GainsUnit(0, 0, 7, b""),
    ],
)
def test_what_is_damaged_stands_in_the_middle_and_that_is_told(unit: GainsUnit) -> None:
    problems, places = with_unit(unit)
    expected = "the place of a domain is damaged in segment 0 (frames 0-6, 0.00-0.14 s): it is in the middle there"
    assert (problems, places) == ([expected], {})


def test_damage_stays_visible_in_a_copy() -> None:
    data = bytearray(stereo_example().data)
    data[data.index(b"ster") + 12] ^= 1
    reader, segments = read_all(io.BytesIO(copied(bytes(data))))
    assert [problem.kind for problem in reader.problems] == ["stereo"]
    assert list(segments[0].places) == ["sfx"]


@pytest.mark.parametrize(
    ("places", "message"),
    [
        ({"voice": random_places(7)}, "no such domain in the header: voice"),
        ({"speech": random_places(7)[:5]}, r"gains of stereo must be \[6, 3\] integers from -8 to 8"),
        ({"speech": random_places(7) + 9}, r"gains of stereo must be \[6, 3\] integers from -8 to 8"),
        ({"speech": np.full((6, 3), -1)}, "widths of stereo must not be below 0"),
    ],
)
def test_places_that_cannot_be_are_not_written(places: Any, message: str) -> None:
    writer = Writer(io.BytesIO(), stereo_header())
    with pytest.raises(ValueError, match=message):
        writer.write(random_codes(stereo_header(), 7), places=places)


def test_places_need_a_header_that_says_what_they_are() -> None:
    with pytest.raises(ValueError, match="gains in a stream whose header has no stereo"):
        Writer(io.BytesIO(), example_header()).write({}, 7, places={"speech": random_places(7)})


@pytest.mark.parametrize("channels", [{"coded_channels": 2}, {"original_channels": 1}, {"original_channels": 6}])
def test_only_two_channels_mixed_down_have_places(channels: Any) -> None:
    with pytest.raises(ValueError, match="only what was mixed down from two channels has places"):
        stereo_header(**channels)


def test_a_header_whose_bands_make_no_sense_is_refused() -> None:
    data = bytearray(stereo_example().data)
    layout = data.index(bytes([12, 10, 3, 48, 3]))
    data[layout + 2] = 0  # frames of a place
    stop = len(stereo_example().head) - 4
    with pytest.raises(CorruptStream, match="frames of a gain must be 1 to 255, got 0"):
        Reader(io.BytesIO(with_checksum(bytes(data[:stop]))))


def test_every_table_is_of_all_values_that_can_be() -> None:
    assert len(STEREO_GAINS.frequencies) == 240
    for number, row in enumerate(STEREO_GAINS.frequencies):
        possible = row if number < 120 else row[8:]
        assert sum(row) == 4096 == sum(possible)
        assert min(possible) >= 1
