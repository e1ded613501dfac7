"""Bytes made to break the reader: streams whose checksums are put right after something was changed in them."""

from __future__ import annotations

import dataclasses
import io
import random
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from sdcodec_cli.bitstream import DomainEntry, Header, LowerModel, Reader, Segment
from sdcodec_cli.bitstream.fields import read_header
from sdcodec_cli.bitstream.segment import SYNC, encode_segment, parse_segment
from sdcodec_cli.bitstream.source import Source
from sdcodec_cli.bitstream.wire import MAX_VARINT_BYTES, Cursor
from sdcodec_cli.errors import StreamError

from bitstream_examples import (
    cover_example,
    example_header,
    gains_example,
    long_example,
    parts_example,
    pipe,
    random_codes,
    range_coded_example,
    range_coded_tables,
    stereo_example,
    treble_example,
    write_example,
)

CORPUS = Path(__file__).parent / "fuzz" / "corpus"
"""Streams that lead through all of the reader, and those that once broke it."""

DATA = Path(__file__).parent / "data"

TABLES = range_coded_tables()

FIXED_BYTES = 18
"""Of a header, before its fields."""


def staged_example() -> bytes:
    """Upper streams, of two frames for each frame of the lower ones."""
    entries = [DomainEntry(name=name, num_codebooks=2, codebook_size=64) for name in ("speech", "sfx")]
    above = [dataclasses.replace(entry, name=f"{entry.name}-2", stem=entry.name, stage=1) for entry in entries]
    low = LowerModel(model="low", weights_sha256=bytes(32), sample_rate=16_000, hop_length=160, context_frames=7)
    domains = tuple([dataclasses.replace(entry, stem=entry.name) for entry in entries] + above)
    header = example_header(sample_rate=32_000, hop_length=640, domains=domains, lower=(low,))

    def codes(num_frames: int, seed: int) -> dict[tuple[int, str], np.ndarray]:
        found = random_codes(header, 2 * num_frames, seed)
        return {key: each if key[1] in ("speech", "sfx") else each[:, :num_frames] for key, each in found.items()}

    return write_example(header, [codes(7, 0), codes(5, 1)], [7, 5], samples=8_000).data


def seeds() -> dict[str, bytes]:
    """Streams with everything that there can be in one, by name."""
    from bitstream_examples import ENVELOPES, TREBLES

    return {
        "codes": long_example(3).data,
        "cover": cover_example().data,
        "gains": gains_example(ENVELOPES, TREBLES).data,
        "lost": (DATA / "v1_lost.sdc").read_bytes(),
        "parts": parts_example().data,
        "range": range_coded_example().data,
        "stages": staged_example(),
        "stereo": stereo_example().data,
        "treble": treble_example().data,
    }


def repaired(data: bytes) -> bytes:
    """The same bytes with every checksum right, as far as units can be told apart in them."""
    out = bytearray(data)
    stop = FIXED_BYTES + int.from_bytes(data[14:18], "little")
    if len(data) < stop + 4:
        return data
    _put_checksum(out, 0, stop)
    try:
        header = read_header(Source(io.BytesIO(out)), "-").header
    except StreamError:
        return bytes(out)
    position = stop + 4
    while position < len(out) - 4:
        position = _repair_unit(out, position, header)
    return bytes(out)


def _repair_unit(out: bytearray, start: int, header: Header) -> int:
    """Put the checksums of what begins here right; returns where to go on."""
    kind, cursor = bytes(out[start : start + 4]), Cursor(bytes(out[start + 4 : start + 4 + MAX_VARINT_BYTES]))
    if kind != SYNC and not (kind.isalpha() and kind.isascii()):
        return start + 1
    try:
        length = cursor.varint()
    except ValueError:
        return start + 1
    head = start + 4 + cursor.position
    if head + length + 4 > len(out):
        return start + 1
    if kind != SYNC:
        _put_checksum(out, start, head)
        _put_checksum(out, head + 4, head + 4 + length)
        return head + 4 + length + 4
    stop = head + length
    try:
        found = parse_segment(bytes(out[head:stop]), header)
    except ValueError:
        _put_checksum(out, start, stop)
        return stop + 4
    chunks, offset = [], stop + 4
    for chunk in found.chunks:
        data = out[offset : offset + chunk.num_bytes]
        chunks.append(dataclasses.replace(chunk, crc32=zlib.crc32(data)))
        offset += chunk.num_bytes
    own = header.of_parts[header.part_at(found.start_frame)]
    out[start : stop + 4] = encode_segment(dataclasses.replace(found, chunks=tuple(chunks)), own)
    return offset


def _put_checksum(out: bytearray, start: int, stop: int) -> None:
    if stop + 4 <= len(out):
        out[stop : stop + 4] = zlib.crc32(out[start:stop]).to_bytes(4, "little")


def mutated(data: bytes, chance: random.Random) -> bytes:
    """A few bytes replaced, removed, inserted or copied, and checksums put right."""
    out = bytearray(data)
    for _ in range(chance.choice([1, 1, 2, 5, 20])):
        # Lengths and counts at the beginning of units decide more than what follows.
        position = min(len(out) - 1, FIXED_BYTES + int(chance.random() * (len(out) - FIXED_BYTES)))
        piece = bytes(chance.choice([0, 1, 2, 16, 0x7F, 0x80, 0xFF, chance.randrange(256)]) for _ in range(3))
        removed, inserted = chance.choice([(1, 1)] * 6 + [(2, 2), (3, 3), (0, 1), (1, 0), (0, 3), (3, 0)])
        out[position : position + removed] = piece[:inserted]
    return repaired(bytes(out))


def exercise(data: bytes) -> None:
    """Read a stream from a file and from a pipe, as a decoder and as `sdc info` do; it raises only errors about it."""
    for fo, decode in ((io.BytesIO(data), True), (io.BytesIO(data), False), (pipe(data, most=13), True)):
        try:
            reader = Reader(fo)
            reader.tables = TABLES if reader.header.tables_sha256 is not None else None
            picture = reader.cover()
            assert picture is None or len(picture) == reader.header.cover_bytes
            found = reader.segments(decode=decode)
        except StreamError:
            continue
        check_sanity(reader, found)


def check_sanity(reader: Reader, segments: Iterator[Segment]) -> None:
    """What must hold of any result, of whatever bytes."""
    stop = 0
    for segment in segments:
        assert segment.start_frame >= stop
        header = reader.header.of_parts[reader.header.part_at(segment.start_frame)]
        assert 1 <= segment.num_frames <= header.segment_frames
        stop = segment.start_frame + segment.num_frames
        for key, codes in segment.codes.items():
            entry = header.domain_of(header.streams.index(key))
            assert codes.shape[1] == header.frames_in(entry, segment.num_frames)
            assert len(codes) <= entry.num_codebooks
            assert codes.min() >= 0
            assert codes.max() < entry.codebook_size
            assert key not in segment.silent | segment.removed
        for layout, gains in ((header.envelope, segment.gains), (header.treble, segment.treble)):
            for channel, steps in gains.items():
                assert layout is not None
                assert 0 <= channel < header.coded_channels
                assert steps.shape == (layout.num_bands, layout.num_columns(segment.num_frames))
