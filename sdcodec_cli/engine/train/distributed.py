"""Several processes that train one model: what the loop needs of Accelerate, and how `sdc train --gpus` starts them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, NoReturn, TypeVar, cast

import torch
from torch import Tensor, nn

from ...account import name_user
from ...errors import DeviceError, SdcError
from ...recipe import TrainingFields
from ..torchrun import PATIENCE
from .precision import Choice, Precision, choose_precision

M = TypeVar("M", bound=nn.Module)
T = TypeVar("T")


def lost_a_process(error: RuntimeError) -> bool:
    """Whether an error only says that another process of the run is gone."""
    return any(word in str(error) for word in ("gloo", "NCCL", "nccl", "Connection closed by peer"))


def launch(gpus: int, arguments: Sequence[str]) -> NoReturn:
    """Become torchrun with one `sdc` process per GPU of this machine.

    Raises:
        DeviceError: there are not so many
    """
    available = torch.cuda.device_count()
    if gpus > available:
        raise DeviceError(f"--gpus {gpus}: this machine has {available} CUDA devices; ask for no more than that")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(gpus)]
    os.execv(command[0], [*command, "-m", "sdcodec_cli", *arguments])


class Processes:
    """The processes of a run, seen from one of them; alone, every method is the obvious thing.

    Args:
        device: where to compute: `cpu`, `cuda` or `mps`
        fields: precision of the run; `auto` becomes that of the first process
        so_far: precision of the run that is continued
    """

    def __init__(self, device: str, fields: TrainingFields, so_far: Precision | None = None) -> None:
        from accelerate import Accelerator, DistributedDataParallelKwargs
        from accelerate.state import AcceleratorState, PartialState
        from accelerate.utils import broadcast_object_list

        name_user()
        # The others wait, so that the first one measures a processor that is not busy with them.
        first = PartialState(cpu=device == "cpu", timeout=PATIENCE).is_main_process
        chosen = [choose_precision(fields.precision, device, so_far) if first else None]
        self.chosen = cast(Choice, broadcast_object_list(chosen)[0])
        self.precision = self.chosen.precision

        # Accelerate keeps one state per program; a second run in the same one may want another precision.
        AcceleratorState._reset_state()
        self._accelerator = Accelerator(
            cpu=device == "cpu",
            mixed_precision="bf16" if self.precision == "bfloat16" else "no",
            kwargs_handlers=[
                DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True),
            ],
        )
        # TF32 only where the recipe asks for it: what stays in float32 under bfloat16, like the quantizers, needs all
        # of its digits.
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = self.precision == "tf32"
        self.device: torch.device = self._accelerator.device
        self.rank: int = self._accelerator.process_index
        self.world_size: int = self._accelerator.num_processes
        self.is_first = self.rank == 0

    def wrap(self, module: M) -> M:
        """The module on its device, under mixed precision, its gradients averaged over processes."""
        for parameter in module.parameters():
            if parameter.numel() == 0:
                parameter.requires_grad_(False)  # nothing to average: DDP would wait for its gradient forever
        return cast(M, self._accelerator.prepare(module))

    def gathering(self, *modules: nn.Module, last: bool) -> AbstractContextManager[Any]:
        """Gradients are only averaged in the backward pass of the `last` micro-batch."""
        import contextlib

        stack = contextlib.ExitStack()
        if not last:
            for module in modules:
                stack.enter_context(self._accelerator.no_sync(module))
        return stack

    def autocast(self) -> AbstractContextManager[Any]:
        """Mixed precision for what runs outside of a wrapped module."""
        return cast(AbstractContextManager[Any], self._accelerator.autocast())

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum over processes, for each of them."""
        return cast(Tensor, self._accelerator.reduce(tensor.clone(), reduction="sum"))

    def join(self, rows: Tensor) -> Tensor:
        """The rows of all processes, one after the other, for each of them."""
        return cast(Tensor, self._accelerator.gather(rows.contiguous()))

    def any(self, flag: bool) -> bool:
        """Whether any process says so."""
        if self.world_size == 1:
            return flag
        return bool(self.sum(torch.tensor([float(flag)], device=self.device)).item() > 0)

    def after_first(self, action: Callable[[], T]) -> T:
        """Do something in the first process and then in the others.

        Where it fails in the first, the others end without a word: they have nothing to add.
        """
        error: SdcError | None = None
        if self.is_first:
            try:
                done = action()
            except SdcError as failed:
                error = failed
        if self.any(error is not None):
            raise error or SystemExit(1)
        return done if self.is_first else action()

    def end(self) -> None:
        """Take leave of the others."""
        self._accelerator.end_training()
