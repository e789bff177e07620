"""What convolution is expected to cost on the processor: what follows from the work that it is.

Whether the costs put variants into the right order: tests/bench/test_bench_variants.py, by times.
"""

import numpy as np
import pytest

from tinyvid import kernels
from tinyvid.geometry import conv_geometry
from tinyvid.kernels import cost
from tinyvid.kernels.conv3d.costs import DIRECT, VECTOR, band_of, directly, im2col


def layer(C, K, size=(4, 20, 20), N=4, taps=3, **options):
    padding = options.pop("padding", taps // 2)
    return conv_geometry((N, C, *size), (K, C, taps, taps, taps), padding=padding, **options)


@pytest.mark.parametrize("formula", [im2col, directly])
@pytest.mark.parametrize("pass_", ["fprop", "dgrad", "wgrad"])
def test_more_work_costs_more(formula, pass_):
    costs = [
        formula(layer(C, K, N=N), pass_)
        for C, K, N in ((16, 32, 4), (16, 32, 8), (32, 32, 8), (32, 64, 8))
    ]
    assert costs == sorted(costs)
    assert len(set(costs)) == 4


def test_columns_are_filled_up_to_vectors():
    one, vector, more = (directly(layer(16, K), "fprop") for K in (1, VECTOR, VECTOR + 1))
    assert vector - one < more - vector
    products = 4 * 4 * 20 * 20 * 27 * 16 * VECTOR
    assert more - vector > products / DIRECT


def test_a_filter_of_one_cell_has_no_patches():
    one, moved = (layer(64, 64, taps=1, stride=stride) for stride in (1, (1, 1, 2)))
    cells = 4 * 4 * 20 * 20
    assert im2col(one, "fprop") - cost.START < 1.5 * cost.gemm(cells, 64, 64)
    assert im2col(moved, "fprop") - cost.START > 1.5 * cost.gemm(cells // 2, 64, 64)


def test_dgrad_goes_through_the_cells_of_the_input():
    whole = conv_geometry((4, 8, 9, 9, 9), (8, 8, 9, 9, 9))  # one cell of output
    for formula in (im2col, directly):
        assert formula(whole, "dgrad") > 10 * formula(whole, "fprop")


def test_small_bands_of_a_wide_layer_read_its_filters_often():
    """As few cells, in more bands: lines of 400 cells, of which a band holds one."""
    wide, deep = (layer(128, 128, size, N=1) for size in ((4, 400, 400), (4, 25, 6400)))
    assert band_of((4, 400, 400), 512) == band_of((4, 25, 6400), 512) == (1, 1)
    assert band_of((4, 20, 20), 512) == (1, 20)
    assert band_of((4, 10, 20), 512) == (2, 10)
    assert directly(wide, "fprop") > directly(deep, "fprop")


def test_one_band_is_work_for_one_thread():
    one, two = (directly(layer(64, 64, (2, 7, 7), N=n), "fprop") for n in (1, 2))
    assert one > 0.95 * two


def chosen(op, pass_, x, w, **options):
    geometry = conv_geometry(x, w, **options)
    shapes = {"fprop": (x, w), "dgrad": (geometry.y, w), "wgrad": (geometry.y, x)}[pass_]
    kernel = getattr(kernels, f"{op}_{pass_}")
    return kernel.select(*(np.empty(shape, np.float32) for shape in shapes), geometry).name


def test_choices_that_were_far_from_the_best():
    """Each took 1.5 to 40 times as long as the best before its cost was put right."""
    clip = (16, 3, 20, 64, 64), (12, 60, 3, 3)
    assert chosen("conv2d", "fprop", *clip, padding="same") == "cpu/direct"
    pointwise = (8, 20, 16, 16, 16), (32, 20, 1, 1, 1)
    assert chosen("conv3d", "fprop", *pointwise) == "cpu/im2col"
    assert chosen("conv3d", "dgrad", *pointwise) == "cpu/im2col"
    deep = (1, 512, 2, 7, 7), (512, 512, 3, 3, 3)
    assert chosen("conv3d", "wgrad", *deep, padding=1) == "cpu/im2col"
    strided = (4, 96, 4, 28, 28), (256, 96, 2, 5, 5)
    assert chosen("conv3d", "dgrad", *strided, stride=(2, 1, 1)) == "cpu/im2col"
