"""Treble of codes that were put together, so that neither of their sources has that of the whole.

Legend: C channels, T samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from ..audio import RatesResampler, Wav, db_to_amplitude
from ..bitstream import Header
from ..runtime import CodecModel
from .codec import Codec
from .coded import Part
from .stream import CodedSegment
from .stream_encoder import Levels
from .treble import FACTOR


def with_treble(parts: Iterator[Part], wavs: Iterator[Wav], codec: Codec, header: Header) -> Iterator[Part]:
    """Codes with the treble that they need to sound as audio does; their envelopes stay.

    Args:
        parts: codes
        wavs: audio `[C, T]` as it should sound, at the header's original rate
        codec: decodes the codes
        header: says whether there is to be treble
    """
    if header.treble is None:
        yield from parts
        return
    model, hop = codec.model, codec.hop_length
    assert isinstance(model, CodecModel)
    levels = [Levels(model, envelope=False, fine=False, treble=True, unit=1) for _ in range(header.coded_channels)]
    audio = _Audio(wavs, codec.sample_rate, header)
    waiting: list[Part] = []

    def complete(found: list[list[CodedSegment]]) -> Iterator[Part]:
        for segments in zip(*found, strict=True):
            above = {channel: each.treble for channel, each in enumerate(segments) if each.treble is not None}
            yield replace(waiting.pop(0), treble=above)

    for part in parts:
        waiting.append(part)
        wav, wide = audio.take(part.num_frames * hop)
        found = []
        for channel, each in enumerate(levels):
            each.push_wide(wide[channel])
            codes = {name: codes for (owner, name), codes in part.codes.items() if owner == channel}
            known = {name: given for name, given in codes.items() if given is not None}
            active = {name: given is not None for name, given in codes.items()}
            found.append(each.push(wav[channel], [CodedSegment(part.num_frames, known, active)]))
        yield from complete(found)
    yield from complete([each.finish() for each in levels])


class _Audio:
    """Audio at the rates of a model and at its level, as much of it as is asked for; silence behind its end."""

    def __init__(self, wavs: Iterator[Wav], rate: int, header: Header) -> None:
        rates = (rate, FACTOR * rate)
        self._wavs, self._resampler = wavs, RatesResampler(header.original_rate, rates, header.coded_channels)
        self._gain = np.float32(db_to_amplitude(header.gain_db))
        nothing = np.zeros((header.coded_channels, 0), dtype=np.float32)
        self._held = [nothing for _ in rates]
        self._ended = False

    def take(self, length: int) -> tuple[Wav, Wav]:
        """The next samples at the model's rate, `[C, length]`, and all that there is at twice that rate."""
        while self._held[0].shape[-1] < length and not self._ended:
            wav = next(self._wavs, None)
            self._ended = wav is None
            found = self._resampler.flush() if wav is None else self._resampler.push(wav * self._gain)
            self._held = [np.concatenate(both, axis=-1) for both in zip(self._held, found, strict=True)]
        first, wide = self._held
        missing = max(0, length - first.shape[-1])
        self._held = [first[:, length:], wide[:, wide.shape[-1] :]]
        return np.pad(first[:, :length], ((0, 0), (0, missing))), wide
