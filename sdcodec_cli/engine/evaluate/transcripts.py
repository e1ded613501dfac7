"""How far what was heard is from what was said, in words or phonemes."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence


def edit_distance(said: Sequence[Hashable], heard: Sequence[Hashable]) -> int:
    """Fewest insertions, deletions and substitutions that make one of the other (Levenshtein, 1966).

    >>> edit_distance("sitting", "kitten")
    3
    """
    row = list(range(len(heard) + 1))
    for number, wanted in enumerate(said, 1):
        before, row = row, [number]
        for place, found in enumerate(heard):
            row.append(min(before[place] + (wanted != found), before[place + 1] + 1, row[place] + 1))
    return row[-1]


def words_of(text: str) -> list[str]:
    """Words of a text in lower case, without punctuation but for apostrophes within words.

    >>> words_of("It's — he said: 'late'.")
    ["it's", 'he', 'said', 'late']
    """
    return re.findall(r"[^\W_]+(?:'[^\W_]+)*", text.lower().replace("’", "'"))
