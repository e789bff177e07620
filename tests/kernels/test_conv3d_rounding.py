"""How far rounding takes the CUDA variants of 3-D convolution from the exact result.

The budgets: float32 is within 2e-6 sqrt(n) of float64 in sums of n products of unit variance; TF32
and bf16 are within 1e-6 of the sum of the products' magnitudes, and of the largest output, of what
the rounded operands give in float64. The largest of many errors grows with how many one looks at:
of 800,000 it was 5.1 to 6 times their root mean square, so this must stay below a seventh.
"""

import math
import shutil

import numpy as np
import pytest
from conv_checks import PASSES, TAKES, arguments, reals

from tinyvid.geometry import conv_geometry, pool_geometry
from tinyvid.kernels import launch
from tinyvid.kernels.conv3d import cpu, cuda, first_layer, simt, tensor_core, winograd
from tinyvid.kernels.conv3d.cases import ConvCase
from tinyvid.kernels.conv3d_relu_max_pool import cuda as fused
from tinyvid.kernels.rounding import to_bf16, to_tf32

pytestmark = pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="needs a C++ compiler"
)

SIMT, TENSOR_CORE = 2e-6, 1e-6
WORST_OF_MANY = 7  # in root mean squares
ROUNDED = {"tf32": to_tf32, "bf16": to_bf16}
FOLDER = launch.KERNELS / "conv3d"
by_pass = pytest.mark.parametrize("pass_", PASSES)
by_step = pytest.mark.parametrize("step", ["naive", "tiled", "implicit_gemm", "winograd"])
by_number = pytest.mark.parametrize("number", ROUNDED)

MANY = ConvCase(
    "65,536 sums of 1728, or 110,592 of 1024", (1, 64, 4, 16, 16), (64, 64, 3, 3, 3), 1, 1
)
LONG = ConvCase("3456 sums of 32,768", (1, 4, 8, 64, 64), (32, 4, 3, 3, 3), 1, 1)
WIDE = ConvCase("4096 sums of 16,384", (1, 16384, 1, 8, 16), (32, 16384, 1, 1, 1))


@pytest.fixture
def uncut(monkeypatch):
    """No sum is cut into slices: the longest that a block ever has."""
    for module in (simt, winograd, first_layer, tensor_core):
        monkeypatch.setattr(module, "BLOCKS", 1)


def length(pass_: str, geometry) -> int:
    """How many products the longest sum of a pass has."""
    taps, N = math.prod(geometry.w[2:]), geometry.x[0]
    return {
        "fprop": math.prod(geometry.w[1:]),
        "dgrad": geometry.w[0] // geometry.groups * taps,
        "wgrad": N * math.prod(geometry.y[2:]),
    }[pass_]


def on_emulator(step: str, pass_: str, given: dict, geometry) -> np.ndarray:
    arrays = [given[letter] for letter in TAKES[pass_]]
    return getattr(cuda, pass_)(*arrays, geometry, step=step, device="emulator")


def exact(pass_: str, given: dict, geometry, change=np.asarray) -> np.ndarray:
    operands = [change(given[letter]).astype(np.float64) for letter in TAKES[pass_]]
    return getattr(cpu, pass_)(*operands, geometry)


def check(got: np.ndarray, want: np.ndarray, n: int) -> None:
    """Assert that sums of n products of unit variance keep the budget of float32."""
    errors = (got - want) / math.sqrt(n)
    assert 0 < np.abs(errors).max() <= SIMT
    assert np.sqrt((errors**2).mean()) <= SIMT / WORST_OF_MANY


# ---- float32 -------------------------------------------------------------------------------------


@by_step
@by_pass
def test_many_sums(step, pass_):
    given, geometry = arguments(MANY, np.float32, reals), MANY.geometry
    got = on_emulator(step, pass_, given, geometry)
    check(got, exact(pass_, given, geometry), length(pass_, geometry))


@by_step
def test_sums_over_many_cells(step, uncut):
    given, geometry = arguments(LONG, np.float32, reals), LONG.geometry
    got = on_emulator(step, "wgrad", given, geometry)
    check(got, exact("wgrad", given, geometry), length("wgrad", geometry))


@pytest.mark.parametrize("step", ["naive", "tiled", "implicit_gemm"])
def test_sums_over_many_channels(step, uncut):
    given, geometry = arguments(WIDE, np.float32, reals), WIDE.geometry
    got = on_emulator(step, "fprop", given, geometry)
    check(got, exact("fprop", given, geometry), length("fprop", geometry))


@pytest.mark.parametrize(
    ("file", "step", "kept", "dropped"),
    [
        ("implicit_gemm.cu", "implicit_gemm", "{values[e], errors[e]}", "{values[e], 0}"),
        ("winograd.cu", "winograd", "{chunk[e], errors[e]}", "{chunk[e], 0}"),
        ("tiled.cu", "tiled", "sum.add(part)", "sum.value += part"),
        ("naive.cu", "naive", "sum.add(gy", "sum.value += (gy"),
    ],
)
def test_plain_totals_are_found(file, step, kept, dropped, uncut, tmp_path):
    text, copy = (FOLDER / file).read_text(), tmp_path / file
    assert kept in text
    copy.write_text(text.replace(kept, dropped))
    with launch.stand_in(FOLDER / file, copy), pytest.raises(AssertionError):
        test_sums_over_many_cells(step, None)


# ---- with max pooling ----------------------------------------------------------------------------


def check_fused(size: tuple[int, ...], channels: int) -> None:
    geometry = conv_geometry((1, channels, *size), (32, channels, 1, 1, 1))
    given = {"x": reals(geometry.x, np.float32, 0), "w": reals(geometry.w, np.float32, 1)}
    pool = pool_geometry(geometry.y, 1)  # each window is a cell, so that no sum hides another
    got, _ = fused.fprop(given["x"], given["w"], None, geometry, pool, device="emulator")
    want = exact("fprop", given, geometry)
    assert (got[want < -1] == 0).all()
    check(got[want > 1], want[want > 1], channels)


def test_sums_with_max_pooling():
    check_fused((1, 8, 16), 16384)
    check_fused((4, 16, 16), 800)


def test_plain_totals_with_max_pooling_are_found(tmp_path):
    text, copy = fused.FILE.read_text(), fused.FILE.with_name("plain.cu").name
    kept, dropped = (
        "add_slab(totals[i][j], sums[i][j])",
        "totals[i][j] += sums[i][j], sums[i][j] = 0",
    )
    assert kept in text
    (tmp_path / copy).write_text(text.replace(kept, dropped))
    with launch.stand_in(fused.FILE, tmp_path / copy), pytest.raises(AssertionError):
        check_fused((1, 4, 16), 65536)


# ---- infinity ------------------------------------------------------------------------------------


@by_pass
@pytest.mark.parametrize("step", ["naive", "tiled", "implicit_gemm", *ROUNDED])
def test_infinity_stays_in_sums_of_many_slabs(step, pass_, uncut):
    """What a sum loses when it becomes infinite is no number: it must not make it NaN."""
    of = ConvCase("of many cells", (1, 130, 1, 11, 12), (120, 130, 1, 1, 1))
    given = {letter: np.abs(a) for letter, a in arguments(of, np.float32, reals).items()}
    given[TAKES[pass_][0]][0, 3, 0, 5, 5] = np.inf
    got = on_emulator(step, pass_, given, of.geometry)
    with np.errstate(all="ignore"):
        want = exact(pass_, given, of.geometry)
    assert np.isinf(want).any()
    assert np.array_equal(got == np.inf, want == np.inf)
    assert np.isfinite(got[np.isfinite(want)]).all()


# ---- the first layer -----------------------------------------------------------------------------

# Bytes of which each is as likely, of mean 0 and variance 1 once they are normalised.
MEAN, STD = (0.5,) * 3, (math.sqrt((256**2 - 1) / 12) / 255,) * 3


@pytest.mark.parametrize(
    ("pass_", "size", "taps"),
    [("fprop", (8, 32, 32), (7, 7, 7)), ("wgrad", (8, 64, 64), (3, 3, 3))],
)
def test_clips_of_bytes(pass_, size, taps, uncut):
    geometry = conv_geometry((1, 3, *size), (32, 3, *taps), padding="same")
    x = np.random.default_rng(0).integers(0, 256, geometry.x, dtype=np.uint8)
    a = reals(geometry.w if pass_ == "fprop" else geometry.y, np.float32, 1)
    given, double = (
        ((x, a), (x, a.astype(float))) if pass_ == "fprop" else ((a, x), (a.astype(float), x))
    )
    want = getattr(cpu, f"uint8_{pass_}")(*double, MEAN, STD, geometry)
    got = getattr(first_layer, pass_)(*given, MEAN, STD, geometry, device="emulator")
    check(got, want, length(pass_, geometry))


# ---- tensor cores --------------------------------------------------------------------------------


def check_tensor_core(number: str, pass_: str, given: dict, geometry) -> None:
    want = exact(pass_, given, geometry, ROUNDED[number])
    sizes = exact(pass_, given, geometry, lambda a: np.abs(ROUNDED[number](a)))
    errors = np.abs(on_emulator(number, pass_, given, geometry) - want)
    assert 0 < errors.max() <= TENSOR_CORE * np.abs(want).max()
    assert (errors <= TENSOR_CORE * sizes).all()


@by_number
@by_pass
def test_many_sums_on_tensor_cores(number, pass_):
    check_tensor_core(number, pass_, arguments(MANY, np.float32, reals), MANY.geometry)


@by_number
@pytest.mark.parametrize(
    ("pass_", "of"), [("wgrad", LONG), ("fprop", WIDE)], ids=["wgrad", "fprop"]
)
def test_long_sums_of_like_signs_on_tensor_cores(number, pass_, of, uncut):
    given = {letter: np.abs(a) for letter, a in arguments(of, np.float32, reals).items()}
    check_tensor_core(number, pass_, given, of.geometry)


def test_longer_sums_on_tensor_cores_are_found(uncut, tmp_path):
    copy, text = tmp_path / "tensor_core.cu", (FOLDER / "tensor_core.cu").read_text()
    assert "STAGES_A_SUM = 4" in text
    copy.write_text(text.replace("STAGES_A_SUM = 4", "STAGES_A_SUM = 16"))
    with launch.stand_in(FOLDER / "tensor_core.cu", copy), pytest.raises(AssertionError):
        test_long_sums_of_like_signs_on_tensor_cores("tf32", "wgrad", LONG, None)
