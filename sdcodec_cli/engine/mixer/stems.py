"""The stems of a mixer: where they come from, and files of them that can be read from anywhere.

Legend: N stems, C channels, T samples.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile

from ...audio import AudioReader, StreamResampler, Wav, db_to_amplitude, downmix
from ...audio.mp3 import mp3_rate
from ...bitstream import Header
from ...errors import InputError
from ...progress import Progress
from ..codec import Codec
from ..decode import decode
from ..inputs import AUDIO_SUFFIXES, domains_of
from ..separate import separate
from ..separator import Separator

MAX_STEMS = 16

TAGS = ("title", "artist", "album")
"""Those that a page shows."""

HEADROOM = 12.0
"""By how much stems are decoded softer, in dB, so that files hold what goes beyond full scale; put back afterwards."""

_ROOM = 16
"""Likewise as a factor, in the files here, which have 24 bits: 24 dB."""


@dataclass(frozen=True)
class Found:
    """Stems as audio files, in the order in which they are shown."""

    paths: dict[str, Path]
    """Of each stem."""
    kind: str
    """How they came about, as the page says it."""
    gain_db: float = 0.0
    """What brings them to their level, in dB."""
    tags: dict[str, str] = field(default_factory=dict)
    command: str | None = None
    """The beginning of the command line that decodes their mix; None where there is no such file."""
    model: str | None = None
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


def is_stream(source: Path) -> bool:
    """Whether a file is a `.sdc` stream, by its first bytes.

    Raises:
        InputError: it cannot be read
    """
    try:
        with source.open("rb") as file:
            return file.read(4) == b"\x89SDC"
    except OSError as error:
        raise InputError(f"{source}: cannot be read: {error.strerror}; check its permissions") from error


def decoded(
    source: Path, scratch: Path, codec: Codec | Callable[[Header], Codec], progress: Progress | None = None
) -> Found:
    """The stems of a `.sdc` file, decoded into a folder."""
    headers: list[Header] = []

    def model(header: Header) -> Codec:
        headers.append(header)
        return codec(header) if callable(codec) else codec

    targets = {stem: scratch / f"{number}.decoded.wav" for number, stem in enumerate(domains_of(str(source)))}
    gains = dict.fromkeys(targets, -HEADROOM)
    result = decode(source, targets, codec=model, gains=gains, progress=progress)
    return Found(
        paths=targets,
        kind="decoded",
        gain_db=HEADROOM,
        tags=dict(headers[0].tags),
        command=f"sdc decode {shlex.quote(str(source))}",
        model=result.model,
        problems=result.problems,
    )


def separated(
    source: Path,
    scratch: Path,
    separator: Callable[[], Codec | Separator],
    *,
    views: int | None = None,
    track: int = 1,
    progress: Progress | None = None,
) -> Found:
    """The stems that a model, which `separator` opens, finds in audio, separated into a folder."""
    with AudioReader(source, track=track) as reader:
        tags = reader.info.tags
    codec = separator()
    targets = {stem: scratch / f"{number}.separated.wav" for number, stem in enumerate(codec.domains)}
    result = separate(source, targets, codec=codec, views=views, track=track, progress=progress)
    return Found(paths=targets, kind="separated", tags=tags, model=result.model, notes=result.notes)


def gathered(folder: Path) -> Found:
    """The audio files of a folder as stems; what their names have in common at the beginning is left out.

    What the others were made of, such as `film.wav` beside `film.speech.wav`, is left out, because it is their mix.

    Raises:
        InputError: there are none, or too many
    """
    try:
        names = sorted(entry.name for entry in os.scandir(folder) if entry.is_file())
    except OSError as error:
        raise InputError(f"{folder}: cannot be read: {error.strerror}; check its permissions") from error
    paths = [folder / name for name in names if Path(name).suffix.lower() in AUDIO_SUFFIXES and name[0] != "."]
    whole = [path for path in paths if any(other.stem.startswith(f"{path.stem}.") for other in paths)]
    paths = [path for path in paths if path not in whole]
    if not paths:
        raise InputError(f"{folder}: no audio files in this folder; name a folder with the stems of a mix, or a file")
    if len(paths) > MAX_STEMS:
        raise InputError(
            f"{folder}: has {len(paths)} audio files, and a mixer takes {MAX_STEMS} stems; name a folder with fewer"
        )
    shown = _short([path.stem for path in paths])
    if len(set(shown)) < len(shown):
        shown = [path.name for path in paths]
    notes = tuple(
        f"{path.name} is left out: the others have its name and more, so they are its stems" for path in whole
    )
    return Found(paths=dict(zip(shown, paths, strict=True)), kind="from a folder", notes=notes)


def _short(names: Sequence[str]) -> list[str]:
    """Names without the words that all begin with: `film.speech` and `film.music` become `speech` and `music`."""
    if len(names) == 1:
        return list(names)
    ends = [found.end() for found in re.finditer(r"[-._ ]", names[0])]
    length = max((end for end in ends if all(name.startswith(names[0][:end]) for name in names)), default=0)
    return [name[length:] or name for name in names]


class Stem:
    """One stem in a file of its own, which can be read from anywhere."""

    def __init__(self, path: Path, sample_rate: int) -> None:
        self._file = soundfile.SoundFile(path)
        self.num_samples: int = self._file.frames
        self.channels: int = self._file.channels
        self.sample_rate = sample_rate

    def read(self, start: int, stop: int) -> Wav:
        """Samples `[C, T]` from `start` to `stop`; there is silence before the beginning and behind the end."""
        first, last = max(0, start), max(0, min(stop, self.num_samples))
        wav = np.zeros((self.channels, stop - start), dtype=np.float32)
        if first < last:
            self._file.seek(first)
            read = self._file.read(last - first, dtype="float32", always_2d=True)
            wav[:, first - start : last - start] = read.T * _ROOM
        return wav

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def page_rate(paths: Sequence[Path]) -> int:
    """The rate of a page: of the highest of some files, or one that MP3 has."""
    rates = []
    for path in paths:
        with AudioReader(path) as reader:
            rates.append(reader.info.sample_rate)
    return mp3_rate(max(rates))


def stored(path: Path, target: Path, sample_rate: int, gain_db: float) -> tuple[Stem, bool]:
    """A stem, copied to a file at the rate of a page; more than two channels are mixed down, which is said.

    Raises:
        InputError: the file is not audio, or damaged
    """
    factor = np.float32(db_to_amplitude(gain_db) / _ROOM)
    with AudioReader(path) as reader:
        info = reader.info
        many = info.channels > 2
        channels = 1 if many else info.channels
        resampler = StreamResampler(info.sample_rate, sample_rate, channels)
        # W64, because WAV ends at 4 GiB.
        with soundfile.SoundFile(target, "w", sample_rate, channels, "PCM_24", format="W64") as file:
            for block in reader.blocks():
                wav = downmix(block, info.channel_mask) if many else block
                file.write(resampler.push(wav * factor).T)
            file.write(resampler.flush().T)
    return Stem(target, sample_rate), many
