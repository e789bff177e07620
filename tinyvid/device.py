"""Devices: where arrays live, and where kernels run.

| device     | arrays          | kernels                                                        |
|------------|-----------------|----------------------------------------------------------------|
| `cpu`      | NumPy           | `cpu/*`, else the reference                                    |
| `emulator` | `EmulatorArray` | `cuda/*`, on the CPU, a fibre for each thread; else the reference |
| `cuda`     | CuPy            | `cuda/*`                                                       |

The type of an array tells its device: whatever is computed from arrays of a device is there too,
and arrays of two devices do not mix. CuPy is imported when `cuda` is first asked for.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from tinyvid.errors import UserError, nearest

DEVICES = ("cpu", "emulator", "cuda")


class EmulatorArray(np.ndarray):
    """A NumPy array whose kernels run in the emulator.

    As with CuPy, results are arrays of the same kind (of no axes where NumPy would give a
    scalar), and a NumPy array beside them is refused: as an operand, as a value that is written
    into one, and as `out`. As an index it is taken.
    """

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **options):
        operands = (inputs[0], *inputs[2:]) if method == "at" else inputs  # inputs[1]: an index
        _refuse_numpy(ufunc.__name__, (*operands, *(out or ())))
        if out is not None:
            options["out"] = tuple(_plain(x) for x in out)
        result = getattr(ufunc, method)(*[_plain(x) for x in inputs], **options)
        if out is not None:
            return out[0] if len(out) == 1 else out
        return _marked(result)

    def __array_function__(self, function, types, args, kwargs):
        if np.ndarray in types:
            _refuse_numpy(function.__name__, (*args, *kwargs.values()))
        return _marked(function(*_plain(args), **{key: _plain(x) for key, x in kwargs.items()}))

    def __setitem__(self, index, value):
        _refuse_numpy("array[...] = value", (value,))
        super().__setitem__(index, value)


def _refuse_numpy(name: str, arrays: Iterable[Any]) -> None:
    for x in arrays:
        if isinstance(x, (tuple, list)):
            _refuse_numpy(name, x)
        elif type(x) is np.ndarray:
            raise TypeError(
                f"{name}: one array is on device 'emulator', the other, of shape "
                f"{x.shape}, on 'cpu'; move one with to_device, or Tensor.to"
            )


def _plain(x: Any) -> Any:
    if isinstance(x, EmulatorArray):
        return x.view(np.ndarray)
    return type(x)(map(_plain, x)) if type(x) in (tuple, list) else x


def _marked(result: Any) -> Any:
    if isinstance(result, (tuple, list)):
        items = [_marked(x) for x in result]
        return type(result)(*items) if hasattr(result, "_fields") else type(result)(items)
    if isinstance(result, np.generic):
        result = np.asarray(result)
    return result.view(EmulatorArray) if type(result) is np.ndarray else result


def check_device(device: str) -> str:
    """Return the name of a device that can be used.

    Raises:
        UserError: there is no such device, or no GPU for `cuda`.
    """
    if device not in DEVICES:
        known = ", ".join(map(repr, DEVICES))
        # By its letters 'gpu' is nearest to 'cpu'.
        meant = " Did you mean 'cuda'?" if device == "gpu" else nearest(str(device), DEVICES)
        raise UserError(f"no device is called {device!r}; there is {known}.{meant}")
    if device == "cuda":
        from tinyvid.cuda import require

        require()
    return device


def device_of(array: Any) -> str:
    """Return the device of an array, by its type."""
    kind = type(array)
    if kind is np.ndarray:
        return "cpu"
    if kind is EmulatorArray:
        return "emulator"
    return "cuda" if kind.__module__.partition(".")[0] == "cupy" else "cpu"


def one_device(name: str, *arrays: Any) -> None:
    """Make sure that all arrays are on one device; None among them is passed over.

    Raises:
        UserError: two are not; the message names both devices.
    """
    first = arrays[0]
    for array in arrays:
        if type(array) is not type(first) and array is not None:
            here, there = device_of(first), device_of(array)
            if here != there:
                raise UserError(
                    f"{name}: one array, of shape {first.shape}, is on device {here!r}, another, "
                    f"of shape {array.shape}, on {there!r}; move one with Tensor.to, or to_device"
                )


def to_device(array: Any, device: str) -> Any:
    """Return the array on a device: itself if it is there, else a view or a copy of it.

    Raises:
        UserError: as `check_device`.
    """
    here = device_of(array)
    if here == device:
        return array
    check_device(device)
    host = array.get() if here == "cuda" else np.asarray(array)
    if device == "cpu":
        return host
    if device == "emulator":
        return host.view(EmulatorArray)
    import cupy

    # As it lies in memory: CuPy would bring a clip of channels-last memory into C order.
    order = sorted(range(host.ndim), key=lambda axis: -host.strides[axis])
    return cupy.asarray(host.transpose(order)).transpose([order.index(i) for i in range(host.ndim)])


def add_at(array: Any, index: Any, values: Any) -> None:
    """Add values to `array[index]`, in place; an index may occur more than once.

    On the CPU such values are added up in order; on a GPU in any order.
    """
    if device_of(array) == "cuda":
        import cupy

        cupy.add.at(array, index, values)
    else:
        np.add.at(array, index, values)


def zeros_on_device_of(other: Any, shape: int | tuple[int, ...], dtype: Any) -> Any:
    """Return new zeros on the device that `other` is on.

    Instead of `np.zeros_like(other, shape=...)`: CuPy's takes the shape () for none, and gives a
    larger array no more memory than `other` has where that is not contiguous.
    """
    if device_of(other) == "cuda":
        import cupy

        return cupy.zeros(shape, dtype)
    return on_device_of(other, np.zeros(shape, dtype))


def on_device_of(other: Any, array: Any) -> Any:
    """Return `array` on the device that `other` is on."""
    return array if type(array) is type(other) else to_device(array, device_of(other))
