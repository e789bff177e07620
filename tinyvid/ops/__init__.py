"""Differentiable operations: what they compute and, beside it, the rule of their gradient.

Names, arguments, order and defaults are those of `torch` and `torch.nn.functional`.
"""

import operator

import numpy as np

from tinyvid.device import DEVICES, one_device
from tinyvid.errors import UserError
from tinyvid.ops.conv import conv2d, conv3d
from tinyvid.ops.conv_pool import conv3d_relu_max_pool
from tinyvid.ops.elementwise import (
    abs,
    add,
    cast,
    clamp,
    cos,
    div,
    exp,
    log,
    maximum,
    minimum,
    move,
    mul,
    neg,
    pow,
    relu,
    sigmoid,
    sin,
    sqrt,
    square,
    sub,
    tanh,
    where,
)
from tinyvid.ops.first_layer import conv2d_uint8, conv3d_uint8
from tinyvid.ops.loss import (
    cross_entropy,
    log_softmax,
    logsumexp,
    mse_loss,
    nll_loss,
    softmax,
)
from tinyvid.ops.lstm import lstm, lstm_composed
from tinyvid.ops.matmul import linear, matmul
from tinyvid.ops.methods import METHODS
from tinyvid.ops.norm import batch_norm, dropout, layer_norm, local_response_norm, standardise
from tinyvid.ops.pool import (
    adaptive_avg_pool2d,
    adaptive_avg_pool3d,
    adaptive_max_pool2d,
    adaptive_max_pool3d,
    avg_pool2d,
    avg_pool3d,
    max_pool2d,
    max_pool3d,
)
from tinyvid.ops.reduce import amax, amin, argmax, argmin, mean, std, sum, unbroadcast, var
from tinyvid.ops.shape import (
    add_at,
    broadcast_to,
    cat,
    chunk,
    expand,
    flatten,
    flip,
    getitem,
    narrow,
    pad,
    permute,
    reshape,
    select,
    split,
    squeeze,
    stack,
    transpose,
    unsqueeze,
)
from tinyvid.tensor import Tensor, plain_index, record

__all__ = [
    "abs",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "adaptive_max_pool2d",
    "adaptive_max_pool3d",
    "add",
    "add_at",
    "amax",
    "amin",
    "argmax",
    "argmin",
    "avg_pool2d",
    "avg_pool3d",
    "batch_norm",
    "broadcast_to",
    "cast",
    "cat",
    "chunk",
    "clamp",
    "conv2d",
    "conv2d_uint8",
    "conv3d",
    "conv3d_relu_max_pool",
    "conv3d_uint8",
    "cos",
    "cross_entropy",
    "div",
    "dropout",
    "exp",
    "expand",
    "flatten",
    "flip",
    "getitem",
    "layer_norm",
    "linear",
    "local_response_norm",
    "log",
    "log_softmax",
    "logsumexp",
    "lstm",
    "lstm_composed",
    "matmul",
    "max_pool2d",
    "max_pool3d",
    "maximum",
    "mean",
    "minimum",
    "mse_loss",
    "mul",
    "narrow",
    "neg",
    "nll_loss",
    "pad",
    "permute",
    "pow",
    "relu",
    "reshape",
    "select",
    "sigmoid",
    "sin",
    "softmax",
    "split",
    "sqrt",
    "square",
    "squeeze",
    "stack",
    "standardise",
    "std",
    "sub",
    "sum",
    "tanh",
    "transpose",
    "unbroadcast",
    "unsqueeze",
    "var",
    "where",
]

# As methods of Tensor: those whose first argument is the tensor.
_METHODS = """
    abs add amax amin argmax argmin broadcast_to chunk clamp cos div exp expand flatten flip log
    log_softmax logsumexp matmul maximum mean minimum mul narrow neg permute pow relu reshape
    select sigmoid sin softmax split sqrt square squeeze std sub sum tanh transpose unsqueeze var
"""
for _name in _METHODS.split():
    setattr(Tensor, _name, globals()[_name])


def _compare(name):
    function = getattr(operator, name)

    def method(self, other):
        value = other.data if isinstance(other, Tensor) else other
        if hasattr(value, "shape") and not isinstance(value, np.generic):
            one_device(name, self.data, value)
        try:
            return record(function(self.data, value))
        except ValueError as error:
            shapes = f"{self.shape} and {np.shape(other)}"
            raise UserError(f"{name}: shapes {shapes} do not broadcast") from error

    method.__name__ = name
    return method


def _in_place(name, function):
    def method(self, other):
        if self.is_leaf and self.requires_grad:
            return self.copy_(function(self.detach(), other))
        # Written to a tensor outside of any graph; inside one, `t += v` only names a new result.
        y = function(self, other)
        if self.requires_grad or y.requires_grad:
            return y
        if y.dtype.kind == "f" != self.dtype.kind:
            raise UserError(f"{name}: a tensor of dtype {self.dtype} cannot hold {y.dtype}")
        return self.copy_(y)

    method.__name__ = name
    return method


def _to(self, *args, dtype=None, device=None):
    """Return the tensor with another dtype, on another device: `to("cpu")`, `to(np.float64)`."""
    for arg in args:
        if isinstance(arg, str) and arg in DEVICES:
            device = arg
        else:
            dtype = arg
    y = self if dtype is None else cast(self, dtype)
    return y if device is None else move(y, device)


_OPERATORS = {
    "__add__": add,
    "__radd__": lambda a, b: add(b, a),
    "__sub__": sub,
    "__rsub__": lambda a, b: sub(b, a),
    "__mul__": mul,
    "__rmul__": lambda a, b: mul(b, a),
    "__truediv__": div,
    "__rtruediv__": lambda a, b: div(b, a),
    "__pow__": pow,
    "__rpow__": lambda a, b: pow(b, a),
    "__matmul__": matmul,
    "__rmatmul__": lambda a, b: matmul(b, a),
    "__neg__": neg,
    "__abs__": abs,
    "__getitem__": lambda a, index: getitem(a, plain_index(index)),
    "astype": cast,
    "to": _to,
    "T": property(lambda a: permute(a, tuple(range(a.ndim))[::-1])),
    **{
        name: _compare(name)
        for name in ("__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__")
    },
    **{
        name: _in_place(name, function)
        for name, function in (
            ("__iadd__", add),
            ("__isub__", sub),
            ("__imul__", mul),
            ("__itruediv__", div),
        )
    },
}
for _name, _function in (_OPERATORS | METHODS).items():
    setattr(Tensor, _name, _function)
