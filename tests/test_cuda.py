"""Device `cuda`, on a stand-in for CuPy."""

import shutil

import cupy_stand_in
import numpy as np
import pytest

import tinyvid
from tinyvid import cuda, nn, optim
from tinyvid.device import device_of, to_device
from tinyvid.errors import UserError
from tinyvid.kernels import launch

needs_compiler = pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")


@pytest.fixture
def cupy(monkeypatch):
    yield cupy_stand_in.install(monkeypatch)
    monkeypatch.undo()
    cuda._missing.cache_clear()
    launch._load.cache_clear()


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
    with pytest.raises(UserError, match="mul"):
        y * x


def test_the_stand_in_is_strict(cupy):
    a = to_device(np.ones(3), "cuda")
    assert device_of(a + 1) == device_of(np.where(a > 0, a, 0)) == device_of(a.sum()) == "cuda"
    with pytest.raises(TypeError, match="Unsupported"):
        a + np.ones(3)
    with pytest.raises(TypeError):
        np.add.reduce(a)


@needs_compiler
def test_a_network_trains_on_cuda_as_on_the_cpu(cupy):
    rng = np.random.default_rng(0)
    clips = rng.standard_normal((2, 3, 4, 6, 6)).astype(np.float32)
    losses = {}
    for device in ("cpu", "cuda"):
        tinyvid.manual_seed(0)
        model = nn.Sequential(
            nn.Conv3d(3, 4, 3, padding=1), nn.BatchNorm3d(4), nn.ReLU(), nn.GlobalAvgPool()
        )
        model.append(nn.Linear(4, 3))
        model.to(device)
        optimizer = optim.AdamW(model.parameters(), lr=0.01)
        x = tinyvid.tensor(clips, device=device)
        labels = tinyvid.tensor(np.array([0, 2]), device=device)
        losses[device] = []
        for _ in range(3):
            loss = tinyvid.cross_entropy(model(x), labels)
            optimizer.zero_grad()
            loss.backward()
            optim.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            losses[device].append(loss.item())
        state = optimizer.state_dict()["state"]
        assert all(type(a) is np.ndarray for a in state.values())
    assert losses["cuda"] == pytest.approx(losses["cpu"], rel=1e-5)
    assert losses["cpu"][2] < losses["cpu"][0]


@pytest.mark.parametrize(("devices", "message"), [(0, "no NVIDIA GPU"), (None, "finds no NVIDIA")])
def test_a_machine_without_a_gpu_is_told_so(monkeypatch, devices, message):
    cupy_stand_in.install(monkeypatch, devices)
    try:
        assert not cuda.is_available()
        with pytest.raises(UserError, match=f"device 'cuda': .*{message}.*'emulator'"):
            tinyvid.ones(2, device="cuda")
    finally:
        monkeypatch.undo()
        cuda._missing.cache_clear()
