"""Small models with random weights, for tests that need a network but not a good one."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from sdcodec_cli import zoo
from sdcodec_cli.families import build
from sdcodec_cli.families.bands import BandsRecipe
from sdcodec_cli.families.decodec import DeCodecRecipe
from sdcodec_cli.families.sdcodec import SDCodecRecipe
from sdcodec_cli.families.tdanet import SeparatorFields, TDANetRecipe
from sdcodec_cli.recipe import (
    BandsModelFields,
    BandsTrainingFields,
    BranchFields,
    CodecModelFields,
    CodecTrainingFields,
    DiscriminatorFields,
    MixingFields,
    NetworkFields,
    QuantizerFields,
    Recipe,
    SemanticFields,
    SeparatorModelFields,
    SeparatorTrainingFields,
)


def tiny_recipe(kind: str = "spectral", *, activity: bool = True, strides: tuple[int, ...] = (2, 4, 5, 8)) -> Recipe:
    """A codec of some ten thousand weights, at 16 kHz and 50 frames/s: spectral, conv, or conv with an lstm."""
    if kind in ("conv", "lstm"):
        lstm = {"lstm_layers": 2, "lstm_context": 3} if kind == "lstm" else {}
        encoder = NetworkFields(width=4, strides=strides, **lstm)
        decoder = NetworkFields(width=64, strides=strides[::-1], **lstm)
    else:
        encoder = NetworkFields(kind="spectral", width=16, depth=2, window_length=640)
        decoder = NetworkFields(kind="spectral", width=16, depth=2, window_length=640)
    return SDCodecRecipe(
        name=f"tiny-{kind}",
        model=CodecModelFields(description="for tests", latent_dim=16, activity=activity),
        encoder=encoder,
        decoder=decoder,
        quantizer=QuantizerFields(num_codebooks=4, num_shared=1, codebook_size=64, codebook_dim=4),
        mixing=MixingFields(seconds=0.5),
        discriminator=DiscriminatorFields(periods=(2, 3), window_lengths=(256,), band_edges=(0.5,), width=2),
        training=CodecTrainingFields(
            quantizer_dropout=0.5,
            batch_size=2,
            steps=4,
            warmup_steps=2,
            snr_weight=0.1,
            feature_weight=0.0,
            adversarial_weight=0.0,
        ),
    )


SIX_STEPS: dict[str, Any] = {
    "batch_size": 2,
    "steps": 6,
    "warmup_steps": 1,
    "learning_rate": 3e-3,
    "precision": "float32",
    "average_decay": 0.9,
    "mel_scales_per_step": 2,
    "snr_weight": 0.1,
    "feature_weight": 0.0,
    "adversarial_weight": 0.0,
    "codebook_renewal": True,
}
"""Of training, in which a loss falls within seconds."""


def tiny_bands(
    kind: str = "spectral",
    *,
    rates: tuple[int, ...] = (16_000, 32_000),
    domains: tuple[str, ...] = ("audio",),
    activity: bool = False,
) -> BandsRecipe:
    """Branches of some ten thousand weights each, 50 frames/s in all of them."""
    codec = tiny_recipe(kind)

    def network(fields: NetworkFields, rate: int, *, decoder: bool) -> NetworkFields:
        if kind == "spectral":
            return dataclasses.replace(fields, window_length=rate // 25)
        strides = (2, 4, 5, rate // 2000)
        return dataclasses.replace(fields, strides=strides[::-1] if decoder else strides)

    several = len(domains) > 1
    return BandsRecipe(
        name="tiny-bands",
        model=BandsModelFields(description="for tests", sample_rate=rates[-1], domains=domains),
        branches=tuple(
            BranchFields(
                sample_rate=rate,
                hop_length=rate // 50,
                latent_dim=16,
                activity=activity,
                encoder=network(codec.encoder, rate, decoder=False),
                decoder=network(codec.decoder, rate, decoder=True),
                quantizer=QuantizerFields(
                    num_codebooks=2, num_shared=1 if several else 2, codebook_size=64, codebook_dim=4
                ),
            )
            for rate in rates
        ),
        mixing=MixingFields(
            seconds=0.5,
            domains=() if several else ("speech", "music", "sfx"),
            track_probabilities=(0.5, 0.5),
            loudness=(-17.0, -24.0, -21.0)[: len(domains) if several else 3],
        ),
        discriminator=codec.discriminator,
        training=BandsTrainingFields(**SIX_STEPS),
    )


def tiny_decodec(projection: Literal["soft", "hard"] = "hard", *, teacher: bool = False) -> DeCodecRecipe:
    """Speech and background, of some ten thousand weights; a teacher is the folder `said`, of four numbers a frame."""
    codec = tiny_recipe()
    assert isinstance(codec, SDCodecRecipe)
    return DeCodecRecipe(
        name="tiny-decodec",
        model=dataclasses.replace(codec.model, domains=("speech", "background")),
        encoder=codec.encoder,
        decoder=codec.decoder,
        quantizer=dataclasses.replace(codec.quantizer, num_codebooks=6, num_shared=0, projection=projection),
        semantic=SemanticFields(teacher="folder", folder="said", width=4) if teacher else SemanticFields(),
        mixing=MixingFields(
            seconds=0.5,
            domains=("speech", "music", "sfx"),
            loudness=(-20.0, -24.0, -21.0),
            domain_probabilities=(0.9, 0.5, 0.5),
            snr_range=(-5.0, 40.0),
        ),
        training=CodecTrainingFields(
            **SIX_STEPS,
            orthogonality_weight=1.0 if projection == "soft" else 0.0,
            semantic_weight=1.0 if teacher else 0.0,
            swap_probability=1.0,
            stem_probability=0.5,
            quantizer_dropout=0.5,
        ),
    )


def tiny_separator() -> TDANetRecipe:
    """A TDANet of some ten thousand weights, in blocks of a second."""
    return TDANetRecipe(
        name="tiny-tdanet",
        model=SeparatorModelFields(description="for tests", block_seconds=1.0, overlap_seconds=0.25),
        separator=SeparatorFields(channels=16, width=32, depth=3, num_heads=2, num_iterations=2),
        mixing=MixingFields(seconds=0.5),
        training=SeparatorTrainingFields(
            batch_size=4, steps=6, learning_rate=1e-2, warmup_steps=2, precision="float32", average_decay=0.9
        ),
    )


def write_tiny(folder: Path, recipe: Recipe, *, seed: int = 0) -> Path:
    """A model folder with random weights, the same for the same seed."""
    torch.manual_seed(seed)
    zoo.write_model(folder, recipe, build(recipe).state_dict(), card="# tiny\n")
    return folder


class MemoryClips:
    """Clips held in memory, for pools that need no files."""

    def __init__(self, clips: list[np.ndarray]) -> None:
        self.clips = clips
        self.ends = np.cumsum([len(clip) for clip in clips])

    def read(self, clip: int, start: int, length: int) -> np.ndarray:
        return self.clips[clip][start : start + length].astype(np.float32)


def noise_clips(*, seconds: float, count: int, seed: int, sample_rate: int = 16_000) -> MemoryClips:
    """Noise at −20 dBFS in `count` clips that are `seconds` long together."""
    rng = np.random.default_rng(seed)
    return MemoryClips([rng.standard_normal(round(seconds * sample_rate / count)) * 0.1 for _ in range(count)])
