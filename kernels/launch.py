"""One loader for CUDA C++: on a GPU through CuPy, else on the emulator.

>>> module = load("kernels/conv3d/naive.cu", {"REAL": "float"}, device="emulator")
>>> module.get_function("fprop")((blocks,), (128,), (x, w, y))
>>> write_global(module, "geometry", np.array([2, 3, 4], np.int32))

Both kinds of module have `get_function(name)(grid, block, args, shared_mem=0)` and
`get_global(name)`, as `cupy.RawModule` has.
"""

from __future__ import annotations

import functools
import hashlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from tinyvid.errors import UserError

KERNELS = Path(__file__).parent
# What `stand_in` asked for: file -> copy.
_STAND_INS: ContextVar[Mapping[Path, Path]] = ContextVar("stand_ins", default=MappingProxyType({}))


def load(
    file: str | Path,
    constants: Mapping[str, object] | None = None,
    device: str = "cuda",
    name_expressions: Sequence[str] = (),
    enable_cooperative_groups: bool = False,
) -> Any:
    """Return the module of a CUDA C++ file, compiled when it is first asked for.

    A file that has changed since is compiled anew (a changed header is noticed by a new process).
    On a GPU CuPy adds `-ftz=true`: numbers below 1.2e-38 become 0 in float32.

    Args:
        file: the file; a relative path is taken from the working directory.
        constants: names to define before the first line (`-Dname=value`), such as
            `{"REAL": "float"}`. Each set of them is a module of its own.
        device: `cuda`, or `emulator`.
        name_expressions: instances of template kernels to compile, such as `scale<float, 4>`.
        enable_cooperative_groups: launch its kernels cooperatively, for `grid_sync()`.

    Raises:
        UserError: the file is not there or does not compile, or the device lacks what it needs
            (a compiler; CuPy and a GPU).
    """
    items = tuple(sorted((constants or {}).items()))
    original = Path(file).resolve()
    path = _STAND_INS.get().get(original, original)
    if not path.is_file():
        raise UserError(f"{file}: no such file")
    return _load(
        path,
        path.stat().st_mtime_ns,
        items,
        device,
        tuple(name_expressions),
        enable_cooperative_groups,
        original.parent,
    )


@contextmanager
def stand_in(file: str | Path, copy: str | Path) -> Iterator[None]:
    """Inside the block, load `copy` where `file` is asked for; it finds what `file` includes."""
    token = _STAND_INS.set({**_STAND_INS.get(), Path(file).resolve(): Path(copy).resolve()})
    try:
        yield
    finally:
        _STAND_INS.reset(token)


@functools.lru_cache(maxsize=256)
def _load(
    path: Path,
    changed: int,
    constants: tuple,
    device: str,
    names: tuple,
    cooperative: bool,
    include: Path,
) -> Any:
    if device == "emulator":
        from tinyvid.kernels.emulator import Module

        return Module(path, dict(constants), names, cooperative, [include])
    if device != "cuda":
        raise UserError(f"device {device!r} does not run CUDA C++; use 'cuda' or 'emulator'")
    cupy = _cupy()
    from tinyvid.kernels.inspection.compile import sources

    # CuPy keeps on disk what it compiled, by the text alone: let the text tell what it includes.
    included = hashlib.sha256(repr(sorted(sources(path, [include]).values())).encode()).hexdigest()
    options = ["-std=c++17", f"-I{path.parent}", f"-I{include}", f"-I{KERNELS}"]
    options += [f"-D{k}={_text(v)}" for k, v in constants]
    module = cupy.RawModule(
        code=f"{path.read_text()}\n// with its includes: {included}\n",
        options=tuple(options),
        backend="nvrtc",
        name_expressions=names or None,
        enable_cooperative_groups=cooperative,
    )
    try:
        module.compile()
    except cupy.cuda.compiler.CompileException as error:
        raise UserError(f"{path} does not compile:\n{error}") from error
    return module


def write_global(module: Any, name: str, value: np.ndarray) -> None:
    """Fill a `__device__` or `__constant__` variable with the bytes of an array."""
    value, variable = np.ascontiguousarray(value), module.get_global(name)
    if not hasattr(variable, "copy_from_device_async"):  # the emulator's
        variable.copy_from_host(value.ctypes.data, value.nbytes)
        return
    # In the order of the current stream: a launch before this one may still read it. CuPy keeps
    # what it sends to the GPU until it is there; a copy of ours from the host would need pinned
    # memory that lives as long.
    sent = _cupy().asarray(value.reshape(-1).view(np.uint8))
    variable.copy_from_device_async(sent.data, value.nbytes)


# One build for all sizes has one `geometry`, which must not change until its launch has ended: on
# the emulator it has with the call, on a GPU the next change, in whatever stream, waits for it.
_GEOMETRY_LOCK = threading.Lock()
_last_launch: Any = None  # an event of a GPU, after the last launch that reads a `geometry`


@contextmanager
def geometry_held(
    module: Any, members: Mapping[str, int], specialised: bool, device: str
) -> Iterator[None]:
    """Hold `geometry` in the module to these sizes, where they are not compiled in."""
    if specialised:
        yield
        return
    global _last_launch
    sizes = np.array([*members.values()], np.int32)
    with _GEOMETRY_LOCK:
        if device == "emulator":
            write_global(module, "geometry", sizes)
            yield
            return
        cuda = _cupy().cuda
        stream = cuda.get_current_stream()
        if _last_launch is not None:
            stream.wait_event(_last_launch)
        write_global(module, "geometry", sizes)
        try:
            yield
        finally:
            _last_launch = cuda.Event(disable_timing=True)
            _last_launch.record(stream)


def with_shared(kernel: Any, size: int) -> Any:
    """Return the kernel, ready for launches with so many bytes of dynamic shared memory.

    Unasked, a GPU gives a kernel 48 KiB, of which its own arrays take their part.
    """
    if size:
        kernel.max_dynamic_shared_size_bytes = size
    return kernel


def multiprocessors() -> int:
    """Return how many multiprocessors the current GPU has."""
    device = _cupy().cuda.Device
    return _multiprocessors(device, device().id)


@functools.lru_cache(maxsize=64)  # CuPy asks the driver for every attribute of a GPU each time
def _multiprocessors(device: Any, gpu: int) -> int:
    return int(device(gpu).attributes["MultiProcessorCount"])


def empty(shape: Sequence[int], dtype: Any, device: str) -> Any:
    """Return a new array that a kernel is to fill.

    On the emulator its bytes are all 0xFF: NaN or -1, so that an element left out shows. The
    checker knows such NaNs, and reports the kernel that reads one.
    """
    if device == "cuda":
        return _cupy().empty(tuple(shape), dtype)
    array = np.empty(tuple(shape), dtype)
    array.reshape(-1).view(np.uint8)[:] = 0xFF
    return array


def zeros(shape: Sequence[int], dtype: Any, device: str) -> Any:
    """Return a new array of zeros, set in the order of the current stream."""
    return (_cupy() if device == "cuda" else np).zeros(tuple(shape), dtype)


def _cupy() -> Any:
    try:
        import cupy
    except ImportError as error:
        raise UserError(
            "device 'cuda' needs CuPy, which is not installed: pip install 'tinyvid[cuda13]' (or "
            "cuda12), or use device 'emulator'"
        ) from error
    return cupy


def _text(value: object) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)
