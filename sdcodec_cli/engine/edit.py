"""Takes domains, codebooks or time out of `.sdc` streams, and joins streams. Bytes move; no model is needed.

Chunks and gains are copied as they are stored, behind heads that are new. What was damaged is said, and marked in the
output, where it would look as if it had been removed on purpose otherwise.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..audio import MASK_TAG, atomic_output, parse_mask
from ..bitstream import DomainEntry, GainLayout, Header, Segment, Writer
from ..bitstream.fields import encode_header
from ..bitstream.limits import MAX_PARTS
from ..bitstream.segment import STEREO, TREBLE
from ..errors import InputError
from ..progress import Progress
from .pieces import Input, Piece, length_of, pieces_of, segments_of
from .shaper import CONTEXT_FRAMES as SHAPER_FRAMES
from .texture import CONTEXT_FRAMES as TEXTURE_FRAMES

LEAD_SECONDS = 1
"""Kept around an excerpt beside the frames that its audio depends on, for the filter of the resampler."""


@dataclass(frozen=True)
class EditResult:
    """What became of one or more streams."""

    inputs: tuple[str, ...]
    """As given; `-` for standard input."""
    output: str
    seconds: float
    """That it plays."""
    bytes: int
    input_bytes: int
    """Of all inputs, as far as they were read."""
    parts: int
    """Of the output, that decode each by itself; 1 where it is all of one file."""
    notes: tuple[str, ...]
    """What was left out, and what it is that stays, for people."""
    problems: tuple[str, ...]
    """What is damaged, and so is in the output, a line each."""


def strip(
    source: str | Path,
    target: str | Path,
    *,
    domains: Sequence[str] | None = None,
    num_codebooks: int | None = None,
    below: float | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> EditResult:
    """Leave domains, upper codebooks or what is above a frequency out of a stream.

    Domains that stay decode to the same samples as before, unless they lose codebooks; they keep the gains of envelope
    and treble, which are of the mix of all.

    Args:
        source: the `.sdc` file, or `-` for standard input
        target: where the new one goes, or `-` for standard output
        domains: those that stay; the others are removed, which is not the same as silent
        num_codebooks: how many of each stream stay; streams that have fewer keep what they have
        below: leave out what lies above this frequency in Hz: half the rate of a stage of the model
        overwrite: replace an existing target
        progress: called after every segment

    Raises:
        StreamError: not a stream, a newer one, or one damaged beyond use
        InputError: it is missing, lacks a domain, cannot be cut off at `below`, or has no layer group that ends with
            this number of codebooks
        ValueError: nothing was asked for, or no domain would stay
        OutputError: see `audio`
    """
    if domains is None and num_codebooks is None and below is None:
        raise ValueError("nothing to leave out; give domains, a number of codebooks or a frequency")
    if domains is not None and (isinstance(domains, str) or not domains):
        raise ValueError(f"domains must be a list of at least one domain, got {domains!r}")
    stream = Input(str(source))
    with stream.opened() as reader:
        notes: list[str] = []
        whole = reader.header
        header, scale = (whole, 1) if below is None else _below(stream.name, whole, below, notes)
        kept = _kept(stream.name, header, domains, notes)
        if num_codebooks is not None:
            header = _with_codebooks(stream.name, header, kept, num_codebooks)
        num_groups = [{entry.name: len(entry.groups) for entry in part.domains} for part in header.of_parts]

        def smaller(segment: Segment) -> Segment:
            number = whole.part_at(segment.start_frame)
            groups, own = num_groups[number], whole.of_parts[number]
            units = dict(segment.units)
            if not header.of_parts[number].treble:
                units[TREBLE] = ()
            units[STEREO] = tuple(unit for unit in units.get(STEREO, ()) if own.domain_of(unit.channel).name in kept)
            return replace(
                segment,
                num_frames=segment.num_frames * scale,
                silent=frozenset(key for key in segment.silent if key[1] in groups),
                chunks={
                    key: chunks[: groups[key[1]]]
                    for key, chunks in segment.chunks.items()
                    if key[1] in groups and key[1] in kept
                },
                units=units,
            )

        with atomic_output(target, overwrite=overwrite) as file:
            writer = Writer(file, header, copies=True, cover=reader.cover())
            copied = segments_of(reader, 0, None)
            for segment in copied:
                writer.copy(smaller(segment))
                if progress:
                    progress((segment.start_frame + segment.num_frames) / whole.frame_rate, None)
            num_samples = length_of(reader, writer.num_frames // scale)
            writer.close(num_samples)
    return _result([stream], target, writer, header, num_samples, notes)


def cut(
    source: str | Path,
    target: str | Path,
    *,
    start: float = 0.0,
    duration: float | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> EditResult:
    """Cut an excerpt out of a stream, exact to the sample.

    It has all segments that the excerpt's audio depends on, and says which samples of them are to be played: those that
    decoding the excerpt out of the whole gives.

    Args:
        source: the `.sdc` file, or `-` for standard input, which is copied to a temporary file first
        target: where the new one goes, or `-` for standard output
        start: in seconds
        duration: in seconds; to the end by default
        overwrite: replace an existing target
        progress: called after every segment

    Raises:
        StreamError: not a stream, a newer one, or one damaged beyond use
        InputError: it is missing, or ends before `start`
        ValueError: a time before the beginning or of no length
        OutputError: see `audio`
    """
    if not (start >= 0 and (duration is None or duration > 0)):
        raise ValueError(f"start must be 0 or more and duration more than 0, got {start:g} and {duration}")
    with Input(str(source)) as stream:
        pieces = list(_excerpt(stream, pieces_of(stream), start, duration))
        if not pieces:
            raise InputError(f"{stream.name}: ends before {start:g} s; give an earlier --start")
        header = _joined(stream.header, pieces)
        return _write([stream], target, header, pieces, [], overwrite=overwrite, progress=progress)


def join(
    sources: Sequence[str | Path],
    target: str | Path,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> EditResult:
    """Put streams of one model one behind the other; each decodes as it did alone, sample for sample.

    Gain, layer groups, envelope and treble may differ. Where one goes on exactly where the one before ends, as two
    excerpts of one file do, they become one again, without a seam.

    Args:
        sources: `.sdc` files in their order, the same ones more than once if need be; one of them may be `-` for
            standard input, which is copied to a temporary file first
        target: where the new one goes, or `-` for standard output
        overwrite: replace an existing target
        progress: called after every segment

    Raises:
        StreamError: not a stream, a newer one, or one damaged beyond use
        InputError: one is missing or empty, or was made with another model, at another rate or of other channels than
            the first one, or with other tables
        ValueError: no sources
        OutputError: see `audio`
    """
    if not sources:
        raise ValueError("sources must name at least one file")
    with contextlib.ExitStack() as stack:
        streams = [stack.enter_context(Input(str(source))) for source in sources]
        for stream in streams[1:]:
            _check_same(streams[0], stream)
        pieces: list[Piece] = []
        for stream in streams:
            found = pieces_of(stream)
            if not found:
                raise InputError(f"{stream.name}: holds no audio; leave it out")
            for piece in found:
                merged = _merged(pieces[-1], piece) if pieces else None
                pieces[-1:] = [*pieces[-1:], piece] if merged is None else [merged]
        if len(pieces) > MAX_PARTS:
            raise InputError(f"{streams[-1].name}: makes more than {MAX_PARTS} parts; join fewer files")
        notes = []
        if any(stream.header.tags != streams[0].header.tags for stream in streams):
            notes.append(f"its tags are those of {streams[0].name}")
        if any(stream.header.cover_bytes is not None for stream in streams[1:]):
            first = streams[0]
            has_cover = first.header.cover_bytes is not None
            notes.append(
                f"its cover is that of {first.name}" if has_cover else f"it has no cover, as {first.name} has none"
            )
        tables = [stream.header.tables_sha256 for stream in streams if stream.header.tables_sha256 is not None]
        common = replace(
            streams[0].header,
            segment_frames=max(stream.header.segment_frames for stream in streams),
            tables_sha256=tables[0] if tables else None,
        )
        header = _joined(common, pieces)
        return _write(streams, target, header, pieces, notes, overwrite=overwrite, progress=progress)


def _below(name: str, header: Header, below: float, notes: list[str]) -> tuple[Header, int]:
    """The header of a stream without what lies above a frequency, and how many of its frames are one of the stream."""
    splits = [stage.sample_rate / 2 for stage in header.stages]
    if below not in splits:
        known = " or ".join(f"{split:g}" for split in splits)
        raise InputError(f"{name}: can be cut off at {known} Hz only, not at {below:g}; give --below {splits[0]:g}")
    stage = splits.index(below)
    upper = list(dict.fromkeys(each.name for part in header.of_parts for each in part.domains if each.stage > stage))
    treble = any(part.treble for part in header.of_parts)
    last = header.stages[stage]
    scale, rest = divmod(last.sample_rate * header.hop_length, last.hop_length * header.sample_rate)

    def scaled(layout: GainLayout | None) -> GainLayout | None:
        return None if layout is None else replace(layout, frames=layout.frames * scale)

    try:
        if rest:
            raise ValueError("a frame is not a whole number of frames of what is below")
        lower = replace(header, parts=()).up_to(stage)
        lower = replace(
            lower,
            segment_frames=lower.segment_frames * scale,
            envelope=scaled(lower.envelope),
            treble=None,
            stereo=scaled(lower.stereo),
            parts=tuple(
                replace(
                    part,
                    num_frames=part.num_frames * scale,
                    origin=part.origin * scale,
                    envelope=scaled(part.envelope),
                    treble=None,
                    stereo=scaled(part.stereo),
                    domains=tuple(entry for entry in part.domains if entry.stage <= stage),
                )
                for part in header.parts
            ),
        )
    except ValueError as error:
        raise InputError(f"{name}: cannot be cut off at {below:g} Hz: {error}; choose another with --below") from None
    gone = [*(["the treble"] if treble else []), *upper]
    notes.append(f"left out above {below:g} Hz: {', '.join(gone)}" if gone else f"has nothing above {below:g} Hz")
    return lower, scale


def _kept(name: str, header: Header, domains: Sequence[str] | None, notes: list[str]) -> set[str]:
    """Names of the streams that stay."""
    stems = header.stems
    for domain in domains or ():
        if domain not in stems:
            raise InputError(f"{name}: has no {domain}; choose from {', '.join(stems)}")
    removed = [stem for stem in stems if domains is not None and stem not in domains]
    if removed:
        notes.append(f"removed: {', '.join(removed)}")
        if any(part.envelope or part.treble for part in header.of_parts):
            notes.append(
                "gains of bands are those of the mix of all domains and stay, so that the others sound as before"
            )
    return {entry.name for part in header.of_parts for entry in part.domains if entry.stem not in removed}


def _with_codebooks(name: str, header: Header, kept: set[str], num_codebooks: int) -> Header:
    """A header of streams with so many codebooks; those that are not kept stay as they are."""
    entries = [entry for part in header.of_parts for entry in part.domains if entry.name in kept]
    ends = [{entry.num_codebooks, *itertools.accumulate(entry.groups)} for entry in entries]
    most = max(entry.num_codebooks for entry in entries)
    possible = [count for count in range(1, most + 1) if all(count in end or count > max(end) for end in ends)]
    if num_codebooks not in possible:
        known = ", ".join(map(str, possible))
        raise InputError(
            f"{name}: its layer groups do not end with {num_codebooks} codebooks; choose --codebooks from {known}"
        )

    def fewer(entry: DomainEntry) -> DomainEntry:
        lost = entry.num_codebooks - num_codebooks
        if entry.name not in kept or lost <= 0:
            return entry
        count = [*itertools.accumulate(entry.groups)].index(num_codebooks) + 1
        return replace(
            entry,
            num_codebooks=num_codebooks,
            num_shared=max(0, entry.num_shared - lost),
            groups=entry.groups[:count],
        )

    return replace(
        header,
        domains=tuple(map(fewer, header.domains)),
        parts=tuple(replace(part, domains=tuple(map(fewer, part.domains))) for part in header.parts),
    )


def _excerpt(stream: Input, pieces: Sequence[Piece], start: float, duration: float | None) -> Iterator[Piece]:
    """What is wanted of each part, with the segments around it that its audio depends on."""
    header = stream.header
    begin = round(start * header.original_rate)
    end = None if duration is None else begin + max(1, round(duration * header.original_rate))
    frame = header.hop_length * header.original_rate  # lasts so many units, of which a sample has header.sample_rate
    around = _context(header)
    before = 0  # samples of the parts before
    for piece in pieces:
        first = piece.first_sample + max(begin - before, 0)
        last = piece.first_sample + (piece.num_samples if end is None else min(end - before, piece.num_samples))
        before += piece.num_samples
        if first >= last:
            continue
        wanted = first * header.sample_rate // frame - around, -(-last * header.sample_rate // frame) + around
        origin, stop = max(piece.origin, wanted[0]), min(piece.stop, wanted[1])
        origin, stop = _ends(piece.between(origin, stop))
        (given,) = piece.ranges
        shift = given.start - piece.origin
        yield replace(
            piece,
            origin=origin,
            first_sample=first,
            num_samples=last - first,
            ranges=(replace(given, start=origin + shift, stop=stop + shift),),
        )


def _ends(segments: Iterator[Segment]) -> tuple[int, int]:
    """The first frame of the first of segments, and that behind the last one."""
    first = next(segments)
    stop = first.start_frame + first.num_frames
    for segment in segments:
        stop = segment.start_frame + segment.num_frames
    return first.start_frame, stop


def _context(header: Header) -> int:
    """Frames around an excerpt whose codes have a part in its audio, however it is decoded."""
    seconds = -(-LEAD_SECONDS * header.sample_rate // header.hop_length)
    # What puts stems in their places works under the same windows, behind the shaper.
    shaping = SHAPER_FRAMES * (2 if header.stereo else 1)
    return header.context_frames + shaping + TEXTURE_FRAMES + seconds


def _check_same(first: Input, other: Input) -> None:
    """Raise an InputError unless two streams can be joined."""
    ours, theirs = first.header, other.header

    def models(header: Header) -> list[bytes]:
        return [stage.weights_sha256 for stage in header.stages]

    def shape(header: Header) -> list[tuple[int, int, int]]:
        return [(stage.sample_rate, stage.hop_length, stage.context_frames) for stage in header.stages]

    if models(ours) != models(theirs) or shape(ours) != shape(theirs):
        raise InputError(
            f"{other.name}: was made with {theirs.model} (weights {theirs.weights_sha256.hex()[:8]}), but {first.name} "
            f"with {ours.model} (weights {ours.weights_sha256.hex()[:8]}); only files of one model can be joined"
        )
    if ours.original_rate != theirs.original_rate:
        raise InputError(
            f"{other.name}: is of {theirs.original_rate} Hz, but {first.name} of {ours.original_rate} Hz; "
            "compress it again from audio at that rate"
        )
    masks = [parse_mask(header.tags.get(MASK_TAG, ""), header.coded_channels) for header in (ours, theirs)]
    if bool(ours.stereo) != bool(theirs.stereo):
        which, other_which = ("stereo" if header.stereo else "not stereo" for header in (theirs, ours))
        raise InputError(
            f"{other.name}: is {which}, but {first.name} is {other_which}; compress both with the same --channels"
        )
    if ours.coded_channels != theirs.coded_channels or masks[0] != masks[1]:
        raise InputError(
            f"{other.name}: its channels ({theirs.coded_channels}) are not those of {first.name} "
            f"({ours.coded_channels}); compress both with the same --channels"
        )
    if ours.tables_sha256 and theirs.tables_sha256 and ours.tables_sha256 != theirs.tables_sha256:
        raise InputError(
            f"{other.name}: its codes need the tables {theirs.tables_sha256.hex()[:8]}..., those of {first.name} "
            f"{ours.tables_sha256.hex()[:8]}...; decode and compress it again"
        )


def _merged(before: Piece, after: Piece) -> Piece | None:
    """Two excerpts of one file as one; None unless the second goes on exactly where the first ends.

    What both have around the seam must be as much as decoding looks at, and the same: then each sample is decoded from
    what it was decoded from.
    """
    header, seam = before.header, after.first_sample
    same = ("gain_db", "domains", "envelope", "treble", "stereo", "tables_sha256")
    if seam != before.first_sample + before.num_samples or any(
        getattr(header, name) != getattr(after.header, name) for name in same
    ):
        return None
    frame, around = header.hop_length * header.original_rate, _context(header)
    first, last = seam * header.sample_rate // frame - around, -(-seam * header.sample_rate // frame) + around
    if not before.origin <= after.origin <= max(first, before.origin):
        return None
    if not min(last, after.stop) <= before.stop <= after.stop:
        return None
    pairs = itertools.zip_longest(
        *(map(_stored, piece.between(after.origin, before.stop)) for piece in (before, after))
    )
    if any(one != other for one, other in pairs):
        return None
    ranges, skip = list(before.ranges), before.stop - after.origin
    for each in after.ranges:
        left = max(0, skip - (each.stop - each.start))
        if each.start + skip < each.stop:
            ranges.append(replace(each, start=each.start + skip))
        skip = left
    return replace(before, num_samples=before.num_samples + after.num_samples, ranges=tuple(ranges))


def _stored(segment: Segment) -> object:
    """All that a segment holds, for comparison."""
    units = {
        kind: [(unit.channel, unit.coding, unit.data) for unit in units]
        for kind, units in segment.units.items()
        if units
    }
    return segment.start_frame, segment.num_frames, segment.silent, segment.chunks, units


def _joined(first: Header, pieces: Sequence[Piece]) -> Header:
    """The header of a stream of these pieces; `first` says what they have in common."""
    piece = pieces[0]
    is_whole = len(pieces) == 1 and piece.origin == 0 and piece.first_sample == 0
    return replace(
        first,
        original_samples=sum(each.num_samples for each in pieces),
        gain_db=piece.header.gain_db,
        domains=piece.header.domains,
        envelope=piece.header.envelope,
        treble=piece.header.treble,
        stereo=piece.header.stereo,
        parts=() if is_whole else tuple(each.part for each in pieces),
    )


def _write(
    streams: Sequence[Input],
    target: str | Path,
    header: Header,
    pieces: Sequence[Piece],
    notes: list[str],
    *,
    overwrite: bool,
    progress: Progress | None,
) -> EditResult:
    """Write pieces one behind the other."""
    try:
        encode_header(header)
    except ValueError as error:
        raise InputError(f"{streams[0].name}: {error}, or join fewer files") from None
    total = sum(piece.stop - piece.origin for piece in pieces)
    with streams[0].opened() as reader:
        cover = reader.cover()
    with atomic_output(target, overwrite=overwrite) as file:
        writer = Writer(file, header, copies=True, cover=cover)
        for piece in pieces:
            for segment in piece.between(piece.origin, piece.stop):
                writer.copy(segment)
                if progress:
                    progress(writer.num_frames / header.frame_rate, total / header.frame_rate)
        writer.close(sum(piece.num_samples for piece in pieces))
    return _result(streams, target, writer, header, sum(piece.num_samples for piece in pieces), notes)


def _result(
    streams: Sequence[Input],
    target: str | Path,
    writer: Writer,
    header: Header,
    num_samples: int,
    notes: Sequence[str],
) -> EditResult:
    unknown = []
    for stream in streams:
        for kind in sorted(kind for kind in stream.unknown if kind[:1].islower()):
            unknown.append(f"left out something of a later version of the format (type {kind.decode()})")
    return EditResult(
        inputs=tuple(stream.given for stream in streams),
        output=str(target),
        seconds=num_samples / header.original_rate,
        bytes=writer.bytes_written,
        input_bytes=sum(stream.num_bytes for stream in streams),
        parts=max(1, len(header.parts)),
        notes=tuple(dict.fromkeys([*notes, *unknown])),
        problems=tuple(dict.fromkeys(f"{stream.name}: {problem}" for stream in streams for problem in stream.problems)),
    )
