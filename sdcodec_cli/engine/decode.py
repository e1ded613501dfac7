"""`.sdc` file to audio files."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..audio import (
    MASK_TAG,
    Soundtrack,
    WriteOptions,
    db_to_amplitude,
    parse_mask,
    written_together,
)
from ..audio.bands import SHARE
from ..bitstream import Header, Reader
from ..errors import InputError
from ..progress import Progress, in_stage
from .codec import Codec
from .excerpts import excerpts_of, num_samples_of
from .file_decoder import FileDecoder
from .films import open_writer
from .fitting import fitted, stages_below
from .inputs import opened_file
from .stem_files import StemsResult, check_targets, levels
from .stems import check_stems, named, stems_in
from .tags import stored_cover


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
        excerpts = excerpts_of(reader, header, start, duration)
        if not excerpts:
            raise InputError(f"{name}: ends before {start:g} s; give an earlier --start")
        # Of a file without an end, only what is decoded tells how long it is.
        piped = not reader.can_seek
        stated = None if piped and header.original_samples is None else num_samples_of(excerpts)
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
        decoder = FileDecoder(
            reader,
            header,
            model,
            decoded,
            wanted,
            num_stages=stages_below(name, header, below),
            mixed=any(len(held) > 1 for held in parts.values()),
            share=share,
            below=below,
            texture=texture,
        )
        written, rates = 0, set()
        progress = in_stage(progress, "decoding")
        for wavs, rate in decoder.run(excerpts):
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
                total = num_samples_of(excerpts)
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
        concealed=decoder.made_up,
    )


def _factor(gains: Mapping[str, float], stem: str) -> np.float32:
    return np.float32(db_to_amplitude(gains.get(stem, 0.0)))
