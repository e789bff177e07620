"""Each thing the emulator offers, against plain NumPy, whoever goes first."""

import numpy as np
import pytest
from compare import assert_close
from emulated import SCHEDULES, module, needs_compiler

from tinyvid.kernels.emulator import options
from tinyvid.kernels.launch import empty, write_global

pytestmark = needs_compiler

TEMPLATES = (
    "scale<float, 4>",
    "scale<double, 1>",
    "product_16<true>",
    "product_16<false>",
)
LANES = np.arange(32)


@pytest.fixture(params=SCHEDULES, autouse=True)
def schedule(request):
    with options(schedule=request.param, seed=3):
        yield request.param


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def features(cooperative=False):
    return module("features.cu", *TEMPLATES, cooperative=cooperative)


def run(name, grid, block, *args, shared_mem=0, cooperative=False):
    features(cooperative).get_function(name)(grid, block, args, shared_mem=shared_mem)


def new(*shape, dtype=np.float32):
    return empty(shape, dtype, "emulator")


# ---- grids, blocks, memory ---------------------------------------------------------------------


def test_grids_and_blocks_have_three_axes():
    out = new(4, 3, 2, 5, 2, 3, dtype=np.int32)
    run("indices", (2, 3, 4), (3, 2, 5), out)
    i = np.indices(out.shape, np.int32)
    want = 1000000 * i[3] + 100000 * i[4] + 1000 * i[5] + 100 * i[0] + 10 * i[1] + i[2]
    assert_close(out, want)


def test_shared_memory_static_and_dynamic(rng):
    x, y = rng.standard_normal((48, 48), np.float32), new(48, 48)
    run("transpose", (3, 3), (16, 16), x, y, np.int32(48), shared_mem=64)
    assert_close(y, x.T + np.float32(1000) * (np.arange(48, dtype=np.float32) % 16))


def test_shared_memory_is_nan_at_the_start_of_each_block():
    out = new(3, 32)
    run("unwritten", (3,), (32,), out)
    assert np.isnan(out[:, ::4]).all()
    assert (out[:, LANES % 4 > 0] == 1).all()


def test_constant_and_device_variables():
    write_global(features(), "sizes", np.array([(2, 0.5)], np.dtype("i4,f8", align=True)))
    write_global(features(), "total", np.array(5, np.uint64))
    out = new(3, dtype=np.float64)
    run("variables", (2,), (3,), out)
    assert out[:2].tolist() == [0.5, 1]
    assert np.isnan(out[2])
    total = np.zeros(1, np.uint64)
    features().get_global("total").copy_to_host(total.ctypes.data, 8)
    assert total[0] == 5 + 2 * 6


@pytest.mark.parametrize(("kind", "N"), [("float", 4), ("double", 1)])
def test_instances_of_templates(rng, kind, N):
    dtype = np.float32 if kind == "float" else np.float64
    x = rng.standard_normal(77).astype(dtype)
    got = x.copy()
    run(f"scale<{kind}, {N}>", (-(-70 // (8 * N)),), (8,), got, dtype(3), 70)
    assert_close(got, np.concatenate([x[:70] * dtype(3), x[70:]]))


def test_vector_loads_and_stores(rng):
    x = rng.standard_normal((6, 4), np.float32)
    y, yd = new(36), new(36, dtype=np.float64)
    run("vectors", (1,), (6,), x, x.astype(np.float64), y, yd)
    want = np.concatenate([x[:, ::-1].ravel(), x[:3].reshape(6, 2)[:, ::-1].ravel()])
    assert_close(y, want)
    assert_close(yd, want.astype(np.float64))


def test_vector_types_lie_as_on_a_gpu():
    out = new(16, 2, dtype=np.int32)
    run("layouts", (1,), (1,), out)
    want = [
        *[(4, 4), (4, 4), (4, 4), (8, 8)],  # char4 uchar4 short2 ushort4
        *[(8, 8), (12, 4), (16, 16), (8, 8), (16, 16)],  # int2 int3 int4 uint2 uint4
        *[(4, 4), (8, 8), (12, 4), (16, 16)],  # float1 float2 float3 float4
        *[(16, 16), (16, 16), (12, 4)],  # double2 longlong2 dim3
    ]
    assert out.tolist() == [list(pair) for pair in want]


# ---- warps -------------------------------------------------------------------------------------


def test_shuffles(rng):
    x, out = rng.integers(0, 1000, 32).astype(np.int32), new(10, 32, dtype=np.int32)
    run("shuffles", (1,), (32,), x, out)
    up = np.where(LANES % 16 >= 3, LANES - 3, LANES)
    down = np.where(LANES % 4 + 2 < 4, LANES + 2, LANES)
    sources = [
        *[LANES * 0 + 5, LANES // 8 * 8 + 3, np.where(LANES >= 2, LANES - 2, LANES), up],
        *[np.minimum(LANES + 1, 31), down, LANES ^ 21, LANES ^ 3, LANES ^ 1],
    ]
    for row, source in zip(out, sources, strict=False):
        assert_close(row, x[source])
    assert (out[9, :16] == x[:16].sum()).all()
    signs = np.where(np.array([bin(i).count("1") for i in range(16)]) % 2, -1, 1)
    want = [(signs * x[16:][np.arange(16) ^ i]).sum() for i in range(16)]
    assert_close(out[9, 16:], np.array(want, np.int32) * 1)


def test_votes_matches_and_reductions(rng):
    x, out = rng.integers(0, 50, 32).astype(np.int32), new(12, 32, dtype=np.uint32)
    run("votes", (1,), (32,), x, out)

    def mask(lanes):
        return int(sum(1 << int(i) for i in np.flatnonzero(lanes)))

    everyone = 0xFFFFFFFF
    for row, want in {
        0: mask(x % 2),
        1: int((x == 7).any()),
        2: 1,
        3: 0,
        5: 0,
        6: (everyone + 1) % 2**32,
        7: int(x.sum()),
        8: int(x.max()) * 1000 + int(x.min()),
        9: int(np.bitwise_xor.reduce(x)),
        11: everyone,
    }.items():
        assert (out[row] == want).all(), f"row {row}"
    assert out[4].tolist() == [mask(x % 5 == v % 5) for v in x]
    few = mask((LANES % 3 == 0) & (x % 2 == 1))
    assert out[10].tolist() == np.where(LANES % 3 == 0, few, 0).tolist()


def test_lanes_that_have_left_are_not_waited_for():
    out = new(45, dtype=np.uint32)
    run("leavers", (2,), (25,), out, 45)
    assert (out[:25] == 2**25 - 1).all()
    assert (out[25:] == 2**20 - 1).all()


def test_barriers_that_count(rng):
    x, out = rng.integers(0, 20, 70).astype(np.int32), new(70, 3, dtype=np.int32)
    run("predicates", (1,), (70,), x, out)
    assert (out == [(x > 10).sum(), (x > 10).all(), (x > 10).any()]).all()


# ---- atomics -----------------------------------------------------------------------------------


def test_atomics(schedule):
    n = np.arange(4 * 64)
    i = np.array([0, 0, 0, 0, 0, 0, -1, 0, 0], np.int32)
    u = np.zeros(4 + 256 + 1, np.uint32)
    w, f, d = np.zeros(3, np.uint64), np.zeros(2, np.float32), np.zeros(1)
    run("atomics", (4,), (64,), i, u, w, f, d)
    assert i.tolist() == [n.sum(), -n.sum(), -255, 255, 7, 9, ~255, 255, 0]
    assert u[:4].tolist() == [256 % 10, (10 - 256 % 10) % 10, 255, 256]
    assert (u[4:260] == 1).all()
    assert w.tolist() == [256 << 33, 255, 2**64 - 1]
    assert f.tolist() == [128, 3]
    assert d[0] == 64


# ---- asynchronous copies -----------------------------------------------------------------------


@pytest.mark.parametrize("copies", ["late", "early"])
def test_a_pipeline_of_asynchronous_copies(rng, copies):
    x, out = rng.integers(0, 9, (5, 128)).astype(np.float32), new(128)
    with options(copies=copies):
        run("pipeline", (1,), (32,), x, out, 5)
    total, first = x.sum(0), np.arange(0, 128, 4)
    want = total[(first[:, None] + [0, 4, 8, 12]) % 128].ravel()
    assert_close(out, want)


def test_a_copy_that_is_not_waited_for_shows_when_copies_land_late(rng):
    x, out = rng.standard_normal(32, np.float32), new(3, 32)
    with options(copies="early"):
        run("impatient", (1,), (32,), x, out)
    assert_close(out, np.stack([x, x, 0 * x]))
    with options(copies="late"):
        run("impatient", (1,), (32,), x, out)
    assert np.isnan(out[0]).all()
    assert_close(out[1:], np.stack([x, 0 * x]))


# ---- tensor cores ------------------------------------------------------------------------------


def test_ldmatrix():
    x, out = np.arange(256, dtype=np.uint16), new(32, 14, dtype=np.uint32)
    run("matrices", (1,), (32,), x, out)
    s = x.reshape(4, 8, 8).astype(np.uint32)
    g, t = LANES // 4, LANES % 4
    plain = s[:, g, 2 * t] | s[:, g, 2 * t + 1] << 16  # (matrix, lane)
    turned = s[:, 2 * t, g] | s[:, 2 * t + 1, g] << 16
    want = [plain, turned, plain[:2], turned[:2], plain[:1], turned[:1]]
    assert_close(out, np.concatenate(want).T.astype(np.uint32))


def tf32(x):
    return ((x.view(np.uint32) + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32)


def bf16(x):
    bits = x.view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16 << 16).astype(np.uint32).view(np.float32)


def f16(x):
    return x.astype(np.float16).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "K", "rounded"),
    [
        ("product_tf32", 8, tf32),
        ("product_16<true>", 16, bf16),
        ("product_16<false>", 16, f16),
    ],
    ids=["tf32", "bf16", "f16"],
)
def test_mma(rng, name, K, rounded):
    A, B, D = (rng.standard_normal(s, np.float32) for s in ((16, K), (K, 8), (16, 8)))
    want = D + rounded(A).astype(np.float64) @ rounded(B).astype(np.float64)
    run(name, (1,), (32,), A, B, D)
    assert_close(D.astype(np.float64), want, atol=2e-6)


def test_rounding_to_the_short_types(rng):
    bits = rng.integers(0, 2**32, 4000, dtype=np.uint32).view(np.float32)
    special = np.array([0, 0.0, 1, 65504, 65519.99, 65520, 1e30, 2**-24, 2**-25, 3 * 2**-26, 6e-8])
    ties = np.array([1 + 2**-11, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 3 * 2**-11, 2**-14 - 2**-25])
    numbers = bits[~np.isnan(bits)]
    x = np.concatenate([numbers, special, -special, ties, [np.inf, -np.inf]]).astype(np.float32)
    out = new(3, x.size, dtype=np.uint32)
    run("roundings", (-(-x.size // 128),), (128,), x, out, x.size)
    assert_close(out[0].view(np.float32), tf32(x))
    assert_close((out[1] << 16).view(np.float32), bf16(x))
    with np.errstate(over="ignore"):
        assert_close((out[2] >> 16).astype(np.uint16), x.astype(np.float16).view(np.uint16))
    assert (out[1] >> 16 == 0x3F80).all()
    assert (out[2] & 0xFFFF == 0x3C00).all()


# ---- the whole grid ----------------------------------------------------------------------------


def test_a_barrier_of_the_grid():
    partial, out = new(5, dtype=np.int32), new(5, 40, dtype=np.int32)
    arrivals = np.zeros(1, np.uint32)
    run("grid_sums", (5,), (40,), arrivals, partial, out, cooperative=True)
    first = sum(10 * i + 1 for i in range(5))
    assert (out == first + sum(first + 10 * i for i in range(5))).all()


@pytest.mark.parametrize("workers", [1, 3])
def test_blocks_on_several_os_threads(workers):
    out = new(200, 64, dtype=np.int32)
    with options(workers=workers):
        run("busy", (200,), (64,), out, 20)
    assert (out == np.arange(200)[:, None] + 20).all()


# ---- arithmetic --------------------------------------------------------------------------------


def test_integer_intrinsics(rng):
    x, y = (rng.integers(0, 2**32, 40, dtype=np.uint32) for _ in range(2))
    x[:3] = 0, 1, 2**31
    out = new(13, 40, dtype=np.uint32)
    run("integers", (1,), (40,), x, y, out, 40)
    for lane, (a, b) in enumerate(zip(x.tolist(), y.tolist(), strict=True)):
        sa, sb = (v - 2**32 * (v >> 31) for v in (a, b))
        want = [
            *[a.bit_count(), 32 - a.bit_length(), (a & -a).bit_length()],
            *[int(f"{a:032b}"[::-1], 2), a * b >> 32, sa * sb >> 32],
            *[a & 0xFFFF | (b & 0xFFFF) << 16, (b << 32 | a) << 7 >> 32],
            *[min(a, b), max(sa, sb), (a << 32 | b).bit_count(), a & 0x7F7FFFFF],
            (a & 0xFFFFFF) * (b & 0xFFFFFF),
        ]
        assert out[:, lane].tolist() == [v % 2**32 for v in want]


def test_floating_point_intrinsics(rng):
    x, out = rng.uniform(0.1, 3, 40).astype(np.float32), new(15, 40)
    run("floats", (1,), (40,), x, out, 40)
    a = x.astype(np.float64)
    want = [
        *[a**-0.5, np.exp(a), np.log(a), a * a + 1, a * a + a, np.minimum(a, 1.5), a],
        *[np.clip(a, 0, 1), 1 / a, np.rint(a), np.trunc(-a), np.sqrt(a), np.tanh(a), a],
    ]
    assert_close(out[:14].astype(np.float64), np.stack(want), rtol=3e-7, atol=1e-7)
    assert_close(out[14], x * x - np.float32(1))  # the product is rounded before the sum
