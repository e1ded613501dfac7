"""What is in a `.sdc` stream, without decoding its audio, for which no model is needed."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from ..audio import Cover, atomic_output
from ..bitstream import DomainEntry, GainLayout, Header, Part, Problem, Reader, StreamKey
from ..errors import InputError, OutputError, SdcError
from ..prediction import CodeTables
from ..zoo import find
from .inputs import opened_file

COVER_SUFFIXES = {"image/jpeg": (".jpg", ".jpeg"), "image/png": (".png",)}


@dataclass(frozen=True, kw_only=True)
class StreamReport:
    """The codes of one stage of one domain in one channel.

    The four shares are of the segments that were found, and add up to 1.
    """

    channel: int
    """From 0."""
    domain: str
    """Name of the stream: of a first stage that of the domain."""
    stem: str
    """The domain whose audio it adds to."""
    stage: int
    """From 0, that of the lowest rate."""
    num_codebooks: int
    codebook_size: int
    num_bytes: int
    raw_bytes: int
    """Bytes that the codes would take if they were not range-coded."""
    bitrate: float
    """Of the codes, in kbit/s, over the whole duration."""
    active: float
    silent: float
    removed: float
    damaged: float


@dataclass(frozen=True, kw_only=True)
class GainsReport:
    """Gains of bands, of all channels; or places in bands, of all domains."""

    num_bands: int
    """Bands of frequency that have gains."""
    seconds: float
    """That each gain is for."""
    step_db: float
    """Of a gain, in dB."""
    num_bytes: int
    """Of the gains."""
    bitrate: float
    """Of the gains, in kbit/s, over the whole duration."""
    present: float
    """Share of the segments, of each channel or domain, that have one."""


@dataclass(frozen=True, kw_only=True)
class LowerModelReport:
    """A model that decodes a stream up to one of its stages."""

    model: str
    weights_sha256: str
    """In hexadecimal."""
    sample_rate: int


@dataclass(frozen=True, kw_only=True)
class PartReport:
    """Segments of one file in a stream that consists of several, or that is an excerpt."""

    seconds: float
    """That it plays."""
    before: float
    """Seconds in front of what it plays, which are there as context."""
    behind: float
    """Likewise, behind."""
    gain_db: float
    """Applied before coding and undone by decoding, in dB."""


@dataclass(frozen=True, kw_only=True)
class CoverReport:
    """A picture."""

    media_type: str | None
    """`image/jpeg` or `image/png`; None if it is neither."""
    width: int
    """In pixels; 0 if the picture does not say."""
    height: int
    """Likewise."""
    num_bytes: int


@dataclass(frozen=True, kw_only=True)
class FileReport:
    """Everything about a stream; `dataclasses.asdict` makes it JSON."""

    name: str
    format_version: str
    complete: bool
    """Whether the end was found; False for a truncated stream."""
    model: str
    weights_sha256: str
    """In hexadecimal."""
    lower: tuple[LowerModelReport, ...]
    """Models of the stages below, that of the lowest rate first; none where the model is the only stage."""
    encoder: str
    tags: dict[str, str]
    cover: CoverReport | None
    """None if there is none, or it is damaged."""
    sample_rate: int
    hop_length: int
    frame_rate: float
    """Frames per second."""
    context_frames: int
    original_rate: int
    original_channels: int
    coded_channels: int
    original_samples: int | None
    """Per channel, at the original rate; None if the stream does not say. Of a truncated stream, what is there."""
    gain_db: float
    """Applied before coding and undone by decoding, in dB; that of the first part, if there are several."""
    segment_frames: int
    num_segments: int
    """Segments that were found."""
    num_frames: int
    """Frames from the first to the last one known, lost ones included."""
    duration: float
    """In seconds."""
    num_bytes: int
    """Of the whole stream, or of as much of it as there is."""
    payload_bytes: int
    """Of codes, envelopes, treble and stereo alone."""
    bitrate: float
    """Of the same, in kbit/s."""
    file_bitrate: float
    """Of all bytes, in kbit/s."""
    overhead: float | None
    """Other bytes in percent of these; None if there are none."""
    tables_sha256: str | None
    """Of the tables that codes are range-coded with, in hexadecimal; None if all are raw."""
    codes_checked: bool
    """Whether every code was decoded; without these tables only checksums are checked."""
    saved: float | None
    """Bytes that range coding saves, in percent of raw codes; None without such tables."""
    streams: tuple[StreamReport, ...]
    envelope: GainsReport | None
    """What the decoded mix lacks in bands; None if the stream does not have that."""
    treble: GainsReport | None
    """What lies above the model's band; None likewise."""
    stereo: GainsReport | None
    """Where domains stand between left and right; None likewise."""
    parts: tuple[PartReport, ...]
    """Of which each decodes by itself; none where the stream is all of one file."""
    problems: tuple[Problem, ...]
    """What is damaged, in the order in which it was found; none if the stream is whole."""


def inspect(source: str | Path | BinaryIO) -> FileReport:
    """Read all of a stream, checking every checksum and code, and report what is in it.

    `source` is a path, `-` for standard input, or a binary input, which need not be able to seek and is not closed.
    Tables that codes are range-coded with are those of the zoo's model of that name; without them only checksums of the
    codes are checked. Raises `InputError` for a path that cannot be read, and `NotAStream`, `UnsupportedStream` or
    `CorruptStream` if the header is not usable.
    """
    if str(source) == "-":
        return replace(_report(sys.stdin.buffer, "stdin"), name="-")
    if not isinstance(source, str | Path):
        name = getattr(source, "name", None)
        return _report(source, name if isinstance(name, str) else "-")
    try:
        with Path(source).open("rb") as fo:
            return _report(fo, str(source))
    except OSError as error:
        raise InputError(f"{source}: cannot be read: {error.strerror}; check its permissions") from error


def save_cover(source: str | Path, target: str | Path, *, overwrite: bool = False) -> None:
    """Write the cover of a `.sdc` file to a file of its own.

    Raises:
        InputError: the file cannot be read, or has no cover that can be used
        StreamError: its header is not usable
        OutputError: see `audio`; also a name that ends otherwise than such a picture does
    """
    with opened_file(source) as fo:
        reader = Reader(fo, str(source))
        picture = reader.cover()
    if picture is None:
        raise InputError(f"{source}: has no cover that could be saved; leave --cover out")
    try:
        suffixes = COVER_SUFFIXES[Cover.of(picture).media_type]
    except ValueError as error:
        raise InputError(f"{source}: its cover is {error}") from error
    if Path(target).suffix.lower() not in suffixes:
        raise OutputError(
            f"{target}: would hold another kind of picture; name it {Path(target).with_suffix(suffixes[0]).name}"
        )
    with atomic_output(target, overwrite=overwrite) as file:
        file.write(picture)


def _report(fo: BinaryIO, name: str) -> FileReport:
    reader = Reader(fo, name)
    header = reader.header
    cover = _cover(reader.cover())
    num_segments = num_frames = 0
    gains, treble, places = Counter[str](), Counter[str](), Counter[str]()
    stored: Counter[StreamKey] = Counter()
    raw: Counter[StreamKey] = Counter()
    reader.tables = _tables_for(header)
    can_decode = header.tables_sha256 is None or reader.tables is not None
    states = {key: Counter[str]() for part in header.of_parts for key in part.streams}
    for segment in reader.segments(decode=can_decode):
        num_segments += 1
        num_frames = segment.start_frame + segment.num_frames
        stored.update(segment.num_bytes)
        raw.update(segment.raw_bytes)
        gains.update(units=len(segment.gains), num_bytes=segment.gains_bytes)
        treble.update(units=len(segment.treble), num_bytes=segment.treble_bytes)
        places.update(units=len(segment.places), num_bytes=sum(segment.places_bytes.values()))
        stored_here = header.of_parts[header.part_at(segment.start_frame)].streams
        for key, counts in states.items():
            if key in segment.num_codebooks:
                counts["active"] += 1
            elif key in segment.silent:
                counts["silent"] += 1
            elif key in segment.removed or key not in stored_here:
                counts["removed"] += 1
            else:
                counts["damaged"] += 1

    original_samples = header.original_samples
    if reader.end:
        num_frames = max(num_frames, reader.end.total_frames)
        original_samples = reader.end.original_samples
    elif original_samples is not None and not header.parts:
        original_samples = header.samples_in(num_frames)
    if original_samples is None or (header.parts and not reader.end):
        duration = header.seconds_at(num_frames)
    else:
        duration = original_samples / header.original_rate
    payload_bytes = stored.total() + sum(each["num_bytes"] for each in (gains, treble, places))

    def gains_report(layout: GainLayout | None, found: Counter[str], owners: int) -> GainsReport | None:
        return (
            None
            if layout is None
            else GainsReport(
                num_bands=layout.num_bands,
                seconds=layout.frames / header.frame_rate,
                step_db=layout.step_db,
                num_bytes=found["num_bytes"],
                bitrate=_bitrate(found["num_bytes"], duration),
                present=found["units"] / max(num_segments * owners, 1),
            )
        )

    channels = header.coded_channels
    return FileReport(
        name=name,
        format_version=".".join(map(str, reader.version)),
        complete=reader.end is not None,
        model=header.model,
        weights_sha256=header.weights_sha256.hex(),
        lower=tuple(
            LowerModelReport(
                model=stage.model, weights_sha256=stage.weights_sha256.hex(), sample_rate=stage.sample_rate
            )
            for stage in header.lower
        ),
        encoder=header.encoder,
        tags=dict(header.tags),
        cover=cover,
        sample_rate=header.sample_rate,
        hop_length=header.hop_length,
        frame_rate=header.frame_rate,
        context_frames=header.context_frames,
        original_rate=header.original_rate,
        original_channels=header.original_channels,
        coded_channels=header.coded_channels,
        original_samples=original_samples,
        gain_db=header.gain_db,
        segment_frames=header.segment_frames,
        num_segments=num_segments,
        num_frames=num_frames,
        duration=duration,
        num_bytes=reader.bytes_read,
        payload_bytes=payload_bytes,
        bitrate=_bitrate(payload_bytes, duration),
        file_bitrate=_bitrate(reader.bytes_read, duration),
        overhead=100 * (reader.bytes_read - payload_bytes) / payload_bytes if payload_bytes else None,
        tables_sha256=None if header.tables_sha256 is None else header.tables_sha256.hex(),
        codes_checked=can_decode,
        saved=None if header.tables_sha256 is None else 100 * (1 - stored.total() / max(1, raw.total())),
        streams=tuple(_streams(header, stored, raw, states, num_segments, duration)),
        envelope=gains_report(
            next((part.envelope for part in header.of_parts if part.envelope), None), gains, channels
        ),
        treble=gains_report(next((part.treble for part in header.of_parts if part.treble), None), treble, channels),
        stereo=gains_report(header.stereo, places, len(header.stems)),
        parts=tuple(_part(part, header) for part in header.parts),
        problems=tuple(reader.problems),
    )


def _cover(picture: bytes | None) -> CoverReport | None:
    if picture is None:
        return None
    try:
        found = Cover.of(picture)
    except ValueError:
        return CoverReport(media_type=None, width=0, height=0, num_bytes=len(picture))
    return CoverReport(media_type=found.media_type, width=found.width, height=found.height, num_bytes=len(picture))


def _part(part: Part, header: Header) -> PartReport:
    before = part.first_sample / header.original_rate - part.origin / header.frame_rate
    seconds = part.num_samples / header.original_rate
    behind = max(0.0, part.num_frames / header.frame_rate - before - seconds)
    return PartReport(seconds=seconds, before=before, behind=behind, gain_db=part.gain_db)


def _tables_for(header: Header) -> CodeTables | None:
    """What a stream's codes are range-coded with, if its model is in the zoo and has them."""
    if header.tables_sha256 is None:
        return None
    try:
        return find(header.model).tables(header.tables_sha256)
    except SdcError:  # no such model; nor is the folder of that name in the working directory one
        return None


def _streams(
    header: Header,
    stored: Mapping[StreamKey, int],
    raw: Mapping[StreamKey, int],
    states: Mapping[StreamKey, Counter[str]],
    num_segments: int,
    duration: float,
) -> list[StreamReport]:
    reports = []
    entries: dict[str, DomainEntry] = {}
    for part in header.of_parts:
        for entry in part.domains:  # parts may have fewer codebooks than others
            most = entries.setdefault(entry.name, entry)
            entries[entry.name] = max(most, entry, key=lambda each: each.num_codebooks)
    for channel, domain in sorted(states, key=lambda key: (key[0], list(entries).index(key[1]))):
        entry = entries[domain]
        counts = states[channel, domain]
        reports.append(
            StreamReport(
                channel=channel,
                domain=domain,
                stem=entry.stem,
                stage=entry.stage,
                num_codebooks=entry.num_codebooks,
                codebook_size=entry.codebook_size,
                num_bytes=stored[channel, domain],
                raw_bytes=raw[channel, domain],
                bitrate=_bitrate(stored[channel, domain], duration),
                active=counts["active"] / max(num_segments, 1),
                silent=counts["silent"] / max(num_segments, 1),
                removed=counts["removed"] / max(num_segments, 1),
                damaged=counts["damaged"] / max(num_segments, 1),
            )
        )
    return reports


def _bitrate(num_bytes: int, duration: float) -> float:
    """In kbit/s; 0 for a stream without duration."""
    return num_bytes * 8 / duration / 1000 if duration else 0.0
