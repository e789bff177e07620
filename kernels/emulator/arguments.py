"""The arguments of a launch: checked against the kernel's parameters, and put where it finds them.

A GPU's launch takes addresses and bytes, and believes them. Here the kernel's own signature is at
hand, so an array of another type, a float where a double belongs, or one argument too few are
errors that name the argument.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np

from tinyvid.errors import UserError
from tinyvid.kernels.emulator import native

GUARD = 64 << 10  # hooks.h: GLOBAL_GUARD
_KINDS = {"i": "int", "u": "unsigned int", "f": "float", "s": "struct"}


class Arguments:
    """What a launch hands to the kernel.

    Args:
        kernel: its name; signature: its entry in the library's table; names: of its parameters.
        args: the arguments, see `module.Function`.
        guarded: give the kernel copies of the arrays, each amid memory that belongs to nobody,
            so that an access past its end does no harm; `finish` copies them back.

    Attributes:
        pointers: the addresses of the values, in order.
        regions: the memory of the arrays.
    """

    def __init__(
        self,
        kernel: str,
        signature: native.Kernel,
        names: Sequence[str],
        args: Sequence[Any],
        guarded: bool,
    ):
        if len(args) != signature.parameter_count:
            raise UserError(
                f"{kernel} takes {signature.parameter_count} arguments ({', '.join(names)}), "
                f"and got {len(args)}"
            )
        names = names or [f"argument {i}" for i in range(len(args))]
        self._values: list[Any] = []  # kept alive until the launch has ended
        self._guards: list[_Guard] = []
        self.regions: list[native.Region] = []
        arrays = []
        for i, (name, arg) in enumerate(zip(names, args, strict=True)):
            parameter = signature.parameters[i]
            where = f"{kernel}: {name}"
            if parameter.kind == b"p":
                if arg is not None:
                    _check_array(where, parameter, arg)
                    arrays.append((name, arg, i, bool(parameter.read_only)))
                self._values.append(ctypes.c_void_p(0 if arg is None else _address(arg)))
            else:
                self._values.append(_scalar(where, parameter, arg))
        if guarded:
            self._guard(arrays)
        else:
            for name, array, _, _ in arrays:
                self._add_region(name, _address(array), array.nbytes, None)
        self.pointers = (ctypes.c_void_p * max(1, len(args)))(
            *(ctypes.addressof(value) for value in self._values)
        )

    def _add_region(self, name: str, address: int, size: int, unwritten: np.ndarray | None) -> None:
        mask = None if unwritten is None else unwritten.ctypes.data
        self.regions.append(native.Region(name.encode(), address, size, native.GLOBAL, mask))

    def _guard(self, arrays: list[tuple[str, np.ndarray, int, bool]]) -> None:
        """Copy the arrays; those that share memory go into one copy."""
        groups: list[_Guard] = []
        for name, array, _, _ in sorted(arrays, key=lambda entry: _address(entry[1])):
            start, end = _address(array), _address(array) + array.nbytes
            if groups and start < groups[-1].end:
                groups[-1].end = max(groups[-1].end, end)
            else:
                groups.append(_Guard(name, start, end))
            if array.dtype.kind == "f":
                groups[-1].floats.append(array)
        for guard in groups:
            guard.fill()
            self._add_region(guard.name, guard.base, guard.end - guard.start, guard.unwritten)
        for _, array, i, _ in arrays:
            at = _address(array)
            guard = next(g for g in groups if g.start <= at < max(g.end, g.start + 1))
            self._values[i] = ctypes.c_void_p(guard.base + at - guard.start)
            guard.written |= array.flags.writeable
        self._guards = groups

    def finish(self) -> None:
        """Copy what the kernel has written to where the caller's arrays are."""
        for guard in self._guards:
            guard.copy_back()


class _Guard:
    """A copy of memory from address `start` to `end`, with `GUARD` bytes before and after."""

    def __init__(self, name: str, start: int, end: int):
        self.name, self.start, self.end = name, start, end
        self.floats: list[np.ndarray] = []
        self.written = False
        self.base = 0
        self.unwritten: np.ndarray | None = None

    def fill(self) -> None:
        size = self.end - self.start
        self._memory = np.empty(size + 2 * GUARD + 512, np.uint8)
        first = self._memory.ctypes.data + GUARD
        # As a GPU's allocator would: a multiple of 256 bytes, but for what a view begins past it.
        self.base = (first + 255) // 256 * 256 + self.start % 16
        ctypes.memmove(self.base, self.start, size)
        self.unwritten = self._find_unwritten(size)

    def _find_unwritten(self, size: int) -> np.ndarray | None:
        """Return a byte for each byte, 1 where it is part of a number that nobody has written.

        Those are the NaNs whose bits are all set, which `launch.empty` fills new arrays with.
        """
        mask = None
        copy = self._memory[self.base - self._memory.ctypes.data :][:size]
        for array in self.floats:
            at = _address(array) - self.start
            bits = copy[at : at + array.nbytes].view(f"u{array.itemsize}")
            unset = bits == np.iinfo(bits.dtype).max
            if unset.any():
                mask = np.zeros(size, np.uint8) if mask is None else mask
                mask[at : at + array.nbytes] = np.repeat(unset, array.itemsize)
        return mask

    def copy_back(self) -> None:
        if self.written:
            ctypes.memmove(self.start, self.base, self.end - self.start)


def _address(array: np.ndarray) -> int:
    """Return the address of the array's first byte in memory."""
    return array.__array_interface__["data"][0]


def _check_array(where: str, parameter: native.Parameter, array: Any) -> None:
    if not isinstance(array, np.ndarray):
        raise UserError(
            f"{where} is a pointer: give a NumPy array or None, not {type(array).__name__}"
        )
    if not _dense(array):
        raise UserError(
            f"{where}: an array of shape {array.shape} with strides {array.strides} is not "
            "contiguous in any order of its axes; copy it first"
        )
    if not parameter.read_only and not array.flags.writeable:
        raise UserError(f"{where} is not a pointer to const, and the array is read-only")
    kind, size = parameter.element.decode(), parameter.element_bytes
    dtype = array.dtype
    if kind == "f":
        fits = dtype.kind == "f" and dtype.itemsize == size
    elif kind in "iu":  # half precision goes as its bits
        fits = dtype.itemsize == size and (dtype.kind in "iub" or (dtype.kind == "f" and size == 2))
    else:  # a struct, such as float4, or void
        fits = size == 0 or array.nbytes % size == 0
    if not fits:
        raise UserError(
            f"{where} points to {_KINDS[kind]} of {size} bytes, and the array is {dtype}"
        )


def _dense(array: np.ndarray) -> bool:
    """Whether the elements fill their memory without gaps, in whatever order of the axes."""
    expected = array.itemsize
    for stride, size in sorted(zip(array.strides, array.shape, strict=True)):
        if size == 1 or array.size == 0:
            continue
        if stride != expected:
            return False
        expected *= size
    return True


def _scalar(where: str, parameter: native.Parameter, value: Any) -> Any:
    """Return the value as memory of the parameter's size."""
    kind, size = parameter.kind.decode(), parameter.bytes
    if kind == "s":
        raw = value if isinstance(value, bytes) else getattr(value, "tobytes", lambda: None)()
        if raw is None or len(raw) != size:
            raise UserError(f"{where} is a struct: give it as {size} bytes or a NumPy record")
    elif kind == "f":
        # A Python float would reach a GPU as 8 bytes.
        if not (isinstance(value, np.floating) and value.dtype.itemsize == size) and not (
            isinstance(value, float) and size == 8
        ):
            raise UserError(
                f"{where} is a floating-point number of {size} bytes: give numpy.float{8 * size}, "
                f"not {type(value).__name__}"
            )
        raw = np.dtype(f"f{size}").type(value).tobytes()
    else:
        if not isinstance(value, (int, np.integer, np.bool_)) or (
            isinstance(value, np.integer) and value.dtype.itemsize < size
        ):
            raise UserError(
                f"{where} is an integer of {size} bytes: give an int or numpy.int{8 * size}, "
                f"not {type(value).__name__}"
            )
        dtype = np.dtype(f"{kind}{size}")
        limits = np.iinfo(dtype)
        if not limits.min <= int(value) <= limits.max:
            raise UserError(
                f"{where}={value} does not fit an integer from {limits.min} to {limits.max}"
            )
        raw = dtype.type(int(value)).tobytes()
    return ctypes.create_string_buffer(raw, max(size, 1))
