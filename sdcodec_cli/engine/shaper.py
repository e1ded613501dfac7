"""What a decoder does to audio with the gains that come beside its codes: levels in bands, and what lies above them.

Legend: S stems, T samples, F frames, B bands.
"""

from __future__ import annotations

import numpy as np

from ..audio import Wav
from ..bitstream.codings import ENVELOPE_GAINS, TREBLE_GAINS
from .envelope import AnyGains, Bands, Gains, sine_window, spectra_of
from .treble import FACTOR, Treble

CONTEXT_FRAMES = 2
"""Frames on each side whose decoded audio has a part in that of a frame, through overlapping windows."""


class StreamShaper:
    """Changes levels of bands, and adds those above, as audio arrives; what comes out is a frame and a half late.

    Args:
        hop_length: samples per frame
        num_stems: S
        envelope: bands whose levels change, if any do
        share: of their gains, from 0 to 1
        treble: what is added above, if it is; audio comes out at twice the rate then
        below: whether what treble is added to comes out with it
    """

    def __init__(
        self,
        hop_length: int,
        num_stems: int,
        *,
        envelope: Bands | None,
        share: float,
        treble: Treble | None,
        below: bool = True,
    ) -> None:
        hop = self._hop = hop_length
        self._envelope, self._treble, self._below = envelope, treble, below
        self._decibels = share * envelope.layout.step_db if envelope else 0.0
        self._factor = FACTOR if treble else 1
        self._window, self._output_window = sine_window(2 * hop), sine_window(2 * hop * self._factor)
        # A frame before the first one and a frame behind the last one complete the overlap.
        self._skip = (hop + hop // 2) * self._factor
        self._wavs = np.zeros((num_stems, hop + hop // 2), dtype=np.float32)
        self._tail = np.zeros((num_stems, hop * self._factor), dtype=np.float32)
        self._gains: list[AnyGains] = [
            np.zeros((each.layout.num_bands if each else 0, 0), dtype=np.int64) for each in (envelope, treble)
        ]
        self._begun = False
        self._missing = 0  # samples that are to come out

    def push_gains(self, num_frames: int, gains: Gains | None, treble: AnyGains | None) -> None:
        """Take gains of frames in, before the audio of these frames.

        Args:
            num_frames: F
            gains: of the envelope, in steps, `[B, F]`; None if there is none here
            treble: likewise, of what is above; None if nothing is
        """
        absent = (ENVELOPE_GAINS.absent, TREBLE_GAINS.absent)
        for index, (given, value) in enumerate(zip((gains, treble), absent, strict=True)):
            before = self._gains[index]
            new = np.full((len(before), num_frames), value) if given is None else given[: len(before)]
            self._gains[index] = np.concatenate([before if self._begun else new[:, :1], new], axis=-1)
        self._begun = True

    def push(self, wavs: Wav) -> Wav:
        """Audio `[S, F * hop]` to as much `[S, T]` as is complete."""
        self._missing += wavs.shape[-1] * self._factor
        self._wavs = np.concatenate([self._wavs, wavs], axis=-1)
        return self._pull()

    def finish(self) -> Wav:
        """The rest."""
        if not self._begun:
            return self._wavs[:, :0]
        self._wavs = np.pad(self._wavs, ((0, 0), (0, 2 * self._hop - self._hop // 2)))
        self._gains = [np.concatenate([gains, gains[:, -1:]], axis=-1) for gains in self._gains]
        return self._pull()[:, : self._missing]

    def _pull(self) -> Wav:
        hop, width = self._hop, self._hop * self._factor
        count = self._wavs.shape[-1] // hop - 1
        gains, treble = (each[:, :count] for each in self._gains)
        spectra = spectra_of(self._wavs[:, : (count + 1) * hop], self._window)
        shaped = spectra * self._envelope.factors(self._decibels * gains) if self._envelope else spectra
        # Gains of what is above are relative to what was decoded, whatever share of the envelope is applied.
        shaped = shaped if self._below else np.zeros_like(shaped)
        shaped = self._treble.added(shaped, spectra, treble) if self._treble else shaped
        frames = np.asarray(np.fft.irfft(shaped, n=2 * width) * self._output_window, dtype=np.float32)
        first = np.concatenate([self._tail[:, None], frames[:, :-1, width:]], axis=1)
        out = (frames[..., :width] + first).reshape(len(frames), -1)
        self._tail = frames[:, -1, width:].copy()
        self._wavs, self._gains = self._wavs[:, count * hop :].copy(), [each[:, count:] for each in self._gains]
        begin = min(self._skip, out.shape[-1])
        self._skip -= begin
        self._missing -= out.shape[-1] - begin
        complete: Wav = out[:, begin:]
        return complete
