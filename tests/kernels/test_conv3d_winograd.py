"""Winograd's convolution in CUDA C++, on the emulator: its transforms by hand, all else exactly.

Whole numbers stay exact through the transforms, whose fractions are halves: so results must equal
the reference's, bit for bit. How much rounding costs is measured in `test_conv3d_rounding.py`.
"""

import shutil
from itertools import product

import numpy as np
import pytest
from compare import assert_close
from conv_checks import PASSES, TAKES, arguments, expected, integers, reals, small

from tinyvid import kernels
from tinyvid.errors import UserError
from tinyvid.geometry import conv_geometry
from tinyvid.kernels import launch
from tinyvid.kernels.conv3d import cuda, winograd
from tinyvid.kernels.conv3d.cases import CASES, ConvCase
from tinyvid.kernels.emulator import options

pytestmark = pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="needs a C++ compiler"
)

by_pass = pytest.mark.parametrize("pass_", PASSES)
FITTING = [c for c in CASES if cuda.unfit("winograd", "fprop", c.geometry) is None]
SCHEDULES = [("forward", "late"), ("reversed", "early"), ("shuffled", "late")]


def case(x, K: int, padding=1, groups: int = 1) -> ConvCase:
    return ConvCase("x".join(map(str, x)), x, (K, x[1] // groups, 3, 3, 3), 1, padding, 1, groups)


def winograd_of(pass_: str, given: dict, geometry, **more) -> np.ndarray:
    arrays = [given[letter] for letter in TAKES[pass_]]
    return getattr(cuda, pass_)(*arrays, geometry, step="winograd", device="emulator", **more)


def check(pass_: str, of: ConvCase, dtype=np.float32) -> None:
    got = winograd_of(pass_, arguments(of, dtype), of.geometry)
    assert_close(got, expected("conv3d", pass_, of, dtype))
    assert np.moveaxis(got, 1, -1).flags.c_contiguous


# ---- the transforms, by hand ---------------------------------------------------------------------
# An outer product of three lines becomes the outer product of the transformed lines, so each line
# can be worked out by hand; one along each axis, no two alike.

LINES = {
    # G g: g0, (g0 + g1 + g2) / 2, (g0 - g1 + g2) / 2, g2
    "conv3d_fprop_winograd_filter": [
        ((2, 4, 6), (2, 6, 2, 6)),
        ((0, 2, 0), (0, 1, -1, 0)),
        ((4, 0, 2), (4, 3, 3, 2)),
    ],
    # of the lines turned round: 6 4 2, 0 2 0, 2 0 4
    "conv3d_dgrad_winograd_filter": [
        ((2, 4, 6), (6, 6, 2, 2)),
        ((0, 2, 0), (0, 1, -1, 0)),
        ((4, 0, 2), (2, 3, 3, 4)),
    ],
    # B^T d: d0 - d2, d1 + d2, d2 - d1, d1 - d3
    "conv3d_fprop_winograd_input": [
        ((1, 2, 3, 4), (-2, 5, 1, -2)),
        ((0, 1, 0, 0), (0, 1, -1, 1)),
        ((5, 0, 0, 1), (5, 0, 0, -1)),
    ],
    # A^T m: m0 + m1 + m2, m1 - m2 - m3
    "conv3d_fprop_winograd_output": [
        ((-4, 30, 2, -12), (28, 40)),
        ((1, 2, 3, 4), (6, -5)),
        ((1, 0, 0, 2), (1, -2)),
    ],
    # A y: y0, y0 + y1, y0 - y1, -y1
    "conv3d_wgrad_winograd_gradient": [
        ((3, 5), (3, 8, -2, -5)),
        ((1, 0), (1, 1, 1, 0)),
        ((0, 2), (0, 2, -2, -2)),
    ],
    # G^T u: u0 + (u1 + u2) / 2, (u1 - u2) / 2, (u1 + u2) / 2 + u3
    "conv3d_wgrad_winograd_output": [
        ((2, 4, 6, 8), (7, -1, 13)),
        ((0, 2, 0, 0), (1, 1, 1)),
        ((1, 0, 0, 3), (1, 0, 3)),
    ],
}


def outer(lines) -> np.ndarray:
    return np.einsum("i,j,k->ijk", *np.array(list(lines), np.float32))


@pytest.mark.parametrize("kernel", LINES)
def test_transform_by_hand(kernel):
    # One tile of one channel: x 4 x 4 x 4, y 2 x 2 x 2. Frequencies have channels padded to four.
    one = conv_geometry((1, 1, 4, 4, 4), (1, 1, 3, 3, 3))
    constants = cuda.constants("winograd", "fprop", one, np.float32, specialised=False)
    module = launch.load(launch.KERNELS / "conv3d" / "winograd.cu", constants, "emulator")
    launch.write_global(module, "geometry", np.array([*cuda.members(one).values()], np.int32))
    given, want = (outer(side) for side in zip(*LINES[kernel], strict=True))
    i32 = np.int32

    def frequencies(channels: int) -> np.ndarray:
        array = np.full((4, 4, 4, channels), np.nan, np.float32)
        array[..., 0] = given if given.shape[0] == 4 else np.nan
        return array

    if kernel.endswith("filter"):
        got = frequencies(16)  # input's channels by output's
        args = [given, got]
    elif kernel.endswith(("input", "gradient")):
        got = frequencies(4)
        args = [given, i32(0), i32(1), got]
    else:
        got = np.full(want.shape, np.nan, np.float32)
        args = [i32(0), i32(1), None, i32(0)] if "fprop" in kernel else [i32(1)]
        args = [frequencies(4 if "fprop" in kernel else 16), *args, got]
    module.get_function(kernel)((1,), (128,), args)
    if got.ndim == 4:
        assert_close(got[..., 1:], np.zeros_like(got[..., 1:]))  # the channels that pad
        got = got[..., 0]
    assert_close(got, want)


def test_two_outputs_of_three_taps_by_hand():
    # (1 2 3 4) by (2 4 6): the products -4, 30, 2, -12 of the lines above give 28 and 40,
    # as 1*2 + 2*4 + 3*6 and 2*2 + 3*4 + 4*6 do.
    x, w = np.zeros((1, 1, 3, 3, 4), np.float32), np.zeros((1, 1, 3, 3, 3), np.float32)
    x[0, 0, 1, 1], w[0, 0, 1, 1] = (1, 2, 3, 4), (2, 4, 6)
    got = winograd_of("fprop", {"x": x, "w": w}, conv_geometry(x.shape, w.shape))
    assert_close(got, np.array([28, 40], np.float32).reshape(1, 1, 1, 1, 2))


# ---- against the reference -----------------------------------------------------------------------


@by_pass
@pytest.mark.parametrize("of", small(FITTING))
def test_cases(of, pass_):
    for dtype, (schedule, copies) in product((np.float32, np.float64), SCHEDULES):
        with options(schedule=schedule, copies=copies, seed=5):
            check(pass_, of, dtype)


# Tiles are 2 x 2 x 2 outputs: sizes of 1, 2, 3 and more, along each axis, of y and of gx.
BORDERS = [
    case((2, 2, 1, 2, 3), 3),
    case((1, 3, 3, 1, 2), 2),
    case((1, 2, 2, 3, 1), 5),
    case((1, 1, 5, 4, 7), 2, (1, 0, 1)),
    case((1, 2, 3, 3, 3), 2, 0),
    case((1, 2, 4, 3, 5), 2, 0),
    case((1, 2, 1, 2, 1), 3, (3, 2, 4)),  # padding beyond the filter: outputs that meet no input
]
# Products are cut into 128 rows, 32 columns and 16 terms, and sums into slabs of 64 terms. Rows
# are tiles, or K in wgrad; columns K, or C in dgrad and wgrad; terms C, K, or tiles.
PRODUCTS = [
    case((4, 1, 5, 8, 13), 1),  # 336 tiles
    case((1, 17, 2, 2, 3), 65),
    case((1, 65, 2, 2, 3), 17),
    case((1, 8, 2, 2, 2), 130),
    case((1, 12, 2, 2, 3), 10, groups=2),
]


@by_pass
@pytest.mark.parametrize("of", small(BORDERS + PRODUCTS))
def test_tile_borders(of, pass_):
    check(pass_, of)


@by_pass
def test_some_tiles_at_a_time(pass_, monkeypatch):
    of = case((3, 5, 3, 4, 5), 6)  # 36 tiles: 7 rounds of five, and one tile
    monkeypatch.setattr(winograd, "WORKSPACE", 5 * 64 * (8 + 8) * 4)
    assert winograd.plan(pass_, of.geometry, np.dtype(np.float32)).args[0] == 5
    check(pass_, of)


def test_bias_and_relu():
    of = case((2, 4, 3, 2, 5), 6, groups=2)
    given, bias = arguments(of, np.float32), integers((6,), np.float32, 9)
    got = winograd_of("fprop", given, of.geometry, bias=bias, relu=True)
    want = expected("conv3d", "fprop", of, np.float32) + bias.reshape(-1, 1, 1, 1)
    assert (want < 0).any()
    assert (want > 0).any()
    assert_close(got, np.maximum(want, 0))
    got = winograd_of("fprop", given, of.geometry, bias=bias)
    assert_close(got, want)


@by_pass
def test_sizes_compiled_in(pass_):
    # The wide tile of the product too: 128 columns, 256 threads.
    of = case((2, 100, 1, 3, 4), 100)
    plan = winograd.plan(pass_, of.geometry, np.dtype(np.float32))
    assert plan.threads == 256
    got = winograd_of(pass_, arguments(of, np.float32), of.geometry, specialised=True)
    assert_close(got, expected("conv3d", pass_, of, np.float32))


@by_pass
def test_memory_accesses(pass_):
    with options(checked=True):  # an AccessError otherwise
        for of in (BORDERS[0], BORDERS[-1], case((2, 17, 1, 3, 2), 6), PRODUCTS[-1]):
            check(pass_, of)


@by_pass
def test_no_example(pass_):
    geometry = conv_geometry((0, 2, 3, 3, 3), (3, 2, 3, 3, 3))
    given = {"x": np.ones(geometry.x), "w": np.ones(geometry.w), "gy": np.ones(geometry.y)}
    got = winograd_of(pass_, given, geometry)
    assert_close(got, np.zeros({"fprop": geometry.y, "dgrad": geometry.x}.get(pass_, geometry.w)))


# ---- rounding: how much it costs is measured in test_conv3d_rounding.py --------------------------


@pytest.mark.parametrize(
    ("pass_", "of"),
    [
        ("fprop", case((1, 300, 2, 5, 6), 8)),
        ("dgrad", case((1, 8, 2, 5, 6), 300)),
        ("wgrad", case((1, 2, 9, 33, 33), 3)),
    ],
    ids=PASSES,
)
def test_runs_agree_to_the_bit(pass_, of):
    given = arguments(of, np.float32, reals)
    got = [winograd_of(pass_, given, of.geometry)]
    with options(schedule="reversed"):
        got.append(winograd_of(pass_, given, of.geometry))
    assert np.array_equal(*got)


# ---- errors --------------------------------------------------------------------------------------


@by_pass
@pytest.mark.parametrize(
    ("w", "stride", "dilation", "words"),
    [
        ((2, 2, 3, 3, 2), 1, 1, "filters of 3x3x3 taps with stride 1 and dilation 1, not of 3x3x2"),
        ((2, 2, 3, 3, 3), (1, 2, 1), 1, r"not of 3x3x3 with stride \(1, 2, 1\)"),
        ((2, 2, 3, 3, 3), 1, (1, 1, 2), r"stride \(1, 1, 1\) and dilation \(1, 1, 2\)"),
    ],
)
def test_what_does_not_fit(pass_, w, stride, dilation, words):
    geometry = conv_geometry((1, 2, 7, 7, 7), w, stride, 0, dilation)
    given = {"x": np.ones(geometry.x), "w": np.ones(w), "gy": np.ones(geometry.y)}
    arrays = [given[letter] for letter in TAKES[pass_]]
    kernel = getattr(kernels, f"conv3d_{pass_}")
    with kernels.use(conv3d="cuda/winograd"), pytest.raises(UserError, match=words):
        kernel(*arrays, geometry, device="emulator")


def test_it_runs_when_asked_for():
    of = FITTING[0]
    arrays = [arguments(of, np.float32)[letter] for letter in "xw"]
    select = kernels.conv3d_fprop.select
    assert select(*arrays, of.geometry, device="emulator").name != "cuda/winograd"
    with kernels.use(conv3d="cuda/winograd"):
        assert select(*arrays, of.geometry, device="emulator").name == "cuda/winograd"


@by_pass
def test_out_of_memory_tells_the_sizes(pass_, monkeypatch):
    of = case((1, 4, 2, 2, 2), 8)
    empty = launch.empty

    def full(shape, dtype, device):
        if shape[0] == 64:
            raise MemoryError
        return empty(shape, dtype, device)

    monkeypatch.setattr(launch, "empty", full)
    with pytest.raises(UserError, match=r"out of memory for 'cuda/winograd'.*result") as caught:
        winograd_of(pass_, arguments(of, np.float32), of.geometry)
    filters = "(1, 64, 1, 8, 4)" if pass_ == "wgrad" else "(64, 1,"
    assert filters in str(caught.value).partition("a workspace")[2]


@by_pass
def test_a_tile_left_out_is_found(pass_, monkeypatch):
    count = winograd._tiles
    monkeypatch.setattr(winograd, "_tiles", lambda *args: count(*args) - 1)
    with pytest.raises(AssertionError):
        check(pass_, FITTING[0])
