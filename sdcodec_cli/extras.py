"""Extras: packages that only some commands need, and how to install them."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Literal

from .errors import MissingExtra

MODULES = {
    "train": ("torch", "onnx", "onnxscript", "accelerate", "tensorboard", "pyarrow", "PIL", "scipy"),
    # Without ViSQOL there are scores, too; --visqol decides.
    "eval": ("scipy", "pyarrow"),
}
"""What each extra of pyproject.toml brings, by the names under which it is imported."""


def command(extra: Literal["train", "eval"]) -> str:
    """The command that installs an extra."""
    return f"pip install 'sdcodec-cli[{extra}]'"


def require(extra: Literal["train", "eval"], what: str, *, of_it: Sequence[str] | None = None) -> None:
    """Raise an error unless an extra is installed. Nothing is imported for that.

    Args:
        extra: its name in pyproject.toml
        what: what needs it, such as a command
        of_it: the modules that are needed; all that it brings by default

    Raises:
        MissingExtra: something of it is not installed
    """
    missing = [name for name in of_it or MODULES[extra] if find_spec(name) is None]
    if missing:
        raise MissingExtra(
            f"{what}: needs {', '.join(missing)}; {command(extra)}, or in a clone pip install '.[{extra}]'"
        )
