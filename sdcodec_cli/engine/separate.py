"""Audio file to stems: the codec's stems as masks on the input, whose phase and channels stay as they are.

From "Learning Source Disentanglement in Neural Audio Codec", arXiv:2409.11228, IV-D: each decoded stem gives a
magnitude, and its share of the sum of all magnitudes is what it gets of the mixture's spectrum.

Legend: N domains, C channels, T samples, F frames.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ..audio import AudioReader, AudioWriter, StreamResampler, downmix
from .codec import Codec, split_segments
from .compress import Progress, measure_loudness
from .decode import DecodeResult

Wav = NDArray[np.float32]

WINDOW_LENGTH, HOP_LENGTH = 1024, 256
"""Of the mask's Hann-windowed spectrum, in samples (arXiv:2409.11228)."""

BLOCK = 500 * HOP_LENGTH
"""Samples that are masked at a time; 8 s at 16 kHz."""

MARGIN = 2 * WINDOW_LENGTH
"""Samples on each side of a block that its spectrum also sees; a whole number of hops."""

QUIET = 1e-8
"""Magnitude below which no domain has a claim, and the mixture is shared out equally."""

SeparateResult = DecodeResult
"""What became of one input: the same facts as of a decoded file."""


def ratio_masks(stems: Tensor) -> Tensor:
    """Share of each domain in every bin: spectra `[N, bins, F]` to masks that add up to one.

    Where all are silent the shares are equal, so nothing is divided by zero and nothing of the mixture is lost.
    """
    magnitudes = stems.abs()
    total = magnitudes.sum(0, keepdim=True)
    return torch.where(total > QUIET, magnitudes / total.clamp_min(QUIET), 1 / len(magnitudes))


@torch.inference_mode()
def mask_mixture(mixture: Tensor, stems: Tensor) -> Tensor:
    """Share a mixture out: mixture `[C, T]` and decoded stems `[N, T]` to `[N, C, T]`, which add up to the mixture."""
    length = mixture.shape[-1]
    window = torch.hann_window(WINDOW_LENGTH, device=mixture.device)
    # Reflection at the edges needs half a window of signal.
    short = (0, max(0, WINDOW_LENGTH - length))

    def spectrum(wav: Tensor) -> Tensor:
        return torch.stft(F.pad(wav, short), WINDOW_LENGTH, HOP_LENGTH, window=window, return_complex=True)

    masked = ratio_masks(spectrum(stems))[:, None] * spectrum(mixture)
    wavs = torch.istft(masked.flatten(0, 1), WINDOW_LENGTH, HOP_LENGTH, window=window, length=length + short[1])
    return wavs.reshape(*masked.shape[:2], -1)[..., :length]


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
        problems=(),
        notes=(),
    )


class _Separator:
    """Encodes and decodes the down-mix, and masks the channels with what comes out, all as it arrives."""

    def __init__(self, codec: Codec, channels: int, gain_db: float) -> None:
        self._codec, self._gain = codec, np.float32(10 ** (gain_db / 20))
        self._encoder = codec.stream_encoder()
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
