"""Find a model by name or folder, and write one.

A model is a folder: `recipe.toml`, `weights.safetensors` (plain tensors, weight norm folded), `graphs/` (its network
for ONNX Runtime, without weights), `CARD.md` and, where somebody keeps or makes them, `EXPERIMENTS.md` and
`tables.safetensors`, with which codes take fewer bytes. A model that replaced
another can decode the files of that: the metadata of `weights.safetensors` lists older weights of the same quantizers;
of other ones, `older/HASH/` has what decodes. The zoo is the folder `models/` of the repository, which a wheel carries
inside the package.

A model may refer to another one for its lowest codec: then that has the weights and graphs of it.

Finding and listing need neither torch nor numpy, so that `sdc models list` and shell completion are quick.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import ModelError, OutputError
from .recipe import Recipe, read_recipe, write_recipe

if TYPE_CHECKING:
    from .prediction import CodeTables

DEFAULT_MODEL = "sdcodec-16k-mini"
RECIPE, WEIGHTS, GRAPHS, CARD = "recipe.toml", "weights.safetensors", "graphs", "CARD.md"
TABLES = "tables.safetensors"
"""Tables of range-coded codes, see `prediction`. Those that were replaced are kept in `OLDER`, by their hash."""
EXPERIMENTS = "EXPERIMENTS.md"
"""Notes of whoever trained the model; kept when its folder is overwritten."""
OLDER, DECODER = "older", "decoder.safetensors"
"""Where a model keeps decoders of models that it replaced, a folder each, and their weights in such a folder."""
CHECKPOINTS = "checkpoints"
"""Folder by which a run of `sdc train` is told from a model."""


@dataclass(frozen=True)
class ModelEntry:
    """A model folder."""

    name: str
    folder: Path
    recipe: Recipe
    size_bytes: int | None
    """Size of the weights, or None where the folder has only a recipe."""

    @property
    def card(self) -> str | None:
        """Text of the model's card, or None."""
        path = self.folder / CARD
        return path.read_text(encoding="utf-8") if path.exists() else None

    @property
    def is_decoder(self) -> bool:
        """Whether it is what a model keeps of one that it replaced, and cannot encode."""
        return (self.folder / DECODER).is_file()

    @property
    def decodes(self) -> tuple[bytes, ...]:
        """SHA-256 of the older weights whose files its weights decode; of a decoder also, first, of those it is of.

        Raises:
            ModelError: the weights cannot be read
        """
        path = self.folder / (DECODER if self.is_decoder else WEIGHTS)
        if self.size_bytes is None:
            return ()
        try:
            with path.open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
                metadata = json.loads(file.read(min(length, self.size_bytes))).get("__metadata__", {})
            return tuple(bytes.fromhex(digest) for digest in metadata.get("decodes", "").split())
        except (OSError, ValueError, AttributeError) as error:
            raise ModelError(f"{path}: the weights cannot be read ({error}); restore or re-import them") from error

    def tables(self, sha256: bytes | None = None) -> CodeTables | None:
        """Its tables of range-coded codes; with a hash those, which it may have had before. None if there are none.

        Raises:
            ModelError: they cannot be read
        """
        if sha256 is None:
            return _read_tables(self.folder / TABLES)
        older = self.folder.parent if self.is_decoder else self.folder / OLDER
        for path in (self.folder / TABLES, older / _older_tables(sha256)):
            found = _read_tables(path)
            if found is not None and found.sha256 == sha256:
                return found
        return None

    @property
    def decoders(self) -> list[ModelEntry]:
        """Those that it keeps of models that it replaced."""
        return [_entry(path.parent) for path in sorted((self.folder / OLDER).glob(f"*/{DECODER}"))]

    def decoder_for(self, weights_sha256: bytes) -> ModelEntry:
        """What decodes files made with these weights: a decoder that it keeps for them, else the model itself."""
        return next((decoder for decoder in self.decoders if weights_sha256 in decoder.decodes), self)


def _read_tables(path: Path) -> CodeTables | None:
    if not path.is_file():
        return None
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    from .prediction import CodeTables

    try:
        return CodeTables(load_file(path))
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path}: the tables cannot be read ({error}); restore them, or sdc models tables") from error


def _older_tables(sha256: bytes) -> str:
    return f"tables-{sha256.hex()}.safetensors"


def stage_name(model: str, prefix: str) -> str:
    """Name of one stage of a model by itself, from how the names of its weights begin; a stream has 64 bytes for it."""
    suffix = f".{prefix.removesuffix('.')}"
    return model.encode()[: 64 - len(suffix.encode())].decode(errors="ignore") + suffix


def zoo_folder() -> Path:
    """Where the zoo is: in the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent
    installed = package / "zoo_data"
    return installed if installed.is_dir() else package.parent / "models"


def list_models() -> list[ModelEntry]:
    """Every model of the zoo, the default one first."""
    folders = sorted(path.parent for path in zoo_folder().glob(f"*/{RECIPE}"))
    return [
        _entry(folder) for folder in sorted(folders, key=lambda folder: (folder.name != DEFAULT_MODEL, folder.name))
    ]


def in_zoo(text: str) -> bool:
    """Whether a text stands for a model of the zoo, rather than for a folder."""
    return os.sep not in text and os.path.isfile(zoo_folder() / text / RECIPE)


def find(model: str | Path | None = None, *, family: str | None = None) -> ModelEntry:
    """A model by name (of the zoo) or by folder; None is the default model.

    What the zoo has is meant by a bare name, whatever lies in the working directory: `./NAME` is the folder.

    Raises:
        ModelError: neither a name of the zoo nor a model folder
        RecipeError: the folder's recipe does not parse, or is not of the `family` that is wanted
    """
    text = str(model or DEFAULT_MODEL)
    looks_like_path = not in_zoo(text) and (os.sep in text or os.path.isdir(text))
    folder = Path(text) if looks_like_path else zoo_folder() / text
    if not os.path.isfile(folder / RECIPE):
        if looks_like_path:
            raise ModelError(
                f"{text}: not a model folder (it has no {RECIPE}); give one made by sdc models import or export"
            )
        known = ", ".join(sorted(path.parent.name for path in zoo_folder().glob(f"*/{RECIPE}")))
        raise ModelError(f"{text}: no such model; the zoo has {known}, or give the path of a model folder")
    return _entry(folder, family)


def find_recipe(text: str) -> Recipe:
    """A recipe by file, or that of a model by name or folder.

    Raises:
        ModelError, RecipeError: see `find`
    """
    return read_recipe(Path(text)) if os.path.isfile(text) else find(text).recipe


def _entry(folder: Path, family: str | None = None) -> ModelEntry:
    path = folder / (DECODER if (folder / DECODER).is_file() else WEIGHTS)
    recipe = read_recipe(folder / RECIPE, family=family)
    return ModelEntry(recipe.name, folder, recipe, path.stat().st_size if path.is_file() else None)


def how_to_get_weights(recipe: Recipe) -> str:
    """Advice for a recipe that comes without them."""
    imported = " or import the published checkpoint (sdc models import CHECKPOINT -o DIR)"
    return f"train them (sdc train --recipe {recipe.name} --data-root DIR){imported if recipe.is_published else ''}"


def weights_path(entry: ModelEntry, *, decoding: bool = False) -> Path:
    """Where a model's weights are, or a `ModelError` that says how to get some; those of a decoder only do decode."""
    if entry.is_decoder and decoding:
        return entry.folder / DECODER
    if entry.is_decoder:
        raise ModelError(f"{entry.folder}: only decodes files of older weights; name another model for anything else")
    if entry.size_bytes is None and (entry.folder / CHECKPOINTS).is_dir():
        run = entry.folder
        raise ModelError(f"{run}: is a run; make a model of it first: sdc models export {run} -o MODEL")
    if entry.size_bytes is None:
        raise ModelError(f"{entry.name}: this recipe comes without weights; {how_to_get_weights(entry.recipe)}")
    return entry.folder / WEIGHTS


def check_weights(entry: ModelEntry, weights_sha256: bytes, expected: str) -> None:
    """Raise a `ModelError` unless a model that another refers to has the weights that are meant (hexadecimal)."""
    if weights_sha256.hex() != expected:
        raise ModelError(
            f"{entry.folder}: has other weights ({weights_sha256.hex()[:8]}) than the model above it was made for "
            f"({expected[:8]}); restore those, or train anew above these: --set branches.0.weights_sha256="
            f"{weights_sha256.hex()}"
        )


def write_model(
    folder: Path,
    recipe: Recipe,
    tensors: Mapping[str, Any],
    *,
    card: str,
    graphs: Mapping[str, bytes] | None = None,
    decodes: Sequence[bytes] = (),
    older: Mapping[str, bytes] | None = None,
    overwrite: bool = False,
) -> ModelEntry:
    """Write a model folder, as a whole or not at all.

    Args:
        folder: to make
        recipe: of the model
        tensors: its weights, arrays of numpy or torch
        card: text of the card
        graphs: files of the folder `graphs`, see `runtime.graphs`
        decodes: older weights whose files these weights decode, see `ModelEntry.decodes`
        older: files of the folder `older`, beside those that it has where it is replaced
        overwrite: replace an existing model folder

    Raises:
        OutputError: it exists and `overwrite` is off, or it cannot be written
    """
    check_new_model(folder, overwrite=overwrite)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            write_recipe(recipe, partial / RECIPE)
            (partial / WEIGHTS).write_bytes(weights_file(tensors, decodes))
            (partial / CARD).write_text(card, encoding="utf-8")
            if (folder / EXPERIMENTS).is_file():
                shutil.copyfile(folder / EXPERIMENTS, partial / EXPERIMENTS)
            if graphs is not None:
                _write_files(partial / GRAPHS, graphs)
            if kept := {**tables_to_keep(folder), **older_files(folder), **(older or {})}:
                _write_files(partial / OLDER, kept)
            _open_to_all(partial)
            _put_in_place(partial, folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise OutputError(f"{folder}: {error.strerror or error}; choose another -o") from error
    return _entry(folder)


def weights_file(tensors: Mapping[str, Any], decodes: Sequence[bytes] = ()) -> bytes:
    """A file of weights, arrays of numpy or torch, that says what it decodes, see `ModelEntry.decodes`."""
    import numpy as np
    from safetensors.numpy import save

    arrays = {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}
    data: bytes = save(arrays, {"decodes": " ".join(digest.hex() for digest in decodes)} if decodes else None)
    return data


def older_files(folder: Path) -> dict[str, bytes]:
    """All that a model folder has in its folder `older`."""
    older = folder / OLDER
    return {path.relative_to(older).as_posix(): path.read_bytes() for path in older.rglob("*") if path.is_file()}


def tables_to_keep(folder: Path) -> dict[str, bytes]:
    """A file for the folder `older`: the tables that a model folder has, if any."""
    tables = _read_tables(folder / TABLES)
    return {} if tables is None else {_older_tables(tables.sha256): (folder / TABLES).read_bytes()}


def replace_tables(folder: Path, tensors: Mapping[str, Any]) -> None:
    """Write the tables of a model folder; it keeps those that it has.

    Raises:
        OutputError: the folder cannot be written
    """
    try:
        for name, data in tables_to_keep(folder).items():
            (folder / OLDER).mkdir(exist_ok=True)
            (folder / OLDER / name).write_bytes(data)
        partial = folder / f".{TABLES}-partial"
        try:
            partial.write_bytes(weights_file(tensors))
            partial.replace(folder / TABLES)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: {error.strerror or error}; give a folder that can be written") from error


def replace_graphs(folder: Path, graphs: Mapping[str, bytes]) -> None:
    """Write the graphs of a model folder, as a whole or not at all.

    Raises:
        OutputError: the folder cannot be written
    """
    try:
        partial = Path(tempfile.mkdtemp(prefix=f".{GRAPHS}-", dir=folder))
        try:
            _write_files(partial / GRAPHS, graphs)
            _open_to_all(partial)
            _put_in_place(partial / GRAPHS, folder / GRAPHS)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise OutputError(f"{folder}: {error.strerror or error}; give a folder that can be written") from error


def _write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    folder.mkdir()
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def _open_to_all(folder: Path) -> None:
    """Temporary folders and safetensors are for their owner alone; a model is as readable as any other file."""
    mask = os.umask(0)
    os.umask(mask)
    for path in [folder, *folder.rglob("*")]:
        path.chmod((0o777 if path.is_dir() else 0o666) & ~mask)


def _put_in_place(partial: Path, folder: Path) -> None:
    """Give a folder another's name; what had it is there until then, and again if that fails."""
    before = partial.with_name(f"{partial.name}-before")
    if folder.exists():
        folder.rename(before)
    try:
        partial.rename(folder)
    except BaseException:
        if before.exists():
            before.rename(folder)
        raise
    shutil.rmtree(before, ignore_errors=True)


def check_new_model(folder: Path, *, overwrite: bool) -> None:
    """Raise an `OutputError` unless a model folder may be written there."""
    if folder.exists() and not overwrite:
        raise OutputError(f"{folder} exists; pass --force to overwrite it")
    if not folder.exists():
        return
    inside = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if not folder.is_dir() or (inside and RECIPE not in inside):
        raise OutputError(f"{folder}: is not a model folder, and will not be replaced by one; choose another -o")
    # A run has a recipe, too, and hours of work beside it.
    others = sorted(inside - {RECIPE, WEIGHTS, GRAPHS, CARD, EXPERIMENTS, TABLES, OLDER})
    others += sorted(str(path.relative_to(folder)) for path in (folder / GRAPHS).rglob("*") if not _is_graph(path))
    if others:
        raise OutputError(f"{folder}: has {others[0]} in it, which would be lost with the folder; choose another -o")


def _is_graph(path: Path) -> bool:
    return path.is_dir() or path.suffix in (".onnx", ".json")
