"""How loud a file is, and whether its down-mix loses what is in it: what a first pass through it finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..audio import (
    SILENCE,
    AudioInfo,
    AudioReader,
    LoudnessMeter,
    Wav,
    db_to_power,
    downmix,
    layout_name,
    loudness_weights,
)
from ..progress import Progress, in_stage

CANCELLED_DB = 20.0
"""A down-mix so far below its channels has lost them: one of two alone is 3 dB below, the worst of 7.1 is 10."""


@dataclass(frozen=True)
class Level:
    """How loud audio is, measured in a first pass."""

    loudness: float
    """Of the audio that is encoded, down-mixed or not, in LUFS."""
    offset: Wav
    """Constant offset of each of its channels, `[C, 1]`: to be taken out, because training data has none."""
    problem: Literal["silent", "cancelled"] | None
    """`silent`: no sample is above −80 dBFS. `cancelled`: channels cancel each other in the down-mix."""


def measure_level(reader: AudioReader, *, mono: bool, progress: Progress | None = None) -> Level:
    """Go through a file for its level; `progress` hears of it if it knows stages."""
    progress = in_stage(progress, "measuring", main=False)
    info = reader.info
    weights = weights_of(info, mono=mono)
    meter = LoudnessMeter(info.sample_rate, weights)
    peak = given = mixed = 0.0
    first, total, count = None, np.zeros((len(weights), 1)), 0
    for block in reader.blocks():
        # Most of an offset goes before anything is measured: a filter would take it for a sound that begins.
        first = block.mean(axis=1, keepdims=True, dtype=np.float64).astype(np.float32) if first is None else first
        level = block - first
        wav = downmix(level, info.channel_mask) if mono else level
        meter.push(wav)
        peak = max(peak, float(np.abs(level).max()))
        given += float(np.square(level, dtype=np.float64).sum()) / len(level)
        mixed += float(np.square(wav, dtype=np.float64).sum()) / len(wav)
        total += wav.sum(axis=1, keepdims=True, dtype=np.float64)
        count += wav.shape[1]
        if progress:
            progress(count / info.sample_rate, info.seconds)
    assert first is not None  # a reader without blocks has raised an error
    lost = mixed < given * db_to_power(-CANCELLED_DB)
    return Level(
        meter.integrated(),
        (downmix(first, info.channel_mask) if mono else first) + (total / count).astype(np.float32),
        "silent" if peak < SILENCE else "cancelled" if lost else None,
    )


def weights_of(info: AudioInfo, *, mono: bool) -> Sequence[float]:
    """What the channels that are coded count for in their loudness."""
    return [1.0] if mono else loudness_weights(info.channel_mask, info.channels)


def cancelled(info: AudioInfo) -> str:
    """A note about channels that cancel each other in the down-mix."""
    lfe = info.channel_mask is not None and not layout_name(info.channel_mask).endswith(".0")
    or_lfe = ", or only the LFE is heard" if lfe else ""
    return f"hardly anything is left in the down-mix, because its channels cancel each other{or_lfe}"
