"""A stand-in for CuPy, for machines without a GPU: what device `cuda` asks of it, on the CPU.

Its arrays are NumPy's of a type of their own. As with CuPy's, an element-wise function refuses a
NumPy array beside them, and of a NumPy ufunc only the plain call is answered. Its `RawModule`
runs the very sources on the emulator. So what lies between the tensors and the driver is run:
devices, transfers, options, launch arguments, errors.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
import types
from pathlib import Path

import numpy as np

from tinyvid.kernels.emulator import Module


class ndarray(np.ndarray):
    __module__ = "cupy"

    def get(self):
        return _plain(self).copy()

    @property
    def data(self):
        return types.SimpleNamespace(ptr=self.ctypes.data)

    def __array__(self, *args, **options):
        raise TypeError("Implicit conversion to a NumPy array is not allowed: use `.get()`")

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **options):
        if method != "__call__":
            return NotImplemented
        for x in inputs:
            if isinstance(x, np.ndarray) and not isinstance(x, ndarray):
                raise TypeError(f"Unsupported type {type(x)}")
        if out is not None:
            options["out"] = tuple(_plain(x) for x in out)
        result = ufunc(*[_plain(x) for x in inputs], **options)
        return out[0] if out is not None else _ours(result)

    def __array_function__(self, function, types, args, kwargs):
        return _ours(function(*_deep(args), **{k: _deep((v,))[0] for k, v in kwargs.items()}))


def _method(name):
    """A reduction, which NumPy would run by a ufunc's `reduce`."""

    def method(self, *args, **kwargs):
        return _ours(getattr(_plain(self), name)(*args, **kwargs))

    return method


for _name in ("all", "any", "argmax", "argmin", "max", "mean", "min", "prod", "std", "sum", "var"):
    setattr(ndarray, _name, _method(_name))


def _plain(x):
    return x.view(np.ndarray) if isinstance(x, ndarray) else x


def _deep(args):
    return tuple(type(x)(_deep(x)) if isinstance(x, (tuple, list)) else _plain(x) for x in args)


def _ours(result):
    if isinstance(result, (tuple, list)):
        return type(result)(_ours(x) for x in result)
    if isinstance(result, np.generic):
        result = np.asarray(result)
    return result.view(ndarray) if type(result) is np.ndarray else result


class RawModule:
    def __init__(self, code, options, backend, name_expressions, enable_cooperative_groups):
        assert backend == "nvrtc"
        self.code, self.names, self.cooperative = code, name_expressions, enable_cooperative_groups
        defined = [o[2:].partition("=") for o in options if o.startswith("-D")]
        self.constants = {name: value for name, _, value in defined}
        self.include = [o[2:] for o in options if o.startswith("-I")]
        assert all(o.startswith(("-D", "-I", "-std=")) for o in options)

    def compile(self):
        name = hashlib.sha256(self.code.encode()).hexdigest()[:16]
        path = Path(tempfile.gettempdir()) / f"stand_in_{name}.cu"
        path.write_text(self.code)
        self.module = Module(
            path, self.constants, self.names or (), self.cooperative, list(map(Path, self.include))
        )

    def get_function(self, name):
        function = self.module.get_function(name)

        def launch(grid, block, args, *, shared_mem=0):
            for a in args:
                assert isinstance(a, (ndarray, np.generic)), f"a launch argument is {type(a)}"
            given = [None if type(a) is np.uintp and a == 0 else _plain(a) for a in args]
            function(grid, block, given, shared_mem=shared_mem)

        return launch


class CUDARuntimeError(RuntimeError):
    pass


class CompileException(Exception):
    pass


def install(monkeypatch, devices=1):
    """Make `import cupy` give the stand-in, for one test."""
    from tinyvid import cuda
    from tinyvid.kernels import launch

    def count():
        if devices is None:
            raise CUDARuntimeError("cudaErrorInsufficientDriver")
        return devices

    cupy = types.ModuleType("cupy")
    cupy.ndarray, cupy.RawModule = ndarray, RawModule
    cupy.asarray = lambda a: np.array(_plain(a)).view(ndarray)
    cupy.empty = lambda shape, dtype: np.full(shape, 77, dtype).view(ndarray)
    cupy.add = types.SimpleNamespace(
        at=lambda a, index, values: np.add.at(_plain(a), _deep((index,))[0], _plain(values))
    )
    runtime = types.SimpleNamespace(getDeviceCount=count, CUDARuntimeError=CUDARuntimeError)
    compiler = types.SimpleNamespace(CompileException=CompileException)
    cupy.cuda = types.SimpleNamespace(runtime=runtime, compiler=compiler)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    for cached in (cuda._missing, launch._load):
        cached.cache_clear()
    return cupy
