"""What the tests of audio files share: signals, and short ways to write and read them."""

from __future__ import annotations

import contextlib
import resource
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sdcodec_cli.audio import AudioReader, AudioWriter, Wav, WriteOptions

RATE = 16_000

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")

CONTAINERS = {
    "a.wav": ("WAV", "PCM_16"),
    "b.wav": ("WAV", "PCM_24"),
    "c.wav": ("WAV", "PCM_U8"),
    "d.wav": ("WAV", "FLOAT"),
    "e.wav": ("WAV", "DOUBLE"),
    "f.wav": ("WAV", "IMA_ADPCM"),
    "g.w64": ("W64", "PCM_16"),
    "h.rf64": ("RF64", "PCM_16"),
    "i.flac": ("FLAC", "PCM_24"),
    "j.ogg": ("OGG", "VORBIS"),
    "k.opus": ("OGG", "OPUS"),
    "l.mp3": ("MP3", "MPEG_LAYER_III"),
    "m.aiff": ("AIFF", "PCM_16"),
    "n.au": ("AU", "PCM_16"),
    "o.caf": ("CAF", "ALAC_16"),
}
"""Format and subtype that libsndfile writes under each name."""


def noise(seconds: float, rate: int = RATE, channels: int = 1, *, level: float = 0.1, seed: int = 0) -> Wav:
    rng = np.random.default_rng(seed)
    return (level * rng.standard_normal((channels, round(seconds * rate)))).astype(np.float32)


def read(source: str | Path, seconds: float = 10.0, *, start: float = 0.0, duration: float | None = None) -> Wav:
    with AudioReader(source) as reader:
        empty = np.zeros((reader.info.channels, 0), np.float32)
        blocks = list(reader.blocks(seconds, start=start, duration=duration))
        return np.concatenate([empty, *blocks], axis=1)


@contextlib.contextmanager
def full_disk(limit: int) -> Iterator[None]:
    """No file of this process grows beyond `limit` bytes: that fails as a full disk does, with another text."""
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def stored(path: Path, wav: Wav, rate: int = RATE, **how: str) -> Path:
    soundfile.write(path, wav.T, rate, **how)
    return path


def ffmpeg(*arguments: str | Path, stdin: bytes | None = None) -> bytes:
    command = ["ffmpeg", "-v", "error", "-y", *map(str, arguments)]
    return subprocess.run(command, input=stdin, check=True, capture_output=True).stdout


def write(
    target: Path | str,
    wav: Wav,
    rate: int = RATE,
    *,
    overwrite: bool = False,
    hint: bool = True,
    options: WriteOptions | None = None,
) -> AudioWriter:
    num_samples = wav.shape[1] if hint else None
    with AudioWriter(target, rate, len(wav), overwrite=overwrite, num_samples=num_samples, write=options) as writer:
        for begin in range(0, wav.shape[1], 5_000):
            writer.write(wav[:, begin : begin + 5_000])
    return writer


def si_sdr(estimate: np.ndarray, reference: np.ndarray) -> float:
    """Scale-invariant signal-to-distortion ratio in dB (arXiv:1811.02508), written out."""
    estimate, reference = estimate - estimate.mean(dtype=np.float64), reference - reference.mean(dtype=np.float64)
    target = (estimate @ reference) / (reference @ reference) * reference
    return float(10 * np.log10(np.square(target).sum() / np.square(estimate - target).sum()))
