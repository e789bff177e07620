"""TF32 and bf16, against numbers worked out by hand."""

import numpy as np
import pytest

from tinyvid.kernels.rounding import to_bf16, to_tf32

# TF32 has steps of 2^-10 next to 1, bf16 of 2^-7.
TF32 = [
    (1 + 2**-10, 1 + 2**-10),
    (1 + 2**-11, 1 + 2**-10),  # a tie goes away from zero
    (1 + 3 * 2**-11, 1 + 2 * 2**-10),
    (1 + 2**-11 - 2**-20, 1.0),
    (-1 - 2**-11, -1 - 2**-10),
    (2 - 2**-12, 2.0),  # the carry reaches the exponent
    (0.0, 0.0),
    (3.0, 3.0),
]
BF16 = [
    (1 + 2**-7, 1 + 2**-7),
    (1 + 2**-8, 1.0),  # a tie goes to the even one
    (1 + 3 * 2**-8, 1 + 2 * 2**-7),
    (1 + 2**-8 + 2**-16, 1 + 2**-7),
    (-1 - 2**-8, -1.0),
    (2 - 2**-9, 2.0),
    (0.0, 0.0),
    (257.0, 256.0),
    (259.0, 260.0),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("function", "pairs"), [(to_tf32, TF32), (to_bf16, BF16)])
def test_values(function, pairs, dtype):
    values, want = np.array(pairs, dtype).T
    got = function(values)
    assert got.dtype == dtype
    assert got.tolist() == want.tolist()


@pytest.mark.parametrize("function", [to_tf32, to_bf16])
def test_what_is_not_finite_stays(function):
    values = np.array([np.inf, -np.inf, np.nan], np.float32)
    np.testing.assert_array_equal(function(values), values)
