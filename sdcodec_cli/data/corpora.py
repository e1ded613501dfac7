"""Where the audio of a data root is: each file's domain and split, from the names of the folders it lies in.

Corpora may lie side by side and some folders below the root. Understood are

- folders named like the domains, with or without folders `train`, `valid`, `test` around or directly inside of them;
- DNS Challenge 4 and 5, full band (arXiv:2303.11510): `clean_fullband` (also unpacked as `mnt/dnsv5/clean`) is speech,
  `noise_fullband` sfx, `impulse_responses` nothing;
- MTG-Jamendo: MP3 files in folders `00` to `99` are music;
- MUSAN (arXiv:1510.08484): `speech`, `music`, and beside them `noise`, which is sfx;
- the noise of WHAM! (arXiv:1907.01160): `wham_noise/{tr,cv,tt}` is sfx;
- DnR v2 (arXiv:2110.09958): `{tr,cv,tt}/<id>/` with `mix.wav` and the stems.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ..audio import LIBSNDFILE_SUFFIXES
from ..errors import InputError

SPLITS = {
    **dict.fromkeys(("train", "tr"), "train"),
    **dict.fromkeys(("valid", "val", "cv"), "valid"),
    **dict.fromkeys(("test", "tt"), "test"),
}
"""Splits by the names that folders have for them. A corpus without splits is `train`."""

# Inside of a domain's folder `tr`, `cv` and `tt` are more likely Turkish, Chuvash and Tatar.
_WORDS = {name: split for name, split in SPLITS.items() if len(name) > 2}
_MARKS = {"clean_fullband": "speech", "dnsv5/clean": "speech", "noise_fullband": "sfx", "wham_noise": "sfx"}
_IGNORED = "impulse_responses"
_MAX_DEPTH = 8  # folders below the root in which a corpus is looked for

_UNDERSTOOD = (
    "folders named like the domains, within train, valid and test or not; DNS Challenge (clean_fullband, "
    "noise_fullband); MTG-Jamendo (00 ... 99 of mp3); MUSAN (speech, music, noise); WHAM! noise (wham_noise); "
    "DnR (tr/<id>/mix.wav)"
)


class AudioFile(NamedTuple):
    """A file that is audio by its name; nothing of it has been read."""

    path: str
    """Relative to the root, with `/`."""
    domain: str
    split: str
    """`train`, `valid` or `test`."""
    size: int
    """In bytes."""
    mtime_ns: int


class _Folder(NamedTuple):
    path: str
    inside: str
    """The path below the root, with a slash at its end; empty for the root."""
    domain: str | None
    split: str | None
    splits: Mapping[str, str]
    """Splits by the names of subfolders that may still decide on one."""
    depth: int
    parents: tuple[tuple[int, int], ...]
    """Device and inode of the folders above."""


def find_audio(root: Path, domains: Sequence[str], *, needed: Sequence[str] | None = None) -> Iterator[AudioFile]:
    """Every audio file below a root whose folders say what it is, in the order of the folders' names.

    Hidden files and folders are left out. Links are followed; what can be reached in several ways is found once.

    Args:
        root: the folder
        domains: that are looked for
        needed: those of them that have to be there; by default all

    Raises:
        InputError: the root or a folder of a domain cannot be read; or, at the end, there was nothing for a domain that
            is needed
    """
    missing = set(domains if needed is None else needed)
    seen: set[tuple[int, int]] = set()
    name = os.path.basename(os.path.realpath(root))
    start = _Folder(str(root), "", None, None, SPLITS, 0, ())
    mark = _MARKS.get(name)
    if mark in domains:
        start = start._replace(domain=mark, splits=SPLITS if name == "wham_noise" else {})
    stack = [start]
    while stack:
        folder = stack.pop()
        try:
            status = os.stat(folder.path)
            identity = (status.st_dev, status.st_ino)
            if identity in folder.parents or identity in seen:
                continue
            subfolders, files = _list(folder.path)
        except OSError as error:
            if folder.domain is None and folder.depth:
                continue  # such as lost+found
            raise InputError(
                f"{folder.path}: cannot be read: {error.strerror}; check its name and permissions"
            ) from error
        if folder.domain is not None:
            seen.add(identity)
        for file in _take(folder, files, domains):
            missing.discard(file.domain)
            yield file
        if folder.domain is not None or folder.depth < _MAX_DEPTH:
            parents = (*folder.parents, identity)
            entered = (_enter(folder, name, subfolders, domains, parents) for name in sorted(subfolders, reverse=True))
            stack += [inner for inner in entered if inner is not None]
    if missing:
        lacking = ", ".join(domain for domain in domains if domain in missing)
        raise InputError(f"{root}: no audio files of {lacking}; understood are {_UNDERSTOOD}")


def _list(path: str) -> tuple[set[str], list[tuple[str, int, int]]]:
    """Names of subfolders; name, size and time of the audio files in order."""
    subfolders, files = set(), []
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if os.path.splitext(entry.name)[1].lower() in LIBSNDFILE_SUFFIXES and entry.is_file():
                status = entry.stat()
                files.append((entry.name, status.st_size, status.st_mtime_ns))
            elif entry.is_dir():
                subfolders.add(entry.name)
    return subfolders, sorted(files)


def _take(folder: _Folder, files: list[tuple[str, int, int]], domains: Sequence[str]) -> Iterator[AudioFile]:
    """The files in a folder that belong to a domain."""
    split = folder.split or "train"
    if folder.domain is not None:
        chosen = {name: folder.domain for name, _, _ in files}
    elif any(name == "mix.wav" for name, _, _ in files):
        chosen = {f"{domain}.wav": domain for domain in domains}
    elif "music" in domains and re.fullmatch(r"\d\d", os.path.basename(folder.path)):
        chosen = {name: "music" for name, _, _ in files if name.lower().endswith(".mp3")}
    else:
        return
    for name, size, mtime_ns in files:
        if name in chosen:
            yield AudioFile(folder.inside + name, chosen[name], split, size, mtime_ns)


def _enter(
    folder: _Folder, name: str, siblings: set[str], domains: Sequence[str], parents: tuple[tuple[int, int], ...]
) -> _Folder | None:
    """A subfolder, with the domain and split that its name tells; None for one that holds nothing of use."""
    inner = folder._replace(
        path=os.path.join(folder.path, name), inside=f"{folder.inside}{name}/", depth=folder.depth + 1, parents=parents
    )
    if name == _IGNORED:
        return None
    mark = _MARKS.get(name) or _MARKS.get(f"{os.path.basename(folder.path)}/{name}")
    if mark in domains:  # whatever the folders above are called
        return inner._replace(domain=mark, splits=SPLITS if name == "wham_noise" and not folder.split else {})
    if name in folder.splits:
        return inner._replace(split=folder.splits[name], splits={})
    if folder.domain is not None:
        return inner._replace(splits={})
    if name == "noise" and {"speech", "music"} <= siblings and "sfx" in domains:
        return inner._replace(domain="sfx", splits={})
    if name in domains:
        return inner._replace(domain=name, splits={} if folder.split else _WORDS)
    return inner
