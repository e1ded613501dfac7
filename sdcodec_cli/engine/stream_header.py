"""What a stream of a model says about itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from .. import __version__
from ..bitstream import DomainEntry, GainLayout, Header, LowerModel
from ..bitstream.entries import first_of
from .codec import Codec
from .stream import FILES, Grid


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
        domains=tuple(entries_of(codec, num_codebooks, stored)),
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


def entries_of(codec: Codec, num_codebooks: int, stored: Sequence[str]) -> Iterator[DomainEntry]:
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
