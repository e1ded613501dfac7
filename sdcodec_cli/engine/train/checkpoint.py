"""Checkpoints of a run: whole or not there at all, the last few and the best.

`RUN/checkpoints/step-00001000.pt` holds everything that a run continues from; `RUN/best.pt` is another name of the one
that scored best on validation.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ...errors import ModelError, OutputError
from ...zoo import CHECKPOINTS

BEST = "best.pt"
_NAME = re.compile(r"step-(\d{8,})\.pt")


def step_of(path: Path) -> int | None:
    """The step that a checkpoint's name tells; None for other files."""
    match = _NAME.fullmatch(path.name)
    return int(match[1]) if match else None


def checkpoints(run: Path) -> list[Path]:
    """Checkpoints of a run, oldest first."""
    found = [path for path in (run / CHECKPOINTS).glob("step-*.pt") if step_of(path) is not None]
    return sorted(found, key=lambda path: step_of(path) or 0)


def newest(run: Path) -> Path:
    """The checkpoint to continue from.

    Raises:
        ModelError: there is none
    """
    found = checkpoints(run)
    if not found:
        raise ModelError(f"{run}: there is no run in this folder; make one with sdc train --out {run}")
    return found[-1]


def path_of(run: Path, step: int) -> Path:
    """Where the checkpoint of a step is."""
    return run / CHECKPOINTS / f"step-{step:08d}.pt"


def save(run: Path, state: dict[str, Any], *, keep: int) -> Path:
    """Write a checkpoint as a whole and remove those before the last `keep`; a crash leaves the previous ones.

    Raises:
        OutputError: it cannot be written, as on a full disk
    """
    path = path_of(run, state["step"])
    write_whole(path, lambda partial: _write(state, partial))
    for old in checkpoints(run)[:-keep]:
        old.unlink(missing_ok=True)
    return path


def mark_best(run: Path, path: Path) -> None:
    """Give a checkpoint the name of the best, under which it outlives its turn.

    Raises:
        OutputError: it cannot be written
    """

    def link(partial: Path) -> None:
        try:
            os.link(path, partial)
        except OSError:  # a file system without hard links
            import shutil

            shutil.copyfile(path, partial)

    write_whole(run / BEST, link)


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` make a file beside `path`, which then takes its place.

    Raises:
        OutputError: it cannot be written
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.unlink(missing_ok=True)
        write(partial)
        partial.replace(path)
    except (OSError, RuntimeError) as error:  # RuntimeError: torch's writer, on a short write
        reason = getattr(error, "strerror", None) or "the disk may be full"
        raise OutputError(f"{path}: cannot be written: {reason}; free some space and continue with --resume") from error
    finally:
        partial.unlink(missing_ok=True)


def _write(state: dict[str, Any], path: Path) -> None:
    with path.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())


def read(path: Path) -> dict[str, Any]:
    """What `save` wrote, on the CPU.

    Raises:
        ModelError: the file is missing or damaged
    """
    try:
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except OSError as error:
        raise ModelError(
            f"{path}: cannot be read: {error.strerror or error}; restore it, or its permissions"
        ) from error
    except Exception as error:  # torch's reader raises anything, KeyError included, on damaged files
        raise ModelError(
            f"{path}: is damaged and cannot be read; restore it, or remove it to continue from the checkpoint before it"
        ) from error
