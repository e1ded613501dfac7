"""Tables of recipes that separators have in common: how they go through audio, weights of losses."""

from __future__ import annotations

from dataclasses import dataclass

from .checks import require, require_not_negative, require_positive
from .fields import ModelFields, TrainingFields


@dataclass(frozen=True, kw_only=True)
class SeparatorModelFields(ModelFields):
    """What a separator takes and gives."""

    block_seconds: float = 8.0
    """Audio that the network sees at once."""
    overlap_seconds: float = 1.0
    """Audio over which one block fades into the next."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive("model.block_seconds", self.block_seconds)
        require_positive("model.overlap_seconds", self.overlap_seconds)
        require(
            2 * self.overlap_seconds <= self.block_seconds,
            f"model.overlap_seconds must be at most half of model.block_seconds, got {self.overlap_seconds}",
        )


@dataclass(frozen=True, kw_only=True)
class SeparatorTrainingFields(TrainingFields):
    """Optimizer, schedule, and the weights of a separator's losses."""

    snr_weight: float = 1.0
    """Weight of the negative signal-to-noise ratio in dB."""
    leakage_weight: float = 1.0
    """Weight of the level in dB of what comes out for a domain that is not there, relative to the mixture."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("snr_weight", "leakage_weight"):
            require_not_negative(f"training.{name}", getattr(self, name))
