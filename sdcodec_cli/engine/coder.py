"""Encoding of all channels of a file, from blocks at its own rate and level.

Legend: C channels, T samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ..audio import RatesResampler, Wav, db_to_amplitude
from ..progress import Progress
from .cascade import Encoder
from .stereo import StereoEncoder
from .stream import CodedSegment


class Coder:
    """Resamples blocks of all channels, applies the gain, encodes them, and counts samples and frames.

    Args:
        encoders: of the channels
        rate: of the blocks, in Hz
        gain_db: to apply
    """

    def __init__(self, encoders: Sequence[Encoder | StereoEncoder], rate: int, gain_db: float) -> None:
        self.num_samples = 0
        """Per channel, at the original rate."""
        self.num_frames = 0
        self.rate = rate
        self._encoders = encoders
        self._gain = np.float32(db_to_amplitude(gain_db))
        num_channels = 2 if isinstance(encoders[0], StereoEncoder) else len(encoders)
        self._resampler = RatesResampler(rate, encoders[0].rates, num_channels)

    def run(
        self, blocks: Iterator[Wav], progress: Progress | None, total: float | None
    ) -> Iterator[tuple[CodedSegment, ...]]:
        """The segments in their order, each of every channel at once."""
        for block in blocks:
            self.num_samples += block.shape[-1]
            yield from self._push(self._resampler.push(block), last=False)
            if progress:
                progress(self.num_samples / self.rate, total)
        yield from self._push(self._resampler.flush(), last=True)

    def _push(self, wavs: Sequence[Wav], *, last: bool) -> Iterator[tuple[CodedSegment, ...]]:
        channels = []
        for index, encoder in enumerate(self._encoders):
            own = (wav if isinstance(encoder, StereoEncoder) else wav[index] for wav in wavs)
            segments = encoder.push(*(wav * self._gain for wav in own))
            channels.append([*segments, *encoder.finish()] if last else segments)
        for together in zip(*channels, strict=True):
            self.num_frames += together[0].num_frames
            yield together
