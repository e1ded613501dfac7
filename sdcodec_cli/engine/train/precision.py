"""The precision of the products in the networks, where a recipe leaves it to the machine (`auto`)."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

import torch

Precision = Literal["float32", "tf32", "bfloat16"]
Wanted = Literal["auto", Precision]

ROWS, INNER, COLUMNS = 256, 320, 960
"""Of the product that is measured: 5 s of audio in a block of the embedded model."""

SECONDS = 0.1
"""Time for the measurement of a kind; one product at least."""

ADVANTAGE = 1.25
"""How much faster products have to be in bfloat16 to make up for what is spent on going there and back."""


@dataclass(frozen=True)
class Choice:
    """A precision, and a line for people where it was not the recipe that said it."""

    precision: Precision
    line: str | None = None


def choose_precision(wanted: Wanted, device: str, so_far: Precision | None = None) -> Choice:
    """What a recipe asks for; for `auto` that of the run so far, or else what is fast on the device.

    Args:
        wanted: `training.precision`
        device: `cpu`, `cuda` or `mps`
        so_far: that of the run that is continued, which keeps it on any machine: in another its losses would be others
    """
    if wanted != "auto":
        return Choice(wanted)
    if so_far is not None:
        return Choice(so_far, f"precision: {so_far}, as in the run so far")
    if device == "cuda":
        # Not where it is emulated, which is slow.
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return Choice("bfloat16", "precision: bfloat16, which this GPU has")
        return Choice("float32", "precision: float32, as this GPU has no bfloat16")
    if device == "mps":
        # Only some chips have bfloat16, and torch does not tell which.
        return Choice("float32", "precision: float32, as on every mps device")
    full, half = product_seconds(torch.float32), product_seconds(torch.bfloat16)
    precision: Precision = "bfloat16" if half * ADVANTAGE <= full else "float32"
    return Choice(
        precision,
        f"precision: {precision}, as a product of matrices takes {1000 * full:.2f} ms in float32 and "
        f"{1000 * half:.2f} ms in bfloat16 on a core here",
    )


def product_seconds(dtype: torch.dtype) -> float:
    """Time of a product of two matrices on one core, the best of some.

    Several cores would wait for whichever something else is using, and tell more about that than about themselves.
    """
    one, other = torch.ones(ROWS, INNER, dtype=dtype), torch.ones(INNER, COLUMNS, dtype=dtype)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        torch.mm(one, other)  # sets things up
        times: list[float] = []
        while sum(times) < SECONDS:
            began = time.perf_counter()
            torch.mm(one, other)
            times.append(time.perf_counter() - began)
    finally:
        torch.set_num_threads(threads)
    return min(times)
