"""Segments of a file as stretches without a gap between them."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from ..bitstream import Header, Reader, Segment
from ..runtime.model import Codes
from .conceal import Stretch
from .stream import SEGMENT_FRAMES

MAX_GAP_FRAMES = 180_000
"""Most frames that are filled with silence for lost segments in a stream without an end: an hour at 50 frames/s."""


def breaks_off(reader: Reader) -> bool:
    """Whether a file turned out to end too early."""
    return any(problem.kind == "truncated" for problem in reader.problems)


def stretches(
    reader: Reader,
    segments: Iterator[Segment],
    header: Header,
    streams: Collection[str],
    begin: int,
    stop: int | None,
) -> Iterator[Stretch]:
    """Frames `begin` to `stop` of a part, without a gap between them: where segments are missing, all is lost."""
    every = frozenset((channel, name) for channel in range(header.coded_channels) for name in streams)
    position = begin

    def gap(until: int) -> Iterator[Stretch]:
        nonlocal position
        while position < until:
            # The last piece is long enough for what leads up to the next segment.
            frames = min(until - position, SEGMENT_FRAMES)
            frames = min(frames, until - position - SEGMENT_FRAMES) if until - position > SEGMENT_FRAMES else frames
            yield Stretch(frames, {}, {}, {}, lost=every, is_gap=True)
            position += frames

    frames_of = {entry.name: header.frames_in(entry, 1) for entry in header.domains}
    for segment in segments:
        if segment.start_frame + segment.num_frames <= begin:
            continue
        if stop is not None and segment.start_frame >= stop:
            break
        if reader.end is None and segment.start_frame - position > MAX_GAP_FRAMES:
            break  # A forged start would fill the disk with silence; nothing says that the stream is this long.
        yield from gap(segment.start_frame)
        span = slice(position - segment.start_frame, None if stop is None else stop - segment.start_frame)
        num_frames = len(range(segment.num_frames)[span])
        gains, treble = (
            {channel: layout.per_frame(each, segment.num_frames)[:, span] for channel, each in given.items()}
            if layout
            else {}
            for layout, given in ((header.envelope, segment.gains), (header.treble, segment.treble))
        )
        yield Stretch(
            num_frames,
            {key: _cut(codes, span, frames_of[key[1]]) for key, codes in segment.codes.items()},
            gains,
            treble,
            lost=every - segment.codes.keys() - segment.silent - segment.removed,
            places={
                stem: header.stereo.per_frame(each, segment.num_frames)[:, span]
                for stem, each in segment.places.items()
                if header.stereo
            },
        )
        position += num_frames
    if reader.header.parts and stop is not None and not breaks_off(reader):
        yield from gap(stop)
    elif reader.end is not None:
        yield from gap(reader.end.total_frames if stop is None else min(stop, reader.end.total_frames))


def _cut(codes: Codes, span: slice, count: int) -> Codes:
    """Some frames of codes of which there are `count` for each frame."""
    return codes[:, span.start * count : None if span.stop is None else span.stop * count]
