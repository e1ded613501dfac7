"""SD-Codec ("Learning Source Disentanglement in Neural Audio Codec", arXiv:2409.11228), and DAC as a case of it.

One encoder, one residual quantizer per domain, one decoder; of samples (`conv`) or on a short-time spectrum
(`spectral`). A DAC is an SD-Codec of one domain whose codebooks are all shared.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from ..errors import RecipeError
from ..recipe import (
    CodecModelFields,
    CodecTrainingFields,
    DiscriminatorFields,
    NetworkFields,
    QuantizerFields,
    Recipe,
    SemanticFields,
    StageFields,
)
from ..recipe.checks import require
from ..recipe.codec import TEACHER_RATE, TEACHER_WIDTHS
from .family import Codebooks, Family, Stream, Teaching

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from ..nn.autoencoder import ConvDecoder, ConvEncoder
    from ..nn.lstm import WindowedLSTM
    from ..nn.objectives import Critic, Estimate, ParameterGroup
    from ..nn.objectives.sdcodec import CodecChoices, CodecObjective
    from ..nn.projection import HardProjection, SoftProjection
    from ..nn.sdcodec import SDCodec
    from ..nn.spectral import SpectralDecoder, SpectralEncoder
    from ..nn.tracing import GraphPart

SPEECH = "speech"
"""The domain whose first codebook a teacher is for."""

SCALE_RATE = 0.05
"""Learning rate of the blocks' scales, as a share of all others'. At the full one, those of blocks that are added to a
trained network are at zero after a hundred steps, before the blocks have learned anything, and stay there."""

NEW = ("activity.", "projection.", "semantic.", "encoder.lstm.", "decoder.lstm.")
"""How the names of weights begin that another model may lack, because they are of options."""


@dataclass(frozen=True, kw_only=True)
class SDCodecRecipe(Recipe):
    """Everything needed to build and train an SD-Codec or a DAC; defaults are the paper's."""

    model: CodecModelFields = field(default_factory=CodecModelFields)
    encoder: NetworkFields = field(default_factory=lambda: NetworkFields(width=64, strides=(2, 4, 5, 8)))
    decoder: NetworkFields = field(default_factory=lambda: NetworkFields(width=1536, strides=(8, 5, 4, 2)))
    quantizer: QuantizerFields = field(default_factory=QuantizerFields)
    semantic: SemanticFields = field(default_factory=SemanticFields)
    discriminator: DiscriminatorFields = field(default_factory=DiscriminatorFields)
    training: CodecTrainingFields = field(default_factory=CodecTrainingFields)

    is_published: ClassVar[bool] = True
    losses: ClassVar[Mapping[str, tuple[str, ...]]] = {
        **dict.fromkeys(("mel", "snr", "mask", "band_snr", "level"), ("encoder", "projection", "quantizer", "decoder")),
        "codebook": ("quantizer",),
        "commitment": ("encoder", "projection", "quantizer"),
        "activity": ("encoder", "activity"),
        "orthogonality": ("encoder", "projection"),
        "semantic": ("encoder", "projection", "quantizer", "semantic"),
        **dict.fromkeys(("adversarial", "feature"), ("encoder", "projection", "quantizer", "decoder")),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, network in (("encoder", self.encoder), ("decoder", self.decoder)):
            if network.kind == "conv":
                hop = math.prod(network.strides)
                require(
                    hop == self.model.hop_length,
                    f"{name}.strides multiply to {hop}, but model.hop_length is {self.model.hop_length}",
                )
            else:
                margin = network.window_length - self.model.hop_length
                require(
                    0 < margin <= self.model.hop_length and margin % 2 == 0,
                    f"{name}.window_length must exceed model.hop_length by an even number, at most a hop; "
                    f"got {network.window_length}",
                )
                require(network.window_length % 2 == 0, f"{name}.window_length must be even, and so the hop")
        require(self.decoder.context_window_length == 0, "decoder: context_window_length belongs to the encoder")
        if self.decoder.kind == "conv":
            require(
                self.decoder.width % (1 << len(self.decoder.strides)) == 0,
                f"decoder.width must be divisible by 2^{len(self.decoder.strides)}, got {self.decoder.width}",
            )
        if self.model.causal:
            require(self.encoder.kind == self.decoder.kind == "conv", "model.causal: is for conv networks alone")
            require(self.decoder.upsampling == "exact", "model.causal: leave decoder.upsampling out")
            require(not self.model.activity, "model.causal: the activity head looks ahead; set model.activity to false")
        elif self.encoder.lstm_layers or self.decoder.lstm_layers:
            require(
                self.model.latent_dim % 2 == 0,
                f"model.latent_dim must be even for the two directions of a BiLSTM, got {self.model.latent_dim}",
            )
        several = len(self.model.domains) > 1
        require(
            not (several and self.quantizer.num_shared == self.quantizer.num_codebooks),
            "quantizer.num_shared = num_codebooks leaves nothing that tells domains apart: name one domain",
        )
        projection = self.quantizer.projection
        require(
            projection == "none" or 1 < len(self.model.domains) <= self.model.latent_dim,
            f"quantizer.projection: {projection} shares out the latent among domains; name two or more, or none",
        )
        require(
            projection == "soft" or self.training.orthogonality_weight == 0,
            "training.orthogonality_weight: is for soft projections only; set it to 0",
        )
        taught = self.semantic.target_width > 0
        require(
            taught == (self.training.semantic_weight > 0),
            "semantic.teacher and training.semantic_weight go together; set both, or neither",
        )
        require(not taught or SPEECH in self.model.domains, f"semantic: there is no domain {SPEECH} to be taught")
        require(
            self.semantic.teacher not in TEACHER_WIDTHS or self.model.sample_rate == TEACHER_RATE,
            f"semantic: {self.semantic.teacher} hears {TEACHER_RATE} Hz, not {self.model.sample_rate}; use a folder",
        )

    @property
    def parts(self) -> tuple[str, ...]:
        """Parts of the network, which stages may name."""
        has = {
            "activity": self.model.activity,
            "projection": self.quantizer.projection != "none",
            "semantic": self.semantic.target_width > 0,
        }
        return ("encoder", "quantizer", "decoder", *(part for part, there in has.items() if there))

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.model.sample_rate / self.model.hop_length


class SDCodecFamily(Family[SDCodecRecipe]):
    """See `Family`."""

    recipe = SDCodecRecipe
    adopts_domains = True
    weight_norm = True
    parts = ("analyse", "quantize", "synthesize", "target", "refine", "distance")
    decoding = ("quantizer.", "decoder.")
    for_training = ("semantic.",)
    sizes = ("analysis_context", "synthesis_context")

    def streams(self, recipe: SDCodecRecipe) -> tuple[Stream, ...]:
        """One stream per domain. What is said in speech, if the first codebook is taught that, is a layer group."""
        fields = recipe.quantizer

        def taught(domain: str) -> bool:
            return recipe.semantic.target_width > 0 and domain == SPEECH

        return tuple(
            Stream(
                name=domain,
                stem=domain,
                num_codebooks=fields.num_codebooks,
                num_shared=fields.num_shared,
                codebook_size=fields.codebook_size,
                frame_rate=recipe.frame_rate,
                groups=fields.taught_groups if taught(domain) else (),
                num_semantic=int(taught(domain)),
            )
            for domain in recipe.model.domains
        )

    def build(self, recipe: SDCodecRecipe) -> SDCodec:
        """See `Family.build`."""
        from ..nn.quantize import MultiSourceRVQ
        from ..nn.sdcodec import SDCodec

        model, quantizer = recipe.model, recipe.quantizer
        return SDCodec(
            domains=model.domains,
            hop_length=model.hop_length,
            latent_dim=model.latent_dim,
            activity=model.activity,
            encoder=_encoder(recipe.encoder, recipe.model),
            decoder=_decoder(recipe.decoder, recipe.model),
            projection=_projection(recipe),
            semantic_width=recipe.semantic.target_width,
            quantizer=MultiSourceRVQ(
                num_domains=len(model.domains),
                num_codebooks=quantizer.num_codebooks,
                num_shared=quantizer.num_shared,
                codebook_size=quantizer.codebook_size,
                codebook_dim=quantizer.codebook_dim,
                latent_dim=model.latent_dim,
            ),
        )

    def modules(self, network: SDCodec, recipe: SDCodecRecipe) -> dict[str, nn.Module]:
        """See `nn.parts`."""
        from ..nn.parts import modules

        return modules(network, recipe.model.sample_rate)

    def graph_parts(self, network: SDCodec, recipe: SDCodecRecipe) -> dict[str, GraphPart]:
        """See `nn.parts`."""
        from ..nn.parts import graph_parts

        return graph_parts(network, recipe.model.sample_rate)

    def measured(self, network: SDCodec, recipe: SDCodecRecipe) -> dict[str, int]:
        """Frames on each side that latent and activity of a frame depend on, and that its audio depends on."""
        head = network.activity
        analysis = network.encoder.context_frames + (0 if head is None else head.context_frames)
        return {"analysis_context": analysis, "synthesis_context": network.decoder.context_frames}

    def adopt(self, network: SDCodec, given: Recipe, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights of another SD-Codec or DAC.

        Encoder and decoder are taken as they are. Where the other model has one quantizer for everything, as DAC has,
        every domain starts from a copy of it. In a spectral network of more blocks, several are copies of the same one
        and share its scale, which comes close to what it did (arXiv:1710.10348): blocks that begin as doing nothing are
        of little use for thousands of steps. An encoder's long windows do begin so. Projection, heads and LSTMs begin
        anew where the other has none; an LSTM adds little to the latent then, and hard projections begin where they
        take least from what the quantizers look at. A domain that the other lacks starts as its last one, and fewer
        codebooks are the first ones of its.
        """
        import torch

        from ..nn.projection import HardProjection, fitted_axes

        own_tensors = network.state_dict()
        found = dict(tensors)
        if len(given.model.domains) == 1:
            own = network.quantizer.own.codebook.shape[:2]
            for key in [key.removeprefix("quantizer.own.") for key in tensors if key.startswith("quantizer.own.")]:
                codebooks = torch.cat([tensors[f"quantizer.own.{key}"], tensors[f"quantizer.shared.{key}"]], dim=1)
                found[f"quantizer.own.{key}"] = codebooks[:, : own[1]].repeat(own[0], *[1] * (codebooks.dim() - 1))
                found[f"quantizer.shared.{key}"] = codebooks[:, own[1] :]
        elif given.model.domains != network.domains:
            theirs = given.model.domains
            rows = [theirs.index(domain) if domain in theirs else len(theirs) - 1 for domain in network.domains]
            for key, value in tensors.items():
                if key.startswith("quantizer.own."):
                    found[key] = value[rows][:, : network.quantizer.own.codebook.shape[1]]
                elif key.startswith("activity.project."):
                    found[key] = value[rows]
        for part in ("encoder", "decoder"):
            found = _with_blocks(found, f"{part}.blocks.", _num_blocks(own_tensors, f"{part}.blocks."))
        for part in ("activity", "projection", "semantic"):
            if getattr(network, part) is None:
                found = _without(found, f"{part}.")
        if _shapes(found, "semantic.") != _shapes(own_tensors, "semantic."):  # of another teacher
            found = _without(found, "semantic.")
        if isinstance(network.projection, HardProjection) and "projection.weight" not in found:
            products = _looked_at(*(found[f"quantizer.own.{name}"] for name in ("in_weight", "out_weight", "codebook")))
            own_weight = own_tensors["projection.weight"]
            found["projection.weight"] = fitted_axes(own_weight, network.projection.sizes, products)
        for key, value in own_tensors.items():
            if key not in found and key.startswith(NEW):
                found[key] = value
            elif key not in found and key.endswith(".embed_context.weight"):
                found[key] = torch.zeros_like(value)
        return found

    def choose(self, active: np.ndarray, recipe: SDCodecRecipe, indices: range) -> CodecChoices:
        """See `nn.objectives.sdcodec.choose`."""
        from ..nn.objectives.sdcodec import choose

        return choose(active, recipe.training, recipe.quantizer.num_codebooks, indices)

    def objective(self, network: SDCodec, recipe: SDCodecRecipe, stage: StageFields) -> CodecObjective:
        """See `nn.objectives.sdcodec.CodecObjective`."""
        from ..nn.objectives.sdcodec import CodecObjective

        return CodecObjective(
            network,
            recipe.training,
            stage,
            recipe.model.sample_rate,
            probabilities=recipe.semantic.says_probabilities,
        )

    def teaching(self, recipe: SDCodecRecipe) -> Teaching | None:
        """What the first codebook of speech is taught."""
        return Teaching(recipe.semantic, SPEECH, recipe.model.hop_length) if recipe.semantic.target_width else None

    def codebooks(self, recipe: SDCodecRecipe, weights: Mapping[str, np.ndarray]) -> tuple[Codebooks, ...]:
        """See `Family.codebooks`."""
        import numpy as np

        def joined(name: str) -> np.ndarray:
            own, shared = (weights[f"quantizer.{part}.{name}"] for part in ("own", "shared"))
            count = len(recipe.model.domains)
            return np.concatenate([own, np.broadcast_to(shared, (count, *shared.shape[1:]))], axis=1)

        return tuple(map(Codebooks, joined("codebook"), joined("out_weight"), joined("out_bias")))

    def critic(self, recipe: SDCodecRecipe) -> Critic | None:
        """The discriminators of a recipe, with random weights.

        Raises:
            RecipeError: sizes that make no network
        """
        from ..nn.discriminator import Discriminators
        from ..nn.objectives import Critic

        fields, training = recipe.discriminator, recipe.training
        if not training.adversarial or all(stage.losses == ("activity",) for stage in recipe.plan):
            return None
        try:
            discriminators = Discriminators(
                periods=fields.periods,
                window_lengths=fields.window_lengths,
                band_edges=fields.band_edges,
                width=fields.width,
            )
        except ValueError as error:
            raise RecipeError(f"{recipe.name}: discriminator.{error}") from error
        weights = {"adversarial": training.adversarial_weight, "feature": training.feature_weight}
        return Critic(discriminators, fields, weights, training.adversarial_start, training.adversarial_warmup)

    def parameter_groups(self, network: SDCodec, recipe: SDCodecRecipe) -> Sequence[ParameterGroup]:
        """Scales of blocks, which move slowly, matrices, which are Muon's, and codebooks of another rate."""
        from ..nn.layers import ConvNeXtBlock
        from ..nn.objectives import ParameterGroup

        modules = [*network.encoder.modules(), *network.decoder.modules()]
        blocks = [module for module in modules if isinstance(module, ConvNeXtBlock)]
        matrices = [layer.get_parameter("weight") for block in blocks for layer in (block.expand, block.project)]
        groups = [
            ParameterGroup("scales", tuple(block.scale for block in blocks), learning_rate=SCALE_RATE),
            ParameterGroup("muon", tuple(matrices), muon=True),
        ]
        if (rate := recipe.training.codebook_rate) != 1:
            codebooks = (network.quantizer.own.codebook, network.quantizer.shared.codebook)
            groups.append(ParameterGroup("codebooks", codebooks, learning_rate=rate))
        return groups

    def compiled(self, network: SDCodec) -> Sequence[nn.Module]:
        """Encoder and decoder: Snake's four passes over memory become one."""
        return (network.encoder, network.decoder)

    def estimates(self, network: SDCodec, recipe: SDCodecRecipe, stems: Tensor) -> list[Estimate]:
        """See `nn.objectives.sdcodec.estimates`."""
        from ..nn.objectives.sdcodec import estimates

        return estimates(network, stems)


FAMILY = SDCodecFamily()


def _without(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key: value for key, value in tensors.items() if not key.startswith(prefix)}


def _shapes(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in tensors.items() if key.startswith(prefix)}


def _encoder(fields: NetworkFields, model: CodecModelFields) -> ConvEncoder | SpectralEncoder:
    from ..nn.autoencoder import ConvEncoder
    from ..nn.spectral import SpectralEncoder

    if fields.kind == "conv":
        return ConvEncoder(
            width=fields.width,
            strides=fields.strides,
            latent_dim=model.latent_dim,
            causal=model.causal,
            lstm=_lstm(fields, model),
        )
    return SpectralEncoder(
        window_length=fields.window_length,
        context_window_length=fields.context_window_length,
        hop_length=model.hop_length,
        width=fields.width,
        dilations=fields.block_dilations,
        latent_dim=model.latent_dim,
    )


def _decoder(fields: NetworkFields, model: CodecModelFields) -> ConvDecoder | SpectralDecoder:
    from ..nn.autoencoder import ConvDecoder
    from ..nn.spectral import SpectralDecoder

    if fields.kind == "conv":
        return ConvDecoder(
            width=fields.width,
            strides=fields.strides,
            latent_dim=model.latent_dim,
            upsampling="causal" if model.causal else fields.upsampling,
            lstm=_lstm(fields, model),
        )
    return SpectralDecoder(
        window_length=fields.window_length,
        hop_length=model.hop_length,
        width=fields.width,
        dilations=fields.block_dilations,
        latent_dim=model.latent_dim,
    )


def _lstm(fields: NetworkFields, model: CodecModelFields) -> WindowedLSTM | None:
    from ..nn.lstm import WindowedLSTM

    if not fields.lstm_layers:
        return None
    return WindowedLSTM(
        channels=model.latent_dim, layers=fields.lstm_layers, context=fields.lstm_context, causal=model.causal
    )


def _projection(recipe: SDCodecRecipe) -> SoftProjection | HardProjection | None:
    from ..nn.projection import HardProjection, SoftProjection

    if recipe.quantizer.projection == "none":
        return None
    kind = SoftProjection if recipe.quantizer.projection == "soft" else HardProjection
    return kind(num_domains=len(recipe.model.domains), latent_dim=recipe.model.latent_dim)


def _num_blocks(tensors: Mapping[str, Tensor], prefix: str) -> int:
    """How many blocks of a spectral network tensors are of; 0 for a convolutional one."""
    return sum(key.startswith(prefix) and key.endswith(".scale") for key in tensors)


def _looked_at(in_weight: Tensor, out_weight: Tensor, codebook: Tensor) -> Tensor:
    """What a direction of the latent weighs for the quantizer of each domain, `[N, D, D]`.

    Each codebook looks at a few directions, and weighs as much as what it adds has power.

    Shape: `[N, K, d, D]`, `[N, K, D, d]`, `[N, K, V, d]`
    """
    import torch

    power = torch.einsum("nkDd,nkvd->nkvD", out_weight, codebook).square().sum(-1).mean(-1)
    return torch.einsum("nk,nkdD,nkdE->nDE", power / in_weight.square().sum((2, 3)), in_weight, in_weight)


def _with_blocks(tensors: Mapping[str, Tensor], prefix: str, count: int) -> dict[str, Tensor]:
    """Tensors of a network of `count` blocks: of more than these have some or all are there several times, of fewer
    some are missing.
    """
    given = _num_blocks(tensors, prefix)
    if count in (0, given) or given == 0:
        return dict(tensors)
    sources = [number * given // count for number in range(count)]
    more = {key: value for key, value in tensors.items() if not key.startswith(prefix)}
    for key, value in tensors.items():
        if key.startswith(prefix):
            number, _, name = key.removeprefix(prefix).partition(".")
            copies = [copy for copy, source in enumerate(sources) if source == int(number)]
            for copy in copies:
                more[f"{prefix}{copy}.{name}"] = value / len(copies) if name == "scale" else value
    return more
