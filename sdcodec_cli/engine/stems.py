"""What one output holds, by its name: a stem, the sum of some stems, all but some of them, or the mix of all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

WITHOUT = "without-"
MIX = "mix"


def sum_of(stems: Iterable[str]) -> str:
    """Name of the sum of stems, such as `music+sfx`."""
    return "+".join(dict.fromkeys(stems))


def without(stems: Iterable[str]) -> str:
    """Name of the sum of all other stems, such as `without-speech`."""
    return WITHOUT + sum_of(stems)


def named(output: str) -> tuple[str, ...]:
    """The stems that the name of an output has in it; of the mix none."""
    return () if output == MIX else tuple(output.removeprefix(WITHOUT).split("+"))


def holds(output: str, stem: str) -> bool:
    """Whether a stem is in an output."""
    return (stem in named(output)) != (output == MIX or output.startswith(WITHOUT))


def stems_in(output: str, domains: Sequence[str]) -> tuple[str, ...]:
    """The stems that an output is the sum of, in the order of `domains`.

    >>> stems_in("without-speech", ("speech", "music", "sfx")), stems_in("music", ("speech", "music", "sfx"))
    (('music', 'sfx'), ('music',))

    Raises:
        ValueError: it has a stem that is not there, or leaves none
    """
    for stem in named(output):
        if stem not in domains:
            raise ValueError(f"has no {stem}; choose from {', '.join(domains)}")
    found = tuple(domain for domain in domains if holds(output, domain))
    if not found:
        raise ValueError(f"has nothing without {', '.join(domains)}; leave one of them")
    return found
