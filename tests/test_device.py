"""Devices: arrays stay on theirs, results are those of the CPU, and devices do not mix."""

import copy
import pickle
import shutil

import numpy as np
import pytest
from compare import assert_close

import tinyvid
from tinyvid import models, nn, optim
from tinyvid.checking.examples import examples
from tinyvid.device import EmulatorArray, check_device, device_of, to_device
from tinyvid.errors import UserError
from tinyvid.geometry import conv_geometry
from tinyvid.kernels import Kernel, conv3d
from tinyvid.tensor import Tensor

EXAMPLES = [(name, i, e) for name, calls in examples().items() for i, e in enumerate(calls)]


def tensors(results):
    return [results] if isinstance(results, Tensor) else [t for r in results for t in tensors(r)]


def run(example, device):
    """Return the results of an example and the gradients of its inputs, on a device."""
    inputs = [
        Tensor(to_device(t.numpy(), device), requires_grad=t.requires_grad)
        for t in example.inputs(np.float32)
    ]
    results = tensors(example.fn(*inputs))
    rng = np.random.default_rng(1)
    for y in [y for y in results if y.requires_grad]:
        g = rng.standard_normal(y.shape).astype(y.dtype)
        y.backward(Tensor(to_device(g, device)), retain_graph=True)
    return results + [t.grad for t in inputs if t.grad is not None]


@pytest.mark.parametrize(
    "example", [e for _, _, e in EXAMPLES], ids=[f"{name}-{i}" for name, i, _ in EXAMPLES]
)
def test_an_operation_stays_on_its_device_and_gives_the_same(example):
    for ours, want in zip(run(example, "emulator"), run(example, "cpu"), strict=True):
        assert (ours.device, want.device) == ("emulator", "cpu")
        assert_close(ours.numpy(), want.numpy(), rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["worked_late_fusion", "cnn_lstm", "early_fusion"])
def test_a_network_trains_on_the_emulator_as_on_the_cpu(name):
    losses = {}
    for device in ("cpu", "emulator"):
        tinyvid.manual_seed(0)
        rng = np.random.default_rng(0)
        with tinyvid.kernels.use(conv3d="reference"), tinyvid.kernels.use(conv2d="reference"):
            model = models.build(name, 3, clip=(3, 4, 16, 16)).to(device)
            assert {p.device for p in model.parameters()} == {device}
            optimizer = optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
            x = tinyvid.tensor(rng.standard_normal((2, 3, 4, 16, 16)), np.float32, device=device)
            labels = tinyvid.tensor(np.array([0, 2]), device=device)
            losses[device] = []
            for _ in range(2):
                loss = tinyvid.cross_entropy(model(x), labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses[device].append(loss.item())
            assert loss.device == device
    assert losses["emulator"] == pytest.approx(losses["cpu"], rel=1e-5)


def test_a_gradient_comes_back_to_where_the_tensor_is():
    x = tinyvid.tensor([1.0, 2.0], requires_grad=True)
    y = x.to("emulator")
    assert y.device == "emulator"
    (y * y).sum().backward()
    assert x.grad.device == "cpu"
    assert x.grad.numpy().tolist() == [2.0, 4.0]
    assert x.to("cpu") is x


# Each with two tensors of shape (2, 2), one of which is on another device.
MIXED = {
    "add": lambda x, y: x + y,
    "maximum": tinyvid.maximum,
    "__lt__": lambda x, y: x < y,
    "matmul": lambda x, y: x @ y,
    "linear": tinyvid.linear,
    "linear's bias": lambda x, y: tinyvid.linear(x, x, y[0]),
    "cat": lambda x, y: tinyvid.cat([x, x, y]),
    "stack": lambda x, y: tinyvid.stack([x, y]),
    "where": lambda x, y: tinyvid.where(np.array([True, False]), x, y),
    "where's condition": lambda x, y: tinyvid.where(y > 0, x, x),
    "setitem": lambda x, y: x.__setitem__(0, y[0]),
    "conv2d": lambda x, y: tinyvid.conv2d(x.reshape(1, 1, 2, 2), y.reshape(1, 1, 2, 2)),
    "conv3d": lambda x, y: tinyvid.conv3d(x.reshape(1, 1, 1, 2, 2), y.reshape(1, 1, 1, 2, 2)),
    "batch_norm": lambda x, y: tinyvid.batch_norm(x, None, None, y[0]),
    "lstm": lambda x, y: tinyvid.lstm(x.reshape(1, 2, 2), [*lstm_weights(y)]),
    "cross_entropy": lambda x, y: tinyvid.cross_entropy(x, y[0].astype(np.int64)),
}


def lstm_weights(like):
    return (t.to(like.device) for t in nn.LSTM(2, 2).parameters())


@pytest.mark.parametrize("name", MIXED)
@pytest.mark.parametrize("devices", [("cpu", "emulator"), ("emulator", "cpu")])
def test_arrays_of_two_devices_do_not_mix(name, devices):
    x, y = (tinyvid.ones(2, 2, device=device) for device in devices)
    with pytest.raises(UserError, match=r"'cpu'.*'emulator'|'emulator'.*'cpu'"):
        MIXED[name](x, y)
    MIXED[name](y, y)


def test_a_number_has_no_device_and_an_index_may_be_on_the_cpu():
    y = tinyvid.ones(3, device="emulator")
    assert (y + 1.5).device == (y == 1).device == (np.float32(2) * y).device == "emulator"
    y[1:] = [5.0, 6.0]
    assert y.device == "emulator"
    assert y[np.array([2, 0])].numpy().tolist() == [6.0, 1.0]
    with pytest.raises(UserError, match=r"an index: .*'cpu'.*'emulator'"):
        tinyvid.ones(3)[tinyvid.tensor(np.array([2, 0]), device="emulator")]


@pytest.mark.parametrize(
    "mix",
    [
        lambda a, b: np.concatenate([b, a]),
        lambda a, b: np.stack([a, b]),
        lambda a, b: np.einsum("i,i", a, b),
        lambda a, b: np.where([True, False], b, a),
        lambda a, b: np.dot(a, b),
        lambda a, b: np.add(a, a, out=b),
        lambda a, b: np.add(b, b, out=a),
        lambda a, b: np.copyto(b, a),
        lambda a, b: a.__setitem__([0, 1], b),
        lambda a, b: b.__iadd__(a),
        lambda a, b: np.add.at(a, [0, 1], b),
    ],
)
def test_bare_arrays_of_two_devices_do_not_mix(mix):
    a, b = to_device(np.ones(2), "emulator"), np.ones(2)
    with pytest.raises(TypeError, match=r"'emulator'.*on 'cpu'"):
        mix(a, b)
    mix(a.copy(), a.copy())


def test_the_negative_of_booleans_is_an_error_of_the_user():
    with pytest.raises(UserError, match=r"neg: a tensor of shape \(2,\), bool"):
        -tinyvid.tensor([True, False])


def test_gradients_are_given_on_the_device_of_the_output():
    x = tinyvid.ones(2, device="emulator", requires_grad=True)
    (x * 2).backward(np.array([1, 3], np.float32))  # an array is moved
    assert x.grad.device == "emulator"
    assert x.grad.numpy().tolist() == [2.0, 6.0]
    with pytest.raises(UserError, match="gradient given is on 'cpu', the output on 'emulator'"):
        (x * 2).backward(tinyvid.ones(2))
    scalar = tinyvid.tensor(2.0, requires_grad=True)
    with pytest.raises(UserError, match="on 'cpu'"):
        x * scalar
    assert (x * np.float32(2)).device == "emulator"


def test_copies_and_pickles_keep_the_device():
    t = tinyvid.ones(2, device="emulator", requires_grad=True)
    for again in (copy.deepcopy(t), pickle.loads(pickle.dumps(t)), Tensor(t), t.detach()):
        assert again.device == "emulator"
        assert type(again.numpy()) is np.ndarray
    assert repr(t) == "tensor([1., 1.], device='emulator', requires_grad=True)"
    with pytest.raises(ValueError, match="read-only"):
        t.data[0] = 2


def test_a_module_moves_with_its_gradients_and_loads_weights_from_anywhere():
    layer = nn.Linear(3, 2)
    layer(tinyvid.ones(1, 3)).sum().backward()
    layer.to("emulator")
    assert layer.weight.device == layer.weight.grad.device == "emulator"
    layer.load_state_dict(nn.Linear(3, 2).state_dict())
    assert layer.weight.device == "emulator"


def test_batch_norm_keeps_its_statistics_on_the_device():
    results = []
    for device in ("cpu", "emulator"):
        layer = nn.BatchNorm3d(2).to(device)
        x = np.random.default_rng(0).standard_normal((3, 2, 2, 2, 2)).astype(np.float32)
        x = tinyvid.tensor(x, device=device)
        layer(x)
        layer.eval()
        assert layer.running_mean.device == layer(x).device == device
        results.append(layer(x).numpy())
    assert_close(results[1], results[0], rtol=1e-5, atol=1e-6)


def test_an_unknown_device_and_a_missing_gpu_are_errors_that_say_what_to_do():
    with pytest.raises(UserError, match=r"no device is called 'emulater'.*emulator"):
        check_device("emulater")
    if not tinyvid.cuda.is_available():
        with pytest.raises(UserError, match=r"device 'cuda': .*'emulator'"):
            tinyvid.ones(3, device="cuda")


def test_the_type_of_an_array_tells_its_device():
    a = to_device(np.arange(6.0).reshape(2, 3), "emulator")
    assert type(a) is EmulatorArray
    for b in (a.sum(), a.sum(0), a[0], a.T, np.where(a > 1, a, 0), np.stack([a, a]), a.max()):
        assert device_of(b) == "emulator"
    assert device_of(to_device(a, "cpu")) == "cpu"
    a += 1
    assert device_of(a) == "emulator"
    assert a[1, 2] == 6


@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")
@pytest.mark.parametrize("name", ["cnn_lstm", "early_fusion"])
def test_the_cuda_kernels_train_networks_on_frames_on_the_emulator_as_on_the_cpu(name, monkeypatch):
    clips = np.random.default_rng(0).standard_normal((2, 3, 4, 16, 16))
    select, used, losses = Kernel.select, set(), {}

    def noted(self, *args, **options):
        variant = select(self, *args, **options)
        used.add((options.get("device"), self.name, variant.target))
        return variant

    monkeypatch.setattr(Kernel, "select", noted)
    for device in ("cpu", "emulator"):
        tinyvid.manual_seed(0)
        # In float64: in float32 the rounding of small batches grows from step to step.
        model = models.build(name, 3, clip=(3, 4, 16, 16)).to(np.float64).to(device)
        optimizer = optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
        x, labels = (tinyvid.tensor(a, device=device) for a in (clips, np.array([0, 2])))
        losses[device] = []
        for _ in range(3):
            loss = tinyvid.cross_entropy(model(x), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses[device].append(loss.item())
    on_emulator = {(op, target) for device, op, target in used if device == "emulator"}
    ops = ["conv2d_fprop", "conv2d_wgrad", *(["lstm_fprop", "lstm_bprop"] * (name == "cnn_lstm"))]
    assert on_emulator >= {(op, "cuda") for op in ops}
    assert {target for _, target in on_emulator} == {"cuda"}
    assert losses["cpu"][2] != pytest.approx(losses["cpu"][0], rel=1e-2)  # it learns
    assert losses["emulator"] == pytest.approx(losses["cpu"], rel=1e-10)


@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")
def test_the_cuda_kernels_train_slow_fusion_on_the_emulator_as_on_the_cpu():
    losses = {}
    for device in ("cpu", "emulator"):
        tinyvid.manual_seed(0)
        rng = np.random.default_rng(0)
        model = models.build("worked_slow_fusion", 3, clip=(3, 8, 16, 16)).to(device)
        optimizer = optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        clips = rng.standard_normal((2, 3, 8, 16, 16)).astype(np.float32)
        x = tinyvid.tensor(clips, device=device)
        labels = tinyvid.tensor(np.array([0, 2]), device=device)
        losses[device] = []
        for _ in range(3):
            loss = tinyvid.cross_entropy(model(x), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses[device].append(loss.item())
    assert conv3d.fprop.select(*_some_case(), device="emulator").target == "cuda"
    assert losses["cpu"][2] != pytest.approx(losses["cpu"][0], rel=1e-2)  # it learns
    assert losses["emulator"] == pytest.approx(losses["cpu"], rel=2e-6)


def _some_case():
    x, w = np.ones((1, 3, 4, 5, 6), np.float32), np.ones((2, 3, 3, 3, 3), np.float32)
    return x, w, conv_geometry(x.shape, w.shape, 1, 1, 1, 1)


@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")
@pytest.mark.parametrize("variant", [v for v in conv3d.fprop.variants if v.startswith("cuda/")])
def test_a_batch_of_no_clips_gives_no_outputs(variant):
    x = tinyvid.zeros(0, 2, 4, 5, 6, device="emulator", requires_grad=True)
    w = tinyvid.ones(3, 2, 3, 3, 3, device="emulator", requires_grad=True)
    with tinyvid.kernels.use(conv3d=variant):
        y = tinyvid.conv3d(x, w)
        y.sum().backward()
    assert (y.shape, x.grad.shape) == ((0, 3, 2, 3, 4), (0, 2, 4, 5, 6))
    assert not w.grad.numpy().any()


def test_gpu_is_cuda():
    with pytest.raises(UserError, match=r"there is 'cpu', 'emulator', 'cuda'\. Did you mean 'cuda"):
        to_device(np.zeros(1), "gpu")
