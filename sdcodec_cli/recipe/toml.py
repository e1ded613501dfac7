"""Recipes out of TOML files and `--set` options, and back into files."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import sys
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from ..errors import RecipeError
from .fields import DEFAULT_FAMILY, Recipe

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def read_recipe(path: Path, *, family: str | None = None) -> Recipe:
    """Read and check a recipe file.

    Args:
        path: of the file
        family: the only one that is wanted; any by default

    Raises:
        RecipeError: not TOML, an unknown field (the nearest name is suggested), a value out of range, or another family
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"{path}: {error.strerror}; give the path of a recipe file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: not a TOML file: {error}") from error
    found = tables.get("family", DEFAULT_FAMILY)
    if family is not None and found != family:  # before anything of it is made: it could refer to whoever asks
        raise RecipeError(f"{path}: is of the family {found}; give a model of the family {family}")
    return make_recipe(tables, where=str(path))


def make_recipe(tables: Mapping[str, Any], *, where: str) -> Recipe:
    """A recipe from nested tables; `where` names their origin in errors, a `RecipeError` each."""
    if "name" not in tables:
        raise RecipeError(f'{where}: has no name; begin it with a line such as name = "mine"')
    try:
        tables = _of_today(tables)
        return typing.cast(Recipe, _build(recipe_class(tables.get("family", DEFAULT_FAMILY)), tables, ""))
    except (ValueError, TypeError) as error:
        raise RecipeError(f"{where}: {error}") from error


def recipe_class(family: object) -> type[Recipe]:
    """The recipes of a family, whose module is imported here, by its name.

    Raises:
        ValueError: there is no such family
    """
    families = importlib.import_module("..families", __package__)
    if family not in families.FAMILIES:
        raise ValueError(f"family must be one of {', '.join(families.FAMILIES)}; got {family!r}")
    kind: type[Recipe] = families.find(family).recipe
    return kind


def _of_today(tables: Mapping[str, Any]) -> Mapping[str, Any]:
    """Tables as they are written today: what was `training.parts` is a stage now."""
    training = tables.get("training")
    if not isinstance(training, Mapping) or "parts" not in training:
        return tables
    parts = training["parts"]
    if tables.get("stages"):
        raise ValueError("training.parts and [[stages]] say the same; leave training.parts out")
    if parts not in ("all", "activity"):
        raise ValueError(f"training.parts must be all or activity; got {parts!r}; name parts in [[stages]]")
    tables = {**tables, "training": {key: value for key, value in training.items() if key != "parts"}}
    if parts == "activity":
        tables["stages"] = [{"parts": ["activity"], "losses": ["activity"]}]
    return tables


def override(recipe: Recipe, settings: Mapping[str, str]) -> Recipe:
    """A copy with some fields set, as by `--set training.steps=1000`; values are written as in TOML.

    Raises:
        RecipeError: an unknown field or a value that does not fit
    """
    tables = dataclasses.asdict(recipe)
    for key, text in settings.items():
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text
        *path, last = key.split(".")
        table: Any = tables
        for part in path:
            table = table.setdefault(part, {}) if isinstance(table, dict) else _one_of(table, part, key)
            if not isinstance(table, dict | list | tuple):
                raise RecipeError(f"--set {key}: {part} has no fields")
        if not isinstance(table, dict):
            if last.isdigit():
                raise RecipeError(f"--set {key}: set a field of it, such as {key}.{_example(table)}")
            _one_of(table, last, key)
        table[last] = value
    return make_recipe(tables, where="--set")


def _one_of(tables: Any, number: str, key: str) -> Any:
    """One of several tables, by its number."""
    if not tables:
        raise RecipeError(f"--set {key}: the recipe has no {key.partition('.')[0]}; write them into a recipe file")
    if not number.isdigit() or int(number) >= len(tables):
        last = len(tables) - 1
        name = key.partition(".")[0]
        raise RecipeError(
            f"--set {key}: say which of the {len(tables)}, from 0 to {last}, as in {name}.{last}.{_example(tables)}"
        )
    return tables[int(number)]


def _example(tables: Any) -> str:
    """A field of one of several tables, by which to show how they are set."""
    fields = tables[0].items() if tables and isinstance(tables[0], dict) else ()
    return next((key for key, value in fields if isinstance(value, int)), "name")


def write_recipe(recipe: Recipe, path: Path) -> None:
    """Write every field, defaults included, so that the file says all there is to say."""
    tables = dataclasses.asdict(recipe)
    lines = [f"{key} = {_toml(value)}" for key, value in tables.items() if isinstance(value, str)]
    for name, content in tables.items():
        if isinstance(content, dict):
            lines += _table(f"[{name}]", name, content)
        for fields in content if isinstance(content, tuple) else ():
            lines += _table(f"[[{name}]]", name, fields)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _table(header: str, name: str, fields: Mapping[str, Any]) -> list[str]:
    """Lines of a table, and of the tables in it, which have to come last."""
    inner = {key: value for key, value in fields.items() if isinstance(value, dict)}
    lines = ["", header, *(f"{key} = {_toml(value)}" for key, value in fields.items() if key not in inner)]
    for key, value in inner.items():
        lines += _table(f"[{name}.{key}]", f"{name}.{key}", value)
    return lines


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return repr(value)


def _build(kind: type, table: Mapping[str, Any], prefix: str) -> Any:
    fields = {field.name for field in dataclasses.fields(kind)}
    hints = {name: hint for name, hint in typing.get_type_hints(kind).items() if name in fields}
    values = {}
    for key, value in table.items():
        if key not in hints:
            nearest = difflib.get_close_matches(key, hints, n=1)
            hint = f"; did you mean {prefix}{nearest[0]}?" if nearest else f"; known: {', '.join(hints)}"
            raise ValueError(f"unknown field {prefix}{key}{hint}")
        values[key] = _convert(hints[key], value, f"{prefix}{key}")
    for field in dataclasses.fields(kind):
        if field.name not in values and field.default is field.default_factory is dataclasses.MISSING:
            raise ValueError(f"{prefix}{field.name} is missing; it has no default")
    return kind(**values)


def _convert(hint: Any, value: Any, name: str) -> Any:
    origin = typing.get_origin(hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, Mapping):
            raise ValueError(f"{name} must be a table, got {value!r}")
        return _build(hint, value, f"{name}.")
    if origin is Literal:
        if value not in typing.get_args(hint):
            raise ValueError(f"{name} must be one of {', '.join(typing.get_args(hint))}; got {value!r}")
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ValueError(f"{name} must be a list, got {value!r}")
        kinds = typing.get_args(hint)
        if kinds[-1] is Ellipsis:
            kinds = kinds[:1] * len(value)
        elif len(kinds) != len(value):
            raise ValueError(f"{name} must have {len(kinds)} entries, got {len(value)}")
        return tuple(_convert(kind, entry, name) for kind, entry in zip(kinds, value, strict=True))
    if isinstance(hint, types.UnionType):
        tables = [kind for kind in typing.get_args(hint) if dataclasses.is_dataclass(kind)]
        if len(tables) < len(typing.get_args(hint)):
            raise TypeError(f"{name}: only tables may be of several kinds")
        keys = set(value) if isinstance(value, Mapping) else set()
        # The kind that a table has most fields of; the first one where that tells nothing.
        known = [len(keys & {field.name for field in dataclasses.fields(kind)}) for kind in tables]
        return _convert(tables[known.index(max(known))], value, name)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is not bool and isinstance(value, bool)):
        raise ValueError(f"{name} must be of type {hint.__name__}, got {value!r}")
    return value
