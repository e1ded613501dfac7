"""Codes for others: `.sdc` files and audio to files of tokens, and those back to `.sdc`. No network, unless for audio.

What is stored goes there and back: codes, which of them are there, band gains, segments, header. So a whole `.sdc` file
comes back byte for byte, as long as the tables are at hand that its codes are range-coded with.

Legend: C channels, K codebooks, n frames of a segment.
"""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from ..audio import atomic_output
from ..bitstream import DomainEntry, GainLayout, Header, Reader, Segment, StreamKey, Writer
from ..bitstream.codings import ENVELOPE_GAINS, TREBLE_GAINS, GainKind
from ..bitstream.entries import first_of
from ..bitstream.fields import MAGIC
from ..bitstream.writer import TOGETHER
from ..data.tokens import (
    DAMAGED,
    PRESENT,
    REMOVED,
    SILENT,
    Format,
    GainTokens,
    Layers,
    StreamTokens,
    Tokens,
    read_tokens,
    to_bytes,
)
from ..errors import CorruptStream, InputError, ModelError
from ..prediction import CodeTables
from ..progress import Progress
from ..runtime.load import load_codebooks
from ..zoo import find
from .inputs import STREAM_SUFFIXES, opened_file

if TYPE_CHECKING:
    from ..families import Stream
    from .codec import Codec

MOST_LOST_FRAMES = 180_000
"""Most frames that are lost at once and still stand in a file of tokens, as damaged: an hour at 50 frames/s."""


@dataclass(frozen=True)
class TokensResult:
    """What became of one input."""

    input: str
    output: str
    seconds: float
    bytes: int
    num_frames: int
    """Of the model; of one with stages, of its last one."""
    frame_rate: float
    """Frames per second."""
    streams: dict[str, int]
    """Codebooks of each stream."""
    model: str
    notes: tuple[str, ...]
    """Anything else worth saying."""
    problems: tuple[str, ...]
    """What is damaged and what is lost by it, a line each."""


def to_tokens(
    source: str | Path,
    target: str | Path,
    *,
    kind: Format,
    model: str | Path | None = None,
    codec: Callable[[], Codec] | None = None,
    domains: Sequence[str] | None = None,
    num_codebooks: int | None = None,
    layers: Layers = "all",
    features: bool = False,
    track: int = 1,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> TokensResult:
    """Write the codes of a `.sdc` file, or of audio, which is compressed first, as a file of tokens.

    Args:
        source: a file, or `-` for standard input; by its content it is one or the other
        target: where the tokens go, or `-` for standard output
        kind: the format
        model: that has the tables of range-coded codes, and what codes stand for; by default the one the file names
        codec: gives the model for audio
        domains: to keep; by default all. Envelope and treble are of the mix of all, and are left out with any of them
        num_codebooks: to keep of each stream, the first ones; by default all
        layers: `semantic` keeps of speech the codebook of what is said, and nothing else, `acoustic` all others of
            speech, of which `num_codebooks` are the first ones
        features: write what the codes stand for beside them
        track: which audio track of a film, from 1
        overwrite: replace an existing target
        progress: called while audio is coded

    Raises:
        StreamError, InputError: not a usable stream or audio, or there is no such domain
        ModelError: there is no such model; layers are wanted of one whose codebooks are not told apart, or features of
            one with other weights than the file was made with
        MissingExtra: the format needs pyarrow, which is not installed
        OutputError: see `audio`
        ValueError: `num_codebooks` below 1, or `domains` beside layers, which are of speech
    """
    if num_codebooks is not None and num_codebooks < 1:
        raise ValueError(f"num_codebooks must be at least 1, got {num_codebooks}")
    if layers != "all" and domains is not None:
        raise ValueError(f"{layers} codes are of speech alone; leave domains out")
    notes: list[str] = []
    with contextlib.ExitStack() as stack:
        name = "stdin" if str(source) == "-" else str(source)
        file = stack.enter_context(opened_file(source))
        if codec is not None and Path(name).suffix.lower() not in STREAM_SUFFIXES and not _is_stream(file):
            from .compress import compress

            if layers != "all":  # what cannot be told apart is not coded first
                _semantic(name, model or codec().name)
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sdc-tokens-")))
            made = compress(source, folder / "a.sdc", codec=codec(), track=track, progress=progress)
            notes += filter(None, (made.channels_note, *made.notes))
            file = stack.enter_context(open(folder / "a.sdc", "rb"))
        reader = Reader(file, name)
        if reader.header.parts:
            raise InputError(
                f"{name}: is an excerpt, or several files in one, which tokens cannot say; take the files that it was "
                "made of, or decode it and compress that"
            )
        reader.tables = _tables(reader.header, model)
        first: dict[str, int] = {}
        tokens = _read(reader, name)
        if layers != "all":
            semantic = _semantic(name, model or reader.header.model)
            tokens, domains = _layer(name, tokens, layers, semantic), [stream.stem for stream in semantic.values()]
            if layers == "acoustic":
                first = {stream.name: stream.num_semantic for stream in semantic.values()}
        tokens = _kept(name, tokens, domains, num_codebooks)
        if domains is not None and (reader.header.envelope or reader.header.treble) and not tokens.header.envelope:
            notes.append("envelope and treble are those of the mix of all domains, and are left out")
        if reader.header.stereo:
            notes.append("where domains stand in stereo is left out: tokens are of the mono signal")
        if reader.header.cover_bytes is not None:
            notes.append("its cover is left out")
        found = _features(name, tokens, model, first) if features else None
    data = to_bytes(tokens, kind, found)
    with atomic_output(target, overwrite=overwrite) as output:
        output.write(data)
    problems = tuple(problem.message for problem in reader.problems)
    return _result(source, target, tokens, len(data), tuple(notes), problems)


def from_tokens(
    source: str | Path, target: str | Path, *, model: str | Path | None = None, overwrite: bool = False
) -> TokensResult:
    """Write a `.sdc` file from a file of tokens.

    Codes are range-coded if the model has the tables that the tokens name, else raw.

    Args:
        source: a file of tokens with one stream
        target: where the `.sdc` goes, or `-` for standard output
        model: that has the tables; by default the one that the tokens name
        overwrite: replace an existing target

    Raises:
        InputError: it cannot be read, or something in it is missing or does not fit
        MissingExtra: it is a Parquet file, and pyarrow is not installed
        ModelError: there is no such model
        OutputError: see `audio`
    """
    rows = read_tokens(source)
    if len(rows) != 1:
        raise InputError(f"{source}: has {len(rows)} rows, and a .sdc file holds one; write each row into its own file")
    (tokens,) = rows
    if tokens.layers == "acoustic":
        raise InputError(
            f"{source}: holds acoustic codes alone, which mean nothing without the semantic ones; write it again with "
            "sdc tokens --layers all"
        )
    header, tables, notes = tokens.header, _tables(tokens.header, model), []
    if header.tables_sha256 is not None and tables is None:
        notes.append(f"the tables of {header.model} are not here, so its codes are stored raw")
        header = replace(header, tables_sha256=None)
    if any((stream.state == DAMAGED).any() for stream in tokens.streams.values()):
        notes.append("what is damaged in it is stored as damaged")
    with atomic_output(target, overwrite=overwrite) as file:
        try:
            num_bytes = _write(file, replace(tokens, header=header), tables)
        except ValueError as error:  # tags that no header holds
            raise InputError(f"{source}: {error}; write it again with sdc tokens") from error
    return _result(source, target, tokens, num_bytes, tuple(notes), ())


def _tables(header: Header, model: str | Path | None) -> CodeTables | None:
    """What the codes of a stream are range-coded with, if its model, or the one given, is there and has it."""
    if header.tables_sha256 is None:
        return None
    try:
        return find(model or header.model).tables(header.tables_sha256)
    except ModelError:
        if model is not None:
            raise
        return None


def _result(
    source: str | Path,
    target: str | Path,
    tokens: Tokens,
    num_bytes: int,
    notes: tuple[str, ...],
    problems: tuple[str, ...],
) -> TokensResult:
    header = tokens.header
    return TokensResult(
        input=str(source),
        output=str(target),
        seconds=tokens.seconds,
        bytes=num_bytes,
        num_frames=tokens.num_frames,
        frame_rate=header.frame_rate,
        streams={entry.name: entry.num_codebooks for entry in header.domains},
        model=header.model,
        notes=notes,
        problems=problems,
    )


def _is_stream(file: BinaryIO) -> bool:
    """Whether a `.sdc` stream begins here, of which nothing is taken."""
    if file.seekable():
        place = file.tell()
        start = file.read(4)
        file.seek(place)
    else:
        start = cast(io.BufferedReader, file).peek(4)
    # What was changed by a transfer in text mode is still meant to be one, and its reader says so.
    return start[1:4] == MAGIC[1:4]


# --- .sdc to tokens


def _read(reader: Reader, name: str) -> Tokens:
    """All of a stream; what is lost of it is damaged.

    Raises:
        CorruptStream: more is lost at once than `MOST_LOST_FRAMES`
    """
    header, position = reader.header, 0
    segments: list[Segment] = []

    def lose(until: int) -> None:
        nonlocal position
        if until - position > MOST_LOST_FRAMES:
            raise CorruptStream(
                f"{name}: {until - position} frames are lost at once, more than {MOST_LOST_FRAMES}; "
                "decode what is left of it with sdc decode"
            )
        while position < until:
            frames = min(header.segment_frames, until - position)
            segments.append(Segment(0, position, frames, {}, frozenset(), frozenset()))
            position += frames

    for segment in reader.segments():
        lose(segment.start_frame)
        segments.append(segment)
        position += segment.num_frames
    if reader.end is not None:
        lose(reader.end.total_frames)
    return Tokens(
        header=replace(header, stereo=None, cover_bytes=None),
        num_samples=header.samples_in(position) if reader.end is None else reader.end.original_samples,
        segments=np.array([segment.num_frames for segment in segments], dtype=np.uint16),
        streams={entry.name: _stream(segments, header, entry) for entry in header.domains},
        envelope=_gains([each.gains for each in segments], segments, header, header.envelope, ENVELOPE_GAINS),
        treble=_gains([each.treble for each in segments], segments, header, header.treble, TREBLE_GAINS),
    )


def _stream(segments: Sequence[Segment], header: Header, entry: DomainEntry) -> StreamTokens:
    """Codes of one stream in all segments, and where there are any."""
    frames = [header.frames_in(entry, segment.num_frames) for segment in segments]
    shape = header.coded_channels, sum(frames)
    codes = np.zeros((shape[0], entry.num_codebooks, shape[1]), dtype=np.uint16)
    state, num_codebooks = np.zeros(shape, dtype=np.uint8), np.zeros(shape, dtype=np.uint8)
    for channel in range(header.coded_channels):
        key, stop = (channel, entry.name), 0
        for segment, length in zip(segments, frames, strict=True):
            start, stop = stop, stop + length
            found = segment.codes.get(key)
            if found is not None:
                codes[channel, : len(found), start:stop] = found
                num_codebooks[channel, start:stop] = len(found)
            elif key in segment.silent:
                state[channel, start:stop] = SILENT
            else:
                state[channel, start:stop] = REMOVED if key in segment.removed else DAMAGED
    return StreamTokens(*(_without_axis(each) for each in (codes, state, num_codebooks)))


def _gains(
    of_segments: Sequence[Mapping[int, NDArray[np.int64]]],
    segments: Sequence[Segment],
    header: Header,
    layout: GainLayout | None,
    kind: GainKind,
) -> GainTokens | None:
    """Band gains of all segments, and which of them have any."""
    if layout is None:
        return None
    columns = [layout.num_columns(segment.num_frames) for segment in segments]
    gains = np.full((header.coded_channels, layout.num_bands, sum(columns)), kind.absent, dtype=np.int8)
    present = np.zeros((header.coded_channels, len(segments)), dtype=np.uint8)
    stop = 0
    for number, (found, length) in enumerate(zip(of_segments, columns, strict=True)):
        start, stop = stop, stop + length
        for channel, steps in found.items():
            gains[channel, :, start:stop] = steps
            present[channel, number] = 1
    return GainTokens(_without_axis(gains), _without_axis(present))


def _without_axis(array: NDArray[Any]) -> NDArray[Any]:
    """Without the axis of channels, where there is one channel."""
    return array[0] if len(array) == 1 else array


def _kept(name: str, tokens: Tokens, domains: Sequence[str] | None, num_codebooks: int | None) -> Tokens:
    """Some of the domains, and the first codebooks of each stream."""
    header = tokens.header
    if domains is None and num_codebooks is None:
        return tokens
    for domain in domains or ():
        if domain not in header.stems:
            raise InputError(f"{name}: has no {domain}; choose from {', '.join(header.stems)}")
    entries, streams = [], {}
    for entry in header.domains:
        if domains is not None and entry.stem not in domains:
            continue
        count = min(num_codebooks or entry.num_codebooks, entry.num_codebooks)
        streams[entry.name], entry = _first(tokens.streams[entry.name], entry, count)
        entries.append(entry)
    some = len({entry.stem for entry in entries}) < len(header.stems)
    return replace(
        tokens,
        header=replace(
            header,
            domains=tuple(entries),
            envelope=None if some else header.envelope,
            treble=None if some else header.treble,
        ),
        streams=streams,
        envelope=None if some else tokens.envelope,
        treble=None if some else tokens.treble,
    )


def _semantic(name: str, model: str | Path) -> dict[str, Stream]:
    """Streams of a model, by name, of which codebooks were taught what is said.

    Raises:
        ModelError: it has none, or there is no such model
    """
    from ..families import of

    recipe = find(model).recipe
    found = {stream.name: stream for stream in of(recipe).streams(recipe) if stream.num_semantic}
    if not found:
        from .voice import semantic_models

        raise ModelError(
            f"{name}: codes of {model} are not told apart into semantic and acoustic ones; models whose codes "
            f"are: {', '.join(semantic_models())}"
        )
    return found


def _features(
    name: str, tokens: Tokens, model: str | Path | None, first: Mapping[str, int]
) -> dict[str, NDArray[np.float16]]:
    """What the codes of each stream stand for, `[F, D]` or `[C, F, D]`; 0 where there are none.

    Args:
        name: of the file, for errors
        tokens: all streams, perhaps without their first codebooks
        model: that made them, if not the one that they name
        first: how many codebooks are left out at the start, by stream; none by default
    """
    header = tokens.header
    entry = find(model or header.model).decoder_for(header.weights_sha256)
    digest, codebooks = load_codebooks(entry)
    if header.weights_sha256 not in (digest, *entry.decodes):
        raise ModelError(
            f"{name}: was made with other weights of {header.model} than are here, whose codes stand for something "
            "else; name the right model with --model DIR, or leave --features out"
        )
    features = {}
    for stream, found in tokens.streams.items():
        shape = header.coded_channels, *found.codes.shape[-2:]
        channels = zip(found.codes.reshape(shape), found.there.reshape(shape), strict=True)
        each = [codebooks[stream].latent(*channel, first=first.get(stream, 0)) for channel in channels]
        features[stream] = _without_axis(np.stack(each).astype(np.float16))
    return features


def _layer(name: str, tokens: Tokens, layers: Layers, semantic: Mapping[str, Stream]) -> Tokens:
    """The same, with the codebooks for what is said alone, or with all others."""
    entries, streams = [], dict(tokens.streams)
    for entry in tokens.header.domains:
        if entry.name in semantic:
            take = _first if layers == "semantic" else functools.partial(_without_first, name)
            streams[entry.name], entry = take(streams[entry.name], entry, semantic[entry.name].num_semantic)
        entries.append(entry)
    return replace(tokens, header=replace(tokens.header, domains=tuple(entries)), streams=streams, layers=layers)


def _without_first(name: str, stream: StreamTokens, entry: DomainEntry, count: int) -> tuple[StreamTokens, DomainEntry]:
    """All codebooks of a stream but the first ones."""
    total = entry.num_codebooks - count
    if total <= 0:
        raise InputError(f"{name}: its acoustic codes were left out; take the file that it was made of")
    counts = np.maximum(stream.num_codebooks.astype(np.int64) - count, 0).astype(np.uint8)
    nothing = (stream.state == PRESENT) & (counts == 0)
    left = StreamTokens(
        codes=stream.codes[..., count:, :],
        state=np.where(nothing, REMOVED, stream.state).astype(np.uint8),
        num_codebooks=counts,
    )
    ends = [0, *(max(0, end - count) for end in itertools.accumulate(entry.groups))]
    groups = tuple(stop - start for start, stop in itertools.pairwise(ends) if stop > start)
    shared = min(entry.num_shared, total)
    return left, replace(entry, num_codebooks=total, num_shared=shared, groups=groups)


def _first(stream: StreamTokens, entry: DomainEntry, count: int) -> tuple[StreamTokens, DomainEntry]:
    """The first codebooks of a stream."""
    left_out = entry.num_codebooks - count
    kept = replace(
        stream,
        codes=stream.codes[..., :count, :],
        num_codebooks=np.minimum(stream.num_codebooks, count).astype(np.uint8),
    )
    groups, shared = first_of(entry.groups, count), max(0, entry.num_shared - left_out)
    return kept, replace(entry, num_codebooks=count, num_shared=shared, groups=groups)


# --- and back


def _write(file: BinaryIO, tokens: Tokens, tables: CodeTables | None) -> int:
    """Write a stream; its size in bytes."""
    header = tokens.header
    writer = Writer(file, header, tables=tables, together=TOGETHER)
    start = 0
    columns = {"envelope": 0, "treble": 0}
    for number, length in enumerate(map(int, tokens.segments)):
        codes: dict[StreamKey, NDArray[np.uint16] | None] = {}
        lost: list[StreamKey] = []
        for entry in header.domains:
            stream, frames = tokens.streams[entry.name], header.frames_in(entry, 1)
            first = start * frames
            for channel in range(header.coded_channels):
                state = _of_channel(stream.state, channel, header)[first]
                count = _of_channel(stream.num_codebooks, channel, header)[first]
                if state == PRESENT:
                    whole = _of_channel(stream.codes, channel, header)
                    codes[channel, entry.name] = whole[:count, first : first + length * frames]
                elif state == SILENT:
                    codes[channel, entry.name] = None
                elif state == DAMAGED:
                    lost.append((channel, entry.name))
        gains: dict[str, dict[int, NDArray[np.int64]]] = {"envelope": {}, "treble": {}}
        for name, layout, found in (
            ("envelope", header.envelope, tokens.envelope),
            ("treble", header.treble, tokens.treble),
        ):
            if layout is None or found is None:
                continue
            first, columns[name] = columns[name], columns[name] + layout.num_columns(length)
            for channel in range(header.coded_channels):
                if _of_channel(found.present, channel, header)[number]:
                    steps = _of_channel(found.gains, channel, header)[:, first : columns[name]]
                    gains[name][channel] = steps.astype(np.int64)
        writer.write(codes, length, gains=gains["envelope"], treble=gains["treble"], lost=lost)
        start += length
    writer.close(tokens.num_samples)
    return writer.bytes_written


def _of_channel(array: NDArray[Any], channel: int, header: Header) -> NDArray[Any]:
    """That of one channel, of an array that has an axis of channels where there are several."""
    return array if header.coded_channels == 1 else array[channel]
