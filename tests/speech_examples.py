"""What tests of `sdc enhance`, `sdc background` and `sdc voice` share: small models, and files with sound in them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from sdcodec_cli import load_codec
from sdcodec_cli.audio import integrated_loudness
from sdcodec_cli.bitstream import Header, Reader
from sdcodec_cli.engine.codec import Codec

from tiny_models import tiny_decodec, tiny_recipe, write_tiny

RATE = 32_000


def small_codec(kind: str, folder: Path) -> Codec:
    """A model with random weights: `decodec` has a codebook for what is said, `three` are speech, music and sfx.

    Without the activity head every domain is there whenever there is sound.
    """
    recipe = tiny_decodec(teacher=True) if kind == "decodec" else tiny_recipe()
    recipe = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, activity=False))
    return load_codec(write_tiny(folder / kind, recipe), runtime="torch", device="cpu")


def sound(seconds: float, *, seed: int = 0, level: float = 0.03, channels: int = 1) -> NDArray[np.float32]:
    """Noise below 12 kHz, of which the amplitude goes up and down once a second, `[T, C]`."""
    rng = np.random.default_rng(seed)
    count = round(seconds * RATE)
    spectrum = np.fft.rfft(rng.standard_normal((count, channels)), axis=0)
    spectrum[round(12_000 * seconds) :] = 0
    wav = np.fft.irfft(spectrum, n=count, axis=0)
    swell = 1 + 0.8 * np.sin(2 * np.pi * np.arange(count) / RATE)[:, None]
    return (level * swell * wav / wav.std()).astype(np.float32)


def write(path: Path, wav: NDArray[np.float32]) -> Path:
    soundfile.write(path, wav, RATE, subtype="FLOAT")
    return path


def read(path: Path) -> NDArray[np.float32]:
    """`[T, C]`"""
    wav: NDArray[np.float32] = soundfile.read(path, dtype="float32", always_2d=True)[0]
    return wav


def loudness(wav: NDArray[np.float32]) -> float:
    """Of `[T, C]`, in LUFS."""
    return integrated_loudness(np.ascontiguousarray(wav.T), RATE)


def codes_of(path: Path) -> dict[tuple[int, str], NDArray[np.int64]]:
    """All codes of a file; it has to be whole."""
    with path.open("rb") as file:
        reader = Reader(file, str(path))
        found: dict[tuple[int, str], list[NDArray[np.int64]]] = {}
        for segment in reader.segments():
            for key, codes in segment.codes.items():
                found.setdefault(key, []).append(codes)
        assert not reader.problems
    return {key: np.concatenate(codes, axis=-1) for key, codes in found.items()}


def header_of(path: Path) -> Header:
    with path.open("rb") as file:
        return Reader(file, str(path)).header
