"""What launchers of every operation do with their arrays: check, lay out, allocate."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from tinyvid.device import device_of
from tinyvid.errors import UserError
from tinyvid.kernels import launch


def check_device_of(kernel: str, arrays: Iterable[Any], device: str) -> None:
    """Make sure that arrays are of the kind that a device takes; None among them is passed over.

    Raises:
        UserError: one is of another kind.
    """
    for array in arrays:
        if array is not None and (device_of(array) == "cuda") != (device == "cuda"):
            wanted = {"emulator": "NumPy", "cuda": "CuPy"}.get(device, "other")
            raise UserError(
                f"{kernel}: device {device!r} takes {wanted} arrays, "
                f"not {type(array).__module__}.{type(array).__name__}"
            )


def channels_last(array: Any, device: str) -> Any:
    """Return N C ... as N ... C without gaps: a view where it lies so already."""
    return dense(array.transpose(0, *range(2, array.ndim), 1), device)


def channels_first(array: Any) -> Any:
    """Return N ... C as a view N C ..."""
    return array.transpose(0, array.ndim - 1, *range(1, array.ndim - 1))


def dense(array: Any, device: str) -> Any:
    """Return the array without gaps in memory and from a multiple of 16 bytes on."""
    if array is None:
        return None
    address = array.data.ptr if device == "cuda" else array.ctypes.data
    if array.flags.c_contiguous and address % 16 == 0:
        return array
    copy = launch.empty(array.shape, array.dtype, device)
    copy[...] = array
    return copy


def pointer(array: Any, device: str) -> Any:
    """Return what a launch takes for an array that may be None."""
    return np.uintp(0) if array is None and device == "cuda" else array


@contextmanager
def sizes_told(
    kernel: str, variant: str, sizes: Mapping[str, Sequence[tuple[Sequence[int], Any]]]
) -> Iterator[None]:
    """Inside the block, tell of arrays' sizes where there is not enough memory for them.

    Args:
        sizes: what they are for -> shape and dtype of each.

    Raises:
        UserError: instead of MemoryError, which CuPy's is too.
    """

    def size(shape: Sequence[int], dtype: Any) -> str:
        dtype = np.dtype(dtype)
        return f"{tuple(shape)} {dtype} of {math.prod(shape) * dtype.itemsize / 2**20:.1f} MiB"

    try:
        yield
    except MemoryError as error:
        told = "; ".join(
            f"{what} {' and '.join(size(*each) for each in arrays)}"
            for what, arrays in sizes.items()
            if arrays
        )
        raise UserError(
            f"{kernel}: out of memory for {variant!r}, which takes {told}; operands that are not "
            "channels-last are copied; use a smaller batch or clip"
        ) from error
