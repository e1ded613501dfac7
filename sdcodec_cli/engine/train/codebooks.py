"""Watch which codebook entries are used, and put unused ones to work.

Legend: N streams, M rows, V entries, d codebook width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from ...nn.quantize import MultiSourceRVQ, Observer, ParallelRVQ

INITIAL_ROUNDS = 4


class CodebookWatch:
    """Counts look-ups and replaces entries that nothing is mapped to.

    Args:
        quantizer: whose codebooks to watch
    """

    def __init__(self, quantizer: MultiSourceRVQ) -> None:
        self.quantizer = quantizer
        self.counts = {rvq: torch.zeros(rvq.codebook.shape[:3]) for rvq in (quantizer.own, quantizer.shared)}

    def __call__(self, rvq: ParallelRVQ, level: int, projected: Tensor, indices: Tensor) -> None:
        """Count the look-ups of one level; an observer of `MultiSourceRVQ.forward`."""
        counts = self.counts[rvq]
        for stream, found in enumerate(indices.cpu()):
            counts[stream, level] += torch.bincount(found, minlength=counts.shape[-1])

    def load_counts(self, counts: Iterable[Tensor]) -> None:
        """Go on from the `counts` of another watch of the same quantizer, in their order."""
        for mine, theirs in zip(self.counts.values(), counts, strict=True):
            mine.copy_(theirs)

    def usage(self) -> float:
        """Share of all entries looked up at least once since the last `revive`."""
        used = sum(float((counts > 0).sum()) for counts in self.counts.values())
        return used / sum(counts.numel() for counts in self.counts.values())

    def initialize(self, run: Callable[[Observer], object], seed: int) -> None:
        """Make the codebooks of things that are looked up in `run`, so that they start at the right scale.

        What a level sees depends on the levels before it, hence several rounds.
        """
        for round_ in range(INITIAL_ROUNDS):
            self.revive(run, seed + round_)

    @torch.no_grad()
    def revive(self, run: Callable[[Observer], object], seed: int) -> int:
        """Replace every entry unused since the last call by something that was looked up in `run`.

        Args:
            run: does a forward pass with the observer it is given
            seed: of the choice

        Returns:
            how many entries were replaced
        """
        generator = torch.Generator().manual_seed(seed)
        replaced = 0

        def replace(rvq: ParallelRVQ, level: int, projected: Tensor, indices: Tensor) -> None:
            nonlocal replaced
            for stream, rows in enumerate(projected):
                dead = (self.counts[rvq][stream, level] == 0).nonzero()[:, 0]
                picked = torch.randint(0, len(rows), (len(dead),), generator=generator)
                rvq.codebook[stream, level, dead] = rows[picked].to(rvq.codebook.dtype)
                replaced += len(dead)

        run(replace)
        for counts in self.counts.values():
            counts.zero_()
        return replaced
