"""Writes a stream front to back: header, segments, index, end. It never seeks."""

# K codebooks, n frames of a segment

from __future__ import annotations

import zlib
from array import array
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, BinaryIO

from .codings import CODINGS, ENVELOPE_GAINS, LOST, RANGE, RAW, STEREO_GAINS, TREBLE_GAINS, GainKind, places_fit
from .entries import DomainEntry, GainLayout, StreamKey
from .fields import encode_header
from .header import Header
from .limits import MAX_CODES, MAX_FRAMES
from .segment import (
    COVER,
    END,
    ENVELOPE,
    INDEX,
    STEREO,
    TREBLE,
    Chunk,
    End,
    EndUnit,
    GainsUnit,
    SegmentHead,
    StoredChunk,
    encode_end,
    encode_gains,
    encode_index,
    encode_segment,
    encode_unit,
    samples_fit,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..prediction import CodeTables
    from .reader import Segment

TOGETHER = 16
"""Segments that are range-coded at once where nobody waits for them."""


@dataclass(frozen=True)
class _Waiting:
    """A segment that is not written yet, with the gains that follow it."""

    header: Header
    """Of its part of the stream."""
    num_frames: int
    silent: frozenset[int]
    codes: Mapping[int, NDArray[np.integer[Any]]]
    """By stream, `[K, n]`."""
    copied: Mapping[int, Sequence[StoredChunk]]
    """Of streams that have no codes but their bytes, or are damaged."""
    units: Mapping[bytes, Sequence[GainsUnit]]
    """Gains, and places, by type of unit."""


class Writer:
    """Writes the header at once, then one segment per `write` or `copy`, then index and end with `close`.

    `fo` is only written to, and not closed. Memory grows by 10 bytes per segment, for the index.

    Args:
        fo: where the stream goes
        header: of the stream
        tables: what codes are range-coded with where that takes fewer bytes, if the header names any
        together: segments that are coded at once, which is quicker; up to so many wait before they are written
        copies: whether segments are only copied, which needs no tables
        cover: a JPEG or PNG picture, which goes right behind the header; the header need not know of it

    Raises:
        ValueError: these are not the tables that the header names, or the picture has too many bytes or none
    """

    def __init__(
        self,
        fo: BinaryIO,
        header: Header,
        *,
        tables: CodeTables | None = None,
        together: int = 1,
        copies: bool = False,
        cover: bytes | None = None,
    ) -> None:
        header = replace(header, cover_bytes=None if cover is None else len(cover))
        if not copies and header.tables_sha256 != (tables.sha256 if tables else None):
            raise ValueError("the tables are not those that the header names")
        self._fo = fo
        self._header = header
        self._tables, self._together = tables, together
        self._waiting: list[_Waiting] = []
        self._num_segments = 0
        self._offsets = array("Q")
        self._frames = array("H")
        self._starts = 0  # frame of the first segment that waits
        self._next_frame = 0
        self._closed = False
        self.bytes_written = 0
        """All bytes so far."""
        self.payload_bytes = 0
        """Bytes so far that hold codes, gains and places."""
        self.saved_bytes = 0
        """Bytes that raw codes would have taken more so far."""
        self.gains_bytes = 0
        """Bytes so far that hold gains of envelopes."""
        self.treble_bytes = 0
        """Bytes so far that hold gains of treble."""
        self.stereo_bytes = 0
        """Bytes so far that hold places of domains."""
        self._write(encode_header(header))
        if cover is not None:
            self._write(encode_unit(COVER, cover))

    @property
    def num_frames(self) -> int:
        """Frames so far."""
        return self._next_frame

    @property
    def saved_percent(self) -> float:
        """The same, in percent of what raw codes would have taken."""
        codes_bytes = self.payload_bytes - self.gains_bytes - self.treble_bytes - self.stereo_bytes + self.saved_bytes
        return 100 * self.saved_bytes / max(1, codes_bytes)

    def write(
        self,
        codes: Mapping[StreamKey, NDArray[np.integer[Any]] | None],
        num_frames: int | None = None,
        *,
        gains: Mapping[int, NDArray[np.integer[Any]]] | None = None,
        treble: Mapping[int, NDArray[np.integer[Any]]] | None = None,
        places: Mapping[str, NDArray[np.integer[Any]]] | None = None,
        lost: Collection[StreamKey] = (),
    ) -> None:
        """Write one segment, 1 to `header.segment_frames` frames.

        Codes are integers `[K, n]`, all with the same n in a stage and each below the `codebook_size` of its domain. K
        is the domain's `num_codebooks`, or fewer if whole layer groups at the end are left out. None stands for a
        silent stream, a missing key for one that was removed, or that is damaged if it is among those `lost`. Without
        any array, `num_frames` says how long the segment is. Gains are integers `[B, n]` of channels that have an
        envelope, in the steps and bands of `header.envelope`, and treble likewise in those of `header.treble`. Places
        are integers `[2 B, n]` of domains that are not in the middle: level differences in the steps and bands of
        `header.stereo`, and then widths.
        """
        import numpy as np

        header = self._part()
        numbers = _numbers(header, [*codes, *lost])
        if set(lost) & codes.keys():
            raise ValueError("a stream that is lost has no codes, and is not silent")
        arrays = {numbers[key]: np.asarray(value) for key, value in codes.items() if value is not None}
        num_frames = self._num_frames(header, arrays, num_frames)
        if sum(array_.size for array_ in arrays.values()) > MAX_CODES:
            raise ValueError(f"a segment must not have more than {MAX_CODES} codes; make it shorter")
        silent = frozenset(numbers[key] for key, value in codes.items() if value is None)
        for stream, array_ in arrays.items():
            _check_codes(array_, header.domain_of(stream))
        of_streams = {header.stream_of(domain): values for domain, values in (places or {}).items()}
        units = {
            ENVELOPE: self._units(gains, num_frames, header.envelope, ENVELOPE_GAINS, "an envelope"),
            TREBLE: self._units(treble, num_frames, header.treble, TREBLE_GAINS, "treble"),
            STEREO: self._units(of_streams, num_frames, header.stereo, STEREO_GAINS, "stereo"),
        }
        damaged = {numbers[key]: (StoredChunk(LOST),) for key in lost}
        self._append(_Waiting(header, num_frames, silent, arrays, damaged, units))

    def copy(self, segment: Segment) -> None:
        """Write a segment of another stream as it is stored there: nothing is opened, or coded again.

        Only its number of frames, `silent`, `chunks` and `units` matter. What is damaged there is damaged here.
        """
        header = self._part()
        numbers = _numbers(header, [*segment.silent, *segment.chunks])
        num_frames = self._num_frames(header, {}, segment.num_frames)
        for key, chunks in segment.chunks.items():
            entry = header.domain_of(numbers[key])
            sizes = [entry.chunk_bytes(group, header.frames_in(entry, num_frames)) for group in range(len(chunks))]
            if any(len(chunk.data) > size for chunk, size in zip(chunks, sizes, strict=True)):
                raise ValueError(f"chunks of {entry.name} that have more bytes than raw ones")
        units = {
            kind: [replace(unit, sequence=self._num_segments) for unit in segment.units.get(kind, ())]
            for kind in (ENVELOPE, TREBLE, STEREO)
        }
        layouts = {ENVELOPE: header.envelope, TREBLE: header.treble, STEREO: header.stereo}
        if any(units[kind] and layout is None for kind, layout in layouts.items()):
            raise ValueError("gains in a stream whose header has none")
        silent = frozenset(numbers[key] for key in segment.silent)
        copied = {numbers[key]: chunks for key, chunks in segment.chunks.items()}
        self._append(_Waiting(header, num_frames, silent, {}, copied, units))

    def _part(self) -> Header:
        """The header of the part that the next segment is of."""
        if self._closed:
            raise ValueError("the stream is closed; nothing can be written after its end")
        return self._header.of_parts[self._header.part_at(self._next_frame)]

    def _append(self, segment: _Waiting) -> None:
        if self._waiting and self._waiting[0].header is not segment.header:
            self._flush()  # tables are for one part at a time
        self._waiting.append(segment)
        self._num_segments += 1
        self._next_frame += segment.num_frames
        if len(self._waiting) >= self._together:
            self._flush()

    def _flush(self) -> None:
        """Write the segments that wait."""
        coded = self._range_coded()
        for number, segment in enumerate(self._waiting):
            header = segment.header
            payload: dict[tuple[int, int], tuple[int, bytes]] = {}
            for stream, copied in segment.copied.items():
                entry = header.domain_of(stream)
                for group, chunk in enumerate(copied):
                    payload[group, stream] = chunk.coding, chunk.data
                    if chunk.coding != LOST:
                        raw_bytes = entry.chunk_bytes(group, header.frames_in(entry, segment.num_frames))
                        self.saved_bytes += raw_bytes - len(chunk.data)
            for stream, codes in segment.codes.items():
                for group, raw in enumerate(_pack_groups(codes, header.domain_of(stream))):
                    data = coded.get((number, stream, group), raw)
                    payload[group, stream] = (RANGE, data) if len(data) < len(raw) else (RAW, raw)
                    self.saved_bytes += len(raw) - len(payload[group, stream][1])
            order = sorted(payload)
            chunks = tuple(
                Chunk(stream, group, coding, len(data), zlib.crc32(data))
                for group, stream in order
                for coding, data in [payload[group, stream]]
            )
            start = self._starts
            self._starts += segment.num_frames
            head = SegmentHead(len(self._offsets), start, segment.num_frames, segment.silent, chunks)
            self._offsets.append(self.bytes_written)
            self._frames.append(segment.num_frames)
            self._write(encode_segment(head, segment.header) + b"".join(payload[place][1] for place in order))
            self.payload_bytes += head.payload_bytes
            num_bytes = dict.fromkeys((ENVELOPE, TREBLE, STEREO), 0)
            for kind in num_bytes:
                for unit in segment.units.get(kind, ()):
                    self._write(encode_unit(kind, encode_gains(unit)))
                    num_bytes[kind] += len(unit.data)
            self.gains_bytes += num_bytes[ENVELOPE]
            self.treble_bytes += num_bytes[TREBLE]
            self.stereo_bytes += num_bytes[STEREO]
            self.payload_bytes += sum(num_bytes.values())
        self._waiting.clear()

    def _range_coded(self) -> dict[tuple[int, int, int], bytes]:
        """Chunks of the segments that wait, by segment, stream and group, as far as tables are for their codes.

        They are decoded again, and left out should other codes come of that.
        """
        import numpy as np

        from ..prediction import Coded

        if self._tables is None or not self._waiting:
            return {}
        header = self._waiting[0].header
        streams = header.streams
        of_channels: dict[tuple[int, int, int], dict[str, NDArray[np.int64]]] = {}
        for number, segment in enumerate(self._waiting):
            for stream, codes in segment.codes.items():
                entry = header.domain_of(stream)
                if self._tables.fits(entry.name, entry.num_codebooks, entry.codebook_size):
                    place = number, streams[stream][0], codes.shape[1]
                    of_channels.setdefault(place, {})[entry.name] = codes.astype(np.int64)
        given = [Coded(place[2], codes) for place, codes in of_channels.items()]
        groups = {entry.name: entry.groups for entry in header.domains}
        numbers = {key: stream for stream, key in enumerate(streams)}
        found = self._tables.encode(given, groups)
        again = self._tables.decode(
            [Coded(each.num_frames, data) for each, data in zip(given, found, strict=True)], groups
        )
        chunks = {}
        for place, data, back in zip(of_channels, found, again, strict=True):
            number, channel, _ = place
            for (name, group), each in data.items():
                first, decoded = sum(groups[name][:group]), back[name, group]
                codes = of_channels[place][name][first : first + groups[name][group]]
                if decoded is not None and np.array_equal(codes, decoded):
                    chunks[number, numbers[channel, name], group] = each
        return chunks

    def close(self, original_samples: int) -> None:
        """Write index and end. `original_samples` per channel, at the original rate; a decoder returns so many."""
        if self._closed:
            raise ValueError("the stream is closed already")
        end = End(self._next_frame, original_samples)
        if original_samples < 0 or not samples_fit(end, self._header):
            raise ValueError(f"{self._next_frame} frames do not hold {original_samples} samples")
        self._flush()
        self._closed = True
        index_offset = self.bytes_written
        self._write(encode_unit(INDEX, encode_index(self._offsets, self._frames)))
        self._write(encode_unit(END, encode_end(EndUnit(end, index_offset, self.bytes_written))))

    def _num_frames(self, header: Header, arrays: Mapping[int, NDArray[Any]], num_frames: int | None) -> int:
        for stream, codes in arrays.items():
            if codes.ndim != 2:
                raise ValueError(f"codes must be [K, n], got shape {codes.shape} for {header.streams[stream]}")
            each = header.frames_in(header.domain_of(stream), 1)
            num_frames = codes.shape[1] // each if num_frames is None else num_frames
            if codes.shape[1] != each * num_frames:
                raise ValueError(f"streams of {each * num_frames} and {codes.shape[1]} frames in one segment")
        if num_frames is None:
            raise ValueError("num_frames must be given for a segment without codes")
        longest = self._header.frames_left(self._next_frame)
        if not 1 <= num_frames <= longest:
            raise ValueError(f"a segment must have 1 to {longest} frames, got {num_frames}")
        if self._next_frame + num_frames > MAX_FRAMES:
            raise ValueError(f"a stream must not have more than {MAX_FRAMES} frames")
        return num_frames

    def _units(
        self,
        gains: Mapping[int, NDArray[np.integer[Any]]] | None,
        num_frames: int,
        layout: GainLayout | None,
        kind: GainKind,
        name: str,
    ) -> list[GainsUnit]:
        """What holds the gains of one kind of all channels that have any, or the places of all domains that do."""
        units = []
        is_stereo = kind is STEREO_GAINS
        for channel, steps in sorted((gains or {}).items()):
            if layout is None:
                raise ValueError(f"gains in a stream whose header has no {name.removeprefix('an ')}")
            if not is_stereo and not 0 <= channel < self._header.coded_channels:
                raise ValueError(f"no channel {channel} in a stream of {self._header.coded_channels}")
            shape = layout.num_bands * (1 + is_stereo), layout.num_columns(num_frames)
            values = steps - kind.lowest
            if steps.dtype.kind != "i" or steps.shape != shape or values.min() < 0 or values.max() >= kind.count:
                highest = kind.lowest + kind.count - 1
                raise ValueError(f"gains of {name} must be {list(shape)} integers from {kind.lowest} to {highest}")
            if is_stereo and not places_fit(steps):
                raise ValueError("widths of stereo must not be below 0")
            coding, data = min(
                ((coding, kind.codings[coding].encode(values, kind.count)) for coding in (RANGE, RAW)),
                key=lambda coded: len(coded[1]),
            )
            units.append(GainsUnit(self._num_segments, channel, coding, data))
        return units

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:  # A raw pipe may take only some of the bytes at a time.
            rest = rest[self._fo.write(rest) :]
        self.bytes_written += len(data)


def _numbers(header: Header, keys: Collection[StreamKey]) -> dict[StreamKey, int]:
    """Numbers of streams; `ValueError` if the header has not all of `keys`."""
    numbers = {key: number for number, key in enumerate(header.streams)}
    unknown = [key for key in keys if key not in numbers]
    if unknown:
        raise ValueError(f"no such stream in the header: {unknown[0]}")
    return numbers


def _check_codes(codes: NDArray[Any], entry: DomainEntry) -> None:
    """`ValueError` unless these can be codes `[K, n]` of a domain."""
    if codes.dtype.kind not in "iu":
        raise ValueError(f"codes must be integers, got {codes.dtype} for {entry.name}")
    if int(codes.min(initial=0)) < 0 or int(codes.max(initial=0)) >= entry.codebook_size:
        raise ValueError(f"codes of {entry.name} must be 0 to {entry.codebook_size - 1}")
    if len(codes) not in [sum(entry.groups[: count + 1]) for count in range(len(entry.groups))]:
        raise ValueError(f"{entry.name} has layer groups of {entry.groups} codebooks, got {len(codes)} codebooks")


def _pack_groups(codes: NDArray[Any], entry: DomainEntry) -> list[bytes]:
    """The raw chunk of each layer group of codes `[K, n]`."""
    chunks = []
    first = 0
    for num_codebooks in entry.groups:
        if first < len(codes):
            chunks.append(CODINGS[RAW].encode(codes[first : first + num_codebooks], entry.codebook_size))
        first += num_codebooks
    return chunks
