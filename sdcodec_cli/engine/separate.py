"""Audio to stems: those of a separator as they are, or the input under masks that are made of a codec's stems.

Test-time augmentation: the codec is given several views of the audio, with its polarity inverted or delayed by part of
a frame. They sound alike, and the stems that the codec finds in them differ by chance, so the mean of their masks is
better than each (Demucs averages over delays, arXiv:1911.13254).

Legend: N domains, C channels, T samples.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..audio import (
    AudioReader,
    RatesResampler,
    Soundtrack,
    Wav,
    WriteOptions,
    db_to_amplitude,
    downmix,
    integrated_loudness,
    written_together,
)
from ..audio.masks import mask_mixture, window_length
from ..progress import Progress, in_stage
from .codec import Codec, checked_audio
from .films import open_writer
from .loudness import Level, cancelled, measure_level
from .separator import Separator, StreamSeparator
from .stem_files import StemsResult, check_targets, levels
from .stems import stems_in
from .stream import CodedSegment
from .tags import cover_of
from .whole_band import WholeBandSeparator

BLOCK_WINDOWS = 125
"""Length of what is masked at once, in windows of the masks; 8 s at 16 kHz."""

MARGIN_WINDOWS = 2
"""Likewise of what its spectrum also sees on each side."""

DEFAULT_VIEWS = 4
"""Views whose masks are averaged."""

MAX_VIEWS = 16
"""More than eight gain nothing that could be measured, see `models/sdcodec-16k-mini/EXPERIMENTS.md`."""


@dataclass(frozen=True)
class SeparateResult(StemsResult):
    """What became of one input."""

    views: int | None
    """Views of the audio whose masks were averaged; null for a model that makes none."""
    notes: tuple[str, ...]
    """Anything else worth saying."""


def separate(
    source: str | Path,
    targets: Mapping[str, str | Path],
    *,
    codec: Codec | Separator,
    views: int | None = None,
    track: int = 1,
    soundtrack: Soundtrack | None = None,
    cover: bool = False,
    write: WriteOptions | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> SeparateResult:
    """Write stems of one audio file, in memory that does not grow with its length.

    Masks of a codec are made from a mono down-mix and applied to every channel; a separator separates every channel by
    itself. Stems of all domains add up to the input; above half of the model's sample rate see `whole_band`.

    Args:
        source: any file that libsndfile or FFmpeg reads, or `-` for standard input
        targets: where each domain, or sum of domains (see `stems`), goes, or `-` for standard output
        codec: the model
        views: how many views of the audio to average the masks of; by default `DEFAULT_VIEWS`, one is the paper's
            single mask, and time grows in proportion
        track: which audio track of a film, from 1
        soundtrack: makes films of the targets, with the picture of the source, and says how sound gets into them
        cover: put the cover of the source into targets that are sound alone, where they can hold one; they get its tags
            in any case
        write: format and bitrate of sound alone, and what becomes of samples beyond full scale
        overwrite: replace existing targets; they appear all together, or none of them
        progress: called after every block that is separated; told of both passes if it is a `StagedProgress`

    Raises:
        InputError, OutputError: see `audio`
        ValueError: no targets, two stems to one target, a domain that the model does not have, `views` or `track` out
            of range
    """
    check_targets(targets)
    views = checked_views(views, codec)
    try:
        wanted = [[codec.domains.index(stem) for stem in stems_in(output, codec.domains)] for output in targets]
    except ValueError as error:
        raise ValueError(f"{codec.name} {error}") from error
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        reader = stack.enter_context(AudioReader(source, track=track))
        info = reader.info
        notes: list[str] = []
        picture = cover_of(reader, notes) if cover and soundtrack is None else None
        level = measure_level(reader, mono=isinstance(codec, Codec), progress=progress)
        writers = [
            open_writer(
                target,
                info.sample_rate,
                info.channels,
                num_samples=info.num_samples,
                channel_mask=info.channel_mask,
                tags=info.tags,
                cover=picture,
                film=None if soundtrack is None else source,
                track=track,
                soundtrack=soundtrack,
                write=write,
                overwrite=overwrite,
            )
            for target in targets.values()
        ]
        stack.enter_context(written_together(writers, progress))
        separator = WholeBandSeparator(
            _stream(codec, info.channels, level, views, info.channel_mask),
            rate=info.sample_rate,
            model_rate=codec.sample_rate,
            num_stems=len(codec.domains),
            channels=info.channels,
        )
        read = 0

        def give(stems: Wav) -> None:
            for writer, indices in zip(writers, wanted, strict=True):
                writer.write(stems[indices].sum(0))

        progress = in_stage(progress, "separating")
        for block in reader.blocks():
            read += block.shape[-1]
            for stems in separator.push(block):
                give(stems)
            if progress:
                progress(read / info.sample_rate, info.seconds)
        for stems in separator.finish():
            give(stems)
    seconds = read / info.sample_rate
    notes += [*reader.notes, *dict.fromkeys(note for writer in writers for note in writer.notes)]
    if level.problem == "silent":
        notes.append(
            "nothing in it is louder than −80 dBFS, so its stems are equal shares of it; raise its level first"
        )
    elif level.problem == "cancelled":
        notes.append(
            f"{cancelled(info)}, and that is what the model hears, so its stems mean little; "
            "invert one channel, or separate each by itself"
        )
    return SeparateResult(
        input=str(source),
        outputs={stem: str(target) for stem, target in targets.items()},
        seconds=seconds,
        times_real_time=seconds / (time.monotonic() - began),
        model=codec.name,
        device=codec.device,
        **levels(dict(zip(targets, writers, strict=True))),
        views=views,
        notes=tuple(notes),
    )


def separate_wav(wav: Any, *, codec: Codec | Separator, views: int | None = None) -> Wav:
    """Separate audio in memory, as `separate` does a file.

    Args:
        wav: floats in −1…1 at the model's rate, `[C, T]`, an array of any kind or a tensor
        codec: the model
        views: see `separate`

    Returns:
        `[N, C, T]`, which add up to `wav`

    Raises:
        ValueError: `wav` is not of this kind, or its samples are not finite; `views` out of range
    """
    signal = checked_audio(wav)
    if signal.ndim != 2:
        raise ValueError(f"wav must be [C, T], got shape {list(signal.shape)}")
    seen = downmix(signal) if isinstance(codec, Codec) else signal
    offset = seen.mean(axis=1, keepdims=True, dtype=np.float64).astype(np.float32)
    level = Level(integrated_loudness(seen - offset, codec.sample_rate), offset, None)
    separator = _stream(codec, len(signal), level, checked_views(views, codec))
    block = BLOCK_WINDOWS * window_length(codec.sample_rate)
    starts = range(0, signal.shape[-1], block)
    pieces = [wavs for start in starts for wavs in separator.push(signal[:, start : start + block])]
    return np.concatenate([*pieces, *separator.finish()], axis=-1)


def checked_views(views: int | None, codec: Codec | Separator) -> int | None:
    """A number of views that fits the model, or a `ValueError`."""
    if isinstance(codec, Separator):
        if views is not None:
            raise ValueError(f"views are of masks, and {codec.name} has none; leave them out")
        return None
    views = DEFAULT_VIEWS if views is None else views
    if views not in range(1, MAX_VIEWS + 1):
        raise ValueError(f"views must be a whole number from 1 to {MAX_VIEWS}, got {views!r}")
    return int(views)


def _stream(
    codec: Codec | Separator, channels: int, level: Level, views: int | None, channel_mask: int | None = None
) -> _MaskSeparator | StreamSeparator:
    """What separates audio as it arrives, by masks or directly."""
    if isinstance(codec, Separator):
        # Loudness adds up over channels, each of which the network is given by itself.
        loudness = level.loudness - 10 * math.log10(channels)
        return StreamSeparator(codec.model, channels, codec.model.gain_for(loudness), level.offset)
    assert views is not None
    return _MaskSeparator(codec, channels, level, views, channel_mask)


class _MaskSeparator:
    """Encodes and decodes views of the down-mix and masks the channels with the stems, as the audio arrives.

    Views come in pairs of either polarity, because the other polarity gains more than another delay; where their number
    is odd, the last has none beside it. The pairs' delays divide a frame into equal parts.
    """

    def __init__(self, codec: Codec, channels: int, level: Level, views: int, channel_mask: int | None = None) -> None:
        self._mask, self._offset = channel_mask, level.offset
        self._window = window_length(codec.sample_rate)
        self._block, self._margin = BLOCK_WINDOWS * self._window, MARGIN_WINDOWS * self._window
        gain_db = codec.gain_for(level.loudness)
        delays = math.ceil(views / 2)
        self._views = [
            _View(codec, gain_db, inverted=bool(view % 2), delay=view // 2 * codec.hop_length // delays)
            for view in range(views)
        ]
        self._mixture = np.zeros((channels, 0), dtype=np.float32)
        self._lead = 0  # samples at the head of the buffers that are done and only serve as margin

    def push(self, wav: Wav) -> Iterator[Wav]:
        """Take `[C, T]` in, give out `[N, C, T']` that is complete."""
        self._mixture = np.concatenate([self._mixture, wav], axis=-1)
        mono = (downmix(wav, self._mask) - self._offset)[0]
        for view in self._views:
            view.push(mono)
        yield from self._masked()

    def finish(self) -> Iterator[Wav]:
        """Give out the rest."""
        for view in self._views:
            view.finish()
        yield from self._masked()
        length = self._mixture.shape[-1]
        if length > self._lead:
            stems = [view.stems[:, :length] for view in self._views]
            yield mask_mixture(self._mixture, *stems, window_length=self._window)[..., self._lead :]

    def _masked(self) -> Iterator[Wav]:
        """Masked blocks, as far as every view has them and the margin behind them."""
        while min(wav.shape[-1] for wav in self._wavs()) >= self._lead + self._block + self._margin:
            stop = self._lead + self._block
            mixture, *stems = [wav[:, : stop + self._margin] for wav in self._wavs()]
            yield mask_mixture(mixture, *stems, window_length=self._window)[..., self._lead : stop]
            drop = stop - self._margin
            self._mixture = self._mixture[:, drop:].copy()
            for view in self._views:
                view.stems = view.stems[:, drop:].copy()
            self._lead = self._margin

    def _wavs(self) -> list[Wav]:
        return [self._mixture, *(view.stems for view in self._views)]


class _View:
    """The codec's stems of one view of the down-mix."""

    def __init__(self, codec: Codec, gain_db: float, *, inverted: bool, delay: int) -> None:
        self._gain = np.float32((-1 if inverted else 1) * db_to_amplitude(gain_db))
        # Refined codes bring the mix closer to the audio, but make masks a little worse.
        self._encoder = codec.at_effort(0).stream_encoder()
        self._decoder = codec.stream_decoder(codec.domains, texture=False)
        self._resampler = RatesResampler(codec.sample_rate, self._encoder.rates, 1)
        self._to_drop = delay  # samples of the delay that are still to come out of the decoder
        self.stems = np.zeros((len(codec.domains), 0), dtype=np.float32)
        """Decoded stems, in time with the mixture, `[N, T]`; inverted with their view, which masks do not mind."""
        self.push(np.zeros(delay, dtype=np.float32))

    def push(self, mono: Wav) -> None:
        """Take `[T]` in."""
        self._decode(self._encoder.push(*(wav[0] for wav in self._resampler.push(mono[None] * self._gain))))

    def finish(self) -> None:
        """Decode the rest."""
        self._decode(self._encoder.push(*(wav[0] for wav in self._resampler.flush())))
        self._decode(self._encoder.finish())
        self._add(self._decoder.finish())

    def _decode(self, segments: list[CodedSegment]) -> None:
        for segment in segments:
            self._add(self._decoder.push(segment.stored, segment.num_frames))

    def _add(self, pieces: list[Wav]) -> None:
        for piece in pieces:
            self.stems = np.concatenate([self.stems, piece[:, self._to_drop :]], axis=-1)
            self._to_drop = max(0, self._to_drop - piece.shape[-1])
