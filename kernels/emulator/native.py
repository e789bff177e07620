"""The C structures of hooks.h, runtime.h and launch.cpp, as ctypes has them."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, Structure, c_bool, c_char, c_char_p, c_int, c_size_t, c_uint, c_void_p
from pathlib import Path


class Triple(Structure):
    _fields_ = [("x", c_uint), ("y", c_uint), ("z", c_uint)]

    def tuple(self) -> tuple[int, int, int]:
        return self.x, self.y, self.z


class Site(Structure):
    _fields_ = [("file", c_char_p), ("line", c_int), ("column", c_int)]


class Parameter(Structure):
    _fields_ = [
        ("kind", c_char),
        ("element", c_char),
        ("bytes", c_int),
        ("element_bytes", c_int),
        ("read_only", c_bool),
    ]


class Kernel(Structure):
    _fields_ = [
        ("name", c_char_p),
        ("function", c_void_p),
        ("call", c_void_p),
        ("parameters", POINTER(Parameter)),
        ("parameter_count", c_int),
        ("most_threads", c_int),
    ]


class Variable(Structure):
    _fields_ = [
        ("name", c_char_p),
        ("address", c_void_p),
        ("bytes", c_size_t),
        ("constant", c_bool),
    ]


GLOBAL, CONSTANT = 0, 1


class Region(Structure):
    _fields_ = [
        ("name", c_char_p),
        ("base", c_void_p),
        ("bytes", c_size_t),
        ("space", c_int),
        ("unwritten", c_void_p),
    ]


class Fault(Structure):
    _fields_ = [
        ("kind", c_char_p),
        ("site", Site),
        ("other", Site),
        ("thread", Triple),
        ("block", Triple),
        ("text", c_char * 400),
        ("code", c_size_t),
    ]


class Request(Structure):
    _fields_ = [
        ("grid", Triple),
        ("block", Triple),
        ("dynamic_shared", c_size_t),
        ("arguments", POINTER(c_void_p)),
        ("regions", POINTER(Region)),
        ("region_count", c_int),
        ("order", c_int),
        ("seed", c_uint),
        ("copies_late", c_int),
        ("cooperative", c_int),
        ("workers", c_int),
        ("python_only_raises", c_int),
    ]


class Library:
    """A built kernel file, loaded.

    Attributes:
        path: the shared library. handle: it, as ctypes loads it.
        kernels: name -> entry of its table; variables: likewise.
    """

    def __init__(self, path: Path):
        self.path = path
        self.handle = ctypes.CDLL(str(path))
        self.kernels = {k.name.decode(): k for k in self._table("emulator_kernels", Kernel)}
        self.variables = {v.name.decode(): v for v in self._table("emulator_variables", Variable)}
        self._launch = self.handle.emulator_launch
        self._launch.argtypes = [POINTER(Kernel), POINTER(Request), POINTER(Fault)]

    def _table(self, name: str, kind: type) -> list:
        function = getattr(self.handle, name)
        function.restype, count = POINTER(kind), c_int()
        table = function(ctypes.byref(count))
        return [table[i] for i in range(count.value)]

    def launch(self, kernel: Kernel, request: Request) -> Fault | None:
        """Run a launch to its end; returns its fault, or None.

        Raises:
            MemoryError: no room for the stacks of its threads.
        """
        fault = Fault()
        status = self._launch(ctypes.byref(kernel), ctypes.byref(request), ctypes.byref(fault))
        if status < 0:
            raise MemoryError("no memory for the threads of the launch")
        return fault if status else None
