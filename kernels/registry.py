"""Kernels and their variants: which exist, which one runs, and how to ask for another.

A kernel is one pass of one operation on arrays (`conv3d_fprop`). Its variants are named
`<target>/<algorithm>` (`cpu/im2col`, `cuda/tiled`), but for the NumPy loop nest that
defines it, which is called `reference`. Variants are named by import path, and loaded when
they first run, so that nothing imports Numba or CuPy before it is needed.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

import numpy as np

from tinyvid.device import check_device, to_device
from tinyvid.errors import UserError, nearest

# The targets whose variants run on a device. The emulator is for checking: what has no CUDA
# variant is computed there by its definition.
TARGETS = {
    "cpu": ("cpu", "reference"),
    "emulator": ("cuda", "numba", "reference"),
    "cuda": ("cuda", "numba"),
}
# Variants of these targets run on more than one device, and take it as a keyword.
_ON_DEVICES = ("cuda", "numba")
# Variants of these targets are there to be read, and run only when they are asked for by name.
_BY_NAME = ("numba",)

_KERNELS: dict[str, Kernel] = {}
# What `use` asked for: kernel -> variant. Each thread and each task has its own.
_CHOSEN: ContextVar[Mapping[str, str]] = ContextVar("chosen", default=MappingProxyType({}))


class Variant:
    """One implementation of a kernel.

    Attributes:
        name: `<target>/<algorithm>`, or `reference`.
        target: the part of the name before the slash.
        path: where it stands, `package.module:function`.
        unfit: given the kernel's arguments, returns why this variant cannot take them, or None.
        dtypes: the names of those that it takes; None for all that the kernel does.
        cost: given the kernel's arguments, returns about how long it takes, see
            `tinyvid.kernels.cost`; None where nothing is known.
        workspace: given the kernel's arguments, returns how many bytes each of the arrays takes
            that it needs beside its results; None where they are small.
        rounds: what it does to its operands before it multiplies them, such as
            `tinyvid.kernels.rounding.to_tf32`; None where it takes them as they are.
    """

    __slots__ = (
        "_function",
        "cost",
        "dtypes",
        "name",
        "path",
        "rounds",
        "target",
        "unfit",
        "workspace",
    )

    def __init__(
        self,
        name: str,
        path: str,
        unfit: Callable[..., str | None] | None = None,
        dtypes: tuple[str, ...] | None = None,
        cost: Callable[..., float] | None = None,
        rounds: Callable[[np.ndarray], np.ndarray] | None = None,
        workspace: Callable[..., Iterable[int]] | None = None,
    ):
        self.name, self.path, self.unfit = name, path, unfit
        self.dtypes, self.cost, self.rounds, self.workspace = dtypes, cost, rounds, workspace
        self.target = name.partition("/")[0]
        self._function: Callable[..., Any] | None = None

    @property
    def function(self) -> Callable[..., Any]:
        if self._function is None:
            module, _, name = self.path.partition(":")
            self._function = getattr(importlib.import_module(module), name)
        return self._function

    def run(self, *args: Any, device: str = "cpu") -> Any:
        """Run on arrays of a device, whether or not they fit; results are on it too."""
        if device == "cpu":
            return self.function(*args)
        # Variants for the emulator take plain NumPy arrays: only the layers above tell it apart.
        if device == "emulator":
            args = tuple(_moved(a, "cpu") for a in args)
        if self.target in _ON_DEVICES:
            results = self.function(*args, device=device)
        else:
            results = self.function(*args)
        if isinstance(results, tuple):
            return tuple(_moved(y, device) for y in results)
        return _moved(results, device)


class Kernel:
    """One pass of one operation on arrays, callable; see the module's docstring.

    Args:
        op: the operation, such as `conv3d`.
        pass_: the pass, such as `fprop`; the kernel is called `<op>_<pass_>`.
        doc: what it computes, with shapes.
        check: called with the arguments before any variant; raises UserError where dtype,
            shape or device are wrong.
    """

    def __init__(self, op: str, pass_: str, doc: str, check: Callable[..., None]):
        self.op, self.pass_, self.name = op, pass_, f"{op}_{pass_}"
        self.__doc__ = doc
        self.check = check
        self.variants: dict[str, Variant] = {}
        _KERNELS[self.name] = self

    def __repr__(self) -> str:
        return f"<kernel {self.name}: {', '.join(self.variants)}>"

    def add(self, name: str, path: str, **about: Any) -> Kernel:
        """Add a variant.

        Of those that fit a case the one added first is preferred, unless it states its cost: then
        it is the one of least cost among those that do.

        Args:
            about: `unfit`, `dtypes`, `cost`, `rounds` and `workspace`; see `Variant`.
        """
        if name in self.variants:
            raise ValueError(f"{self.name} has a variant {name!r} already")
        self.variants[name] = Variant(name, path, **about)
        return self

    def __call__(self, *args: Any, device: str = "cpu") -> Any:
        """Run the best variant that fits, or the one asked for with `use`.

        Raises:
            UserError: the arguments are wrong, no variant takes them on this device, or the
                one asked for does not. The message lists the variants and why each does not fit.
        """
        self.check(*args)
        return self.select(*args, device=device).run(*args, device=device)

    def select(self, *args: Any, device: str = "cpu") -> Variant:
        """Return the variant that a call with these arguments runs."""
        check_device(device)
        wanted = _CHOSEN.get().get(self.name)
        if wanted is not None:
            variant = self.variants[wanted]
            why = _why_not(variant, args, device)
            if why is not None:
                raise UserError(f"{self.name}: {wanted!r} cannot take this case: {why}")
            return variant
        fitting: list[tuple[Callable[..., float], Variant]] = []
        reasons = ""
        for variant in self.variants.values():
            if fitting and variant.cost is None:
                continue
            why = _why_not(variant, args, device) or _why_by_name(variant)
            if why is not None:
                reasons += f"\n  {variant.name}: {why}"
            elif variant.cost is None:
                return variant
            else:
                fitting.append((variant.cost, variant))
        if len(fitting) > 1:
            return min(fitting, key=lambda pair: pair[0](*args))[1]
        if fitting:
            return fitting[0][1]
        raise UserError(f"{self.name}: no variant takes this case on device {device!r}:{reasons}")


def _why_not(variant: Variant, args: tuple, device: str) -> str | None:
    why = why_not_there(variant.target, device)
    if why is not None:
        return why
    if variant.dtypes is not None and args[0].dtype.name not in variant.dtypes:
        return f"takes {' and '.join(variant.dtypes)}, not {args[0].dtype}"
    return variant.unfit(*args) if variant.unfit is not None else None


def _why_by_name(variant: Variant) -> str | None:
    if variant.rounds is not None:
        return "rounds its operands: ask for it by name"
    return "is there to be read: ask for it by name" if variant.target in _BY_NAME else None


def why_not_there(target: str, device: str) -> str | None:
    """Return why variants of a target do not run on a device in this process, or None."""
    if target not in TARGETS[device]:
        return f"does not run on device {device!r}"
    if target == "numba" and simulated() != (device == "emulator"):
        if device == "emulator":
            return "runs there in Numba's simulator only: set NUMBA_ENABLE_CUDASIM=1 in the shell"
        return "Numba's simulator is on: unset NUMBA_ENABLE_CUDASIM, or use device 'emulator'"
    return None


def simulated() -> bool:
    """Return whether Numba's simulator stands in for a GPU in this process."""
    numba = sys.modules.get("numba")  # which reads the environment once, when it is imported
    if numba is not None:
        return bool(numba.config.ENABLE_CUDASIM)
    return os.environ.get("NUMBA_ENABLE_CUDASIM", "0") not in ("", "0")


def _moved(x: Any, device: str) -> Any:
    return to_device(x, device) if isinstance(x, np.ndarray) else x


def kernels() -> list[Kernel]:
    """Return every kernel, in the order in which they were defined."""
    return list(_KERNELS.values())


@contextmanager
def use(**variants: str) -> Iterator[None]:
    """Run the named variants inside the block: `with use(conv3d_fprop="reference"): ...`.

    A key is a kernel (`conv3d_fprop`) or an operation (`conv3d`: each of its passes that has
    a variant of that name). A variant asked for that cannot run a case is an error there.

    Raises:
        UserError: no such kernel, or it has no such variant; the message names the nearest.
    """
    ops: dict[str, list[Kernel]] = {}
    for kernel in _KERNELS.values():
        ops.setdefault(kernel.op, []).append(kernel)
    chosen = dict(_CHOSEN.get())
    for key, name in variants.items():
        named = [_KERNELS[key]] if key in _KERNELS else ops.get(key, [])
        if not named:
            hint = nearest(key, [*_KERNELS, *ops])
            raise UserError(f"no kernel or operation is called {key!r}.{hint}")
        having = [kernel for kernel in named if name in kernel.variants]
        if not having:
            known = list(dict.fromkeys(v for kernel in named for v in kernel.variants))
            raise UserError(
                f"{key} has no variant {name!r}; it has {', '.join(known)}.{nearest(name, known)}"
            )
        chosen.update((kernel.name, name) for kernel in having)
    token = _CHOSEN.set(chosen)
    try:
        yield
    finally:
        _CHOSEN.reset(token)
