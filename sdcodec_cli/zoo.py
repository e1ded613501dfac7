"""Find a model by name or folder, check and load its weights; import other projects' checkpoints."""

from __future__ import annotations

from .nn.autoencoder import ConvDecoder, ConvEncoder
from .nn.quantize import MultiSourceRVQ
from .nn.sdcodec import SDCodec
from .nn.spectral import SpectralDecoder, SpectralEncoder
from .recipe import NetworkFields, Recipe


def build(recipe: Recipe) -> SDCodec:
    """The network that a recipe describes, with random weights."""
    model, quantizer = recipe.model, recipe.quantizer
    return SDCodec(
        domains=model.domains,
        hop_length=model.hop_length,
        latent_dim=model.latent_dim,
        activity=model.activity,
        encoder=_encoder(recipe.encoder, recipe),
        decoder=_decoder(recipe.decoder, recipe),
        quantizer=MultiSourceRVQ(
            num_domains=len(model.domains),
            num_codebooks=quantizer.num_codebooks,
            num_shared=quantizer.num_shared,
            codebook_size=quantizer.codebook_size,
            codebook_dim=quantizer.codebook_dim,
            latent_dim=model.latent_dim,
        ),
    )


def _encoder(fields: NetworkFields, recipe: Recipe) -> ConvEncoder | SpectralEncoder:
    latent_dim, hop_length = recipe.model.latent_dim, recipe.model.hop_length
    if fields.kind == "conv":
        return ConvEncoder(width=fields.width, strides=fields.strides, latent_dim=latent_dim)
    return SpectralEncoder(
        window_length=fields.window_length,
        hop_length=hop_length,
        width=fields.width,
        depth=fields.depth,
        latent_dim=latent_dim,
    )


def _decoder(fields: NetworkFields, recipe: Recipe) -> ConvDecoder | SpectralDecoder:
    latent_dim, hop_length = recipe.model.latent_dim, recipe.model.hop_length
    if fields.kind == "conv":
        return ConvDecoder(
            width=fields.width, strides=fields.strides, latent_dim=latent_dim, upsampling=fields.upsampling
        )
    return SpectralDecoder(
        window_length=fields.window_length,
        hop_length=hop_length,
        width=fields.width,
        depth=fields.depth,
        latent_dim=latent_dim,
    )
