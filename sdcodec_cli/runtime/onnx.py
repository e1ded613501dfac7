"""Models in ONNX Runtime: no torch, and a small fraction of its size."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelError
from ..families import Family
from ..weights import Weights
from .threads import free_cores

FOLDER, MANIFEST = "graphs", "manifest.json"
"""In a model folder, next to its weights."""

VERSION = 1
"""Of the graphs: what parts there are, and their inputs and outputs. Raised when those change."""

_OF_PARENTS: list[object] = []
"""Sessions that were made before a fork; their threads are gone, and taking them apart would wait for those."""


class OnnxRuntime:
    """Runs graphs, which stand in a model folder without weights, on a CPU.

    Args:
        folder: of the model
        weights: in 32 bits
        family: of the model
        parts: that will be run
        threads: to compute with; as many as there are free cores by default
        within: name of the folder of graphs, of a model that has several

    Raises:
        ModelError: the folder has no graphs, or those of another version
    """

    name, device = "onnx", "cpu"

    def __init__(
        self,
        folder: Path,
        weights: Weights,
        family: Family[Any],
        parts: Sequence[str],
        threads: int | None,
        within: str = "",
    ) -> None:
        self._folder, self._within, self._weights, self._parts = folder, within, weights, parts
        self.threads = threads or free_cores()
        manifest = read_manifest(folder, family, parts, within)
        self.sizes: dict[str, int] = {name: manifest[name] for name in family.sizes}
        self._weights_of: dict[str, list[str]] = manifest["weights"]
        if not {name for names in self._weights_of.values() for name in names} <= weights.keys():
            raise ModelError(
                f"{folder}: its graphs are not of the recipe of its weights; restore them, or make the graphs again: "
                f"sdc models export {folder}"
            )
        self._sessions: dict[str, Any] = {}
        self._locks = {part: threading.Lock() for part in self._parts}
        self._pid = os.getpid()

    def run(self, part: str, *inputs: NDArray[Any]) -> list[NDArray[np.float32]]:
        """Outputs of a part."""
        session = self._session(part)
        names = [entry.name for entry in session.get_inputs()]
        outputs: list[NDArray[np.float32]] = session.run(None, dict(zip(names, inputs, strict=True)))
        return outputs

    def prepare(self, parts: Sequence[str], *, wait: bool) -> None:
        """Make sessions, several at a time."""
        # No daemons: a program that ends while one of those is inside of ONNX Runtime is aborted.
        threads = [threading.Thread(target=self._tried, args=(part,)) for part in parts]
        for thread in threads:
            thread.start()
        for thread in threads if wait else ():
            thread.join()

    def _tried(self, part: str) -> None:
        with contextlib.suppress(ModelError):  # raised again where the part is wanted
            self._session(part)

    def _session(self, part: str) -> Any:
        if self._pid != os.getpid():
            _OF_PARENTS.append(self._sessions)
            self._sessions, self._locks = {}, {each: threading.Lock() for each in self._parts}
            self._pid = os.getpid()
        with self._locks[part]:
            if part not in self._sessions:
                self._sessions[part] = self._made(part)
            return self._sessions[part]

    def _made(self, part: str) -> Any:
        names = self._weights_of[part]
        path = self._folder / FOLDER / self._within / f"{part}.onnx"
        try:
            return open_session(path, self.threads, {name: self._weights[name] for name in names})
        except Exception as error:  # onnxruntime's own have no common base
            raise ModelError(
                f"{path}: cannot be used ({' '.join(str(error).split())[:200]}); make the graphs again: "
                f"sdc models export {self._folder}"
            ) from error


def open_session(path: Path, threads: int, values: Mapping[str, NDArray[Any]] | None = None) -> Any:
    """A session of ONNX Runtime for a graph, on a CPU; `values` are those of initializers that it has not itself."""
    onnxruntime = _imported()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    # Threads that wait in a loop keep a core from whatever else runs, be it the thread they wait for.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Beyond these, ONNX Runtime 1.32 fuses a transposition into a product that then gives wrong gradients.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    if values:
        # They stay where they are: sessions share them.
        given = [onnxruntime.OrtValue.ortvalue_from_numpy(value) for value in values.values()]
        options.add_external_initializers(list(values), given)
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _imported() -> Any:
    """ONNX Runtime, without its telemetry: that asks for addresses on the network, and writes into homes."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    return onnxruntime


def has_graphs(folder: Path) -> bool:
    """Whether a model folder has graphs."""
    return any((folder / FOLDER).glob(f"**/{MANIFEST}"))


def read_manifest(folder: Path, family: Family[Any], parts: Sequence[str], within: str = "") -> dict[str, Any]:
    """What a folder's graphs, which have to be there for all of `parts`, say about themselves.

    Raises:
        ModelError: there are none, those of another version, or one of the parts is missing
    """
    again = f"make them with sdc models export {folder}"
    if not has_graphs(folder):
        raise ModelError(f"{folder}: has no graphs, which ONNX Runtime needs; {again}, or pass --runtime torch")
    try:
        manifest: dict[str, Any] = json.loads((folder / FOLDER / within / MANIFEST).read_text(encoding="utf-8"))
        version = manifest["version"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ModelError(f"{folder}: its graphs cannot be read ({error}); {again}") from error
    if version != VERSION:
        raise ModelError(f"{folder}: its graphs are of version {version}, this sdc reads {VERSION}; {again}")
    missing = [field for field in (*family.sizes, "weights") if field not in manifest]
    missing += [part for part in parts if part not in manifest.get("weights", parts)]
    if missing:
        raise ModelError(f"{folder}: its graphs cannot be read (no {missing[0]} in {MANIFEST}); {again}")
    return manifest
