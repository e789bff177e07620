"""The first layer, of clips of bytes: by hand, on the CPU, and in CUDA C++ on the emulator.

Most tests normalise to whole numbers, (x - 10, 2 x - 40, x), so that results are exact.
"""

import shutil

import numpy as np
import pytest
from compare import assert_close
from conv_checks import integers, layouts, reals, small

import tinyvid
from tinyvid import kernels
from tinyvid.errors import UserError
from tinyvid.geometry import conv_geometry
from tinyvid.kernels import launch
from tinyvid.kernels.conv3d import cpu, first_layer, reference
from tinyvid.kernels.conv3d.cases import UINT8_CASES, ConvCase
from tinyvid.kernels.emulator import options
from tinyvid.ops.first_layer import conv3d_uint8

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="needs a C++ compiler"
)
by_pass = pytest.mark.parametrize("pass_", ["fprop", "wgrad"])

MEAN, STD = (10 / 255, 20 / 255, 0.0), (1 / 255, 1 / 510, 1 / 255)
FITTING = [c for c in UINT8_CASES if first_layer.unfit(c.geometry) is None]


def case(x, w, *args) -> ConvCase:
    return ConvCase("x".join(map(str, (*x, w[0]))), x, w, *args)


def clip(shape, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def arguments(pass_: str, of: ConvCase, dtype, make=integers) -> tuple:
    """The arrays of a pass and the bias, which fprop takes."""
    x, bias = clip(of.x), make(of.w[:1], dtype, 3)
    arrays = (x, make(of.w, dtype, 1)) if pass_ == "fprop" else (make(of.geometry.y, dtype, 2), x)
    return arrays, (bias, True) if pass_ == "fprop" else ()


def exact(pass_: str, of: ConvCase) -> np.ndarray:
    """The result for whole numbers; it is worked out in float64, and rounded to them."""
    arrays, more = arguments(pass_, of, np.float64)
    large = np.prod(of.geometry.y) > 1000
    run = getattr(cpu if large else reference, f"uint8_{pass_}")
    return np.rint(run(*arrays, MEAN, STD, of.geometry, *more))


def check(pass_: str, of: ConvCase, dtype=np.float32, **how) -> None:
    arrays, more = arguments(pass_, of, dtype)
    run = getattr(first_layer, pass_)
    got = run(*arrays, MEAN, STD, of.geometry, *more, device="emulator", **how)
    # In float64 the last bit of the mean and std shows.
    assert_close(got, exact(pass_, of).astype(dtype), atol=0 if dtype == np.float32 else 1e-9)
    assert np.moveaxis(got, 1, -1).flags.c_contiguous


# ---- the definition, by hand ---------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["reference", "cpu/im2col", "cpu/direct"])
def test_by_hand(variant):
    # Shares of 255: 0.2, 0.4, 1. With mean 0.2 and std 0.1: 0, 2, 8, and the padding is zero,
    # though a byte of zero is -2.
    x = np.array([51, 102, 255, 0], np.uint8).reshape(1, 1, 1, 1, 4)
    w, gy = np.array([1.0, 10]).reshape(1, 1, 1, 1, 2), np.array([1.0, 2, 3, 4, 5])
    geometry = conv_geometry(x.shape, w.shape, padding=(0, 0, 1))
    with kernels.use(conv3d_uint8=variant):
        y = kernels.conv3d_uint8_fprop(x, w, (0.2,), (0.1,), geometry)
        # 0*1 + 0*10, 0*1 + 2*10, 2*1 + 8*10, 8*1 - 2*10, -2*1 + 0*10
        assert_close(y.ravel(), np.array([0.0, 20, 82, -12, -2]), atol=1e-12)
        bias = np.array([-30.0])
        y = kernels.conv3d_uint8_fprop(x, w, (0.2,), (0.1,), geometry, bias, True)
        assert_close(y.ravel(), np.array([0.0, 0, 52, 0, 0]), atol=1e-12)
        gw = kernels.conv3d_uint8_wgrad(gy.reshape(1, 1, 1, 1, 5), x, (0.2,), (0.1,), geometry)
        # 1*0 + 2*0 + 3*2 + 4*8 + 5*-2, 1*0 + 2*2 + 3*8 + 4*-2 + 5*0
        assert_close(gw.ravel(), np.array([28.0, 20]), atol=1e-12)


def test_each_channel_has_its_own_mean_and_std():
    x = np.full((1, 3, 1, 1, 1), 255, np.uint8)
    w = np.eye(3).reshape(3, 3, 1, 1, 1)
    geometry = conv_geometry(x.shape, w.shape)
    y = reference.uint8_fprop(x, w, (0.0, 0.5, 0.75), (1.0, 0.25, 2.0), geometry)
    assert_close(y.ravel(), np.array([1, 2, 0.125]))


@by_pass
@pytest.mark.parametrize("of", small(UINT8_CASES))
def test_cpu_against_reference(of, pass_):
    C = of.x[1]
    mean, std = (0.4, 0.45, 0.5, 0.55)[:C], (0.2, 0.22, 0.25, 0.3)[:C]
    for dtype, atol in ((np.float32, 1e-4), (np.float64, 1e-12)):
        arrays, more = arguments(pass_, of, dtype, reals)
        want = getattr(reference, f"uint8_{pass_}")(*arrays, mean, std, of.geometry, *more)
        kernel = getattr(kernels, f"conv3d_uint8_{pass_}")
        bytes_at = 0 if pass_ == "fprop" else 1
        for _, x in layouts(arrays[bytes_at]) if dtype == np.float64 else [("", arrays[bytes_at])]:
            given = (x, arrays[1]) if pass_ == "fprop" else (arrays[0], x)
            assert_close(kernel(*given, mean, std, of.geometry, *more), want, atol=atol)


# ---- CUDA C++ ------------------------------------------------------------------------------------


@needs_compiler
@by_pass
@pytest.mark.parametrize("of", small(FITTING))
def test_cases(of, pass_):
    check(pass_, of, np.float64)
    for schedule, copies in (("forward", "late"), ("reversed", "early"), ("shuffled", "late")):
        with options(schedule=schedule, copies=copies, seed=5):
            check(pass_, of)


# Products are cut into 128 rows (cells, or 3 x taps in wgrad), 32 columns (K), five taps or 16
# cells; sums over taps into slabs of 30, over cells of 96.
BORDERS = [
    case((1, 3, 1, 1, 1), (1, 3, 1, 1, 1)),
    case((1, 3, 2, 5, 13), (32, 3, 1, 1, 5), 1, (0, 0, 2)),  # 130 cells; 5 taps; K 32
    case((1, 3, 5, 6, 2), (65, 3, 1, 2, 3), 1, 1),  # 6 taps; K 65 = 2 * 32 + 1
    case((1, 3, 3, 5, 5), (2, 3, 2, 5, 5), 1, (1, 2, 2)),  # 150 rows of wgrad
    case((1, 3, 4, 8, 8), (3, 3, 3, 3, 3), 1, 1),  # 256 cells
    case((1, 3, 1, 1, 257), (3, 3, 1, 1, 1)),
    case((1, 3, 1, 1, 96), (3, 3, 1, 1, 31), 1, (0, 0, 15)),  # 31 taps, 96 cells
    case((1, 3, 1, 1, 97), (3, 3, 1, 5, 6), 1, (0, 2, 0)),  # 30 taps
]


@needs_compiler
@by_pass
@pytest.mark.parametrize("of", small(BORDERS))
def test_tile_borders(of, pass_):
    check(pass_, of)


@needs_compiler
def test_slabs_and_slices(monkeypatch):
    of = case((2, 3, 5, 11, 11), (3, 3, 2, 3, 1), 1, (0, 1, 0))  # 968 cells: 11 slabs
    assert first_layer.plan("wgrad", of.geometry, np.dtype(np.float32)).slices == 4
    check("wgrad", of)
    monkeypatch.setattr(first_layer, "BLOCKS", 3)
    assert first_layer.plan("wgrad", of.geometry, np.dtype(np.float32)).slices == 3
    check("wgrad", of)


@needs_compiler
@by_pass
def test_layouts(pass_):
    of = FITTING[0]
    arrays, more = arguments(pass_, of, np.float32)
    first, second = (dict(layouts(array)) for array in arrays)
    for name in first:
        pair = first[name], second[name]
        for array in pair:
            array.flags.writeable = False
        run = getattr(first_layer, pass_)
        got = run(*pair, MEAN, STD, of.geometry, *more, device="emulator")
        assert_close(got, exact(pass_, of).astype(np.float32))


@needs_compiler
@by_pass
def test_sizes_compiled_in(pass_):
    of = case((1, 3, 2, 5, 6), (128, 3, 3, 3, 3), 1, 1)  # the wide tile too
    assert first_layer.plan(pass_, of.geometry, np.dtype(np.float32)).threads == 256
    check(pass_, of, specialised=True)


@needs_compiler
@by_pass
def test_memory_accesses(pass_):
    with options(checked=True):  # an AccessError otherwise
        for of in (FITTING[0], BORDERS[0], BORDERS[1], BORDERS[3]):
            check(pass_, of)


@needs_compiler
@by_pass
def test_runs_agree_to_the_bit(pass_):
    of = case((2, 3, 8, 30, 30), (4, 3, 3, 7, 7), 1, (1, 3, 3))
    arrays, _ = arguments(pass_, of, np.float32, reals)
    run = getattr(first_layer, pass_)
    got = run(*arrays, MEAN, STD, of.geometry, device="emulator")
    with options(schedule="reversed"):
        again = run(*arrays, MEAN, STD, of.geometry, device="emulator")
    assert np.array_equal(got, again)


@needs_compiler
@by_pass
def test_no_example(pass_):
    of = case((0, 3, 3, 3, 3), (2, 3, 2, 2, 2))
    check(pass_, of)


@needs_compiler
def test_registry_on_the_emulator():
    of = FITTING[0]
    (x, w), more = arguments("fprop", of, np.float32)
    got = kernels.conv3d_uint8_fprop(x, w, MEAN, STD, of.geometry, *more, device="emulator")
    assert_close(got.view(np.ndarray), exact("fprop", of).astype(np.float32))
    select = kernels.conv3d_uint8_fprop.select
    assert select(x, w, MEAN, STD, of.geometry, device="emulator").name == "cuda/first_layer"


@needs_compiler
def test_a_wrong_border_is_found(monkeypatch):
    geometry = UINT8_CASES[0].geometry
    shifted = conv_geometry(geometry.x, geometry.w, padding=(1, 1, 0))
    members = first_layer.cuda.members
    monkeypatch.setattr(
        first_layer.cuda,
        "members",
        lambda g: {**members(g), "padding_w": members(shifted)["padding_w"]},
    )
    for pass_ in ("fprop", "wgrad"):
        with pytest.raises(AssertionError):
            check(pass_, UINT8_CASES[0])


# ---- errors, and the operation -------------------------------------------------------------------


def test_wrong_arguments():
    x, w = clip((1, 3, 2, 2, 2)), np.ones((2, 3, 1, 1, 1))
    geometry = conv_geometry(x.shape, w.shape)
    for args, words in [
        ((x.astype(np.float32), w, MEAN, STD), "x must be an array of uint8, not float32"),
        ((x.tolist(), w, MEAN, STD), "x must be an array of uint8, not list"),
        ((x[:, :2], w, MEAN, STD), r"x has shape \(1, 2, 2, 2, 2\), not \(1, 3, 2, 2, 2\)"),
        ((x, w.astype(np.float16), MEAN, STD), "float16"),
        ((x, w, MEAN[:2], STD), r"a number for each of the 3 channels"),
        ((x, w, MEAN, (1.0, 0.0, 1.0)), "no std may be 0"),
        ((x, w, (0.0, np.nan, 0.0), STD), "mean="),
    ]:
        with pytest.raises(UserError, match=f"conv3d_uint8_fprop: .*{words}"):
            kernels.conv3d_uint8_fprop(*args, geometry)
    with pytest.raises(UserError, match=r"bias must be \(2,\) of float64, not \(3,\)"):
        kernels.conv3d_uint8_fprop(x, w, MEAN, STD, geometry, np.ones(3))
    with pytest.raises(UserError, match=r"conv3d_uint8_wgrad: .*gy has shape"):
        kernels.conv3d_uint8_wgrad(np.ones((1, 2, 2, 2, 3)), x, MEAN, STD, geometry)


def test_what_does_not_fit():
    for of, words in [(UINT8_CASES[-4], "not of 1 in 1"), (UINT8_CASES[-3], "not of 4 in 2")]:
        (x, w), _ = arguments("fprop", of, np.float32)
        C = of.x[1]
        with (
            kernels.use(conv3d_uint8="cuda/first_layer"),
            pytest.raises(UserError, match=f"clips of 3 channels in one group, {words}"),
        ):
            kernels.conv3d_uint8_fprop(x, w, (0.5,) * C, (0.5,) * C, of.geometry, device="emulator")


@by_pass
def test_arrays_of_another_device(pass_):
    arrays, more = arguments(pass_, UINT8_CASES[0], np.float32)
    with pytest.raises(UserError, match=r"'cuda' takes CuPy arrays, not numpy.ndarray"):
        getattr(first_layer, pass_)(*arrays, MEAN, STD, UINT8_CASES[0].geometry, *more)


@needs_compiler
@by_pass
def test_out_of_memory_tells_the_sizes(pass_, monkeypatch):
    of = UINT8_CASES[0]
    arrays, more = arguments(pass_, of, np.float32)

    def full(*args):
        raise MemoryError

    monkeypatch.setattr(launch, "empty", full)
    with pytest.raises(UserError, match=r"out of memory.*\(2, 3, 4, 5, 6\) uint8 of 0\.0 MiB"):
        getattr(first_layer, pass_)(*arrays, MEAN, STD, of.geometry, *more, device="emulator")


def test_the_operation_is_conv3d_of_the_normalised_clip():
    x, rng = clip((2, 3, 4, 5, 6)), np.random.default_rng(4)
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
    u = tinyvid.Tensor(reference.normalised(x, mean, std, np.float64))
    w, b = (
        tinyvid.Tensor(rng.standard_normal(shape), requires_grad=True)
        for shape in ((4, 3, 3, 3, 3), (4,))
    )
    got, want = conv3d_uint8(x, w, b, mean, std, 2, 1), tinyvid.conv3d(u, w, b, 2, 1)
    assert_close(got, want.data, atol=1e-12)
    g = tinyvid.Tensor(rng.standard_normal(got.shape))
    for one, other in zip(tinyvid.grad(got, [w, b], g), tinyvid.grad(want, [w, b], g), strict=True):
        assert_close(one, other.data, atol=1e-12)


def test_the_operation_says_what_is_wrong():
    x, w = clip((1, 3, 2, 2, 2)), tinyvid.Tensor(np.ones((2, 3, 1, 1, 1)))
    with pytest.raises(UserError, match=r"weight must be \(K, C/groups, T, R, S\), not \(2, 3\)"):
        conv3d_uint8(x, tinyvid.Tensor(np.ones((2, 3))))
    with pytest.raises(UserError, match=r"bias of shape \(3,\) for 2 output channels"):
        conv3d_uint8(x, w, tinyvid.Tensor(np.ones(3)))
    with pytest.raises(UserError, match="x must be an array of uint8, not float64"):
        conv3d_uint8(x / 255, w)
