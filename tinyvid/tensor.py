"""The tensor, and the graph that operations leave behind; `tinyvid.backward` goes back over it.

A tensor made by an operation remembers its *edges*: for each input that needs a gradient,
the pair (input, rule). The rule takes (g, y), where y is the tensor itself and g the
gradient of the final result with respect to y, and returns the gradient with respect to
that input. Rules are written with the same differentiable operations as everything else, so
the reverse pass can itself be recorded, and differentiated again. Where an operation keeps its
*operands*, its rules take them too, (g, y, *operands): all as bare arrays, unless the reverse
pass is recorded.

Tensors are immutable in memory. Their arrays are read-only, so that writing into one fails
at once, where it happens; a tensor that is given new values (`copy_`, `t[...] = v`, `t -= v`)
gets a new array, and a rule that still needs the old one refuses to run.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import wraps
from itertools import count
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

import numpy as np

from tinyvid.device import device_of, on_device_of, one_device, to_device
from tinyvid.errors import UserError

Rule: TypeAlias = "Callable[..., Any]"
Edge: TypeAlias = "tuple[Tensor, Rule]"
Operation = TypeVar("Operation", bound=Callable[..., Any])

_creation_order = count(1).__next__
_new = object.__new__


class Tensor:
    """An array that can be differentiated with respect to.

    Args:
        data: an array, a tensor, a number, or nested lists of numbers; it is copied, and stays
            on its device. Python floats become float32; NumPy arrays keep their dtype.
        dtype: the dtype to convert to.
        requires_grad: whether `backward` shall accumulate a gradient in `.grad`.

    Attributes:
        data: the values, a read-only NumPy array. Assigning replaces them with a copy.
        grad: the accumulated gradient, a tensor of the same shape, or None.
        requires_grad: whether gradients flow to or through this tensor.
        device: where the array lives; see `tinyvid.device`.

    Raises:
        UserError: `requires_grad` with a dtype that is not floating-point.
    """

    __array_ufunc__ = None  # so that `array + tensor` asks the tensor

    grad: Tensor | None = None
    requires_grad: bool = False
    _array: np.ndarray
    # Defaults on the class, set only where they differ: most tensors are short-lived.
    _edges: Sequence[Edge] | None = ()  # None once the graph has been freed
    _saved: Sequence[tuple[Tensor, np.ndarray]] = ()
    _operands: tuple[Tensor, ...] | None = None
    _order: int = 0  # when an operation made it; leaves come before all

    def __init__(self, data: Any, dtype: Any = None, requires_grad: bool = False):
        if isinstance(data, Tensor):
            data = data._array
        array = copied(data, dtype)
        if dtype is None and array.dtype == np.float64 and not hasattr(data, "dtype"):
            array = array.astype(np.float32)
        if requires_grad and array.dtype.kind != "f":
            raise UserError(f"requires_grad=True needs a floating-point tensor, not {array.dtype}")
        self._array = freeze(array)
        self.requires_grad = requires_grad

    def _replace(self, values: Any) -> None:
        if self._edges:
            raise UserError(
                f"the result of an operation, of shape {self.shape}, cannot be given new values, "
                "as its gradient may need the old ones; detach() it first"
            )
        array = on_device_of(self._array, copied(values, self._array.dtype))
        if array.shape != self._array.shape:
            raise UserError(
                f"new values of shape {array.shape} for a tensor of shape {self._array.shape}"
            )
        self._array = freeze(array)

    data = property(attrgetter("_array"), _replace)
    shape = property(attrgetter("_array.shape"))
    dtype = property(attrgetter("_array.dtype"))
    ndim = property(attrgetter("_array.ndim"))
    size = property(attrgetter("_array.size"))

    @property
    def device(self) -> str:
        """Where the array lives, by its type."""
        return device_of(self._array)

    @property
    def is_leaf(self) -> bool:
        """Whether no recorded operation made this tensor."""
        return self._edges == ()

    def backward(
        self,
        gradient: Tensor | np.ndarray | None = None,
        retain_graph: bool | None = None,
        create_graph: bool = False,
    ) -> None:
        """Accumulate into `.grad` of every leaf the gradient of this tensor.

        Args:
            gradient: the gradient with respect to this tensor, of its shape; may be left out
                for a tensor of one element, where it is 1.
            retain_graph: keep the graph for a further backward; by default only with
                `create_graph`. Otherwise each part is freed as soon as it has been used.
            create_graph: record the reverse pass, so that it can be differentiated again.
        """
        from tinyvid.backward import backpropagate  # which needs tensors

        grads = backpropagate([self], [gradient], None, retain_graph, create_graph)
        for leaf, g in grads:
            if leaf.grad is None:
                # Its own tensor: one rule may have given the same gradient to several inputs.
                leaf.grad = (
                    record(g._array, (g, lambda g, y: g)) if create_graph else _wrap(g._array)
                )
            else:
                with grad_mode(create_graph):
                    leaf.grad = leaf.grad + g

    def detach(self) -> Tensor:
        """Return a tensor of the same values, outside of any graph."""
        return _wrap(self._array)

    def numpy(self) -> np.ndarray:
        """Return the values as a read-only NumPy array, brought to the CPU; copy it to write."""
        return freeze(to_device(self._array, "cpu"))

    def item(self) -> float | int | bool:
        """Return the value of a tensor of one element as a Python number."""
        return self._array.item()

    def copy_(self, values: Any) -> Tensor:
        """Give this tensor new values of its shape, broadcast and cast as needed; returns it.

        Raises:
            UserError: gradients would flow through the old values, or should flow through the
                new ones: do it under `no_grad()`. Or the shapes do not fit.
        """
        needed = self.requires_grad or (isinstance(values, Tensor) and values.requires_grad)
        if needed and _mode.enabled:
            raise UserError("a tensor that requires a gradient can be written to under no_grad()")
        array = values._array if isinstance(values, Tensor) else values
        if not hasattr(array, "shape"):
            array = np.asarray(array)
        try:
            self._replace(np.broadcast_to(array, self._array.shape))
        except ValueError as error:
            if isinstance(error, UserError):
                raise
            raise UserError(
                f"values of shape {array.shape} cannot be broadcast to {self.shape}"
            ) from error
        return self

    def __setitem__(self, index: Any, values: Any) -> None:
        if isinstance(values, Tensor) and values.requires_grad and _mode.enabled:
            raise UserError("t[...] = v is not recorded, but v requires a gradient: use where, cat")
        value = values._array if isinstance(values, Tensor) else values
        if isinstance(value, (list, tuple)):
            value = on_device_of(self._array, np.asarray(value))
        elif hasattr(value, "shape") and not isinstance(value, np.generic):
            one_device("t[...] = v", self._array, value)
        array = self._array.copy()
        array[plain_index(index)] = value
        self.copy_(array)

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Set whether this leaf requires a gradient; returns it."""
        if not self.is_leaf:
            raise UserError("requires_grad can be set on leaves only; use detach() first")
        if requires_grad and self._array.dtype.kind != "f":
            raise UserError(f"a tensor of dtype {self._array.dtype} cannot require a gradient")
        self.requires_grad = requires_grad
        return self

    def __repr__(self) -> str:
        text = np.array2string(self.numpy(), separator=", ", prefix="tensor(")
        if self._array.dtype not in (np.float32, np.int64, np.bool_):
            text += f", dtype={self._array.dtype}"
        if self.device != "cpu":
            text += f", device={self.device!r}"
        if self.requires_grad:
            text += ", requires_grad=True"
        return f"tensor({text})"

    def __len__(self) -> int:
        return len(self._array)

    def __iter__(self):
        return (self[i] for i in range(len(self._array)))

    def __bool__(self) -> bool:
        return bool(self._array)

    def __float__(self) -> float:
        return float(self._array)

    def __int__(self) -> int:
        return int(self._array)

    def __format__(self, spec: str) -> str:
        """Format a tensor of no axes as its number: `f"{loss:.3f}"`."""
        if spec and not self._array.ndim:
            return format(self.item(), spec)
        return super().__format__(spec)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def __reduce__(self) -> tuple:
        # A copy or a pickle is a leaf; made anew, so that its array is read-only too.
        return _rebuild, (type(self), self.numpy(), self.device, self.requires_grad)

    __hash__ = object.__hash__

    if TYPE_CHECKING:  # The operations of tinyvid.ops, bound there as methods.

        def __getattr__(self, name: str) -> Callable[..., Any]: ...
        def __getitem__(self, index: Any) -> Tensor: ...
        def __add__(self, other: Any) -> Tensor: ...
        def __radd__(self, other: Any) -> Tensor: ...
        def __sub__(self, other: Any) -> Tensor: ...
        def __rsub__(self, other: Any) -> Tensor: ...
        def __mul__(self, other: Any) -> Tensor: ...
        def __rmul__(self, other: Any) -> Tensor: ...
        def __truediv__(self, other: Any) -> Tensor: ...
        def __rtruediv__(self, other: Any) -> Tensor: ...
        def __matmul__(self, other: Any) -> Tensor: ...
        def __pow__(self, other: Any) -> Tensor: ...
        def __neg__(self) -> Tensor: ...
        def __lt__(self, other: Any) -> Tensor: ...
        def __le__(self, other: Any) -> Tensor: ...
        def __gt__(self, other: Any) -> Tensor: ...
        def __ge__(self, other: Any) -> Tensor: ...


def _wrap(array: Any) -> Tensor:
    """Return a tensor of this very array, which nobody else may write to from now on."""
    if type(array) is np.ndarray:
        array.setflags(write=False)  # not writeable; a quarter of the time that `flags` takes
    else:
        array = freeze(array)
    t = _new(Tensor)
    t._array = array
    return t


def freeze(array: Any) -> Any:
    """Return the array, no longer writeable. Arrays of CuPy cannot be protected."""
    if isinstance(array, np.generic):
        array = np.asarray(array)  # NumPy gives scalars where it could give 0-d arrays
    if isinstance(array, np.ndarray):
        array.setflags(write=False)
    return array


def copied(data: Any, dtype: Any = None) -> Any:
    """Return a new array of these values, on the device that they are on."""
    if device_of(data) == "cpu":
        return np.array(data, dtype=dtype)
    return data.astype(data.dtype if dtype is None else dtype)


def _rebuild(kind: type, array: np.ndarray, device: str, requires_grad: bool) -> Tensor:
    return kind(to_device(array, device), None, requires_grad)


def as_tensor(data: Any, like: Tensor | None = None) -> Tensor:
    """Return `data` as a tensor; a bare number takes the dtype that `like` suggests."""
    if isinstance(data, Tensor):
        return data
    if like is not None and isinstance(data, (int, float)):
        dtype = like._array.dtype
        if dtype.kind != "f":
            if isinstance(data, float):
                dtype = np.dtype(np.float32)
            elif dtype.kind == "b" and not isinstance(data, bool):
                dtype = np.dtype(np.int64)  # mask · 2 counts
            else:
                dtype = np.promote_types(dtype, np.min_scalar_type(data))
        return _wrap(on_device_of(like._array, np.array(data, dtype)))
    if like is not None and isinstance(data, np.generic):
        return _wrap(on_device_of(like._array, np.asarray(data)))
    return Tensor(data)


def takes_arrays(operation: Operation) -> Operation:
    """Let an operation take an array, a number or a list as its first argument."""

    @wraps(operation)
    def of_anything(input: Any, *args: Any, **options: Any) -> Any:
        if not isinstance(input, Tensor):
            input = as_tensor(input)
        return operation(input, *args, **options)

    return cast(Operation, of_anything)


def plain_index(index: Any) -> Any:
    """Return an index with every tensor in it replaced by its array."""
    if isinstance(index, tuple):
        return tuple(i._array if isinstance(i, Tensor) else i for i in index)
    return index._array if isinstance(index, Tensor) else index


# Recording


class _Mode(threading.local):
    enabled = True


_mode = _Mode()


class grad_mode(AbstractContextManager):
    """Record operations inside the block, or do not; see `no_grad` and `enable_grad`."""

    def __init__(self, enabled: bool):
        self.enabled = enabled

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def decorated(*args: Any, **kwargs: Any) -> Any:
            with grad_mode(self.enabled):  # one for each call, as calls may be nested
                return function(*args, **kwargs)

        return decorated

    def __enter__(self) -> None:
        self.before, _mode.enabled = _mode.enabled, self.enabled

    def __exit__(self, *exception: object) -> None:
        _mode.enabled = self.before


def no_grad() -> grad_mode:
    """Return a context, or a decorator, in which operations are not recorded."""
    return grad_mode(False)


def enable_grad() -> grad_mode:
    """Return a context, or a decorator, in which operations are recorded, also in `no_grad`."""
    return grad_mode(True)


def is_grad_enabled() -> bool:
    """Return whether operations are being recorded."""
    return _mode.enabled


def record(array: Any, *edges: Edge, saved: Sequence[Tensor] = ()) -> Tensor:
    """Return the result of an operation as a tensor that knows how it came about.

    Args:
        array: the result; it belongs to the tensor from now on, or is a view of an input.
        edges: for each differentiable input the pair (input, rule). A rule that needs the
            result finds it as its second argument.
        saved: the tensors whose values the rules read; the reverse pass makes sure that they
            still hold the same values.
    """
    y = _wrap(array)
    if _mode.enabled:
        for x, _ in edges:
            if x.requires_grad:
                attach(y, edges, [(t, t._array) for t in saved])
                break
    return y


def attach(
    y: Tensor,
    edges: Sequence[Edge],
    saved: Sequence[tuple[Tensor, np.ndarray]],
    operands: tuple[Tensor, ...] | None = None,
) -> None:
    """Make `y` the result of an operation, one of whose inputs requires a gradient."""
    y.requires_grad = True
    y._edges = edges
    y._saved = saved
    if operands is not None:
        y._operands = operands
    y._order = _creation_order()
