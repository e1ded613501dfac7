"""Reads a stream: its header at once, then segment by segment. Damage is reported and never raised."""

# K codebooks, n frames of a segment

from __future__ import annotations

import contextlib
import itertools
import zlib
from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, BinaryIO, Literal

from ..errors import UnsupportedStream
from .codings import CODINGS, ENVELOPE_GAINS, LOST, RANGE, STEREO_GAINS, TREBLE_GAINS, GainKind, places_fit
from .entries import GainLayout, StreamKey
from .fields import read_header
from .header import Header
from .scanner import Scanner, SegmentAt, UnitAt
from .segment import (
    COVER,
    END_BYTES,
    ENVELOPE,
    INDEX,
    STEREO,
    TREBLE,
    Chunk,
    End,
    EndUnit,
    GainsUnit,
    Index,
    SegmentHead,
    StoredChunk,
    parse_gains,
)
from .source import Source
from .wire import MAX_VARINT_BYTES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..prediction import CodeTables

MAX_PROBLEMS = 1000

TOGETHER = 16
"""Segments of range-coded codes of a file that are decoded at once, which is quicker; of a pipe it is one."""

CHUNKS_TOGETHER, CODES_TOGETHER = 1024, 2**18
"""Chunks that are range-decoded at once, and codes of a block of segments, at most or little more: they take memory."""

ProblemKind = Literal[
    "chunk", "envelope", "treble", "stereo", "cover", "gap", "order", "truncated", "damage", "block", "junk", "more"
]
"""chunk: codes of a stream are lost in one segment. envelope: so are its band gains. treble: so is what is above its
band. stereo: so is where a domain stands. cover: the picture is damaged. gap: whole segments are lost. order: a segment
that comes twice or in the wrong place is ignored. truncated: there is no end. damage: damaged bytes, but no lost
segment. block: a unit without codes is damaged or unknown. junk: bytes after the end. more: there were too many
problems to list."""


@dataclass(frozen=True)
class Problem:
    """Something that is damaged or missing, and what is lost by it."""

    kind: ProblemKind
    message: str
    start_frame: int | None = None
    """Where the consequence begins; None if it is not a matter of time."""


@dataclass(frozen=True)
class Segment:
    """The codes of one stretch of time. Only the wanted domains are mentioned in it.

    A stream that is not in `codes`, `silent` or `removed` was damaged.
    """

    sequence: int
    start_frame: int
    num_frames: int
    codes: dict[StreamKey, NDArray[np.int64]]
    """`[K, n]`, n being more than `num_frames` for a stage of more frames; K is smaller than the domain's
    `num_codebooks` where the upper layer groups are damaged or left out."""
    silent: frozenset[StreamKey]
    removed: frozenset[StreamKey]
    num_codebooks: Mapping[StreamKey, int] = field(default_factory=dict)
    """Intact codebooks of each stream that has any, decoded or not."""
    num_bytes: Mapping[StreamKey, int] = field(default_factory=dict)
    """Bytes that they take in the stream."""
    raw_bytes: Mapping[StreamKey, int] = field(default_factory=dict)
    """Bytes that they would take if they were raw."""
    gains: dict[int, NDArray[np.int64]] = field(default_factory=dict)
    """Of channels that have an envelope here: `[B, n]` in steps, see `Header.envelope`."""
    gains_bytes: int = 0
    """Bytes that they take in the stream."""
    treble: dict[int, NDArray[np.int64]] = field(default_factory=dict)
    """Of channels that have something above the model's band here: `[B, n]` in steps, see `Header.treble`."""
    treble_bytes: int = 0
    """Bytes that they take in the stream."""
    places: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    """Of domains that are not in the middle here: `[2 B, n]`, level differences in steps and then widths, see
    `Header.stereo`."""
    places_bytes: Mapping[str, int] = field(default_factory=dict)
    """Bytes that they take in the stream, of each domain."""
    chunks: Mapping[StreamKey, tuple[StoredChunk, ...]] = field(default_factory=dict)
    """The same codes as they are stored, by layer group, for `Writer.copy`: unopened, so that those behind a right
    checksum may yet turn out to be none. A damaged one has the coding `LOST` and no bytes; the groups above it are not
    there."""
    units: Mapping[bytes, tuple[GainsUnit, ...]] = field(default_factory=dict)
    """The same of gains, by type of unit."""


@dataclass(frozen=True)
class _Undecoded:
    """A segment, without its codes."""

    head: SegmentHead
    header: Header
    """Of its part of the stream."""
    segment: Segment
    chunks: Mapping[int, list[tuple[Chunk, bytes]]]
    """By stream: those that are intact as bytes, from the base up."""
    damaged: set[int]
    """Streams of which chunks are damaged."""


@dataclass(frozen=True)
class _Place:
    """Where the reader is in the stream, and the number and first frame of the segment that it expects there."""

    offset: int
    sequence: int = 0
    frame: int = 0


@dataclass(frozen=True)
class _Range:
    """Frames that are wanted; `stop` is None for all to the end."""

    start: int
    stop: int | None

    def touch(self, start: int, stop: int) -> bool:
        return stop > self.start and (self.stop is None or start < self.stop)


@dataclass
class _Gains:
    """What follows a segment."""

    stop: int
    """Offset of what stands behind."""
    of: dict[bytes, dict[int, NDArray[np.int64]]] = field(default_factory=lambda: {kind: {} for kind in _GAINS})
    """By type of unit and channel, `[B, n]`; places by stream, `[2 B, n]`."""
    num_bytes: dict[bytes, dict[int, int]] = field(default_factory=lambda: {kind: {} for kind in _GAINS})
    units: dict[bytes, list[GainsUnit]] = field(default_factory=lambda: {kind: [] for kind in _GAINS})


_GAINS: Mapping[bytes, tuple[GainKind, ProblemKind, tuple[str, str]]] = {
    ENVELOPE: (ENVELOPE_GAINS, "envelope", ("an envelope", "it sounds duller")),
    TREBLE: (TREBLE_GAINS, "treble", ("the treble", "it is lost there")),
    STEREO: (STEREO_GAINS, "stereo", ("the place of a domain", "it is in the middle there")),
}
"""By type of unit: kind of gains, kind of problem, and what to say of it."""


class Reader:
    """A `.sdc` stream, from a file or from anything that delivers bytes in order and blocks until it has them.

    `name` is what messages of errors start with. The constructor raises `NotAStream`, `UnsupportedStream` or
    `CorruptStream` if the header is not usable; after that, whatever is wrong goes to `problems`.
    """

    def __init__(self, fo: BinaryIO, name: str = "-") -> None:
        self._source, self._name = Source(fo), name
        stored = read_header(self._source, name)
        self.header: Header = stored.header
        self.version: tuple[int, int] = stored.version
        """(major, minor) version of the format."""
        self.tables: CodeTables | None = None
        """What codes are decoded with that are range-coded; to be set before these are asked for."""
        self.problems: list[Problem] = []
        """In the order in which they were found, each once."""
        self.unknown: set[bytes] = set()
        """Types of intact units that this version does not know and skips."""
        self._first_unit = stored.num_bytes
        self._scanner = Scanner(self._source, self.header, stored.num_bytes)
        self._last_unit = self._scanner.last_end()
        self.end: End | None = self._last_unit.end if self._last_unit else None
        """Known at once if the input can seek and is whole, else when `segments` has come to it."""

    @property
    def can_seek(self) -> bool:
        """Whether the input is a file, and no pipe."""
        return self._source.size is not None

    def cover(self) -> bytes | None:
        """The picture behind the header, as it is stored; None if there is none, or, with a problem, it is damaged.

        Where the input cannot seek it has to be asked for before the segments.
        """
        if self.header.cover_bytes is None:
            return None
        if self._source.oldest > self._first_unit:
            raise ValueError("the input cannot seek, and the cover was in front of the segments")
        unit = self._scanner.unit_at(self._first_unit)
        picture = self._scanner.body_of(unit) if isinstance(unit, UnitAt) and self._is_cover(unit) else None
        if picture is None:
            self._report_cover()
        return picture

    def _is_cover(self, unit: UnitAt) -> bool:
        """Whether a unit is the one that the header announces; one in another place is not known."""
        begin = unit.body - unit.num_head_bytes
        return (unit.kind, unit.num_bytes, begin) == (COVER, self.header.cover_bytes, self._first_unit)

    @property
    def bytes_read(self) -> int:
        """Bytes from the start of the stream to the last one looked at; all of a seekable file that is not whole."""
        return self._source.bytes_read

    def segments(
        self,
        start_frame: int = 0,
        stop_frame: int | None = None,
        domains: Collection[str] | None = None,
        *,
        decode: bool = True,
    ) -> Iterator[Segment]:
        """The segments that touch frames `start_frame` to `stop_frame`, in order, as far as they are not lost.

        Codes are read for the wanted `domains` only, all by default. A segment of which the head is intact is
        returned even if all its codes are damaged. Input that cannot seek can be gone through once.

        Without `decode`, segments have no codes, no tables are needed, and of chunks only the checksums are checked.

        Raises:
            UnsupportedStream: there are no `tables`, or other ones than the stream needs
        """
        if decode and self.header.tables_sha256 != (self.tables.sha256 if self.tables else None):
            needed = self.header.tables_sha256
            if needed is not None:
                raise UnsupportedStream(
                    f"{self._name}: its codes need the tables {needed.hex()[:8]}... of {self.header.model}, which are "
                    "not here; name the model that it was made with (--model DIR)"
                )
        names = dict.fromkeys(entry.name for part in self.header.of_parts for entry in part.domains)
        for name in domains or ():
            if name not in names:
                raise ValueError(f"no domain {name} in this stream; it has {', '.join(names)}")
        if self._source.oldest > self._first_unit:
            raise ValueError("the input cannot seek, so its segments can be read only once")
        found = self._segments(_Range(start_frame, stop_frame), names if domains is None else domains)
        return self._decoded(found) if decode else self._undecoded(found)

    def _decoded(self, found: Iterator[_Undecoded]) -> Iterator[Segment]:
        """Segments with their codes; those of range-coded streams several at once."""
        together = 1 if self.header.tables_sha256 is None or self._source.size is None else TOGETHER
        for _, of_part in itertools.groupby(found, lambda each: self.header.part_at(each.head.start_frame)):
            block: list[_Undecoded] = []
            num_codes = 0
            for each in of_part:
                block.append(each)
                for stream in each.chunks:
                    entry = each.header.domain_of(stream)
                    num_codes += entry.num_codebooks * each.header.frames_in(entry, each.head.num_frames)
                if len(block) == together or num_codes >= CODES_TOGETHER:
                    yield from self._with_codes(block)
                    block, num_codes = [], 0
            if block:
                yield from self._with_codes(block)

    def _undecoded(self, found: Iterator[_Undecoded]) -> Iterator[Segment]:
        for each in found:
            keys = each.header.streams
            for stream in sorted(each.damaged):
                self._report_chunk(each.head, stream, each.segment.num_codebooks.get(keys[stream], 0))
            yield each.segment

    def _segments(self, frames: _Range, wanted: Collection[str]) -> Iterator[_Undecoded]:
        place = self._seek(frames.start)
        intact = place.offset  # A search after damage starts here: everything before is known to be intact.
        damage: tuple[int, int] | None = None
        while frames.stop is None or place.frame < frames.stop:
            self._source.forget(intact)
            found = self._scanner.unit_at(place.offset)
            if found is None:
                resumed = self._scanner.next_unit(max(intact, self._source.oldest))
                if resumed is None:
                    self._report_truncation(place)
                    return
                damage = min(place.offset, resumed), max(place.offset, resumed)
                intact = resumed
                place = _Place(resumed, place.sequence, place.frame)
            elif isinstance(found, EndUnit):
                self.end = found.end
                self._report_end(place, found.end, frames, damage)
                if self._source.read(place.offset + END_BYTES, 1):
                    self._report("junk", "there are bytes after the end; they are ignored", None)
                return
            elif isinstance(found, UnitAt):
                whole = self._scanner.is_whole(found)
                self._report_unit(found, whole)
                intact = found.stop if whole else found.body
                place = _Place(found.stop, place.sequence, place.frame)
            else:
                head = found.head
                intact = found.payload
                complaint = self._misplaced(head, place)
                if complaint:
                    self._report("order", f"{self._where(head)} is ignored: {complaint}", head.start_frame)
                    place = _Place(found.stop, place.sequence, place.frame)
                    continue
                self._report_gap(place, head.start_frame, frames, damage)
                damage = None
                if frames.stop is not None and head.start_frame >= frames.stop:
                    return
                gains = self._gains(found)
                if head.stop_frame > frames.start:
                    yield self._segment(found, wanted, gains)
                place = _Place(gains.stop, head.sequence + 1, head.stop_frame)

    @cached_property
    def _index(self) -> Index | None:
        return self._scanner.index_of(self._last_unit) if self._last_unit else None

    def _seek(self, start_frame: int) -> _Place:
        """The place of the segment with `start_frame`, from the index; else the first one."""
        first = _Place(self._first_unit)
        if start_frame <= 0 or self._last_unit is None or not self._last_unit.index_offset:
            return first
        if self._index and self._index.total_frames:
            number = bisect_right(self._index.starts, start_frame) - 1
            place = _Place(self._index.offsets[number], number, self._index.starts[number])
            found = self._scanner.unit_at(place.offset)
            expected = (place.sequence, place.frame)
            if isinstance(found, SegmentAt) and (found.head.sequence, found.head.start_frame) == expected:
                return place
        if self._last_unit.end.total_frames:
            message = f"the index does not lead to frame {start_frame}; the stream is searched from its start instead"
            self._report("block", message, None)
        return first

    # --- codes

    def _part(self, head: SegmentHead) -> Header:
        """The header of the part that a segment is of."""
        return self.header.of_parts[self.header.part_at(head.start_frame)]

    def _segment(self, found: SegmentAt, names: Collection[str], gains: _Gains) -> _Undecoded:
        head, header = found.head, self._part(found.head)
        keys = header.streams
        wanted = [stream for stream, (_, name) in enumerate(keys) if name in names]
        chunks: dict[int, list[tuple[Chunk, bytes]]] = {stream: [] for stream in wanted}
        copies: dict[StreamKey, tuple[StoredChunk, ...]] = {}
        damaged: set[int] = set()
        offset = found.payload
        for chunk in head.chunks:
            if chunk.stream in chunks and chunk.stream not in damaged:
                data = self._source.read(offset, chunk.num_bytes)
                whole = len(data) == chunk.num_bytes and zlib.crc32(data) == chunk.crc32
                key = keys[chunk.stream]
                copies[key] = (*copies.get(key, ()), StoredChunk(chunk.coding, data) if whole else StoredChunk(LOST))
                if whole and self._knows(chunk, header):
                    chunks[chunk.stream].append((chunk, data))
                else:
                    damaged.add(chunk.stream)
            offset += chunk.num_bytes
        stored = {chunk.stream for chunk in head.chunks}
        segment = Segment(
            head.sequence,
            head.start_frame,
            head.num_frames,
            codes={},
            silent=frozenset(keys[stream] for stream in wanted if stream in head.silent),
            removed=frozenset(keys[stream] for stream in wanted if stream not in head.silent | stored),
            gains=gains.of[ENVELOPE],
            gains_bytes=sum(gains.num_bytes[ENVELOPE].values()),
            treble=gains.of[TREBLE],
            treble_bytes=sum(gains.num_bytes[TREBLE].values()),
            places={header.domain_of(stream).stem: places for stream, places in gains.of[STEREO].items()},
            places_bytes={header.domain_of(stream).stem: count for stream, count in gains.num_bytes[STEREO].items()},
            chunks=copies,
            units={kind: tuple(units) for kind, units in gains.units.items()},
        )
        return _Undecoded(head, header, self._counted(segment, header, chunks), chunks, damaged)

    def _knows(self, chunk: Chunk, header: Header) -> bool:
        """Whether the coding of a chunk is one that this version has, for such codes."""
        if chunk.coding != RANGE:
            return chunk.coding in CODINGS
        entry = header.domain_of(chunk.stream)
        sizes = entry.name, entry.num_codebooks, entry.codebook_size
        return self.header.tables_sha256 is not None and (self.tables is None or self.tables.fits(*sizes))

    def _counted(
        self, segment: Segment, header: Header, chunks: Mapping[int, Sequence[tuple[Chunk, bytes]]]
    ) -> Segment:
        """A segment with the numbers of what is intact in it."""
        num_codebooks, num_bytes, raw_bytes = Counter[StreamKey](), Counter[StreamKey](), Counter[StreamKey]()
        for stream, of_stream in chunks.items():
            key, entry = header.streams[stream], header.domain_of(stream)
            for chunk, data in of_stream:
                num_codebooks[key] += entry.groups[chunk.group]
                num_bytes[key] += len(data)
                raw_bytes[key] += entry.chunk_bytes(chunk.group, header.frames_in(entry, segment.num_frames))
        return replace(segment, num_codebooks=num_codebooks, num_bytes=num_bytes, raw_bytes=raw_bytes)

    def _with_codes(self, block: Sequence[_Undecoded]) -> Iterator[Segment]:
        import numpy as np

        for found, of_chunks in zip(block, self._codes(block), strict=True):
            keys, codes, intact = found.header.streams, {}, {}
            for stream, chunks in found.chunks.items():
                groups = []
                for chunk, _ in chunks:
                    values = of_chunks[stream, chunk.group]
                    if values is None:
                        found.damaged.add(stream)
                        break
                    groups.append(values)
                intact[stream] = chunks[: len(groups)]
                if groups:
                    codes[keys[stream]] = np.concatenate(groups)
            for stream in sorted(found.damaged):
                self._report_chunk(found.head, stream, len(codes.get(keys[stream], ())))
            yield replace(self._counted(found.segment, found.header, intact), codes=codes)

    def _codes(self, block: Sequence[_Undecoded]) -> list[dict[tuple[int, int], NDArray[np.int64] | None]]:
        """Codes `[K, n]` of the chunks of segments of a part, by stream and layer group; None for damaged ones."""
        header = block[0].header
        codes: list[dict[tuple[int, int], NDArray[np.int64] | None]] = [{} for _ in block]
        # Chunks of one channel of a segment, as far as they have one number of frames.
        of_channels: dict[tuple[int, int, int], dict[tuple[str, int], bytes | NDArray[np.int64]]] = {}
        for number, found in enumerate(block):
            for stream, chunks in found.chunks.items():
                channel, name = header.streams[stream]
                entry = header.domain_of(stream)
                num_frames = header.frames_in(entry, found.head.num_frames)
                coded = of_channels.setdefault((number, channel, num_frames), {})
                has_coded = any(chunk.coding == RANGE for chunk, _ in chunks)
                for chunk, data in chunks:
                    values = None
                    if chunk.coding != RANGE:
                        with contextlib.suppress(ValueError):
                            shape = entry.groups[chunk.group], num_frames
                            values = CODINGS[chunk.coding].decode(data, shape, entry.codebook_size)
                    codes[number][stream, chunk.group] = values
                    if has_coded:
                        coded[name, chunk.group] = data if values is None else values
        of_channels = {place: coded for place, coded in of_channels.items() if coded}
        if of_channels:
            from ..prediction import Coded

            assert self.tables is not None  # or `segments` has raised an error
            groups = {entry.name: entry.groups for entry in header.domains}
            numbers = {key: stream for stream, key in enumerate(header.streams)}
            places = list(of_channels)
            size = max(1, CHUNKS_TOGETHER // sum(map(len, groups.values())))
            for first in range(0, len(places), size):
                some = places[first : first + size]
                given = [Coded(place[2], of_channels[place]) for place in some]
                for (number, channel, _), decoded in zip(some, self.tables.decode(given, groups), strict=True):
                    for (name, group), values in decoded.items():
                        codes[number][numbers[channel, name], group] = values
        return codes

    def _gains(self, found: SegmentAt) -> _Gains:
        """Gains of the channels of a segment, and places of its domains, which follow it.

        Nothing is looked for, and a pipe not waited for, in a stream that says it has none.
        """
        header = self._part(found.head)
        layouts = {ENVELOPE: header.envelope, TREBLE: header.treble, STEREO: header.stereo}
        # Of what is silent or was removed nobody says where it stands.
        active = {header.domain_of(chunk.stream).stem for chunk in found.head.chunks}
        most = dict.fromkeys((ENVELOPE, TREBLE), header.coded_channels) | {STEREO: len(active)}
        gains = _Gains(found.stop)
        for _ in range(sum(most[kind] for kind, layout in layouts.items() if layout is not None)):
            unit = self._scanner.unit_at(gains.stop)
            layout = layouts.get(unit.kind) if isinstance(unit, UnitAt) else None
            if not isinstance(unit, UnitAt) or layout is None:
                break
            kind, name, loss = _GAINS[unit.kind]
            owners: Sequence[int] = range(header.coded_channels)
            if unit.kind == STEREO:
                owners = [header.stream_of(stem) for stem in header.stems]
            stored = self._stored_gains(unit, found.head, layout, owners)
            values = None if stored is None else self._values(stored, found.head, layout, kind)
            of_kind = gains.units[unit.kind]
            if stored is None:
                # Of which channel it was nobody knows; the one that comes next is as good as any.
                last = of_kind[-1].channel if of_kind else -1
                owner = next((owner for owner in owners if owner > last), owners[-1])
                stored = GainsUnit(found.head.sequence, owner, LOST, b"")
            of_kind.append(stored)
            if values is None:
                where = self._where(found.head)
                self._report(name, f"{loss[0]} is damaged in {where}: {loss[1]}", found.head.start_frame)
            else:
                gains.of[unit.kind][stored.channel] = values
                gains.num_bytes[unit.kind][stored.channel] = len(stored.data)
            gains.stop = unit.stop
        return gains

    def _stored_gains(
        self, unit: UnitAt, head: SegmentHead, layout: GainLayout, owners: Sequence[int]
    ) -> GainsUnit | None:
        """Gains of a segment as they are stored; None if they are damaged, or those of another one, or of no owner."""
        # More bytes than raw gains take cannot be right, and are not asked for.
        most = layout.num_bands * (1 + (unit.kind == STEREO)) * layout.num_columns(head.num_frames)
        if unit.num_bytes > 2 * MAX_VARINT_BYTES + 1 + most:
            return None
        body = self._scanner.body_of(unit)
        if body is None:
            return None
        try:
            gains = parse_gains(body)
        except ValueError:
            return None
        return gains if gains.sequence == head.sequence and gains.channel in owners else None

    @staticmethod
    def _values(gains: GainsUnit, head: SegmentHead, layout: GainLayout, kind: GainKind) -> NDArray[np.int64] | None:
        """Gains `[B, n]`; None if they are damaged, or in a coding that this version lacks."""
        is_stereo = kind is STEREO_GAINS
        shape = layout.num_bands * (1 + is_stereo), layout.num_columns(head.num_frames)
        try:
            values = kind.codings[gains.coding].decode(gains.data, shape, kind.count) + kind.lowest
        except (KeyError, ValueError):
            return None
        return None if is_stereo and not places_fit(values) else values

    # --- problems

    def _misplaced(self, head: SegmentHead, place: _Place) -> str | None:
        """Why a segment cannot be the next one."""
        missing = head.sequence - place.sequence
        if missing < 0:
            return "it comes twice or too late"
        first, last = place.frame + missing, place.frame + missing * self.header.segment_frames
        if not first <= head.start_frame <= last:
            return f"it should start between frames {first} and {last}"
        if self._last_unit and head.stop_frame > self._last_unit.end.total_frames:
            return f"the stream has only {self._last_unit.end.total_frames} frames"
        return None

    def _report_gap(self, place: _Place, frame: int, frames: _Range, damage: tuple[int, int] | None) -> None:
        """Nothing was found from `place` up to `frame`."""
        if frame > place.frame:
            if frames.touch(place.frame, frame):
                span = self._span(place.frame, frame)
                self._report("gap", f"all streams are lost in {span}: segments are damaged or missing", place.frame)
        elif damage:
            self._report("damage", f"bytes {damage[0]}-{damage[1]} are damaged; no segment is lost there", None)

    def _report_unit(self, unit: UnitAt, whole: bool) -> None:
        who = f"block {unit.kind.decode()} at byte {unit.body}"
        if self._is_cover(unit):
            if not whole:
                self._report_cover()
            return
        if whole and unit.kind not in (INDEX, *_GAINS):
            self.unknown.add(unit.kind)
        if not whole:
            self._report("block", f"{who} is damaged; it holds no codes", None)
        elif unit.kind[:1].isupper() and unit.kind != INDEX:
            self._report("block", f"{who} is unknown to this version and skipped", None)

    def _report_cover(self) -> None:
        self._report("cover", "the cover is damaged; it is lost, and nothing else is by that", None)

    def _report_chunk(self, head: SegmentHead, stream: int, num_intact: int) -> None:
        channel, name = self._part(head).streams[stream]
        who = name if self.header.coded_channels == 1 else f"{name} of channel {channel + 1}"
        result = f"only its first {num_intact} codebooks are used" if num_intact else "it is lost there"
        self._report("chunk", f"{who} is damaged in {self._where(head)}: {result}", head.start_frame)

    def _report_end(self, place: _Place, end: End, frames: _Range, damage: tuple[int, int] | None) -> None:
        if end.total_frames < place.frame:
            self._report("block", f"the end announces {end.total_frames} frames, but there are {place.frame}", None)
        else:
            self._report_gap(place, end.total_frames, frames, damage)

    def _report_truncation(self, place: _Place) -> None:
        message = f"stops after {self._seconds(place.frame):.2f} s, before its end; whatever followed is lost"
        self._report("truncated", message, place.frame)

    def _report(self, kind: ProblemKind, message: str, start_frame: int | None) -> None:
        problem = Problem(kind, message, start_frame)
        if len(self.problems) > MAX_PROBLEMS or problem in self.problems:
            return
        if len(self.problems) == MAX_PROBLEMS:
            problem = Problem("more", f"more than {MAX_PROBLEMS} problems; the others are not listed")
        self.problems.append(problem)

    def _where(self, head: SegmentHead) -> str:
        return f"segment {head.sequence} ({self._span(head.start_frame, head.stop_frame)})"

    def _span(self, start: int, stop: int) -> str:
        return f"frames {start}-{stop - 1}, {self._seconds(start):.2f}-{self._seconds(stop):.2f} s"

    def _seconds(self, frame: int) -> float:
        return self.header.seconds_at(frame)
