"""The units after the header: segments with their codes, the index, the end. Layout only; no input or output."""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .codings import RAW
from .header import Header
from .limits import MAX_CODES, MAX_FRAMES, MAX_SAMPLES
from .wire import Cursor, varint

SYNC = b"\xf5SDs"
INDEX = b"SIDX"
END = b"SDCE"
ENVELOPE = b"senv"
TREBLE = b"strb"
STEREO = b"ster"
COVER = b"covr"
MIN_SEGMENT_BYTES = 14
END_BYTES = 45


@dataclass(frozen=True)
class Chunk:
    """The codes of one layer group of one stream in one segment, as the segment's head announces them."""

    stream: int
    group: int
    coding: int
    num_bytes: int
    crc32: int


@dataclass(frozen=True)
class StoredChunk:
    """The bytes of a chunk, and what they are to be decoded with."""

    coding: int
    data: bytes = b""


@dataclass(frozen=True)
class SegmentHead:
    """A segment without its codes. `silent` are numbers of streams."""

    sequence: int
    start_frame: int
    num_frames: int
    silent: frozenset[int]
    chunks: tuple[Chunk, ...]
    """In the order of their bytes: by layer group, then by stream."""

    @property
    def stop_frame(self) -> int:
        return self.start_frame + self.num_frames

    @property
    def payload_bytes(self) -> int:
        return sum(chunk.num_bytes for chunk in self.chunks)


@dataclass(frozen=True)
class End:
    """What is known only when all is encoded."""

    total_frames: int
    original_samples: int
    """Samples per channel at the original rate; what a decoder returns."""


@dataclass(frozen=True)
class EndUnit:
    """`End` with its place: offsets from the start of the stream, in bytes; `index_offset` is 0 without an index."""

    end: End
    index_offset: int
    end_offset: int


@dataclass(frozen=True)
class Index:
    """Where each segment starts: offsets from the start of the stream in bytes, and first frames."""

    offsets: Sequence[int]
    starts: Sequence[int]
    total_frames: int


def max_head_bytes(header: Header) -> int:
    """Most bytes that the fields of a segment's head can take."""
    num_streams = max(len(part.streams) for part in header.of_parts)
    num_chunks = header.coded_channels * max(
        sum(len(entry.groups) for entry in part.domains) for part in header.of_parts
    )
    # Sequence and first frame 9, length 2, number of chunks 2; a chunk: stream 2, group 1, length 3, checksum 4.
    return 9 + 9 + 2 + (num_streams + 7) // 8 + 2 + 10 * num_chunks


def encode_segment(head: SegmentHead, header: Header) -> bytes:
    """The head of a segment, from its sync word to its checksum."""
    num_streams = len(header.of_parts[header.part_at(head.start_frame)].streams)
    mask = sum(1 << stream for stream in head.silent)
    fields = bytearray(varint(head.sequence) + varint(head.start_frame) + varint(head.num_frames))
    fields += mask.to_bytes((num_streams + 7) // 8, "little")
    fields += varint(len(head.chunks))
    for chunk in head.chunks:
        fields += varint(chunk.stream)
        fields.append(chunk.group << 4 | chunk.coding)
        fields += varint(chunk.num_bytes) + chunk.crc32.to_bytes(4, "little")
    data = SYNC + varint(len(fields)) + fields
    return data + zlib.crc32(data).to_bytes(4, "little")


def parse_segment(fields: bytes, header: Header) -> SegmentHead:
    """A segment's head from its fields, without sync word, length and checksum. `ValueError` if they make no sense."""
    cursor = Cursor(fields)
    sequence, start_frame, num_frames = cursor.varint(), cursor.varint(), cursor.varint()
    if start_frame + num_frames > MAX_FRAMES:
        raise ValueError(f"a segment at frame {start_frame}")
    if not 1 <= num_frames <= header.frames_left(start_frame):
        raise ValueError(f"a segment of {num_frames} frames")
    header = header.of_parts[header.part_at(start_frame)]
    num_streams = len(header.streams)
    mask = cursor.uint((num_streams + 7) // 8)
    if mask >> num_streams:
        raise ValueError("a stream that does not exist is silent")
    silent = frozenset(stream for stream in range(num_streams) if mask >> stream & 1) if mask else frozenset()
    chunks = tuple(_chunks(cursor, header, num_frames))
    if not cursor.at_end:
        raise ValueError("bytes after the last chunk")
    num_groups = [0] * num_streams
    for chunk in chunks:
        if chunk.group != num_groups[chunk.stream] or chunk.stream in silent:
            raise ValueError("a stream's layer groups are not 0, 1, 2 …, or it is silent")
        num_groups[chunk.stream] += 1
    return SegmentHead(sequence, start_frame, num_frames, silent, chunks)


def _chunks(cursor: Cursor, header: Header, num_frames: int) -> Iterator[Chunk]:
    num_streams = len(header.streams)
    before, num_codes = (-1, -1), 0
    for _ in range(cursor.varint()):
        stream = cursor.varint()
        group, coding = divmod(cursor.uint(1), 16)
        if stream >= num_streams or group >= len(header.domain_of(stream).groups):
            raise ValueError(f"a chunk of stream {stream}, group {group}")
        if (group, stream) <= before:
            raise ValueError("the chunks are not in order")
        before = (group, stream)
        entry = header.domain_of(stream)
        frames = header.frames_in(entry, num_frames)
        num_codes += entry.groups[group] * frames
        if num_codes > MAX_CODES:
            raise ValueError(f"more than {MAX_CODES} codes in a segment")
        num_bytes, raw_bytes = cursor.varint(), entry.chunk_bytes(group, frames)
        if num_bytes > raw_bytes or (coding == RAW and num_bytes < raw_bytes):
            raise ValueError(f"a chunk of {num_bytes} bytes instead of {raw_bytes}")
        yield Chunk(stream, group, coding, num_bytes, cursor.uint(4))


@dataclass(frozen=True)
class GainsUnit:
    """Band gains of one channel of the segment before it: its envelope, or its treble; or the places of one domain."""

    sequence: int
    """Of that segment."""
    channel: int
    """Of places, the number of the domain's stream; see `Header.stream_of`."""
    coding: int
    data: bytes


def encode_gains(unit: GainsUnit) -> bytes:
    """The body of an envelope, a treble, or places."""
    return varint(unit.sequence) + varint(unit.channel) + bytes([unit.coding]) + unit.data


def parse_gains(body: bytes) -> GainsUnit:
    """An envelope, a treble, or places, from its body. `ValueError` if it is too short."""
    cursor = Cursor(body)
    sequence, channel, coding = cursor.varint(), cursor.varint(), cursor.uint(1)
    return GainsUnit(sequence, channel, coding, body[cursor.position :])


def encode_unit(kind: bytes, body: bytes) -> bytes:
    """Any unit but a segment: its head and its body have a checksum each."""
    head = kind + varint(len(body))
    return head + zlib.crc32(head).to_bytes(4, "little") + body + zlib.crc32(body).to_bytes(4, "little")


def encode_index(offsets: Sequence[int], frames: Sequence[int]) -> bytes:
    """The body of an index, from the offset and the number of frames of each segment."""
    out = bytearray(varint(len(offsets)))
    before = 0
    for offset, num_frames in zip(offsets, frames, strict=True):
        out += varint(offset - before) + varint(num_frames)
        before = offset
    return bytes(out)


def parse_index(body: bytes, header: Header, stop: int) -> Index:
    """An index from its body; `stop` is its own offset. `ValueError` if it cannot be true."""
    cursor = Cursor(body)
    offsets, starts = array("Q"), array("Q")
    offset = frame = 0
    for _ in range(cursor.varint()):
        delta, num_frames = cursor.varint(), cursor.varint()
        offset += delta
        if delta < MIN_SEGMENT_BYTES or offset > stop - MIN_SEGMENT_BYTES:
            raise ValueError(f"a segment at byte {offset}")
        if not 1 <= num_frames <= header.segment_frames:
            raise ValueError(f"a segment of {num_frames} frames")
        offsets.append(offset)
        starts.append(frame)
        frame += num_frames
    if not cursor.at_end:
        raise ValueError("bytes after the last segment")
    return Index(offsets, starts, total_frames=frame)


def encode_end(unit: EndUnit) -> bytes:
    """The body of the end, 32 bytes."""
    numbers = (unit.end.total_frames, unit.end.original_samples, unit.index_offset, unit.end_offset)
    return b"".join(number.to_bytes(8, "little") for number in numbers)


def parse_end(body: bytes, header: Header) -> EndUnit:
    """The end from its body. `ValueError` if it makes no sense."""
    cursor = Cursor(body)
    total_frames, original_samples, index_offset, end_offset = (cursor.uint(8) for _ in range(4))
    end = End(total_frames, original_samples)
    if not cursor.at_end or total_frames > MAX_FRAMES or not samples_fit(end, header):
        raise ValueError("an end that cannot be true")
    return EndUnit(end, index_offset, end_offset)


def samples_fit(end: End, header: Header) -> bool:
    """Whether so many frames can hold so many samples; one frame may be missing, for the rounding of resamplers.

    Of a stream of parts the header says how many of each there are.
    """
    if header.parts:
        return (end.total_frames, end.original_samples) == (header.part_starts[-1], header.original_samples)
    available = (end.total_frames + 1) * header.hop_length * header.original_rate
    return end.original_samples <= MAX_SAMPLES and end.original_samples * header.sample_rate <= available
