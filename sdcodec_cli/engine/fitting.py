"""Whether a model decodes a file, and how much of it."""

from __future__ import annotations

from ..bitstream import Header, Reader
from ..errors import InputError, ModelError
from .codec import Codec


def fitted(reader: Reader, name: str, codec: Codec, *, force_model: bool = False) -> tuple[Codec, Header]:
    """What decodes a file, and its header as far as that does; gives the reader the tables that it needs.

    Raises:
        ModelError: the codec's shape or its weights are not those of the file
    """
    model = codec.decoder_for(reader.header.weights_sha256)
    if reader.header.tables_sha256 is not None:
        reader.tables = model.tables(reader.header.tables_sha256)
    header = _as_far_as(reader.header, model)
    for part in header.of_parts:
        _check_shape(name, part, model)
    if not force_model:
        _check_weights(name, header, model)
    return model, header


def stages_below(source: str, header: Header, below: float | None) -> int:
    """How many stages are decoded for audio below a frequency in Hz."""
    if below is None:
        return len(header.stages)
    splits = [stage.sample_rate / 2 for stage in header.stages]
    if below not in splits:
        known = " or ".join(f"{split:g}" for split in splits)
        raise InputError(
            f"{source}: its sound can be cut off at {known} Hz only, not at {below:g}; give --below {splits[0]:g}, or "
            "leave it out"
        )
    return 1 + splits.index(below)


def _as_far_as(header: Header, codec: Codec) -> Header:
    """The header of a file as far as a model decodes it, which may have only the lower stages."""
    return next((lower for lower in header.by_lower_models if lower.weights_sha256 == codec.weights_sha256), header)


def _check_weights(source: str, header: Header, codec: Codec) -> None:
    if codec.weights_sha256 != header.weights_sha256 and not codec.decodes_older(header.weights_sha256):
        made, found = header.weights_sha256.hex()[:8], codec.weights_sha256.hex()[:8]
        raise ModelError(
            f"{source}: was made with weights {made}... of {header.model}, but {codec.name} has {found}...; name the "
            "right model with --model DIR, or pass --force-model to decode anyway"
        )


def _check_shape(source: str, header: Header, codec: Codec) -> None:
    """Raise a ModelError unless rates, domains and codebooks of the stream are those of the model."""
    known = {stream.name: (number, stream) for number, stage in enumerate(codec.stages) for stream in stage.streams}
    ours = [(stage.sample_rate, stage.hop_length) for stage in codec.stages]
    fits = [(stage.sample_rate, stage.hop_length) for stage in header.stages] == ours and all(
        entry.name in known
        and (entry.stage, entry.stem) == (known[entry.name][0], known[entry.name][1].stem)
        and entry.codebook_size == known[entry.name][1].codebook_size
        and entry.num_codebooks <= known[entry.name][1].num_codebooks
        for entry in header.domains
    )
    if not fits:
        raise ModelError(
            f"{source}: its codes do not fit {codec.name} (other rate, domains or codebooks); "
            f"it was made with {header.model}, name that model with --model"
        )
