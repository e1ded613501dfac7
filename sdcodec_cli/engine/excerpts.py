"""What is wanted of a file, part by part, and where decoding has to begin for it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..bitstream import Header, Reader, Segment

LEAD_SECONDS = 1
"""Audio decoded before the start of an excerpt, so that the resampler has settled when it comes to it."""


@dataclass(frozen=True)
class Excerpt:
    """What is wanted of one part of a stream, and where decoding begins for it; frames are those of its own file."""

    header: Header
    """Of the part."""
    shift: int
    """What brings a frame to its place in the stream."""
    origin: int
    """The first frame that there is."""
    stop: int | None
    """The one behind the last; None while it is unknown."""
    begin: int
    """The first sample at the original rate that is wanted."""
    first_frame: int
    """Where decoding begins."""
    lead: int
    """Samples of the model between that and what is resampled, which begins at a whole sample at every rate."""
    skip_samples: int
    """Samples at the original rate between that and the start of the excerpt."""
    num_samples: int | None
    """Length at the original rate; None while it is unknown."""

    @classmethod
    def of(
        cls, header: Header, begin: int, num_samples: int | None, *, shift: int, origin: int, stop: int | None
    ) -> Excerpt:
        # Whole seconds are whole samples at every rate.
        lead = max(0, begin // header.original_rate - LEAD_SECONDS) * header.sample_rate
        resampled = max(lead, header.first_sample_from(origin))
        first_frame, lead = divmod(resampled, header.hop_length)
        skip = begin - resampled * header.original_rate // header.sample_rate
        return cls(header, shift, origin, stop, begin, first_frame, lead, skip, num_samples)

    def span(self, context: int) -> tuple[int, int | None]:
        """First frame in the stream, and that behind the last one, that are decoded with so much context."""
        begin, stop = max(self.origin, self.first_frame - context), self.stop
        if self.num_samples is not None:
            seconds = (self.skip_samples + self.num_samples) / self.header.original_rate + LEAD_SECONDS
            wanted = self.first_frame + math.ceil(seconds * self.header.frame_rate) + context
            stop = wanted if stop is None else min(wanted, stop)
        return begin + self.shift, None if stop is None else stop + self.shift


def excerpts_of(reader: Reader, header: Header, start: float = 0.0, duration: float | None = None) -> list[Excerpt]:
    """What is wanted of each part of a file from `start` on, both in seconds, as far as anything is."""
    length = reader.end.original_samples if reader.end else header.original_samples
    begin = round(start * header.original_rate)
    stop = None if duration is None else begin + max(1, round(duration * header.original_rate))
    if not header.parts:
        if length is not None:
            stop = length if stop is None else min(stop, length)
        num_samples = None if stop is None else stop - begin
        if num_samples is not None and num_samples <= 0:
            return []
        return [Excerpt.of(header, begin, num_samples, shift=0, origin=0, stop=None)]
    excerpts, before = [], 0  # samples of the parts before
    for part, own, place in zip(header.parts, header.of_parts, header.part_starts, strict=False):
        first = max(begin - before, 0)
        last = part.num_samples if stop is None else min(stop - before, part.num_samples)
        if first < last:
            excerpts.append(
                Excerpt.of(
                    own,
                    part.first_sample + first,
                    last - first,
                    shift=place - part.origin,
                    origin=part.origin,
                    stop=part.origin + part.num_frames,
                )
            )
        before += part.num_samples
    return excerpts


def num_samples_of(excerpts: Sequence[Excerpt]) -> int | None:
    """Samples of all of them; None while that is unknown."""
    lengths = [excerpt.num_samples for excerpt in excerpts]
    return None if None in lengths else sum(length for length in lengths if length is not None)


def by_part(
    segments: Iterator[Segment], header: Header, excerpts: Sequence[Excerpt]
) -> Iterator[tuple[Excerpt, Iterator[Segment] | None]]:
    """Each excerpt with the segments of its part, which come one part after the other; None if there are none."""
    groups = itertools.groupby(segments, lambda segment: header.part_at(segment.start_frame))
    found = next(groups, None)
    for excerpt in excerpts:
        if found is not None and header.part_at(excerpt.origin + excerpt.shift) == found[0]:
            yield excerpt, found[1]
            found = next(groups, None)
        else:
            yield excerpt, None
