"""What a model is made of and how it is trained: frozen dataclasses, read from TOML and checked once.

A recipe file names its family and has one table per dataclass. All recipes have `[model]`, `[mixing]`, `[augmentation]`
and `[training]`, and may have `[[stages]]`; a family adds its own, see `families`. Fields left out keep the defaults.
"""

from .bands import BandsModelFields, BandsTrainingFields, BranchFields, ReferenceFields, Residual
from .codec import (
    MAX_EFFORT,
    CodecModelFields,
    CodecTrainingFields,
    DiscriminatorFields,
    NetworkFields,
    QuantizerFields,
    SemanticFields,
)
from .fields import (
    DEFAULT_FAMILY,
    AugmentationFields,
    MixingFields,
    ModelFields,
    Recipe,
    StageFields,
    TrainingFields,
)
from .separator import SeparatorModelFields, SeparatorTrainingFields
from .toml import make_recipe, override, read_recipe, write_recipe

__all__ = [
    "DEFAULT_FAMILY",
    "MAX_EFFORT",
    "AugmentationFields",
    "BandsModelFields",
    "BandsTrainingFields",
    "BranchFields",
    "CodecModelFields",
    "CodecTrainingFields",
    "DiscriminatorFields",
    "MixingFields",
    "ModelFields",
    "NetworkFields",
    "QuantizerFields",
    "Recipe",
    "ReferenceFields",
    "Residual",
    "SemanticFields",
    "SeparatorModelFields",
    "SeparatorTrainingFields",
    "StageFields",
    "TrainingFields",
    "make_recipe",
    "override",
    "read_recipe",
    "write_recipe",
]
