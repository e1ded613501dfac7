"""Audio file to `.sdc` file.

Legend: C channels, T samples, N domains, K codebooks, F frames.
"""

from __future__ import annotations

import math
import time
import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .. import __version__
from ..audio import (
    MASK_TAG,
    SILENCE,
    AudioInfo,
    AudioReader,
    Cover,
    LiveReader,
    LoudnessMeter,
    RatesResampler,
    Source,
    Wav,
    atomic_output,
    db_to_amplitude,
    db_to_power,
    downmix,
    is_special,
    layout_name,
    loudness_weights,
)
from ..bitstream import DomainEntry, GainLayout, Header, LowerModel, StreamKey, Writer
from ..bitstream.codings import ENVELOPE_GAINS, STEREO_GAINS, TREBLE_GAINS, GainKind
from ..bitstream.entries import first_of
from ..bitstream.limits import MAX_CODES, MAX_COVER_BYTES, MAX_RATE
from ..errors import InputError
from ..progress import Progress, in_stage
from .allocation import Allocation, Extent
from .cascade import Encoder
from .codec import Codec
from .envelope import Gains, envelope_bitrate
from .stereo import BITRATE as STEREO_BITRATE
from .stereo import StereoEncoder
from .stream import FILES, LIVE, CodedSegment, Grid
from .treble import BITRATE as TREBLE_BITRATE

MAX_TAG_BYTES = 2**15
"""Of the texts of all tags together; a header holds twice that in all."""

TOGETHER = 16
"""Segments of a file that are range-coded at once."""

OFF_LEVEL_LU = 6.0
"""A live source that is so much louder or softer than was assumed is told."""

CANCELLED_DB = 20.0
"""A down-mix so far below its channels has lost them: one of two alone is 3 dB below, the worst of 7.1 is 10."""


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
        tags, notes = _tags(info.tags)
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
        meter = LoudnessMeter(info.sample_rate, _weights(info, mono=mono)) if live else None

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
            extent = _extent(heard, blocks(), codec, stored, in_stage(progress, "estimating", main=False), info.seconds)
            beside = {"envelope": envelope, "treble": wide_rate is not None, "stereo": stereo}
            allocation = _fitting(bitrate, extent, codec, stored, name=info.name, fine=fine, **beside)
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
        notes.append(f"its cover takes {_kilobytes(len(picture.data))} kB, more than its sound")
    if bitrate is not None:
        notes.append(_bitrate_note(payload_bitrate, allocation, codec, envelope=envelope))
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


def _extent(
    coder: Coder,
    blocks: Iterator[Wav],
    codec: Codec,
    stored: Sequence[str],
    progress: Progress | None,
    seconds: float | None,
) -> Extent:
    """How much there is to code in a file, found without refinement, which does not change what is active."""
    streams = {each.name for stage in codec.stages for each in stage.streams if each.stem in stored}
    extent = Extent()
    for channels in coder.run(blocks, progress, seconds):
        for segment in channels:
            extent.add(segment, segment.num_frames / codec.frame_rate, streams)
    extent.seconds = coder.num_samples / coder.rate
    return extent


def _fitting(
    bitrate: float,
    extent: Extent,
    codec: Codec,
    stored: Sequence[str],
    *,
    name: str,
    envelope: bool,
    fine: bool | None,
    treble: bool,
    stereo: bool,
) -> Allocation:
    """The best allocation that takes no more than a bitrate."""

    def rates(*, envelope: bool) -> dict[Allocation, float]:
        found = {}
        for each in codec.allocations(envelope=envelope, fine=fine):
            gains = envelope_bitrate(envelope=envelope, fine=each.fine) + TREBLE_BITRATE * treble
            gains += STEREO_BITRATE * len(stored) * stereo
            found[each] = extent.bitrate(_entries(codec, each.num_codebooks, stored), gains)
        return found

    found = rates(envelope=envelope)
    for allocation, rate in found.items():
        if rate <= bitrate + 1e-9:
            return allocation
    wanted = _range(found.values())
    without = f" (without an envelope {_range(rates(envelope=False).values())})" if envelope else ""
    raise InputError(f"{name}: {bitrate:g} kbit/s are too few for what is in it; choose {wanted}{without}")


def _range(rates: Collection[float]) -> str:
    """Lowest and highest of bitrates, rounded up, so that they are enough."""
    lowest, highest = (math.ceil(rate * 10 - 1e-9) / 10 for rate in (min(rates), max(rates)))
    return f"{lowest:g} to {highest:g}"


def _bitrate_note(bitrate: float, allocation: Allocation, codec: Codec, *, envelope: bool) -> str:
    """What became of a bitrate that was asked for, for people."""
    kind = f" and a {'fine' if allocation.fine else 'coarse'} envelope" if envelope else ""
    return f"{bitrate:.1f} kbit/s, with {allocation.num_codebooks} of {codec.num_codebooks} codebooks{kind}"


def stream_header(
    codec: Codec,
    *,
    num_codebooks: int,
    gain_db: float,
    stored: Sequence[str],
    original_rate: int,
    original_samples: int | None,
    original_channels: int = 1,
    coded_channels: int = 1,
    tags: Mapping[str, str] | None = None,
    envelope: GainLayout | None = None,
    treble: GainLayout | None = None,
    stereo: GainLayout | None = None,
    grid: Grid = FILES,
) -> Header:
    """What a stream of a model says about itself, with `stored` of its domains; see `Header`."""
    tables = codec.tables()
    return Header(
        model=codec.name,
        weights_sha256=codec.weights_sha256,
        sample_rate=codec.sample_rate,
        hop_length=codec.hop_length,
        context_frames=codec.context_frames,
        original_rate=original_rate,
        original_channels=original_channels,
        coded_channels=coded_channels,
        original_samples=original_samples,
        gain_db=gain_db,
        domains=tuple(_entries(codec, num_codebooks, stored)),
        segment_frames=grid.segment_frames,
        encoder=f"sdc {__version__}",
        tags=dict(tags or {}),
        envelope=envelope,
        treble=treble,
        stereo=stereo,
        tables_sha256=tables.sha256 if tables else None,
        lower=tuple(
            LowerModel(
                model=stage.name,
                weights_sha256=stage.weights_sha256,
                sample_rate=stage.sample_rate,
                hop_length=stage.hop_length,
                context_frames=stage.synthesis_context,
            )
            for stage in codec.stages[:-1]
        ),
    )


def _entries(codec: Codec, num_codebooks: int, stored: Sequence[str]) -> Iterator[DomainEntry]:
    """The streams of the stored domains, with so many codebooks in the first stage."""
    for number, stage in enumerate(codec.stages):
        count = codec.codebooks_of(stage, num_codebooks)
        for stream in stage.streams:
            if stream.stem in stored:
                yield DomainEntry(
                    name=stream.name,
                    stem=stream.stem,
                    stage=number,
                    num_codebooks=count,
                    codebook_size=stream.codebook_size,
                    num_shared=max(0, stream.num_shared - (stream.num_codebooks - count)),
                    groups=first_of(stream.groups, count),
                )


def _tags(given: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Tags as a header takes them, and notes about those that are left out."""
    tags, notes, room = {}, [], MAX_TAG_BYTES
    for key, value in given.items():
        # Line ends of any system are one; other control characters have no business in a text.
        lines = value.replace("\r\n", "\n").replace("\r", "\n")
        text = "".join(char for char in lines if char in "\n\t" or unicodedata.category(char) not in ("Cc", "Cs"))
        size = len(text.encode())
        if size > room:
            notes.append(f"the {key} of {size} bytes is left out, tags take at most {MAX_TAG_BYTES} together")
        elif text:
            tags[key] = text
            room -= size
    return tags, notes


def cover_of(reader: AudioReader, notes: list[str]) -> Cover | None:
    """The cover of a source, or one more note about why there is none."""
    data = reader.cover()
    if data is None:
        notes.append("has no cover")
        return None
    if len(data) > MAX_COVER_BYTES:
        most = f"more than {_kilobytes(MAX_COVER_BYTES)} kB"
        notes.append(f"its cover of {_kilobytes(len(data))} kB, {most}, is left out; make it smaller first")
        return None
    try:
        return Cover.of(data)
    except ValueError as error:
        notes.append(f"its cover is {error}, and is left out; convert it first")
        return None


def _kilobytes(num_bytes: int) -> int:
    return -(-num_bytes // 1000)


def _stored(codec: Codec, domains: Literal["auto", "all"] | Sequence[str]) -> tuple[str, ...]:
    if isinstance(domains, str):
        if domains not in ("auto", "all"):
            raise ValueError(f"domains must be auto, all or a list of domains, got {domains!r}")
        return codec.domains
    unknown = [domain for domain in domains if domain not in codec.domains]
    if unknown:
        raise ValueError(f"{codec.name} has no domain {unknown[0]}; it has {', '.join(codec.domains)}")
    return tuple(domain for domain in codec.domains if domain in domains)


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


def cancelled(info: AudioInfo) -> str:
    """A note about channels that cancel each other in the down-mix."""
    lfe = info.channel_mask is not None and not layout_name(info.channel_mask).endswith(".0")
    or_lfe = ", or only the LFE is heard" if lfe else ""
    return f"hardly anything is left in the down-mix, because its channels cancel each other{or_lfe}"


def _blocks(
    reader: AudioReader | LiveReader, meter: LoudnessMeter | None, *, mono: bool, stereo: bool
) -> Iterator[Wav]:
    """Blocks `[C, T]` of what is coded: the down-mix, that and the side signal, or all channels."""
    for block in reader.blocks():
        wav = downmix(block, reader.info.channel_mask) if mono else block
        if meter:
            meter.push(wav)
        yield np.concatenate([wav, (block[:1] - block[1:]) / 2]) if stereo else wav


def _weights(info: AudioInfo, *, mono: bool) -> Sequence[float]:
    """What the channels that are coded count for in their loudness."""
    return [1.0] if mono else loudness_weights(info.channel_mask, info.channels)


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


def _level_note(assumed: float, measured: float) -> str:
    note = f"coded at a level of {assumed:g} LUFS, which was assumed"
    if measured == -math.inf or abs(measured - assumed) <= OFF_LEVEL_LU:
        return note
    return f"{note}; it was {measured:.0f} LUFS, next time pass --level {measured:.0f}"


@dataclass(frozen=True)
class Level:
    """How loud audio is, measured in a first pass."""

    loudness: float
    """Of the audio that is encoded, down-mixed or not, in LUFS."""
    offset: Wav
    """Constant offset of each of its channels, `[C, 1]`: to be taken out, because training data has none."""
    problem: Literal["silent", "cancelled"] | None
    """`silent`: no sample is above −80 dBFS. `cancelled`: channels cancel each other in the down-mix."""


def measure_level(reader: AudioReader, *, mono: bool, progress: Progress | None = None) -> Level:
    """Go through a file for its level; `progress` hears of it if it knows stages."""
    progress = in_stage(progress, "measuring", main=False)
    info = reader.info
    weights = _weights(info, mono=mono)
    meter = LoudnessMeter(info.sample_rate, weights)
    peak = given = mixed = 0.0
    first, total, count = None, np.zeros((len(weights), 1)), 0
    for block in reader.blocks():
        # Most of an offset goes before anything is measured: a filter would take it for a sound that begins.
        first = block.mean(axis=1, keepdims=True, dtype=np.float64).astype(np.float32) if first is None else first
        level = block - first
        wav = downmix(level, info.channel_mask) if mono else level
        meter.push(wav)
        peak = max(peak, float(np.abs(level).max()))
        given += float(np.square(level, dtype=np.float64).sum()) / len(level)
        mixed += float(np.square(wav, dtype=np.float64).sum()) / len(wav)
        total += wav.sum(axis=1, keepdims=True, dtype=np.float64)
        count += wav.shape[1]
        if progress:
            progress(count / info.sample_rate, info.seconds)
    assert first is not None  # a reader without blocks has raised an error
    lost = mixed < given * db_to_power(-CANCELLED_DB)
    return Level(
        meter.integrated(),
        (downmix(first, info.channel_mask) if mono else first) + (total / count).astype(np.float32),
        "silent" if peak < SILENCE else "cancelled" if lost else None,
    )


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


class Coder:
    """Resamples blocks of all channels, applies the gain, encodes them, and counts samples and frames.

    Args:
        encoders: of the channels
        rate: of the blocks, in Hz
        gain_db: to apply
    """

    def __init__(self, encoders: Sequence[Encoder | StereoEncoder], rate: int, gain_db: float) -> None:
        self.num_samples = 0
        """Per channel, at the original rate."""
        self.num_frames = 0
        self.rate = rate
        self._encoders = encoders
        self._gain = np.float32(db_to_amplitude(gain_db))
        num_channels = 2 if isinstance(encoders[0], StereoEncoder) else len(encoders)
        self._resampler = RatesResampler(rate, encoders[0].rates, num_channels)

    def run(
        self, blocks: Iterator[Wav], progress: Progress | None, total: float | None
    ) -> Iterator[tuple[CodedSegment, ...]]:
        """The segments in their order, each of every channel at once."""
        for block in blocks:
            self.num_samples += block.shape[-1]
            yield from self._push(self._resampler.push(block), last=False)
            if progress:
                progress(self.num_samples / self.rate, total)
        yield from self._push(self._resampler.flush(), last=True)

    def _push(self, wavs: Sequence[Wav], *, last: bool) -> Iterator[tuple[CodedSegment, ...]]:
        channels = []
        for index, encoder in enumerate(self._encoders):
            own = (wav if isinstance(encoder, StereoEncoder) else wav[index] for wav in wavs)
            segments = encoder.push(*(wav * self._gain for wav in own))
            channels.append([*segments, *encoder.finish()] if last else segments)
        for together in zip(*channels, strict=True):
            self.num_frames += together[0].num_frames
            yield together
