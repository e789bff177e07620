"""`cpu/direct`: its errors, NaN and infinity, threads, and what is joined with it.

That it agrees with the reference on every case: test_conv3d.py, test_conv2d.py and
test_conv3d_first_layer.py, which go through all variants.
"""

import numpy as np
import pytest
from compare import assert_close
from conv_checks import integers, reals

from tinyvid import kernels
from tinyvid.geometry import conv_geometry, pool_geometry
from tinyvid.kernels.conv3d import direct, reference
from tinyvid.kernels.conv3d.costs import directly
from tinyvid.kernels.conv3d_relu_max_pool import direct as joined
from tinyvid.kernels.conv3d_relu_max_pool import reference as joined_reference
from tinyvid.kernels.conv3d_relu_max_pool.cases import CASES
from tinyvid.kernels.pool3d import reference as pool3d
from tinyvid.kernels.threads import get_num_threads, set_num_threads

SMALL = [case for case in CASES if not case.large]
# Windows of few cells are filled in, of many gone through patch by patch.
WINDOWS = [(1, 2, 2), (2, 2, 4), (1, 1, 1)]


def layer(C, K, x=(3, 9, 13), N=2, dtype=np.float32, make=reals):
    """Return x, w, gy and the geometry of a 3x3x3 convolution."""
    x, w = make((N, C, *x), dtype, 0), make((K, C, 3, 3, 3), dtype, 1)
    geometry = conv_geometry(x.shape, w.shape, padding=1)
    return x, w, make(geometry.y, dtype, 2), geometry


# Columns: one vector, whole ones, between; two vectors at a time, three, and both; and rows fewer
# than a block of them.
@pytest.mark.parametrize("K", [1, 7, 8, 9, 16, 17, 24, 25, 40, 41])
@pytest.mark.parametrize("size", [(1, 1, 1), (1, 1, 5), (2, 3, 7)])
def test_every_number_of_columns_and_rows(K, size):
    x, w, gy, geometry = layer(2, K, size, 1, make=integers)
    bias = integers((K,), np.float32, 3)
    y = reference.fprop(x, w, geometry, bias, True)
    assert_close(direct.fprop(x, w, geometry, bias, True), y)
    assert_close(direct.wgrad(gy, x, geometry), reference.wgrad(gy, x, geometry))
    assert_close(direct.dgrad(gy, w, geometry), reference.dgrad(gy, w, geometry))


def test_rounding_is_bounded():
    x, w, gy, geometry = layer(12, 24, (5, 17, 19))
    double = [a.astype(np.float64) for a in (x, w, gy)]
    for pass_, first, second, terms in (
        ("fprop", 0, 1, 12 * 27),
        ("dgrad", 2, 1, 24 * 27),
        ("wgrad", 2, 0, 2 * 5 * 17 * 19),
    ):
        got = getattr(direct, pass_)((x, w, gy)[first], (x, w, gy)[second], geometry)
        want = getattr(reference, pass_)(double[first], double[second], geometry)
        error = np.abs(got - want).max()
        assert 0 < error <= 5e-6 * np.sqrt(terms)
        sizes = getattr(reference, pass_)(np.abs(double[first]), np.abs(double[second]), geometry)
        assert (np.abs(got - want) <= terms / 2**24 * sizes).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_come_through(value):
    x, w, gy, geometry = layer(3, 5, make=integers)
    for array in (x, gy):
        array[1, 2, 1, 4, 6] = value
    with np.errstate(invalid="ignore"):
        for relu in (False, True):
            want = reference.fprop(x, w, geometry, None, relu)
            np.testing.assert_array_equal(direct.fprop(x, w, geometry, None, relu), want)
        np.testing.assert_array_equal(
            direct.dgrad(gy, w, geometry), reference.dgrad(gy, w, geometry)
        )
        np.testing.assert_array_equal(
            np.isfinite(direct.wgrad(gy, x, geometry)),
            np.isfinite(reference.wgrad(gy, x, geometry)),
        )


def test_joined_keeps_nan():
    x, w, _, geometry = layer(3, 5)
    x[1, 2, 1, 4, 6] = np.nan
    pool = pool_geometry(geometry.y, (1, 2, 2))
    (y, argmax), (want, at) = (
        module.fprop(x, w, None, geometry, pool) for module in (joined, joined_reference)
    )
    assert 0 < np.isnan(want).sum() < want.size
    np.testing.assert_array_equal(np.isnan(y), np.isnan(want))
    np.testing.assert_array_equal(argmax[np.isnan(want)], at[np.isnan(want)])


def test_equal_to_the_bit_for_any_number_of_threads():
    x, w, gy, geometry = layer(3, 12, (8, 20, 33))
    bytes_ = np.random.default_rng(0).integers(0, 256, x.shape, np.uint8)
    of_bytes = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4), geometry
    pools = [pool_geometry(geometry.y, window) for window in ((1, 2, 2), (4, 4, 4))]
    before, results = get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            set_num_threads(threads)
            found = [
                direct.fprop(x, w, geometry),
                direct.dgrad(gy, w, geometry),
                direct.wgrad(gy, x, geometry),
                direct.uint8_fprop(bytes_, w, *of_bytes),
                direct.uint8_wgrad(gy, bytes_, *of_bytes),
            ]
            for pool in pools:
                y, argmax = joined.fprop(x, w, None, geometry, pool)
                found += [y, argmax, joined.wgrad(y, argmax, x, geometry, pool)]
            results.append(found)
    finally:
        set_num_threads(before)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_joined_against_reference(case, window, dtype):
    window = tuple(map(min, window, case.geometry.y[2:]))
    geometry, pool = case.geometry, pool_geometry(case.geometry.y, window)
    x, w, bias = (
        integers(shape, dtype, seed) for seed, shape in enumerate((case.x, case.w, case.w[:1]))
    )
    want, at = joined_reference.fprop(x, w, bias, geometry, pool)
    for lying in (x, np.moveaxis(np.moveaxis(x, 1, -1).copy(), -1, 1)):
        y, argmax = joined.fprop(lying, w, bias, geometry, pool)
        assert_close(y, want)
        assert_close(argmax, at)
        gy = integers(pool.y, dtype, 5)
        gw = joined.wgrad(gy, at, lying, geometry, pool)
        # Two definitions that know nothing of each other.
        assert_close(gw, joined_reference.wgrad(gy, at, x, geometry, pool))
        scattered = pool3d.max_dgrad(gy, at, pool)
        assert_close(gw, reference.wgrad(scattered, x, geometry))


def test_a_tap_out_of_place_is_found(monkeypatch):
    x, w, gy, geometry = layer(2, 3, make=integers)
    places = direct.tap_places
    monkeypatch.setattr(direct, "tap_places", lambda *args: places(*args)[::-1].copy())
    for pass_, a, b in (("fprop", x, w), ("dgrad", gy, w), ("wgrad", gy, x)):
        with pytest.raises(AssertionError):
            assert_close(
                getattr(direct, pass_)(a, b, geometry), getattr(reference, pass_)(a, b, geometry)
            )


def test_it_is_chosen_for_first_layers_and_not_for_wide_ones():
    for C, K, size, chosen in ((3, 64, 112, True), (3, 12, 64, True), (256, 512, 14, False)):
        x, w = np.empty((1, C, 4, size, size), np.float32), np.empty((K, C, 3, 3, 3), np.float32)
        geometry = conv_geometry(x.shape, w.shape, padding=1)
        variant = kernels.conv3d_fprop.select(x, w, geometry)
        assert (variant.name == "cpu/direct") == chosen
        cost = directly(geometry, "fprop")
        assert cost == variant.cost(x, w, geometry) if chosen else cost > 0
