"""Device `cuda`, on a stand-in for CuPy: arrays, operations, memory, launches."""

import shutil
from unittest.mock import MagicMock

import cupy_stand_in
import numpy as np
import pytest
from compare import assert_close
from test_device import EXAMPLES, run

import tinyvid
from tinyvid import cuda
from tinyvid.device import device_of, to_device
from tinyvid.errors import UserError
from tinyvid.geometry import conv_geometry
from tinyvid.kernels import launch
from tinyvid.kernels.conv3d import cuda as conv3d

needs_compiler = pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")


def test_tensors_move_to_cuda_and_stay_there(cupy):
    assert tinyvid.cuda.is_available()
    x = tinyvid.tensor([[1.0, -2.0], [3.0, 4.0]], requires_grad=True)
    y = x.to("cuda")
    assert y.device == "cuda"
    assert type(y.data) is cupy.ndarray
    loss = (y.relu() * 2 + 1).sum(1).mean()
    assert loss.device == "cuda"
    assert loss.item() == 10.0
    loss.backward()
    assert x.grad.device == "cpu"
    assert x.grad.numpy().tolist() == [[1.0, 0.0], [1.0, 1.0]]
    assert type(y.numpy()) is np.ndarray


def test_arrays_keep_how_they_lie_in_memory(cupy):
    clip = np.arange(120.0).reshape(1, 2, 4, 5, 3).transpose(0, 4, 1, 2, 3)
    there = to_device(clip, "cuda")
    assert there.strides == clip.strides
    assert_close(to_device(there, "cpu"), clip)
    assert to_device(np.array(2.0), "cuda").shape == ()


@pytest.mark.parametrize(
    "mix",
    [
        lambda x, y: x + y,
        lambda x, y: x @ y,
        lambda x, y: tinyvid.cat([x, y]),
        lambda x, y: x.__setitem__(0, y[0]),
        lambda x, y: tinyvid.linear(x, x, y[0]),
    ],
)
def test_tensors_of_two_devices_do_not_mix(cupy, mix):
    x, y = tinyvid.ones(2, 2), tinyvid.ones(2, 2, device="cuda")
    for pair in ((x, y), (y, x)):
        with pytest.raises(UserError, match=r"'cpu'.*'cuda'|'cuda'.*'cpu'"):
            mix(*pair)
    mix(y, y)


REFUSED = {
    "a NumPy operand": (lambda a, b: a + b, TypeError, "Unsupported type"),
    "a NumPy operand of no axes": (lambda a, b: a + np.array(1.0), TypeError, "Unsupported type"),
    "our array as a NumPy operand": (lambda a, b: b + a, TypeError, "Unsupported type"),
    "a NumPy array to join": (lambda a, b: np.concatenate([a, b]), TypeError, "Unsupported type"),
    "a NumPy out": (lambda a, b: np.add(a, a, out=b), TypeError, "Unsupported type"),
    "an out for NumPy": (lambda a, b: np.add(b, b, out=a), TypeError, "Unsupported type"),
    "a NumPy value": (lambda a, b: a.__setitem__(slice(None), b), ValueError, "non-scalar"),
    "a list as a value": (lambda a, b: a.__setitem__(slice(None), [1.0] * 3), TypeError, "list"),
    "conversion": (lambda a, b: np.asarray(a), TypeError, "Implicit conversion"),
    "our array as a NumPy value": (lambda a, b: b.__setitem__(..., a), TypeError, "Implicit"),
    "a method of a ufunc": (lambda a, b: np.add.reduce(a), TypeError, "reduce"),
    "a function that CuPy lacks": (lambda a, b: np.block([a, a]), TypeError, "no implementation"),
    "an option that CuPy lacks": (lambda a, b: a.max(initial=0.0), TypeError, "initial"),
    "where of a ufunc": (lambda a, b: np.add(a, a, where=a > 0), TypeError, "where"),
    "a write protection": (lambda a, b: a.setflags(write=False), AttributeError, "setflags"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_the_stand_in_refuses_what_cupy_does(cupy, name):
    call, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        call(to_device(np.ones(3), "cuda"), np.ones(3))


def test_results_of_the_stand_in_stay_on_the_device(cupy):
    a = to_device(np.ones(3, np.float32), "cuda")
    a += 1
    for b in (a, a + 1, np.where(a > 0, a, 0), a.sum(), a[0], a[np.array([0, 2])], np.sqrt(a)):
        assert device_of(b) == "cuda"
        assert b.dtype == np.float32
    assert not cupy_stand_in.reads
    assert float(a[0]) == a.sum().item() / 3 == 2
    assert a[a > 0].shape == (3,)
    assert cupy_stand_in.reads == [4, 4, 3]


@needs_compiler
@pytest.mark.parametrize("name", dict.fromkeys(name for name, _, _ in EXAMPLES))
def test_an_operation_computes_on_cuda_what_it_does_on_the_cpu(cupy, name):
    chosen = [(i, e) for n, i, e in EXAMPLES if n == name]
    for number, example in chosen[:1] if name == "lstm" else chosen:  # which takes long to compile
        cupy_stand_in.reads.clear()
        results = run(example, "cuda")
        by_mask = name == "getitem" and number == 5  # whose number of elements must be known
        assert bool(cupy_stand_in.reads) == by_mask
        for ours, want in zip(results, run(example, "cpu"), strict=True):
            assert (ours.device, want.device) == ("cuda", "cpu")
            assert_close(ours.numpy(), want.numpy(), rtol=2e-5, atol=1e-5)


def test_targets_that_are_no_class_make_the_loss_nan(cupy):
    logits = tinyvid.tensor(np.eye(3, dtype=np.float32), device="cuda", requires_grad=True)
    for target in ([0, 1, 3], [0, -1, 2]):
        loss = tinyvid.cross_entropy(logits, target)
        loss.backward()
        assert np.isnan(loss.item())
    assert np.isfinite(tinyvid.cross_entropy(logits, [0, -100, 2]).item())


@needs_compiler
def test_after_too_little_memory_the_process_goes_on(cupy):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((16, 3, 4, 6, 6)).astype(np.float32)
    w = rng.standard_normal((8, 3, 3, 3, 3)).astype(np.float32)
    want = tinyvid.conv3d(x, w).numpy()
    x, w = (tinyvid.tensor(a, device="cuda") for a in (x, w))
    pool = cupy.get_default_memory_pool()
    pool.set_limit(size=24_000)  # enough for one clip, not for sixteen
    with pytest.raises(UserError, match=r"out of memory for 'cuda/.*\(16, 3,") as caught:
        tinyvid.conv3d(x, w)
    assert isinstance(caught.value.__cause__, MemoryError)
    parts = [tinyvid.conv3d(x[i : i + 1], w).numpy() for i in range(16)]
    assert_close(np.concatenate(parts), want, rtol=1e-5, atol=1e-5)
    pool.set_limit(size=100)
    with pytest.raises(MemoryError, match="Out of memory allocating 27,648 bytes"):
        x * x
    pool.set_limit()
    assert_close(tinyvid.conv3d(x, w).numpy(), want, rtol=1e-5, atol=1e-5)


KERNEL = """
extern "C" __global__ void twice(float* a, int n) {
  extern __shared__ float dynamic[];
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) a[i] *= 2;
}
"""


@needs_compiler
def test_launches_that_the_driver_would_refuse(cupy, tmp_path):
    file = tmp_path / "twice.cu"
    file.write_text(KERNEL)
    twice = launch.load(file, device="cuda").get_function("twice")
    a = to_device(np.ones(3, np.float32), "cuda")
    twice((1,), (32,), (a, np.int32(3)))
    assert a.get().tolist() == [2.0, 2.0, 2.0]
    for wrong, error, message in (
        (lambda: twice([1], (32,), (a, np.int32(3))), TypeError, "grid must be a tuple"),
        (lambda: twice((1, 70_000), (32,), (a, np.int32(3))), RuntimeError, "grid"),
        (lambda: twice((1,), (32, 64), (a, np.int32(3))), RuntimeError, "2048 threads"),
        (lambda: twice((1,), (32,), (a, 3)), TypeError, "Unsupported type <class 'int'>"),
        (lambda: twice((1,), (32,), (np.ones(3), np.int32(3))), TypeError, "Unsupported type"),
        (
            lambda: twice((1,), (32,), (a, np.int32(3)), shared_mem=50_000),
            RuntimeError,
            "max_dynamic_shared_size_bytes is 0",
        ),
    ):
        with pytest.raises(error, match=message):
            wrong()
    with pytest.raises(TypeError, match="options must be a tuple"):
        cupy.RawModule(code=KERNEL, options=["-DREAL=float"])
    x = np.ones((1, 1, 1, 1, 1), np.float32)
    one = conv_geometry(x.shape, x.shape, 1, 0, 1, 1)
    with pytest.raises(UserError, match=r"device 'cuda' takes CuPy arrays, not numpy\.ndarray"):
        conv3d.fprop(x, x, one, device="cuda")


@needs_compiler
def test_a_constant_is_written_before_the_launch(cupy, tmp_path):
    file = tmp_path / "times.cu"
    file.write_text(
        "__constant__ int factor;\n"
        'extern "C" __global__ void times(float* a) { a[threadIdx.x] *= factor; }\n'
    )
    module = launch.load(file, device="cuda")
    a = to_device(np.ones(4, np.float32), "cuda")
    for factor in (3, 5):
        launch.write_global(module, "factor", np.array(factor, np.int32))
        module.get_function("times")((1,), (4,), (a,))
    assert a.get().tolist() == [15.0] * 4


def test_a_changed_header_is_another_text_for_cupy(cupy, tmp_path, monkeypatch):
    codes = []
    monkeypatch.setattr(
        cupy, "RawModule", lambda code, **options: codes.append(code) or MagicMock()
    )
    (tmp_path / "twice.cu").write_text('#include "by.cuh"\n' + KERNEL)
    for factor in "223":
        (tmp_path / "by.cuh").write_text(f"#define FACTOR {factor}\n")
        launch._load.cache_clear()
        launch.load(tmp_path / "twice.cu", device="cuda")
    assert codes[0] == codes[1] != codes[2]
    assert codes[2].startswith('#include "by.cuh"\n' + KERNEL)


@needs_compiler
def test_a_source_that_does_not_compile_is_an_error_of_its_own(cupy, tmp_path):
    file = tmp_path / "wrong.cu"
    file.write_text("no C++ at all")
    with pytest.raises(UserError, match=r"wrong|stand_in"):
        launch.load(file, device="cuda").get_function("twice")


@pytest.mark.parametrize(("devices", "message"), [(0, "no NVIDIA GPU"), (None, "finds no NVIDIA")])
def test_a_machine_without_a_gpu_is_told_so(monkeypatch, devices, message):
    cupy_stand_in.install(monkeypatch, devices)
    try:
        assert not cuda.is_available()
        with pytest.raises(UserError, match=f"device 'cuda': .*{message}.*'emulator'"):
            tinyvid.ones(2, device="cuda")
    finally:
        monkeypatch.undo()
        cupy_stand_in.forget()


@needs_compiler
def test_streams_wait_for_each_other_where_launches_share_sizes(cupy, tmp_path, monkeypatch):
    """One build for all sizes has one `geometry`, which another stream's launch may still read."""
    file = tmp_path / "sizes.cu"
    file.write_text("__constant__ int geometry[1];\n")
    module = launch.load(file, device="cuda")
    monkeypatch.setattr(launch, "_last_launch", None)
    streams = [cupy_stand_in.Stream() for _ in range(2)]
    monkeypatch.setattr(cupy_stand_in, "current_stream", None)
    for stream in streams:
        stream.use()
        with launch.geometry_held(module, {"N": 3}, False, "cuda"):
            pass
        with launch.geometry_held(module, {"N": 3}, True, "cuda"):
            pass  # sizes compiled in: nothing to wait for
    assert streams[0].waited_for == []
    assert streams[1].waited_for == [streams[0]]
