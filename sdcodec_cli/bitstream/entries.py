"""What headers are made of: domains, models of lower stages, layouts of gains, parts."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .limits import (
    MAX_BANDS,
    MAX_CODEBOOK_SIZE,
    MAX_CODEBOOKS,
    MAX_CONTEXT_FRAMES,
    MAX_GAIN_FRAMES,
    MAX_GROUPS,
    MAX_HOP_LENGTH,
    MAX_RATE,
    check_domain_name,
    check_model_name,
    check_range,
)
from .packing import packed_bytes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

GROUP_CODEBOOKS = 4
"""Codebooks in a layer group, unless the domain says otherwise."""

StreamKey = tuple[int, str]
"""(channel, domain name): what one sequence of codes belongs to."""


@dataclass(frozen=True, kw_only=True)
class DomainEntry:
    """A domain as this stream stores it, which may be with fewer codebooks than its model has; or one stage of it."""

    name: str
    """1 to 32 of `a-z 0-9 _ -`, not starting with `_` or `-`; safe as an option value and in a file name."""
    stem: str = ""
    """The domain whose audio it adds to, which is `name` by default."""
    stage: int = 0
    """From 0, the lowest."""
    num_codebooks: int
    """Codebooks stored in this stream, 1 to 64."""
    codebook_size: int
    """Entries of a codebook, 2 to 65,536; every code is below it."""
    num_shared: int = 0
    """How many of the model's last codebooks all domains share; for information only."""
    groups: tuple[int, ...] = ()
    """Codebooks in each layer group, base first; their sum is `num_codebooks`. By default groups of four."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "stem", self.stem or self.name)
        for name in (self.name, self.stem):
            check_domain_name(name)
        check_range(f"num_codebooks of {self.name}", self.num_codebooks, 1, MAX_CODEBOOKS)
        check_range(f"codebook_size of {self.name}", self.codebook_size, 2, MAX_CODEBOOK_SIZE)
        check_range(f"num_shared of {self.name}", self.num_shared, 0, MAX_CODEBOOKS)
        if not self.groups:
            full, rest = divmod(self.num_codebooks, GROUP_CODEBOOKS)
            object.__setattr__(self, "groups", (GROUP_CODEBOOKS,) * full + (rest,) * (rest > 0))
        check_range(f"number of layer groups of {self.name}", len(self.groups), 1, MAX_GROUPS)
        if min(self.groups) < 1 or sum(self.groups) != self.num_codebooks:
            raise ValueError(f"groups of {self.name} are {self.groups}; they must add up to {self.num_codebooks}")

    @property
    def code_bits(self) -> int:
        """Bits of one code."""
        return (self.codebook_size - 1).bit_length()

    def chunk_bytes(self, group: int, num_frames: int) -> int:
        """Bytes of the raw codes of a layer group over `num_frames` frames."""
        return packed_bytes(self.groups[group] * num_frames, self.code_bits)


@dataclass(frozen=True, kw_only=True)
class LowerModel:
    """A model whose audio the next stage adds to; without the stages above it, it decodes those up to its own."""

    model: str
    """See `Header`."""
    weights_sha256: bytes
    sample_rate: int
    hop_length: int
    context_frames: int

    def __post_init__(self) -> None:
        check_model_name(self.model)
        if len(self.weights_sha256) != 32:
            raise ValueError(f"weights_sha256 must be 32 bytes, got {len(self.weights_sha256)}")
        check_range("sample_rate", self.sample_rate, 1, MAX_RATE)
        check_range("hop_length", self.hop_length, 1, MAX_HOP_LENGTH)
        check_range("context_frames", self.context_frames, 0, MAX_CONTEXT_FRAMES)


@dataclass(frozen=True, kw_only=True)
class GainLayout:
    """Bands and times of the gains in a stream's envelopes, or of its treble, or of places of its domains."""

    frames: int
    """That each gain is for, 1 to 255; the last ones of a segment may be for fewer."""
    step_db: float
    """Of a gain, a multiple of 1/16 up to 255/16."""
    edges: tuple[int, ...]
    """Of the bands in Hz, ascending; a band has all frequencies from its edge to below the next, and the last one has
    what is above, too."""

    def __post_init__(self) -> None:
        check_range("frames of a gain", self.frames, 1, MAX_GAIN_FRAMES)
        if not (0 < self.step_db * 16 < 256 and float(self.step_db * 16).is_integer()):
            raise ValueError(f"a step of gain must be a multiple of 1/16 dB up to 255/16, got {self.step_db}")
        check_range("number of bands", self.num_bands, 1, MAX_BANDS)
        for edge in (self.edges[0], self.edges[-1]):
            check_range("edge of a band", edge, 0, MAX_RATE)
        if any(low >= high for low, high in zip(self.edges, self.edges[1:], strict=False)):
            raise ValueError(f"edges of bands must ascend, got {self.edges}")

    @property
    def num_bands(self) -> int:
        """Bands that have gains."""
        return len(self.edges) - 1

    def num_columns(self, num_frames: int) -> int:
        """Gains of a band in a segment."""
        return -(-num_frames // self.frames)

    def per_frame(self, gains: NDArray[np.int64], num_frames: int) -> NDArray[np.int64]:
        """Gains of a segment `[B, n]` as those of each of its frames `[B, F]`."""
        return gains.repeat(self.frames, axis=-1)[:, :num_frames]


@dataclass(frozen=True, kw_only=True)
class Part:
    """Segments of one file in a stream of several, or that are not all of it; they decode without those around them."""

    num_frames: int
    """Of the stream, behind those of the parts before."""
    origin: int = 0
    """Which frame of that file the first one was."""
    first_sample: int = 0
    """Which sample of that file is the first one to be played, at the original rate; frames before it are context."""
    num_samples: int
    """To be played, per channel, at the original rate; frames behind them are context, too."""
    gain_db: float
    """See `Header`, as for the other fields."""
    domains: tuple[DomainEntry, ...]
    envelope: GainLayout | None = None
    treble: GainLayout | None = None
    stereo: GainLayout | None = None


def first_of(groups: Sequence[int], count: int) -> tuple[int, ...]:
    """Layer groups of the first `count` codebooks.

    >>> first_of((4, 4, 4), 6)
    (4, 2)
    """
    ends = [min(count, end) for end in itertools.accumulate(groups)]
    return tuple(stop - start for start, stop in itertools.pairwise([0, *ends]) if stop > start)


def treble_fits(edges: tuple[int, ...], sample_rate: int, hop_length: int) -> bool:
    """Whether treble of a model can have bands with these edges in Hz: see "Treble" in `docs/format.md`."""
    first, rest = divmod(2 * hop_length * edges[0], sample_rate)
    quarter, odd = divmod(2 * hop_length - first, 4)
    return not rest and not odd and 2 * quarter <= first <= hop_length and edges[-1] == sample_rate
