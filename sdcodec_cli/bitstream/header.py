"""What a stream says about itself before the first segment: the model, the rates, the domains, the tags."""

from __future__ import annotations

import functools
import itertools
import math
import re
import unicodedata
import zlib
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ..errors import CorruptStream, NotAStream, UnsupportedStream
from .packing import packed_bytes
from .source import Source
from .wire import Cursor, varint

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAGIC = b"\x89SDC\r\n\x1a\n"
VERSION_MAJOR = 1
ENVELOPE_MINOR, TREBLE_MINOR, STAGES_MINOR, TABLES_MINOR, PARTS_MINOR, STEREO_MINOR, COVER_MINOR = 1, 2, 2, 3, 4, 5, 6
"""Minor versions of streams with an envelope, with treble, of several stages, with range-coded codes, of parts, with
places of domains, and with a cover; others are of version 1.0."""
MULTICHANNEL = 1 << 0
"""Bit of the required features: there is more than one coded channel."""
RANGE_CODED = 1 << 1
"""Bit of the required features: codes may be range-coded, with tables that the header names."""
STAGES = 1 << 2
"""Bit of the required features: there are streams of several stages."""
PARTS = 1 << 3
"""Bit of the required features: the stream consists of parts, which decode each by itself."""
KNOWN_FEATURES = MULTICHANNEL | RANGE_CODED | STAGES | PARTS

MAX_BODY_BYTES = 65_536
MAX_RATE = 1_000_000
MAX_HOP_LENGTH = 65_536
MAX_CONTEXT_FRAMES = 65_535
MAX_CHANNELS = 255
MAX_DOMAINS = 16
MAX_CODEBOOKS = 64
MAX_CODEBOOK_SIZE = 65_536
MAX_GROUPS = 16
MAX_SEGMENT_FRAMES = 500
MAX_CHUNKS = 4096
MAX_CODES = 2**20
"""Chunks in a segment; keeps the head of a segment below 64 KiB."""
MAX_SAMPLES = 2**62
MAX_FRAMES = 2**40
"""Of a whole stream; 700 years at 50 frames per second."""
MAX_PARTS = 2048
MAX_STAGES = 8
MAX_BANDS = 64
MAX_GAIN_FRAMES = 255
MAX_COVER_BYTES = 4 * 2**20

GROUP_CODEBOOKS = 4
"""Codebooks in a layer group, unless the domain says otherwise."""

StreamKey = tuple[int, str]
"""(channel, domain name): what one sequence of codes belongs to."""

# Tags of the fields. A reader skips an even tag that it does not know, and refuses a stream with an unknown odd one.
MODEL = 1
WEIGHTS_SHA256 = 3
SAMPLE_RATE = 5
HOP_LENGTH = 7
CONTEXT_FRAMES = 9
ORIGINAL_RATE = 11
ORIGINAL_CHANNELS = 13
CODED_CHANNELS = 15
GAIN = 17
DOMAINS = 19
SEGMENT_FRAMES = 21
TABLES_SHA256 = 23
STAGE_TABLE = 25
PART_TABLE = 27
ORIGINAL_SAMPLES = 2
ENCODER = 4
TAG = 6
ENVELOPE = 8
TREBLE = 10
STEREO = 12
COVER = 14

KNOWN_FIELDS = {
    *(MODEL, WEIGHTS_SHA256, SAMPLE_RATE, HOP_LENGTH, CONTEXT_FRAMES, ORIGINAL_RATE, ORIGINAL_CHANNELS),
    *(CODED_CHANNELS, GAIN, DOMAINS, SEGMENT_FRAMES, ORIGINAL_SAMPLES, ENCODER, TAG, ENVELOPE),
    TREBLE,
    STEREO,
    COVER,
    TABLES_SHA256,
    STAGE_TABLE,
    PART_TABLE,
}
OPTIONAL_FIELDS = {ORIGINAL_SAMPLES, TAG, ENVELOPE, TREBLE, STEREO, COVER, TABLES_SHA256, STAGE_TABLE, PART_TABLE}
PART_FIELDS = {GAIN, DOMAINS, STAGE_TABLE, ENVELOPE, TREBLE, STEREO}
"""Those that a part may have of its own, with the meaning that they have in the header."""


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
        _check_range(f"num_codebooks of {self.name}", self.num_codebooks, 1, MAX_CODEBOOKS)
        _check_range(f"codebook_size of {self.name}", self.codebook_size, 2, MAX_CODEBOOK_SIZE)
        _check_range(f"num_shared of {self.name}", self.num_shared, 0, MAX_CODEBOOKS)
        if not self.groups:
            full, rest = divmod(self.num_codebooks, GROUP_CODEBOOKS)
            object.__setattr__(self, "groups", (GROUP_CODEBOOKS,) * full + (rest,) * (rest > 0))
        _check_range(f"number of layer groups of {self.name}", len(self.groups), 1, MAX_GROUPS)
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
        _check_range("sample_rate", self.sample_rate, 1, MAX_RATE)
        _check_range("hop_length", self.hop_length, 1, MAX_HOP_LENGTH)
        _check_range("context_frames", self.context_frames, 0, MAX_CONTEXT_FRAMES)


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
        _check_range("frames of a gain", self.frames, 1, MAX_GAIN_FRAMES)
        if not (0 < self.step_db * 16 < 256 and float(self.step_db * 16).is_integer()):
            raise ValueError(f"a step of gain must be a multiple of 1/16 dB up to 255/16, got {self.step_db}")
        _check_range("number of bands", self.num_bands, 1, MAX_BANDS)
        for edge in (self.edges[0], self.edges[-1]):
            _check_range("edge of a band", edge, 0, MAX_RATE)
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


@dataclass(frozen=True, kw_only=True)
class Header:
    """Everything a decoder must know before the first segment."""

    model: str
    """Name of the model, 1 to 64 bytes of UTF-8 without `/`, `\\` and a leading dot."""
    weights_sha256: bytes
    """32 bytes: SHA-256 of the model's canonical weights."""
    sample_rate: int
    """Of the model, in Hz."""
    hop_length: int
    """Samples per frame, at `sample_rate`."""
    context_frames: int
    """Frames on each side that a decoder needs to decode a frame exactly."""
    original_rate: int
    """Sample rate of the audio that was compressed, in Hz."""
    original_channels: int
    """Channels of the audio that was compressed, 1 to 255."""
    coded_channels: int
    """1 where the channels were mixed down, else `original_channels`: each is coded by itself."""
    original_samples: int | None
    """Samples per channel at `original_rate`; None while streaming. What `End` says counts more."""
    gain_db: float
    """Applied before encoding, undone by the decoder, in dB; a multiple of 1/256 in -128 … 128."""
    domains: tuple[DomainEntry, ...]
    segment_frames: int = 100
    """Frames of the longest segment, 1 to 500."""
    encoder: str
    """The program that wrote the stream, such as `sdc 0.1.0`."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """Such as `title`; a key is printable ASCII without `=`."""
    envelope: GainLayout | None = None
    """What the gains are for that segments may come with; None where none has any."""
    treble: GainLayout | None = None
    """The same of gains for what lies above the model's band, up to twice as high; None where nothing does."""
    stereo: GainLayout | None = None
    """The same of the places of domains between left and right, of whose mean the codes are; None where they are of a
    signal that has no sides. A stream has them in all parts, or in none."""
    lower: tuple[LowerModel, ...] = ()
    """Models of the stages below the last one, which is `model`; none where there is one stage. An envelope is that of
    the first, and treble there is none then."""
    tables_sha256: bytes | None = None
    """32 bytes: SHA-256 of the tables that codes may be range-coded with; None where all are raw."""
    parts: tuple[Part, ...] = ()
    """What the stream consists of; none where it is all of one file. Gain, domains, envelope and treble above are those
    of the first part."""
    cover_bytes: int | None = None
    """Of the picture that stands behind the header; None where there is none. A `Writer` states it by itself."""

    def __post_init__(self) -> None:
        _check_range("number of stages", len(self.stages), 1, MAX_STAGES)  # of which each checks itself
        _check_range("original_rate", self.original_rate, 1, MAX_RATE)
        _check_range("original_channels", self.original_channels, 1, MAX_CHANNELS)
        if self.coded_channels not in (1, self.original_channels):
            raise ValueError(f"coded_channels must be 1 or {self.original_channels}, got {self.coded_channels}")
        if self.original_samples is not None:
            _check_range("original_samples", self.original_samples, 0, MAX_SAMPLES)
        if not (-128 <= self.gain_db < 128 and float(self.gain_db * 256).is_integer()):
            raise ValueError(f"gain_db must be a multiple of 1/256 in -128 … 128, got {self.gain_db}")
        _check_range("number of domains", len(self.domains), 1, MAX_DOMAINS)
        if len({entry.name for entry in self.domains}) < len(self.domains):
            raise ValueError(f"domains must have different names, got {', '.join(d.name for d in self.domains)}")
        _check_range("segment_frames", self.segment_frames, 1, MAX_SEGMENT_FRAMES)
        num_chunks = self.coded_channels * sum(len(entry.groups) for entry in self.domains)
        _check_range("number of chunks in a segment", num_chunks, 1, MAX_CHUNKS)
        for entry in self.domains:
            _check_range(f"stage of {entry.name}", entry.stage, 0, len(self.lower))
            self.frames_in(entry, 1)
        if any(low.sample_rate >= high.sample_rate for low, high in itertools.pairwise(self.stages)):
            raise ValueError("the rates of its stages do not ascend")
        if self.lower and self.treble:
            raise ValueError("there are several stages, which have no treble")
        first = self.stages[0]
        if self.treble and not treble_fits(self.treble.edges, first.sample_rate, first.hop_length):
            raise ValueError(f"treble cannot be made from {self.treble.edges[0]} to {self.treble.edges[-1]} Hz")
        if self.stereo and (self.coded_channels, self.original_channels) != (1, 2):
            raise ValueError("only what was mixed down from two channels has places of domains")
        if self.tables_sha256 is not None and len(self.tables_sha256) != 32:
            raise ValueError(f"tables_sha256 must be 32 bytes, got {len(self.tables_sha256)}")
        _check_text("encoder", self.encoder, max_bytes=255)
        for key, value in self.tags.items():
            if not re.fullmatch(r"[ -<>-~]{1,64}", key):
                raise ValueError(f"the key of a tag must be 1 to 64 printable ASCII characters without =, got {key!r}")
            _check_text(f"tag {key}", value, max_bytes=MAX_BODY_BYTES, min_bytes=0, allowed="\n\t")
        if self.cover_bytes is not None:
            _check_range("bytes of a cover", self.cover_bytes, 1, MAX_COVER_BYTES)
        if self.parts:
            self._check_parts()

    def _check_parts(self) -> None:
        _check_range("number of parts", len(self.parts), 1, MAX_PARTS)
        for part in self.parts:
            _check_range("frames of a part", part.num_frames, 1, MAX_FRAMES)
            _check_range("origin of a part", part.origin, 0, MAX_FRAMES - part.num_frames)
            _check_range("samples of a part", part.num_samples, 1, MAX_SAMPLES)
            _check_range("first sample of a part", part.first_sample, 0, MAX_SAMPLES - part.num_samples)
            begin, end = part.first_sample, part.first_sample + part.num_samples
            stop = part.origin + part.num_frames
            start = self.first_sample_from(part.origin) * self.original_rate
            # One frame may be missing at the end, for the rounding of resamplers.
            last = (stop + 1) * self.hop_length * self.original_rate
            if begin * self.sample_rate < start or end * self.sample_rate > last:
                raise ValueError(f"samples {begin}-{end - 1} of a part are not in its frames {part.origin}-{stop - 1}")
        _check_range("frames of all parts", sum(part.num_frames for part in self.parts), 1, MAX_FRAMES)
        num_samples = sum(part.num_samples for part in self.parts)
        _check_range("samples of all parts", num_samples, 1, MAX_SAMPLES)
        if self.original_samples != num_samples:
            raise ValueError(f"its parts have {num_samples} samples, not {self.original_samples}")
        first = self.parts[0]
        if (first.gain_db, first.domains, first.envelope, first.treble, first.stereo) != (
            *(self.gain_db, self.domains, self.envelope, self.treble, self.stereo),
        ):
            raise ValueError("gain, domains, envelope, treble or stereo of the header are not those of its first part")
        if any(bool(part.stereo) != bool(first.stereo) for part in self.parts):
            raise ValueError("some of its parts are stereo, and some are not")
        assert self.of_parts  # each checks itself

    def seconds_at(self, frame: int) -> float:
        """When a frame of the stream is played; where it is only context of a part, the nearest time of that."""
        if not self.parts:
            return frame / self.frame_rate
        total = 0.0
        for part, start in zip(self.parts, self.part_starts, strict=False):
            before = (frame - start + part.origin) / self.frame_rate - part.first_sample / self.original_rate
            total += min(max(before, 0.0), part.num_samples / self.original_rate)
        return total

    def samples_in(self, num_frames: int) -> int:
        """Samples per channel at the original rate that the first frames of one file hold, of those announced."""
        held = num_frames * self.hop_length * self.original_rate // self.sample_rate
        return held if self.original_samples is None else min(held, self.original_samples)

    def first_sample_from(self, frame: int) -> int:
        """The first sample of the model, from a frame on, at whose time there is one at every other rate, too."""
        rates = [self.original_rate, *(stage.sample_rate for stage in self.stages)]
        step = self.sample_rate // math.gcd(*rates)
        return -(-frame * self.hop_length // step) * step

    @functools.cached_property
    def of_parts(self) -> tuple[Header, ...]:
        """What the header of each part would be by itself; where there are no parts, this one."""
        return tuple(
            replace(
                self,
                parts=(),
                original_samples=part.num_samples,
                gain_db=part.gain_db,
                domains=part.domains,
                envelope=part.envelope,
                treble=part.treble,
                stereo=part.stereo,
            )
            for part in self.parts
        ) or (self,)

    @functools.cached_property
    def part_starts(self) -> tuple[int, ...]:
        """First frame of each part in the stream, and behind the last one; only the first where there are no parts."""
        return tuple(itertools.accumulate((part.num_frames for part in self.parts), initial=0))

    def part_at(self, frame: int) -> int:
        """Number of the part that has a frame of the stream; `ValueError` if none has."""
        if not self.parts:
            return 0
        if not 0 <= frame < self.part_starts[-1]:
            raise ValueError(f"a stream of {self.part_starts[-1]} frames has no frame {frame}")
        return bisect_right(self.part_starts, frame) - 1

    def frames_left(self, frame: int) -> int:
        """How many frames there may be in a segment that starts at one: to the end of its part, if that is near."""
        if not self.parts:
            return self.segment_frames
        return min(self.segment_frames, self.part_starts[self.part_at(frame) + 1] - frame)

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.sample_rate / self.hop_length

    @property
    def decoded_channels(self) -> int:
        """Channels that come out: those that were coded, or both sides of stereo."""
        return 2 if self.stereo else self.coded_channels

    @property
    def without_stereo(self) -> Header:
        """What it would be without places of domains, and so for the mean of both sides."""
        return replace(self, stereo=None, parts=tuple(replace(part, stereo=None) for part in self.parts))

    def stream_of(self, stem: str) -> int:
        """Number of the stream of a domain's lowest stage in the first channel, by which its places are known.

        `ValueError` if there is none.
        """
        stages = {entry.stage: number for number, entry in enumerate(self.domains) if entry.stem == stem}
        if not stages:
            raise ValueError(f"no such domain in the header: {stem}")
        return stages[min(stages)]

    @functools.cached_property
    def stages(self) -> tuple[LowerModel, ...]:
        """The models of all stages; the last one is the whole."""
        whole = LowerModel(
            model=self.model,
            weights_sha256=self.weights_sha256,
            sample_rate=self.sample_rate,
            hop_length=self.hop_length,
            context_frames=self.context_frames,
        )
        return (*self.lower, whole)

    def up_to(self, stage: int) -> Header:
        """What it would be without the stages above one."""
        last = self.stages[stage]

        def below(entries: tuple[DomainEntry, ...]) -> tuple[DomainEntry, ...]:
            return tuple(entry for entry in entries if entry.stage <= stage)

        return replace(
            self,
            model=last.model,
            weights_sha256=last.weights_sha256,
            sample_rate=last.sample_rate,
            hop_length=last.hop_length,
            context_frames=last.context_frames,
            domains=below(self.domains),
            lower=self.lower[:stage],
            parts=tuple(replace(part, domains=below(part.domains)) for part in self.parts),
        )

    @property
    def by_lower_models(self) -> list[Header]:
        """What it would be for models that have only the lower stages, most of them first.

        Those with more frames than the whole are left out: segments count its frames. So are those without streams.
        """
        return [
            self.up_to(stage)
            for stage in reversed(range(len(self.lower)))
            if all(
                (frames := [part.frames_in(entry, 1) for entry in part.domains if entry.stage <= stage])
                and max(frames) == 1
                for part in self.of_parts
            )
        ]

    def frames_in(self, entry: DomainEntry, num_frames: int) -> int:
        """How many frames of a stream lie in so many of the whole model."""
        if entry.stage == len(self.lower):
            return num_frames
        stage = self.stages[entry.stage]
        frames, rest = divmod(stage.sample_rate * self.hop_length, stage.hop_length * self.sample_rate)
        if rest or not frames:
            raise ValueError(f"{entry.name} does not have a whole number of frames for each of the whole model")
        return frames * num_frames

    @property
    def stems(self) -> tuple[str, ...]:
        """The domains whose audio there is, each once however many stages it has."""
        return tuple(dict.fromkeys(entry.stem for part in self.of_parts for entry in part.domains))

    @property
    def streams(self) -> list[StreamKey]:
        """All streams; the position of one in this list is its number in the stream."""
        return [(channel, entry.name) for channel in range(self.coded_channels) for entry in self.domains]

    def domain_of(self, stream: int) -> DomainEntry:
        """The domain of the stream with this number."""
        return self.domains[stream % len(self.domains)]


@dataclass(frozen=True)
class StoredHeader:
    """A header as it was found in a stream."""

    header: Header
    version: tuple[int, int]
    num_bytes: int


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


def check_model_name(name: str) -> None:
    """`ValueError` if a stream cannot say that it was made by a model of this name."""
    _check_text("model", name, max_bytes=64)
    if "/" in name or "\\" in name or name.startswith("."):
        raise ValueError(f"model must be a name, not a path, got {name!r}")


def check_domain_name(name: str) -> None:
    """`ValueError` if a stream cannot have a domain of this name."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,31}", name):
        raise ValueError(f"a domain's name must be 1 to 32 of a-z 0-9 _ -, got {name!r}")


def encode_header(header: Header) -> bytes:
    """The bytes of a header. `ValueError` if they are more than 64 KiB, which only tags can cause."""
    fields = [
        (MODEL, header.model.encode()),
        (WEIGHTS_SHA256, header.weights_sha256),
        (SAMPLE_RATE, _uint(header.sample_rate)),
        (HOP_LENGTH, _uint(header.hop_length)),
        (CONTEXT_FRAMES, _uint(header.context_frames)),
        (ORIGINAL_RATE, _uint(header.original_rate)),
        (ORIGINAL_CHANNELS, _uint(header.original_channels)),
        (CODED_CHANNELS, _uint(header.coded_channels)),
        (GAIN, _encode_gain(header.gain_db)),
        (DOMAINS, _encode_domains(header.domains)),
        (SEGMENT_FRAMES, _uint(header.segment_frames)),
    ]
    if header.original_samples is not None:
        fields.append((ORIGINAL_SAMPLES, _uint(header.original_samples)))
    fields.append((ENCODER, header.encoder.encode()))
    fields += [(TAG, f"{key}={value}".encode()) for key, value in header.tags.items()]
    if header.envelope:
        fields.append((ENVELOPE, _encode_layout(header.envelope)))
    if header.treble:
        fields.append((TREBLE, _encode_layout(header.treble)))
    if header.stereo:
        fields.append((STEREO, _encode_layout(header.stereo)))
    if header.cover_bytes is not None:
        fields.append((COVER, _uint(header.cover_bytes)))
    if header.tables_sha256 is not None:
        fields.append((TABLES_SHA256, header.tables_sha256))
    if header.lower:
        fields.append((STAGE_TABLE, _encode_stages(header)))
    if header.parts:
        fields.append((PART_TABLE, _encode_parts(header)))
    body = _encode_fields(fields)
    if len(body) > MAX_BODY_BYTES:
        raise ValueError(f"the header takes {len(body)} bytes, at most {MAX_BODY_BYTES} are allowed; shorten the tags")
    required = MULTICHANNEL * (header.coded_channels > 1) | STAGES * bool(header.lower) | PARTS * bool(header.parts)
    required |= RANGE_CODED * (header.tables_sha256 is not None)
    minors = (
        (COVER_MINOR, header.cover_bytes),
        (STEREO_MINOR, header.stereo),
        (PARTS_MINOR, header.parts),
        (TABLES_MINOR, header.tables_sha256),
        (STAGES_MINOR, header.lower),
        (TREBLE_MINOR, header.treble),
        (ENVELOPE_MINOR, header.envelope),
    )
    minor = next((minor for minor, found in minors if found), 0)
    head = MAGIC + bytes([VERSION_MAJOR, minor]) + required.to_bytes(2, "little") + bytes(2)
    head += len(body).to_bytes(4, "little") + body
    return head + zlib.crc32(head).to_bytes(4, "little")


def read_header(source: Source, name: str) -> StoredHeader:
    """The header at the start of `source`; `name` is what messages call the stream.

    Raises `NotAStream`, `UnsupportedStream` or `CorruptStream`.
    """
    start = source.read(0, len(MAGIC))
    if not start or (start[1:4] != MAGIC[1:4] and not MAGIC.startswith(start)):
        what = "not a .sdc stream" if start else "empty"
        raise NotAStream(f"{name}: {what}; give a file made by sdc compress")
    if not MAGIC.startswith(start):
        raise CorruptStream(f"{name}: its first bytes were changed, as by a transfer in text mode; copy it again")
    fixed = Cursor(source.read(len(MAGIC), 10))
    try:
        version = (fixed.uint(1), fixed.uint(1))
        required = fixed.uint(2)
        fixed.uint(2)  # Optional features: none is defined, and all may be ignored.
        body_bytes = fixed.uint(4)
    except ValueError:
        raise CorruptStream(f"{name}: ends inside its header; copy it again") from None
    if version[0] != VERSION_MAJOR:
        raise UnsupportedStream(
            f"{name}: written in version {version[0]} of the format, this is for {VERSION_MAJOR}; update sdc"
        )
    if body_bytes > MAX_BODY_BYTES:
        raise CorruptStream(f"{name}: the header is damaged, its length cannot be {body_bytes}; copy it again")
    num_bytes = len(MAGIC) + 10 + body_bytes + 4
    data = source.read(0, num_bytes)
    if len(data) < num_bytes:
        raise CorruptStream(f"{name}: ends inside its header; copy it again")
    if zlib.crc32(data[:-4]) != int.from_bytes(data[-4:], "little"):
        raise CorruptStream(f"{name}: the header is damaged, its checksum does not match; copy it again")
    if required & ~KNOWN_FEATURES:
        raise UnsupportedStream(f"{name}: needs a feature that this version lacks (bits {required:#06x}); update sdc")
    try:
        header = _parse_fields(_fields(data[18:-4], name), name)
        if bool(required & MULTICHANNEL) != (header.coded_channels > 1):
            raise ValueError("the feature bits do not match the coded channels")
        if bool(required & STAGES) != bool(header.lower):
            raise ValueError("the feature bits do not match the stages")
        if bool(required & RANGE_CODED) != (header.tables_sha256 is not None):
            raise ValueError("the feature bits do not match the tables")
        if bool(required & PARTS) != bool(header.parts):
            raise ValueError("the feature bits do not match the parts")
    except ValueError as error:
        raise CorruptStream(f"{name}: the header makes no sense: {error}") from None
    return StoredHeader(header, version, num_bytes)


def _fields(body: bytes, name: str) -> dict[int, list[bytes]]:
    """The values of each known tag, in their order."""
    fields: dict[int, list[bytes]] = {}
    cursor = Cursor(body)
    while not cursor.at_end:
        tag = cursor.varint()
        value = cursor.take(cursor.varint())
        if tag in KNOWN_FIELDS:
            fields.setdefault(tag, []).append(value)
        elif tag % 2 == 1:
            raise UnsupportedStream(f"{name}: header field {tag} is unknown to this version; update sdc")
    return fields


def _parse_fields(fields: Mapping[int, list[bytes]], name: str) -> Header:
    for tag in KNOWN_FIELDS - OPTIONAL_FIELDS:
        if tag not in fields:
            raise ValueError(f"field {tag} is missing")
    _check_once(fields)

    def number(tag: int) -> int:
        _check_range(f"length of field {tag}", len(fields[tag][0]), 1, 8)
        return int.from_bytes(fields[tag][0], "little")

    tags = {}
    for text in (value.decode() for value in fields.get(TAG, [])):
        key, equals, value = text.partition("=")
        if not equals or key in tags:
            raise ValueError(f"tag {key!r} {'comes twice' if equals else 'has no value'}")
        tags[key] = value
    domains = _parse_domains(Cursor(fields[DOMAINS][0]))
    lower: tuple[LowerModel, ...] = ()
    if STAGE_TABLE in fields:
        domains, lower = _parse_stages(Cursor(fields[STAGE_TABLE][0]), domains)
    header = Header(
        model=fields[MODEL][0].decode(),
        weights_sha256=fields[WEIGHTS_SHA256][0],
        sample_rate=number(SAMPLE_RATE),
        hop_length=number(HOP_LENGTH),
        context_frames=number(CONTEXT_FRAMES),
        original_rate=number(ORIGINAL_RATE),
        original_channels=number(ORIGINAL_CHANNELS),
        coded_channels=number(CODED_CHANNELS),
        original_samples=number(ORIGINAL_SAMPLES) if ORIGINAL_SAMPLES in fields else None,
        gain_db=_parse_gain(fields[GAIN][0]),
        domains=domains,
        segment_frames=number(SEGMENT_FRAMES),
        encoder=fields[ENCODER][0].decode(),
        tags=tags,
        envelope=_parse_layout(Cursor(fields[ENVELOPE][0])) if ENVELOPE in fields else None,
        treble=_parse_layout(Cursor(fields[TREBLE][0])) if TREBLE in fields else None,
        stereo=_parse_layout(Cursor(fields[STEREO][0])) if STEREO in fields else None,
        lower=lower,
        tables_sha256=fields[TABLES_SHA256][0] if TABLES_SHA256 in fields else None,
        cover_bytes=number(COVER) if COVER in fields else None,
    )
    if PART_TABLE not in fields:
        return header
    return replace(header, parts=tuple(_parse_parts(Cursor(fields[PART_TABLE][0]), header, name)))


def _check_once(fields: Mapping[int, list[bytes]]) -> None:
    for tag, values in fields.items():
        if tag != TAG and len(values) > 1:
            raise ValueError(f"field {tag} comes {len(values)} times")


def _parse_gain(value: bytes) -> float:
    if len(value) != 2:
        raise ValueError("the gain does not have 2 bytes")
    return int.from_bytes(value, "little", signed=True) / 256


def _encode_parts(header: Header) -> bytes:
    out = bytearray()
    for part, own in zip(header.parts, header.of_parts, strict=True):
        fields = []
        if part.gain_db != header.gain_db:
            fields.append((GAIN, _encode_gain(part.gain_db)))
        if part.domains != header.domains:
            fields.append((DOMAINS, _encode_domains(part.domains)))
            if header.lower:
                fields.append((STAGE_TABLE, _encode_stages(own)))
        for tag, layout, usual in (
            (ENVELOPE, part.envelope, header.envelope),
            (TREBLE, part.treble, header.treble),
            (STEREO, part.stereo, header.stereo),
        ):
            if layout != usual:
                fields.append((tag, _encode_layout(layout) if layout else b""))
        body = _encode_fields(fields)
        for number in (part.num_frames, part.origin, part.first_sample, part.num_samples, len(body)):
            out += varint(number)
        out += body
    return bytes(out)


def _parse_parts(cursor: Cursor, header: Header, name: str) -> Iterator[Part]:
    """Parts of a stream, whose header this is but for them."""

    def layout(tag: int, usual: GainLayout | None) -> GainLayout | None:
        if tag not in fields:
            return usual
        return _parse_layout(Cursor(fields[tag][0])) if fields[tag][0] else None

    for number in itertools.count():
        if cursor.at_end and number:
            return
        num_frames, origin, first_sample, num_samples = (cursor.varint() for _ in range(4))
        fields = _fields(cursor.take(cursor.varint()), name)
        _check_once(fields)
        if not fields.keys() <= PART_FIELDS or (STAGE_TABLE in fields) != (DOMAINS in fields and bool(header.lower)):
            raise ValueError("a part has fields that it cannot have")
        domains = _parse_domains(Cursor(fields[DOMAINS][0])) if DOMAINS in fields else header.domains
        if STAGE_TABLE in fields:
            domains, lower = _parse_stages(Cursor(fields[STAGE_TABLE][0]), domains)
            if lower != header.lower:
                raise ValueError("a part has other stages than the stream")
        yield Part(
            num_frames=num_frames,
            origin=origin,
            first_sample=first_sample,
            num_samples=num_samples,
            gain_db=_parse_gain(fields[GAIN][0]) if GAIN in fields else header.gain_db,
            domains=domains,
            envelope=layout(ENVELOPE, header.envelope),
            treble=layout(TREBLE, header.treble),
            stereo=layout(STEREO, header.stereo),
        )


def _encode_fields(fields: Sequence[tuple[int, bytes]]) -> bytes:
    return b"".join(varint(tag) + varint(len(value)) + value for tag, value in fields)


def _encode_gain(gain_db: float) -> bytes:
    return int(gain_db * 256).to_bytes(2, "little", signed=True)


def _encode_layout(layout: GainLayout) -> bytes:
    out = bytes([layout.frames, int(layout.step_db * 16), layout.num_bands])
    return out + b"".join(varint(edge) for edge in layout.edges)


def _parse_layout(cursor: Cursor) -> GainLayout:
    frames, step, num_bands = cursor.uint(1), cursor.uint(1), cursor.uint(1)
    edges = tuple(cursor.varint() for _ in range(num_bands + 1))
    if not cursor.at_end:
        raise ValueError("bytes after the last band")
    return GainLayout(frames=frames, step_db=step / 16, edges=edges)


def _encode_stages(header: Header) -> bytes:
    out = bytearray([len(header.lower)])
    for stage in header.lower:
        out += bytes([len(stage.model.encode())]) + stage.model.encode() + stage.weights_sha256
        out += varint(stage.sample_rate) + varint(stage.hop_length) + varint(stage.context_frames)
    for entry in header.domains:
        out += bytes([entry.stage, len(entry.stem)]) + entry.stem.encode()
    return bytes(out)


def _parse_stages(
    cursor: Cursor, domains: tuple[DomainEntry, ...]
) -> tuple[tuple[DomainEntry, ...], tuple[LowerModel, ...]]:
    lower = []
    for _ in range(cursor.uint(1)):
        name, weights = cursor.take(cursor.uint(1)).decode(), cursor.take(32)
        lower.append(
            LowerModel(
                model=name,
                weights_sha256=weights,
                sample_rate=cursor.varint(),
                hop_length=cursor.varint(),
                context_frames=cursor.varint(),
            )
        )
    staged = []
    for entry in domains:
        stage, stem = cursor.uint(1), cursor.take(cursor.uint(1)).decode()
        if not stem:
            raise ValueError(f"{entry.name} has no stem")
        staged.append(replace(entry, stage=stage, stem=stem))
    if not cursor.at_end:
        raise ValueError("there are bytes after the last stage")
    return tuple(staged), tuple(lower)


def _encode_domains(domains: tuple[DomainEntry, ...]) -> bytes:
    out = bytearray([len(domains)])
    for entry in domains:
        out += bytes([len(entry.name)]) + entry.name.encode()
        out += bytes([entry.num_codebooks]) + (entry.codebook_size - 1).to_bytes(2, "little")
        out += bytes([entry.num_shared, len(entry.groups), *entry.groups])
    return bytes(out)


def _parse_domains(cursor: Cursor) -> tuple[DomainEntry, ...]:
    domains = []
    for _ in range(cursor.uint(1)):
        name = cursor.take(cursor.uint(1)).decode()
        num_codebooks, codebook_size, num_shared = cursor.uint(1), cursor.uint(2) + 1, cursor.uint(1)
        groups = tuple(cursor.take(cursor.uint(1)))
        if not groups:
            raise ValueError(f"domain {name!r} has no layer groups")
        domains.append(
            DomainEntry(
                name=name,
                num_codebooks=num_codebooks,
                codebook_size=codebook_size,
                num_shared=num_shared,
                groups=groups,
            )
        )
    if not cursor.at_end:
        raise ValueError("there are bytes after the last domain")
    return tuple(domains)


def _uint(value: int) -> bytes:
    """Little-endian, in as few bytes as possible; the field's length says how many."""
    return value.to_bytes(max(1, (value.bit_length() + 7) // 8), "little")


def _check_range(what: str, value: int, lowest: int, highest: int) -> None:
    if not lowest <= value <= highest:
        raise ValueError(f"{what} must be {lowest} to {highest}, got {value}")


def _check_text(what: str, text: str, *, max_bytes: int, min_bytes: int = 1, allowed: str = "") -> None:
    """Control characters are refused, since they reach terminals and file names."""
    _check_range(f"length of {what} in bytes", len(text.encode()), min_bytes, max_bytes)
    if any(unicodedata.category(char) == "Cc" and char not in allowed for char in text):
        raise ValueError(f"{what} must not contain control characters, got {text!r}")
