"""DeCodec ("DeCodec: Rethinking Audio Codecs as Universal Disentangled Representation Learners", arXiv:2509.09201).

An SD-Codec whose quantizers, of speech and of everything else, are each fed a projection of the latent of their own. In
the paper nothing but exchanged backgrounds tells them apart, and a teacher that hears the clean speech says what its
first codebook should hold.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..recipe import CodecModelFields, CodecTrainingFields, MixingFields, QuantizerFields
from .sdcodec import SDCodecFamily, SDCodecRecipe


@dataclass(frozen=True, kw_only=True)
class DeCodecRecipe(SDCodecRecipe):
    """Everything needed to build and train a DeCodec; defaults are the paper's, without a teacher."""

    family: str = "decodec"
    model: CodecModelFields = field(default_factory=lambda: CodecModelFields(domains=("speech", "background")))
    quantizer: QuantizerFields = field(default_factory=lambda: QuantizerFields(num_codebooks=8, projection="soft"))
    mixing: MixingFields = field(
        default_factory=lambda: MixingFields(
            domains=("speech", "sfx"), loudness=(-24.0, -24.0), track_probabilities=(0.0, 1.0), snr_range=(-5.0, 40.0)
        )
    )
    training: CodecTrainingFields = field(
        default_factory=lambda: CodecTrainingFields(
            swap_probability=1.0, stem_probability=0.0, orthogonality_weight=10.0
        )
    )

    is_published = False


class DeCodecFamily(SDCodecFamily):
    """See `Family`: what is particular about it are its recipes."""

    recipe = DeCodecRecipe


FAMILY = DeCodecFamily()
