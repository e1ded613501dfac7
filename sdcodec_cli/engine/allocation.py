"""What the bits of a file go to, and how many there are of them.

A bitrate is that of the payload in the mean over a file: codes of all streams of all channels, envelope and treble. A
domain that is not active takes nothing, so the same bitrate buys more codebooks of speech alone than of a full mix.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from ..bitstream import DomainEntry
from ..bitstream.packing import packed_bytes
from .stream import CodedSegment

FEWEST = 3
"""Codebooks of a domain that have to be left before a fine envelope is better than an other, at the same bitrate."""


@dataclass(frozen=True)
class Allocation:
    """What the bits of a file go to."""

    num_codebooks: int
    """Of each domain."""
    fine: bool
    """Whether the envelope, if there is one, is fine."""


@dataclass
class Extent:
    """How much there is to code in a file, counted as its segments come."""

    seconds: float = 0.0
    """Of the file."""
    active_seconds: float = 0.0
    """Of segments in which any stream is active, those of all channels added up."""
    segments: Counter[tuple[str, int]] = field(default_factory=Counter)
    """In how many segments of so many frames each stream is active, those of all channels counted."""

    def add(self, segment: CodedSegment, seconds: float, streams: Collection[str]) -> None:
        """Count a segment of one channel, with those of its streams that are stored."""
        found = [name for name, active in segment.active.items() if active and name in streams]
        self.segments.update((name, segment.codes[name].shape[-1]) for name in found)
        self.active_seconds += seconds * any(segment.active.values())

    def bitrate(self, entries: Iterable[DomainEntry], gains: float) -> float:
        """Of the payload in kbit/s, at most: codes that stay raw, and gains that take all they may.

        Args:
            entries: the streams, with the codebooks that they would have
            gains: set aside for envelope and treble of a channel, in kbit/s
        """
        known: Mapping[str, DomainEntry] = {entry.name: entry for entry in entries}
        num_bytes = sum(
            count * packed_bytes(group * num_frames, (known[name].codebook_size - 1).bit_length())
            for (name, num_frames), count in self.segments.items()
            for group in known[name].groups
        )
        return (num_bytes * 8 / 1000 + gains * self.active_seconds) / self.seconds
