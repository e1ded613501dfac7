"""What a model is made of and how it is trained: frozen dataclasses, read from TOML and checked once.

A recipe file has one table per dataclass: `[model]`, `[encoder]`, `[decoder]`, `[quantizer]`, `[mixing]`,
`[augmentation]`, `[discriminator]`, `[training]`. Fields left out keep the defaults, which are the paper's.
"""

from .fields import (
    MAX_EFFORT,
    AugmentationFields,
    DiscriminatorFields,
    MixingFields,
    ModelFields,
    NetworkFields,
    QuantizerFields,
    Recipe,
    TrainingFields,
)
from .toml import make_recipe, override, read_recipe, write_recipe

__all__ = [
    "MAX_EFFORT",
    "AugmentationFields",
    "DiscriminatorFields",
    "MixingFields",
    "ModelFields",
    "NetworkFields",
    "QuantizerFields",
    "Recipe",
    "TrainingFields",
    "make_recipe",
    "override",
    "read_recipe",
    "write_recipe",
]
