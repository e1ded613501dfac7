"""`.sdc` file to audio files.

Legend: S stems, C channels, T samples, K codebooks, F frames.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..audio import (
    MASK_TAG,
    Cover,
    Soundtrack,
    StreamResampler,
    Wav,
    WriteOptions,
    db_to_amplitude,
    parse_mask,
    written_together,
)
from ..audio.bands import SHARE
from ..bitstream import GainLayout, Header, Reader, Segment
from ..bitstream.codings import ENVELOPE_GAINS, TREBLE_GAINS
from ..errors import InputError, ModelError
from ..progress import Progress, in_stage
from ..runtime.model import Codes
from . import texture as texturing
from .cascade import Decoder
from .codec import Codec
from .conceal import Fader, Stretch, concealed
from .films import open_writer
from .inputs import opened_file
from .shaper import CONTEXT_FRAMES
from .stem_files import StemsResult, check_targets, levels
from .stems import check_stems, named, stems_in
from .stereo import StreamPlacer
from .stream import SEGMENT_FRAMES, Grid
from .treble import FACTOR

MAX_GAP_FRAMES = 180_000
"""Most frames that are filled with silence for lost segments in a stream without an end: an hour at 50 frames/s."""

LEAD_SECONDS = 1
"""Audio decoded before the start of an excerpt, so that the resampler has settled when it comes to it."""


@dataclass(frozen=True)
class DecodeResult(StemsResult):
    """What became of one input."""

    envelope: float | None
    """Share of the envelope that was applied; None for a file without one."""
    band: float
    """Up to which frequency there can be audio, in Hz."""
    older_weights: str | None
    """SHA-256 of the weights that the file was made with, where the model has replaced them; else None."""
    decoder_weights: str
    """SHA-256 of the weights that decoded it: the older ones themselves, or others of the same quantizers."""
    notes: tuple[str, ...]
    """Anything else worth saying."""
    problems: tuple[str, ...]
    """What is damaged and what is lost by it, a line each."""
    concealed: dict[str, float]
    """Seconds of each domain that were lost and made up from what is around them; none of what is whole."""


def decode(
    source: str | Path,
    targets: Mapping[str, str | Path],
    *,
    codec: Codec | Callable[[Header], Codec],
    gains: Mapping[str, float] | None = None,
    start: float = 0.0,
    duration: float | None = None,
    share: float = SHARE,
    below: float | None = None,
    texture: bool = True,
    film: str | Path | None = None,
    track: int = 1,
    soundtrack: Soundtrack | None = None,
    force_model: bool = False,
    write: WriteOptions | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> DecodeResult:
    """Decode stems of one `.sdc` file, in memory that does not grow with its length.

    Only the wanted domains and segments are read. What is damaged is reported, and what is lost of a domain is made up
    from what is around it for a second on either side, see `engine.conceal`, unless others mask it in the mix. Tags and
    cover go into audio files that can hold them.

    Args:
        source: the file, or `-` for standard input
        targets: where each stem goes: `mix`, a domain of the file or a sum (see `stems`), to a path or `-` for standard
            output
        codec: the model, or what finds it for a header; files of weights that it has replaced are decoded as well, see
            `Codec.decoder_for`
        gains: in dB, of domains or of `mix`; gains of domains apply to their stems, and within the mix and sums
        start: in seconds
        duration: in seconds; to the end by default
        share: of the file's envelope, if it has one, see `Codec.decode`
        below: leave out what lies above this frequency in Hz: half the model's rate, above which a file may have treble
        texture: see `Codec.decode`
        film: that the file was made of; targets are films then, with its picture
        track: audio track of the film whose place the sound takes, from 1
        soundtrack: how the sound gets into the film
        force_model: decode although the model's weights are not those that the file was made with
        write: format and bitrate, and what becomes of samples beyond full scale
        overwrite: replace existing targets; they appear all together, or none of them
        progress: called after every block

    Raises:
        StreamError: not a stream, a newer one, or one damaged beyond use
        InputError: the file is missing, lacks a stem, ends before `start`, or has no split at `below`
        ModelError: the model's shape or its weights are not those of the stream
        ValueError: no targets, two stems to one target, a time before the beginning or of no length, `share` out of
            range; an excerpt for a film
        OutputError: see `audio`
    """
    check_targets(targets)
    if not (start >= 0 and (duration is None or duration > 0)):
        raise ValueError(f"start must be 0 or more and duration more than 0, got {start:g} and {duration}")
    if film is not None and (start or duration is not None):
        raise ValueError("a film has sound from its beginning to its end; leave out start and duration")
    gains = dict(gains or {})
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        name = "stdin" if str(source) == "-" else str(source)
        reader = Reader(stack.enter_context(opened_file(source)), name)
        header = reader.header
        domains = header.stems
        for stem in [*gains, *(stem for output in targets for stem in named(output))]:
            if stem not in ("mix", *domains):
                raise InputError(f"{name}: has no {stem}; it has {', '.join(domains)}")
        check_stems(name, domains, targets, gains)
        parts = {output: stems_in(output, domains) for output in targets}
        model, header = fitted(reader, name, codec(header) if callable(codec) else codec, force_model=force_model)
        # Gains on domains are gains on waveforms: latents add up, but they do not scale. One of 0 dB counts, too.
        remixed = [output for output in targets if len(parts[output]) > 1 and gains.keys() & set(parts[output])]
        decoded = [output for output in targets if output not in remixed]
        decoded = list(dict.fromkeys([*decoded, *(stem for output in remixed for stem in parts[output])]))
        wanted = [stem for stem in domains if any(stem in held for held in parts.values())]
        length = reader.end.original_samples if reader.end else header.original_samples
        excerpts = _excerpts(header, length, start, duration)
        if not excerpts:
            raise InputError(f"{name}: ends before {start:g} s; give an earlier --start")
        # Of a file without an end, only what is decoded tells how long it is.
        piped = not reader.can_seek
        stated = None if piped and header.original_samples is None else _total(excerpts)
        mask = parse_mask(header.tags.get(MASK_TAG, ""), header.coded_channels)
        cover, notes = stored_cover(reader)
        writers = {
            stem: open_writer(
                target,
                header.original_rate,
                header.decoded_channels,
                num_samples=stated,
                channel_mask=mask,
                tags=header.tags,
                cover=cover,
                at_once=piped or reader.end is not None,
                film=film,
                track=track,
                soundtrack=soundtrack,
                write=write,
                overwrite=overwrite,
            )
            for stem, target in targets.items()
        }
        stack.enter_context(written_together(list(writers.values()), progress))
        num_stages = _stages_below(name, header, below)
        written, rates = 0, set()
        progress = in_stage(progress, "decoding")
        made_up: dict[str, float] = {}
        mixed = any(len(held) > 1 for held in parts.values())
        begin = round(start * header.original_rate)
        for wavs, rate in _decoded_excerpts(
            reader, header, model, decoded, wanted, excerpts, begin, share, below, texture, num_stages, made_up, mixed
        ):
            rates.add(rate)
            by_stem = dict(zip(decoded, wavs, strict=True))
            for stem, writer in writers.items():
                if stem in remixed:
                    wav = sum((by_stem[part] * _factor(gains, part) for part in parts[stem]), np.zeros_like(wavs[0]))
                else:
                    wav = by_stem[stem]
                writer.write(wav * _factor(gains, stem))
            written += wavs.shape[-1]
            if progress:
                total = _total(excerpts)
                progress(written / header.original_rate, None if total is None else total / header.original_rate)
        if written == 0:
            raise InputError(f"{name}: has no audio from {start:g} s on; give an earlier --start")
        problems = tuple(problem.message for problem in reader.problems)
    seconds = written / header.original_rate
    return DecodeResult(
        input=str(source),
        outputs={stem: str(target) for stem, target in targets.items()},
        seconds=seconds,
        times_real_time=seconds / (time.monotonic() - began),
        model=model.name,
        device=model.device,
        **levels(writers),
        envelope=share if any(part.envelope for part in header.of_parts) else None,
        band=min(max(rates), header.original_rate) / 2,
        older_weights=header.weights_sha256.hex() if model.decodes_older(header.weights_sha256) else None,
        decoder_weights=model.weights_sha256.hex(),
        notes=tuple(dict.fromkeys([*notes, *(note for writer in writers.values() for note in writer.notes)])),
        problems=problems,
        concealed=made_up,
    )


def stored_cover(reader: Reader) -> tuple[Cover | None, list[str]]:
    """The cover of a file, and a note if it is none that audio files hold."""
    picture = reader.cover()
    if picture is None:
        return None, []
    try:
        return Cover.of(picture), []
    except ValueError as error:
        return None, [f"its cover is {error}, and is left out"]


def _factor(gains: Mapping[str, float], stem: str) -> np.float32:
    return np.float32(db_to_amplitude(gains.get(stem, 0.0)))


def fitted(reader: Reader, name: str, codec: Codec, *, force_model: bool = False) -> tuple[Codec, Header]:
    """What decodes a file, and its header as far as that does; gives the reader the tables that it needs.

    Raises:
        ModelError: the codec's shape or its weights are not those of the file
    """
    model = codec.decoder_for(reader.header.weights_sha256)
    if reader.header.tables_sha256 is not None:
        reader.tables = model.tables(reader.header.tables_sha256)
    header = _as_far_as(reader.header, model)
    for part in header.of_parts:
        _check_shape(name, part, model)
    if not force_model:
        _check_weights(name, header, model)
    return model, header


def sum_of(
    domains: Sequence[str], reader: Reader, header: Header, codec: Codec, *, share: float = SHARE
) -> Iterator[Wav]:
    """Audio of the sum of some domains of a file that can be sought in, at its original rate and level: `[C, T]`.

    Of stereo, the mean of both sides.
    """
    header = header.without_stereo
    length = reader.end.original_samples if reader.end else header.original_samples
    excerpts, stages = _excerpts(header, length, 0.0, None), len(header.stages)
    for wavs, _ in _decoded_excerpts(
        reader, header, codec, ["mix"], domains, excerpts, 0, share, None, True, stages, {}, True
    ):
        yield wavs[0]


def _decoded_excerpts(
    reader: Reader,
    header: Header,
    codec: Codec,
    stems: Sequence[str],
    domains: Sequence[str],
    excerpts: Sequence[_Excerpt],
    begin: int,
    share: float,
    below: float | None,
    texture: bool,
    num_stages: int,
    made_up: dict[str, float],
    mixed: bool,
) -> Iterator[tuple[Wav, int]]:
    """Audio of one part after the other at the original rate and level `[S, C, T]`, and the rate it was decoded at.

    Args:
        reader: of the file
        header: as far as the codec decodes it
        codec: see `decode`
        stems: S of them, `mix` being the sum of `domains`
        domains: those that are read
        excerpts: what is wanted of the parts
        begin: sample at the original rate where they begin
        share, below, texture: see `decode`
        num_stages: how many are decoded
        made_up: where seconds of each domain that were made up are added
        mixed: see `concealed`
    """
    num_outputs = len(stems)
    held = {stem: tuple(domains) if stem == "mix" else stems_in(stem, header.stems) for stem in stems}
    if header.stereo:
        # Where a sum stands is what its stems say.
        stems = [*stems, *dict.fromkeys(part for parts in held.values() for part in parts if part not in stems)]
    contexts = [_context(codec, excerpt.header, texture) for excerpt in excerpts]
    first, stop = excerpts[0].span(contexts[0])[0], excerpts[-1].span(contexts[-1])[1]
    streams = {
        entry.name
        for part in header.of_parts
        for entry in part.domains
        if entry.stem in domains and entry.stage < num_stages
    }
    by_part = _by_part(reader.segments(first, stop, streams), header, excerpts)
    for (excerpt, segments), context in zip(by_part, contexts, strict=True):
        if segments is None:
            if _breaks_off(reader):  # before this part
                return
            segments = iter(())
        layout = excerpt.header.treble if below is None else None
        rate = header.sample_rate * FACTOR if layout else header.stages[num_stages - 1].sample_rate
        decoded = _decoded_stems(
            reader,
            segments,
            codec,
            stems,
            excerpt,
            context,
            share,
            layout,
            texture,
            num_stages,
            rate,
            streams,
            made_up,
            mixed,
            held,
        )
        cut = _at_original_rate(decoded, rate, excerpt, len(stems))
        if reader.end is None and not header.parts:
            cut = _to_the_end(cut, reader, begin)
        for wavs in cut:
            yield wavs[:num_outputs], rate


def _as_far_as(header: Header, codec: Codec) -> Header:
    """The header of a file as far as a model decodes it, which may have only the lower stages."""
    return next((lower for lower in header.by_lower_models if lower.weights_sha256 == codec.weights_sha256), header)


def _stages_below(source: str, header: Header, below: float | None) -> int:
    """How many stages are decoded for audio below a frequency in Hz."""
    if below is None:
        return len(header.stages)
    splits = [stage.sample_rate / 2 for stage in header.stages]
    if below not in splits:
        known = " or ".join(f"{split:g}" for split in splits)
        raise InputError(
            f"{source}: its sound can be cut off at {known} Hz only, not at {below:g}; give --below {splits[0]:g}, or "
            "leave it out"
        )
    return 1 + splits.index(below)


def _check_weights(source: str, header: Header, codec: Codec) -> None:
    if codec.weights_sha256 != header.weights_sha256 and not codec.decodes_older(header.weights_sha256):
        made, found = header.weights_sha256.hex()[:8], codec.weights_sha256.hex()[:8]
        raise ModelError(
            f"{source}: was made with weights {made}... of {header.model}, but {codec.name} has {found}...; name the "
            "right model with --model DIR, or pass --force-model to decode anyway"
        )


def _check_shape(source: str, header: Header, codec: Codec) -> None:
    """Raise a ModelError unless rates, domains and codebooks of the stream are those of the model."""
    known = {stream.name: (number, stream) for number, stage in enumerate(codec.stages) for stream in stage.streams}
    ours = [(stage.sample_rate, stage.hop_length) for stage in codec.stages]
    fits = [(stage.sample_rate, stage.hop_length) for stage in header.stages] == ours and all(
        entry.name in known
        and (entry.stage, entry.stem) == (known[entry.name][0], known[entry.name][1].stem)
        and entry.codebook_size == known[entry.name][1].codebook_size
        and entry.num_codebooks <= known[entry.name][1].num_codebooks
        for entry in header.domains
    )
    if not fits:
        raise ModelError(
            f"{source}: its codes do not fit {codec.name} (other rate, domains or codebooks); "
            f"it was made with {header.model}, name that model with --model"
        )


@dataclass(frozen=True)
class _Excerpt:
    """What is wanted of one part of a stream, and where decoding begins for it; frames are those of its own file."""

    header: Header
    """Of the part."""
    shift: int
    """What brings a frame to its place in the stream."""
    origin: int
    """The first frame that there is."""
    stop: int | None
    """The one behind the last; None while it is unknown."""
    first_frame: int
    """Where decoding begins."""
    lead: int
    """Samples of the model between that and what is resampled, which begins at a whole sample at every rate."""
    skip_samples: int
    """Samples at the original rate between that and the start of the excerpt."""
    num_samples: int | None
    """Length at the original rate; None while it is unknown."""

    @classmethod
    def of(
        cls, header: Header, begin: int, num_samples: int | None, *, shift: int, origin: int, stop: int | None
    ) -> _Excerpt:
        # Whole seconds are whole samples at every rate.
        lead = max(0, begin // header.original_rate - LEAD_SECONDS) * header.sample_rate
        resampled = max(lead, header.first_sample_from(origin))
        first_frame, lead = divmod(resampled, header.hop_length)
        skip = begin - resampled * header.original_rate // header.sample_rate
        return cls(header, shift, origin, stop, first_frame, lead, skip, num_samples)

    def span(self, context: int) -> tuple[int, int | None]:
        """First frame in the stream, and that behind the last one, that are decoded with so much context."""
        begin, stop = max(self.origin, self.first_frame - context), self.stop
        if self.num_samples is not None:
            seconds = (self.skip_samples + self.num_samples) / self.header.original_rate + LEAD_SECONDS
            wanted = self.first_frame + math.ceil(seconds * self.header.frame_rate) + context
            stop = wanted if stop is None else min(wanted, stop)
        return begin + self.shift, None if stop is None else stop + self.shift


def _context(codec: Codec, header: Header, texture: bool) -> int:
    """Frames on each side of an excerpt that its audio depends on."""
    context = codec.context_frames + CONTEXT_FRAMES * (header.envelope is not None or header.treble is not None)
    context += CONTEXT_FRAMES * (header.stereo is not None)  # under the same windows
    return context + texturing.CONTEXT_FRAMES * texture


def _excerpts(header: Header, length: int | None, start: float, duration: float | None) -> list[_Excerpt]:
    """What is wanted of each part, as far as anything is."""
    begin = round(start * header.original_rate)
    stop = None if duration is None else begin + max(1, round(duration * header.original_rate))
    if not header.parts:
        if length is not None:
            stop = length if stop is None else min(stop, length)
        num_samples = None if stop is None else stop - begin
        if num_samples is not None and num_samples <= 0:
            return []
        return [_Excerpt.of(header, begin, num_samples, shift=0, origin=0, stop=None)]
    excerpts, before = [], 0  # samples of the parts before
    for part, own, place in zip(header.parts, header.of_parts, header.part_starts, strict=False):
        first = max(begin - before, 0)
        last = part.num_samples if stop is None else min(stop - before, part.num_samples)
        if first < last:
            excerpts.append(
                _Excerpt.of(
                    own,
                    part.first_sample + first,
                    last - first,
                    shift=place - part.origin,
                    origin=part.origin,
                    stop=part.origin + part.num_frames,
                )
            )
        before += part.num_samples
    return excerpts


def _total(excerpts: Sequence[_Excerpt]) -> int | None:
    """Samples of all of them; None while that is unknown."""
    lengths = [excerpt.num_samples for excerpt in excerpts]
    return None if None in lengths else sum(length for length in lengths if length is not None)


def _by_part(
    segments: Iterator[Segment], header: Header, excerpts: Sequence[_Excerpt]
) -> Iterator[tuple[_Excerpt, Iterator[Segment] | None]]:
    """Each excerpt with the segments of its part, which come one part after the other; None if there are none."""
    groups = itertools.groupby(segments, lambda segment: header.part_at(segment.start_frame))
    found = next(groups, None)
    for excerpt in excerpts:
        if found is not None and header.part_at(excerpt.origin + excerpt.shift) == found[0]:
            yield excerpt, found[1]
            found = next(groups, None)
        else:
            yield excerpt, None


def _breaks_off(reader: Reader) -> bool:
    return any(problem.kind == "truncated" for problem in reader.problems)


def _decoded_stems(
    reader: Reader,
    segments: Iterator[Segment],
    codec: Codec,
    stems: Sequence[str],
    excerpt: _Excerpt,
    context: int,
    share: float,
    treble: GainLayout | None,
    texture: bool,
    num_stages: int,
    rate: int,
    streams: Collection[str],
    made_up: dict[str, float],
    mixed: bool,
    held: Mapping[str, tuple[str, ...]],
) -> Iterator[Wav]:
    """Audio at the model's rate, or twice that, and the original level, from where resampling begins: `[S, C, T]`."""
    header = excerpt.header
    decoders = [
        codec.stream_decoder(
            stems,
            envelope=header.envelope,
            share=share,
            treble=treble,
            texture=texture,
            num_stages=num_stages,
            grid=Grid.of(header.segment_frames),
        )
        for _ in range(header.coded_channels)
    ]
    placer = None
    if header.stereo:
        placer = StreamPlacer(header.stereo, decoders[0].hop_length, header.frame_rate, stems, held)
    begin, stop = excerpt.span(context)
    level = np.float32(db_to_amplitude(-header.gain_db))
    trim = (excerpt.first_frame + excerpt.shift - begin) * decoders[0].hop_length
    trim += excerpt.lead * rate // header.sample_rate
    for wav in _run_decoders(reader, segments, header, decoders, stems, streams, placer, begin, stop, made_up, mixed):
        if wav.shape[-1] > trim:
            yield wav[..., trim:] * level
        trim = max(0, trim - wav.shape[-1])


def _run_decoders(
    reader: Reader,
    segments: Iterator[Segment],
    header: Header,
    decoders: Sequence[Decoder],
    stems: Sequence[str],
    streams: Collection[str],
    placer: StreamPlacer | None,
    begin: int,
    stop: int | None,
    made_up: dict[str, float],
    mixed: bool,
) -> Iterator[Wav]:
    """Audio of frames `begin` to `stop` of a part, of all channels, `[S, C, T]`.

    Adds seconds that were made up to `made_up`.
    """
    stem_of = {entry.name: entry.stem for entry in header.domains if entry.name in streams}
    channels = range(header.coded_channels)
    picked = [
        [[(channel, name) for name, stem in stem_of.items() if wanted in ("mix", stem)] for channel in channels]
        for wanted in stems
    ]
    fader = Fader(picked, decoders[0].hop_length)

    def together(pieces: list[list[Wav]]) -> Iterator[Wav]:
        for of_channels in zip(*pieces, strict=True):
            wavs = fader.applied(np.stack(of_channels, axis=1))
            yield placer.push(wavs[:, 0]) if placer else wavs

    absent = ENVELOPE_GAINS.absent, TREBLE_GAINS.absent
    for stretch in concealed(_stretches(reader, segments, header, stem_of, begin, stop), absent, mixed=mixed):
        fader.push(stretch)
        if placer:
            placer.push_places(stretch.num_frames, stretch.places)
        for stem in header.stems:
            levels = [level for (_, name), level in stretch.made_up.items() if stem_of[name] == stem]
            if levels:
                made_up[stem] = made_up.get(stem, 0.0) + int(np.any(levels, axis=0).sum()) / header.frame_rate
        yield from together(
            [
                decoder.push(
                    {name: codes for (owner, name), codes in stretch.codes.items() if owner == channel},
                    stretch.num_frames,
                    stretch.gains.get(channel),
                    stretch.treble.get(channel),
                )
                for channel, decoder in enumerate(decoders)
            ]
        )
    yield from together([decoder.finish() for decoder in decoders])
    if placer:
        yield placer.finish()


def _stretches(
    reader: Reader,
    segments: Iterator[Segment],
    header: Header,
    streams: Collection[str],
    begin: int,
    stop: int | None,
) -> Iterator[Stretch]:
    """Frames `begin` to `stop` of a part, without a gap between them: where segments are missing, all is lost."""
    every = frozenset((channel, name) for channel in range(header.coded_channels) for name in streams)
    position = begin

    def gap(until: int) -> Iterator[Stretch]:
        nonlocal position
        while position < until:
            # The last piece is long enough for what leads up to the next segment.
            frames = min(until - position, SEGMENT_FRAMES)
            frames = min(frames, until - position - SEGMENT_FRAMES) if until - position > SEGMENT_FRAMES else frames
            yield Stretch(frames, {}, {}, {}, lost=every, is_gap=True)
            position += frames

    frames_of = {entry.name: header.frames_in(entry, 1) for entry in header.domains}
    for segment in segments:
        if segment.start_frame + segment.num_frames <= begin:
            continue
        if stop is not None and segment.start_frame >= stop:
            break
        if reader.end is None and segment.start_frame - position > MAX_GAP_FRAMES:
            break  # A forged start would fill the disk with silence; nothing says that the stream is this long.
        yield from gap(segment.start_frame)
        span = slice(position - segment.start_frame, None if stop is None else stop - segment.start_frame)
        num_frames = len(range(segment.num_frames)[span])
        gains, treble = (
            {channel: layout.per_frame(each, segment.num_frames)[:, span] for channel, each in given.items()}
            if layout
            else {}
            for layout, given in ((header.envelope, segment.gains), (header.treble, segment.treble))
        )
        yield Stretch(
            num_frames,
            {key: _cut(codes, span, frames_of[key[1]]) for key, codes in segment.codes.items()},
            gains,
            treble,
            lost=every - segment.codes.keys() - segment.silent - segment.removed,
            places={
                stem: header.stereo.per_frame(each, segment.num_frames)[:, span]
                for stem, each in segment.places.items()
                if header.stereo
            },
        )
        position += num_frames
    if reader.header.parts and stop is not None and not _breaks_off(reader):
        yield from gap(stop)
    elif reader.end is not None:
        yield from gap(reader.end.total_frames if stop is None else min(stop, reader.end.total_frames))


def _cut(codes: Codes, span: slice, count: int) -> Codes:
    """Some frames of codes of which there are `count` for each frame."""
    return codes[:, span.start * count : None if span.stop is None else span.stop * count]


def _at_original_rate(stems: Iterator[Wav], rate: int, excerpt: _Excerpt, num_stems: int) -> Iterator[Wav]:
    """Resample `[S, C, T]` from `rate` to the original rate and cut out the excerpt."""
    header = excerpt.header
    resampler = StreamResampler(rate, header.original_rate, num_stems * header.decoded_channels)
    skip, left = excerpt.skip_samples, excerpt.num_samples

    def resampled() -> Iterator[Wav]:
        for wav in stems:
            yield resampler.push(wav.reshape(-1, wav.shape[-1]))
        yield resampler.flush()

    for wav in resampled():
        piece = wav[:, skip:]
        skip = max(0, skip - wav.shape[-1])
        if left is not None:
            piece = piece[:, :left]
            left -= piece.shape[-1]
        if piece.shape[-1]:
            yield piece.reshape(num_stems, header.decoded_channels, -1)


def _to_the_end(wavs: Iterator[Wav], reader: Reader, begin: int) -> Iterator[Wav]:
    """Cut audio `[S, C, T]`, which begins at sample `begin`, to the length that a pipe states only at its end.

    Codes cover whole frames, so up to a frame is held back until the end is read.
    """
    header = reader.header
    margin = 2 * math.ceil(header.hop_length * header.original_rate / header.sample_rate)
    held: Wav | None = None
    given = begin
    for wav in wavs:
        held = wav if held is None else np.concatenate([held, wav], axis=-1)
        ready = held.shape[-1] - margin
        if ready > 0:
            yield held[..., :ready]
            held, given = held[..., ready:], given + ready
    if held is not None and reader.end is not None:
        held = held[..., : max(0, reader.end.original_samples - given)]
    if held is not None and held.shape[-1]:
        yield held
