"""Checks of fields, each a `ValueError` that names the field."""

from __future__ import annotations

import math


def require(condition: bool, message: str) -> None:
    """Refuse with a message unless the condition holds."""
    if not condition:
        raise ValueError(message)


def require_range(name: str, values: float | tuple[float, ...], lowest: float, highest: float) -> None:
    """Every value must be a number between the two, which not-a-number never is."""
    for value in values if isinstance(values, tuple) else (values,):
        require(lowest <= value <= highest, f"{name} must be between {lowest:.9g} and {highest:.9g}, got {value}")


def require_positive(name: str, value: float) -> None:
    """A finite number above zero."""
    require(0 < value < math.inf, f"{name} must be positive and finite, got {value}")


def require_not_negative(name: str, value: float) -> None:
    """A finite number, zero or more."""
    require(0 <= value < math.inf, f"{name} must be finite and not negative, got {value}")


def require_averages(name: str, betas: tuple[float, float]) -> None:
    """Adam's two decays."""
    require(all(0 <= beta < 1 for beta in betas), f"{name} must be at least 0 and less than 1, got {list(betas)}")
