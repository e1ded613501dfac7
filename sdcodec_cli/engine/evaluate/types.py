"""What the parts of an evaluation hand to one another.

Legend: T samples.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Wav = NDArray[np.float32]
"""Mono, `[T]`."""

Protocol = Literal["paper", "published-code"]
"""How tracks are cut and scored: as the paper says, or as its code does."""

Task = Literal["resynthesis", "separation", "masked separation", "cross", "whole"]
"""`resynthesis`: a signal through its own quantizer. `separation`: a stem of the mixture, straight from the decoder.
`masked separation`: by ratio masks on the mixture, as `separate` makes them. `cross`: a stem through the quantizer of
another domain. `whole`: audio of a single domain through compress and decode, activity detection included."""


@dataclass(frozen=True)
class Clip:
    """A stretch of a track that is scored."""

    name: str
    """Such as `0042-10.0`: track and start in seconds."""
    mix: Wav
    stems: dict[str, Wav]


@dataclass(frozen=True)
class Measurement:
    """One estimate of one clip, measured."""

    clip: str
    task: Task
    system: str
    """A model's name, `mixture` (unprocessed), or a peer such as `opus 18`."""
    stem: str
    """A domain, or `mix`; what was to be heard."""
    through: str | None = None
    """cross: the domain whose quantizer was used."""
    values: dict[str, float] = field(default_factory=dict)
    """Metric to value: `si_sdr` and `si_sdri` in dB, `visqol_speech` (16 kHz, exponential), `visqol_audio` (48 kHz),
    `mel`, `stft`."""
    reasons: dict[str, str] = field(default_factory=dict)
    """Metrics that have no value here, and why, such as `silent_reference`."""
    bitrate: float | None = None
    """What was really written, in kbit/s."""


@dataclass(frozen=True)
class Example:
    """One clip to listen to: the same stem from several systems."""

    clip: str
    task: Task
    stem: str
    sample_rate: int
    reference: Wav
    mixture: Wav
    estimates: dict[str, Wav]
    """By system."""
