"""cuDNN as a peer, called directly: every algorithm of its convolutions, one after the other.

The calls are those of cuDNN's first API (`cudnnConvolutionForward` and its two backward passes),
which cuDNN 9 still has: there a caller names the algorithm, where the newer one hides it. Source:
NVIDIA cuDNN API reference, sections on `cudnn_ops` and `cudnn_cnn`.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import weakref
from collections.abc import Iterator
from ctypes import byref, c_float, c_int, c_size_t, c_void_p
from dataclasses import replace
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from tinyvid.bench.gpu import captured
from tinyvid.bench.peers import Contestant, Peer, Unfit
from tinyvid.bench.problems import Task
from tinyvid.device import to_device

VARIABLE = "TINYVID_CUDNN"  # a path, where it is found in no usual place
# In the order of cuDNN's enumerations.
ALGORITHMS = {
    "fprop": (
        *("implicit_gemm", "implicit_precomp_gemm", "gemm", "direct", "fft", "fft_tiling"),
        *("winograd", "winograd_nonfused"),
    ),
    "dgrad": ("algo_0", "algo_1", "fft", "fft_tiling", "winograd", "winograd_nonfused"),
    "wgrad": (
        *("algo_0", "algo_1", "fft", "algo_3", "winograd", "winograd_nonfused", "fft_tiling"),
    ),
}
_PASSES = {"fprop": "Forward", "dgrad": "BackwardData", "wgrad": "BackwardFilter"}
# The letters of the two operands and of the result, in the order of the calls' arguments.
_LETTERS = {"fprop": list("xwy"), "dgrad": list("wyx"), "wgrad": list("xyw")}
_FLOAT, _NCHW, _CROSS_CORRELATION = 0, 0, 1  # cudnnDataType_t, ...Format_t, ...ConvolutionMode_t
_MATH = {"float32": 3, "tf32": 0}  # cudnnMathType_t: FMA alone, or what is default for float32


class Refused(Exception):
    """A call of cuDNN's that did not succeed."""


class Library:
    """A loaded cuDNN, and a handle to it."""

    def __init__(self, path: str):
        self.dll = ctypes.CDLL(path)
        self.dll.cudnnGetErrorString.restype = ctypes.c_char_p
        self.dll.cudnnGetVersion.restype = c_size_t
        self.handle = c_void_p()
        self.call("cudnnCreate", byref(self.handle))

    @property
    def version(self) -> int:
        """Its version as one number, 90100 for 9.1.0."""
        return self.dll.cudnnGetVersion()

    def call(self, name: str, *args: Any) -> None:
        """Call a function.

        Raises:
            Refused: its status is not success; the message has the name of the status.
        """
        status = getattr(self.dll, name)(*args)
        if status:
            raise Refused(f"{name}: {self.dll.cudnnGetErrorString(status).decode()}")

    def descriptor(self, kind: str, owner: Any, *settings: Any) -> c_void_p:
        """Return a new descriptor, destroyed with its owner."""
        made = c_void_p()
        self.call(f"cudnnCreate{kind}Descriptor", byref(made))
        destroy = getattr(self.dll, f"cudnnDestroy{kind}Descriptor")
        weakref.finalize(owner, destroy, made).atexit = False  # the driver may be gone by then
        self.call(f"cudnnSet{kind}NdDescriptor", made, *settings)
        return made


@cache
def library() -> Library:
    """Return cuDNN.

    Raises:
        OSError: it is in none of the places where it may be, or cannot be loaded.
        Refused: it finds no GPU that it knows.
    """
    path = next(_places(), None)
    if path is None:
        raise OSError("no libcudnn.so")
    return Library(path)


def _places() -> Iterator[str]:
    if os.environ.get(VARIABLE):
        yield os.environ[VARIABLE]
    # The wheels nvidia-cudnn-cu12 and -cu13.
    spec = find_spec("nvidia.cudnn") if find_spec("nvidia") else None
    for folder in spec.submodule_search_locations or () if spec else ():
        yield from map(str, sorted(Path(folder).glob("lib/libcudnn.so.*")))
    found = ctypes.util.find_library("cudnn")
    if found:
        yield found


def missing(device: str) -> str | None:
    """Return why cuDNN cannot be called, and how to get it; None if it can."""
    how = f"pip install nvidia-cudnn-cu12, or set {VARIABLE} to the path of its libcudnn.so"
    try:
        lacking = [
            f"cudnnConvolution{pass_}"
            for pass_ in _PASSES.values()
            if not hasattr(library().dll, f"cudnnConvolution{pass_}")
        ]
    except OSError as error:
        return f"cuDNN is not found ({error}): {how}"
    except Refused as error:
        return f"cuDNN does not start: {error}"
    return f"this cuDNN has no {lacking[0]}: {how}" if lacking else None


def ways(peer: Peer, task: Task, device: str, arithmetic: str) -> list[Peer]:
    """Return a peer for each algorithm that takes a task, `<peer>/<algorithm>`.

    Raises:
        Unfit: it is no convolution, or none takes it.
    """
    conv = Convolution(library(), task, device, arithmetic)
    found = []
    for number, name in enumerate(ALGORITHMS[task.kernel.pass_]):
        try:
            size = conv.workspace(number)
        except Refused:
            continue
        prepare = partial(_prepare, conv, number, size)
        found.append(replace(peer, name=f"{peer.name}/{name}", prepare=prepare, ways=None))
    if not found:
        raise Unfit("no algorithm of cuDNN takes it")
    return found


def _prepare(conv: Convolution, number: int, size: int, task: Task, device: str) -> Contestant:
    return conv.contestant(number, size)


class Convolution:
    """A pass of a convolution as cuDNN has it: descriptors, and arrays on the GPU, NCDHW.

    Raises:
        Unfit: it is no convolution, or its padding differs from side to side.
    """

    def __init__(self, library: Library, task: Task, device: str, arithmetic: str):
        if task.kernel.op not in ("conv3d", "conv2d"):
            raise Unfit("cuDNN is called for convolutions alone")
        self.library, self.pass_, self.arithmetic = library, task.kernel.pass_, arithmetic
        g = self.geometry = task.geometry
        if any(low != high for low, high in g.padding):
            raise Unfit("cuDNN pads both sides alike")
        x = (g.x[0], g.w[1] * g.groups, *g.x[-g.rank :])  # early fusion: all frames as channels
        self.shapes = {"x": x, "w": g.w, "y": g.y}
        tensors = {
            name: library.descriptor("Tensor", self, c_int(_FLOAT), *_sizes(shape, strides=True))
            for name, shape in (("x", x), ("y", g.y))
        }
        w = library.descriptor("Filter", self, c_int(_FLOAT), c_int(_NCHW), *_sizes(g.w))
        self.descriptors = {**tensors, "w": w}
        self.conv = library.descriptor(
            *("Convolution", self, c_int(g.rank)),
            *(_ints(v) for v in ([low for low, _ in g.padding], g.stride, g.dilation)),
            *(c_int(_CROSS_CORRELATION), c_int(_FLOAT)),
        )
        library.call("cudnnSetConvolutionGroupCount", self.conv, c_int(g.groups))
        library.call("cudnnSetConvolutionMathType", self.conv, c_int(_MATH[arithmetic]))
        given = {"fprop": "xw", "dgrad": "yw", "wgrad": "yx"}[self.pass_]
        arrays = {
            name: to_device(np.ascontiguousarray(a), device)
            for name, a in zip(given, task.args[:2], strict=True)
        }
        *operands, self.result = _LETTERS[self.pass_]
        self.operands = [(self.descriptors[k], arrays[k]) for k in operands]

    def workspace(self, algorithm: int) -> int:
        """Return the bytes that an algorithm needs.

        Raises:
            Refused: it does not take this convolution.
        """
        size = c_size_t()
        (first, _), (second, _) = self.operands
        self.library.call(
            f"cudnnGetConvolution{_PASSES[self.pass_]}WorkspaceSize",
            *(self.library.handle, first, second, self.conv),
            *(self.descriptors[self.result], c_int(algorithm), byref(size)),
        )
        return size.value

    def contestant(self, algorithm: int, size: int) -> Contestant:
        """Return an algorithm with a result and a workspace of its own."""
        import cupy

        y = cupy.empty(self.shapes[self.result], "float32")
        y.fill(np.nan)  # so that an element never written is found
        space = cupy.empty((max(size, 1),), "uint8")
        operands = [v for d, a in self.operands for v in (d, c_void_p(a.data.ptr))]
        one, zero = c_float(1), c_float(0)
        args = (
            *(self.library.handle, byref(one), *operands, self.conv, c_int(algorithm)),
            *(c_void_p(space.data.ptr), c_size_t(size), byref(zero)),
            *(self.descriptors[self.result], c_void_p(y.data.ptr)),
        )
        name = f"cudnnConvolution{_PASSES[self.pass_]}"

        def run() -> Any:
            stream = c_void_p(cupy.cuda.get_current_stream().ptr)
            self.library.call("cudnnSetStream", self.library.handle, stream)
            self.library.call(name, *args)
            return y, space  # which must live as long as the call

        return Contestant(run, self._host, self.arithmetic, captured)

    def _host(self, results: Any) -> tuple[np.ndarray, ...]:
        y = to_device(results[0], "cpu")
        return (y.reshape(self.geometry.x if self.result == "x" else y.shape),)


def _ints(values: Any) -> Any:
    return (c_int * len(values))(*values)


def _sizes(shape: tuple[int, ...], strides: bool = False) -> tuple[Any, ...]:
    """Return the number of axes, their sizes and the strides of a packed array, as arguments."""
    steps = np.cumprod([1, *shape[:0:-1]])[::-1].tolist()
    return (c_int(len(shape)), _ints(shape), *([_ints(steps)] if strides else []))
