"""The LSTM in CUDA C++ on the emulator: naive, the fused step, and weights kept on chip.

Results are compared with the reference's in float64. An output that no thread writes stays NaN
(`launch.empty`).
"""

import math
import shutil
from functools import partial

import numpy as np
import pytest
from compare import assert_close

import tinyvid
from tinyvid import kernels, models, nn, optim
from tinyvid.errors import UserError
from tinyvid.kernels import launch
from tinyvid.kernels.emulator import options
from tinyvid.kernels.emulator.check import check
from tinyvid.kernels.lstm import cuda, plan, reference
from tinyvid.kernels.lstm.cases import CASES, Case
from tinyvid.kernels.lstm.launches import arguments

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++"))),
    reason="the emulator needs a C++17 compiler",
)

STEPS = tuple(cuda.STEPS)
PASSES = ("fprop", "bprop")
SCHEDULES = [("forward", "late"), ("reversed", "early"), ("shuffled", "late")]
SMALL = [case for case in CASES if not case.large]
CASE = {case.name: case for case in CASES}
# Relative to the largest element: weights of unit variance make gates that are nearly steps.
TOLERANCE = {np.float32: 3e-5, np.float64: 1e-12}
by_step = pytest.mark.parametrize("step", STEPS)
by_pass = pytest.mark.parametrize("pass_", PASSES)


def run(step: str, pass_: str, args: tuple, **more) -> tuple[np.ndarray, ...]:
    return getattr(cuda, pass_)(*args, step=step, device="emulator", **more)


def expected(pass_: str, args: tuple) -> tuple[np.ndarray, ...]:
    wide = [a.astype(np.float64) if is_float(a) else a for a in args]
    return getattr(reference, pass_)(*wide)


def is_float(a) -> bool:
    return isinstance(a, np.ndarray) and a.dtype.kind == "f"


def compare(got, want, dtype) -> None:
    assert len(got) == len(want)
    for ours, theirs in zip(got, want, strict=True):
        largest = np.abs(theirs).max(initial=1)
        assert_close(ours, theirs.astype(dtype), atol=TOLERANCE[dtype] * largest)


def check_case(step: str, pass_: str, case: Case, dtype=np.float32, **more) -> None:
    args = arguments(pass_, case, dtype)
    compare(run(step, pass_, args, **more), expected(pass_, args), dtype)


def scaled(pass_: str, case: Case) -> tuple:
    """Arguments in float32 of which the gates' inputs have about unit variance."""
    args = list(arguments("fprop", case))
    args[1] /= np.float32(math.sqrt(case.inputs))
    args[2] /= np.float32(math.sqrt(case.hidden))
    if pass_ == "fprop":
        return tuple(args)
    gh, gc = arguments("bprop", case)[:2]
    saved = (a.astype(np.float32) for a in expected("fprop", tuple(args)))
    return (gh, gc, *args[:3], *args[4:], *saved)


# ---- every case, every order ---------------------------------------------------------------------


@needs_compiler
@by_step
@by_pass
@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)
def test_every_case(step, pass_, case):
    args = arguments(pass_, case)
    want = expected(pass_, args)
    for schedule, copies in SCHEDULES:
        with options(schedule=schedule, copies=copies):
            compare(run(step, pass_, args), want, np.float32)
    check_case(step, pass_, case, np.float64)


# One below, at and one above the borders: 4 units, 8 sequences of a thread each, 16 and 32 of a
# tile, chunks of 4, stages of 64 terms (of a gate's sum forward, of 4 H back), the ring's 192.
BORDERS = [
    *((N, H) for N, H in ((7, 3), (8, 4), (9, 5), (16, 7), (17, 8), (32, 9), (33, 2))),
    *((N, H) for N, H in ((2, 15), (2, 16), (2, 17), (3, 47), (3, 48), (3, 49))),
    *((N, H) for N, H in ((3, 63), (3, 64), (3, 65), (1, 191), (1, 192), (1, 193))),
]


@needs_compiler
@pytest.mark.parametrize("step", ["fused_step", "persistent"])
@pytest.mark.parametrize(("N", "H"), BORDERS)
def test_borders_of_tiles(step, N, H):
    case = Case("border", N, 2, 3, H, tuple(1 + n % 2 for n in range(N)), reverse=bool(N % 2))
    for pass_ in PASSES:
        check_case(step, pass_, case)


@needs_compiler
def test_fused_step_in_wide_tiles_of_float64():
    for pass_ in PASSES:
        check_case("fused_step", pass_, Case("wide", 17, 2, 3, 5), np.float64)


@needs_compiler
@by_pass
def test_inputs_may_lie_in_any_order(pass_):
    args = arguments(pass_, CASE["unequal lengths, reversed"])
    want = expected(pass_, args)

    def strided(a):
        wide = np.full((*a.shape[:-1], 2 * a.shape[-1] + 1), np.nan, a.dtype)
        wide[..., 1::2] = a
        return wide[..., 1::2]

    def shifted(a):
        copy = np.empty(a.nbytes + 1, np.uint8)[1:].view(a.dtype).reshape(a.shape)
        copy[...] = a
        return copy

    for lay in (strided, shifted, lambda a: a.T.copy().T, lambda a: a[::-1].copy()[::-1]):
        laid = tuple(lay(a) if is_float(a) else a for a in args)
        for a in filter(is_float, laid):
            a.flags.writeable = False
        compare(run("persistent", pass_, laid), want, np.float32)
        assert all(np.array_equal(a, b) for a, b in zip(laid, args, strict=True) if is_float(a))


@needs_compiler
def test_hidden_units_compiled_in(monkeypatch):
    product = cuda._product

    def general(*args, specialised, **more):
        return product(*args, specialised=False, **more)

    monkeypatch.setattr(cuda, "_product", general)
    for pass_ in PASSES:
        check_case("persistent", pass_, CASE["unequal lengths"], specialised=True)


@needs_compiler
@by_step
def test_what_stands_past_the_ends_is_not_looked_at(step):
    case = CASE["none reaches the end"]
    past = np.arange(case.steps) >= np.array(case.lengths)[:, None]
    for pass_ in PASSES:
        args = arguments(pass_, case)
        want = expected(pass_, args)
        for a in args if pass_ == "bprop" else args[:1]:  # x; or gh, gc, x
            if is_float(a) and a.shape[:2] == past.shape and a is not args[-1]:
                a[past] = np.inf
        compare(run(step, pass_, args), want, np.float32)


@needs_compiler
@by_step
def test_a_batch_of_none(step):
    fprop = arguments("fprop", Case("none", 0, 3, 2, 4))
    got = run(step, "fprop", fprop)
    assert [a.shape for a in got] == [(0, 3, 4), (0, 3, 4), (0, 3, 16)]
    bprop = (*got[:2], *fprop[:3], *fprop[4:], *got)
    for ours, theirs in zip(run(step, "bprop", bprop), expected("bprop", bprop), strict=True):
        assert_close(ours, theirs.astype(np.float32))


# ---- several blocks ------------------------------------------------------------------------------


# A case; bytes that a block of the persistent kernel may have, in each pass, and blocks at once;
# how many blocks it then takes, with or without a barrier of the grid. With little shared memory
# one block cannot hold the weights of all units.
LITTLE = (10000, 8000)
GRIDS = {
    "barrier": (Case("", 3, 3, 2, 20, (3, 1, 2)), (14000, 14000), 3, 3, True),
    "more units than teams": (Case("", 5, 3, 2, 56, reverse=True), (50000, 50000), 2, 2, True),
    "slices": (Case("", 20, 3, 2, 8), LITTLE, 6, 6, True),
    "more tiles than slices": (Case("", 40, 2, 2, 8), LITTLE, 5, 4, True),
    "wide tiles": (Case("", 20, 2, 2, 80), (plan.SHARED, plan.SHARED), 20, 20, True),
    "no barrier": (Case("", 20, 3, 2, 8), (plan.SHARED, plan.SHARED), 2, 3, False),
}


def on_grid(monkeypatch, name: str, pass_: str, dtype=np.float32) -> Case:
    """Let the persistent kernel find a grid as above, and return its case."""
    case, shared, multiprocessors, blocks, cooperative = GRIDS[name]
    monkeypatch.setattr(cuda, "MULTIPROCESSORS", multiprocessors)
    monkeypatch.setattr(plan, "SHARED", shared[PASSES.index(pass_)])
    found = plan.persistent(pass_, case.batch, case.hidden, np.dtype(dtype), multiprocessors)
    assert (found.blocks, found.cooperative) == (blocks, cooperative)
    return case


@needs_compiler
@by_pass
@pytest.mark.parametrize("name", GRIDS)
def test_persistent_in_several_blocks(name, pass_, monkeypatch):
    args = arguments(pass_, on_grid(monkeypatch, name, pass_))
    want = expected(pass_, args)
    for schedule, copies in SCHEDULES:
        with options(schedule=schedule, copies=copies):
            compare(run("persistent", pass_, args), want, np.float32)


@needs_compiler
@by_pass
def test_persistent_in_wide_tiles_of_float64(pass_, monkeypatch):
    case = Case("", 20, 2, 2, 40)
    monkeypatch.setattr(cuda, "MULTIPROCESSORS", 10)
    monkeypatch.setattr(plan, "SHARED", 60 * 1024)
    found = plan.persistent(pass_, case.batch, case.hidden, np.dtype(np.float64), 10)
    assert (found.blocks, found.constants["SEQUENCES_EACH"]) == (10, 2)
    check_case("persistent", pass_, case, np.float64)


@needs_compiler
@by_pass
def test_results_do_not_depend_on_the_gpu(pass_, monkeypatch):
    args = scaled(pass_, Case("", 5, 4, 6, 72, (4, 2, 4, 1, 3)))
    one = run("persistent", pass_, args)
    monkeypatch.setattr(plan, "SHARED", 60000)
    for multiprocessors in (3, 18):
        monkeypatch.setattr(cuda, "MULTIPROCESSORS", multiprocessors)
        for schedule in ("forward", "shuffled"):
            with options(schedule=schedule):
                again = run("persistent", pass_, args)
            assert all(np.array_equal(a, b) for a, b in zip(one, again, strict=True))


# ---- what it costs -------------------------------------------------------------------------------


@needs_compiler
@by_step
@by_pass
def test_rounding_is_bounded(step, pass_):
    case = Case("long", 4, 6, 200, 300, (6, 5, 2, 6), reverse=True)
    args = scaled(pass_, case)
    terms = [case.inputs + case.hidden] * 3
    if pass_ == "bprop":
        steps = case.batch * case.steps
        terms = [4 * case.hidden, steps, steps, steps, 4 * case.hidden, 4 * case.hidden]
    for got, want, count in zip(run(step, pass_, args), expected(pass_, args), terms, strict=True):
        assert np.abs(got - want).max() <= 2e-6 * math.sqrt(count)


def product_by_numpy(pass_, a, b, bias=0, **_):
    return {"fprop": lambda: a @ b.T + bias, "dgrad": lambda: a @ b, "wgrad": lambda: a.T @ b}[
        pass_
    ]()


def counts_of(kernel: str, call) -> list:
    """Run a call under the checker, and return what the lines of one kernel cost."""
    launched = []
    with options(checked=True, count_lines=True, watch=launched.append):
        call()
    findings = [str(finding) for one in launched for finding in one.findings]
    assert findings == []
    return [count for one in launched if one.kernel == kernel for count in one.counts]


@needs_compiler
@pytest.mark.parametrize("step", ["fused_step", "persistent"])
@by_pass
def test_bank_conflicts_and_reads_of_weights(step, pass_, monkeypatch):
    monkeypatch.setattr(cuda, "MULTIPROCESSORS", 20)
    monkeypatch.setattr(cuda, "_product", product_by_numpy)  # it is checked elsewhere
    N, H, blocks = 32, 80, 20

    def sectors(L: int) -> int:
        args = arguments(pass_, Case("", N, L, 4, H))
        counts = counts_of(f"lstm_{pass_}_{step}", partial(run, step, pass_, args))
        shared = [c for c in counts if c.space == "shared"]
        # But for weights on their way in transposed, once a sequence.
        costly = [c for c in shared if c.moved > c.fewest and "persistent.cu" not in str(c.place)]
        assert shared
        assert [f"{c.place} {c.access}: {c.moved} for {c.fewest}" for c in costly] == []
        places = ("chunk.cuh", "persistent.cu")  # where weights and rows of states come in
        reads = [c for c in counts if c.space == "global" and c.access == "read"]
        return sum(c.moved for c in reads if any(p in str(c.place) for p in places))

    two, three = sectors(2), sectors(3)
    weights = 4 * H * H * 4 // 32
    rows = blocks * N * H * (1 if pass_ == "fprop" else 4) * 4 // 32  # of a step, for each block
    of_step = rows + weights if step == "fused_step" else rows
    assert three - two == of_step
    if step == "persistent":
        first = weights if pass_ == "fprop" else 2 * weights  # half a sector for four units
        assert two == first + 2 * rows


@needs_compiler
def test_a_missing_barrier_of_the_grid_is_found(tmp_path, monkeypatch):
    file = launch.KERNELS / "lstm" / "persistent.cu"
    text, barrier = file.read_text(), "      grid_sync(arrivals);\n"
    assert text.count(barrier) == 1
    copy = tmp_path / file.name
    copy.write_text(text.replace(barrier, ""))
    monkeypatch.setattr(cuda, "_product", product_by_numpy)
    args = arguments("fprop", on_grid(monkeypatch, "barrier", "fprop"))
    with launch.stand_in(file, copy):
        report = check(partial(run, "persistent", "fprop", args), ["forward"], ["late"])
    assert "race" in {finding.kind for finding in report.findings}


def test_plans_keep_to_their_limits():
    for dtype in (np.dtype(np.float32), np.dtype(np.float64)):
        for pass_ in PASSES:
            taken = []
            for H in range(1, 1200, 7):
                for N in (1, 9, 33, 500):
                    try:
                        found = plan.persistent(pass_, N, H, dtype)
                    except UserError:
                        continue
                    taken.append(H)
                    units, _ = found.args
                    assert found.shared <= plan.SHARED
                    assert found.threads <= 256
                    assert found.blocks % -(-H // units) == 0
                    assert not found.cooperative or found.blocks <= plan.MULTIPROCESSORS
                    assert found.cooperative == (units < H)
            assert max(taken) >= (500 if dtype.itemsize == 4 else 250)


# ---- the launcher --------------------------------------------------------------------------------


def test_prefers_the_step_that_reads_weights_least():
    def chosen(H):
        shapes = [(2, 3, 4), (4 * H, 4), (4 * H, H), (4 * H,), (2, H), (2, H)]
        arrays = [np.broadcast_to(np.float32(0), shape) for shape in shapes]
        return kernels.lstm_fprop.select(*arrays, None, False, device="emulator").name

    assert chosen(512) == "cuda/persistent"
    assert chosen(2000) == "cuda/fused_step"


def test_refuses_what_does_not_fit():
    args = arguments("fprop", CASE["all ones"])
    with pytest.raises(UserError, match=r"c0 has shape \(1, 2\), not \(1, 1\)"):
        run("naive", "fprop", (*args[:5], np.zeros((1, 2), np.float32), *args[6:]))
    with pytest.raises(UserError, match="the steps of the ladder are naive, fused_step, persist"):
        run("fast", "fprop", args)
    with pytest.raises(UserError, match=r"device 'cuda' takes CuPy arrays, not numpy\.ndarray"):
        cuda.fprop(*args, device="cuda")
    shapes = [(2, 3, 4), (8000, 4), (8000, 2000), (8000,), (2, 2000), (2, 2000)]
    large = [np.broadcast_to(np.float32(0), shape) for shape in shapes]
    with pytest.raises(
        UserError, match=r"weights of 2000 hidden .* 108 blocks, take \d+ bytes .* it has 100352"
    ):
        run("persistent", "fprop", (*large, None, False))
    assert "it has 0 inputs" in cuda.unfit("naive", "fprop", np.zeros((1, 2, 0)), np.zeros((4, 1)))


@pytest.mark.parametrize("pass_", PASSES)
def test_out_of_memory_tells_the_sizes(pass_, monkeypatch):
    args = arguments(pass_, CASE["reversed"])

    def full(*_):
        raise MemoryError

    monkeypatch.setattr(launch, "load", lambda *_, **__: None)
    monkeypatch.setattr(launch, "empty", full)
    with pytest.raises(UserError) as error:
        run("persistent", pass_, args)
    assert f"lstm_{pass_}: out of memory for 'cuda/persistent'" in str(error.value)
    assert "(2, 5, 3) float32 of 0.0 MiB" in str(error.value)


# ---- on CuPy's arrays ----------------------------------------------------------------------------


@needs_compiler
@by_pass
def test_runs_on_cupy(pass_, cupy):
    # The weights of 64 units take more shared memory than a kernel has without asking.
    args = arguments(pass_, Case("", 2, 3, 4, 64, (3, 2), True))
    there = [cupy.asarray(a) if is_float(a) else a for a in args]
    at = next(i for i, a in enumerate(args) if getattr(a, "dtype", None) == np.int64)
    for lengths in (args[at], cupy.asarray(args[at])):  # on the host, and on the device
        there[at] = lengths
        got = getattr(cuda, pass_)(*there, specialised=False)
        assert all(type(a) is cupy.ndarray for a in got)
        compare([a.get() for a in got], expected(pass_, args), np.float32)


@needs_compiler
def test_a_layer_on_cupy(cupy, monkeypatch):
    monkeypatch.setattr(cuda, "_product", product_by_numpy)
    results = []
    for device in ("cpu", "cuda"):
        tinyvid.manual_seed(0)
        layer = nn.LSTM(3, 4, bidirectional=True, batch_first=True, bias=False).to(device)
        x = np.random.default_rng(0).standard_normal((2, 3, 3))
        x = tinyvid.tensor(x, np.float32, device=device, requires_grad=True)
        lengths = np.array([2, 3])
        y, (h, c) = layer(x, lengths=lengths if device == "cpu" else cupy.asarray(lengths))
        (y.sum() + (h * c).sum()).backward()
        weights = [p.grad for p in layer.parameters()]
        assert {t.device for t in (y, h, c, x.grad, *weights)} == {device}
        results.append([t.numpy() for t in (y, h, c, x.grad, *weights)])
    for want, got in zip(*results, strict=True):
        assert_close(got, want, atol=1e-6)


@needs_compiler
def test_asks_the_gpu_how_many_blocks_run_at_once(cupy):
    args = [cupy.asarray(a) for a in arguments("fprop", Case("", 2, 2, 2, 80))[:6]]
    want = expected("fprop", (*(a.get() for a in args), None, False))
    got = cuda.fprop(*args, None, False, specialised=False)
    compare([a.get() for a in got], want, np.float32)
    wide = [np.zeros((2, 3, 4), np.float32), np.zeros((4 * 400, 400), np.float32)]
    assert "over 4 blocks" in cuda.unfit("persistent", "fprop", *map(cupy.asarray, wide))
    assert cuda.unfit("persistent", "fprop", *wide) is None


# ---- a network -----------------------------------------------------------------------------------


@needs_compiler
def test_cnn_and_lstm_train_as_on_the_cpu():
    def train(device, **chosen):
        tinyvid.manual_seed(0)
        rng = np.random.default_rng(0)
        with (
            kernels.use(conv3d="reference"),
            kernels.use(conv2d="reference"),
            kernels.use(**chosen),
        ):
            model = models.build("cnn_lstm", 3, clip=(3, 4, 16, 16), width=2, hidden=8).to(device)
            optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
            x = tinyvid.tensor(rng.standard_normal((3, 3, 4, 16, 16)), np.float32, device=device)
            labels = tinyvid.tensor(np.array([0, 2, 1]), device=device)
            losses = []
            for _ in range(3):
                loss = tinyvid.cross_entropy(model(x), labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
        return losses

    want = train("cpu")
    assert want[2] < want[0]
    for step in STEPS:
        assert train("emulator", lstm=f"cuda/{step}") == pytest.approx(want, rel=1e-5)


@needs_compiler
@by_pass
def test_each_launch_counts_at_the_barrier_for_itself(pass_, cupy, monkeypatch):
    monkeypatch.setattr(cuda, "_product", product_by_numpy)
    counters = []

    def zeros(shape, dtype, device):
        counters.append(cupy.zeros(shape, dtype))
        return counters[-1]

    monkeypatch.setattr(launch, "zeros", zeros)
    args = [
        cupy.asarray(a) if isinstance(a, np.ndarray) else a
        for a in arguments(pass_, CASE["unequal lengths"])
    ]
    for _ in range(2):
        getattr(cuda, pass_)(*args, step="persistent", device="cuda", specialised=False)
    assert [(c.shape, c.dtype) for c in counters] == [((1,), np.uint32)] * 2
    assert counters[0] is not counters[1]
