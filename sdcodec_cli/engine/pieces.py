"""Streams as editing takes them: segments as they are stored, in order and without a hole.

Where something is lost or damaged stand segments, chunks and gains that say so.
"""

from __future__ import annotations

import contextlib
import itertools
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, cast

from ..bitstream import Header, Part, Reader, Segment, StoredChunk
from ..bitstream.codings import LOST
from ..bitstream.segment import ENVELOPE, STEREO, TREBLE, GainsUnit
from ..bitstream.source import PIECE
from ..errors import InputError
from .inputs import opened_file

MAX_LOST_FRAMES = 180_000
"""Most frames that a stream without an end is taken to have lost in one place: an hour at 50 frames/s."""


class Input:
    """A stream, and what is found to be damaged in it.

    Inside of `with`, its header is at hand, and it may be read more than once: what cannot seek is copied to a
    temporary file.
    """

    header: Header

    def __init__(self, given: str) -> None:
        self.given, self.name = given, "stdin" if given == "-" else given
        self.problems: dict[str, None] = {}
        self.unknown: set[bytes] = set()
        self.num_bytes = 0
        self._copy: BinaryIO | None = None

    def __enter__(self) -> Input:
        try:
            if self.given == "-" or not Path(self.given).is_file():
                with opened_file(self.given) as source:
                    self._spool(source)
            with self.opened() as reader:
                self.header = reader.header
        except BaseException:
            self.__exit__()
            raise
        return self

    def _spool(self, source: BinaryIO) -> None:
        try:
            self._copy = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115
            shutil.copyfileobj(source, self._copy, PIECE)
        except OSError as error:
            raise InputError(
                f"{self.name}: cannot be copied to a temporary file: {error.strerror}; free some space there, or name "
                "another folder with TMPDIR"
            ) from error

    def __exit__(self, *_: object) -> None:
        if self._copy is not None:
            self._copy.close()

    @contextlib.contextmanager
    def opened(self) -> Iterator[Reader]:
        """A reader at the start of the stream."""
        with contextlib.ExitStack() as stack:
            file = self._copy or stack.enter_context(opened_file(self.given))
            if self._copy:
                file.seek(0)
            reader = Reader(file, self.name)
            yield reader
            self.problems.update(dict.fromkeys(problem.message for problem in reader.problems))
            self.unknown |= reader.unknown
            self.num_bytes = max(self.num_bytes, reader.bytes_read)


@dataclass(frozen=True)
class Frames:
    """Frames of an input, from one segment's first to another's last."""

    stream: Input
    start: int
    stop: int


@dataclass(frozen=True)
class Piece:
    """What becomes a part of the output; see `Part`."""

    header: Header
    """Of the part that it is of."""
    origin: int
    first_sample: int
    num_samples: int
    ranges: tuple[Frames, ...]

    @property
    def stop(self) -> int:
        """Which frame of its file is the one behind its last."""
        return self.origin + sum(each.stop - each.start for each in self.ranges)

    @property
    def part(self) -> Part:
        return Part(
            num_frames=self.stop - self.origin,
            origin=self.origin,
            first_sample=self.first_sample,
            num_samples=self.num_samples,
            gain_db=self.header.gain_db,
            domains=self.header.domains,
            envelope=self.header.envelope,
            treble=self.header.treble,
            stereo=self.header.stereo,
        )

    def between(self, start: int, stop: int) -> Iterator[Segment]:
        """The segments that have frames from `start` to `stop` of its file, with first frames that count from there."""
        place = self.origin
        for each in self.ranges:
            first, last = max(start, place), min(stop, place + each.stop - each.start)
            if first < last:
                with each.stream.opened() as reader:
                    shift = place - each.start
                    for segment in segments_of(reader, first - shift, last - shift):
                        yield replace(segment, start_frame=segment.start_frame + shift)
            place += each.stop - each.start


def pieces_of(stream: Input) -> list[Piece]:
    """The parts of a stream, or all of it; none if it is empty."""
    header = stream.header
    if header.parts:
        return [
            Piece(own, part.origin, part.first_sample, part.num_samples, (Frames(stream, start, stop),))
            for part, own, (start, stop) in zip(
                header.parts, header.of_parts, itertools.pairwise(header.part_starts), strict=True
            )
        ]
    with stream.opened() as reader:
        if reader.end is None:  # it is looked for
            num_frames = 0
            for segment in segments_of(reader, 0, None):
                num_frames = segment.start_frame + segment.num_frames
        else:
            num_frames = reader.end.total_frames
        num_samples = length_of(reader, num_frames)
    if not num_frames or not num_samples:
        return []
    return [Piece(header, 0, 0, num_samples, (Frames(stream, 0, num_frames),))]


def length_of(reader: Reader, num_frames: int) -> int:
    """Samples of a stream of one file with so many frames, per channel.

    Of one without an end, the last frame stands for what is lost, and the samples are those of the frames before it.
    """
    header = reader.header
    if header.parts and header.original_samples is not None:
        return header.original_samples
    if reader.end is not None:
        return reader.end.original_samples
    return header.samples_in(max(0, num_frames - 1))


def segments_of(reader: Reader, start: int, stop: int | None) -> Iterator[Segment]:
    """The segments from one frame to another, or to the end, without a hole: where they are lost stand damaged ones."""
    header, position = reader.header, start
    known = len(reader.problems)
    before: Segment | None = None
    for segment in itertools.chain(reader.segments(start, stop, decode=False), (None,)):
        if before is not None:
            # Bytes that hold no segment were damaged behind it: gains, if it should have some.
            damaged = any(problem.kind == "damage" for problem in reader.problems[known:])
            yield _without_gains(before, header) if damaged else before
        known, before = len(reader.problems), segment
        if segment is not None:
            if reader.end is None and segment.start_frame - position > MAX_LOST_FRAMES:
                break  # A forged start would fill the disk, and nothing says that the stream is this long.
            yield from _lost(header, position, segment.start_frame)
            position = segment.start_frame + segment.num_frames
    if stop is None:
        stop = position + _missing(reader, position)
    yield from _lost(header, position, stop)


def _missing(reader: Reader, position: int) -> int:
    """How many frames are lost behind the last segment of a stream."""
    if reader.end is not None:
        return max(0, reader.end.total_frames - position)
    # Nothing says how much it was, or only what was announced: that something is lost shall be seen.
    return reader.header.part_starts[-1] - position if reader.header.parts else 1


def _lost(header: Header, start: int, stop: int) -> Iterator[Segment]:
    """Segments in the place of those that are lost."""
    while start < stop:
        num_frames = min(header.frames_left(start), stop - start)
        lost = {key: (StoredChunk(LOST),) for key in header.of_parts[header.part_at(start)].streams}
        yield Segment(-1, start, num_frames, codes={}, silent=frozenset(), removed=frozenset(), chunks=lost)
        start += num_frames


def _without_gains(segment: Segment, header: Header) -> Segment:
    """A segment of which gains are marked as damaged where it has none."""
    own = header.of_parts[header.part_at(segment.start_frame)]
    units: dict[bytes, tuple[GainsUnit, ...]] = {}
    owners = [own.stream_of(stem) for stem in own.stems]
    for kind, layout, channels in (
        (ENVELOPE, own.envelope, range(own.coded_channels)),
        (TREBLE, own.treble, range(own.coded_channels)),
        (STEREO, own.stereo, owners),
    ):
        found = {unit.channel: unit for unit in segment.units.get(kind, ())}
        if layout is not None:
            lost = {channel: GainsUnit(0, channel, LOST, b"") for channel in channels}
            units[kind] = tuple((lost | found).values())
    return replace(segment, units=units)
