"""Vectors of 16 numbers: what transforms are made of beside arithmetic."""

import numpy as np
import pytest
from numba import njit

from tinyvid.kernels.simd import LANES, turn


@njit
def turned(out, o, array, index, step):
    turn(out, o, array, index, step)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("step", [LANES, 27, 1000])
def test_a_square_is_transposed(dtype, step):
    array = np.random.default_rng(0).standard_normal(5 + LANES * step).astype(dtype)
    array[5] = np.nan
    out = np.full(3 + LANES * LANES + 2, 7, dtype)
    turned(out, 3, array, 5, step)
    rows = [array[5 + i * step :][:LANES] for i in range(LANES)]
    np.testing.assert_array_equal(out[3:-2], np.array(rows).T.reshape(-1))
    assert (out[:3] == 7).all()
    assert (out[-2:] == 7).all()
