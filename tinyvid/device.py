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

from typing import Any

import numpy as np

from tinyvid.errors import UserError, nearest

DEVICES = ("cpu", "emulator", "cuda")


class EmulatorArray(np.ndarray):
    """A NumPy array whose kernels run in the emulator.

    As with CuPy, results are arrays of the same kind (of no axes where NumPy would give a
    scalar), and a NumPy array is refused as the other operand of an element-wise function.
    """

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **options):
        for x in inputs if method != "at" else ():  # where the second input is an index
            if type(x) is np.ndarray:
                raise TypeError(
                    f"{ufunc.__name__}: one array is on device 'emulator', the other, of shape "
                    f"{x.shape}, on 'cpu'; move one with to_device, or Tensor.to"
                )
        if out is not None:
            options["out"] = tuple(_plain(x) for x in out)
        result = getattr(ufunc, method)(*[_plain(x) for x in inputs], **options)
        if out is not None:
            return out[0] if len(out) == 1 else out
        return _marked(result)

    def __array_function__(self, function, types, args, kwargs):
        return _marked(super().__array_function__(function, types, args, kwargs))


def _plain(x: Any) -> Any:
    return x.view(np.ndarray) if isinstance(x, EmulatorArray) else x


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
        raise UserError(
            f"no device is called {device!r}; there is {known}.{nearest(str(device), DEVICES)}"
        )
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

    return cupy.asarray(host)


def add_at(array: Any, index: Any, values: Any) -> None:
    """Add values to `array[index]`, in place; an index may occur more than once.

    On the CPU such values are added up in order; on a GPU in any order.
    """
    if device_of(array) == "cuda":
        import cupy

        cupy.add.at(array, index, values)
    else:
        np.add.at(array, index, values)


def on_device_of(other: Any, array: Any) -> Any:
    """Return `array` on the device that `other` is on."""
    return array if type(array) is type(other) else to_device(array, device_of(other))
