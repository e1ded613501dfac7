"""Stems that reach as far up as the audio, by a model that hears less: they add up to it, whatever its rate.

Up to half of its own rate a model says what belongs to which stem. What lies above goes to the stems in proportion to
the magnitude that they have in the top of the model's band, channel by channel and moment by moment: as ratio masks
share out a bin below, so that levels go on across the edge. In proportion to energies they do not.

Legend: N stems, C channels, T samples, F frames.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..audio import StreamResampler, Wav

FRAME_SECONDS = 0.032
"""Length of the Hann window in which magnitudes are taken; frames follow each other in half of it."""

TOP = 2**-0.5
"""Share of the band from which on it is its top: the upper half of its last octave, which was better than all of it."""

FLOOR = 1e-8
"""Of its whole energy that counts as being in the top of a stem's band: what decides where there is nothing else."""

SILENCE = 1e-14
"""Mean square below which all stems count as silent, and get equal shares."""


class StemSeparator(Protocol):
    """What separates audio at a model's rate as it arrives, into stems that add up to it."""

    def push(self, wav: Wav) -> Iterator[Wav]:
        """Take `[C, T]` in, give out `[N, C, T']` that is complete."""
        ...

    def finish(self) -> Iterator[Wav]:
        """Give out the rest."""
        ...


class WholeBandSeparator:
    """Separates audio at any rate, in constant memory.

    Args:
        separator: what separates at the model's rate
        rate: of the audio, in Hz
        model_rate: of the model, in Hz
        num_stems: N
        channels: C
    """

    def __init__(self, separator: StemSeparator, *, rate: int, model_rate: int, num_stems: int, channels: int) -> None:
        self._separator, self._ratio = separator, model_rate / rate
        self._to_model = StreamResampler(rate, model_rate, channels)
        self._to_audio = StreamResampler(model_rate, rate, num_stems * channels)
        self._shares = _Shares(num_stems, channels, model_rate, TOP * min(rate, model_rate) / 2)
        self._audio = np.zeros((channels, 0), dtype=np.float32)
        self._stems = np.zeros((num_stems, channels, 0), dtype=np.float32)  # up to half of the lower rate
        self._done = 0  # samples that were given out

    def push(self, wav: Wav) -> Iterator[Wav]:
        """Take `[C, T]` in, give out `[N, C, T']` that is complete."""
        self._audio = np.concatenate([self._audio, wav], axis=-1)
        for stems in self._separator.push(self._to_model.push(wav)):
            self._take(stems)
            yield self._ready()

    def finish(self) -> Iterator[Wav]:
        """Give out the rest, in all as much as came in."""
        for stems in [*self._separator.push(self._to_model.flush()), *self._separator.finish()]:
            self._take(stems)
            yield self._ready()
        self._shares.finish()
        self._lift(self._to_audio.flush())
        # Two roundings of a resampled length can leave it a sample short, or long.
        length = self._audio.shape[-1]
        missing = max(0, length - self._stems.shape[-1])
        self._stems = np.pad(self._stems, ((0, 0), (0, 0), (0, missing)))[..., :length]
        yield self._ready()

    def _take(self, stems: Wav) -> None:
        self._shares.push(stems)
        self._lift(self._to_audio.push(stems.reshape(-1, stems.shape[-1])))

    def _lift(self, wavs: Wav) -> None:
        self._stems = np.concatenate([self._stems, wavs.reshape(*self._stems.shape[:2], -1)], axis=-1)

    def _ready(self) -> Wav:
        """What is complete of stems, shares and audio, at most as much as there is of each."""
        length = min(self._stems.shape[-1], self._audio.shape[-1])
        times = np.arange(self._done, self._done + length, dtype=np.float64) * self._ratio
        times = times[: np.searchsorted(times, self._shares.end)]
        length = len(times)
        stems, audio = self._stems[..., :length], self._audio[:, :length]
        whole = stems + self._shares.at(times) * (audio - stems.sum(0))
        self._stems, self._audio = self._stems[..., length:], self._audio[:, length:]
        self._done += length
        return np.asarray(whole, dtype=np.float32)


class _Shares:
    """What each stem gets of what lies above, by its magnitude from `edge` Hz on."""

    def __init__(self, num_stems: int, channels: int, rate: int, edge: float) -> None:
        self._length = 2 * round(FRAME_SECONDS * rate / 2)
        self._hop = self._length // 2
        phase = 2 * np.pi * np.arange(self._length) / self._length
        self._window = (0.5 - 0.5 * np.cos(phase)).astype(np.float32)
        self._first_bin = round(edge / rate * self._length)
        # Half a window of silence before the beginning: the first frame is centred on it.
        self._wav = np.zeros((num_stems, channels, self._hop), dtype=np.float32)
        self._shares = np.zeros((num_stems, channels, 0), dtype=np.float32)
        self._first = 0  # frame that `_shares` begins with

    @property
    def end(self) -> float:
        """Up to which sample of the stems shares are known."""
        return (self._first + self._shares.shape[-1] - 1) * self._hop

    def push(self, stems: Wav) -> None:
        """Take `[N, C, T]`."""
        self._wav = np.concatenate([self._wav, stems], axis=-1)
        count = self._wav.shape[-1] // self._hop - 1
        if count > 0:
            windows = np.lib.stride_tricks.sliding_window_view(self._wav, self._length, axis=-1)
            found = self._of(windows[..., : count * self._hop : self._hop, :])
            self._shares = np.concatenate([self._shares, found], axis=-1)
            self._wav = self._wav[..., count * self._hop :].copy()

    def finish(self) -> None:
        """Let the last share last."""
        self.push(np.zeros((*self._wav.shape[:2], 2 * self._length), dtype=np.float32))

    def at(self, times: NDArray[np.float64]) -> NDArray[np.float32]:
        """Shares at rising times, in samples of the stems, between those of frames; frames before are forgotten."""
        frames = times / self._hop - self._first
        before = frames.astype(np.int64)
        after = np.minimum(before + 1, self._shares.shape[-1] - 1)
        past = (frames - before).astype(np.float32)
        found: NDArray[np.float32] = self._shares[..., before] * (1 - past) + self._shares[..., after] * past
        if len(before):
            self._first += int(before[-1])
            self._shares = self._shares[..., int(before[-1]) :].copy()
        return found

    def _of(self, frames: Wav) -> NDArray[np.float32]:
        """`[N, C, F, length]` to shares `[N, C, F]`, whose sum over stems is one."""
        powers = np.square(np.abs(np.fft.rfft(frames * self._window)))
        energies = powers[..., self._first_bin :].sum(-1) + FLOOR * powers.sum(-1)
        magnitudes = np.sqrt(energies + SILENCE * self._length**2)
        shares: NDArray[np.float32] = (magnitudes / magnitudes.sum(0)).astype(np.float32)
        return shares
