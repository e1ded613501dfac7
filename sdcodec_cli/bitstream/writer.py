"""Writes a stream front to back: header, segments, index, end. It never seeks."""

# K codebooks, n frames of a segment

from __future__ import annotations

import zlib
from array import array
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, BinaryIO

from .codings import CODINGS, ENVELOPE_GAINS, RANGE, RAW, TREBLE_GAINS, GainKind
from .header import DomainEntry, GainLayout, Header, StreamKey, encode_header
from .segment import (
    END,
    ENVELOPE,
    INDEX,
    MAX_FRAMES,
    TREBLE,
    Chunk,
    End,
    EndUnit,
    GainsUnit,
    SegmentHead,
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


class Writer:
    """Writes the header at once, then one segment per `write`, then index and end with `close`.

    `fo` is only written to, and not closed. Memory grows by 10 bytes per segment, for the index.
    """

    def __init__(self, fo: BinaryIO, header: Header) -> None:
        self._fo = fo
        self._header = header
        self._streams = {key: number for number, key in enumerate(header.streams)}
        self._offsets = array("Q")
        self._frames = array("H")
        self._next_frame = 0
        self._closed = False
        self.bytes_written = 0
        """All bytes so far."""
        self.payload_bytes = 0
        """Bytes so far that hold codes and gains."""
        self.gains_bytes = 0
        """Bytes so far that hold gains of envelopes."""
        self.treble_bytes = 0
        """Bytes so far that hold gains of treble."""
        self._write(encode_header(header))

    def write(
        self,
        codes: Mapping[StreamKey, NDArray[np.integer[Any]] | None],
        num_frames: int | None = None,
        *,
        gains: Mapping[int, NDArray[np.integer[Any]]] | None = None,
        treble: Mapping[int, NDArray[np.integer[Any]]] | None = None,
    ) -> None:
        """Write one segment, 1 to `header.segment_frames` frames.

        Codes are integers `[K, n]`, all with the same n in a stage and each below the `codebook_size` of its domain. K
        is the domain's `num_codebooks`, or fewer if whole layer groups at the end are left out. None stands for a
        silent stream, a missing key for one that was removed. Without any array, `num_frames` says how long the
        segment is. Gains are integers `[B, n]` of channels that have an envelope, in the steps and bands of
        `header.envelope`, and treble likewise in those of `header.treble`.
        """
        import numpy as np

        if self._closed:
            raise ValueError("the stream is closed; nothing can be written after its end")
        unknown = [key for key in codes if key not in self._streams]
        if unknown:
            raise ValueError(f"no such stream in the header: {unknown[0]}")
        arrays = {self._streams[key]: np.asarray(value) for key, value in codes.items() if value is not None}
        num_frames = self._num_frames(arrays, num_frames)
        silent = frozenset(self._streams[key] for key, value in codes.items() if value is None)
        payload: dict[tuple[int, int], bytes] = {}
        for stream, array_ in arrays.items():
            for group, data in enumerate(_pack_groups(array_, self._header.domain_of(stream))):
                payload[group, stream] = data
        envelopes = self._units(gains, num_frames, self._header.envelope, ENVELOPE_GAINS, "an envelope")
        trebles = self._units(treble, num_frames, self._header.treble, TREBLE_GAINS, "treble")
        order = sorted(payload)
        chunks = tuple(
            Chunk(stream, group, RAW, len(payload[group, stream]), zlib.crc32(payload[group, stream]))
            for group, stream in order
        )
        head = SegmentHead(len(self._offsets), self._next_frame, num_frames, silent, chunks)
        self._offsets.append(self.bytes_written)
        self._frames.append(num_frames)
        self._next_frame += num_frames
        self._write(encode_segment(head, self._header) + b"".join(payload[place] for place in order))
        self.payload_bytes += head.payload_bytes
        for kind, units in ((ENVELOPE, envelopes), (TREBLE, trebles)):
            self._write(b"".join(encode_unit(kind, encode_gains(unit)) for unit in units))
        gains_bytes, treble_bytes = (sum(len(unit.data) for unit in units) for units in (envelopes, trebles))
        self.gains_bytes += gains_bytes
        self.treble_bytes += treble_bytes
        self.payload_bytes += gains_bytes + treble_bytes

    def close(self, original_samples: int) -> None:
        """Write index and end. `original_samples` per channel, at the original rate; a decoder returns so many."""
        if self._closed:
            raise ValueError("the stream is closed already")
        end = End(self._next_frame, original_samples)
        if original_samples < 0 or not samples_fit(end, self._header):
            raise ValueError(f"{self._next_frame} frames do not hold {original_samples} samples")
        self._closed = True
        index_offset = self.bytes_written
        self._write(encode_unit(INDEX, encode_index(self._offsets, self._frames)))
        self._write(encode_unit(END, encode_end(EndUnit(end, index_offset, self.bytes_written))))

    def _num_frames(self, arrays: Mapping[int, NDArray[Any]], num_frames: int | None) -> int:
        for stream, codes in arrays.items():
            if codes.ndim != 2:
                raise ValueError(f"codes must be [K, n], got shape {codes.shape} for {self._header.streams[stream]}")
            each = self._header.frames_in(self._header.domain_of(stream), 1)
            num_frames = codes.shape[1] // each if num_frames is None else num_frames
            if codes.shape[1] != each * num_frames:
                raise ValueError(f"streams of {each * num_frames} and {codes.shape[1]} frames in one segment")
        if num_frames is None:
            raise ValueError("num_frames must be given for a segment without codes")
        if not 1 <= num_frames <= self._header.segment_frames:
            raise ValueError(f"a segment must have 1 to {self._header.segment_frames} frames, got {num_frames}")
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
        """What holds the gains of one kind of all channels that have any."""
        units = []
        for channel, steps in sorted((gains or {}).items()):
            if layout is None:
                raise ValueError(f"gains in a stream whose header has no {name.removeprefix('an ')}")
            if not 0 <= channel < self._header.coded_channels:
                raise ValueError(f"no channel {channel} in a stream of {self._header.coded_channels}")
            shape = layout.num_bands, layout.num_columns(num_frames)
            values = steps - kind.lowest
            if steps.dtype.kind != "i" or steps.shape != shape or values.min() < 0 or values.max() >= kind.count:
                highest = kind.lowest + kind.count - 1
                raise ValueError(f"gains of {name} must be {list(shape)} integers from {kind.lowest} to {highest}")
            coding, data = min(
                ((coding, kind.codings[coding].encode(values, kind.count)) for coding in (RANGE, RAW)),
                key=lambda coded: len(coded[1]),
            )
            units.append(GainsUnit(len(self._offsets), channel, coding, data))
        return units

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:  # A raw pipe may take only some of the bytes at a time.
            rest = rest[self._fo.write(rest) :]
        self.bytes_written += len(data)


def _pack_groups(codes: NDArray[Any], entry: DomainEntry) -> list[bytes]:
    """The chunk of each layer group of codes `[K, n]`."""
    if codes.dtype.kind not in "iu":
        raise ValueError(f"codes must be integers, got {codes.dtype} for {entry.name}")
    if int(codes.min(initial=0)) < 0 or int(codes.max(initial=0)) >= entry.codebook_size:
        raise ValueError(f"codes of {entry.name} must be 0 to {entry.codebook_size - 1}")
    chunks = []
    first = 0
    for num_codebooks in entry.groups:
        if first == len(codes):
            break
        chunks.append(CODINGS[RAW].encode(codes[first : first + num_codebooks], entry.codebook_size))
        first += num_codebooks
    if not chunks or first != len(codes):
        raise ValueError(f"{entry.name} has layer groups of {entry.groups} codebooks, got {len(codes)} codebooks")
    return chunks
