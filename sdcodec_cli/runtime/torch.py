"""Models in torch: for CUDA and MPS, and for folders without graphs."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import DeviceError
from ..nn import parts as modules
from ..nn.sdcodec import SDCodec
from .parts import Part


class TorchRuntime:
    """Runs the modules of `nn.parts` as they are.

    Args:
        network: with its weights
        sample_rate: of its audio, in Hz
        device: where to compute
        threads: to compute with on a CPU; torch's own number by default
    """

    name = "torch"

    def __init__(self, network: SDCodec, sample_rate: int, device: torch.device, threads: int | None) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self.network, self._device = network.float().to(device).eval().requires_grad_(False), device
        self.device, self.threads = str(device), torch.get_num_threads()
        self.analysis_context, self.synthesis_context = contexts(network)
        self._modules = {part: module.to(device) for part, module in modules.of(network, sample_rate).items()}

    def run(self, part: Part, *inputs: NDArray[Any]) -> list[NDArray[np.float32]]:
        """Outputs of a part."""
        module = self._modules[part]
        with _undisturbed(self._device):
            outputs = module(*(torch.from_numpy(np.ascontiguousarray(given)).to(self._device) for given in inputs))
        return [output.cpu().numpy() for output in (outputs if isinstance(outputs, tuple) else (outputs,))]

    def prepare(self, parts: Sequence[Part], *, wait: bool) -> None:
        """Modules are always ready."""


def contexts(network: SDCodec) -> tuple[int, int]:
    """Frames on each side that what is heard in a frame depends on, and that its audio depends on."""
    head = network.activity
    heard = network.encoder.context_frames + (0 if head is None else head.context_frames)
    return heard, network.decoder.context_frames


@contextlib.contextmanager
def _undisturbed(device: torch.device) -> Iterator[None]:
    """Whatever the caller has set, compute in 32 bits, and without gradients where nothing asks for them."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        # A caller's inference mode would leave no gradient to follow.
        with torch.inference_mode(False), torch.no_grad(), torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_default_dtype(before)


def choose_device(name: str | torch.device) -> torch.device:
    """The device that a name stands for: `auto`, `cpu`, `cuda` or `mps`; a `DeviceError` where there is none."""
    name = str(name)
    if name in ("auto", "cuda") and torch.cuda.is_available():
        # Under torchrun every process has a GPU of its own.
        rank = os.environ.get("LOCAL_RANK")
        return torch.device("cuda" if rank is None else f"cuda:{rank}")
    if name == "auto":
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    kind = name.split(":")[0]
    if kind not in available:
        raise DeviceError(f"{name}: no such device; choose auto, cpu, cuda or mps")
    if not available[kind]:
        raise DeviceError(f"{name}: not available on this machine; choose --device cpu")
    return torch.device(name)
