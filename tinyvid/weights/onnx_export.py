"""Networks as ONNX: what each layer is called there, and how a network's layers are followed.

For the length of one call the `forward` of every layer that is known here is replaced by one that
also writes the layer down as ONNX nodes. What passes between layers is a `Value`: a name in the
graph, and the array that the name stands for when the example goes through the network. So shapes
need no rules of their own, and any `forward` that hands values from layer to layer is followed.

The batch stays open: the first axis of the input is called N. Dropout is left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tinyvid import nn
from tinyvid.checkpoint import write_atomically
from tinyvid.errors import UserError
from tinyvid.geometry import per_axis, resolve_padding
from tinyvid.models.multires import Fovea, Streams
from tinyvid.models.parts import AverageOfFrames, FirstAndLastFrame, PerFrame
from tinyvid.tensor import Tensor, no_grad

OPSET = 17  # the first with LayerNormalization
IR = 8  # the version of the file's format that goes with it

Node = Callable[..., str]


class Value:
    """What a layer takes and gives while a network is written down."""

    def __init__(self, graph: Graph, name: str, tensor: Tensor):
        self.graph, self.name, self.tensor = graph, name, tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return self.tensor.shape

    @property
    def ndim(self) -> int:
        return self.tensor.ndim

    def permute(self, *axes: int) -> Value:
        name = self.graph.node("Transpose", self.name, perm=axes)
        return Value(self.graph, name, self.tensor.permute(*axes))

    def reshape(self, *shape: int) -> Value:
        """Return it in another shape; the first axis takes what the others leave of the batch."""
        wanted = self.graph.constant(np.array((-1, *shape[1:]), np.int64))
        name = self.graph.node("Reshape", self.name, wanted)
        return Value(self.graph, name, self.tensor.reshape(*shape))

    def take(self, index: int | Sequence[int], axis: int) -> Value:
        """Return the cells of an index along an axis, which a single one removes."""
        numbers = np.array(index, np.int64)
        name = self.graph.node("Gather", self.name, self.graph.constant(numbers), axis=axis)
        taken = np.take(self.tensor.numpy(), numbers, axis)
        return Value(self.graph, name, Tensor(taken))

    def __getitem__(self, index: Any) -> Value:
        """Return x[:, ..., i]: one cell along the last axis that is named."""
        *whole, last = index if isinstance(index, tuple) else (index,)
        if not isinstance(last, int) or any(i != slice(None) for i in whole):
            raise UserError(f"a network that takes x[{index!r}] cannot be written as ONNX")
        return self.take(last, len(whole))


class Graph:
    """The nodes and the constants of a network, in order."""

    def __init__(self, names: Mapping[int, str]):
        from onnx import helper

        self.helper = helper
        self.names = names  # of parameters and buffers, by identity
        self.nodes: list[Any] = []
        self.constants: dict[str, np.ndarray] = {}

    def node(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        """Add a node, and return the name of its first output."""
        name = f"{kind.lower()}_{len(self.nodes)}"
        named = [name] + [f"{name}_{i}" for i in range(1, outputs)]
        kept = {key: value for key, value in attributes.items() if value is not None}
        self.nodes.append(self.helper.make_node(kind, list(inputs), named, **kept))
        return name

    def constant(self, value: np.ndarray) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants[name] = np.array(value, order="C")
        return name

    def weight(self, tensor: Tensor) -> str:
        """Return the name of a parameter or buffer, which is the one that it has in the network."""
        name = self.names[id(tensor)]
        self.constants[name] = np.array(tensor.numpy(), order="C")
        return name


def export_onnx(
    model: nn.Module,
    path: str | Path,
    clip: Sequence[int],
    about: Mapping[str, Any] | None = None,
) -> None:
    """Write a network as ONNX, in evaluation mode: input `clips` N C T H W, output `scores`.

    Args:
        model: the network.
        path: the file to write.
        clip: `C T H W`, which the file's network takes; the batch is free.
        about: kept in the file as metadata, each value as JSON, such as what to normalise by.

    Raises:
        UserError: onnx is not installed, the network has a layer that is not known here, or the
            file cannot be written.
    """
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError:
        raise UserError("ONNX needs onnx: pip install 'tinyvid[onnx]'") from None
    named = [*model.named_parameters(), *model.named_buffers()]
    graph = Graph({id(tensor): name for name, tensor in named})
    # Ones, not zeros, after which a normalisation over channels would divide by nothing.
    example = Value(graph, "clips", Tensor(np.ones((1, *clip), np.float32)))
    with _written_down(model), no_grad():
        result: Any = model(example)
    graph.nodes.append(graph.helper.make_node("Identity", [result.name], ["scores"]))

    def described(name: str, shape: Sequence[int]) -> Any:
        return graph.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", *shape[1:]])

    made = graph.helper.make_model(
        graph.helper.make_graph(
            graph.nodes,
            type(model).__name__,
            [described("clips", example.shape)],
            [described("scores", result.shape)],
            [numpy_helper.from_array(array, name) for name, array in graph.constants.items()],
        ),
        producer_name="tinyvid",
        ir_version=IR,
        opset_imports=[graph.helper.make_opsetid("", OPSET)],
    )
    graph.helper.set_model_props(made, {k: json.dumps(v) for k, v in (about or {}).items()})
    onnx.checker.check_model(made)
    write_atomically(path, made.SerializeToString())


@contextmanager
def _written_down(model: nn.Module) -> Iterator[None]:
    """Let every layer that is known here write itself down when it is called."""
    modules = list(model.named_modules())
    training = [(module, module.training) for _, module in modules]
    model.eval()
    changed = []
    try:
        for name, module in modules:
            write = next((LAYERS[kind] for kind in type(module).__mro__ if kind in LAYERS), None)
            if write is None and not any(True for _ in module.children()):
                kind = type(module).__name__
                raise UserError(f"{name} is a {kind}, which cannot be written as ONNX here")
            if write is not None:
                vars(module)["forward"] = _writer(write, module)
                changed.append(module)
        yield
    finally:
        for module in changed:
            vars(module).pop("forward", None)
        for module, mode in training:
            module.training = mode


def _writer(write: Callable[..., Any], module: nn.Module) -> Callable[[Value], Any]:
    run = module.forward

    def forward(x: Value) -> Any:
        if write in _CONTAINERS:
            return write(module, x)
        name = write(x.graph, module, x)
        y = run(x.tensor)
        if isinstance(y, tuple):  # of an LSTM: the final state is not followed
            return Value(x.graph, name, y[0]), None
        return Value(x.graph, name, y)

    return forward


# What each layer is in ONNX: functions of (graph, layer, its input) that return the output's name.


def _same(graph: Graph, layer: nn.Module, x: Value) -> str:
    return x.name


def _alike(kind: str, **attributes: Any) -> Callable[..., str]:
    """Return what writes a layer that is a node without numbers of its own."""
    return lambda graph, layer, x: graph.node(kind, x.name, **attributes)


def _conv(graph: Graph, layer: Any, x: Value) -> str:
    name = x.name
    if x.ndim > layer.rank + 2:  # early fusion: the planes of a clip are its channels
        shape = np.array((-1, layer.weight.shape[1] * layer.groups, *x.shape[-2:]), np.int64)
        name = graph.node("Reshape", name, graph.constant(shape))
    pads = resolve_padding(layer.padding, layer.kernel_size, layer.stride, layer.dilation)
    weights = [graph.weight(w) for w in (layer.weight, layer.bias) if w is not None]
    return graph.node(
        "Conv",
        name,
        *weights,
        kernel_shape=layer.kernel_size,
        strides=layer.stride,
        dilations=layer.dilation,
        pads=[low for low, _ in pads] + [high for _, high in pads],
        group=layer.groups,
    )


def _pool(graph: Graph, layer: Any, x: Value) -> str:
    if layer.ceil_mode:
        raise UserError(f"{layer} rounds up, which ONNX does in another way: not written")
    rank = x.ndim - 2
    padding = per_axis("padding", layer.padding, rank, 0)
    sizes: dict[str, Any] = {
        "kernel_shape": per_axis("kernel_size", layer.kernel_size, rank, 1),
        "strides": per_axis("stride", layer.stride, rank, 1),
        "pads": [*padding, *padding],
    }
    if isinstance(layer, (nn.MaxPool2d, nn.MaxPool3d)):
        dilations = per_axis("dilation", layer.dilation, rank, 1)
        return graph.node("MaxPool", x.name, dilations=dilations, **sizes)
    if layer.divisor_override is not None:
        raise UserError(f"{layer} divides by a number of its own, which ONNX does not: not written")
    counted = int(layer.count_include_pad)
    return graph.node("AveragePool", x.name, count_include_pad=counted, **sizes)


def _global_average(graph: Graph, layer: nn.Module, x: Value) -> str:
    return graph.node("ReduceMean", x.name, axes=list(range(2, x.ndim)), keepdims=0)


def _flatten(graph: Graph, layer: Any, x: Value) -> str:
    if layer.start_dim != 1 or layer.end_dim not in (-1, x.ndim - 1):
        raise UserError(f"{layer} joins other axes than all after the batch: not written")
    return graph.node("Flatten", x.name, axis=1)


def _linear(graph: Graph, layer: Any, x: Value) -> str:
    weights = [graph.weight(w) for w in (layer.weight, layer.bias) if w is not None]
    if x.ndim == 2:
        return graph.node("Gemm", x.name, *weights, transB=1)
    transposed = graph.node("Transpose", weights[0], perm=(1, 0))
    product = graph.node("MatMul", x.name, transposed)
    return graph.node("Add", product, weights[1]) if len(weights) > 1 else product


def _batch_norm(graph: Graph, layer: Any, x: Value) -> str:
    if layer.running_mean is None:
        raise UserError(f"{layer} keeps no running statistics: not written")
    if layer.affine:
        scale, shift = graph.weight(layer.weight), graph.weight(layer.bias)
    else:
        scale = graph.constant(np.ones(layer.num_features, np.float32))
        shift = graph.constant(np.zeros(layer.num_features, np.float32))
    statistics = graph.weight(layer.running_mean), graph.weight(layer.running_var)
    return graph.node("BatchNormalization", x.name, scale, shift, *statistics, epsilon=layer.eps)


def _layer_norm(graph: Graph, layer: Any, x: Value) -> str:
    shape = layer.normalized_shape
    weights = [graph.weight(w) for w in (layer.weight, layer.bias) if w is not None]
    weights = weights or [graph.constant(np.ones(shape, np.float32))]
    return graph.node("LayerNormalization", x.name, *weights, axis=-len(shape), epsilon=layer.eps)


def _response_norm(graph: Graph, layer: Any, x: Value) -> str:
    sizes = {"size": layer.size, "alpha": layer.alpha, "beta": layer.beta, "bias": layer.k}
    # Only planes are sure to be taken: the axes before the last become one, and two again.
    planes = graph.constant(np.array((0, 0, -1, x.shape[-1]), np.int64))
    y = graph.node("LRN", graph.node("Reshape", x.name, planes), **sizes)
    return graph.node("Reshape", y, graph.constant(np.array((-1, *x.shape[1:]), np.int64)))


def _lstm(graph: Graph, layer: Any, x: Value) -> str:
    """ONNX takes L N I, gates in the order i, o, f, g, and gives L directions N H."""
    H, directions = layer.hidden_size, 2 if layer.bidirectional else 1
    name = graph.node("Transpose", x.name, perm=(1, 0, 2)) if layer.batch_first else x.name
    weights = [weight.numpy() for weight in layer._weights()]

    def reordered(weight: np.ndarray) -> np.ndarray:
        i, f, g, o = np.split(weight, 4)
        return np.concatenate([i, o, f, g])

    for first in range(0, len(weights), 4 * directions):
        parts: list[list[np.ndarray]] = [[], [], []]
        for at in range(first, first + 4 * directions, 4):
            w, r, b, rb = (reordered(weight) for weight in weights[at : at + 4])
            for part, value in zip(parts, (w, r, np.concatenate([b, rb])), strict=True):
                part.append(value)
        stacked = [graph.constant(np.stack(part)) for part in parts]
        direction = "bidirectional" if layer.bidirectional else "forward"
        name = graph.node("LSTM", name, *stacked, hidden_size=H, direction=direction)
        # L directions N H -> L N directions·H
        name = graph.node("Transpose", name, perm=(0, 2, 1, 3))
        shape = graph.constant(np.array((0, 0, directions * H), np.int64))
        name = graph.node("Reshape", name, shape)
    return graph.node("Transpose", name, perm=(1, 0, 2)) if layer.batch_first else name


def _average_of_frames(graph: Graph, layer: nn.Module, x: Value) -> str:
    logs = graph.node("LogSoftmax", x.name, axis=2)
    total = graph.node("ReduceLogSumExp", logs, axes=[1], keepdims=0)
    return graph.node("Sub", total, graph.constant(np.log(np.float32(x.shape[1]))))


def _first_and_last_frame(graph: Graph, layer: nn.Module, x: Value) -> str:
    return x.take([0, x.shape[2] - 1], 2).name


def _fovea(graph: Graph, layer: nn.Module, x: Value) -> str:
    for axis in (2, 3):
        size = x.shape[axis]
        x = x.take(range(size // 4, size // 4 + size // 2), axis)
    return x.name


# Modules that hand values from layer to layer; they are followed instead of run.


def _sequential(module: Any, x: Value) -> Value:
    for layer in module:
        x = layer(x)
    return x


def _per_frame(module: Any, x: Value) -> Value:
    n, c, t, h, w = x.shape
    y = _sequential(module, x.permute(0, 2, 1, 3, 4).reshape(n * t, c, h, w))
    y = y.reshape(n, t, *y.shape[1:])
    return y.permute(0, 2, 1, 3, 4) if y.ndim == 5 else y


def _streams(module: Any, x: Value) -> Value:
    parts = [stream(x) for _, stream in module.named_children()]
    name = x.graph.node("Concat", *(part.name for part in parts), axis=1)
    return Value(x.graph, name, Tensor(np.concatenate([p.tensor.numpy() for p in parts], 1)))


_CONTAINERS = (_sequential, _per_frame, _streams)

LAYERS: Mapping[type, Callable[..., Any]] = {
    nn.Conv2d: _conv,
    nn.Conv3d: _conv,
    nn.MaxPool2d: _pool,
    nn.MaxPool3d: _pool,
    nn.AvgPool2d: _pool,
    nn.AvgPool3d: _pool,
    nn.GlobalAvgPool: _global_average,
    nn.Flatten: _flatten,
    nn.Linear: _linear,
    nn.LSTM: _lstm,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.BatchNorm3d: _batch_norm,
    nn.LayerNorm: _layer_norm,
    nn.LocalResponseNorm: _response_norm,
    nn.ReLU: _alike("Relu"),
    nn.Sigmoid: _alike("Sigmoid"),
    nn.Tanh: _alike("Tanh"),
    nn.Dropout: _same,
    AverageOfFrames: _average_of_frames,
    FirstAndLastFrame: _first_and_last_frame,
    Fovea: _fovea,
    nn.Sequential: _sequential,
    PerFrame: _per_frame,
    Streams: _streams,
}
