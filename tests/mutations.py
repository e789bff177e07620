"""Planted faults: functions with one thing wrong, each of which a gradient checker must notice.

`FAULTS` maps a name to (function, input arrays in float64, the kinds of failure to expect).
`KERNEL_FAULTS` are faults in one pass of a kernel: (kernel, what it does to the right result
or to the arguments of the reference).
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

import tinyvid
from tinyvid.kernels import kernels
from tinyvid.tensor import Tensor, record

_rng = np.random.default_rng(11)


def _normal(*shape: int) -> np.ndarray:
    return _rng.standard_normal(shape)


FAULTS: dict[str, tuple[Callable[..., Any], tuple[np.ndarray, ...], set[str]]] = {}


def fault(kinds: str, *arrays: np.ndarray):
    def keep(function):
        FAULTS[function.__name__] = function, arrays, set(kinds.split())
        return function

    return keep


@fault("gradient", _normal(3, 4))
def missing_factor(x):
    return record(x.data**2, (x, lambda g, y: g * x))  # and not 2 g x


@fault("gradient", _normal(3, 3))
def swapped_axes(x):
    return record(x.data.T, (x, lambda g, y: g))  # a square: no shape tells


@fault("gradient", _normal(4, 4), _normal(4, 4))
def transposed_matmul_gradient(a, b):
    return record(
        a.data @ b.data,
        (a, lambda g, y: g @ b),  # and not b.T
        (b, lambda g, y: a.T @ g),
    )


@fault("gradient", _normal(5, 6))
def one_border_element(x):
    def rule(g, y):
        array = (g.data * np.cos(x.data)).copy()
        array[-1, 0] *= 1 + 1e-6
        return record(array)

    return record(np.sin(x.data), (x, rule))


@fault("gradient", _normal(40, 50))
def one_element_of_many(x):
    def rule(g, y):
        array = (g.data * np.cos(x.data)).copy()
        array[17, 3] *= 1.001
        return record(array)

    return record(np.sin(x.data), (x, rule))


@fault("gradient", _normal(3, 4))
def float32_inside(x):
    def rule(g, y):
        return record((g.data * np.exp(x.data)).astype(np.float32).astype(np.float64))

    return record(np.exp(x.data), (x, rule))


@fault("gradient nothing", _normal(3, 4))
def float32_forward(x):
    array = np.exp(x.data.astype(np.float32)).astype(np.float64)
    return record(array, (x, lambda g, y: g * y))


@fault("gradient", _normal(3))
def used_twice_counted_once(x):
    return record(x.data * x.data, (x, lambda g, y: g * x))


@fault("gradient", _normal(3, 4), _normal(4))
def broadcast_not_summed(a, b):
    return record(
        a.data + b.data,
        (a, lambda g, y: g),
        (b, lambda g, y: g[0]),  # and not the sum over the axis
    )


@fault("rule", _normal(3, 4), _normal(4))
def broadcast_not_undone(a, b):
    return record(a.data + b.data, (a, lambda g, y: g), (b, lambda g, y: g))


@fault("rule", _normal(3, 4))
def wrong_dtype(x):
    return record(x.data * 2, (x, lambda g, y: (g * 2).astype(np.float32)))


@fault("nan", _normal(3, 4))
def nan_gradient(x):
    def rule(g, y):
        array = np.array(g.data)
        array[1, 2] = np.nan
        return record(array)

    return record(x.data * 1, (x, rule))


@fault("nan", _normal(3, 4))
def infinite_gradient(x):
    return record(x.data * 1, (x, lambda g, y: g * np.inf))


_calls = itertools.count()


@fault("nondeterminism", _normal(3, 4))
def random_gradient(x):
    return record(x.data * 1, (x, lambda g, y: g * (1 + 1e-9 * (next(_calls) % 7))))


@fault("nondeterminism", _normal(3, 4))
def random_value(x):
    return x * (1 + 1e-9 * (next(_calls) % 7))


@fault("linearity gradient", _normal(5))
def cotangent_dropped(x):
    return record(np.array(np.sin(x.data).sum()), (x, lambda g, y: tinyvid.cos(x)))


@fault("gradient", _normal(5))
def cotangent_dropped_elementwise(x):
    return record(np.sin(x.data), (x, lambda g, y: tinyvid.cos(x)))


@fault("linearity", _normal(1))
def not_linear_in_the_cotangent(x):
    return record(x.data * 1, (x, lambda g, y: tinyvid.abs(g)))


@fault("missing gradient", _normal(4))
def detached(x):
    return tinyvid.sin(x.detach())


@fault("gradient", _normal(4))
def partly_detached(x):
    return x * tinyvid.sin(x).detach()


@fault("gradient", _normal(4))
def stale_after_in_place(x):
    buffer = x.data.copy()
    y = record(buffer * buffer, (x, lambda g, y: g * Tensor(buffer) * 2))
    buffer += 1  # the rule reads it later
    return y


@fault("rule", _normal(4))
def saved_tensor_written_to(x):
    factor = tinyvid.tensor(np.ones(4) * 3)
    y = x * factor
    factor.copy_(np.zeros(4))
    return y


@fault("layout", _normal(3, 4))
def ignores_strides(x):
    memory = np.lib.stride_tricks.as_strided(x.data, x.shape, (x.shape[1] * 8, 8))

    def rule(g, y):
        return record(2 * g.data * (x.data if x.data.flags.c_contiguous else memory * 0))

    return record(x.data**2, (x, rule))


@fault("layout", _normal(3, 4))
def ignores_cotangent_strides(x):
    def rule(g, y):
        start = g.data if g.data.flags.c_contiguous else g.data * 0
        return record(2 * start * x.data)

    return record(x.data**2, (x, rule))


# Kernels


def _moved_padding(args: tuple) -> tuple:
    """One cell more at the low end and one less at the high end: the sizes stay."""
    a, b, geometry, *finish = args
    padding = ((geometry.padding[0][0] + 1, geometry.padding[0][1] - 1), *geometry.padding[1:])
    return a, b, dataclasses.replace(geometry, padding=padding), *finish


def _swapped(args: tuple) -> tuple:
    return (args[0], args[1].swapaxes(-1, -2).copy(), *args[2:])


def _one_border_element(result: np.ndarray) -> np.ndarray:
    result = result.copy()
    result[0, 0, -1, -1, 0] *= 1.0001
    return result


def _negate(i: int, part: slice | None = None):
    def change(result: tuple) -> tuple:
        result = [np.array(r) for r in result]
        result[i][part if part is not None else ...] *= -1
        return tuple(result)

    return change


# name: (kernel, change of the arguments, change of the result)
KERNEL_FAULTS: dict[str, tuple[str, Callable | None, Callable | None]] = {
    **{
        f"padding of {p}": (f"conv3d_{p}", _moved_padding, None)
        for p in ("fprop", "dgrad", "wgrad")
    },
    "swapped axes of fprop": ("conv3d_fprop", _swapped, None),
    "swapped axes of dgrad": ("conv3d_dgrad", _swapped, None),
    **{f"factor of {p}": (f"conv3d_{p}", None, lambda r: r * 2) for p in ("dgrad", "wgrad")},
    **{
        f"border of {p}": (f"conv3d_{p}", None, _one_border_element)
        for p in ("fprop", "dgrad", "wgrad")
    },
    **{
        f"sign of gate {gate} in {what}": (
            "lstm_bprop",
            None,
            _negate(place, slice(2 * k, 2 * k + 2)),
        )
        for k, gate in enumerate("ifgo")
        for what, place in (("gw_ih", 1), ("gw_hh", 2), ("gb", 3))
    },
    "sign of gc0": ("lstm_bprop", None, _negate(5)),
    "factor of avg_pool": ("avg_pool3d_dgrad", None, lambda r: r * 1.001),
}


def plant(name: str, monkeypatch: Any) -> tuple[Any, str]:
    """Add the fault as a variant `faulty` of its kernel; return the kernel and that name."""
    kernel_name, change_args, change_result = KERNEL_FAULTS[name]
    kernel = next(k for k in kernels() if k.name == kernel_name)
    reference = kernel.variants["reference"].function

    def faulty(*args: Any) -> Any:
        result = reference(*(change_args(args) if change_args else args))
        return change_result(result) if change_result else result

    monkeypatch.setattr(kernel, "variants", dict(kernel.variants))
    kernel.add("cpu/faulty", "tests:faulty")
    kernel.variants["cpu/faulty"]._function = faulty
    return kernel, "cpu/faulty"
