"""An LSTM whose state begins at zero a fixed number of frames before each frame, so that it reaches no further.

DeCodec (arXiv:2509.09201) has an LSTM of two layers, or a BiLSTM where it looks ahead, whose state comes from the
beginning of the audio, or from both ends: no block of a long file could be coded by itself. Here a layer runs anew
for every frame, over the frames around it, all of these runs side by side; what it computes does not depend on where
blocks begin.

Legend: B batch, F frames, P frames that the first one's run begins before it, C channels, H width of a direction.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# torch's `scan` around it compiles what it is given, which cannot be traced with open axes.
from torch._higher_order_ops.scan import scan_op

from .tracing import is_for_graph


class _Direction(nn.Module):
    """One direction of a layer, forwards in time.

    Args:
        channels: C
        width: H
        context: P

    Shape: `[F, B, C]` to `[F, B, H]`
    """

    def __init__(self, *, channels: int, width: int, context: int) -> None:
        super().__init__()
        self.context = context
        self.input = nn.Linear(channels, 4 * width)
        self.recurrent = nn.Linear(width, 4 * width, bias=False)
        for parameter in self.parameters():  # as torch's own LSTM begins
            nn.init.uniform_(parameter, -1 / math.sqrt(width), 1 / math.sqrt(width))

    def forward(self, x: Tensor) -> Tensor:
        # What a frame says to the gates is the same in all runs. Before the first frame it is zero, bias included,
        # which leaves a state of zero as it is: runs that would begin there begin with the first frame.
        said = F.pad(self.input(x), (0, 0, 0, 0, self.context, 0))
        if is_for_graph():
            return _Recurrence.apply(said, self.recurrent.weight, self.context)
        hidden, cell = _begin(said, self.context)
        for step in range(self.context + 1):
            gates = said[step : step + x.shape[0]] + self.recurrent(hidden)
            hidden, cell = _step(gates, cell)
        return hidden


def _begin(said: Tensor, context: int) -> tuple[Tensor, Tensor]:
    """Hidden state and cell before all runs: `[P + F, B, 4 H]` to twice `[F, B, H]`."""
    state = torch.zeros_like(said[context:].chunk(4, dim=-1)[0])
    return state, state.clone()


def _step(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """One frame of all runs: `[F, B, 4 H]` and `[F, B, H]` to hidden state and cell, `[F, B, H]`."""
    write, keep, new, show = gates.chunk(4, dim=-1)  # torch's order
    cell = keep.sigmoid() * cell + write.sigmoid() * new.tanh()
    return show.sigmoid() * cell.tanh(), cell


class _Recurrence(torch.autograd.Function):
    """The loop of `_Direction` as an operation that graphs have, and its gradient towards what frames say to the gates.

    Written out step by step the loop would be most of a graph, and of torch's own gradient of `scan` none can be made.

    Shape: `[P + F, B, 4 H]` and weight `[4 H, H]` to `[F, B, H]`
    """

    @staticmethod
    def forward(ctx: Any, said: Tensor, weight: Tensor, context: int) -> Tensor:
        frames = torch.arange(said.shape[0] - context, device=said.device)
        keeps = ctx.needs_input_grad[0]

        def step(
            hidden: Tensor, cell: Tensor, number: Tensor, said: Tensor, matrix: Tensor, frames: Tensor
        ) -> tuple[Tensor, ...]:
            gates = said.index_select(0, frames + number) + hidden @ matrix
            return (*_step(gates, cell), *((gates, cell.clone()) if keeps else ()))

        steps = torch.arange(context + 1, device=said.device)
        hidden, _, *kept = scan_op(step, [*_begin(said, context)], [steps], (said, weight.t().contiguous(), frames))
        ctx.save_for_backward(weight, *kept)
        return hidden

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        weight, all_gates, cells = ctx.saved_tensors
        context = len(cells) - 1

        def step(
            to_hidden: Tensor, to_cell: Tensor, to_said: Tensor, gates: Tensor, before: Tensor, weight: Tensor
        ) -> tuple[Tensor, ...]:
            write, keep, new, show = gates.chunk(4, dim=-1)
            write, keep, new, show = write.sigmoid(), keep.sigmoid(), new.tanh(), show.sigmoid()
            shown = (keep * before + write * new).tanh()
            to_cell = to_cell + to_hidden * show * (1 - shown * shown)
            to_gates = torch.cat(
                [
                    to_cell * new * write * (1 - write),
                    to_cell * before * keep * (1 - keep),
                    to_cell * write * (1 - new * new),
                    to_hidden * shown * show * (1 - show),
                ],
                dim=-1,
            )
            # From the last step to the first, so what was added before moves on by a frame each time.
            to_said = F.pad(to_said[:-1], (0, 0, 0, 0, 1, 0)) + F.pad(to_gates, (0, 0, 0, 0, 0, context))
            return to_gates @ weight, to_cell * keep, to_said

        nothing = F.pad(torch.zeros_like(all_gates[0]), (0, 0, 0, 0, 0, context))
        begin = [gradient.contiguous(), torch.zeros_like(cells[0]), nothing]
        _, _, to_said = scan_op(step, begin, [all_gates.flip(0), cells.flip(0)], (weight,))
        return to_said, None, None


class _Layer(nn.Module):
    """One direction, or two of half the channels each: `[F, B, C]` to `[F, B, C]`."""

    def __init__(self, *, channels: int, context: int, causal: bool) -> None:
        super().__init__()
        width = channels if causal else channels // 2
        self.forwards = _Direction(channels=channels, width=width, context=context)
        self.backwards = None if causal else _Direction(channels=channels, width=width, context=context)

    def forward(self, x: Tensor) -> Tensor:
        if self.backwards is None:
            return self.forwards(x)
        return torch.cat([self.forwards(x), self.backwards(x.flip(0)).flip(0)], dim=-1)


class WindowedLSTM(nn.Module):
    """Layers of an LSTM around a skip connection, as EnCodec has them (arXiv:2210.13438), over windows of frames.

    Args:
        channels: C, even unless causal
        layers: one on top of the other
        context: frames before each frame, and behind it unless causal, that a layer computes the frame from
        causal: whether there is one direction, else two of half the channels each

    Shape: `[B, C, F]` to `[B, C, F]`
    """

    def __init__(self, *, channels: int, layers: int, context: int, causal: bool) -> None:
        super().__init__()
        self.context = context
        self.layers = nn.Sequential(*(_Layer(channels=channels, context=context, causal=causal) for _ in range(layers)))

    def forward(self, x: Tensor) -> Tensor:
        # Frames first: each step of the loop takes a stretch of memory as it is.
        return x + self.layers(x.permute(2, 0, 1)).permute(1, 2, 0)

    @property
    def context_frames(self) -> int:
        """Frames on each side that a frame depends on."""
        return len(self.layers) * self.context
