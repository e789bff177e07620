"""A function of tensors seen as one of arrays: its values, and its reverse pass.

The gradient checker evaluates a function at many points. It gives its tensors other arrays for the
while, rather than make other tensors: so the function may reach them by any way, as a module
reaches its parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from tinyvid.backward import grad
from tinyvid.errors import UserError
from tinyvid.tensor import Tensor, enable_grad, freeze, record


class RuleError(Exception):
    """The engine refused what a rule of the backward pass did."""


class ArrayFunction:
    """A function of tensors as one of arrays.

    Args:
        fn: called as `fn(*inputs)`; returns a tensor or nested tuples and lists of them.
        inputs: a tensor, or a sequence of anything.

    Attributes:
        inputs: as a list.
        tensors: those of them that require a gradient, each once.
        positions: where these stand among the inputs. arrays: their values.
        results: the values of the floating-point outputs.

    Raises:
        UserError: no input requires a gradient, a tensor is complex, no output is a
            floating-point tensor, or an output is not finite.
    """

    def __init__(self, fn: Callable[..., Any], inputs: Any):
        if isinstance(inputs, Tensor) or not isinstance(inputs, Sequence):
            inputs = [inputs]
        self.fn, self.inputs = fn, list(inputs)
        chosen: dict[int, int] = {}  # a tensor given twice is one variable
        for i, x in enumerate(self.inputs):
            if isinstance(x, Tensor) and x.dtype.kind == "c":
                raise UserError(f"inputs[{i}] is {x.dtype}: complex numbers cannot be checked")
            if isinstance(x, Tensor) and x.requires_grad:
                chosen.setdefault(id(x), i)
        if not chosen:
            raise UserError("nothing to check: no input is a tensor with requires_grad=True")
        self.positions = list(chosen.values())
        self.tensors: list[Tensor] = [self.inputs[i] for i in self.positions]
        self.arrays: list[np.ndarray] = [t.numpy() for t in self.tensors]
        self.results: list[np.ndarray] = self(self.arrays)
        for o, y in enumerate(self.results):
            if not np.isfinite(y).all():
                at = first(~np.isfinite(y))
                raise UserError(f"{place('output', o, at)} is {y[at]}: choose other inputs")

    @contextmanager
    def _at(self, arrays: Sequence[np.ndarray]) -> Iterator[None]:
        before = [t._array for t in self.tensors]
        try:
            for t, array in zip(self.tensors, arrays, strict=True):
                t._array = array[...]  # not `t.data =`, which copies and so loses the strides
                freeze(t._array)
            with enable_grad(), np.errstate(all="ignore"):
                yield
        finally:
            for t, array in zip(self.tensors, before, strict=True):
                t._array = array

    def __call__(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return the floating-point outputs at other values of the tensors."""
        with self._at(arrays):  # also while reading: an output may be an input itself
            outs = [y.numpy() for y in float_tensors(self.fn(*self.inputs))]
        if not outs:
            raise UserError("the function returned no floating-point tensor")
        return outs

    def backward(
        self, arrays: Sequence[np.ndarray], cotangents: Sequence[Sequence[np.ndarray]]
    ) -> list[list[np.ndarray | None]]:
        """Return for each list of cotangents the gradients; one forward serves all.

        None stands for a tensor that the graph does not lead to.

        Raises:
            RuleError: the engine refused the backward pass.
        """
        found: list[list[np.ndarray | None]] = []
        with self._at(arrays):
            outs = float_tensors(self.fn(*self.inputs))
            on = [o for o, y in enumerate(outs) if y.requires_grad]
            for gs in cotangents:
                if not on:
                    found.append([None] * len(self.tensors))
                    continue
                ys, tensors = [outs[o] for o in on], [record(gs[o][...]) for o in on]
                try:
                    grads = grad(ys, self.tensors, tensors, retain_graph=True, allow_unused=True)
                except UserError as error:
                    raise RuleError(str(error)) from error
                found.append([None if g is None else g.numpy() for g in grads])
        return found


def float_tensors(outputs: Any) -> list[Tensor]:
    """Return the floating-point tensors in nested tuples and lists.

    Raises:
        UserError: there is something else than tensors, or a complex one.
    """
    if isinstance(outputs, (tuple, list)):
        return [y for part in outputs for y in float_tensors(part)]
    if not isinstance(outputs, Tensor):
        raise UserError(f"the function must return tensors, not {type(outputs).__name__}")
    if outputs.dtype.kind == "c":
        raise UserError(f"an output is {outputs.dtype}: complex numbers cannot be checked")
    return [outputs] if outputs.dtype.kind == "f" else []


def first(where: np.ndarray) -> tuple[int, ...]:
    """Return the index of the first true element."""
    return tuple(int(i) for i in np.argwhere(where)[0])


def place(name: str, position: int, element: tuple[int, ...] | None) -> str:
    """Return `input 0 at [1, 2]`."""
    return f"{name} {position}" + (f" at {list(element)}" if element else "")


# Layouts: the same numbers in arrays of other strides


def _transposed(a: np.ndarray) -> np.ndarray:
    return a.T.copy().T


def _strided(a: np.ndarray) -> np.ndarray:
    gaps = np.full([2 * n for n in a.shape], np.nan, a.dtype)  # whoever reads a gap gets NaN
    index: Any = (*[slice(None, None, 2)] * a.ndim, ...)  # with ..., a view of 0-d arrays too
    every_other = gaps[index]
    every_other[...] = a
    return every_other


def _reversed(a: np.ndarray) -> np.ndarray:
    return np.flip(np.flip(a).copy())


LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "transposed": _transposed,
    "strided": _strided,
    "reversed": _reversed,
}
