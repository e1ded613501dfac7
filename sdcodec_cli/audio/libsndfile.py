"""Audio that libsndfile decodes: WAV and its relatives, FLAC, Ogg Vorbis, Opus, AIFF, AU, CAF.

C channels, T samples.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile

from ..errors import InputError
from .channels import checked_mask, default_mask, from_vorbis_order
from .source import AudioInfo, Source
from .structure import size_is_unknown
from .wav import Wav

UNKNOWN_FRAMES = 2**63 - 1
"""Length that libsndfile gives a stream which does not say how long it is, its SF_COUNT_MAX."""

_UNRECOGNISED = 1  # libsndfile's error code: not a container that it knows


class NotForLibsndfile(Exception):
    """The file is not for libsndfile; FFmpeg may read it."""

    def __init__(self, *, recognised: bool) -> None:
        self.recognised = recognised
        """Whether libsndfile knows the container, so that it is the coding in it that it cannot read."""


class LibsndfileDecoder:
    """A file that libsndfile reads.

    Raises:
        NotForLibsndfile: it does not, or not rightly
        InputError: the file is damaged, cut short, or without samples
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        size = source.path.stat().st_size
        with source.path.open("rb") as file:
            magic = file.read(19)
            # Joined MP3 streams are read only up to the end that the first one states, and warnings about MP3 go past
            # us to standard error. Of VOC, block headers come out as samples.
            if magic[:3] == b"ID3" or _is_mpeg_sync(magic) or magic == b"Creative Voice File":
                raise NotForLibsndfile(recognised=False)
            if magic[:4] == b"OggS":
                self._check_ogg(file)
            flac_mask = _flac_mask(file) if magic[:4] == b"fLaC" else None
        try:
            with self._opened() as sound:
                tags = {name: text for name, text in sound.copy_metadata().items() if name != "software"}
                self._check_cut(sound)
                rate, channels = sound.samplerate, sound.channels
                format, subtype = sound.format, sound.subtype
                num_samples = _known_length(sound)
                mask = _mask(sound, flac_mask)
        except TypeError as error:  # soundfile, on a headerless .raw
            raise NotForLibsndfile(recognised=False) from error
        except soundfile.LibsndfileError as error:
            raise NotForLibsndfile(recognised=error.code != _UNRECOGNISED) from error
        if subtype.startswith("MPEG"):
            raise NotForLibsndfile(recognised=False)
        if num_samples == 0 and format == "WAV" and size > 1000:
            raise InputError(
                f"{source.name}: its header says 0 samples, as a recorder that was cut off leaves it; "
                f"repair it first: {source.ffmpeg('.repaired.wav', '-ignore_length 1 ')}"
            )
        if num_samples == 0:
            raise InputError(f"{source.name}: contains no samples; nothing to do")
        self._order = from_vorbis_order(channels) if subtype in ("VORBIS", "OPUS") else list(range(channels))
        self.info = AudioInfo(source.name, rate, channels, num_samples, format, subtype, tags, mask)

    @property
    def notes(self) -> tuple[str, ...]:
        """See `Decoder`."""
        return ()

    def blocks(self, length: int, first: int) -> Iterator[tuple[int, Wav]]:
        """See `Decoder`."""
        position, rate = 0, self.info.sample_rate
        try:
            with self._opened() as sound:
                promised = _known_length(sound)
                if first and self.info.subtype.startswith("PCM"):
                    # Exact in WAV, AIFF, FLAC; lossy decoders start differently after a seek: they are read through.
                    position = sound.seek(min(first, promised or first))
                while len(block := sound.read(length, dtype="float32", always_2d=True)):
                    yield position, np.ascontiguousarray(block.T[self._order])
                    position += len(block)
        except soundfile.LibsndfileError as error:
            raise self._source.damaged(_within(position, length, rate)) from error
        if promised is not None and position < promised:
            raise self._source.damaged(f"after {position / rate:.3f} s")

    @contextlib.contextmanager
    def _opened(self) -> Iterator[SequentialFile]:
        with SequentialFile(_named(self._source.path)) as sound:
            yield sound

    def _check_cut(self, sound: soundfile.SoundFile) -> None:
        """Compare the length in the header of an uncompressed file with the bytes that are there.

        libsndfile notices the difference, writes it to its log and goes on. Writers that cannot seek back leave
        0xFFFFFFFF (ffmpeg) or about 2^31 (sox, arecord) in the header: that means unknown, not cut.
        """
        chunk = {"WAV": "data", "WAVEX": "data", "AIFF": "SSND", "AU": "Data Size", "W64": "riff", "RF64": "Riff size"}
        label = chunk.get(sound.format)
        found = label and re.search(rf"^\s*{label}\s*: (\d+) \(should be (\d+)\)", sound.extra_info, re.MULTILINE)
        if found:
            promised, there = int(found[1]), int(found[2])
            if promised > there + 1 and not size_is_unknown(promised):
                raise self._source.damaged(f"after {sound.frames / sound.samplerate:.3f} s")

    def _check_ogg(self, file: BinaryIO) -> None:
        """Walk over the pages: the last stream must have ended, and libsndfile decodes only the first of a chain."""
        file.seek(0)
        ended, begun = False, 0
        while len(header := file.read(27)) == 27 and header[:4] == b"OggS":
            begins, ends = header[5] & 2, header[5] & 4
            if begins and ended:
                raise InputError(
                    f"{self._source.name}: several Ogg streams in a row, of which only the first can be read; "
                    f"join them first, e.g. {self._source.ffmpeg('.joined.wav')}"
                )
            begun += bool(begins)
            ended = ended or bool(ends)
            file.seek(sum(file.read(header[26])), os.SEEK_CUR)
        if not ended:
            raise self._source.damaged()
        if begun > 1:  # a film, or several tracks
            raise NotForLibsndfile(recognised=False)


class SequentialFile(soundfile.SoundFile):  # type: ignore[misc]
    """A SoundFile that is read from front to back, and takes all there is, whatever length the header claims.

    soundfile otherwise seeks after every read to where that has ended, which fails on a FLAC file that was written to a
    pipe, and takes some decoders long.
    """

    def seekable(self) -> bool:
        return False


def _named(path: Path) -> str | bytes:
    """A file's name for soundfile, which takes text for UTF-8; on POSIX names are any bytes."""
    return os.fsencode(path) if os.name == "posix" else str(path)


def _known_length(sound: soundfile.SoundFile) -> int | None:
    return None if sound.frames == UNKNOWN_FRAMES else int(sound.frames)


def _within(position: int, length: int, rate: int) -> str:
    """Where in the file a block lies that damage was met in, for people."""
    end = (position + length) / rate
    return f"between {position / rate:g} s and {end:g} s" if position else f"in the first {end:g} s"


def _is_mpeg_sync(head: bytes) -> bool:
    """Whether bytes begin as MPEG audio or AAC does."""
    return len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0


def _mask(sound: soundfile.SoundFile, flac_mask: int | None) -> int | None:
    """What the channels are for. libsndfile tells only in its log, and of FLAC not at all."""
    channels = int(sound.channels)
    if channels <= 2 or sound.subtype in ("VORBIS", "OPUS"):
        return default_mask(channels)
    if sound.format == "FLAC":
        return default_mask(channels) if flac_mask is None else checked_mask(flac_mask, channels)
    stated = re.search(r"^\s*Channel Mask\s*: 0x([0-9A-F]+)", sound.extra_info, re.MULTILINE)
    if stated:
        return checked_mask(int(stated[1], 16), channels)
    # CAF: the tag of MPEG 5.1 A and the like, whose channels are in WAV's order.
    tag = re.search(r"^chan : \d+\s+Tag\s*: ([0-9A-Fa-f]+)", sound.extra_info, re.MULTILINE)
    return checked_mask(_CAF_LAYOUTS.get(int(tag[1], 16), 0), channels) if tag else None


_CAF_LAYOUTS = {
    0x6C0004: 0x33,  # quadraphonic
    0x710003: 0x07,  # MPEG 3.0 A
    0x730004: 0x107,  # MPEG 4.0 A
    0x750005: 0x37,  # MPEG 5.0 A
    0x790006: 0x3F,  # MPEG 5.1 A
}
"""Layout tags of Apple's Core Audio (CoreAudioTypes) whose channels come in WAV's order."""


def _flac_mask(file: BinaryIO) -> int | None:
    """The layout in a FLAC file's Vorbis comment, if it states one (RFC 9639, 8.6.2)."""
    file.seek(4)
    last = False
    while not last and len(head := file.read(4)) == 4:
        last, kind, size = bool(head[0] & 0x80), head[0] & 0x7F, int.from_bytes(head[1:], "big")
        if kind == 4:
            found = re.search(rb"WAVEFORMATEXTENSIBLE_CHANNEL_MASK=0x([0-9a-f]{1,8})", file.read(size), re.IGNORECASE)
            return int(found[1], 16) if found else None
        file.seek(size, os.SEEK_CUR)
    return None
