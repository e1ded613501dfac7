"""Audio that ends at 8 kHz to audio that goes on above: the octave below, copied up, with gains that are guessed.

What the audio has below 7.6 kHz, where copies begin, stays as it is.

Legend: C channels, T samples.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..audio import AudioReader, AudioWriter, StreamResampler, Wav, WriteOptions, amplitude_to_db, written_together
from ..errors import InputError
from ..progress import Progress, in_stage
from .above import Above
from .cascade import summed
from .codec import checked_audio
from .envelope import sine_window
from .shaper import StreamShaper
from .treble import FACTOR
from .treble_guess import HOP_LENGTH, LAYOUT, SAMPLE_RATE, guessed_gains, treble

BAND = SAMPLE_RATE / 2
"""In Hz, up to where audio has to reach, and above which treble is made."""

LOWEST_RATE = FACTOR * SAMPLE_RATE
"""Of what comes out, in Hz, at least."""

FEW = 0.05
"""Share of frames in which there may be something above, such as clicks, of audio that counts as ending at 8 kHz."""

_COLUMN = LAYOUT.frames * HOP_LENGTH
"""Samples that a gain is for."""


@dataclass(frozen=True)
class ExtendResult:
    """What became of one input."""

    input: str
    output: str | None
    """`-` for standard output; null where the input has something above 8 kHz already, and nothing was written."""
    seconds: float
    times_real_time: float
    input_rate: int
    """Sample rate of the input, in Hz."""
    output_rate: int
    """Sample rate of the output, in Hz: 32000, or that of the input if it is higher."""
    above: float
    """Share of the input's frames of 40 ms that have something above 8.5 kHz: more than −50 dB of what they have from 4
    to 8 kHz, and than −90 dB of full scale. Frames with nothing above 4 kHz do not count, and up to 0.05 is nothing."""
    replaced: bool
    """Whether what the input had above 8 kHz was replaced."""
    clipped: int
    """Samples beyond full scale, limited to it."""
    peak_db: float | None
    """Largest sample, in dB of full scale, before anything was limited or made softer; null if nothing was written."""
    rescaled_db: float
    """What it was made louder by, in dB: 0, or less where that was asked for and it went beyond full scale."""
    notes: tuple[str, ...]
    """Anything else worth saying."""


def extend(
    source: str | Path,
    target: str | Path,
    *,
    track: int = 1,
    replace: bool = False,
    write: WriteOptions | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> ExtendResult:
    """Write one audio file with something above 8 kHz, in memory that does not grow with its length.

    Every channel is extended by itself. A file that has something above already is left alone: nothing is written, and
    the result has no output.

    Args:
        source: any file that libsndfile or FFmpeg reads, or `-` for standard input
        target: where it goes, or `-` for standard output
        track: which audio track of a film, from 1
        replace: make what is above 8 kHz anew where the file has something there
        write: format and bitrate, and what becomes of samples beyond full scale
        overwrite: replace an existing target
        progress: called after every block that is extended; told of both passes if it is a `StagedProgress`

    Raises:
        InputError, OutputError: see `audio`; an InputError also for a sample rate below 16 kHz
        ValueError: `track` out of range
    """
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        reader = stack.enter_context(AudioReader(source, track=track))
        info = reader.info
        if info.sample_rate < SAMPLE_RATE:
            raise InputError(
                f"{info.name}: its band ends at {info.sample_rate / 2:g} Hz, and {BAND:g} are needed; take a file with "
                f"a sample rate of {SAMPLE_RATE} Hz or more"
            )
        new_rate = max(LOWEST_RATE, info.sample_rate)
        above, read = _share_above(reader, in_stage(progress, "measuring", main=False))
        has_above = above > FEW
        writer = None
        if replace or not has_above:
            writer = AudioWriter(
                target,
                new_rate,
                info.channels,
                overwrite=overwrite,
                num_samples=_length(read, info.sample_rate, new_rate),
                channel_mask=info.channel_mask,
                tags=info.tags,
                write=write,
            )
            stack.enter_context(written_together([writer], progress))
            progress = in_stage(progress, "extending")
            stream = _StreamExtender(info.sample_rate, new_rate, info.channels, replace=has_above)
            done = 0
            for block in reader.blocks():
                done += block.shape[-1]
                writer.write(stream.push(block))
                if progress:
                    progress(done / info.sample_rate, read / info.sample_rate)
            writer.write(stream.finish())
    seconds = read / info.sample_rate
    return ExtendResult(
        input=str(source),
        output=str(target) if writer else None,
        seconds=seconds,
        times_real_time=seconds / (time.monotonic() - began),
        input_rate=info.sample_rate,
        output_rate=new_rate,
        above=above,
        replaced=has_above and replace,
        clipped=writer.clipped if writer else 0,
        peak_db=amplitude_to_db(writer.peak) if writer else None,
        rescaled_db=amplitude_to_db(writer.scale) if writer else 0.0,
        notes=(*reader.notes, *(writer.notes if writer else ())),
    )


def extend_wav(wav: Any, sample_rate: int, new_rate: int = LOWEST_RATE) -> Wav:
    """Extend audio in memory, as `extend` does a file; whatever it has above 8 kHz stays, under what is added.

    Args:
        wav: floats in −1…1, `[..., T]`, an array of any kind or a tensor
        sample_rate: in Hz, at least 16 kHz
        new_rate: of what comes out, in Hz, not below `sample_rate`

    Returns:
        `[..., T']`, as long as `wav`, rounded up

    Raises:
        ValueError: `wav` is not of this kind, its samples are not finite, or a rate is too low
    """
    if not SAMPLE_RATE <= sample_rate <= new_rate:
        raise ValueError(
            f"sample_rate must be at least {SAMPLE_RATE}, and new_rate not below it, got {sample_rate} and {new_rate}"
        )
    signal = checked_audio(wav)
    rows = signal.reshape(-1, signal.shape[-1])
    stream = _StreamExtender(sample_rate, new_rate, len(rows), replace=False)
    whole = np.concatenate([stream.push(rows), stream.finish()], axis=-1)
    return whole.reshape(*signal.shape[:-1], -1)


def _length(num_samples: int, old_rate: int, new_rate: int) -> int:
    return -(-num_samples * new_rate // old_rate)


class _StreamExtender:
    """Extends channels as they arrive, all of one length."""

    def __init__(self, old_rate: int, new_rate: int, channels: int, *, replace: bool) -> None:
        self._rates, self._replace = (old_rate, new_rate), replace
        self._narrow = StreamResampler(old_rate, SAMPLE_RATE, channels)
        self._below = StreamResampler(SAMPLE_RATE if replace else old_rate, new_rate, channels)
        self._above = StreamResampler(FACTOR * SAMPLE_RATE, new_rate, channels)
        self._channels = [_Channel() for _ in range(channels)]
        self._sums = [np.zeros((channels, 0), dtype=np.float32)] * 2
        self._taken = self._given = 0

    def push(self, wav: Wav) -> Wav:
        """Audio `[C, T]` to as much `[C, T']` as is complete."""
        self._taken += wav.shape[-1]
        narrow = self._narrow.push(wav)
        above = self._above.push(np.stack([each.push(row) for each, row in zip(self._channels, narrow, strict=True)]))
        return self._added(self._below.push(narrow if self._replace else wav), above)

    def finish(self) -> Wav:
        """The rest, in all as much as lasts as long as what was taken in."""
        narrow = self._narrow.flush()
        rest = [each.finish(row) for each, row in zip(self._channels, narrow, strict=True)]
        above = np.concatenate([self._above.push(np.stack(rest)), self._above.flush()], axis=-1)
        last = [self._below.push(narrow)] if self._replace else []
        below = np.concatenate([*last, self._below.flush()], axis=-1)
        # Two roundings of a resampled length can leave it some samples short; what is too long is cut.
        missing = _length(self._taken, *self._rates) - self._given
        return self._added(*(np.pad(wav, ((0, 0), (0, missing))) for wav in (below, above)))

    def _added(self, below: Wav, above: Wav) -> Wav:
        total, self._sums = summed(self._sums, below, above)
        total = total[:, : max(0, _length(self._taken, *self._rates) - self._given)]
        self._given += total.shape[-1]
        return total


class _Channel:
    """Treble of one channel alone, `[T]` to `[2 T]`, as it arrives."""

    def __init__(self) -> None:
        self._shaper = StreamShaper(HOP_LENGTH, 1, envelope=None, share=0.0, treble=treble(), below=False)
        self._wav = np.zeros(HOP_LENGTH // 2, dtype=np.float32)

    def push(self, wav: Wav) -> Wav:
        self._wav = np.concatenate([self._wav, wav])
        count = max(0, len(self._wav) - HOP_LENGTH) // _COLUMN
        if not count:
            return self._wav[:0]
        piece = self._wav[: count * _COLUMN + HOP_LENGTH]
        self._wav = self._wav[count * _COLUMN :]
        gains = guessed_gains(piece).repeat(LAYOUT.frames, axis=1)
        self._shaper.push_gains(count * LAYOUT.frames, None, gains)
        margin = HOP_LENGTH // 2
        complete: Wav = self._shaper.push(piece[None, margin:-margin])[0]
        return complete

    def finish(self, wav: Wav) -> Wav:
        rest = len(self._wav) + len(wav) - HOP_LENGTH // 2
        last = self.push(np.pad(wav, (0, -rest % _COLUMN + HOP_LENGTH // 2)))
        return np.concatenate([last, self._shaper.finish()[0]])


def _share_above(reader: AudioReader, progress: Progress | None) -> tuple[float, int]:
    """Share of the frames of all channels that have something above, see `ExtendResult`; and the number of samples."""
    rate, length = reader.info.sample_rate, 0
    hop = round(rate * HOP_LENGTH / SAMPLE_RATE)
    # Of tones below, the window lets less than what counts reach frequencies that are looked at.
    above = Above(BAND, rate, sine_window(2 * hop) ** 2)
    waiting = np.zeros((reader.info.channels, hop), dtype=np.float32)
    found = frames = 0
    for block in reader.blocks():
        length += block.shape[-1]
        if progress:
            progress(length / rate, reader.info.seconds)
        if not above.in_reach:
            continue
        waiting = np.concatenate([waiting, block], axis=-1)
        if waiting.shape[-1] < 2 * hop:
            continue
        high, any_at_all = above.found(waiting)
        found += int(high.sum())
        frames += int(any_at_all.sum())
        waiting = waiting[:, high.shape[-1] * hop :]
    return found / max(1, frames), length
