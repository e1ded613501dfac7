"""The formats that audio is written in, and how an encoder is told their bitrates.

Bitrates are in kbit/s, of all channels together.
"""

from __future__ import annotations

import functools
import io
import struct
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import soundfile

from ..errors import OutputError
from .coders import CODERS
from .output import is_special

FormatName = Literal["wav", "wav-24", "wav-float", "flac", "flac-24", "ogg", "opus", "mp3", "m4a", "m4a-alac"]
FORMAT_NAMES: tuple[FormatName, ...] = get_args(FormatName)

OPUS_BITRATES = (6.0, 256.0)
"""Of each channel, lowest and highest."""

_MP3_BITRATES = {
    32_000: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    16_000: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    0: (8, 16, 24, 32, 40, 48, 56, 64),
}
"""From these sample rates on; of ISO 11172-3 (layer III), ISO 13818-3, and MPEG 2.5."""


@dataclass(frozen=True)
class Format:
    """One format, in libsndfile's words, but for MPEG-4, and for people."""

    container: str
    subtype: str
    label: str
    sample_rates: tuple[int, ...] = ()
    """All that it takes, in Hz, rising; empty where it takes any."""
    has_bitrate: bool = False
    sample_bytes: int = 0
    """Of one sample, where nothing is compressed."""

    def rate_for(self, sample_rate: int) -> int:
        """The sample rate that audio is written at: its own, or the next higher one that the format takes."""
        if not self.sample_rates or sample_rate in self.sample_rates:
            return sample_rate
        return next((rate for rate in self.sample_rates if rate >= sample_rate), self.sample_rates[-1])

    def compression_level(self, bitrate: float, sample_rate: int, channels: int) -> float:
        """What libsndfile has to be told for a bitrate, from 0 to 1; FFmpeg takes bitrates as they are.

        Raises:
            ValueError: what it takes instead
        """
        if self.subtype == "OPUS":
            lowest, highest = OPUS_BITRATES
            if not lowest * channels <= bitrate <= highest * channels:
                raise ValueError(f"{lowest * channels:g} to {highest * channels:g} kbit/s")
            return (highest - bitrate / channels) / (highest - lowest)
        if self.subtype == "MPEG_LAYER_III":
            known = next(rates for above, rates in _MP3_BITRATES.items() if sample_rate >= above)
            if bitrate not in known:
                raise ValueError(f"{', '.join(map(str, known[:-1]))} or {known[-1]} kbit/s")
            # At 1 itself, which is the lowest bitrate, libsndfile 1.2.2 refuses.
            return min((known[-1] - bitrate) / (known[-1] - known[0]), 0.9999)
        return _vorbis_level(bitrate, sample_rate, channels)


_OPUS_RATES = (8_000, 12_000, 16_000, 24_000, 48_000)
_MP3_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)

_FORMATS: dict[FormatName, Format] = {
    "wav": Format("WAV", "PCM_16", "16 bit WAV", sample_bytes=2),
    "wav-24": Format("WAV", "PCM_24", "24 bit WAV", sample_bytes=3),
    "wav-float": Format("WAV", "FLOAT", "float WAV", sample_bytes=4),
    "flac": Format("FLAC", "PCM_16", "16 bit FLAC"),
    "flac-24": Format("FLAC", "PCM_24", "24 bit FLAC"),
    "ogg": Format("OGG", "VORBIS", "Ogg Vorbis", has_bitrate=True),
    "opus": Format("OGG", "OPUS", "Opus", _OPUS_RATES, has_bitrate=True),
    "mp3": Format("MP3", "MPEG_LAYER_III", "MP3", _MP3_RATES, has_bitrate=True),
    "m4a": Format("M4A", "AAC", "AAC", CODERS["aac"].rates, has_bitrate=True),
    "m4a-alac": Format("M4A", "ALAC", "ALAC"),
}

_SUFFIXES = [f".{name}" for name in FORMAT_NAMES if "-" not in name]
WITH_BITRATE = "ogg, opus, mp3 or m4a"
"""Those with a bitrate, for people."""


@dataclass(frozen=True, kw_only=True)
class WriteOptions:
    """How audio is written."""

    format: FormatName | None = None
    """By default what the suffix of each file says: 16 bits for `.wav` and `.flac`, AAC for `.m4a`."""
    bitrate: float | None = None
    """In kbit/s, of all channels together: exact for MP3, a mean for Opus and AAC, and for Ogg Vorbis what its encoder
    takes its quality for."""
    rescale: bool = False
    """Where something goes beyond full scale, make all outputs of an input softer alike, so that nothing is limited."""

    def __post_init__(self) -> None:
        if self.format is not None and self.format not in FORMAT_NAMES:
            raise ValueError(f"format must be one of {', '.join(FORMAT_NAMES)}, got {self.format!r}")
        if self.bitrate is not None and not self.bitrate > 0:
            raise ValueError(f"bitrate must be above 0, got {self.bitrate:g}")
        if self.format is not None and self.bitrate is not None and not _FORMATS[self.format].has_bitrate:
            raise ValueError(f"{_FORMATS[self.format].label} has no bitrate to choose; {WITH_BITRATE} have one")

    @property
    def suffix(self) -> str:
        """Of files whose names are not given."""
        return ".wav" if self.format is None else f".{self.format.partition('-')[0]}"


def audio_format(
    target: str | Path, write: WriteOptions | None = None, *, film_suffixes: Collection[str] = ()
) -> Format:
    """Format of an output: the one that is asked for, or that of its suffix; WAV for `-` and devices.

    An error about a suffix names those of films, too, where it is given them.

    Raises:
        OutputError: the suffix stands for no format that can be written, for another, or for one without a bitrate
            where one is asked for
    """
    write = write or WriteOptions()
    path = Path(target)
    suffix = path.suffix.lower()
    if str(target) == "-" or is_special(path):
        name: FormatName = write.format or "wav"
    elif write.format is not None:
        if suffix != write.suffix:
            raise OutputError(
                f"{target}: would hold {_FORMATS[write.format].label}; name it {path.with_suffix(write.suffix).name}"
            )
        name = write.format
    else:
        found = next((name for name in FORMAT_NAMES if suffix == f".{name}"), None)
        if found is None:
            known = ", ".join(_SUFFIXES)
            if film_suffixes:
                known += f", or, for a film, {', '.join(sorted(film_suffixes))}"
            raise OutputError(f"{target}: cannot write {suffix or 'a file without suffix'}; use one of {known}")
        name = found
    if write.bitrate is not None and not _FORMATS[name].has_bitrate:
        raise OutputError(f"{target}: {_FORMATS[name].label} has no bitrate to choose; {WITH_BITRATE} have one")
    return _FORMATS[name]


@functools.cache
def _vorbis_level(bitrate: float, sample_rate: int, channels: int) -> float:
    """The compression level at which the encoder states this bitrate in the head of a file, found by bisection.

    libsndfile has no way to ask libvorbis for a bitrate, but libvorbis says what it takes each quality for.
    """
    lowest, highest = (_vorbis_bitrate(level, sample_rate, channels) for level in (1.0, 0.0))
    if highest <= 0:
        raise ValueError("none, because its encoder does not say what comes out; leave it out")
    if not int(lowest) <= bitrate <= highest + 1:
        raise ValueError(f"{int(lowest)} to {round(highest)} kbit/s")
    below, above = 0.0, 1.0
    for _ in range(12):
        level = (below + above) / 2
        if _vorbis_bitrate(level, sample_rate, channels) > bitrate:
            below = level
        else:
            above = level
    return (below + above) / 2


def _vorbis_bitrate(level: float, sample_rate: int, channels: int) -> float:
    """What the encoder states; not above 0 if it knows none."""
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", sample_rate, channels, "VORBIS", format="OGG", compression_level=level) as it:
        it.write([[0.0] * channels])
    data = file.getvalue()
    # Vorbis I, 4.2.2: packet type and `vorbis`, version, channels, rate, then the highest and the nominal bitrate.
    (nominal,) = struct.unpack_from("<i", data, data.index(b"\x01vorbis") + 20)
    return float(nominal) / 1000
