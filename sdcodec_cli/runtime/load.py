"""From a model folder to a model in a runtime."""

from __future__ import annotations

import importlib.util
import os
import platform
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from .. import weights as weights_of
from ..errors import DeviceError, MissingExtra, ModelError
from ..extras import command
from ..families import of
from ..recipe import DEFAULT_FAMILY, ReferenceFields
from ..zoo import ModelEntry, check_weights, find, stage_name, weights_path
from .model import DECODING, CascadeModel, CodecModel, Model, SeparatorModel

if TYPE_CHECKING:
    from ..families import Codebooks
    from ..recipe import Recipe
    from .parts import Runtime

RuntimeName = Literal["auto", "onnx", "torch"]


def load_model(
    entry: ModelEntry,
    *,
    runtime: RuntimeName = "auto",
    device: str = "auto",
    threads: int | None = None,
    decoding: bool = False,
) -> Model:
    """Load a model.

    Args:
        entry: the model folder
        runtime: `onnx`, `torch`, or `auto`: torch for a device other than a CPU and for a folder without graphs, else
            ONNX Runtime
        device: `cpu`, `cuda`, `mps`, or `auto`: CUDA or MPS where torch is in use and has them, else the CPU
        threads: to compute with on a CPU; by default as many as there are free cores
        decoding: take what can only decode, too

    Raises:
        ModelError: no weights, unreadable ones, ones of another recipe, or the same of a model that it refers to
        MissingExtra: torch is needed, for the device or because there are no graphs, and not installed
        DeviceError: no such device
        ValueError: no such runtime, or fewer than one thread
    """
    if runtime not in ("auto", "onnx", "torch"):
        raise ValueError(f"runtime must be auto, onnx or torch, got {runtime!r}")
    if threads is not None and threads < 1:
        raise ValueError(f"threads must be 1 or more, got {threads}")
    stored = weights_of.read(weights_path(entry, decoding=decoding))
    unpacked = weights_of.unpack(stored)
    family = of(entry.recipe)
    codecs = family.codecs(entry.recipe)
    takes_torch = _takes_torch(entry, runtime, device)
    if takes_torch and importlib.util.find_spec("torch") is None:
        raise MissingExtra(_without_torch(entry, runtime, device))
    if not takes_torch and device.split(":")[0] not in ("auto", "cpu"):
        raise DeviceError(f"{device}: ONNX Runtime computes on the CPU here; leave --runtime out, or pass torch")

    def made(prefix: str, recipe: Recipe) -> Runtime:
        """What runs the networks of one codec, whose names of weights begin so."""
        parts = DECODING if entry.is_decoder else of(recipe).parts
        own = weights_of.within(unpacked, prefix)
        if not takes_torch:
            from .onnx import OnnxRuntime

            return OnnxRuntime(entry.folder, own, of(recipe), parts, threads, prefix.removesuffix("."))
        from .torch import TorchRuntime, choose_device, network_with

        return TorchRuntime(network_with(entry, recipe, own), recipe, parts, choose_device(device), threads)

    references = family.references(entry.recipe)
    others = {
        prefix: _referred(reference, runtime="torch" if takes_torch else "onnx", device=device, threads=threads)
        for prefix, reference in references.items()
    }
    elsewhere = {prefix: other.weights_sha256 for prefix, other in others.items()}
    digest = _digest(entry, stored, elsewhere)
    streams = family.streams(entry.recipe)
    if not streams:
        return SeparatorModel(entry.name, entry.recipe, digest, made("", entry.recipe))
    if len(codecs) == 1:
        return CodecModel(
            entry.name,
            entry.recipe,
            digest,
            made("", entry.recipe),
            codebooks=family.codebooks(entry.recipe, unpacked),
        )
    each = len(streams) // len(codecs)
    stages = []
    for number, (prefix, recipe) in enumerate(codecs.items()):
        if prefix in others:
            stages.append(others[prefix])
            continue
        own = weights_of.sha256(weights_of.within(stored, prefix))
        name = stage_name(entry.name, prefix)
        stages.append(CodecModel(name, recipe, own, made(prefix, recipe), streams[number * each : (number + 1) * each]))
    return CascadeModel(entry.name, entry.recipe, digest, stages, family.residuals(entry.recipe))


def load_codebooks(entry: ModelEntry) -> tuple[bytes, dict[str, Codebooks]]:
    """The hash of a model's weights, and what its codes stand for, by stream: no network, and no runtime for one.

    Raises:
        ModelError: no weights, unreadable ones, or a model that does not say
    """
    stored = weights_of.read(weights_path(entry, decoding=True))
    unpacked = weights_of.unpack(stored)
    family = of(entry.recipe)
    references = family.references(entry.recipe)
    elsewhere: dict[str, bytes] = {}
    each: list[Codebooks] = []
    for prefix, recipe in family.codecs(entry.recipe).items():
        if prefix in references:
            elsewhere[prefix], others = load_codebooks(find(references[prefix].model, family=DEFAULT_FAMILY))
            each += others.values()
        else:
            each += of(recipe).codebooks(recipe, weights_of.within(unpacked, prefix))
    names = [stream.name for stream in family.streams(entry.recipe)]
    if len(each) != len(names):
        raise ModelError(f"{entry.name}: does not say what its codes stand for; choose another model")
    return _digest(entry, stored, elsewhere), dict(zip(names, each, strict=True))


def _digest(entry: ModelEntry, stored: weights_of.Weights, elsewhere: Mapping[str, bytes]) -> bytes:
    """The hash by which files name these weights; of a decoder alone, that of the model whose files it decodes."""
    return next(iter(entry.decodes if entry.is_decoder else ()), weights_of.sha256(stored, elsewhere))


def _referred(reference: ReferenceFields, *, runtime: RuntimeName, device: str, threads: int | None) -> CodecModel:
    """A model that another one refers to."""
    entry = find(reference.model, family=DEFAULT_FAMILY)
    model = load_model(entry, runtime=runtime, device=device, threads=threads)
    check_weights(entry, model.weights_sha256, reference.weights_sha256)
    assert isinstance(model, CodecModel)
    return model


def _takes_torch(entry: ModelEntry, runtime: RuntimeName, device: str) -> bool:
    from .onnx import has_graphs

    if runtime != "auto":
        return runtime == "torch"
    if device == "auto":
        return not has_graphs(entry.folder) or (_sees_gpu() and importlib.util.find_spec("torch") is not None)
    return not has_graphs(entry.folder) or device.split(":")[0] != "cpu"


def _sees_gpu() -> bool:
    """Whether there may be a device that torch can use: asking torch itself takes seconds."""
    if sys.platform == "darwin":
        return platform.machine() == "arm64"
    if sys.platform == "win32":
        return os.path.exists(os.path.join(os.environ.get("SYSTEMROOT", r"C:\Windows"), "System32", "nvcuda.dll"))
    return os.path.exists("/dev/nvidiactl") or os.path.exists("/dev/dxg")


def _without_torch(entry: ModelEntry, runtime: RuntimeName, device: str) -> str:
    install = command("train")
    if runtime == "auto" and device.split(":")[0] in ("auto", "cpu"):
        return (
            f"{entry.folder}: has no graphs, so it needs torch, which is not installed; install it with {install}, or "
            f"make the graphs where it is: sdc models export {entry.folder}"
        )
    what = f"the device {device}" if runtime == "auto" else "the runtime torch"
    return f"{what} needs torch, which is not installed; install it with {install}, or leave the option out"
