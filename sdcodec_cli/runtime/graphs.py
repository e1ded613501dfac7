"""Networks written down as ONNX graphs, without their weights.

Each part of a network (`families`) is traced once, gradients included, with axes whose lengths are open. Weights become
inputs first and then initializers whose values are elsewhere: the runtime brings them from the one file that a model
folder has of them. So a graph belongs to a recipe, not to a model.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import onnx
import torch
import torch.nn.functional as F
from onnx import TensorProto
from torch import Tensor
from torch._decomp import get_decompositions
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext

from ..families import of
from ..nn.tracing import GraphPart, for_graph
from ..recipe import Recipe
from ..zoo import WEIGHTS
from .onnx import MANIFEST, VERSION

OPSET, IR_VERSION = 20, 10
"""What ONNX Runtime has read since 1.18."""


def make_graphs(recipe: Recipe, parts: Sequence[str] | None = None) -> dict[str, bytes]:
    """Files of the folder `graphs` for all models of a recipe; of some parts only, or of all by default.

    Where a model is several codecs, each has a folder there, named as the part of the network that it is; one that is
    another model has its graphs with that.
    """
    files: dict[str, bytes] = {}
    family = of(recipe)
    own = (each for each in family.codecs(recipe).items() if each[0] not in family.references(recipe))
    for prefix, codec in own:
        folder = f"{prefix.removesuffix('.')}/" if prefix else ""
        files |= {f"{folder}{name}": data for name, data in _graphs_of(codec, parts).items()}
    return files


def _graphs_of(recipe: Recipe, parts: Sequence[str] | None) -> dict[str, bytes]:
    """Graphs of one network, and what there is to say about them."""
    family = of(recipe)
    network = family.build(recipe).float().eval().requires_grad_(False)
    files, names = {}, {}
    with _quiet(), torch.random.fork_rng():
        found = family.graph_parts(network, recipe)
        for name in found if parts is None else parts:
            graph, names[name] = _written(found[name], set(network.state_dict()))
            files[f"{name}.onnx"] = graph
    manifest = {"version": VERSION, **family.measured(network, recipe), "weights": names}
    files[MANIFEST] = (json.dumps(manifest, indent=1) + "\n").encode()
    return files


def _written(part: GraphPart, stored: set[str]) -> tuple[bytes, list[str]]:
    """A part as a graph, and which of the stored weights it wants."""
    module, inputs, axes = part.module.requires_grad_(False), part.inputs, part.axes
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    names = [_stored_name(name, stored) for name in tensors]

    def run(*arguments: Tensor) -> Any:
        given = dict(zip(tensors, arguments, strict=False))
        return torch.func.functional_call(module, given, arguments[len(tensors) :])

    arguments = (*tensors.values(), *inputs.values())
    with for_graph():
        run(*arguments)  # fills the caches of tables, which then are constants
        mode = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)
        open_axes = [*({} for _ in tensors), *(axes.get(name, {}) for name in inputs)]
        shapes = [_shape(mode, argument, given) for argument, given in zip(arguments, open_axes, strict=True)]
        traced = make_fx(run, _decompositions(), tracing_mode="symbolic")(*shapes)
    exported = torch.export.export(
        traced,
        arguments,
        dynamic_shapes=tuple(dict.fromkeys(given, torch.export.Dim.AUTO) for given in open_axes),
    )
    program = torch.onnx.export(
        exported,
        dynamo=True,
        input_names=[*names, *inputs],
        output_names=list(part.outputs),
        opset_version=OPSET,
        optimize=True,
        verbose=False,
    )
    assert program is not None
    graph = program.model_proto
    wanted = _without_weights(graph, dict(zip(names, tensors.values(), strict=True)), stored)
    for entry in graph.graph.input:
        for axis, name in axes.get(entry.name, {}).items():
            dim = entry.type.tensor_type.shape.dim[axis]
            assert not dim.HasField("dim_value"), f"{entry.name}: axis {name} was traced as a constant"
    return _bytes(graph), wanted


def _stored_name(name: str, stored: set[str]) -> str:
    """Of a weight that a part knows as its network's: the name in the file, which lacks the network's."""
    inner = name
    while inner not in stored and "." in inner:
        inner = inner.partition(".")[2]
    return inner if inner in stored else name


def _shape(mode: FakeTensorMode, tensor: Tensor, open_axes: dict[int, str]) -> Tensor:
    """A tensor without values, some of whose axes have no fixed length."""
    sizes = [DimDynamic.DYNAMIC if axis in open_axes else DimDynamic.STATIC for axis in range(tensor.dim())]
    return mode.from_tensor(tensor, symbolic_context=StatelessSymbolicContext(dynamic_sizes=sizes))


def _without_weights(model: onnx.ModelProto, tensors: dict[str, Tensor], stored: set[str]) -> list[str]:
    """Turn inputs that are weights into initializers: those that a file has without values; returns their names."""
    graph = model.graph
    used = {name for node in graph.node for name in node.input} | {entry.name for entry in graph.output}
    wanted = []
    for entry in list(graph.input):
        if entry.name not in tensors:
            continue
        graph.input.remove(entry)
        if entry.name not in used:
            continue
        value = tensors[entry.name].detach().cpu().numpy()
        initializer = onnx.numpy_helper.from_array(value, entry.name)
        if entry.name in stored:
            wanted.append(entry.name)
            initializer.ClearField("raw_data")
            initializer.data_location = TensorProto.EXTERNAL
            initializer.external_data.add(key="location", value=WEIGHTS)
        graph.initializer.append(initializer)
    return wanted


def _bytes(model: onnx.ModelProto) -> bytes:
    """A graph as a file holds it, without what only its maker wants to know."""
    model.ir_version = IR_VERSION
    model.ClearField("metadata_props")
    model.ClearField("doc_string")
    model.graph.ClearField("value_info")
    model.graph.ClearField("metadata_props")
    for node in model.graph.node:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
        node.ClearField("name")
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _decompositions() -> dict[Any, Callable[..., Any]]:
    """Operations that graphs lack, or that are slow there, in terms of others."""
    aten = torch.ops.aten
    known = get_decompositions([aten.native_layer_norm_backward, aten.tanh_backward])

    def power(x: Tensor, exponent: float) -> Any:
        if exponent == 1:  # of the gradient of a square
            return x
        return x * x if exponent == 2 else NotImplemented

    def square(x: Tensor) -> Tensor:
        return x * x

    def threshold_backward(gradient: Tensor, x: Tensor, threshold: float) -> Tensor:
        # A choice between two arrays takes ten times as long as a product.
        return gradient * (x > threshold).to(gradient.dtype)

    def slice_backward(gradient: Tensor, sizes: list[Any], axis: int, start: int, end: int, step: int) -> Tensor:
        assert step == 1
        begin = start if start >= 0 else start + sizes[axis]
        after = sizes[axis] - begin - gradient.shape[axis]
        return F.pad(gradient, [0, 0] * (len(sizes) - 1 - axis % len(sizes)) + [begin, after])

    def select_backward(gradient: Tensor, sizes: list[Any], axis: int, index: int) -> Tensor:
        return slice_backward(gradient.unsqueeze(axis), sizes, axis, index, index + 1, 1)

    def convolution_backward(
        gradient: Tensor,
        x: Tensor,
        weight: Tensor,
        bias_sizes: Any,
        stride: list[int],
        padding: list[int],
        dilation: list[int],
        transposed: bool,
        output_padding: list[int],
        groups: int,
        mask: list[bool],
    ) -> tuple[Tensor, None, None]:
        assert not mask[1], "weights have no gradients here"
        # The other way round goes the other convolution, with the same weights; only decoders are gone back through,
        # where plain ones have a stride of one.
        assert transposed or stride == [1]
        nothing = [0] * len(stride)
        towards = aten.convolution(gradient, weight, None, stride, padding, dilation, not transposed, nothing, groups)
        return towards, None, None

    return {
        **known,
        aten.pow.Tensor_Scalar: power,
        aten.square.default: square,
        aten.threshold_backward.default: threshold_backward,
        aten.slice_backward.default: slice_backward,
        aten.select_backward.default: select_backward,
        aten.convolution_backward.default: convolution_backward,
    }


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter has much to say about what is none of ours."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
