"""Decibels as the factors that they stand for."""

from __future__ import annotations

import math


def db_to_amplitude(db: float) -> float:
    """What samples are multiplied by to raise their level by `db` decibels.

    >>> db_to_amplitude(20), db_to_amplitude(0)
    (10.0, 1.0)
    """
    return 10 ** (db / 20)


def db_to_power(db: float) -> float:
    """The same for powers and energies, which are squares of samples.

    >>> db_to_power(20)
    100.0
    """
    return 10 ** (db / 10)


def amplitude_to_db(amplitude: float) -> float:
    """The way back from `db_to_amplitude`; nothing is −inf.

    >>> amplitude_to_db(10), amplitude_to_db(0)
    (20.0, -inf)
    """
    return 20 * math.log10(amplitude) if amplitude > 0 else -math.inf
