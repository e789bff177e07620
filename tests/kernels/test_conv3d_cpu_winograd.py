"""Winograd's convolution on the processor: exact in float64 and bounded in float32, any tile."""

from itertools import product

import numpy as np
import pytest
from compare import assert_close
from conv_checks import PASSES, arguments, expected, integers, layouts, poisoned, reals, run, small

from tinyvid import kernels
from tinyvid.errors import UserError
from tinyvid.geometry import conv_geometry
from tinyvid.kernels.conv3d import winograd_blocks, winograd_plan
from tinyvid.kernels.conv3d.cases import CASES, ConvCase
from tinyvid.kernels.threads import get_num_threads, set_num_threads

__all__ = ["poisoned"]  # a fixture

VARIANT = "cpu/winograd"
by_pass = pytest.mark.parametrize("pass_", PASSES)
by_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])

MORE = [
    # One more than a vector of channels, one less; sizes that no tile divides.
    ConvCase("channels", (2, 17, 3, 6, 7), (15, 17, 3, 3, 3), padding=1),
    ConvCase("vectors", (1, 32, 5, 9, 4), (16, 32, 3, 3, 3), padding=1),
    ConvCase("panels", (1, 2, 2, 5, 5), (81, 2, 3, 3, 3), padding=1),
    ConvCase("frames", (2, 3, 4, 7, 9), (5, 3, 1, 3, 3), padding=(0, 1, 1)),
    ConvCase("along_time", (2, 3, 7, 2, 3), (5, 3, 3, 1, 1), padding=(1, 0, 0)),
    ConvCase("uneven", (1, 3, 5, 6, 8), (4, 3, 3, 1, 3), padding=(2, 1, 0)),
    ConvCase("far_padding", (1, 2, 2, 1, 3), (3, 2, 3, 3, 3), padding=(4, 5, 3)),
]
FITTING = [c for c in small(CASES + MORE) if winograd_plan.unfit(c.values[0].geometry) is None]
TILES = list(product((2, 4), repeat=3))


@pytest.fixture(params=["filters kept", "filters by block", "small blocks"])
def blocks(request, monkeypatch):
    """Cut as for large shapes: with filters that are kept or not, and more than one block."""
    winograd_plan._plan.cache_clear()
    if request.param != "filters kept":
        monkeypatch.setattr(winograd_plan, "KEPT", -1)
        monkeypatch.setattr(winograd_plan, "GROUP", 1)  # 6 output channels of wgrad at a time
    if request.param == "small blocks":
        monkeypatch.setattr(winograd_plan, "SHARED", 1)  # 6 tiles
        monkeypatch.setattr(winograd_plan, "PANELS", 2)
        monkeypatch.setattr(winograd_plan, "DEPTH", (16, 16))
    yield
    winograd_plan._plan.cache_clear()


def tolerance(dtype, want) -> float:
    return (3e-14 if dtype == np.float64 else 1e-5) * max(1.0, np.abs(want).max(initial=0))


@by_dtype
@by_pass
@pytest.mark.parametrize("case", FITTING)
@pytest.mark.usefixtures("poisoned", "blocks")
def test_against_reference(case, pass_, dtype):
    want = expected("conv3d", pass_, case, dtype)
    got = run("conv3d", pass_, VARIANT, arguments(case, dtype), case.geometry)
    assert_close(got, want, atol=tolerance(dtype, want))
    assert np.moveaxis(got, 1, -1).flags.c_contiguous


@by_pass
@pytest.mark.parametrize("m", TILES)
@pytest.mark.usefixtures("poisoned")
def test_every_tile(m, pass_, monkeypatch):
    case = ConvCase("tiles", (2, 3, 5, 6, 7), (4, 3, 3, 3, 3), padding=(1, 0, 2))
    cut = winograd_plan._cut(pass_, case.geometry, 8, m)
    assert cut.m == m
    monkeypatch.setattr(winograd_plan, "_plan", lambda *_: cut)
    want = expected("conv3d", pass_, case, np.float64)
    got = run("conv3d", pass_, VARIANT, arguments(case, np.float64), case.geometry)
    assert_close(got, want, atol=tolerance(np.float64, want))


@by_pass
def test_any_layout_in_memory(pass_):
    case = MORE[0]
    given = arguments(case, np.float64)
    want = expected("conv3d", pass_, case, np.float64)
    lying = {letter: dict(layouts(array)) for letter, array in given.items()}
    for name in lying["x"]:
        arrays = {letter: lying[letter][name] for letter in given}
        before = {letter: array.copy() for letter, array in arrays.items()}
        for array in arrays.values():
            array.flags.writeable = False
        got = run("conv3d", pass_, VARIANT, arrays, case.geometry)
        assert_close(got, want, atol=tolerance(np.float64, want))
        for letter, array in arrays.items():
            assert_close(array, before[letter])


@by_dtype
@pytest.mark.parametrize("case", [MORE[0], MORE[2]], ids=lambda case: case.name)
@pytest.mark.usefixtures("poisoned", "blocks")
def test_bias_and_relu(case, dtype):
    x, w, _ = arguments(case, dtype).values()
    bias = integers(w.shape[:1], dtype, 7)
    sums = expected("conv3d", "fprop", case, dtype) + bias.reshape(-1, 1, 1, 1)
    with kernels.use(conv3d_fprop=VARIANT):
        y = kernels.conv3d_fprop(x, w, case.geometry, bias)
        assert_close(y, sums, atol=tolerance(dtype, sums))
        y = kernels.conv3d_fprop(x, w, case.geometry, bias, True)
        assert (sums < 0).any()
        assert_close(y, np.maximum(sums, dtype(0)), atol=tolerance(dtype, sums))
        bias[0] = np.nan
        assert np.isnan(kernels.conv3d_fprop(x, w, case.geometry, bias, True)[:, 0]).all()


@by_dtype
@by_pass
@pytest.mark.usefixtures("blocks")
def test_equal_to_the_bit_for_any_number_of_threads(pass_, dtype):
    case = ConvCase("threads", (2, 20, 5, 13, 14), (70, 20, 3, 3, 3), padding=1)
    given = arguments(case, dtype, reals)
    before, results = get_num_threads(), []
    try:
        for threads in (1, 2, 3, 2):
            set_num_threads(threads)
            results.append(run("conv3d", pass_, VARIANT, given, case.geometry))
    finally:
        set_num_threads(before)
    for other in results:
        assert np.isfinite(other).all()
        assert np.array_equal(results[0], other)


# Of sums of n products of unit variance, divided by sqrt(n); in 300,000 sums each.
ERRORS = {
    "default": {"fprop": 5e-5, "dgrad": 5e-5, "wgrad": 2e-5},
    "exact": dict.fromkeys(PASSES, 1e-5),
}


@by_pass
@pytest.mark.parametrize("level", ERRORS)
def test_rounding_error_of_float32(level, pass_):
    case = ConvCase("errors", (1, 64, 8, 24, 24), (64, 64, 3, 3, 3), padding=1)
    given = arguments(case, np.float64, reals)
    products = {"fprop": 27 * 64, "dgrad": 27 * 64, "wgrad": 8 * 24 * 24}[pass_]
    single = {letter: array.astype(np.float32) for letter, array in given.items()}
    exact = {letter: array.astype(np.float64) for letter, array in single.items()}
    with kernels.precision("exact"):
        want = run("conv3d", pass_, VARIANT, exact, case.geometry)
    with kernels.precision(level):
        got = run("conv3d", pass_, VARIANT, single, case.geometry)
        m = winograd_plan.plan(pass_, case.geometry, 4).m
    assert m == ((4, 4, 4) if level == "default" else (2, 2, 2))
    error = np.abs(got - want).max() / np.sqrt(products)
    assert ERRORS[level][pass_] / 20 < error < ERRORS[level][pass_]


def test_nan_and_infinity_spread_over_the_tiles_they_meet():
    case = ConvCase("nan", (2, 2, 4, 8, 12), (3, 2, 3, 3, 3), padding=1)
    given = arguments(case, np.float32, reals)
    clean = run("conv3d", "fprop", VARIANT, given, case.geometry)
    m = winograd_plan.plan("fprop", case.geometry, 4).m
    for bad in (np.nan, np.inf):
        x = given["x"].copy()
        x[1, 0, 2, 1, 1] = (
            bad  # met by the first tile of the second clip alone, in rows and columns
        )
        with np.errstate(invalid="ignore"):
            want = run("conv3d", "fprop", "reference", {**given, "x": x}, case.geometry)
        y = run("conv3d", "fprop", VARIANT, {**given, "x": x}, case.geometry)
        assert not np.isfinite(y[~np.isfinite(want)]).any()
        assert np.array_equal(y[0], clean[0])
        assert np.array_equal(y[1, :, :, 2 * m[1] :], clean[1, :, :, 2 * m[1] :])
        assert np.array_equal(y[1, ..., 2 * m[2] :], clean[1, ..., 2 * m[2] :])


def test_empty_batch():
    geometry = conv_geometry((0, 2, 3, 3, 3), (3, 2, 3, 3, 3))
    given = {"x": np.ones(geometry.x), "w": np.ones(geometry.w), "gy": np.ones(geometry.y)}
    assert run("conv3d", "fprop", VARIANT, given, geometry).shape == geometry.y
    assert run("conv3d", "dgrad", VARIANT, given, geometry).shape == geometry.x
    assert_close(run("conv3d", "wgrad", VARIANT, given, geometry), np.zeros(geometry.w))


@by_pass
def test_images(pass_):
    for case in [
        ConvCase("images", (2, 17, 9, 7), (5, 17, 3, 3), padding=(2, 1)),
        ConvCase("one_axis", (2, 3, 4, 6), (5, 3, 1, 3)),
        ConvCase("clip", (2, 3, 5, 6, 7), (4, 15, 3, 3), padding=1),
        ConvCase("clip_of_many_channels", (1, 16, 2, 5, 4), (3, 32, 3, 3), padding=1),
    ]:
        want = run("conv2d", pass_, "reference", arguments(case, np.float64), case.geometry)
        got = run("conv2d", pass_, VARIANT, arguments(case, np.float64), case.geometry)
        assert_close(got, want, atol=tolerance(np.float64, want))


@pytest.mark.parametrize(
    ("w", "options", "words"),
    [
        ((3, 2, 2, 3, 3), {}, r"filters of 1 or 3 taps along each axis, .* not \(2, 3, 3\)"),
        ((3, 2, 1, 1, 1), {}, "and not 1 along all"),
        ((3, 2, 3, 3, 3), {"stride": 2}, r"it takes stride 1, not \(2, 2, 2\)"),
        ((3, 2, 3, 3, 3), {"dilation": 2}, r"it takes dilation 1, not \(2, 2, 2\)"),
        ((4, 1, 3, 3, 3), {"groups": 2}, "it takes one group, not 2"),
    ],
)
def test_what_it_cannot_take(w, options, words):
    geometry = conv_geometry((1, 2, 6, 6, 6), w, **options)
    with pytest.raises(UserError, match=words):
        run("conv3d", "fprop", VARIANT, {"x": np.ones(geometry.x), "w": np.ones(w)}, geometry)


def test_tile_of_least_cost():
    def m(x, precision="default"):
        geometry = conv_geometry(x, (256, x[1], 3, 3, 3), padding=1)
        with kernels.precision(precision):
            return winograd_plan.plan("fprop", geometry, 4).m

    assert m((4, 64, 16, 56, 56)) == (4, 4, 4)
    assert m((4, 512, 2, 7, 7)) == (2, 4, 4)
    assert m((1, 64, 1, 56, 56))[0] == 2
    assert m((4, 64, 16, 56, 56), "exact") == (2, 2, 2)


def test_checks_catch_a_planted_fault(monkeypatch):
    case = MORE[1]
    want = expected("conv3d", "fprop", case, np.float64)
    real = winograd_blocks.multiply

    def wrong(out, a, b, sizes, *rest):  # leaves out the last product of each sum
        positions, rows, depth, panels = sizes
        real(out, a, b, (positions, rows, depth - 1, panels), *rest)

    monkeypatch.setattr("tinyvid.kernels.conv3d.cpu_winograd.multiply", wrong)
    got = run("conv3d", "fprop", VARIANT, arguments(case, np.float64), case.geometry)
    with pytest.raises(AssertionError):
        assert_close(got, want, atol=tolerance(np.float64, want))
