"""For each differentiable operation of tinyvid, calls that the gradient suite checks.

Each example is a function of tensors and the arrays to call it with: awkward shapes (1, primes,
broadcasting, axes in the middle), and values away from the kinks of the function.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import tinyvid
from tinyvid import ops
from tinyvid.tensor import Tensor

# Operations without a gradient: their results are indices.
NOT_DIFFERENTIABLE = frozenset({"argmax", "argmin"})


@dataclass(frozen=True)
class Example:
    """One call to check: `fn` of tensors with the values of `arrays`.

    Integer arrays are passed as they are; the others in the dtype under check.
    """

    fn: Callable[..., Any]
    arrays: tuple[np.ndarray, ...]

    def inputs(self, dtype: Any) -> list[Tensor]:
        """Return the arguments, those of floating-point with `requires_grad`."""
        floats = [a.dtype.kind == "f" for a in self.arrays]
        pairs = zip(self.arrays, floats, strict=True)
        return [Tensor(a, dtype if f else None, requires_grad=f) for a, f in pairs]


def examples(seed: int = 0) -> dict[str, list[Example]]:
    """Return for each name in `tinyvid.ops` that the suite checks by itself its examples."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape)

    def apart(*shape: int) -> np.ndarray:
        """Random numbers no two of which are close, and none close to 0."""
        count = int(np.prod(shape))
        return (rng.permutation(count) - count // 2 + 0.3).reshape(shape) * 0.37

    def positive(*shape: int) -> np.ndarray:
        return rng.uniform(0.5, 2, shape)

    found: dict[str, list[Example]] = {}

    def add(name: str, fn: Callable[..., Any], *arrays: np.ndarray) -> None:
        found.setdefault(name, []).append(Example(fn, arrays))

    for name in ("exp", "sigmoid", "tanh", "sin", "cos", "square", "neg"):
        add(name, getattr(ops, name), normal(3, 1, 5))
        add(name, getattr(ops, name), normal())
    for name in ("relu", "abs"):
        add(name, getattr(ops, name), apart(3, 5))
    for name in ("log", "sqrt"):
        add(name, getattr(ops, name), positive(2, 7))

    for name in ("add", "sub", "mul", "div", "maximum", "minimum"):
        function = getattr(ops, name)
        other = positive if name == "div" else apart
        add(name, function, apart(2, 3) + 0.1, other(2, 3))
        add(name, function, apart(2, 1, 3) + 0.1, other(5, 1))  # both broadcast
        add(name, function, apart(4) + 0.1, other())
        add(name, lambda a, f=function: f(a, 1.5), apart(3, 2) + 0.1)
        add(name, lambda a, f=function: f(1.5, a), positive(3, 2) + 1.2)
    add("mul", lambda a: a * a * a, normal(3))  # one tensor in both places
    add("pow", ops.pow, positive(2, 3), normal(3))
    add("pow", lambda a: a**3, normal(5))
    add("pow", lambda a: a**-0.5, positive(5))
    add("pow", lambda a: 2.0**a, normal(5))
    add("cast", lambda a: ops.cast(ops.cast(a, np.int8), a.dtype) * a, apart(4))
    add("cast", lambda a: ops.cast(a, np.float64), normal(4))
    odd = np.arange(12).reshape(3, 4) % 2 == 1
    add("where", lambda a, b: ops.where(odd, a, b), normal(3, 4), normal(4))
    add("where", lambda a: ops.where(odd, a, 1.5), normal(3, 1))
    add("clamp", lambda a: ops.clamp(a, -0.5, 1.1), apart(3, 4))
    add("clamp", lambda a: ops.clamp(a, max=0.5), apart(3, 4))

    for name in ("sum", "mean", "amax", "amin", "var", "std"):
        function = getattr(ops, name)
        add(name, function, apart(3, 4))
        add(name, lambda a, f=function: f(a, 1), apart(2, 3, 2))
        add(name, lambda a, f=function: f(a, dim=(0, -1), keepdim=True), apart(2, 3, 2))
    add("var", lambda a: ops.var(a, 0, correction=0), normal(4, 2))
    add("unbroadcast", lambda a: ops.unbroadcast(a, (3, 1)), normal(2, 3, 4))

    add("reshape", lambda a: ops.reshape(a, -1, 2), normal(2, 3, 2))
    add("flatten", lambda a: ops.flatten(a, 1), normal(2, 3, 2))
    add("permute", lambda a: ops.permute(a, 2, 0, 1), normal(2, 3, 4))
    add("transpose", lambda a: ops.transpose(a, 0, -1), normal(2, 3, 4))
    add("squeeze", ops.squeeze, normal(2, 1, 3, 1))
    add("unsqueeze", lambda a: ops.unsqueeze(a, 1), normal(2, 3))
    add("broadcast_to", lambda a: ops.broadcast_to(a, (4, 2, 3)), normal(2, 1))
    add("expand", lambda a: ops.expand(a, 4, -1, 3), normal(2, 1))
    add("flip", lambda a: ops.flip(a, 0, 2), normal(2, 3, 4))
    add("cat", lambda a, b: ops.cat([a, b, a], 1), normal(2, 3), normal(2, 1))
    add("stack", lambda a, b: ops.stack([a, b, a], 1), normal(2, 3), normal(2, 3))
    add("narrow", lambda a: ops.narrow(a, 1, 1, 2), normal(2, 4))
    add("select", lambda a: ops.select(a, 1, -1), normal(2, 4))
    add("split", lambda a: ops.split(a, 2, 1), normal(2, 5))
    add("split", lambda a: ops.split(a, [1, 3], 1)[1], normal(2, 4))
    add("chunk", lambda a: ops.chunk(a, 3, 1), normal(2, 5))
    add("pad", lambda a: ops.pad(a, (1, 2, 0, 1), value=3.0), normal(2, 3, 2))
    add("pad", lambda a: ops.pad(a, (-1, 2)), normal(2, 4))
    places = np.array([[0, 2, 2], [1, 0, 2]])
    for index in (1, np.s_[1:, ::-2], np.s_[..., None, 2], (places, places), np.s_[:, places]):
        add("getitem", lambda a, i=index: ops.getitem(a, i), normal(3, 4))
    add("getitem", lambda a: a[odd], normal(3, 4))
    add("add_at", lambda a: ops.add_at(a, (places, places), (3, 3)), normal(2, 3))
    add("add_at", lambda a: ops.add_at(a, np.s_[1:], (4, 2)), normal(3, 2))

    add("matmul", ops.matmul, normal(3, 4), normal(4, 2))
    add("matmul", ops.matmul, normal(3, 3), normal(3, 3))
    add("matmul", ops.matmul, normal(2, 1, 3, 4), normal(5, 4, 1))  # both broadcast
    add("matmul", ops.matmul, normal(4), normal(2, 4, 3))
    add("matmul", ops.matmul, normal(2, 3, 4), normal(4))
    add("matmul", ops.matmul, normal(4), normal(4))
    add("linear", ops.linear, normal(2, 3, 4), normal(5, 4), normal(5))
    add("linear", ops.linear, normal(3, 1), normal(2, 1))

    for name in ("softmax", "log_softmax", "logsumexp"):
        function = getattr(ops, name)
        add(name, function, normal(3, 5))
        add(name, lambda a, f=function: f(a, 1), normal(2, 3, 2))
    classes, pixels = np.array([1, 0, 3]), np.array([[0, 2], [1, 1]])
    class_weight = positive(4)
    for name in ("nll_loss", "cross_entropy"):
        function = getattr(ops, name)
        for reduction in ("mean", "sum", "none"):
            add(name, lambda a, r=reduction, f=function: f(a, classes, reduction=r), normal(3, 4))
        add(name, lambda a, w, f=function: f(a, classes, w), normal(3, 4), class_weight)
        add(name, lambda a, f=function: f(a, pixels), normal(2, 3, 2))
        add(name, lambda a, w, f=function: f(a, classes, w, 3), normal(3, 4), class_weight)
    add(
        "cross_entropy",
        lambda a, w: ops.cross_entropy(a, classes, w, label_smoothing=0.2),
        normal(3, 4),
        class_weight,
    )
    add(
        "cross_entropy",
        lambda a, t: ops.cross_entropy(a, ops.softmax(t, 1)),
        normal(3, 4),
        normal(3, 4),
    )
    add("mse_loss", ops.mse_loss, normal(3, 4), normal(3, 4))
    add("mse_loss", lambda a, b: ops.mse_loss(a, b, reduction="sum"), normal(3), normal(3))

    add("standardise", lambda a: ops.standardise(a, (0, 2), 1e-5), normal(3, 2, 4))

    def batch_norm(a, weight, bias):
        return ops.batch_norm(a, None, None, weight, bias, training=True)

    add("batch_norm", batch_norm, normal(3, 2, 2, 2), normal(2), normal(2))
    add("batch_norm", lambda a: ops.batch_norm(a, None, None, training=True), normal(5, 3))
    running = normal(2), positive(2)

    def batch_norm_by_statistics(a, weight):
        mean, var = (ops.move(Tensor(s, a.dtype), a.device) for s in running)
        return ops.batch_norm(a, mean, var, weight)

    add("batch_norm", batch_norm_by_statistics, normal(3, 2, 4), normal(2))
    add(
        "layer_norm",
        lambda a, w, b: ops.layer_norm(a, (3, 2), w, b),
        normal(4, 3, 2),
        normal(3, 2),
        normal(3, 2),
    )
    add("layer_norm", lambda a: ops.layer_norm(a, (5,)), normal(2, 5))
    add("local_response_norm", lambda a: ops.local_response_norm(a, 3, 0.5), normal(2, 5, 2, 2))
    add("local_response_norm", lambda a: ops.local_response_norm(a, 2, 0.5, k=2.0), normal(1, 4, 3))

    def dropout(a: Tensor) -> Tensor:
        tinyvid.manual_seed(7)  # the same draws each time
        return ops.dropout(a, 0.4)

    add("dropout", dropout, normal(5, 6))
    add("dropout", lambda a: ops.dropout(a, 0.4, training=False) * 2, normal(3))

    for name in ("max_pool2d", "avg_pool2d"):
        function = getattr(ops, name)
        add(name, lambda a, f=function: f(a, 2), apart(2, 2, 5, 6))
        add(name, lambda a, f=function: f(a, (3, 2), (2, 1), 1, ceil_mode=True), apart(1, 2, 6, 5))
    for name, size in (("2d", (5, 6)), ("3d", (4, 5, 3))):
        for kind in ("avg", "max"):
            function = getattr(ops, f"adaptive_{kind}_pool{name}")
            for target in (3, 1):
                add(function.__name__, lambda a, f=function, t=target: f(a, t), apart(1, 2, *size))

    sizes = [(4, 2), (4, 1), (4,), (4,)]
    weights = [normal(*size) for size in sizes * 2]
    upper = [normal(*size) for size in [(4, 2), *sizes[1:]] * 2]
    states = [normal(4, 2, 1), normal(4, 2, 1)]
    for name in ("lstm", "lstm_composed"):
        function = getattr(ops, name)

        def run(x, h, c, *w, f=function):
            return f(x, w, (h, c), [3, 2], bidirectional=True)

        add(name, run, normal(2, 3, 2), *states, *weights, *upper)  # two layers
        add(
            name,
            lambda x, *w, f=function: f(x, w, batch_first=False),
            normal(2, 1, 2),
            *weights[:4],
        )
    return found
