"""What one output holds, by its name: a stem, the sum of some stems, all but some of them, or the mix of all."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from ..errors import InputError

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


def check_stems(source: str, domains: Sequence[str], stems: Collection[str], gains: Collection[str]) -> None:
    """Raise an InputError unless a file with these domains has all of `stems`, sums among them, and `gains`."""
    shown = "stdin" if source == "-" else source
    for output in stems:
        if output == "all":
            continue
        for name in named(output):
            if name not in domains:
                raise InputError(f"{shown}: has no {name}; choose from {', '.join(domains)}, mix, all")
        try:
            stems_in(output, domains)
        except ValueError as error:
            raise InputError(f"{shown}: {error}") from error
    for name in gains:
        if name not in (*domains, "mix"):
            raise InputError(f"{shown}: has no {name}; choose from {', '.join(domains)}, mix")
