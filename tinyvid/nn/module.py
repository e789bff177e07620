"""Modules: a network's parameters and buffers, found by walking a module's attributes.

There is no registry to keep in step: whatever attribute is a `Parameter`, a `Buffer` or a
`Module` belongs to the module, in the order in which the attributes were first assigned.
The names that result are PyTorch's, so that weights of the same network trained there load
by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import count
from textwrap import indent
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import numpy as np

from tinyvid.device import check_device, to_device
from tinyvid.errors import UserError
from tinyvid.tensor import Tensor, as_tensor, freeze, no_grad

Self = TypeVar("Self", bound="Module")
Hook = Callable[["Module", tuple, Any], Any]

_hook_number = count().__next__
_shapes_only: ContextVar[bool] = ContextVar("shapes only", default=False)


@contextmanager
def shapes_only() -> Iterator[None]:
    """Inside the block, weights have a shape but no values: they take no memory and no time.

    For networks that are to be looked at, not run: their sizes, parameters and layers.
    """
    token = _shapes_only.set(True)
    try:
        yield
    finally:
        _shapes_only.reset(token)


class _Part(Tensor):
    """A tensor that belongs to a module; copying or pickling it leaves its gradient behind."""

    __slots__ = ()

    def __reduce__(self):
        return type(self), (self._array, None, self.requires_grad)


class Parameter(_Part):
    """A tensor that a module learns: its gradient is recorded, and optimisers update it."""

    __slots__ = ()

    def __init__(self, data: Any, dtype: Any = None, requires_grad: bool = True):
        super().__init__(data, dtype, requires_grad)

    @classmethod
    def empty(cls, *shape: int) -> Parameter:
        """Return a float32 parameter whose values are still to be set, by `nn.init`."""
        p = cls(0.0)
        if _shapes_only.get():
            p._array = np.broadcast_to(p._array, shape)
        else:
            p._array = np.empty(shape, np.float32)
            freeze(p._array)
        return p


class Buffer(_Part):
    """A tensor that is part of a module's state but is not learnt, such as a running mean."""

    __slots__ = ()


class KeyReport(NamedTuple):
    """What `load_state_dict(strict=False)` passed over."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class RemovableHandle:
    """Takes a hook off its module again, by `remove()` or at the end of a `with` block."""

    def __init__(self, module: Module, number: int):
        self._module, self._number = module, number

    def remove(self) -> None:
        """Remove the hook; removing it twice does no harm."""
        hooks = self._module._forward_hooks
        self._module._forward_hooks = {n: h for n, h in hooks.items() if n != self._number}

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()


class Module:
    """A part of a network: subclass it, assign parts in `__init__`, compute in `forward`.

        class Classifier(nn.Module):
            def __init__(self, channels, classes):
                self.pool = nn.GlobalAvgPool()
                self.fc = nn.Linear(channels, classes)

            def forward(self, x):  # N C T H W -> N classes
                return self.fc(self.pool(x))

    Attributes:
        training: whether dropout drops and batch normalisation uses the batch's statistics;
            set by `train()` and `eval()`.
    """

    training: bool = True
    _forward_hooks: Mapping[int, Hook] = MappingProxyType({})

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} does not define forward()")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run `forward`, then the forward hooks; an array as the first argument may stand for x."""
        if args and isinstance(args[0], np.ndarray):
            args = (as_tensor(args[0]), *args[1:])
        output = self.forward(*args, **kwargs)
        for hook in self._forward_hooks.values():
            replacement = hook(self, args, output)
            if replacement is not None:
                output = replacement
        return output

    def register_forward_hook(self, hook: Hook) -> RemovableHandle:
        """Call `hook(module, inputs, output)` after each forward pass.

        Args:
            hook: `inputs` is the tuple of positional arguments; a result that is not None
                takes the place of the output.

        Returns:
            A handle whose `remove()` takes the hook off again; it is a context manager too.
        """
        number = _hook_number()
        # A new mapping each time: a hook may be added or removed while hooks run.
        self._forward_hooks = {**self._forward_hooks, number: hook}
        return RemovableHandle(self, number)

    # What belongs to a module

    def add_module(self, name: str, module: Module) -> None:
        """Make `module` a child called `name`, which need not be an identifier.

        Raises:
            UserError: `module` is not a Module, or the name has a dot or is taken.
        """
        if not isinstance(module, Module):
            raise UserError(f"{type(self).__name__}: {name!r} is {module!r}, which is no Module")
        if "." in name or not name or hasattr(self, name):
            raise UserError(f"{type(self).__name__}: a child cannot be called {name!r}")
        setattr(self, name, module)

    def register_buffer(self, name: str, tensor: Any) -> None:
        """Make a buffer called `name` of a tensor or array; the same as assigning a Buffer."""
        setattr(self, name, Buffer(tensor))

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Yield (name, module) for the modules directly inside this one."""
        return ((k, v) for k, v in vars(self).items() if isinstance(v, Module))

    def children(self) -> Iterator[Module]:
        """Yield the modules directly inside this one."""
        return (child for _, child in self.named_children())

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """Yield (dotted name, module) for this module and all inside it, each module once."""
        return _once(self._walk(prefix))

    def modules(self) -> Iterator[Module]:
        """Yield this module and all inside it, each once."""
        return (module for _, module in self.named_modules())

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, Parameter]]:
        """Yield (dotted name, parameter), each parameter once though it be shared."""
        return _once(self._named(Parameter, prefix))

    def parameters(self) -> Iterator[Parameter]:
        """Yield every parameter of this module and of all inside it, each once."""
        return (p for _, p in self.named_parameters())

    def named_buffers(self, prefix: str = "") -> Iterator[tuple[str, Buffer]]:
        """Yield (dotted name, buffer), each buffer once though it be shared."""
        return _once(self._named(Buffer, prefix))

    def buffers(self) -> Iterator[Buffer]:
        """Yield every buffer of this module and of all inside it, each once."""
        return (b for _, b in self.named_buffers())

    def _walk(self, prefix: str) -> Iterator[tuple[str, Module]]:
        yield prefix, self
        for name, child in self.named_children():
            yield from child._walk(_join(prefix, name))

    def _named(self, kind: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
        for path, module in self._walk(prefix):
            for name, value in vars(module).items():
                if isinstance(value, kind):
                    yield _join(path, name), value

    # State

    def state_dict(self) -> dict[str, Tensor]:
        """Return every parameter and buffer by its dotted name, detached.

        Tensors are immutable in memory, so this is a snapshot: later training does not
        change it. A shared tensor appears under each of its names.
        """
        return {name: t.detach() for name, t in self._named(_Part)}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> KeyReport:
        """Give every parameter and buffer the values that `state_dict` has under its name.

        Args:
            state_dict: tensors or arrays by dotted name; values are cast to the dtype of the
                parameter. If anything is wrong, nothing is loaded.
            strict: whether missing and unexpected names are errors.

        Returns:
            The names that were missing and those that were unexpected.

        Raises:
            UserError: names (with `strict`) or shapes do not fit; the message lists them all.
        """
        own = dict(self._named(_Part))
        report = KeyReport([k for k in own if k not in state_dict], [])
        faults = []
        values = {}
        for key, value in state_dict.items():
            if key not in own:
                report.unexpected_keys.append(key)
                continue
            values[key] = array = value.data if isinstance(value, Tensor) else np.asarray(value)
            if array.shape != own[key].shape:
                faults.append(f"shape of {key} is {array.shape}, the model's is {own[key].shape}")
        if strict:
            faults += [f"missing: {key}" for key in report.missing_keys]
            faults += [f"unexpected: {key}" for key in report.unexpected_keys]
        if faults:
            listing = "".join(f"\n  {fault}" for fault in faults)
            raise UserError(f"these weights do not fit {type(self).__name__}:{listing}")
        with no_grad():
            for key, array in values.items():
                own[key].copy_(array)
        return report

    # What is done to all parts at once

    def train(self: Self, mode: bool = True) -> Self:
        """Set training mode (or, with `mode=False`, evaluation mode) everywhere; returns self."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self: Self) -> Self:
        """Set evaluation mode everywhere; returns self."""
        return self.train(False)

    def zero_grad(self) -> None:
        """Set the gradient of every parameter to None."""
        for p in self.parameters():
            p.grad = None

    def requires_grad_(self: Self, requires_grad: bool = True) -> Self:
        """Set whether the parameters are learnt: `False` freezes them. Returns self."""
        for p in self.parameters():
            p.requires_grad_(requires_grad)
        return self

    def apply(self: Self, fn: Callable[[Module], Any]) -> Self:
        """Call `fn` on every module inside this one, then on this one; returns self."""
        for child in self.children():
            child.apply(fn)
        fn(self)
        return self

    def to(self: Self, target: Any = None, *, dtype: Any = None, device: str | None = None) -> Self:
        """Convert floating-point parameters and buffers to a dtype, or move all to a device.

        Args:
            target: a dtype or a device, as in `to(np.float64)` and `to("cpu")`.
            dtype, device: the same by name.

        Returns:
            This module; its parameters stay the same objects, so optimisers keep hold of them.

        Raises:
            UserError: no such device, or a dtype that is not floating-point.
        """
        if target is not None:
            try:
                dtype = np.dtype(target)
            except TypeError:
                device = target
        if device is not None:
            check_device(device)
            for _, t in self._named(_Part):
                _move(t, device)
        if dtype is not None:
            dtype = np.dtype(dtype)
            if dtype.kind != "f":
                raise UserError(f"to({dtype}): modules are of a floating-point dtype")
            for _, t in self._named(_Part):
                _cast(t, dtype)
        return self

    # Printing

    def extra_repr(self) -> str:
        """Return what stands in the brackets of this module's repr; override it."""
        return ""

    def __repr__(self) -> str:
        name, inside = type(self).__name__, self.extra_repr()
        lines = [f"({name}): {child!r}" for name, child in self.named_children()]
        if not lines:
            return f"{name}({inside})"
        body = indent("\n".join([inside] * bool(inside) + lines), "  ")
        return f"{name}(\n{body}\n)"


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


def _once(named: Iterator[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """Yield the pairs whose object has not come before."""
    seen = set()
    for name, thing in named:
        if id(thing) not in seen:
            seen.add(id(thing))
            yield name, thing


def _move(t: Tensor, device: str) -> None:
    """Move a tensor, and its gradient, in place."""
    t._array = freeze(to_device(t._array, device))
    if t.grad is not None:
        _move(t.grad, device)


def _cast(t: Tensor, dtype: np.dtype) -> None:
    """Convert a tensor, and its gradient, in place; integer tensors stay as they are."""
    if t.dtype.kind == "f" and t.dtype != dtype:
        t._array = freeze(t.data.astype(dtype))  # `copy_` would cast back to the old dtype
        if t.grad is not None:
            _cast(t.grad, dtype)
