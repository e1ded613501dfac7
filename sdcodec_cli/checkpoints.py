"""Read the checkpoints of the published SD-Codec and DAC code into our layout.

All sizes are read off the tensors' shapes, so no configuration file is needed. Both forms of weight norm are folded.
Files are opened with `weights_only=True`: nothing in them is ever run.
"""

from __future__ import annotations

import os
import pickle
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .errors import ModelError, RecipeError
from .families import build
from .families.sdcodec import SDCodecRecipe
from .recipe import CodecModelFields, MixingFields, NetworkFields, QuantizerFields

DAC_DOMAINS = ("audio",)
"""Name of the one domain of a DAC model."""


@dataclass(frozen=True)
class Imported:
    """A checkpoint in our layout."""

    recipe: SDCodecRecipe
    tensors: dict[str, Tensor]
    layout: str
    """`DAC` or `SD-Codec`."""


def read_checkpoint(path: Path, *, name: str | None = None, sample_rate: int | None = None) -> Imported:
    """Read a published checkpoint.

    Args:
        path: a `.pth` file: the state dict of SD-Codec, or DAC's dict of state dict and metadata
        name: of the model; by default the file's name
        sample_rate: in Hz; by default what the metadata says, or 16000

    Raises:
        ModelError: unreadable, or neither of the two layouts
    """
    state, metadata = _load(path)
    if any(key.startswith("quantizer.rvq_dict.") for key in state):
        layout, upsampling = "SD-Codec", "sdcodec"
        domains = tuple(dict.fromkeys(key.split(".")[2] for key in state if key.startswith("quantizer.rvq_dict.")))
    elif any(key.startswith("quantizer.quantizers.") for key in state):
        layout, upsampling, domains = "DAC", "dac", DAC_DOMAINS
    else:
        raise ModelError(f"{path}: neither an SD-Codec nor a DAC checkpoint; sdc models import reads those two")
    try:
        plain = _fold(state)
        tensors = {**_autoencoder(plain), **_quantizer(plain, domains)}
        recipe = _recipe(
            tensors,
            name=name or path.stem,
            description=f"imported from a {layout} checkpoint",
            domains=domains,
            upsampling=upsampling,
            sample_rate=sample_rate or int(metadata.get("kwargs", {}).get("sample_rate", 16_000)),
        )
        build(recipe).load_state_dict(tensors)
    except (LookupError, AttributeError, TypeError, ValueError, RuntimeError, RecipeError) as error:
        detail = " ".join(str(error).split())[:200]
        raise ModelError(f"{path}: looks like {layout}, but its tensors do not fit together: {detail}") from error
    return Imported(recipe, tensors, layout)


def _load(path: Path) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    if not os.path.isfile(path):
        raise ModelError(f"{path}: no such file; give a checkpoint of SD-Codec or DAC (.pth)")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path}: holds Python objects other than tensors, which sdc refuses to run; "
            f"save its state dict alone (torch.save(model.state_dict(), FILE))"
        ) from error
    except Exception as error:  # torch's reader of pickles raises anything, KeyError included, on other files
        raise ModelError(f"{path}: not a PyTorch checkpoint; give the .pth file of SD-Codec or DAC") from error
    metadata: Mapping[str, Any] = {}
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        metadata = content.get("metadata") or {}
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()
    ):
        raise ModelError(f"{path}: holds no state dict; save one with torch.save(model.state_dict(), FILE)")
    return content, metadata


_NORMED = re.compile(r"(.*)\.(?:weight_(?P<old>[gv])|parametrizations\.weight\.original(?P<new>[01]))")


def _fold(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Multiply out weight norm, whichever way torch stored it: `g·v / ‖v‖`, the norm over all but the first axis."""
    plain, parts = {}, dict[str, dict[str, Tensor]]()
    for key, tensor in state.items():
        if key.startswith("quantizer.jitter_dict."):
            continue  # buffers of a training-time augmentation
        match = _NORMED.fullmatch(key)
        if match is None:
            plain[key] = tensor.float()
            continue
        role = {"g": "magnitude", "0": "magnitude", "v": "direction", "1": "direction"}[match["old"] or match["new"]]
        parts.setdefault(match[1], {})[role] = tensor.float()
    for key, part in parts.items():
        # The very operation that torch's weight norm runs: another order of the factors rounds differently.
        plain[f"{key}.weight"] = torch._weight_norm(part["direction"], part["magnitude"], 0)
    return plain


_UNIT = {"0": "snake1", "1": "conv1", "2": "snake2", "3": "conv2"}


def _autoencoder(plain: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Encoder and decoder, renamed: numbered blocks become named parts."""
    tensors = {}
    for half, numbered in (("encoder", "block"), ("decoder", "model")):
        keys = [key for key in plain if key.startswith(f"{half}.{numbered}.")]
        last = max(int(key.split(".")[2]) for key in keys)
        for key in keys:
            _, _, index, *rest = key.split(".")
            stage = int(index) - 1
            if stage == -1:
                new = ["conv_in", *rest]
            elif int(index) == last:
                new = ["conv_out", *rest]
            elif int(index) == last - 1:
                new = ["snake_out", *rest]
            else:
                new = [f"stages.{stage}", *_stage_part(half, rest)]
            tensors[".".join([half, *new])] = plain[key]
    return tensors


def _stage_part(half: str, rest: list[str]) -> list[str]:
    _, index, *inner = rest
    snake, resampler, first_unit = (3, 4, 0) if half == "encoder" else (0, 1, 2)
    if int(index) == snake:
        return ["snake", *inner]
    if int(index) == resampler:
        return ["down" if half == "encoder" else "up", *inner]
    return [f"units.{int(index) - first_unit}", _UNIT[inner[1]], *inner[2:]]


def _quantizer(plain: Mapping[str, Tensor], domains: tuple[str, ...]) -> dict[str, Tensor]:
    """Quantizers, stacked over domains and levels."""
    prefixes = {"own": [f"quantizer.rvq_dict.{domain}" for domain in domains], "shared": ["quantizer.shared_rvq"]}
    if domains == DAC_DOMAINS:
        # One quantizer for everything is SD-Codec with all levels shared.
        prefixes = {"shared": ["quantizer"], "own": ["quantizer.rvq_dict.audio"]}
    tensors = {}
    example: dict[str, Tensor] = {}
    for part, streams in prefixes.items():
        counts = {_count(plain, stream) for stream in streams}
        if len(counts) != 1:
            raise ValueError(f"the domains have different numbers of codebooks: {sorted(counts)}")
        levels = counts.pop()
        for ours, theirs in (
            ("in_weight", "in_proj.weight"),
            ("in_bias", "in_proj.bias"),
            ("codebook", "codebook.weight"),
            ("out_weight", "out_proj.weight"),
            ("out_bias", "out_proj.bias"),
        ):
            rows = [
                torch.stack([_pointwise(plain[f"{stream}.quantizers.{level}.{theirs}"]) for level in range(levels)])
                for stream in streams
                if levels
            ]
            if rows:
                example[ours] = rows[0]
            empty = torch.zeros(len(streams), 0, *example[ours].shape[1:])
            tensors[f"quantizer.{part}.{ours}"] = torch.stack(rows) if rows else empty
    return tensors


def _count(plain: Mapping[str, Tensor], stream: str) -> int:
    return sum(
        re.fullmatch(rf"{re.escape(stream)}\.quantizers\.\d+\.codebook\.weight", key) is not None for key in plain
    )


def _pointwise(tensor: Tensor) -> Tensor:
    """A convolution of width one as a matrix."""
    return tensor[..., 0] if tensor.dim() == 3 else tensor


def _recipe(
    tensors: Mapping[str, Tensor],
    *,
    name: str,
    description: str,
    domains: tuple[str, ...],
    upsampling: Any,
    sample_rate: int,
) -> SDCodecRecipe:
    def strides(half: str, part: str) -> tuple[int, ...]:
        stages = sum(key.startswith(f"{half}.stages.") and key.endswith(f".{part}.bias") for key in tensors)
        return tuple(tensors[f"{half}.stages.{i}.{part}.weight"].shape[-1] // 2 for i in range(stages))

    down, up = strides("encoder", "down"), strides("decoder", "up")
    own, shared = tensors["quantizer.own.codebook"], tensors["quantizer.shared.codebook"]
    hop_length = 1
    for stride in down:
        hop_length *= stride
    several = len(domains) > 1
    return SDCodecRecipe(
        name=name,
        model=CodecModelFields(
            description=description,
            sample_rate=sample_rate,
            hop_length=hop_length,
            latent_dim=tensors["encoder.conv_out.weight"].shape[0],
            domains=domains,
        ),
        encoder=NetworkFields(width=tensors["encoder.conv_in.weight"].shape[0], strides=down),
        decoder=NetworkFields(width=tensors["decoder.conv_in.weight"].shape[0], strides=up, upsampling=upsampling),
        quantizer=QuantizerFields(
            num_codebooks=own.shape[1] + shared.shape[1],
            num_shared=shared.shape[1],
            codebook_size=own.shape[2],
            codebook_dim=own.shape[3],
        ),
        mixing=MixingFields(
            track_probabilities=(0.6, 0.2, 0.2) if several else (1.0,),
            loudness=(-17.0, -24.0, -21.0) if several else (-24.0,),
        ),
    )
