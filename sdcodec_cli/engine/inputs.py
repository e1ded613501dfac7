"""Which files are meant by the names of inputs: files, folders that are searched, and standard input."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from ..audio import READ_SUFFIXES
from ..bitstream import Reader
from ..errors import InputError, SdcError
from .stems import named

STREAM_SUFFIXES = frozenset({".sdc"})
AUDIO_SUFFIXES = READ_SUFFIXES
TOKENS_SUFFIXES = frozenset({".npz", ".safetensors", ".parquet", ".jsonl"})
MADE = frozenset({"decoded", "extended", "enhanced", "exchanged", "converted"})
"""What stands before the suffix of files that commands make of others; stems do so, too."""
_UNREAD_SUFFIXES = frozenset(
    {".m4p", ".aa", ".aax", ".ra", ".rm", ".rmvb", ".mpc", ".mp+", ".spx", ".tak", ".shn", ".ofr", ".dsf", ".dff"}
    | {".gsm", ".awb", ".qcp", ".sd2", ".thd", ".mlp", ".dtshd", ".mid", ".midi", ".mod", ".xm", ".it", ".s3m"}
    | {".mxf", ".ogm", ".f4v", ".divx", ".dv", ".m2v", ".swf", ".wtv", ".nut", ".braw", ".r3d"}
)
"""Audio and films that `sdc` does not read; a search of a folder leaves them out, and says so."""


@dataclass(frozen=True)
class Input:
    """A file to be read, or standard input."""

    name: str
    """As the user named it; a file found in a folder begins with the name of the folder."""
    inside: Path
    """Its folder, relative to the one that was searched."""


@dataclass(frozen=True)
class Found:
    """What names of inputs stand for."""

    inputs: list[Input]
    """Each file once."""
    failures: list[SdcError]
    """About what is not there, or cannot be looked into."""
    notes: list[str]
    """What was left out of folders, for people."""


def find_inputs(inputs: Sequence[str], suffixes: frozenset[str]) -> tuple[list[str], list[SdcError]]:
    """Files named, files with one of `suffixes` in folders named (searched recursively), and `-`; each once.

    Raises:
        ValueError: standard input is named twice.
    """
    found = search(inputs, suffixes)
    return [each.name for each in found.inputs], found.failures


def search(
    inputs: Sequence[str],
    suffixes: frozenset[str],
    made: Collection[str] = (),
    *,
    whole_folders: bool = False,
) -> Found:
    """What `inputs` stand for, see `find_inputs`.

    Args:
        inputs: files, folders, `-`
        suffixes: of the files that are looked for in folders
        made: kinds of audio that are left out of folders where their origin lies beside them, see `MADE`
        whole_folders: a folder is an input, and is not searched

    Raises:
        ValueError: a name is empty, standard input is named twice, or is a terminal.
    """
    if "" in inputs:
        raise ValueError("the name of an input is empty; name a file, a folder, or - for standard input")
    if inputs.count("-") > 1:
        raise ValueError("standard input can be read only once; name - once")
    if "-" in inputs and sys.stdin.isatty():
        raise ValueError("refusing to read from the terminal; pipe something in, or name a file")
    sources: list[Input] = []
    failures: list[SdcError] = []
    notes: list[str] = []
    seen: set[str] = set()
    for given in inputs:
        if given == "-":
            sources.append(Input(given, Path()))
        elif os.path.isdir(given) and not whole_folders:
            unreadable: list[SdcError] = []
            unread: list[Path] = []
            everything = list(_below(Path(given), suffixes, unreadable, unread))
            failures += unreadable
            if unread and suffixes >= AUDIO_SUFFIXES:
                notes.append(
                    f"{given}: left out what sdc does not read there, {len(unread)} in all, such as {unread[0].name}; "
                    "name a file to try it, or convert it first"
                )
            found = [path for path in everything if not _made_of_another(path, made)]
            if len(found) < len(everything):
                example = next(path.name for path in everything if path not in found)
                notes.append(
                    f"{given}: left out what sdc made of others there, {len(everything) - len(found)} in all, such as "
                    f"{example}; name a file to take it along"
                )
            if suffixes > AUDIO_SUFFIXES:
                coded = [path for path in found if _is_coded(path)]
                found = [path for path in found if path not in coded]
                if coded:
                    notes.append(
                        f"{given}: left out audio whose .sdc file lies beside it, {len(coded)} in all, such as "
                        f"{coded[0].name}; name a file to take it along"
                    )
            if not everything and not unreadable:
                failures.append(InputError(f"{given}: no {_names(suffixes)} in this folder; name a file"))
            sources += (Input(str(path), path.parent.relative_to(given)) for path in found)
        elif os.path.exists(given):
            sources.append(Input(given, Path()))
        else:
            failures.append(InputError(f"{given}: no such file; check the name"))
    unique = []
    for source in sources:
        place = source.name if source.name == "-" else os.path.realpath(source.name)
        if place not in seen:
            seen.add(place)
            unique.append(source)
    return Found(unique, failures, notes)


def _below(folder: Path, suffixes: frozenset[str], unreadable: list[SdcError], unread: list[Path]) -> Iterator[Path]:
    """Files below a folder in the order of their names; hidden ones (`._a.wav` of macOS) are left out.

    Folders that cannot be looked into are added to `unreadable`, and files that only look like audio to `unread`.
    """

    def note(error: OSError) -> None:
        unreadable.append(InputError(f"{error.filename}: cannot be read: {error.strerror}; check its permissions"))

    for root, folders, files in os.walk(folder, onerror=note):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if name.startswith("."):
                continue
            suffix = Path(name).suffix.lower()
            if suffix in suffixes:
                yield Path(root, name)
            elif suffix in _UNREAD_SUFFIXES:
                unread.append(Path(root, name))


def _made_of_another(path: Path, made: Collection[str]) -> bool:
    """Whether a file has the name of audio that `sdc` writes, as `a.decoded.wav`, and its origin lies beside it."""
    origin, _, kind = path.stem.rpartition(".")
    parts = named(kind)  # of what is called `without-speech` as well
    if not origin or not parts or not set(parts) <= set(made):
        return False
    return any(
        os.path.lexists(path.with_name(origin + written))  # recorders write `A.WAV`
        for suffix in (*STREAM_SUFFIXES, *AUDIO_SUFFIXES)
        for written in (suffix, suffix.upper())
    )


def _is_coded(path: Path) -> bool:
    """Whether a file is audio and its `.sdc` file lies beside it."""
    return path.suffix.lower() not in STREAM_SUFFIXES and path.with_suffix(".sdc").is_file()


def _names(suffixes: frozenset[str]) -> str:
    if suffixes > AUDIO_SUFFIXES:
        return "audio or .sdc files"
    return {STREAM_SUFFIXES: ".sdc files", TOKENS_SUFFIXES: "files of tokens"}.get(frozenset(suffixes), "audio files")


@contextlib.contextmanager
def opened_file(source: str | Path) -> Iterator[BinaryIO]:
    """A file for reading, or standard input.

    Raises:
        InputError: it cannot be opened
    """
    if str(source) == "-":
        yield cast(BinaryIO, sys.stdin.buffer)
        return
    try:
        file = open(source, "rb")  # noqa: SIM115 (closed below; only the opening may raise an InputError)
    except IsADirectoryError as error:
        raise InputError(f"{source}: is a folder; name a file in it") from error
    except FileNotFoundError as error:
        raise InputError(f"{source}: no such file; check the name") from error
    except OSError as error:
        raise InputError(f"{source}: cannot be read: {error.strerror}; check its permissions") from error
    with file:
        yield file


def domains_of(source: str) -> tuple[str, ...]:
    """Names of the domains in a `.sdc` file.

    Raises:
        InputError: it cannot be opened; StreamError: it is not a usable stream.
    """
    try:
        with open(source, "rb") as file:
            return Reader(file, source).header.stems
    except OSError as error:
        raise InputError(f"{source}: cannot be read: {error.strerror}; check its permissions") from error
