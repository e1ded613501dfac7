"""What training knows of a network: a forward pass, named losses, and what is chosen at random for its examples.

Legend: B batch, N domains, T samples, F frames, R rows, H numbers that a teacher says of a frame.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..quantize import MultiSourceRVQ, Observer

C = TypeVar("C", bound="Choices")


@dataclass(frozen=True)
class Choices:
    """What is random about a batch beside its audio; a family adds to it."""

    active: Tensor
    """Which domains each example has, bool `[B, N]`."""
    guide: Tensor | None = dataclasses.field(default=None, kw_only=True)
    """What a teacher says of the clean speech of each example, `[B, F, H]`, zeros where it says nothing; None without
    one."""

    def to(self: C, device: torch.device) -> C:
        """A copy on a device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self: C) -> C:
        """A copy that reaches a GPU without waiting; `DataLoader` asks for it."""
        return self._each(Tensor.pin_memory)

    def _each(self: C, change: Callable[[Tensor], Tensor]) -> C:
        given = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return dataclasses.replace(self, **{name: change(each) for name, each in given.items() if each is not None})


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters with an optimizer of their own."""

    name: str
    parameters: tuple[nn.Parameter, ...]
    learning_rate: float = 1.0
    """As a share of all others'."""
    muon: bool = False
    """Whether they are matrices for Muon, in recipes that want it."""


@dataclass(frozen=True)
class Estimate:
    """Audio that came out of a network, and what it should be, both `[B, T]`."""

    name: str
    estimate: Tensor
    reference: Tensor
    shown: bool = True
    """Whether the first ones go into the log, to be looked at and listened to."""


class Objective(nn.Module):
    """A network with everything that needs its weights in one forward pass, as distributed training wants it.

    Every loss is a sum over the outputs of an example, and a mean over examples (equation 9 of arXiv:2409.11228), so
    that it does not depend on how examples are spread over processes and micro-batches.

    Args:
        network: to train
        losses: the terms of this stage; all that have a weight if there are none
    """

    def __init__(self, network: nn.Module, losses: Iterable[str]) -> None:
        super().__init__()
        self.network = network
        self.named = frozenset(losses)

    def has(self, loss: str, weight: float = 1.0) -> bool:
        """Whether a term belongs to this stage."""
        return weight > 0 and (not self.named or loss in self.named)

    @property
    def renews_codebooks(self) -> bool:
        """Whether codebooks start from data, and unused entries are put to work."""
        return False

    @property
    def exchanges(self) -> bool:
        """Whether neighbouring examples exchange something, so that they should come in pairs."""
        return False

    @property
    def quantizers(self) -> Mapping[str, MultiSourceRVQ]:
        """Those that this stage trains, whose codebooks want to be watched, by the part of the network they are in."""
        return {}

    def forward(self, stems: Tensor, choices: Any, observe: Observer | None = None) -> dict[str, Tensor]:
        """Outputs by name, from stems `[B, N, T]`."""
        raise NotImplementedError

    def losses(self, outputs: dict[str, Tensor], stems: Tensor, choices: Any, step: int) -> dict[str, Tensor]:
        """The losses of a batch, by name, and their weighted sum as `total`; those of discriminators come on top."""
        raise NotImplementedError

    def compared(self, outputs: dict[str, Tensor], stems: Tensor, choices: Any) -> tuple[Any, Any]:
        """What the family's `Critic` compares: real rows and decoded ones, `[R, T]` each."""
        raise NotImplementedError

    def look_up(self, stems: Tensor, observe: Observer) -> None:
        """A forward pass as far as the quantizer, for an observer of its look-ups."""
        raise NotImplementedError
