"""Audio file to `.sdc` file.

Legend: C channels, T samples, N domains, K codebooks, F frames.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..audio import (
    MASK_TAG,
    AudioInfo,
    AudioReader,
    LiveReader,
    LoudnessMeter,
    Source,
    Wav,
    atomic_output,
    downmix,
    is_special,
    layout_name,
)
from ..bitstream import GainLayout, Header, StreamKey, Writer
from ..bitstream.codings import ENVELOPE_GAINS, STEREO_GAINS, TREBLE_GAINS, GainKind
from ..bitstream.limits import MAX_CODES, MAX_RATE
from ..bitstream.writer import TOGETHER
from ..errors import InputError
from ..progress import Progress, in_stage
from .allocation import Allocation
from .bitrate import bitrate_note, extent_of, fitting_allocation
from .codec import Codec
from .coder import Coder
from .envelope import Gains
from .loudness import Level, cancelled, measure_level, weights_of
from .stream import FILES, LIVE, CodedSegment
from .stream_header import stream_header
from .tags import cover_of, kilobytes, tags_of

OFF_LEVEL_LU = 6.0
"""A live source that is so much louder or softer than was assumed is told."""


@dataclass(frozen=True)
class CompressResult:
    """What became of one input."""

    input: str
    output: str
    seconds: float
    bytes: int
    bitrate: float
    """Of the whole file, in kbit/s."""
    num_codebooks: int
    """Of each domain; of a model of several codecs, in the first of them."""
    payload_bitrate: float
    """Of codes, envelope, treble and stereo alone, in kbit/s."""
    envelope_bitrate: float
    """Of the envelope alone, in kbit/s."""
    treble_bitrate: float
    """Of the treble alone, in kbit/s."""
    stereo_bitrate: float
    """Of the places of domains alone, in kbit/s."""
    saved_percent: float
    """Bytes that range coding saves of those that raw codes would take, in percent."""
    overhead_percent: float
    """Bytes that are neither codes nor gains nor places, in percent of those that are."""
    cover_bytes: int
    """Among these, those of the cover; 0 if it has none."""
    times_real_time: float
    effort: int
    """Steps of analysis by synthesis."""
    model: str
    device: str
    channels_note: str | None
    """What happened to several channels, for people."""
    activity: dict[str, float]
    """Share of the time in which each domain is active, and so stored."""
    notes: tuple[str, ...]
    """Anything else worth saying."""
    problems: tuple[str, ...]
    """Why a live source ended too early, if it did; what came before is in the file."""


def compress(
    source: str | Path | Source,
    target: str | Path,
    *,
    codec: Codec,
    bitrate: float | None = None,
    num_codebooks: int | None = None,
    domains: Literal["auto", "all"] | Sequence[str] = "auto",
    channels: Literal["mono", "stereo", "keep"] = "mono",
    envelope: bool = True,
    fine: bool | None = None,
    treble: bool = True,
    cover: bool = False,
    track: int = 1,
    live: bool = False,
    level: float | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> CompressResult:
    """Compress one audio file, in memory that does not grow with its length.

    The file is read twice: for its loudness, then for its codes; with a bitrate once more between, for what it holds. A
    live source is read once: its loudness is assumed, segments are short, and each is written as soon as it can be, so
    that the codes are others than those of a file.

    Args:
        source: any file that libsndfile or FFmpeg reads, `-` for standard input, or either as a `Source` that is open
        target: where the `.sdc` goes, or `-` for standard output
        codec: the model, at the effort wanted
        bitrate: of the payload of the file, in kbit/s: all streams of all channels, envelope, treble and stereo. It
            gets the best of `Codec.allocations` that takes no more in the mean
        num_codebooks: of each domain, instead of a bitrate; with neither what the model suggests
        domains: `auto` stores each domain in the segments in which it is active, `all` stores all domains throughout,
            a list stores only these domains, where they are active; analysis by synthesis is of the mix of all
            active domains, stored or not
        channels: `mono` mixes down (see `audio.downmix`), `stereo` does so with two and stores where each domain stands
            between them, see `engine.stereo`, `keep` codes every channel by itself
        envelope: store what the decoded mix lacks in bands, too, see `engine.envelope`; it is that of all domains, so
            a file with some of them has none
        fine: in more bands and more often; by default what is best at the bitrate, or beside so many codebooks
        treble: store what lies above the model's band, too, if the source has a rate for it, see `engine.treble`; like
            the envelope it is that of all domains
        cover: store the picture that the source has as its cover, if it is JPEG or PNG and takes no more than 4 MiB
        track: which audio track of a film, from 1
        live: take WAV in as it comes, and let SIGINT, SIGTERM and errors of reading end it, see `audio.LiveReader`
        level: of a live source, in LUFS; by default that of the model's training
        overwrite: replace an existing target
        progress: called after every block that is coded; told of all passes if it is a `StagedProgress`

    Raises:
        InputError, OutputError: see `audio`; also an input for which the bitrate is too low
        ValueError: codebooks or a domain that the model does not have, both a bitrate and codebooks, no such way with
            channels, a track below 1, a level of what is not live, or a bitrate, a cover or a `Source` of what is
    """
    if live and bitrate is not None:
        raise ValueError("a bitrate needs a live source to be read in advance; give num_codebooks instead")
    if live and cover:
        raise ValueError("a live source has no cover; leave it out")
    if not live and level is not None:
        raise ValueError("only a live source has a level that is assumed; leave the level out, or pass live=True")
    if channels not in ("mono", "stereo", "keep"):
        raise ValueError(f"channels must be mono, stereo or keep, got {channels!r}")
    stored = _stored(codec, domains)
    envelope = envelope and stored == codec.domains
    if bitrate is not None and num_codebooks is not None:
        raise ValueError("bitrate and num_codebooks say the same; give one of them")
    allocation = codec.allocate(num_codebooks, envelope=envelope, fine=fine)
    began = time.monotonic()
    grid = LIVE if live else FILES
    if live and isinstance(source, Source):
        raise ValueError("a live source is read once, as it comes; give its name and not a Source")
    with LiveReader(str(source)) if live else AudioReader(source, track=track) as reader:
        info = reader.info
        wide_rate = codec.wide_rate if treble and stored == codec.domains else None
        wide_rate = wide_rate if info.sample_rate > codec.sample_rate else None
        if channels == "stereo" and info.channels > 2:
            raise InputError(
                f"{info.name}: {info.channels} channels; --channels stereo takes two: mix them down (--channels mono), "
                "or code each by itself (--channels keep)"
            )
        stereo = channels == "stereo" and info.channels == 2
        mono = channels != "keep" or info.channels == 1
        coded_channels = 1 if mono else info.channels
        if coded_channels > 255:
            raise InputError(
                f"{info.name}: {info.channels} channels are more than 255; mix them down (--channels mono)"
            )
        if info.sample_rate > MAX_RATE:
            raise InputError(f"{info.name}: {info.sample_rate} Hz are more than {MAX_RATE}; resample it first")
        tags, notes = tags_of(info.tags)
        picture = cover_of(reader, notes) if cover and isinstance(reader, AudioReader) else None
        if channels == "stereo" and not stereo:
            notes.append("has one channel and is coded as mono")
        if coded_channels > 2 and info.channel_mask is not None:
            tags[MASK_TAG] = f"{info.channel_mask:#x}"
        if isinstance(reader, LiveReader):
            assumed = codec.model.loudness if level is None else level
            found = Level(assumed, np.zeros((coded_channels, 1), dtype=np.float32), None)
        else:
            found = measure_level(reader, mono=mono, progress=progress)
        gain_db = codec.gain_for(found.loudness)
        active = codec.domains if domains == "all" else None
        meter = LoudnessMeter(info.sample_rate, weights_of(info, mono=mono)) if live else None

        def coder(codec: Codec, allocation: Allocation, *, envelope: bool, treble: bool) -> Coder:
            encoders = [
                (codec.stereo_encoder if stereo else codec.stream_encoder)(
                    num_codebooks=allocation.num_codebooks,
                    active=active,
                    envelope=envelope,
                    fine=allocation.fine,
                    treble=treble,
                    grid=grid,
                )
                for _ in range(coded_channels)
            ]
            return Coder(encoders, info.sample_rate, gain_db)

        def blocks() -> Iterator[Wav]:
            offset = np.pad(found.offset, ((0, 1), (0, 0))) if stereo else found.offset
            return (block - offset for block in _blocks(reader, meter, mono=mono, stereo=stereo))

        if bitrate is not None:
            heard = coder(codec.at_effort(0), allocation, envelope=False, treble=False)
            extent = extent_of(
                heard, blocks(), codec, stored, in_stage(progress, "estimating", main=False), info.seconds
            )
            beside = {"envelope": envelope, "treble": wide_rate is not None, "stereo": stereo}
            allocation = fitting_allocation(bitrate, extent, codec, stored, name=info.name, fine=fine, **beside)
        header = stream_header(
            codec,
            num_codebooks=allocation.num_codebooks,
            gain_db=gain_db,
            stored=stored,
            original_rate=info.sample_rate,
            original_channels=min(info.channels, 255),
            coded_channels=coded_channels,
            original_samples=info.num_samples,
            tags=tags,
            envelope=codec.envelope_layout(fine=allocation.fine) if envelope else None,
            treble=codec.treble_layout if wide_rate else None,
            stereo=codec.stereo_layout if stereo else None,
            grid=grid,
        )
        most = sum(entry.num_codebooks * header.frames_in(entry, grid.segment_frames) for entry in header.domains)
        if coded_channels * most > MAX_CODES:
            raise InputError(
                f"{info.name}: {coded_channels} channels have more codes than a segment holds; mix them down "
                "(--channels mono)"
            )
        active_frames = dict.fromkeys(stored, 0)
        with atomic_output(target, overwrite=overwrite) as file:
            # What is waited for at the other end of a pipe is written as soon as it is known.
            at_once = live or str(target) == "-" or is_special(Path(target))
            together = 1 if at_once else TOGETHER
            writer = Writer(
                file, header, tables=codec.tables(), together=together, cover=picture.data if picture else None
            )
            if at_once:  # whoever reads it can load its model meanwhile
                file.flush()
            final = coder(codec, allocation, envelope=envelope, treble=wide_rate is not None)
            for segments in final.run(blocks(), in_stage(progress, "coding"), info.seconds):
                gains, treble_gains = [each.gains for each in segments], [each.treble for each in segments]
                writer.write(
                    _streams(segments, codec, stored, active_frames),
                    segments[0].num_frames,
                    gains=_by_channel(gains, header.envelope, ENVELOPE_GAINS, segments[0].num_frames, every=live),
                    treble=_by_channel(treble_gains, header.treble, TREBLE_GAINS, segments[0].num_frames, every=live),
                    places=_by_domain(segments[0], header, every=live),
                )
                if at_once:
                    file.flush()
            writer.close(final.num_samples)
    seconds = final.num_samples / info.sample_rate
    frames = coded_channels * max(1, final.num_frames)
    notes += reader.notes
    payload_bitrate = writer.payload_bytes * 8 / 1000 / seconds
    if picture is not None and len(picture.data) > writer.payload_bytes:
        notes.append(f"its cover takes {kilobytes(len(picture.data))} kB, more than its sound")
    if bitrate is not None:
        notes.append(bitrate_note(payload_bitrate, allocation, codec, envelope=envelope))
    if meter:
        notes.append(_level_note(found.loudness, meter.integrated()))
    if found.problem == "cancelled":
        notes.append(f"{cancelled(info)}; --channels keep codes each by itself")
    elif found.problem == "silent":
        notes.append("nothing in it is louder than −80 dBFS, so the file is silent; raise its level first")
    elif not any(active_frames.values()):
        notes.append("nothing is heard in it; the file is silent")
    return CompressResult(
        input=source.name if isinstance(source, Source) else str(source),
        output=str(target),
        seconds=seconds,
        bytes=writer.bytes_written,
        bitrate=writer.bytes_written * 8 / 1000 / seconds,
        num_codebooks=allocation.num_codebooks,
        payload_bitrate=payload_bitrate,
        envelope_bitrate=writer.gains_bytes * 8 / 1000 / seconds,
        treble_bitrate=writer.treble_bytes * 8 / 1000 / seconds,
        stereo_bitrate=writer.stereo_bytes * 8 / 1000 / seconds,
        saved_percent=writer.saved_percent,
        overhead_percent=100 * (writer.bytes_written - writer.payload_bytes) / max(1, writer.payload_bytes),
        cover_bytes=len(picture.data) if picture else 0,
        times_real_time=seconds / (time.monotonic() - began),
        effort=codec.effort,
        model=codec.name,
        device=codec.device,
        channels_note=_channels_note(info, mono=mono, stereo=stereo),
        activity={domain: count / frames for domain, count in active_frames.items()},
        notes=tuple(notes),
        problems=(reader.problem,) if isinstance(reader, LiveReader) and reader.problem else (),
    )


def _stored(codec: Codec, domains: Literal["auto", "all"] | Sequence[str]) -> tuple[str, ...]:
    if isinstance(domains, str):
        if domains not in ("auto", "all"):
            raise ValueError(f"domains must be auto, all or a list of domains, got {domains!r}")
        return codec.domains
    unknown = [domain for domain in domains if domain not in codec.domains]
    if unknown:
        raise ValueError(f"{codec.name} has no domain {unknown[0]}; it has {', '.join(codec.domains)}")
    return tuple(domain for domain in codec.domains if domain in domains)


def _blocks(
    reader: AudioReader | LiveReader, meter: LoudnessMeter | None, *, mono: bool, stereo: bool
) -> Iterator[Wav]:
    """Blocks `[C, T]` of what is coded: the down-mix, that and the side signal, or all channels."""
    for block in reader.blocks():
        wav = downmix(block, reader.info.channel_mask) if mono else block
        if meter:
            meter.push(wav)
        yield np.concatenate([wav, (block[:1] - block[1:]) / 2]) if stereo else wav


def _streams(
    segments: Sequence[CodedSegment], codec: Codec, stored: Sequence[str], active_frames: dict[str, int]
) -> dict[StreamKey, NDArray[np.int64] | None]:
    """One segment of every channel as the streams of the file; adds each domain's active frames to their count."""
    streams: dict[StreamKey, NDArray[np.int64] | None] = {}
    for channel, segment in enumerate(segments):
        found = segment.stored
        for stream in (each for stage in codec.stages for each in stage.streams if each.stem in stored):
            streams[channel, stream.name] = found[stream.name]
        for domain in stored:
            of_domain = (each.name for stage in codec.stages for each in stage.streams if each.stem == domain)
            active_frames[domain] += segment.num_frames * any(segment.active[name] for name in of_domain)
    return streams


def _by_channel(
    gains: Sequence[Gains | None], layout: GainLayout | None, kind: GainKind, num_frames: int, *, every: bool
) -> dict[int, Gains]:
    """Gains of the channels that have any; with `every`, of all of them.

    Where they may be missing, whoever reads a pipe has to wait for what comes next before it knows.
    """
    if layout is None:
        return {}
    absent = np.full((layout.num_bands, layout.num_columns(num_frames)), kind.absent, dtype=np.int64)
    given = ((channel, absent if each is None and every else each) for channel, each in enumerate(gains))
    return {channel: each for channel, each in given if each is not None}


def _by_domain(segment: CodedSegment, header: Header, *, every: bool) -> dict[str, Gains]:
    """Places of the stored domains that are not in the middle; with `every`, of all that are active."""
    if header.stereo is None:
        return {}
    absent = np.full(
        (2 * header.stereo.num_bands, header.stereo.num_columns(segment.num_frames)), STEREO_GAINS.absent, np.int64
    )
    active = {entry.stem for entry in header.domains if segment.active[entry.name]} if every else set()
    given = dict.fromkeys(active, absent) | dict(segment.places)
    return {stem: places for stem, places in given.items() if stem in header.stems}


def _channels_note(info: AudioInfo, *, mono: bool, stereo: bool) -> str | None:
    if info.channels == 1:
        return None
    if stereo:
        return "2 channels were mixed down to one, with where each domain stands between them"
    if not mono:
        return f"{info.channels} channels, each coded by itself"
    if info.channels == 2:
        how = "2 channels were mixed down to one"
    elif info.channel_mask is None:
        how = f"{info.channels} channels were mixed down to one, their mean: the file does not say what they are for"
    else:
        layout = layout_name(info.channel_mask)
        without = "" if layout.endswith(".0") else " and without the LFE"
        how = f"{layout} channels were mixed down to one as for a film, with centre and surrounds at −3 dB{without}"
    return f"{how}; --channels keep codes each by itself"


def _level_note(assumed: float, measured: float) -> str:
    note = f"coded at a level of {assumed:g} LUFS, which was assumed"
    if measured == -math.inf or abs(measured - assumed) <= OFF_LEVEL_LU:
        return note
    return f"{note}; it was {measured:.0f} LUFS, next time pass --level {measured:.0f}"
