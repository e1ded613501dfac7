"""Watch which codebook entries are used, and put unused ones to work.

Legend: N streams, M rows, V entries, d codebook width, K codebooks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping

import torch
from torch import Tensor

from ...nn.quantize import MultiSourceRVQ, Observer, ParallelRVQ
from .distributed import Processes

INITIAL_ROUNDS = 4


class CodebookWatch:
    """Counts look-ups, on the device and in every process, and replaces entries that nothing is mapped to.

    Args:
        quantizers: whose codebooks to watch, by the part of the network they are in, all of the same domains
        processes: that train them together
    """

    def __init__(self, quantizers: Mapping[str, MultiSourceRVQ], processes: Processes) -> None:
        self.processes = processes
        self._parts: dict[str, ParallelRVQ] = {}
        for name, quantizer in quantizers.items():
            self._parts |= {_joined(name, "own"): quantizer.own, _joined(name, "shared"): quantizer.shared}
        device, self._domains = quantizer.own.codebook.device, quantizer.num_domains

        def zeros() -> dict[str, Tensor]:
            return {name: torch.zeros(rvq.codebook.shape[:3], device=device) for name, rvq in self._parts.items()}

        self._since_renewal, self._since_report = zeros(), zeros()

    def __call__(self, rvq: ParallelRVQ, index: int, projected: Tensor, indices: Tensor) -> None:
        """Count the look-ups of one codebook; an observer of `MultiSourceRVQ.forward`.

        Those of quantizers that are not watched do not count.
        """
        name = self._name(rvq)
        if name is None:
            return
        ones = torch.ones_like(indices, dtype=torch.float32)
        self._since_renewal[name][:, index].scatter_add_(1, indices, ones)
        self._since_report[name][:, index].scatter_add_(1, indices, ones)

    def _name(self, rvq: ParallelRVQ) -> str | None:
        return next((name for name, part in self._parts.items() if part is rvq), None)

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
        """Perplexity and number of unused entries of each codebook since the last report, by part and stream.

        Where nothing was looked up the perplexity is NaN.

        Streams are named `own 0`, `own 1`, …, `shared 0`, or `branches.1.own 0` and so on where quantizers are in parts
        of the network. To be called by all processes.
        """
        perplexity, dead = {}, {}
        for name, counts in self._collect(self._since_report).items():
            for stream, codebooks in enumerate(counts):
                share = codebooks / codebooks.sum(-1, keepdim=True).clamp_min(1)
                entropy = -(share * share.clamp_min(1e-12).log()).sum(-1)
                if len(codebooks):
                    looked_at = codebooks.sum(-1) > 0
                    perplexity[f"{name} {stream}"] = torch.where(looked_at, entropy.exp(), math.nan).tolist()
                    dead[f"{name} {stream}"] = (codebooks == 0).sum(-1).tolist()
        for counts in self._since_report.values():
            counts.zero_()
        return perplexity, dead

    def initialize(self, run: Callable[[Observer], object], seed: int, quantizers: Collection[str]) -> None:
        """Fill the codebooks with vectors that `run` looks up in them, so that they start at the right scale.

        What is looked up in a codebook depends on those before it, hence several rounds.
        """
        for round_ in range(INITIAL_ROUNDS):
            self.renew(run, seed + round_, quantizers)

    @torch.no_grad()
    def renew(self, run: Callable[[Observer], object], seed: int, quantizers: Collection[str] | None = None) -> int:
        """Replace every entry unused since the last call by something that was looked up in `run`.

        To be called by all processes; they choose the same among the look-ups of all.

        Args:
            run: does a forward pass with the observer it is given
            seed: of the choice
            quantizers: in which; in all of them by default

        Returns:
            how many entries were replaced
        """
        generator = torch.Generator().manual_seed(seed)
        counts = self._collect(self._since_renewal)
        chosen = {part for name in quantizers or () for part in (_joined(name, "own"), _joined(name, "shared"))}
        replaced = 0

        def replace(rvq: ParallelRVQ, index: int, projected: Tensor, indices: Tensor) -> None:
            nonlocal replaced
            name = self._name(rvq)
            if name is None or (quantizers is not None and name not in chosen):
                return
            # Rows are domain by domain; those of all processes are joined within each domain, example by example.
            rows = projected.reshape(self._domains, -1, projected.shape[-1]).transpose(0, 1)
            rows = self.processes.join(rows).transpose(0, 1).reshape(len(projected), -1, projected.shape[-1])
            for stream, candidates in enumerate(rows):
                dead = (counts[name][stream, index] == 0).nonzero()[:, 0]
                picked = torch.randint(0, len(candidates), (len(dead),), generator=generator).to(candidates.device)
                rvq.codebook[stream, index, dead] = candidates[picked].to(rvq.codebook.dtype)
                replaced += len(dead)

        run(replace)
        for mine in self._since_renewal.values():
            mine.zero_()
        return replaced


def _joined(part: str, name: str) -> str:
    return f"{part}.{name}" if part else name
