"""Modules: what belongs to one, its state, hooks, conversions and printing."""

import copy
import pickle
from collections import OrderedDict

import numpy as np
import pytest
from compare import assert_close

import tinyvid
from tinyvid import nn
from tinyvid.errors import UserError


class Net(nn.Module):
    """Has a parameter, a buffer and children, one of them twice."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(np.ones(3, np.float32))
        self.features = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
        self.register_buffer("seen", np.int64(0))
        self.again = self.features
        self.heads = nn.ModuleList([nn.Linear(3, 2, bias=False), nn.Linear(3, 1)])
        self.note = "plain attributes are no part"

    def forward(self, x, gain=1.0):
        y = self.features(x) * self.scale * gain
        return [head(y) for head in self.heads]


NAMES = [
    "scale",
    "features.0.weight",
    "features.0.bias",
    "heads.0.weight",
    "heads.1.weight",
    "heads.1.bias",
]


def test_parameters_buffers_and_modules_are_found_in_order_and_once():
    net = Net()
    assert [name for name, _ in net.named_parameters()] == NAMES
    assert [id(p) for p in net.parameters()] == [id(p) for _, p in net.named_parameters()]
    assert [name for name, _ in net.named_parameters("net")] == ["net." + name for name in NAMES]
    assert dict(net.named_buffers()) == {"seen": net.seen}
    assert list(net.buffers()) == [net.seen]
    assert [name for name, _ in net.named_modules()] == [
        "",
        "features",
        "features.0",
        "features.1",
        "heads",
        "heads.0",
        "heads.1",
    ]
    assert next(net.modules()) is net
    assert [name for name, _ in net.named_children()] == ["features", "again", "heads"]
    assert list(net.heads.children()) == [net.heads[0], net.heads[1]]


def test_a_module_whose_init_does_not_call_super_works():
    class Bare(nn.Module):
        def __init__(self):
            self.fc = nn.Linear(2, 2)

        def forward(self, x):
            return self.fc(x)

    net = Bare().eval()
    assert not net.training
    assert not net.fc.training
    assert set(net.state_dict()) == {"fc.weight", "fc.bias"}


def test_an_attribute_assigned_anew_replaces_the_part():
    layer = nn.Linear(2, 2)
    layer.bias = None
    assert [name for name, _ in layer.named_parameters()] == ["weight"]
    assert layer(tinyvid.ones(1, 2)).shape == (1, 2)
    layer.bias = nn.Parameter(np.zeros(2, np.float32))
    assert [name for name, _ in layer.named_parameters()] == ["weight", "bias"]


def test_forward_must_be_defined():
    with pytest.raises(NotImplementedError, match=r"Module does not define forward\(\)"):
        nn.Module()(1)


def test_parameter_requires_a_gradient_and_buffer_does_not():
    p, b = nn.Parameter([1.0, 2.0]), nn.Buffer([1.0, 2.0])
    assert p.requires_grad
    assert not b.requires_grad
    assert not nn.Parameter([1.0], requires_grad=False).requires_grad
    (p * p + b).sum().backward()
    assert_close(p.grad, np.array([2, 4], np.float32))
    with pytest.raises(UserError, match="floating-point"):
        nn.Parameter(np.arange(3))


# State


def test_state_dict_is_a_snapshot_that_loads_back():
    net = Net()
    state = net.state_dict()
    assert list(state) == [
        "scale",
        "seen",
        "features.0.weight",
        "features.0.bias",
        "again.0.weight",
        "again.0.bias",
        "heads.0.weight",
        "heads.1.weight",
        "heads.1.bias",
    ]
    assert not any(t.requires_grad for t in state.values())
    before = {name: t.numpy().copy() for name, t in state.items()}
    with tinyvid.no_grad():
        for p in net.parameters():
            p.copy_(p + 1)
    for name, array in before.items():
        assert_close(state[name], array)
    report = net.load_state_dict(state)
    assert report == ([], [])
    for name, t in net.state_dict().items():
        assert_close(t, before[name])
    assert net.scale.requires_grad
    assert net.again is net.features


def test_arrays_load_and_are_cast():
    layer = nn.Linear(2, 1)
    layer.load_state_dict({"weight": np.array([[1.5, 2.5]]), "bias": [3]})
    assert_close(layer.weight, np.array([[1.5, 2.5]], np.float32))
    assert_close(layer.bias, np.array([3], np.float32))


def test_load_state_dict_lists_all_that_is_wrong_and_loads_nothing():
    layer = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    before = layer.state_dict()
    state = dict(before)
    del state["0.bias"], state["1.running_var"]
    state |= {"0.weight": np.zeros((3, 3)), "1.bias": np.zeros(3), "fc.weight": np.zeros(1)}
    with pytest.raises(UserError) as caught:
        layer.load_state_dict(state)
    assert str(caught.value) == (
        "these weights do not fit Sequential:\n"
        "  shape of 0.weight is (3, 3), the model's is (3, 2)\n"
        "  missing: 0.bias\n"
        "  missing: 1.running_var\n"
        "  unexpected: fc.weight"
    )
    for name, t in layer.state_dict().items():
        assert t.data is before[name].data
    with pytest.raises(UserError, match=r"shape of 0.weight is \(3, 3\)"):
        layer.load_state_dict(state, strict=False)
    del state["0.weight"]
    report = layer.load_state_dict(state | {"1.bias": np.ones(3)}, strict=False)
    assert report.missing_keys == ["0.weight", "0.bias", "1.running_var"]
    assert report.unexpected_keys == ["fc.weight"]
    assert_close(layer[1].bias, np.ones(3, np.float32))


def test_a_scalar_does_not_load_into_a_vector():
    with pytest.raises(UserError, match=r"shape of bias is \(\), the model's is \(1,\)"):
        nn.Linear(1, 1).load_state_dict({"weight": [[1.0]], "bias": 1.0})


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_copies_are_independent(copier):
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).to(np.float64)
    net[0].weight.requires_grad_(False)
    twin = copier(net)
    for (name, p), (_, q) in zip(net.named_modules(), twin.named_modules(), strict=True):
        assert type(p) is type(q), name
    for name, t in net.state_dict().items():
        assert_close(twin.state_dict()[name], t.numpy())
        assert not twin.state_dict()[name].data.flags.writeable
    assert [p.requires_grad for p in twin.parameters()] == [False, True, True, True]
    before = twin[0].weight.numpy().copy()
    nn.init.zeros_(net[0].weight)
    assert_close(twin[0].weight, before)


# Hooks


def test_hooks_see_each_call_and_can_be_removed():
    net, calls = nn.Sequential(nn.ReLU(), nn.Tanh()), []
    handles = [
        module.register_forward_hook(lambda m, inputs, output: calls.append((m, inputs, output)))
        for module in net.children()
    ]
    x = tinyvid.tensor([-1.0, 1.0])
    y = net(x)
    assert [call[0] for call in calls] == [net[0], net[1]]
    assert calls[0][1] == (x,)
    assert calls[1][1] == (calls[0][2],)
    assert calls[1][2] is y
    handles[0].remove()
    handles[0].remove()
    net(x)
    assert [call[0] for call in calls[2:]] == [net[1]]
    with handles[1]:
        pass
    net(x)
    assert len(calls) == 3


def test_a_hook_may_replace_the_output_and_remove_itself():
    layer = nn.ReLU()

    def double_once(module, inputs, output):
        handle.remove()
        return output * 2

    handle = layer.register_forward_hook(double_once)
    layer.register_forward_hook(lambda module, inputs, output: output + 1)
    x = tinyvid.tensor([3.0])
    assert layer(x).item() == 7
    assert layer(x).item() == 4
    assert nn.ReLU()(x).item() == 3


def test_arguments_by_name_reach_forward():
    a, _ = Net()(tinyvid.ones(1, 2), gain=0.0)
    assert_close(a, np.zeros((1, 2), np.float32))


# All parts at once


def test_train_and_eval_reach_every_module():
    net = Net()
    assert all(m.training for m in net.modules())
    assert net.eval() is net
    assert not any(m.training for m in net.modules())
    assert net.train() is net
    assert all(m.training for m in net.modules())


def test_zero_grad_and_freezing():
    net = Net()
    sum(y.sum() for y in net(tinyvid.ones(1, 2))).backward()
    assert all(p.grad is not None for p in net.parameters())
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())
    assert net.features.requires_grad_(False) is net.features
    sum(y.sum() for y in net(tinyvid.ones(1, 2))).backward()
    assert [n for n, p in net.named_parameters() if p.grad is None] == NAMES[1:3]


def test_apply_visits_children_first():
    net, seen = nn.Sequential(nn.Sequential(nn.ReLU()), nn.Tanh()), []
    assert net.apply(lambda m: seen.append(m)) is net
    assert seen == [net[0][0], net[0], net[1], net]


def test_to_converts_floats_in_place():
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    weight = net[0].weight
    net(tinyvid.randn(4, 2)).sum().backward()
    assert net.to(np.float64) is net
    assert net[0].weight is weight
    assert weight.requires_grad
    assert {t.dtype for t in net.state_dict().values()} == {np.dtype("f8"), np.dtype("i8")}
    assert weight.grad.dtype == np.float64
    assert not weight.data.flags.writeable
    assert net(tinyvid.randn(4, 2, dtype=np.float64)).dtype == np.float64
    assert net.to("cpu").to("float32").to(dtype=np.float64).to(device="cpu")[0].bias.dtype == "f8"
    with pytest.raises(UserError, match="floating-point"):
        net.to(np.int64)
    with pytest.raises(UserError, match="no device is called 'moon'"):
        net.to("moon")


def test_shapes_only_makes_parameters_without_memory_or_draws():
    tinyvid.manual_seed(0)
    want = tinyvid.randn(2).numpy()
    tinyvid.manual_seed(0)
    with nn.shapes_only():
        layer = nn.Linear(1_000_000, 1_000_000)  # 4 TB
        nn.init.orthogonal_(layer.weight)
    assert layer.weight.shape == (1_000_000, 1_000_000)
    assert layer.weight.requires_grad
    assert_close(tinyvid.randn(2), want)
    assert nn.Linear(2, 2).weight.data.strides == (8, 4)


# Containers


def test_sequential_by_position_by_name_and_by_mapping():
    def parts():
        return {"conv": nn.Linear(2, 2), "relu": nn.ReLU()}

    for net in (
        nn.Sequential(**parts()),
        nn.Sequential(OrderedDict(parts())),
        nn.Sequential(OrderedDict(conv=nn.Linear(2, 2)), relu=nn.ReLU()),
    ):
        assert list(net.state_dict()) == ["conv.weight", "conv.bias"]
        assert [name for name, _ in net.named_children()] == ["conv", "relu"]
        assert net.conv is net[0]
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    assert len(net) == 3
    assert list(net) == [net[0], net[1], net[-1]]
    part = net[1:]
    assert isinstance(part, nn.Sequential)
    assert list(part.state_dict()) == ["2.weight", "2.bias"]
    net[1] = nn.Tanh()
    net.append(nn.Sigmoid())
    x = tinyvid.randn(4, 2)
    want = tinyvid.sigmoid(net[2](tinyvid.tanh(net[0](x))))
    assert_close(net(x), want.numpy())
    with pytest.raises(IndexError):
        net[4]


def test_module_list():
    parts = nn.ModuleList(nn.Linear(1, i) for i in (1, 2))
    parts.extend([nn.Linear(1, 3)])
    parts.append(nn.Linear(1, 4))
    assert [p.out_features for p in parts] == [1, 2, 3, 4]
    tail = parts[-2:]
    assert isinstance(tail, nn.ModuleList)
    assert list(tail.state_dict()) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    tail.append(nn.ReLU())
    assert len(tail) == 3
    with pytest.raises(NotImplementedError):
        parts(1)


def test_what_cannot_be_a_child():
    with pytest.raises(UserError, match="'0' is 'relu', which is no Module"):
        nn.Sequential("relu")
    for name in ("forward", "a.b", "", "0"):
        with pytest.raises(UserError, match=f"cannot be called '{name}'"):
            nn.Sequential(nn.ReLU()).add_module(name, nn.ReLU())


# Printing


def test_repr_is_an_indented_tree():
    class Head(nn.Module):
        def __init__(self):
            self.lstm = nn.LSTM(4, 8, num_layers=2, batch_first=True, bidirectional=True)
            self.fc = nn.Linear(16, 2, bias=False)

        def extra_repr(self):
            return "classes=2"

    net = nn.Sequential(
        conv=nn.Conv3d(3, 12, 3, padding="same"),
        early=nn.Conv2d(60, 12, (3, 5), stride=2, padding=1, groups=2, bias=False),
        norm=nn.BatchNorm3d(12),
        layer=nn.LayerNorm([12, 2]),
        lrn=nn.LocalResponseNorm(5),
        pool=nn.MaxPool3d((1, 2, 2)),
        mean=nn.AvgPool2d(2, padding=1),
        adapt=nn.AdaptiveAvgPool3d((1, 4, 4)),
        gap=nn.GlobalAvgPool(),
        flat=nn.Flatten(),
        drop=nn.Dropout(0.25),
        soft=nn.Softmax(1),
        loss=nn.CrossEntropyLoss(label_smoothing=0.1),
        head=Head(),
    )
    assert repr(net) == (
        "Sequential(\n"
        "  (conv): Conv3d(3, 12, kernel_size=(3, 3, 3), stride=(1, 1, 1), padding='same')\n"
        "  (early): Conv2d(60, 12, kernel_size=(3, 5), stride=(2, 2), padding=(1, 1), groups=2, "
        "bias=False)\n"
        "  (norm): BatchNorm3d(12, eps=1e-05, momentum=0.1, affine=True, "
        "track_running_stats=True)\n"
        "  (layer): LayerNorm((12, 2), eps=1e-05, elementwise_affine=True)\n"
        "  (lrn): LocalResponseNorm(5, alpha=0.0001, beta=0.75, k=1.0)\n"
        "  (pool): MaxPool3d(kernel_size=(1, 2, 2), stride=(1, 2, 2), padding=0, dilation=1, "
        "ceil_mode=False)\n"
        "  (mean): AvgPool2d(kernel_size=2, stride=2, padding=1)\n"
        "  (adapt): AdaptiveAvgPool3d(output_size=(1, 4, 4))\n"
        "  (gap): GlobalAvgPool()\n"
        "  (flat): Flatten(start_dim=1, end_dim=-1)\n"
        "  (drop): Dropout(p=0.25)\n"
        "  (soft): Softmax(dim=1)\n"
        "  (loss): CrossEntropyLoss(reduction='mean', label_smoothing=0.1)\n"
        "  (head): Head(\n"
        "    classes=2\n"
        "    (lstm): LSTM(4, 8, num_layers=2, batch_first=True, bidirectional=True)\n"
        "    (fc): Linear(in_features=16, out_features=2, bias=False)\n"
        "  )\n"
        ")"
    )
    assert repr(nn.Sequential()) == "Sequential()"
