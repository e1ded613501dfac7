"""Where sound goes that a command makes: to a file of its own, or into a film."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..audio import AudioWriter, Cover, FilmWriter, Soundtrack, WriteOptions, is_film

__all__ = ["Soundtrack", "is_film", "open_writer"]


def open_writer(
    target: str | Path,
    sample_rate: int,
    channels: int,
    *,
    num_samples: int | None,
    channel_mask: int | None,
    film: str | Path | None,
    track: int,
    soundtrack: Soundtrack | None,
    overwrite: bool,
    tags: Mapping[str, str] | None = None,
    cover: Cover | None = None,
    at_once: bool = False,
    write: WriteOptions | None = None,
) -> AudioWriter | FilmWriter:
    """What writes one output: sound alone, with tags and cover, or a film if there is one to take the picture from.

    A film keeps its own.
    """
    if film is None:
        return AudioWriter(
            target,
            sample_rate,
            channels,
            overwrite=overwrite,
            num_samples=num_samples,
            channel_mask=channel_mask,
            tags=tags,
            cover=cover,
            at_once=at_once,
            write=write,
        )
    return FilmWriter(
        target,
        sample_rate,
        channels,
        film=film,
        track=track,
        sound=soundtrack,
        overwrite=overwrite,
        channel_mask=channel_mask,
    )
