"""Audio file to stems: the codec's stems as masks on the input, see `masks`.

Legend: N domains, C channels, T samples, F frames.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..audio import AudioReader, AudioWriter, StreamResampler, downmix
from .codec import Codec
from .compress import Progress, measure_loudness
from .files import StemsResult
from .masks import HOP_LENGTH, WINDOW_LENGTH, mask_mixture
from .stream import split_segments

Wav = NDArray[np.float32]

BLOCK = 500 * HOP_LENGTH
"""Samples that are masked at a time; 8 s at 16 kHz."""

MARGIN = 2 * WINDOW_LENGTH
"""Samples on each side of a block that its spectrum also sees; a whole number of hops."""


@dataclass(frozen=True)
class SeparateResult(StemsResult):
    """What became of one input."""


def separate(
    source: str | Path,
    targets: Mapping[str, str | Path],
    *,
    codec: Codec,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> SeparateResult:
    """Write stems of one audio file, in memory that does not grow with its length.

    The model hears a mono down-mix; its masks are applied to every channel. Stems of all domains add up to the input
    as far as the model's sample rate carries it.

    Args:
        source: any file that libsndfile reads, or `-` for standard input
        targets: where each domain goes, or `-` for standard output
        codec: the model
        overwrite: replace existing targets
        progress: called after every block

    Raises:
        InputError, OutputError: see `audio`
        ValueError: a domain that the model does not have
    """
    for stem in targets:
        if stem not in codec.domains:
            raise ValueError(f"{codec.name} has no domain {stem}; it has {', '.join(codec.domains)}")
    wanted = [codec.domains.index(stem) for stem in targets]
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        reader = stack.enter_context(AudioReader(source))
        info = reader.info
        gain_db = codec.gain_for(measure_loudness(reader, mono=True))
        writers = [
            stack.enter_context(
                AudioWriter(target, info.sample_rate, info.channels, overwrite=overwrite, num_samples=info.num_samples)
            )
            for target in targets.values()
        ]
        separator = _Separator(codec, info.channels, gain_db)
        to_model = StreamResampler(info.sample_rate, codec.sample_rate, info.channels)
        to_file = StreamResampler(codec.sample_rate, info.sample_rate, len(wanted) * info.channels)
        read = written = 0

        def write(wavs: Wav, *, limit: int | None = None) -> None:
            nonlocal written
            wavs = wavs.reshape(len(wanted), info.channels, -1)[
                ..., : None if limit is None else max(0, limit - written)
            ]
            written += wavs.shape[-1]
            for writer, wav in zip(writers, wavs, strict=True):
                writer.write(wav)

        for block in reader.blocks():
            read += block.shape[-1]
            for wavs in separator.push(to_model.push(block)):
                write(to_file.push(wavs[wanted].reshape(-1, wavs.shape[-1])))
            if progress:
                progress(read / info.sample_rate, info.seconds)
        for wavs in [*separator.push(to_model.flush()), *separator.finish()]:
            write(to_file.push(wavs[wanted].reshape(-1, wavs.shape[-1])), limit=read)
        write(to_file.flush(), limit=read)
        # Two roundings of a resampled length can leave it a sample short.
        write(np.zeros((len(wanted) * info.channels, read - written), dtype=np.float32))
    seconds = read / info.sample_rate
    return SeparateResult(
        input=str(source),
        outputs={stem: str(target) for stem, target in targets.items()},
        seconds=seconds,
        times_real_time=seconds / (time.monotonic() - began),
        model=codec.name,
        device=str(codec.device),
        clipped={stem: writer.clipped for stem, writer in zip(targets, writers, strict=True)},
    )


class _Separator:
    """Encodes and decodes the down-mix, and masks the channels with what comes out, all as it arrives."""

    def __init__(self, codec: Codec, channels: int, gain_db: float) -> None:
        self._codec, self._gain = codec, np.float32(10 ** (gain_db / 20))
        # Steps towards the mix would take a little away from what tells the stems apart.
        self._encoder = codec.at_effort(0).stream_encoder()
        self._decoder = codec.stream_decoder(codec.domains)
        self._mixture = torch.zeros(channels, 0)
        self._stems = torch.zeros(len(codec.domains), 0)
        self._lead = 0  # samples at the head of the buffers that are done and only serve as margin

    def push(self, wav: Wav) -> Iterator[Wav]:
        """Take `[C, T]` in, give out `[N, C, T']` that is complete."""
        self._mixture = torch.cat([self._mixture, torch.from_numpy(wav)], dim=-1)
        segments = split_segments(self._encoder.push(downmix(wav)[0] * self._gain))
        yield from self._decoded(self._decode(segment.codes, segment.active) for segment in segments)

    def finish(self) -> Iterator[Wav]:
        """Give out the rest."""
        segments = split_segments(self._encoder.finish())
        yield from self._decoded(self._decode(segment.codes, segment.active) for segment in segments)
        yield from self._decoded([self._decoder.finish()])
        self._stems = self._stems[:, : self._mixture.shape[-1]]
        if self._mixture.shape[-1] > self._lead:
            yield mask_mixture(self._mixture, self._stems)[..., self._lead :].numpy()

    def _decode(self, codes: NDArray[np.int64], active: NDArray[np.bool_]) -> list[Tensor]:
        present = {d: codes[n] if active[n, 0] else None for n, d in enumerate(self._codec.domains)}
        return self._decoder.push(present, codes.shape[-1])

    def _decoded(self, batches: Iterator[list[Tensor]] | list[list[Tensor]]) -> Iterator[Wav]:
        for pieces in batches:
            self._stems = torch.cat([self._stems, *pieces], dim=-1)
            while min(self._stems.shape[-1], self._mixture.shape[-1]) >= self._lead + BLOCK + MARGIN:
                stop = self._lead + BLOCK
                span = slice(0, stop + MARGIN)
                yield mask_mixture(self._mixture[:, span], self._stems[:, span])[..., self._lead : stop].numpy()
                drop = stop - MARGIN
                self._mixture, self._stems = self._mixture[:, drop:].clone(), self._stems[:, drop:].clone()
                self._lead = MARGIN
