"""Models in torch: for CUDA and MPS, and for folders without graphs."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from .. import weights as weights_of
from ..errors import DeviceError, ModelError
from ..families import build, of
from ..recipe import Recipe
from ..weights import Weights
from ..zoo import WEIGHTS, ModelEntry, weights_path


class TorchRuntime:
    """Runs the modules of a family as they are.

    Args:
        network: with its weights
        recipe: of the network
        parts: that will be run
        device: where to compute
        threads: to compute with on a CPU; torch's own number by default
    """

    name = "torch"

    def __init__(
        self, network: nn.Module, recipe: Recipe, parts: Sequence[str], device: torch.device, threads: int | None
    ) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self.network, self._device = network.float().to(device).eval().requires_grad_(False), device
        self.device, self.threads = str(device), torch.get_num_threads()
        family = of(recipe)
        self.sizes = family.measured(network, recipe)
        modules = family.modules(network, recipe)
        self._modules = {part: modules[part].to(device) for part in parts}

    def run(self, part: str, *inputs: NDArray[Any]) -> list[NDArray[np.float32]]:
        """Outputs of a part."""
        module = self._modules[part]
        with _undisturbed(self._device):
            outputs = module(*(torch.from_numpy(np.ascontiguousarray(given)).to(self._device) for given in inputs))
        return [output.cpu().numpy() for output in (outputs if isinstance(outputs, tuple) else (outputs,))]

    def prepare(self, parts: Sequence[str], *, wait: bool) -> None:
        """Modules are always ready."""


def load_network(entry: ModelEntry) -> nn.Module:
    """The network of a model with its weights, in 32-bit floats, ready for inference.

    Raises:
        ModelError: no weights, unreadable ones, or ones of another recipe
    """
    return network_with(entry, entry.recipe, weights_of.unpack(weights_of.read(weights_path(entry))))


def network_with(entry: ModelEntry, recipe: Recipe, tensors: Weights) -> nn.Module:
    """The network of a model, or of one of its codecs, with weights that were read before, ready for inference.

    Raises:
        ModelError: weights of another recipe
    """
    # What a caller loads in inference mode is to encode outside of it, too.
    with torch.inference_mode(False):
        network = build(recipe).float()
    heads = of(recipe).for_training  # of other shapes in models of earlier versions
    used = of(recipe).decoding if entry.is_decoder else ""  # a decoder never runs the rest of the network
    own = network.state_dict().items()
    given = {name: value for name, value in own if name.startswith(heads) or not name.startswith(used)}
    stored = {name: value for name, value in tensors.items() if name not in given and not name.startswith(heads)}
    given |= {name: torch.from_numpy(value) for name, value in stored.items()}
    try:
        network.load_state_dict(given)
    except RuntimeError as error:
        raise ModelError(
            f"{entry.folder / WEIGHTS}: the weights are not of the recipe beside them; restore or re-import them"
        ) from error
    return network.eval().requires_grad_(False)


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
