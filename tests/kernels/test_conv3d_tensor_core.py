"""Convolution on tensor cores, on the emulator: in TF32 and in bf16, against rounded operands.

Small whole numbers are left as they are by both formats, and their sums are exact: so results must
equal the reference's, bit for bit. Rounding is tested apart: of the operands by patterns of bits
worked out by hand, and of sums by random numbers, against a reference in float64 whose operands
are rounded the same way. There each element may be off by 1e-6 of its scale, the sum of the
magnitudes of its products.
"""

import shutil
from functools import cache

import numpy as np
import pytest
from compare import assert_close
from conv_checks import PASSES, TAKES, arguments, expected, integers, reals, run, small

from tinyvid import kernels
from tinyvid.errors import UserError
from tinyvid.geometry import conv_geometry
from tinyvid.kernels import launch
from tinyvid.kernels.conv3d import cpu, cuda, tensor_core
from tinyvid.kernels.conv3d.cases import CASES, ConvCase
from tinyvid.kernels.emulator import options
from tinyvid.kernels.emulator.check import check as check_accesses
from tinyvid.kernels.rounding import to_bf16, to_tf32

pytestmark = pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="needs a C++ compiler"
)

by_pass = pytest.mark.parametrize("pass_", PASSES)
by_number = pytest.mark.parametrize("number", ["tf32", "bf16"])
ROUNDED = {"tf32": to_tf32, "bf16": to_bf16}
SCHEDULES = [("forward", "late"), ("reversed", "early"), ("shuffled", "late")]
FLOAT32 = np.dtype(np.float32)
FILE = launch.KERNELS / "conv3d" / "tensor_core.cu"


def case(x, w, padding=0, groups: int = 1) -> ConvCase:
    return ConvCase(f"{'x'.join(map(str, x))} by {w[0]}", x, w, 1, padding, 1, groups)


def on_tensor_cores(pass_: str, number: str, given: dict, geometry, **more) -> np.ndarray:
    arrays = [given[letter] for letter in TAKES[pass_]]
    return getattr(cuda, pass_)(*arrays, geometry, step=number, device="emulator", **more)


def check(pass_: str, number: str, of: ConvCase, **more) -> None:
    """Assert that whole numbers give the reference's, exactly."""
    got = on_tensor_cores(pass_, number, arguments(of, np.float32), of.geometry, **more)
    assert_close(got, expected("conv3d", pass_, of, np.float32))
    assert np.moveaxis(got, 1, -1).flags.c_contiguous


@cache
def exact(pass_: str, number: str, of: ConvCase) -> tuple[np.ndarray, np.ndarray]:
    """Return what random numbers give in float64, rounded first, and the scale of each element."""
    given = arguments(of, np.float32, reals)
    operands = [ROUNDED[number](given[letter]).astype(np.float64) for letter in TAKES[pass_]]
    function = getattr(cpu, pass_)
    return function(*operands, of.geometry), function(*map(np.abs, operands), of.geometry)


def error(pass_: str, number: str, of: ConvCase) -> float:
    """Return the largest error of random numbers, in units of the element's scale."""
    want, scale = exact(pass_, number, of)
    got = on_tensor_cores(pass_, number, arguments(of, np.float32, reals), of.geometry)
    difference = np.abs(got - want)
    assert not np.isnan(difference).any()
    assert not difference[scale == 0].any()
    return (difference / np.where(scale == 0, 1, scale)).max(initial=0)


# ---- rounding, by hand ---------------------------------------------------------------------------

# Bits before, and after: of TF32 ten of the fraction stay, ties go away from zero; of bf16 seven,
# ties go to the even one. 3f800000 is 1, 3f801000 is 1 + 2^-11, 3f808000 is 1 + 2^-8.
BITS = {
    "tf32": [
        (0x00000000, 0x00000000),
        (0x3F800000, 0x3F800000),
        (0x3F802000, 0x3F802000),  # 1 + 2^-10 fits
        (0x3F801000, 0x3F802000),  # a tie, away from zero
        (0xBF801000, 0xBF802000),
        (0x3F803000, 0x3F804000),  # a tie again, now to the even one
        (0x3F800FFF, 0x3F800000),
        (0x3FFFF000, 0x40000000),  # 2 - 2^-12: the carry reaches the exponent
        (0x40490FDB, 0x40490000),  # pi
        (0x7F800000, 0x7F800000),
        (0xFF800000, 0xFF800000),
    ],
    "bf16": [
        (0x00000000, 0x0000),
        (0x3F800000, 0x3F80),
        (0x3F810000, 0x3F81),  # 1 + 2^-7 fits
        (0x3F808000, 0x3F80),  # a tie, to the even one below
        (0x3F818000, 0x3F82),  # a tie, to the even one above
        (0xBF808000, 0xBF80),
        (0x3F808001, 0x3F81),
        (0x3F807FFF, 0x3F80),
        (0x3FFF8000, 0x4000),  # the carry reaches the exponent
        (0x40490FDB, 0x4049),  # pi
        (0x7F7FFFFF, 0x7F80),  # the largest float32 is past the largest bf16
        (0xFF800000, 0xFF80),
    ],
}


def rounded(number: str, lines: np.ndarray) -> np.ndarray:
    """Return the bits of lines once rounded, as they lie in memory."""
    of = CASES[0].geometry
    module = launch.load(FILE, cuda.constants(number, "fprop", of, np.float32, False), "emulator")
    bits = {"tf32": np.uint32, "bf16": np.uint16}[number]
    chunk = 16 // bits().itemsize
    out = np.full((lines.shape[0], -(-lines.shape[1] // chunk) * chunk), 0xDEAD, bits)
    args = [lines, np.int64(lines.shape[0]), np.int32(lines.shape[1]), out]
    module.get_function(f"conv3d_round_{number}")((-(-out.size // chunk // 256),), (256,), args)
    return out


@by_number
def test_rounding_by_hand(number):
    before, after = np.array(BITS[number], np.uint32).T
    got = rounded(number, before.copy().view(np.float32).reshape(-1, 1))
    assert got[:, 0].tolist() == after.tolist()
    nan = rounded(number, np.full((1, 1), np.nan, np.float32))
    assert np.isnan((nan.astype(np.uint32) << (32 - 8 * nan.itemsize)).view(np.float32)[0, 0])


@by_number
@pytest.mark.parametrize("channels", [1, 3, 4, 5, 7, 8, 9, 17])
def test_lines_are_rounded_and_padded(number, channels):
    lines = reals((300, channels), np.float32, 1)
    got = rounded(number, lines)
    want = ROUNDED[number](lines).view(np.uint32) >> (32 - 8 * got.itemsize)
    assert np.array_equal(got[:, :channels], want)
    assert not got[:, channels:].any()


# ---- against the reference -----------------------------------------------------------------------


@by_pass
@by_number
@pytest.mark.parametrize("of", small(CASES))
def test_cases(of, number, pass_):
    for schedule, copies in SCHEDULES[:2]:
        with options(schedule=schedule, copies=copies):
            check(pass_, number, of)
    with options(schedule="shuffled", seed=5):
        assert error(pass_, number, of) <= 1e-6


# Tiles have 128 rows and 32, 64 or 128 columns, stages 16 terms or 32 and chunks 4 or 8; one more
# and one less of each. Rows are cells, or taps and C in wgrad; columns K, or C in dgrad; terms C,
# K, or cells.
BORDERS = [
    case((1, 31, 1, 1, 127), (33, 31, 1, 1, 1)),
    case((1, 33, 1, 2, 64), (31, 33, 1, 1, 1)),
    case((3, 15, 1, 1, 43), (17, 15, 1, 1, 1)),
    case((1, 65, 1, 1, 9), (63, 65, 1, 1, 1)),
    case((1, 129, 1, 1, 17), (127, 129, 1, 1, 1)),
    case((1, 64, 1, 4, 5), (128, 64, 1, 1, 1)),
    case((1, 4, 2, 5, 6), (7, 4, 2, 4, 4), 1),
    case((1, 8, 2, 3, 6), (9, 8, 1, 3, 6), 1),
    case((1, 9, 2, 3, 7), (8, 9, 1, 2, 7), 1),
    case((2, 10, 3, 4, 5), (14, 5, 1, 2, 3), 1, groups=2),
]


@by_pass
@by_number
@pytest.mark.parametrize("of", small(BORDERS))
def test_tile_borders(of, number, pass_):
    check(pass_, number, of)


# Slabs have 512 terms, and two are summed up before they are added to what is in the output.
LONG = [
    case((1, 512, 1, 1, 3), (7, 512, 1, 1, 1)),
    case((1, 1025, 1, 1, 3), (9, 1025, 1, 1, 1)),
    case((1, 8, 1, 2, 3), (513, 8, 1, 2, 1), 1),
    case((2, 3, 8, 8, 8), (2, 3, 1, 1, 1)),  # 1024 cells
    case((1, 3, 7, 13, 17), (4, 3, 3, 3, 3), 1),  # 1547 cells
]


@by_pass
@by_number
@pytest.mark.parametrize("most", [1, 2, 264])  # blocks, which share the slabs of a tile
def test_slabs_and_slices(most, number, pass_, monkeypatch):
    monkeypatch.setattr(tensor_core, "BLOCKS", most)
    for of in LONG:
        check(pass_, number, of)


@by_number
def test_bias_and_relu(number, monkeypatch):
    of = case((2, 1200, 1, 2, 5), (6, 600, 1, 1, 1), groups=2)
    given, bias = arguments(of, np.float32), integers((6,), np.float32, 9)
    want = expected("conv3d", "fprop", of, np.float32) + bias.reshape(-1, 1, 1, 1)
    assert (want < 0).any()
    assert (want > 0).any()
    for most, slices in ((1, 1), (264, 2)):  # finished by the kernel, or where slices are summed up
        monkeypatch.setattr(tensor_core, "BLOCKS", most)
        assert cuda.STEPS[number].plan("fprop", of.geometry, FLOAT32).slices == slices
        got = on_tensor_cores("fprop", number, given, of.geometry, bias=bias, relu=True)
        assert_close(got, np.maximum(want, 0))
        got = on_tensor_cores("fprop", number, given, of.geometry, bias=bias)
        assert_close(got, want)


def test_sizes_compiled_in():
    # The widest tile, of 256 threads; one build serves all passes and both formats.
    of = ConvCase("", (2, 100, 3, 3, 4), (100, 100, 2, 2, 1), (2, 1, 1), (1, 0, 1), (1, 2, 1))
    for number in ("tf32", "bf16"):
        for pass_ in PASSES:
            assert cuda.STEPS[number].plan(pass_, of.geometry, FLOAT32).threads == 256
            check(pass_, number, of, specialised=True)


@by_pass
@by_number
def test_memory_accesses(number, pass_):
    names = ("plain", "groups_stride", "stride_and_dilation")
    with options(checked=True):  # an AccessError otherwise
        for of in [c for c in CASES if c.name in names] + [LONG[-1]]:
            check(pass_, number, of)


@by_pass
@by_number
def test_no_example(number, pass_):
    geometry = conv_geometry((0, 2, 3, 3, 3), (3, 2, 3, 3, 3))
    given = {
        letter: np.ones(shape, np.float32)
        for letter, shape in (("x", geometry.x), ("w", geometry.w), ("gy", geometry.y))
    }
    got = on_tensor_cores(pass_, number, given, geometry)
    shape = {"fprop": geometry.y, "dgrad": geometry.x}.get(pass_, geometry.w)
    assert_close(got, np.zeros(shape, np.float32))


# ---- rounding ------------------------------------------------------------------------------------

SUMS = {
    "fprop": case((1, 300, 2, 5, 6), (8, 300, 3, 3, 3), 1),
    "dgrad": case((1, 8, 2, 5, 6), (300, 8, 3, 3, 3), 1),
    "wgrad": case((1, 2, 9, 33, 33), (3, 2, 2, 2, 2)),
}


@by_pass
@by_number
@pytest.mark.parametrize("most", [1, 264])
def test_rounding_of_long_sums(most, number, pass_, monkeypatch):
    monkeypatch.setattr(tensor_core, "BLOCKS", most)
    of = SUMS[pass_]
    assert 0 < error(pass_, number, of) <= 1e-6
    given = arguments(of, np.float32, reals)
    results = []
    for schedule, copies in SCHEDULES:
        with options(schedule=schedule, copies=copies):
            results.append(on_tensor_cores(pass_, number, given, of.geometry))
    assert np.array_equal(results[0], results[1])  # the same bits in any order of the blocks
    assert np.array_equal(results[0], results[2])


@by_pass
def test_other_rounding_is_found(pass_, monkeypatch):
    # Operands as they are, or rounded otherwise, are far from what the kernels take.
    for number, other in (("tf32", to_bf16), ("bf16", to_tf32), ("tf32", np.asarray)):
        exact.cache_clear()
        with monkeypatch.context() as patch:
            patch.setitem(ROUNDED, number, other)
            assert error(pass_, number, CASES[0]) > 1e-5
    exact.cache_clear()


# ---- the registry --------------------------------------------------------------------------------


@by_pass
@by_number
def test_it_runs_only_when_asked_for(number, pass_):
    of = next(c for c in CASES if c.name == "plain")
    given = arguments(of, np.float32)
    arrays = [given[letter] for letter in TAKES[pass_]]
    kernel = getattr(kernels, f"conv3d_{pass_}")
    *before, last = kernel.variants
    assert last == "reference"
    of_cuda = [name for name in before if name.startswith("cuda/")]
    assert of_cuda[-2:] == ["cuda/tf32", "cuda/bf16"]  # behind all that take numbers as they are
    assert kernel.select(*arrays, of.geometry, device="emulator").rounds is None
    with kernels.use(conv3d=f"cuda/{number}"):
        got = kernel(*arrays, of.geometry, device="emulator")
    assert_close(np.asarray(got), run("conv3d", pass_, "reference", given, of.geometry))


@by_number
def test_float64_is_refused(number):
    geometry = conv_geometry((1, 2, 3, 3, 3), (2, 2, 3, 3, 3))
    arrays = np.ones(geometry.x), np.ones(geometry.w)
    refused = pytest.raises(UserError, match=f"'cuda/{number}'.*takes float32, not float64")
    with kernels.use(conv3d=f"cuda/{number}"), refused:
        kernels.conv3d_fprop(*arrays, geometry, device="emulator")
    with pytest.raises(UserError, match=f"'cuda/{number}'.*it takes float32, not float64"):
        cuda.fprop(*arrays, geometry, step=number, device="emulator")


@by_pass
def test_out_of_memory_tells_the_sizes(pass_, monkeypatch):
    of = LONG[3]

    def full(shape, dtype, device):
        raise MemoryError

    monkeypatch.setattr(launch, "empty", full)
    with pytest.raises(UserError, match=r"out of memory for 'cuda/bf16'.*result") as caught:
        on_tensor_cores(pass_, "bf16", arguments(of, np.float32), of.geometry)
    workspace = str(caught.value).partition("a workspace")[2]
    assert "(1024, 4) float32" in workspace  # 1024 cells of a chunk


# ---- planted faults ------------------------------------------------------------------------------


def test_a_wait_left_out_is_found(tmp_path):
    text = FILE.read_text()
    assert text.count("cp_async_wait<0>();") == 1
    copy = tmp_path / "tensor_core.cu"
    copy.write_text(text.replace("cp_async_wait<0>();", ""))
    of = CASES[0]
    with launch.stand_in(FILE, copy):
        report = check_accesses(
            lambda: on_tensor_cores("fprop", "bf16", arguments(of, np.float32), of.geometry),
            ["forward"],
            ["late"],
        )
    assert {finding.kind for finding in report.findings} >= {"copy not waited for"}
