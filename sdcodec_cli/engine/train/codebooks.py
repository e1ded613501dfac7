"""Watch which codebook entries are used, and put unused ones to work.

Legend: N streams, M rows, V entries, d codebook width, K levels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ...nn.quantize import MultiSourceRVQ, Observer, ParallelRVQ
from .distributed import Processes

INITIAL_ROUNDS = 4


class CodebookWatch:
    """Counts look-ups, on the device and in every process, and replaces entries that nothing is mapped to.

    Args:
        quantizer: whose codebooks to watch
        processes: that train it together
    """

    def __init__(self, quantizer: MultiSourceRVQ, processes: Processes) -> None:
        self.quantizer, self.processes = quantizer, processes
        device = quantizer.own.codebook.device
        self._parts = {"own": quantizer.own, "shared": quantizer.shared}

        def zeros() -> dict[str, Tensor]:
            return {name: torch.zeros(rvq.codebook.shape[:3], device=device) for name, rvq in self._parts.items()}

        self._since_renewal, self._since_report = zeros(), zeros()

    def __call__(self, rvq: ParallelRVQ, level: int, projected: Tensor, indices: Tensor) -> None:
        """Count the look-ups of one level; an observer of `MultiSourceRVQ.forward`."""
        name = self._name(rvq)
        ones = torch.ones_like(indices, dtype=torch.float32)
        self._since_renewal[name][:, level].scatter_add_(1, indices, ones)
        self._since_report[name][:, level].scatter_add_(1, indices, ones)

    def _name(self, rvq: ParallelRVQ) -> str:
        return "own" if rvq is self.quantizer.own else "shared"

    def _collect(self, counts: dict[str, Tensor]) -> dict[str, Tensor]:
        """Counts of all processes together; the first process keeps them, the others begin anew."""
        everyone = {name: self.processes.sum(mine) for name, mine in counts.items()}
        for name, mine in counts.items():
            mine.copy_(everyone[name] if self.processes.is_first else torch.zeros_like(mine))
        return everyone

    def state(self) -> dict[str, dict[str, Tensor]]:
        """What a resumed run continues from; to be called by all processes."""
        return {"renewal": self._collect(self._since_renewal), "report": self._collect(self._since_report)}

    def load_state(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Go on from the `state` of another watch of the same quantizer."""
        for mine, theirs in ((self._since_renewal, state["renewal"]), (self._since_report, state["report"])):
            for name, counts in mine.items():
                counts.copy_(theirs[name])
                if not self.processes.is_first:
                    counts.zero_()

    def report(self) -> tuple[dict[str, list[float]], dict[str, list[int]]]:
        """Perplexity and number of unused entries of each level since the last report, by part and stream.

        Where nothing was looked up the perplexity is NaN.

        Streams are named `own 0`, `own 1`, …, `shared 0`. To be called by all processes.
        """
        perplexity, dead = {}, {}
        for name, counts in self._collect(self._since_report).items():
            for stream, levels in enumerate(counts):
                share = levels / levels.sum(-1, keepdim=True).clamp_min(1)
                entropy = -(share * share.clamp_min(1e-12).log()).sum(-1)
                if len(levels):
                    looked_at = levels.sum(-1) > 0
                    perplexity[f"{name} {stream}"] = torch.where(looked_at, entropy.exp(), math.nan).tolist()
                    dead[f"{name} {stream}"] = (levels == 0).sum(-1).tolist()
        for counts in self._since_report.values():
            counts.zero_()
        return perplexity, dead

    def initialize(self, run: Callable[[Observer], object], seed: int) -> None:
        """Fill the codebooks with vectors that `run` looks up in them, so that they start at the right scale.

        What is looked up in a codebook depends on those before it, hence several rounds.
        """
        for round_ in range(INITIAL_ROUNDS):
            self.renew(run, seed + round_)

    @torch.no_grad()
    def renew(self, run: Callable[[Observer], object], seed: int) -> int:
        """Replace every entry unused since the last call by something that was looked up in `run`.

        To be called by all processes; they choose the same among the look-ups of all.

        Args:
            run: does a forward pass with the observer it is given
            seed: of the choice

        Returns:
            how many entries were replaced
        """
        generator = torch.Generator().manual_seed(seed)
        counts = self._collect(self._since_renewal)
        domains = self.quantizer.num_domains
        replaced = 0

        def replace(rvq: ParallelRVQ, level: int, projected: Tensor, indices: Tensor) -> None:
            nonlocal replaced
            # Rows are domain by domain; those of all processes are joined within each domain, example by example.
            rows = projected.reshape(domains, -1, projected.shape[-1]).transpose(0, 1)
            rows = self.processes.join(rows).transpose(0, 1).reshape(len(projected), -1, projected.shape[-1])
            for stream, candidates in enumerate(rows):
                dead = (counts[self._name(rvq)][stream, level] == 0).nonzero()[:, 0]
                picked = torch.randint(0, len(candidates), (len(dead),), generator=generator).to(candidates.device)
                rvq.codebook[stream, level, dead] = candidates[picked].to(rvq.codebook.dtype)
                replaced += len(dead)

        run(replace)
        for mine in self._since_renewal.values():
            mine.zero_()
        return replaced
