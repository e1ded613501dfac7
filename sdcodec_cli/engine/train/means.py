"""What is measured in every step, until it is written down."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...data.mixing import Trouble
from .distributed import Processes


class Means:
    """Means of what was added since they were last taken; tensors stay on their device until then."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}
        self.waited = 0.0
        self.steps = 0
        self.trouble = Trouble()

    def add(self, values: dict[str, Tensor]) -> None:
        """Count a step's values."""
        self.steps += 1
        for name, value in values.items():
            self.sums[name] = self.sums[name] + value.float() if name in self.sums else value.float()
            self.counts[name] = self.counts.get(name, 0) + 1

    def take(self, processes: Processes) -> tuple[dict[str, float], Trouble]:
        """Means over steps and processes, and the trouble of all processes; both start anew."""
        state = self.state(processes)
        means = {name: value / state["counts"][name] for name, value in state["sums"].items()}
        means["input_wait"] = state["waited"] / max(state["steps"], 1)
        trouble = Trouble(**state["trouble"])
        vars(self).update(vars(Means()))
        return means, trouble

    def state(self, processes: Processes) -> dict[str, Any]:
        """What a checkpoint keeps, whatever the number of processes; to be called by all of them.

        Sums over steps are means over processes, and trouble is that of all.
        """
        trouble = vars(self.trouble)
        values = [*(float(value) for value in self.sums.values()), self.waited, *trouble.values()]
        if processes.world_size > 1:
            values = processes.sum(torch.tensor(values, dtype=torch.float32, device=processes.device)).tolist()
        *sums, waited = (value / processes.world_size for value in values[: len(self.sums) + 1])
        return {
            "sums": dict(zip(self.sums, sums, strict=True)),
            "counts": dict(self.counts),
            "steps": self.steps,
            "waited": waited,
            "trouble": {name: int(value) for name, value in zip(trouble, values[len(sums) + 1 :], strict=True)},
        }

    def load_state(self, state: dict[str, Any], processes: Processes) -> None:
        """Go on from a `state`; its trouble is the first process's."""
        self.counts, self.steps = dict(state["counts"]), state["steps"]
        self.sums = {name: torch.tensor(value) for name, value in state["sums"].items()}
        self.waited = state["waited"]
        self.trouble = Trouble(**state["trouble"]) if processes.is_first else Trouble()
