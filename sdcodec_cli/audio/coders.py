"""Sound as FFmpeg's encoders take it, through PyAV: their rates, bitrates and layouts, and frames for them.

C channels, T samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .channels import default_mask, means_default, roles_of

if TYPE_CHECKING:
    from av import AudioFrame

AAC_RATES = (7350, 8000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 64_000, 88_200, 96_000)
"""In Hz."""

MAX_CHANNELS = 8

_AAC_BITS = 6
"""Of each sample at most: a frame of 1024 has no more than 6144 for each channel (ISO 14496-3, 4.5.3)."""


@dataclass(frozen=True)
class Coder:
    """How sound is coded."""

    encoder: str
    """FFmpeg's name."""
    format: str
    """Of the samples it is given, FFmpeg's name."""
    rates: tuple[int, ...] = ()
    """In Hz, that it takes; all if there are none."""
    bitrate: int = 0
    """In kbit/s for each channel, where nothing else is asked for; 0 if it is lossless."""
    bitrates: tuple[int, int] = (0, 0)
    """The least and the most, likewise."""

    def rate_for(self, sample_rate: int) -> int:
        """The sample rate that sound is coded at: its own, else the next higher one, else the highest."""
        rates = self.rates or (sample_rate,)
        return min((rate for rate in rates if rate >= sample_rate), default=max(rates))

    def bitrate_for(self, wanted: float | None, sample_rate: int, channels: int) -> int:
        """Bits per second for so many kbit/s, of all channels together, or for what is usual.

        Raises:
            ValueError: what it takes instead
        """
        least, most = self.bitrates
        if self.encoder == "aac":
            most = min(most, _AAC_BITS * sample_rate // 1000)
        if wanted is None:
            return min(self.bitrate, most) * channels * 1000
        if not least * channels <= wanted <= most * channels:
            raise ValueError(f"{least * channels} to {most * channels} kbit/s")
        return round(wanted * 1000)

    def frame(self, values: NDArray[Any], sample_rate: int, layout: str, position: int) -> AudioFrame:
        """Samples `[T, C]`, floats or of 16 bits as `format` says, as a frame that begins at sample `position`."""
        import av

        # One plane, because PyAV may read past the end of its list of planes; it makes frames of it itself.
        packed: Any = np.ascontiguousarray(values).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(packed, format=self.format, layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = sample_rate, position, Fraction(1, sample_rate)
        return frame


CODERS = {
    "aac": Coder("aac", "flt", AAC_RATES, 96, (8, 256)),
    "opus": Coder("libopus", "flt", (8000, 12_000, 16_000, 24_000, 48_000), 80, (6, 256)),
    "flac": Coder("flac", "s16"),
    "alac": Coder("alac", "s16"),
}


def layout_of(channels: int, mask: int | None) -> str | None:
    """FFmpeg's name of a usual layout, of which a pair of surrounds may be back or side; None for others."""
    usual = default_mask(channels)
    if usual is None or (mask is not None and not means_default(mask)):
        return None
    # AAC and Opus have one order of six, in which surrounds are behind.
    return "+".join(roles_of(usual))
