"""A stand-in for CuPy, for machines without a GPU: what device `cuda` asks of it, on the CPU.

Its arrays hold NumPy's, and are none: whatever they are asked for must be written here, and is
only what CuPy 14 has. Its `RawModule` runs the very sources on the emulator. So what lies between
the tensors and the driver is run: devices, transfers, options, launch arguments, errors.

As with CuPy,

- a NumPy array is refused as an operand, as `out` and as a value to assign, and there is no
  implicit conversion to one; as an index it is taken;
- of NumPy's functions those are answered that CuPy has, with the arguments that CuPy knows; of a
  ufunc only the plain call, with one `out`;
- results of no axes are arrays, and to read one is to wait: `reads` holds the bytes of each array
  that has come back to the CPU, be it by `get`, `item`, `float(...)` or a mask as an index;
- dtypes follow NumPy 2;
- there may be too little memory: `cupy.get_default_memory_pool().set_limit(size=...)`.

What differs: an index out of bounds is an error here, and wraps around in CuPy.
"""

from __future__ import annotations

import sys
import types
import weakref

import numpy as np
from cupy_stand_in_modules import CompileException, RawModule

from tinyvid import cuda
from tinyvid.kernels import launch

# Functions of NumPy that CuPy has too, and the keywords that CuPy's take.
FUNCTIONS = {
    "amax": {"axis", "out", "keepdims"},
    "amin": {"axis", "out", "keepdims"},
    "argmax": {"axis", "dtype", "out", "keepdims"},
    "argmin": {"axis", "dtype", "out", "keepdims"},
    "broadcast_to": {"shape"},
    "clip": {"a_min", "a_max", "out"},
    "concatenate": {"axis", "out", "dtype", "casting"},
    "empty_like": {"dtype", "order"},  # CuPy's shape= is not to be trusted
    "expand_dims": {"axis"},
    "flip": {"axis"},
    "moveaxis": {"source", "destination"},
    "ones_like": {"dtype", "order"},
    "pad": {"mode", "constant_values"},
    "shape": set(),
    "stack": {"axis", "out", "dtype", "casting"},
    "sum": {"axis", "dtype", "out", "keepdims"},
    "unravel_index": {"order"},
    "where": set(),
    "zeros_like": {"dtype", "order"},
}
UFUNCS = {
    *("absolute", "add", "bitwise_and", "bitwise_or", "cos", "divide", "equal", "exp"),
    *("floor_divide", "greater", "greater_equal", "invert", "isfinite", "isnan", "less"),
    *("less_equal", "log", "logical_and", "logical_not", "logical_or", "matmul", "maximum"),
    *("minimum", "multiply", "negative", "not_equal", "power", "remainder", "sign", "sin"),
    *("sqrt", "subtract", "tanh"),
}
# Methods, and the keywords that CuPy's take.
METHODS = {
    **{name: {"axis", "out", "keepdims"} for name in ("all", "any", "max", "min")},
    **{name: {"axis", "out", "dtype", "keepdims"} for name in ("argmax", "argmin")},
    **{name: {"axis", "dtype", "out", "keepdims"} for name in ("mean", "prod", "sum")},
    **{name: {"axis", "dtype", "out", "ddof", "keepdims"} for name in ("std", "var")},
    "astype": {"order", "casting", "copy"},
    "copy": {"order"},
    "fill": set(),
    "ravel": {"order"},
    "reshape": {"order"},
    "squeeze": {"axis"},
    "swapaxes": set(),
    "transpose": set(),
    "view": set(),
}

reads: list[int] = []


class OutOfMemoryError(MemoryError):
    """As `cupy.cuda.memory.OutOfMemoryError`."""


class MemoryPool:
    """Counts the bytes of the arrays that live, while there is a limit to them."""

    def __init__(self):
        self.limit, self.used = None, 0

    def set_limit(self, size=None):
        """Allow so many bytes from now on; 0 is no limit."""
        self.limit, self.used = size or None, 0

    def take(self, host):
        """Count an array until it is freed."""
        if self.limit is None:
            return
        if self.used + host.nbytes > self.limit:
            raise OutOfMemoryError(
                f"Out of memory allocating {host.nbytes:,} bytes (allocated so far: "
                f"{self.used:,} bytes, limit set to: {self.limit:,} bytes)."
            )
        self.used += host.nbytes
        weakref.finalize(host, self.give_back, host.nbytes)

    def give_back(self, size):
        """Count so many bytes less."""
        self.used -= size


pool = MemoryPool()


class ndarray(np.lib.mixins.NDArrayOperatorsMixin):
    """As `cupy.ndarray`, holding a NumPy array."""

    __module__ = "cupy"
    __hash__ = None
    __slots__ = ("__weakref__", "host")

    def __init__(self, host):
        self.host = np.asarray(host)
        if self.host.base is None:
            pool.take(self.host)

    shape = property(lambda self: self.host.shape)
    dtype = property(lambda self: self.host.dtype)
    ndim = property(lambda self: self.host.ndim)
    size = property(lambda self: self.host.size)
    nbytes = property(lambda self: self.host.nbytes)
    itemsize = property(lambda self: self.host.itemsize)
    strides = property(lambda self: self.host.strides)
    T = property(lambda self: ndarray(self.host.T))

    @property
    def data(self):
        return types.SimpleNamespace(ptr=self.host.ctypes.data)

    @property
    def flags(self):
        flags = self.host.flags
        return types.SimpleNamespace(
            c_contiguous=flags.c_contiguous, f_contiguous=flags.f_contiguous, owndata=flags.owndata
        )

    def get(self):
        reads.append(self.nbytes)
        return self.host.copy()

    def item(self):
        return self.get().item()

    def tolist(self):
        return self.get().tolist()

    def __bool__(self):
        return bool(self.get())

    def __int__(self):
        return int(self.get())

    def __float__(self):
        return float(self.get())

    def __repr__(self):
        return repr(self.get())

    def __len__(self):
        return len(self.host)

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index):
        return _ours(self.host[_index(index)])

    def __setitem__(self, index, value):
        if isinstance(value, np.ndarray):
            raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
        self.host[_index(index)] = _operand(value)

    def __array__(self, *args, **options):
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. Please use `.get()` to "
            "construct a NumPy array explicitly."
        )

    def __array_ufunc__(self, ufunc, method, *inputs, out=(), **options):
        if method != "__call__" or ufunc.__name__ not in UFUNCS or set(options) - {"dtype"}:
            return NotImplemented
        if len(out) > 1:
            raise ValueError("The 'out' parameter must have exactly one array value")
        if out:
            options["out"] = _array(out[0])
        result = ufunc(*map(_operand, inputs), **options)
        return out[0] if out else _ours(result)

    def __array_function__(self, function, types, args, kwargs):
        keywords = FUNCTIONS.get(function.__name__)
        if keywords is None or not function.__module__.startswith("numpy"):
            return NotImplemented
        _check_keywords(function.__name__, kwargs, keywords)
        return _ours(function(*map(_argument, args), **_arguments(kwargs)))


def _method(name, keywords):
    def method(self, *args, **kwargs):
        _check_keywords(name, kwargs, keywords)
        return _ours(getattr(self.host, name)(*map(_argument, args), **_arguments(kwargs)))

    return method


for _name, _keywords in METHODS.items():
    setattr(ndarray, _name, _method(_name, _keywords))


def _check_keywords(name, given, known):
    if unknown := set(given) - known:
        raise TypeError(f"{name}() got an unexpected keyword argument {min(unknown)!r}")


def _array(x):
    if not isinstance(x, ndarray):
        raise TypeError(f"Unsupported type {type(x)}")
    return x.host


def _operand(x):
    """Return what NumPy shall compute with: a number, or what one of our arrays holds."""
    return x if isinstance(x, (bool, int, float, np.generic)) else _array(x)


def _argument(x):
    """Return an argument that may be an option, such as a shape or a list of arrays."""
    if isinstance(x, (tuple, list)):
        return type(x)(map(_argument, x))
    plain = x is None or isinstance(x, (str, type, np.dtype))
    return x if plain else _operand(x)


def _arguments(kwargs):
    return {key: _argument(x) for key, x in kwargs.items()}


def _index(index):
    if isinstance(index, tuple):
        return tuple(map(_index, index))
    if isinstance(index, ndarray):
        if index.dtype == bool:
            index.get()  # how many there are decides the shape
        return index.host
    return index


def _ours(result):
    if isinstance(result, (np.ndarray, np.generic)):
        return ndarray(result)
    return tuple(map(_ours, result)) if isinstance(result, tuple) else result


class Event:
    """As `cupy.cuda.Event`; keeps the stream that it was recorded in."""

    def __init__(self, block=False, disable_timing=False, interprocess=False):
        self.stream = None

    def record(self, stream=None):
        self.stream = stream or current_stream


class Stream:
    """As `cupy.cuda.Stream`; keeps the streams that it has waited for."""

    def __init__(self):
        self.waited_for = []

    def wait_event(self, event):
        if event.stream is None:
            raise AssertionError("an event that was never recorded holds nothing up")
        self.waited_for.append(event.stream)

    def use(self):
        global current_stream
        current_stream = self


current_stream = Stream()


class CUDARuntimeError(RuntimeError):
    """As `cupy.cuda.runtime.CUDARuntimeError`."""


def asarray(a):
    return a if isinstance(a, ndarray) else ndarray(np.array(a, order="C"))


def empty(shape, dtype=float):
    return ndarray(np.full(shape, 77, dtype))


def zeros(shape, dtype=float):
    return ndarray(np.zeros(shape, dtype))


def add_at(a, indices, values):
    np.add.at(_array(a), _index(indices), _operand(values))


def install(monkeypatch, devices=1):
    """Make `import cupy` give the stand-in, for one test; the fixture `cupy` cleans up after it.

    Args:
        devices: how many GPUs there are; None for a machine without a driver.
    """

    def count():
        if devices is None:
            raise CUDARuntimeError("cudaErrorInsufficientDriver")
        return devices

    cupy = types.ModuleType("cupy")
    cupy.ndarray, cupy.asarray, cupy.empty, cupy.zeros = ndarray, asarray, empty, zeros
    cupy.RawModule = RawModule
    cupy.add = types.SimpleNamespace(at=add_at)
    cupy.get_default_memory_pool = lambda: pool
    device = types.SimpleNamespace(id=0, attributes={"MultiProcessorCount": 4})
    cupy.cuda = types.SimpleNamespace(
        Device=lambda gpu=0: device,
        Event=Event,
        get_current_stream=lambda: current_stream,
        runtime=types.SimpleNamespace(getDeviceCount=count, CUDARuntimeError=CUDARuntimeError),
        compiler=types.SimpleNamespace(CompileException=CompileException),
        memory=types.SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
    )
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    reads.clear()
    pool.set_limit()
    forget()
    return cupy


def forget():
    """Forget what was found out, and compiled, with another `cupy` than there is now."""
    for cached in (cuda._missing, launch._load):
        cached.cache_clear()
