"""Tables of recipes of codecs for bands of frequency: what they take, their branches, how they are trained."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ..bitstream.limits import MAX_DOMAINS, MAX_HOP_LENGTH, MAX_RATE, check_domain_name
from .checks import require, require_positive, require_range
from .codec import MAX_EFFORT, CodecTrainingFields, NetworkFields, QuantizerFields
from .fields import ModelFields


@dataclass(frozen=True, kw_only=True)
class BandsModelFields(ModelFields):
    """What a codec of several branches takes and gives."""

    sample_rate: int = 32_000
    """Rate of the audio, in Hz; that of the last branch."""
    domains: tuple[str, ...] = ("audio",)
    """Names of the domains; every branch has a quantizer for each."""
    effort: int = 0
    """Steps of analysis by synthesis that encoding takes in every branch unless told otherwise; a branch that is
    another model has its own."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_range("model.effort", self.effort, 0, MAX_EFFORT)


Residual = Literal["whole", "above"]


@dataclass(frozen=True, kw_only=True)
class BranchFields:
    """One codec of several; its tables are those of an SD-Codec."""

    sample_rate: int
    """Rate of the audio that it codes, in Hz."""
    hop_length: int
    """Samples per frame."""
    latent_dim: int = 1024
    """Channels of the latent."""
    activity: bool = False
    """Whether a head on the latent tells which domains are active."""
    residual: Residual = "whole"
    """What it codes: the `whole` of what the sum of the branches before it lacks, or only what is `above` the band of
    the one before, whatever is made of that."""
    encoder: NetworkFields
    decoder: NetworkFields
    quantizer: QuantizerFields

    def __post_init__(self) -> None:
        require_range("branches.sample_rate", self.sample_rate, 1, MAX_RATE)
        require_range("branches.hop_length", self.hop_length, 1, MAX_HOP_LENGTH)
        require_positive("branches.latent_dim", self.latent_dim)


@dataclass(frozen=True, kw_only=True)
class ReferenceFields:
    """A branch that is another model: it stays as it is, and where it is."""

    model: str
    """Its name in the zoo, or the absolute path of its folder."""
    weights_sha256: str
    """Hash of its weights, by which files name it, in hexadecimal digits."""

    def __post_init__(self) -> None:
        require(
            os.path.isabs(self.model) or os.sep not in self.model,
            f"branches.model must be a name of the zoo or an absolute path, got {self.model}",
        )
        require(
            re.fullmatch("[0-9a-f]{64}", self.weights_sha256) is not None,
            f"branches.weights_sha256 must be 64 hexadecimal digits in lower case, got {self.weights_sha256!r}",
        )


@dataclass(frozen=True, kw_only=True)
class BandsTrainingFields(CodecTrainingFields):
    """Optimizer, schedule, and the weights of the losses, which are the same in all branches."""

    narrow_probability: float = 0.0
    """How often a branch above the first is given an example without what lies above the band of the branch below,
    which it is to bring all the same (not in the paper's training)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_range("training.narrow_probability", self.narrow_probability, 0, 1)


def check_streams(names: Sequence[str]) -> None:
    """`ValueError` if a `.sdc` file could not have streams of these names."""
    require(len(names) <= MAX_DOMAINS, f"branches: there are {len(names)} streams; have {MAX_DOMAINS} at most")
    require(len(set(names)) == len(names), f"model.domains: two streams have one name, of {', '.join(names)}")
    for name in names:
        try:
            check_domain_name(name)
        except ValueError as error:
            raise ValueError(f"model.domains: {error}") from None
