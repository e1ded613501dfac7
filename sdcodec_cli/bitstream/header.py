"""What a stream says about itself before the first segment: the model, the rates, the domains, the tags."""

from __future__ import annotations

import functools
import itertools
import math
import re
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from .entries import DomainEntry, GainLayout, LowerModel, Part, StreamKey, treble_fits
from .limits import (
    MAX_BODY_BYTES,
    MAX_CHANNELS,
    MAX_CHUNKS,
    MAX_COVER_BYTES,
    MAX_DOMAINS,
    MAX_FRAMES,
    MAX_PARTS,
    MAX_RATE,
    MAX_SAMPLES,
    MAX_SEGMENT_FRAMES,
    MAX_STAGES,
    check_range,
    check_text,
)


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
        check_range("number of stages", len(self.stages), 1, MAX_STAGES)  # of which each checks itself
        check_range("original_rate", self.original_rate, 1, MAX_RATE)
        check_range("original_channels", self.original_channels, 1, MAX_CHANNELS)
        if self.coded_channels not in (1, self.original_channels):
            raise ValueError(f"coded_channels must be 1 or {self.original_channels}, got {self.coded_channels}")
        if self.original_samples is not None:
            check_range("original_samples", self.original_samples, 0, MAX_SAMPLES)
        if not (-128 <= self.gain_db < 128 and float(self.gain_db * 256).is_integer()):
            raise ValueError(f"gain_db must be a multiple of 1/256 in -128 … 128, got {self.gain_db}")
        check_range("number of domains", len(self.domains), 1, MAX_DOMAINS)
        if len({entry.name for entry in self.domains}) < len(self.domains):
            raise ValueError(f"domains must have different names, got {', '.join(d.name for d in self.domains)}")
        check_range("segment_frames", self.segment_frames, 1, MAX_SEGMENT_FRAMES)
        num_chunks = self.coded_channels * sum(len(entry.groups) for entry in self.domains)
        check_range("number of chunks in a segment", num_chunks, 1, MAX_CHUNKS)
        for entry in self.domains:
            check_range(f"stage of {entry.name}", entry.stage, 0, len(self.lower))
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
        check_text("encoder", self.encoder, max_bytes=255)
        for key, value in self.tags.items():
            if not re.fullmatch(r"[ -<>-~]{1,64}", key):
                raise ValueError(f"the key of a tag must be 1 to 64 printable ASCII characters without =, got {key!r}")
            check_text(f"tag {key}", value, max_bytes=MAX_BODY_BYTES, min_bytes=0, allowed="\n\t")
        if self.cover_bytes is not None:
            check_range("bytes of a cover", self.cover_bytes, 1, MAX_COVER_BYTES)
        if self.parts:
            self._check_parts()

    def _check_parts(self) -> None:
        check_range("number of parts", len(self.parts), 1, MAX_PARTS)
        for part in self.parts:
            check_range("frames of a part", part.num_frames, 1, MAX_FRAMES)
            check_range("origin of a part", part.origin, 0, MAX_FRAMES - part.num_frames)
            check_range("samples of a part", part.num_samples, 1, MAX_SAMPLES)
            check_range("first sample of a part", part.first_sample, 0, MAX_SAMPLES - part.num_samples)
            begin, end = part.first_sample, part.first_sample + part.num_samples
            stop = part.origin + part.num_frames
            start = self.first_sample_from(part.origin) * self.original_rate
            # One frame may be missing at the end, for the rounding of resamplers.
            last = (stop + 1) * self.hop_length * self.original_rate
            if begin * self.sample_rate < start or end * self.sample_rate > last:
                raise ValueError(f"samples {begin}-{end - 1} of a part are not in its frames {part.origin}-{stop - 1}")
        check_range("frames of all parts", sum(part.num_frames for part in self.parts), 1, MAX_FRAMES)
        num_samples = sum(part.num_samples for part in self.parts)
        check_range("samples of all parts", num_samples, 1, MAX_SAMPLES)
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
