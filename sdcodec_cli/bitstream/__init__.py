"""The `.sdc` container: bytes in, codes out, and back. No torch, no audio.

`docs/format.md` describes every byte. A stream is written and read front to back, without seeking; where the input
is a file, an index at its end makes seeking fast. Damage stays where it is and is always reported.
"""

from .entries import DomainEntry, GainLayout, LowerModel, Part, StreamKey
from .header import Header
from .reader import Problem, Reader, Segment
from .segment import End, StoredChunk
from .writer import Writer

__all__ = [
    "DomainEntry",
    "End",
    "GainLayout",
    "Header",
    "LowerModel",
    "Part",
    "Problem",
    "Reader",
    "Segment",
    "StoredChunk",
    "StreamKey",
    "Writer",
]
