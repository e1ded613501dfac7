"""Codes of signals, and the gains of bands that come with them.

Legend: B signals, T samples, F frames, K codebooks, n columns of gains.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..bitstream import GainLayout
from ..bitstream.codings import ENVELOPE_GAINS, TREBLE_GAINS, GainKind
from .envelope import Gains
from .stream import SEGMENT_FRAMES, CodedSegment


@dataclass(frozen=True)
class BandGains:
    """What decoded audio lacks in bands; see `engine.envelope` and `engine.treble`."""

    layout: GainLayout
    gains: Gains
    """Of signals, bands, and times that begin anew with every segment of 100 frames, in steps: `[B, bands, n]`."""

    def of_segment(self, signal: int, start_frame: int) -> Gains:
        """Those of one segment of one signal, `[bands, n]`."""
        columns = self.layout.num_columns(SEGMENT_FRAMES)
        first = start_frame // SEGMENT_FRAMES * columns
        return self.gains[signal, :, first : first + columns]

    def of_frames(self, signal: int, num_frames: int) -> Gains:
        """Those of each frame of one signal, `[bands, F]`."""
        segments = [
            self.layout.per_frame(self.of_segment(signal, start), min(SEGMENT_FRAMES, num_frames - start))
            for start in range(0, num_frames, SEGMENT_FRAMES)
        ]
        return np.concatenate(segments, axis=-1)


@dataclass(frozen=True)
class Codes:
    """Codes of a signal, or of a batch of B signals of one length."""

    codes: dict[str, NDArray[np.int64]]
    """Codes of each domain, `[B, K, F]`."""
    active: dict[str, NDArray[np.bool_]]
    """In which frames each domain is active, `[B, F]`, the same within a segment of 100 frames. Codes of other frames
    exist, but add nothing to the mix and are not stored."""
    gain_db: NDArray[np.float64]
    """Gain that was applied before encoding and is undone by decoding, in dB, `[B]`."""
    num_samples: int
    """T of the signal at the model's rate."""
    leading: tuple[int, ...]
    """Shape of the signal without its last axis; the product is B."""
    envelope: BandGains | None = None
    """Of the mix of all domains."""
    treble: BandGains | None = None
    """Of the octave above the model's band, if that was given."""


def codes_of(
    signals: Sequence[Sequence[CodedSegment]],
    *,
    gain_db: Sequence[float],
    num_samples: int,
    leading: tuple[int, ...],
    envelope: GainLayout | None,
    treble: GainLayout | None,
) -> Codes:
    """Codes of signals of one length, from all segments of each; see `Codes`."""
    lengths = [segment.num_frames for segment in signals[0]]

    def joined(layout: GainLayout, kind: GainKind, rows: Sequence[Sequence[Gains | None]]) -> BandGains:
        nothing = [np.full((layout.num_bands, layout.num_columns(length)), kind.absent) for length in lengths]
        whole = [
            np.concatenate(
                [none if gains is None else gains for gains, none in zip(row, nothing, strict=True)], axis=-1
            )
            for row in rows
        ]
        return BandGains(layout, np.stack(whole))

    envelopes = [[segment.gains for segment in segments] for segments in signals]
    trebles = [[segment.treble for segment in segments] for segments in signals]
    names = signals[0][0].codes
    return Codes(
        codes={
            name: np.stack([np.concatenate([each.codes[name] for each in segments], axis=-1) for segments in signals])
            for name in names
        },
        active={
            name: np.stack([np.repeat([each.active[name] for each in segments], lengths) for segments in signals])
            for name in names
        },
        gain_db=np.array(gain_db),
        num_samples=num_samples,
        leading=leading,
        envelope=None if envelope is None else joined(envelope, ENVELOPE_GAINS, envelopes),
        treble=None if treble is None else joined(treble, TREBLE_GAINS, trebles),
    )
