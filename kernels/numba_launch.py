"""Kernels in Python, for Numba: what they share, and their launch.

>>> run(kernel, blocks, threads, [x, w], [y], geometry, device="cuda")

On a GPU they run on CuPy's arrays, in CuPy's stream. Without one, Numba's simulator runs each
thread of a block as a thread of Python, on NumPy's arrays: slow, but a debugger can step through
it. The simulator is on in processes started with `NUMBA_ENABLE_CUDASIM=1`; the device is then
`emulator`, and `cuda` cannot be used.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from tinyvid.errors import UserError
from tinyvid.kernels.registry import simulated, why_not_there

try:
    from numba import cuda as _cuda
except ImportError as error:  # such as a Numba that leaves CUDA to a package of its own
    raise UserError(
        f"Numba's CUDA cannot be imported ({error}): pip install 'tinyvid[cuda13]' (or cuda12), "
        "for its simulator alone pip install numba-cuda"
    ) from error

# In kernels its members are other things than outside of them, and other than their types say.
cuda: Any = _cuda

if not simulated():
    # How small a grid may be is for those who chose the sizes; kernels here take every size.
    cuda.dispatcher.config.CUDA_LOW_OCCUPANCY_WARNINGS = 0

# A function of kernels. Inlined, as all are that nvcc compiles, and so compiled with no GPU too.
device_function = cuda.jit(device=True, inline="always")

# The simulator runs one launch at a time.
_SIMULATOR = threading.Lock()


@device_function
def add(value, lost, term):
    """Add a term to a sum that keeps what rounding takes from it (Kahan, 1965): `sum.cuh`.

    Returns the new `value` and `lost`; both are 0 at first.
    """
    mended = term - lost
    grown = value + mended
    now_lost = (grown - value) - mended
    # What is lost of a sum that has become infinite is no number, and shall not make it NaN.
    return grown, now_lost if now_lost == now_lost else lost


def run(
    kernel: Any,
    blocks: int,
    threads: int,
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    *numbers: Any,
    device: str,
    shared: int = 0,
) -> None:
    """Run a kernel that takes (*inputs, *outputs, *numbers).

    Args:
        kernel: a function that `numba.cuda.jit` has decorated.
        blocks, threads: of a launch along one axis; shared: bytes of dynamic shared memory.
        inputs, outputs: CuPy arrays for a GPU, NumPy arrays for the simulator, without gaps.
        numbers: integers, and tuples of them.
        device: `cuda`, or `emulator` for the simulator.

    Raises:
        UserError: the simulator is off but asked for, or is on in the place of a GPU.
    """
    why = why_not_there("numba", device)
    if why is not None:
        raise UserError(f"numba/{kernel.__name__}: {why}")
    if device == "cuda":
        import cupy

        stream = cuda.external_stream(cupy.cuda.get_current_stream().ptr)
        # CuPy works in the same stream, so that nothing has to wait.
        arrays = [cuda.as_cuda_array(array, sync=False) for array in (*inputs, *outputs)]
        kernel[blocks, threads, stream, shared](*arrays, *numbers)
        return
    with _SIMULATOR:
        arrays = [cuda.to_device(array) for array in (*inputs, *outputs)]
        kernel[blocks, threads, 0, shared](*arrays, *numbers)
        for array, copy in zip(outputs, arrays[len(inputs) :], strict=True):
            copy.copy_to_host(array)
