"""Tables for range-coded codes, made from audio: a small network for each stream of a model learns its codes.

Legend: K codebooks, B segments, F frames.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ... import weights, zoo
from ...bitstream import DomainEntry
from ...bitstream.packing import packed_bytes
from ...data.mixing import draw, mix
from ...data.pool import Pool, find_manifest, open_pool
from ...errors import ModelError
from ...families import of
from ...nn.prediction import CodePredictor, frequencies
from ...prediction import Coded, CodeTables
from ...prediction.tables import WEIGHTS
from ...progress import Progress
from ...recipe import MixingFields
from ..codec import Codec, load_codec
from ..stream import BLOCK_SEGMENTS, SEGMENT_FRAMES

BATCH = 8
"""Segments in a step."""

LEARNING_RATE = 5e-4
DECAY = 0.01
"""Of what entries have of their own, in a step at the full learning rate."""

WARMUP = 0.15
"""Share of the steps in which the learning rate rises; then it falls to zero."""

HELD_OUT = 0.1
"""Share of the audio that says how good tables are, and has no part in making them."""


@dataclass(frozen=True, kw_only=True)
class CodeTablesResult:
    """Tables that were made."""

    folder: str
    """Of the model."""
    tables_sha256: str
    """In hexadecimal."""
    size_bytes: int
    bits: dict[str, tuple[float, ...]]
    """What a code costs by stream and codebook, in bits, on audio that was held out."""
    raw_bits: dict[str, int]
    """What it costs without tables."""
    saved: float
    """Share of the bytes of all chunks of that audio that tables save."""


Segments = dict[str, NDArray[np.int64]]
"""Codes of segments by stream, `[B, K, F]`."""


def make_tables(
    model: str | Path,
    data_root: Path,
    *,
    minutes: float,
    passes: int,
    seed: int = 0,
    report: Callable[[str], None] = lambda message: None,
    progress: Progress | None = None,
) -> CodeTablesResult:
    """Make tables for a model of audio mixed as in its training, and put them into its folder.

    Files that were coded with tables that the folder had can still be decoded: it keeps those.

    Args:
        model: name or folder
        data_root: a manifest or a folder of audio, as for training
        minutes: of audio to code, half of it at the model's own effort, half at 0
        passes: over the codes of it
        seed: of everything that is random
        report: takes a line about what takes long
        progress: hears of percent of the work

    Raises:
        ModelError: no such model, or one without weights, without codes, or with codebooks that tables are not for
        InputError: there is no audio
        OutputError: the model's folder cannot be written
    """
    codec = load_codec(model)
    entry = zoo.find(model)
    vectors = _vectors(entry, codec)
    groups = {
        name: DomainEntry(name=name, num_codebooks=len(each), codebook_size=2).groups for name, each in vectors.items()
    }
    domains = entry.recipe.sources
    manifest = find_manifest(data_root, domains, kept=None, jobs=1, report=report)
    split = "train" if all(len(manifest.rows(domain, "train")) for domain in domains) else None
    pool = open_pool(manifest, split=split, domains=domains, sample_rate=codec.sample_rate, report=report)
    report(f"{minutes:g} minutes of audio are coded")

    def heard(done: float, total: float | None, first: float) -> None:
        if progress and total:
            progress(first + 50 * done / total, 100)

    given = codes_of_mixtures(
        codec, pool, entry.recipe.mixing, minutes=minutes, seed=seed, progress=functools.partial(heard, first=0)
    )
    tensors, held_out = train_tables(
        given, vectors, groups, passes=passes, seed=seed, progress=functools.partial(heard, first=50), report=report
    )
    tables = CodeTables(tensors)
    zoo.replace_tables(entry.folder, tensors)
    return dataclasses.replace(
        measured(tables, held_out, groups, {name: each.shape[1] for name, each in vectors.items()}),
        folder=str(entry.folder),
        size_bytes=tables.num_bytes,
    )


def _vectors(entry: zoo.ModelEntry, codec: Codec) -> dict[str, NDArray[np.float32]]:
    """Entries of the codebooks of every stream, `[K, V, w]`."""
    stored = weights.unpack(weights.read(zoo.weights_path(entry)))
    vectors: dict[str, NDArray[np.float32]] = {}
    for (prefix, recipe), stage in zip(of(entry.recipe).codecs(entry.recipe).items(), codec.stages, strict=True):
        quantizer = f"{prefix}{of(recipe).decoding[0]}"
        own, shared = stored[f"{quantizer}own.codebook"], stored[f"{quantizer}shared.codebook"]
        for number, stream in enumerate(stage.streams):
            if stream.codebook_size & stream.codebook_size - 1:
                raise ModelError(
                    f"{entry.name}: has codebooks of {stream.codebook_size} entries; tables are for 2, 4, 8 … entries "
                    "only, and its codes stay raw"
                )
            # All streams of a model with one quantizer have that.
            each = own[min(number, len(own) - 1)] if own.size else own.reshape(0, *shared.shape[2:])
            vectors[stream.name] = np.concatenate([each, *shared])
    return vectors


def codes_of_mixtures(
    codec: Codec, pool: Pool, mixing: MixingFields, *, minutes: float, seed: int, progress: Progress | None = None
) -> Segments:
    """Codes of mixtures as in training, but of a block's length: those of domains that are in them.

    Refined codes are less alike than the encoder's own, and both are stored: every other mixture is coded either way.
    """
    ways = codec.at_effort(0), codec
    fields = dataclasses.replace(mixing, seconds=BLOCK_SEGMENTS * SEGMENT_FRAMES / codec.frame_rate)
    found: dict[str, list[NDArray[np.int64]]] = {stream.name: [] for stage in codec.stages for stream in stage.streams}
    count = max(2, math.ceil(60 * minutes / fields.seconds))
    for index in range(count):
        example = draw(pool, fields, seed=seed, index=index)
        stems = mix(
            torch.from_numpy(example.crops)[None],
            torch.from_numpy(example.active)[None],
            torch.from_numpy(example.targets)[None],
            torch.tensor([example.mix_target]),
            sample_rate=codec.sample_rate,
            peak=fields.peak,
        )
        active = [name for name, is_there in zip(pool.clips, example.active, strict=True) if is_there]
        known = [name for name in codec.domains if name in active] or list(codec.domains)
        codes = ways[index % 2].encode(stems.sum((0, 1)), active=known, normalize=False, envelope=False)
        for name, found_here in codes.codes.items():
            if codes.active[name].any():
                num_codebooks, num_frames = found_here.shape[1:]
                length = SEGMENT_FRAMES * codec.frames_of[name]
                whole = found_here[0, :, : num_frames // length * length].reshape(num_codebooks, -1, length)
                found[name].append(whole.transpose(1, 0, 2))
        if progress:
            progress((index + 1) * fields.seconds, count * fields.seconds)
    return {name: np.concatenate(each) for name, each in found.items() if each}


def train_tables(
    given: Segments,
    vectors: Mapping[str, NDArray[np.float32]],
    groups: Mapping[str, tuple[int, ...]],
    *,
    passes: int,
    seed: int,
    progress: Progress | None = None,
    report: Callable[[str], None] = lambda message: None,
) -> tuple[dict[str, NDArray[np.integer]], Segments]:
    """The tensors of tables, and the codes that were held out.

    Args:
        given: codes to learn from
        vectors: entries of the codebooks of each stream, `[K, V, w]`
        groups: codebooks of its layer groups
        passes: over the codes
        seed: of the networks and of the order of segments
        progress: hears of steps
        report: takes a line about each stream
    """
    tensors: dict[str, NDArray[np.integer]] = {WEIGHTS: frequencies()}
    held_out: Segments = {}
    num_steps = {name: max(1, passes * len(codes) // BATCH) for name, codes in given.items()}
    done = 0
    for number, (name, codes) in enumerate(given.items()):
        count = max(1, round(HELD_OUT * len(codes)))
        held_out[name] = codes[-count:]
        began = time.monotonic()
        with torch.random.fork_rng():
            torch.manual_seed(seed + number)
            predictor = CodePredictor(vectors[name], groups[name])
            places = predictor.places(codes[:-count])
            predictor.fit(places)

            def heard(step: int, before: int = done) -> None:
                if progress:
                    progress(before + step, sum(num_steps.values()))

            _train(predictor, places, num_steps[name], heard)
        done += num_steps[name]
        with torch.no_grad():
            bits = float(predictor.bits(predictor.places(held_out[name])).mean())
        report(f"{name}: {bits:.3f} bits a code, {time.monotonic() - began:.0f} s")
        tensors |= {f"{name}.{key}": tensor for key, tensor in predictor.whole_numbers().items()}
    return tensors, held_out


def _train(predictor: CodePredictor, places: torch.Tensor, num_steps: int, heard: Callable[[int], None]) -> None:
    own = {id(parameter) for parameter in predictor.of_entries}
    optimizer = torch.optim.AdamW(
        [
            {"params": predictor.of_entries, "weight_decay": DECAY / LEARNING_RATE},
            {"params": [each for each in predictor.parameters() if id(each) not in own], "weight_decay": 0.0},
        ],
        lr=LEARNING_RATE,
    )
    order: list[int] = []
    for step in range(num_steps):
        rate = min((step + 1) / (WARMUP * num_steps), (num_steps - step) / ((1 - WARMUP) * num_steps), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * rate
        if len(order) < BATCH:
            order += torch.randperm(len(places)).tolist()
        loss = predictor.bits(places[order[:BATCH]]).mean()
        del order[:BATCH]
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        heard(step + 1)


def measured(
    tables: CodeTables, given: Segments, groups: Mapping[str, tuple[int, ...]], sizes: Mapping[str, int]
) -> CodeTablesResult:
    """What tables save on codes that they were not made of.

    Args:
        tables: to measure
        given: codes
        groups: codebooks of the layer groups of each stream
        sizes: entries of its codebooks
    """
    coded = raw = 0
    bits, raw_bits = {}, {}
    for name, codes in given.items():
        raw_bits[name] = (sizes[name] - 1).bit_length()
        bits[name] = tuple(tables.bits(name, codes, groups[name]).tolist())
        segments = [Coded(each.shape[1], {name: each}) for each in codes]
        for chunks in tables.encode(segments, groups):
            for (_, group), data in chunks.items():
                most = packed_bytes(groups[name][group] * codes.shape[2], raw_bits[name])
                raw += most
                coded += min(most, len(data))
    return CodeTablesResult(
        folder="",
        tables_sha256=tables.sha256.hex(),
        size_bytes=tables.num_bytes,
        bits=bits,
        raw_bits=raw_bits,
        saved=1 - coded / raw,
    )
