"""What kernel files include besides their own headers.

A kernel is preprocessed without the system's headers, which are not CUDA's. Those that only declare
what device.h has anyway are empty here; what is known to go further is refused with a hint.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from pathlib import Path

from tinyvid.kernels import cache

_CONSTANTS = """\
#define CUDART_INF_F __builtin_huge_valf()
#define CUDART_INF __builtin_huge_val()
#define CUDART_NAN_F __builtin_nanf("")
#define CUDART_NAN __builtin_nan("")
#define CUDART_PI_F 3.141592654f
#define CUDART_PI 3.1415926535897931e+0
"""
# Name -> text. The empty ones declare what device.h has.
TEXTS = {
    **dict.fromkeys(("cuda.h", "cuda_runtime.h", "cuda_runtime_api.h", "builtin_types.h"), ""),
    **dict.fromkeys(("device_launch_parameters.h", "device_functions.h"), ""),
    **dict.fromkeys(("vector_types.h", "vector_functions.h"), ""),
    **dict.fromkeys(("sm_20_atomic_functions.h", "sm_30_intrinsics.h"), ""),
    **dict.fromkeys(("stdint.h", "stddef.h", "float.h", "limits.h", "math.h", "stdio.h"), ""),
    **dict.fromkeys(("string.h", "stdbool.h", "assert.h"), ""),
    **dict.fromkeys(("cstdint", "cstddef", "cfloat", "climits", "cmath", "cstdio"), ""),
    **dict.fromkeys(("cstring", "cassert", "limits", "type_traits", "utility"), ""),
    "math_constants.h": _CONSTANTS,
}
_HALVES = (
    "the 16-bit floating-point types are not emulated; keep such numbers as unsigned short, and "
    "round with pack_f16x2 or pack_bf16x2 of ptx.cuh"
)
_HOST = (
    "the emulator has no header of that name; code for the CPU can stand between #ifdef __CUDACC__ "
    "and #endif"
)
# Pattern -> why not, and what to do.
_REFUSED = {
    r"cuda_fp16\.\w+|cuda_bf16\.\w+|cuda_fp8\.\w+": _HALVES,
    r"mma\.h": (
        "nvcuda::wmma is not emulated; ptx.cuh has ldmatrix and mma for TF32, bf16 and f16"
    ),
    r"cooperative_groups.*": (
        "cooperative groups are not emulated; use grid_sync() of common.cuh, __syncthreads() and "
        "__syncwarp()"
    ),
    r"cuda_pipeline.*|cuda/pipeline|cuda/barrier": (
        "it is not emulated; use cp_async_16() and its kin of ptx.cuh"
    ),
    r"curand.*": "random numbers on the device are not emulated; hand them in as an array",
    r"cub/.*|thrust/.*|cuda/.*|cutlass/.*|cute/.*": "the emulator has not been made for it",
    r"[\w/]+": _HOST,  # <vector>
}


def folder() -> Path:
    """Return the folder with the files of `TEXTS`, made if there is none."""
    key = hashlib.sha256(repr(TEXTS).encode()).hexdigest()[:20]
    path = cache.folder("emulator") / f"headers-{key}"
    if not path.is_dir():
        with tempfile.TemporaryDirectory(dir=path.parent) as temporary:
            made = Path(temporary) / "headers"
            made.mkdir()
            for name, text in TEXTS.items():
                (made / name).write_text(text)
            try:
                os.rename(made, path)
            except OSError:
                if not path.is_dir():  # else another process was quicker
                    raise
    return path


def missing(says: str) -> str | None:
    """Return a sentence for a header that the preprocessor did not find, from what it says.

    None where something else was wrong.
    """
    found = re.search(
        r"^(\S.*?):(\d+):(?:\d+:)? fatal error: '?([^':\n]+)'?(?:: No such file| file not found)",
        says,
        re.MULTILINE,
    )
    if found is None:
        return None
    file, line, name = found.groups()
    for pattern, why in _REFUSED.items():
        if re.fullmatch(pattern, name):
            return f"{file}:{line}: #include {name}: {why}"
    return (
        f"{file}:{line}: #include {name}: no such file beside it, nor in the kernels folder of "
        "tinyvid"
    )
