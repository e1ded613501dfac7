"""The header: what it holds, and every way in which it can be wrong."""

from __future__ import annotations

import io
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdcodec_cli.bitstream import DomainEntry, Header, Reader, Writer
from sdcodec_cli.bitstream.fields import encode_header
from sdcodec_cli.errors import CorruptStream, NotAStream, StreamError, UnsupportedStream

from bitstream_examples import example_header, pipe, small_example, with_checksum


def read(data: bytes) -> Header:
    return Reader(io.BytesIO(data), "talk.sdc").header


def fields(header: Header) -> bytes:
    return encode_header(header)[18:-4]


def header_bytes(body: bytes, *, version: bytes = b"\x01\x00", required: int = 0, optional: int = 0) -> bytes:
    head = b"\x89SDC\r\n\x1a\n" + version + required.to_bytes(2, "little") + optional.to_bytes(2, "little")
    return with_checksum(head + len(body).to_bytes(4, "little") + body)


names = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,31}", fullmatch=True)
text = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=12)


@st.composite
def domains(draw: st.DrawFn) -> DomainEntry:
    groups = draw(st.lists(st.integers(1, 6), min_size=1, max_size=6))
    return DomainEntry(
        name=draw(names),
        num_codebooks=sum(groups),
        codebook_size=draw(st.integers(2, 65_536)),
        num_shared=draw(st.integers(0, 64)),
        groups=tuple(groups),
    )


@st.composite
def headers(draw: st.DrawFn) -> Header:
    channels = draw(st.integers(1, 255))
    entries = draw(st.lists(domains(), min_size=1, max_size=4, unique_by=lambda entry: entry.name))
    num_groups = sum(len(entry.groups) for entry in entries)
    return example_header(
        model=draw(text).replace("/", "-").replace("\\", "-").replace(".", "-"),
        weights_sha256=draw(st.binary(min_size=32, max_size=32)),
        sample_rate=draw(st.integers(1, 1_000_000)),
        hop_length=draw(st.integers(1, 65_536)),
        context_frames=draw(st.integers(0, 65_535)),
        original_rate=draw(st.integers(1, 1_000_000)),
        original_channels=channels,
        coded_channels=channels if channels * num_groups <= 4096 and draw(st.booleans()) else 1,
        original_samples=draw(st.none() | st.integers(0, 2**62)),
        gain_db=draw(st.integers(-(2**15), 2**15 - 1)) / 256,
        domains=tuple(entries),
        segment_frames=draw(st.integers(1, 500)),
        encoder=draw(text),
        tags=draw(st.dictionaries(st.from_regex(r"[a-z ]{1,9}", fullmatch=True), text, max_size=3)),
    )


@settings(max_examples=60, deadline=None)
@given(headers())
def test_a_header_is_read_as_it_was_written(header: Header) -> None:
    assert read(encode_header(header)) == header


def test_layer_groups_are_of_four_unless_said_otherwise() -> None:
    assert DomainEntry(name="speech", num_codebooks=12, codebook_size=1024).groups == (4, 4, 4)
    assert DomainEntry(name="speech", num_codebooks=6, codebook_size=1024).groups == (4, 2)


def test_streams_are_numbered_by_channel_then_domain() -> None:
    header = example_header(coded_channels=2)
    assert header.streams == [(0, "speech"), (0, "sfx"), (1, "speech"), (1, "sfx")]
    assert header.domain_of(3).name == "sfx"
    assert header.frame_rate == 50.0


def test_every_flipped_bit_in_a_header_is_noticed() -> None:
    data = encode_header(example_header(tags={"title": "t"}))
    for bit in range(len(data) * 8):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(StreamError, match=r"^talk\.sdc: [^\n]+$"):
            read(bytes(damaged))


def test_a_header_that_stops_anywhere_is_refused_in_one_line() -> None:
    data = encode_header(example_header())
    for size in range(len(data)):
        for fo in (io.BytesIO(data[:size]), pipe(data[:size], most=1)):
            with pytest.raises(StreamError, match=r"^talk\.sdc: [^\n]+$"):
                Reader(fo, "talk.sdc")


@pytest.mark.parametrize("data", [b"", b"\n", b"RIFF\x24\x00\x00\x00WAVEfmt ", b"fLaC" * 50, b"\x89PNG\r\n\x1a\n" * 9])
def test_other_files_are_said_to_be_no_stream(data: bytes) -> None:
    with pytest.raises(NotAStream, match=r"^talk\.sdc: (empty|not a \.sdc stream); give a file made by sdc compress$"):
        read(data)


@pytest.mark.parametrize(("old", "new"), [(b"\r\n", b"\n"), (b"\n", b"\r\n"), (b"\x89", b"\x09"), (b"\x1a", b"")])
def test_a_transfer_in_text_mode_is_named_as_the_cause(old: bytes, new: bytes) -> None:
    with pytest.raises(CorruptStream, match="text mode"):
        read(small_example().data.replace(old, new))


def test_a_newer_major_version_is_refused_before_anything_else_is_looked_at() -> None:
    with pytest.raises(UnsupportedStream, match="version 2 of the format"):
        read(b"\x89SDC\r\n\x1a\n\x02\x00" + b"\xff" * 40)


def test_a_newer_minor_version_with_optional_additions_is_read() -> None:
    header = example_header()
    body = fields(header) + b"\x64\x03abc"
    assert read(header_bytes(body, version=b"\x01\x09", optional=0xFFFF)) == header


def test_an_unknown_required_feature_is_refused() -> None:
    with pytest.raises(UnsupportedStream, match="needs a feature"):
        read(header_bytes(fields(example_header()), required=0x8000))


def test_an_unknown_odd_field_is_refused() -> None:
    with pytest.raises(UnsupportedStream, match="field 101 is unknown"):
        read(header_bytes(fields(example_header()) + b"\x65\x00"))


def test_several_coded_channels_need_their_feature_bit() -> None:
    stereo = fields(example_header(coded_channels=2))
    assert read(header_bytes(stereo, required=1)).coded_channels == 2
    for body, required in ((stereo, 0), (fields(example_header()), 1)):
        with pytest.raises(CorruptStream, match="feature bits"):
            read(header_bytes(body, required=required))


def replaced(tag: int, value: bytes) -> bytes:
    """The fields of the example with one of them replaced, each with a length below 128."""
    body, out = fields(example_header()), b""
    while body:
        old, size = body[0], body[1]
        out += bytes([old, len(value)]) + value if old == tag else body[: 2 + size]
        body = body[2 + size :]
    return out


speech = b"\x06speech\x04\xff\x03\x00\x01\x04"


@pytest.mark.parametrize(
    ("tag", "value"),
    [
        (1, b""),
        (1, b"\xff"),
        (1, b"../../etc"),
        (1, b"\x1b[2J"),
        (3, bytes(31)),
        (5, b"\x00"),
        (5, b""),
        (5, bytes(9)),
        (5, b"\xff" * 8),
        (7, b"\x00"),
        (9, b"\xff" * 3),
        (11, b"\x00"),
        (13, b"\x00"),
        (15, b"\x00"),
        (15, b"\x03"),
        (17, b"\x00"),
        (19, b""),
        (19, b"\x00"),
        (19, b"\x02" + speech + speech),
        (19, b"\x02" + speech),
        (19, b"\x01" + speech + b"\x00"),
        (19, b"\x01\x02..\x04\xff\x03\x00\x01\x04"),
        (19, b"\x01\x01a\x00\xff\x03\x00\x00"),
        (19, b"\x01\x01a\x04\xff\x03\x00\x00"),
        (19, b"\x01\x01a\x04\xff\x03\x00\x01\x05"),
        (19, b"\x01\x01a\x04\xff\x03\x00\x02\x04\x00"),
        (19, b"\x01\x01a\x04\x00\x00\x00\x01\x04"),
        (19, b"\x01\x01a\x41\xff\x03\x00\x02\x40\x01"),
        (21, b"\x00"),
        (21, b"\xf5\x01"),
    ],
)
def test_values_that_make_no_sense_are_refused_even_with_a_valid_checksum(tag: int, value: bytes) -> None:
    with pytest.raises(CorruptStream, match=r"^talk\.sdc: the header makes no sense: [^\n]+$"):
        read(header_bytes(replaced(tag, value)))


@pytest.mark.parametrize("tag", [1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 4])
def test_a_missing_or_repeated_field_is_refused(tag: int) -> None:
    body = fields(example_header())
    start = 0
    while body[start] != tag:
        start += 2 + body[start + 1]
    stop = start + 2 + body[start + 1]
    with pytest.raises(CorruptStream, match="missing"):
        read(header_bytes(body[:start] + body[stop:]))
    with pytest.raises(CorruptStream, match="comes 2 times"):
        read(header_bytes(body + body[start:stop]))


@pytest.mark.parametrize("tags", [b"\x06\x01a", b"\x06\x03a=b\x06\x03a=c", b"\x06\x02=a", b"\x06\x03a=\x07"])
def test_malformed_user_tags_are_refused(tags: bytes) -> None:
    with pytest.raises(CorruptStream, match="makes no sense"):
        read(header_bytes(fields(example_header()) + tags))


@pytest.mark.parametrize("length", [65_537, 2**31, 2**32 - 1])
def test_a_length_beyond_the_limit_allocates_nothing(length: int) -> None:
    data = b"\x89SDC\r\n\x1a\n\x01\x00" + bytes(4) + length.to_bytes(4, "little") + bytes(100)
    for fo in (io.BytesIO(data), pipe(data)):
        tracemalloc.start()
        with pytest.raises(CorruptStream, match="length cannot be"):
            Reader(fo, "talk.sdc")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 200_000


def test_tags_that_do_not_fit_in_a_header_are_a_wrong_call() -> None:
    with pytest.raises(ValueError, match="shorten the tags"):
        Writer(io.BytesIO(), example_header(tags={"lyrics": "a" * 65_000, "more": "b" * 1000}))


@pytest.mark.parametrize(
    "change",
    [
        {"gain_db": 0.001},
        {"gain_db": 128.0},
        {"gain_db": float("nan")},
        {"original_samples": -1},
        {"coded_channels": 3},
        {"domains": ()},
        {"segment_frames": 501},
        {"tags": {"a=b": "c"}},
        {"tags": {"": "c"}},
        {"encoder": "a\nb"},
        {"model": "zoo/toy"},
        {
            "original_channels": 255,
            "coded_channels": 255,
            "domains": (
                DomainEntry(name="a", num_codebooks=16, codebook_size=2, groups=(1,) * 16),
                DomainEntry(name="b", num_codebooks=1, codebook_size=2),
            ),
        },
    ],
)
def test_a_header_cannot_be_built_from_values_out_of_range(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must"):
        example_header(**change)
