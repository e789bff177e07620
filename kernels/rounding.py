"""What tensor cores round their operands to: the number formats TF32 and bf16, bit for bit.

A variant that rounds on the way in is compared with a reference of the same rounded operands, so
that the comparison can be as strict as for any other.
"""

from __future__ import annotations

import numpy as np


def to_tf32(array: np.ndarray) -> np.ndarray:
    """Return the values rounded to 10 bits of fraction, to the nearest, ties away from zero.

    As the instruction `cvt.rna.tf32.f32` does (PTX ISA, section 9.7.9.21). The dtype stays.
    """
    bits = array.astype(np.float32).view(np.uint32)
    rounded = (bits + np.uint32(1 << 12)) & np.uint32(0xFFFFE000)
    return _where_finite(array, rounded)


def to_bf16(array: np.ndarray) -> np.ndarray:
    """Return the values rounded to 7 bits of fraction, to the nearest, ties to even.

    As the instruction `cvt.rn.bf16x2.f32` does (PTX ISA, section 9.7.9.21). The dtype stays.
    """
    bits = array.astype(np.float32).view(np.uint32)
    even = (bits >> np.uint32(16)) & np.uint32(1)
    rounded = (bits + np.uint32(0x7FFF) + even) & np.uint32(0xFFFF0000)
    return _where_finite(array, rounded)


def _where_finite(array: np.ndarray, bits: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(array), bits.view(np.float32), array).astype(array.dtype)
