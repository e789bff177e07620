"""The problems of the suite: how to call each kernel, and its operation, on each of its cases."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from tinyvid import kernels, ops
from tinyvid.device import to_device
from tinyvid.errors import UserError
from tinyvid.kernels.conv2d.cases import CASES as CONV2D
from tinyvid.kernels.conv2d.cases import UINT8_CASES as CONV2D_UINT8
from tinyvid.kernels.conv3d.cases import CASES as CONV3D
from tinyvid.kernels.conv3d.cases import UINT8_CASES as CONV3D_UINT8
from tinyvid.kernels.conv3d_relu_max_pool.cases import CASES as CONV_POOL
from tinyvid.kernels.flow.cases import CASES as FLOW
from tinyvid.kernels.lstm.cases import CASES as LSTM
from tinyvid.kernels.pool3d.cases import CASES as POOL3D
from tinyvid.tensor import Tensor

MOST_ELEMENTS = 400  # cases with larger inputs are compared with the reference only
QUICK = 2  # cases of a kernel, and examples of an operation, in a quick run


@dataclass(frozen=True)
class Problem:
    """How to call a kernel, and the operation that uses it, on one of its cases.

    Attributes:
        name: of the case.
        call: gives the arguments of a pass that it must have, from (pass, random array of a shape).
        fn, inputs: the differentiable operation, and the shapes of its arguments; fn is None where
            nothing is differentiated, as of an optical flow.
        terms: gives, from a pass, the most products that an element of its result sums up; None
            where results are no sums of products of unit variance.
        finish: gives what fprop takes besides, a bias and whether to take the ReLU, from a random
            array of a shape; benchmarks time the sums alone.
    """

    name: str
    call: Callable[[str, Callable[..., np.ndarray]], tuple]
    fn: Callable[..., Any] | None
    inputs: tuple[tuple[int, ...], ...]
    terms: Callable[[str], int] | None = None
    finish: Callable[[Callable[..., np.ndarray]], tuple] | None = None

    def arguments(self, pass_: str, array: Callable[..., np.ndarray]) -> tuple:
        """Return all arguments of a pass, those of `finish` included."""
        finish = self.finish if pass_ == "fprop" else None
        return (*self.call(pass_, array), *(finish(array) if finish else ()))

    @property
    def elements(self) -> int:
        """The elements of its inputs."""
        return sum(int(np.prod(shape)) for shape in self.inputs)

    @property
    def small(self) -> bool:
        """Whether its gradients can be checked in a moment."""
        return self.elements <= MOST_ELEMENTS


def _convolution(case: Any, op: Callable[..., Tensor]) -> Problem:
    geometry = case.geometry

    def call(pass_: str, array: Callable[..., np.ndarray]) -> tuple:
        letters = {"fprop": "xw", "dgrad": "yw", "wgrad": "yx"}[pass_]
        return (*(array(*getattr(geometry, letter)) for letter in letters), geometry)

    def finish(array: Callable[..., np.ndarray]) -> tuple:
        # Whole numbers, which TF32 and bf16 hold too: a bias is not rounded with the operands.
        return np.rint(2 * array(*case.w[:1])), True

    def fn(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return op(x, w, b, case.stride, case.padding, case.dilation, case.groups)

    inputs = case.x, case.w, case.w[:1]
    return Problem(case.name, call, fn, inputs, partial(_terms, geometry), finish)


def _terms(geometry: Any, pass_: str) -> int:
    """Return the most products that an element of a convolution's result sums up."""
    K, *of_k = geometry.w
    of_cell = K // geometry.groups * math.prod(of_k[1:])
    cells = geometry.y[0] * math.prod(geometry.y[2:])
    return {"fprop": math.prod(of_k), "dgrad": of_cell, "wgrad": cells}[pass_]


def _first_layer(case: Any, op: Callable[..., Tensor]) -> Problem:
    geometry, C = case.geometry, case.x[1]
    clip = np.random.default_rng(1).integers(0, 256, case.x, dtype=np.uint8)
    # Bytes are uniform: with these they are normalised to a variance of about 1.
    mean, std = (0.45, 0.5, 0.55, 0.5)[:C], (0.28, 0.29, 0.3, 0.31)[:C]

    def call(pass_: str, array: Callable[..., np.ndarray]) -> tuple:
        if pass_ == "wgrad":
            return array(*geometry.y), clip, mean, std, geometry
        return clip, array(*geometry.w), mean, std, geometry, array(case.w[0]), True

    def fn(w: Tensor, b: Tensor) -> Tensor:
        x = to_device(clip, w.device)
        sizes = case.stride, case.padding, case.dilation, case.groups
        return op(x, w, b, mean, std, *sizes)

    return Problem(case.name, call, fn, (case.w, case.w[:1]), partial(_terms, geometry))


def _conv_pool(case: Any) -> Problem:
    sizes = case.window, case.stride, case.padding, case.dilation, case.groups

    def call(pass_: str, array: Callable[..., np.ndarray]) -> tuple:
        if pass_ == "wgrad":
            # Any cells may be the largest; those of a pooling of other numbers are as good.
            _, argmax = _reference("max_pool3d_fprop")(array(*case.geometry.y), case.pool)
            return array(*case.pool.y), argmax, array(*case.x), case.geometry, case.pool
        return array(*case.x), array(*case.w), array(*case.w[:1]), case.geometry, case.pool

    def fn(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return ops.conv3d_relu_max_pool(x, w, b, *sizes)

    return Problem(case.name, call, fn, (case.x, case.w, case.w[:1]))


def _max_pool(case: Any) -> Problem:
    geometry = case.geometry

    def call(pass_: str, array: Callable[..., np.ndarray]) -> tuple:
        x = array(*geometry.x)
        if pass_ == "fprop":
            return x, geometry
        _, argmax = _reference("max_pool3d_fprop")(x, geometry)
        return (array(*geometry.y) if pass_ == "dgrad" else x), argmax, geometry

    def fn(x: Tensor) -> Any:
        sizes = case.window, case.stride, case.padding, case.dilation, case.ceil_mode
        return ops.max_pool3d(x, *sizes)

    return Problem(case.name, call, fn, (case.x,))


def _avg_pool(case: Any) -> Problem:
    geometry, divisor = case.geometry, (case.count_include_pad, case.divisor_override)

    def call(pass_: str, array: Callable[..., np.ndarray]) -> tuple:
        return array(*(geometry.x if pass_ == "fprop" else geometry.y)), geometry, *divisor

    def fn(x: Tensor) -> Tensor:
        return ops.avg_pool3d(x, case.window, case.stride, case.padding, case.ceil_mode, *divisor)

    return Problem(case.name, call, fn, (case.x,))


def _lstm(case: Any) -> Problem:
    n, length, i, h = case.batch, case.steps, case.inputs, case.hidden
    lengths = None if case.lengths is None else np.array(case.lengths, np.int64)
    ends = lengths, case.reverse

    def call(pass_: str, array: Callable[..., np.ndarray]) -> tuple:
        x, w_ih, w_hh, b = array(n, length, i), array(4 * h, i), array(4 * h, h), array(4 * h)
        h0, c0 = array(n, h), array(n, h)
        if pass_ == "fprop":
            return x, w_ih, w_hh, b, h0, c0, *ends
        gh, gc = array(n, length, h), array(n, length, h)
        saved = _reference("lstm_fprop")(x, w_ih, w_hh, b, h0, c0, *ends)
        return gh, gc, x, w_ih, w_hh, h0, c0, *ends, *saved

    # A backward direction comes with a forward one, here of the same weights.
    directions = 2 if case.reverse else 1

    def fn(x: Tensor, h0: Tensor, c0: Tensor, *weights: Tensor) -> Any:
        return ops.lstm(x, weights * directions, (h0, c0), lengths, bidirectional=case.reverse)

    state = (directions, n, h)
    weights = ((4 * h, i), (4 * h, h), (4 * h,), (4 * h,))
    return Problem(case.name, call, fn, ((n, length, i), state, state, *weights))


def _flow(case: Any, *settings: Any) -> Problem:
    def call(pass_: str, array: Callable[..., np.ndarray]) -> tuple:
        return *case.pair(array), *settings

    return Problem(case.name, call, None, (case.frames, case.frames))


# Each operation with kernels: its cases, and how to make a problem of one.
PROBLEMS: dict[str, tuple[list, Callable[[Any], Problem]]] = {
    "conv3d": (CONV3D, lambda case: _convolution(case, ops.conv3d)),
    "conv3d_uint8": (CONV3D_UINT8, lambda case: _first_layer(case, ops.conv3d_uint8)),
    "conv2d": (CONV2D, lambda case: _convolution(case, ops.conv2d)),
    "conv2d_uint8": (CONV2D_UINT8, lambda case: _first_layer(case, ops.conv2d_uint8)),
    "conv3d_relu_max_pool": (CONV_POOL, _conv_pool),
    "max_pool3d": (POOL3D, _max_pool),
    "avg_pool3d": ([c for c in POOL3D if c.dilation == (1, 1, 1)], _avg_pool),
    "lstm": (LSTM, _lstm),
    "tvl1": (FLOW, lambda case: _flow(case, case.settings)),
    "horn_schunck": (FLOW, lambda case: _flow(case, case.alpha, case.iterations)),
}


def _reference(kernel: str) -> Callable[..., Any]:
    return next(k for k in kernels.kernels() if k.name == kernel).variants["reference"].function


def problems(op: str, quick: bool = False) -> list[Problem]:
    """Return the problems of an operation with kernels, but for the large ones."""
    if op not in PROBLEMS:
        raise UserError(
            f"{op} has kernels but no entry in tinyvid.checking.problems.PROBLEMS: add one"
        )
    cases, make = PROBLEMS[op]
    found = [make(case) for case in cases if not case.large]
    return [p for p in found if p.small][:QUICK] if quick else found
