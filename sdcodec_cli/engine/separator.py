"""A loaded model that separates and has no codes: stems of audio of any length, block by block.

Legend: N stems, C channels, T samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..audio import Wav, db_to_amplitude
from ..families import of
from ..runtime import SeparatorModel, load_model
from ..runtime.load import RuntimeName
from ..zoo import find
from .codec import Codec, Loaded, open_codec


class Separator(Loaded[SeparatorModel]):
    """A model that is ready to separate; `Codec` is its counterpart for models that have codes."""

    def prepare(self, *, wait: bool = False) -> None:
        """Get ready, in the background unless told to wait; else the first block takes longer."""
        self.model.prepare(wait=wait)


def open_separator(
    model: str | Path | None, *, runtime: RuntimeName, device: str, threads: int | None, effort: int | None = 0
) -> Codec | Separator:
    """Any model that separates, which nothing has been prepared of: a codec, whose stems become masks, or a separator.

    Raises:
        ModelError, MissingExtra, DeviceError, ValueError: see `load_codec`; an effort for a model without codes
    """
    entry = find(model)
    if of(entry.recipe).streams(entry.recipe):
        return open_codec(model, runtime=runtime, device=device, threads=threads, effort=effort)
    if effort:
        raise ValueError(f"effort is of encoding, and {entry.name} has no codes; leave it out")
    loaded = load_model(entry, runtime=runtime, device=str(device), threads=threads)
    assert isinstance(loaded, SeparatorModel)
    return Separator(loaded)


def load_system(
    model: str | Path | None = None,
    *,
    runtime: RuntimeName = "auto",
    device: str = "auto",
    threads: int | None = None,
    effort: int | None = None,
) -> Codec | Separator:
    """`load_codec` for a model of any kind, ready to run; `effort` is a codec's.

    Raises:
        ModelError, MissingExtra, DeviceError, ValueError: see `open_separator`
    """
    system = open_separator(model, runtime=runtime, device=device, threads=threads, effort=effort)
    system.prepare(wait=True)
    return system


class StreamSeparator:
    """Separates audio as it arrives, in constant memory.

    Every channel is separated by itself. Blocks lie on a fixed grid and fade into one another; the last one ends where
    the audio does and overlaps with more of the one before, so that the network does not see silence that is not there.
    What the outputs lack of the input, or have too much of, is shared out equally: stems add up to it.

    Args:
        model: the model
        channels: C
        gain_db: that brings the audio to the level of the model's training
        offset: mean of each channel, `[C, 1]`; the network does not see it
    """

    def __init__(self, model: SeparatorModel, channels: int, gain_db: float, offset: Wav) -> None:
        self._model, self._gain, self._offset = model, np.float32(db_to_amplitude(gain_db)), offset
        self._length, self._overlap = model.block_length, model.overlap_length
        self._rise = (np.arange(self._overlap, dtype=np.float32) + np.float32(0.5)) / np.float32(self._overlap)
        self._buffer = np.zeros((channels, 0), dtype=np.float32)
        self._start = 0  # sample at which the buffer begins
        self._done = 0  # samples that have been given out; the next block begins there
        self._tail: Wav | None = None  # the end of the block before, which fades out in the next one

    def push(self, wav: Wav) -> Iterator[Wav]:
        """Take `[C, T]` in, give out `[N, C, T']` that is complete."""
        self._buffer = np.concatenate([self._buffer, wav], axis=-1)
        # More than a block: what ends with one is the last.
        while self._end > self._done + self._length:
            stems = self._block(self._done, self._done + self._length)
            step = self._length - self._overlap
            self._tail = stems[..., step:]
            # The last block may begin as far back as this one did.
            self._buffer, self._start = self._buffer[:, self._done - self._start :].copy(), self._done
            self._done += step
            yield stems[..., :step]

    def finish(self) -> Iterator[Wav]:
        """Give out the rest."""
        if self._end > self._done:
            yield self._block(max(0, self._end - self._length), self._end)

    @property
    def _end(self) -> int:
        return self._start + self._buffer.shape[-1]

    def _block(self, start: int, stop: int) -> Wav:
        """Stems from what is not given out yet to `stop`, of a block that may begin before."""
        mixture = self._buffer[:, start - self._start : stop - self._start]
        level = (mixture - self._offset) * self._gain
        stems = np.stack([self._model.separate(channel) for channel in level], axis=1) / self._gain
        stems += (mixture - stems.sum(0)) / np.float32(len(stems))
        stems = stems[..., self._done - start :]
        if self._tail is not None:
            faded = stems[..., : self._overlap]
            faded *= self._rise
            faded += self._tail * self._rise[::-1]
        return np.ascontiguousarray(stems)
