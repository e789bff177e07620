"""The device `cuda`: whether there is a GPU, and what is missing if not.

What has no kernel of ours (losses, normalisation, dropout, optimisers, element-wise operations and
reductions) runs there by CuPy: their rules call NumPy's functions, which CuPy's arrays answer. None
of them is fused by `cupy.fuse`: the stand-ins for arrays that it hands to a function know Python's
operators, but neither `__array_ufunc__` nor `__array_function__` (CuPy 14.2,
`cupy/_core/_fusion_interface.py`), so that a rule would have to be written a second time, in CuPy's
own functions, to save a launch or two. Where that counts, beside a convolution, the sums are fused
in the kernel itself: bias, ReLU and max pooling, and the gates of the LSTM.
"""

from __future__ import annotations

from functools import cache

from tinyvid.errors import UserError

_INSTEAD = "or use the device 'emulator', which runs the same kernels on the CPU"


def is_available() -> bool:
    """Return whether tensors can be put on the device `cuda`: CuPy, a driver and a GPU."""
    return _missing() is None


def require() -> None:
    """Make sure that the device can be used.

    Raises:
        UserError: what is missing, and what to do about it.
    """
    missing = _missing()
    if missing is not None:
        raise UserError(f"device 'cuda': {missing}, {_INSTEAD}")


@cache
def _missing() -> str | None:
    try:
        import cupy
    except ImportError as error:
        if not isinstance(error, ModuleNotFoundError) or error.name != "cupy":
            return f"CuPy cannot be imported ({error})"
        return (
            "CuPy is not installed; pip install 'tinyvid[cuda13]' (or cuda12) on a machine with "
            "an NVIDIA GPU"
        )
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return f"CuPy finds no NVIDIA GPU ({error}); install NVIDIA's driver"
    return None if count else "there is no NVIDIA GPU; use a machine that has one"
