"""Optimisers: updates worked by hand, against PyTorch, and state that continues a run."""

import itertools
import json

import numpy as np
import pytest
from compare import assert_close

import tinyvid
from tinyvid import nn, optim
from tinyvid.errors import UserError
from tinyvid.optim import optimizer as optimizer_module


def parameter(*values, dtype=np.float64):
    return nn.Parameter(np.array(values, dtype))


def step(optimizer, p, *gradient):
    p.grad = tinyvid.tensor(np.array(gradient, p.dtype))
    optimizer.step()


# Worked by hand, two steps each


def test_sgd():
    p = parameter(1.0, 2.0)
    sgd = optim.SGD([p], lr=0.5)
    step(sgd, p, 1.0, -2.0)  # 1 - 0.5 · 1, 2 + 0.5 · 2
    assert_close(p, np.array([0.5, 3.0]))
    step(sgd, p, 0.0, 1.0)
    assert_close(p, np.array([0.5, 2.5]))


def test_sgd_momentum_dampening_and_weight_decay():
    p = parameter(2.0)
    sgd = optim.SGD([p], lr=0.5, momentum=0.5, dampening=0.25, weight_decay=0.5)
    step(sgd, p, 1.0)  # d = 1 + 0.5 · 2 = 2, v = d = 2, p = 2 - 0.5 · 2
    assert_close(p, np.array([1.0]))
    step(sgd, p, 3.0)  # d = 3 + 0.5 · 1 = 3.5, v = 0.5 · 2 + 0.75 · 3.5 = 3.625
    assert_close(p, np.array([1 - 0.5 * 3.625]))


def test_sgd_nesterov():
    p = parameter(1.0)
    sgd = optim.SGD([p], lr=0.5, momentum=0.5, nesterov=True)
    step(sgd, p, 2.0)  # v = 2, p = 1 - 0.5 · (2 + 0.5 · 2)
    assert_close(p, np.array([-0.5]))
    step(sgd, p, 4.0)  # v = 0.5 · 2 + 4 = 5, p = -0.5 - 0.5 · (4 + 0.5 · 5)
    assert_close(p, np.array([-3.75]))


def test_adam():
    p = parameter(1.0)
    adam = optim.Adam([p], lr=0.1, betas=(0.5, 0.75), eps=0.0)
    # m = 0.5 · 2 = 1, v = 0.25 · 4 = 1; m / (1 - 0.5) = 2, √(v / (1 - 0.75)) = 2
    step(adam, p, 2.0)
    assert_close(p, np.array([0.9]), rtol=1e-15)
    # m = 0.5 · 1 + 0.5 · 4 = 2.5, v = 0.75 · 1 + 0.25 · 16 = 4.75;
    # m / (1 - 0.25) = 10/3, v / (1 - 0.5625) = 76/7
    step(adam, p, 4.0)
    assert_close(p, np.array([0.9 - 0.1 * (10 / 3) / np.sqrt(76 / 7)]), rtol=1e-15)


def test_adam_weight_decay_acts_through_the_gradient():
    p = parameter(2.0)
    adam = optim.Adam([p], lr=0.1, betas=(0.5, 0.75), eps=1.0, weight_decay=0.5)
    step(adam, p, 1.0)  # d = 1 + 0.5 · 2 = 2, as in the first step above; p = 2 - 0.1 · 2/(2 + 1)
    assert_close(p, np.array([2 - 0.1 * 2 / 3]), rtol=1e-15)


def test_adam_amsgrad_remembers_the_largest_square():
    p = parameter(1.0)
    adam = optim.Adam([p], lr=0.1, betas=(0.0, 0.5), eps=0.0, amsgrad=True)
    step(adam, p, 2.0)  # v = 0.5 · 4 = 2, / 0.5 = 4: the step is 0.1 · 2 / 2
    assert_close(p, np.array([0.9]), rtol=1e-15)
    step(adam, p, 0.5)  # v = 0.5 · 2 + 0.5 · 0.25 = 1.125 < 2; 2 / 0.75 = 8/3
    assert_close(p, np.array([0.9 - 0.1 * 0.5 / np.sqrt(8 / 3)]), rtol=1e-15)


def test_adamw_decays_beside_the_gradient():
    p = parameter(2.0)
    adamw = optim.AdamW([p], lr=0.1, betas=(0.5, 0.75), eps=0.0, weight_decay=0.5)
    step(adamw, p, 2.0)  # p = 2 · (1 - 0.1 · 0.5) - 0.1 · 2 / 2
    assert_close(p, np.array([1.8]), rtol=1e-15)
    step(adamw, p, 4.0)
    want = 1.8 * 0.95 - 0.1 * (10 / 3) / np.sqrt(76 / 7)  # the same m and v as Adam's above
    assert_close(p, np.array([want]), rtol=1e-15)


# Against PyTorch, over ten steps of every combination of options

COMBINATIONS = [
    *(
        ("SGD", {"lr": 0.1, "momentum": m, "dampening": d, "weight_decay": w, "nesterov": n})
        for m, d, w, n in itertools.product((0, 0.9), (0, 0.3), (0, 0.1), (False, True))
        if not n or (m and not d)
    ),
    *(
        (name, {"lr": 0.01, "betas": b, "eps": e, "weight_decay": w, "amsgrad": a})
        for name in ("Adam", "AdamW")
        for b, e, w, a in itertools.product(
            ((0.9, 0.999), (0.5, 0.6)), (1e-8, 0.1), (0, 0.1), (False, True)
        )
    ),
    ("SGD", {}),
    ("Adam", {}),
    ("AdamW", {}),
]


@pytest.mark.parametrize(("name", "options"), COMBINATIONS)
def test_agrees_with_pytorch(name, options):
    torch = pytest.importorskip("torch")
    random = np.random.default_rng(0)
    arrays = [random.normal(size=shape) for shape in ((3, 4), (5,), ())]
    ours = [nn.Parameter(a) for a in arrays]
    theirs = [torch.nn.Parameter(torch.tensor(a)) for a in arrays]
    ours_o = getattr(optim, name)(ours, **options)
    theirs_o = getattr(torch.optim, name)(theirs, **options)
    for _ in range(10):
        for p, t in zip(ours, theirs, strict=True):
            g = random.normal(size=p.shape)
            p.grad, t.grad = tinyvid.tensor(g), torch.tensor(g)
        ours_o.step()
        theirs_o.step()
        for p, t in zip(ours, theirs, strict=True):
            assert_close(p, t.detach().numpy(), rtol=1e-12, atol=1e-14)


# The walk over the arrays


@pytest.mark.parametrize("make", [lambda p: optim.SGD(p, momentum=0.9), optim.Adam, optim.AdamW])
def test_pieces_make_no_difference(make, monkeypatch):
    random = np.random.default_rng(1)
    values = random.normal(size=(7, 5)).astype(np.float32)
    gradients = random.normal(size=(3, 5, 7)).astype(np.float32)
    results = []
    for piece in (4, 35, 1000):
        monkeypatch.setattr(optimizer_module, "PIECE", piece)
        p = nn.Parameter(values)
        optimizer = make([p])
        for g in gradients:
            p.grad = tinyvid.tensor(g).transpose(0, 1)  # not contiguous
            optimizer.step()
        results.append(p.numpy())
    assert not np.any(results[0] == values)
    assert_close(results[1], results[0])
    assert_close(results[2], results[0])


def test_a_step_gives_a_new_array_and_leaves_the_old_one_alone():
    p = parameter(1.0, 2.0)
    snapshot, before = p.detach(), p.data
    optimizer = optim.Adam([p])
    step(optimizer, p, 1.0, 1.0)
    assert p.data is not before
    assert not p.data.flags.writeable
    assert p.requires_grad
    assert p.is_leaf
    assert_close(snapshot, np.array([1.0, 2.0]))


def test_a_step_between_forward_and_backward_is_noticed():
    p = parameter(3.0)
    y = (p * p).sum()
    step(optim.SGD([p]), p, 1.0)
    with pytest.raises(UserError, match="given new values"):
        y.backward()


def test_parameters_without_a_gradient_stay_and_zero_grad():
    p, q = parameter(1.0), parameter(1.0)
    sgd = optim.SGD([p, q], lr=1.0, weight_decay=0.1)
    step(sgd, p, 1.0)
    assert q.item() == 1
    assert list(sgd.state_dict()["state"]) == ["0.step"]
    sgd.zero_grad()
    assert p.grad is None


def test_training_reaches_the_minimum():
    tinyvid.manual_seed(0)
    for make in (lambda p: optim.SGD(p, 0.1, 0.9), lambda p: optim.AdamW(p, 0.1, weight_decay=0)):
        layer = nn.Linear(2, 1)
        x = tinyvid.randn(20, 2)
        y = x.numpy() @ np.array([[2.0], [-3.0]], np.float32) + 0.5
        optimizer = make(layer.parameters())
        for _ in range(300):
            optimizer.zero_grad()
            tinyvid.mse_loss(layer(x), tinyvid.tensor(y)).backward()
            optimizer.step()
        assert_close(layer.weight, np.array([[2, -3]], np.float32), atol=1e-3)
        assert_close(layer.bias, np.array([0.5], np.float32), atol=1e-3)


# Groups


def test_groups_have_their_own_hyperparameters():
    p, q, r = parameter(1.0), parameter(1.0), parameter(1.0)
    groups = [{"params": [p], "lr": 1.0}, {"params": q, "weight_decay": 1.0}]
    sgd = optim.SGD(groups, lr=0.5)
    sgd.add_param_group({"params": iter([r]), "lr": 0.0})
    for t in (p, q, r):
        t.grad = tinyvid.tensor(np.ones(1))
    sgd.step()
    assert [t.item() for t in (p, q, r)] == [0, 0, 1]  # 1 - 1, 1 - 0.5 · (1 + 1), 1
    sgd.param_groups[2]["lr"] = 2.0
    sgd.step()
    assert r.item() == -1


def test_a_hyperparameter_changed_later_takes_effect():
    p = parameter(1.0)
    sgd = optim.SGD([p], lr=1.0)
    step(sgd, p, 1.0)
    sgd.param_groups[0]["momentum"] = 0.5
    step(sgd, p, 1.0)  # v = 1
    step(sgd, p, 1.0)  # v = 1.5
    assert p.item() == 1 - 1 - 1 - 1.5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: optim.SGD([]), "there are no parameters"),
        (lambda p: optim.SGD([p, p]), r"of shape \(1,\) is given twice"),
        (lambda p: optim.SGD([{"params": [p]}, {"params": [p]}]), "is given twice"),
        (lambda p: optim.SGD([p * 2]), "must be a leaf tensor"),
        (lambda p: optim.SGD(["weight"]), "must be a leaf tensor, not 'weight'"),
        (lambda p: optim.SGD([{"params": [p], "weight_deca": 1}]), "Did you mean 'weight_decay'"),
        (lambda p: optim.SGD([{"lr": 1}]), "needs 'params'"),
        (lambda p: optim.SGD(p, lr=-1.0), "lr=-1.0 must not be negative"),
        (lambda p: optim.SGD(p, lr=float("nan")), "lr=nan must not be negative"),
        (lambda p: optim.SGD(p, nesterov=True), "needs a momentum"),
        (lambda p: optim.Adam(p, betas=(0.9, 1.0)), r"betas=\(0.9, 1.0\)"),
        (lambda p: optim.Adam(p, betas=(0.9,)), "betas="),
        (lambda p: optim.AdamW(p, eps=-1e-8), "AdamW: eps=-1e-08 must not be negative"),
    ],
)
def test_what_is_refused(make, message):
    with pytest.raises(UserError, match=message):
        make(parameter(1.0))


# State


@pytest.mark.parametrize(
    "make",
    [
        lambda groups: optim.SGD(groups, 0.1, 0.9, nesterov=True),
        lambda groups: optim.SGD(groups, 0.1),
        lambda groups: optim.Adam(groups, amsgrad=True),
        lambda groups: optim.AdamW(groups, betas=(0.8, 0.9)),
    ],
)
def test_state_continues_to_the_bit(make):
    random = np.random.default_rng(3)
    values = [random.normal(size=s).astype(np.float32) for s in ((3, 2), (4,))]
    gradients = [[random.normal(size=v.shape).astype(np.float32) for v in values] for _ in range(6)]

    def build(arrays):
        params = [nn.Parameter(a) for a in arrays]
        return params, make([{"params": params[:1], "lr": 0.3}, {"params": params[1:]}])

    def run(params, optimizer, steps):
        for row in steps:
            for p, g in zip(params, row, strict=True):
                p.grad = tinyvid.tensor(g)
            optimizer.step()

    params, optimizer = build(values)
    run(params, optimizer, gradients[:3])
    middle = [p.numpy() for p in params]
    saved = optimizer.state_dict()
    arrays = {name: a.copy() for name, a in saved["state"].items()}
    written = json.dumps(saved["param_groups"])
    run(params, optimizer, gradients[3:])
    for name, array in saved["state"].items():
        assert_close(array, arrays[name])  # later steps do not write into it
    resumed, fresh = build(middle)
    fresh.load_state_dict({"state": arrays, "param_groups": json.loads(written)})
    run(resumed, fresh, gradients[3:])
    for p, q in zip(params, resumed, strict=True):
        assert_close(q, p.numpy())
    for name, array in optimizer.state_dict()["state"].items():
        assert_close(fresh.state_dict()["state"][name], array)
    assert fresh.state_dict()["param_groups"] == optimizer.state_dict()["param_groups"]


def test_state_dict_is_flat():
    p, q = parameter(1.0, 2.0), parameter(3.0)
    adam = optim.Adam([{"params": [p]}, {"params": [q], "lr": 0.5}])
    step(adam, q, 1.0)
    state = adam.state_dict()
    assert sorted(state["state"]) == ["1.exp_avg", "1.exp_avg_sq", "1.step"]
    assert_close(state["state"]["1.step"], np.array(1, np.int64))
    assert [group["params"] for group in state["param_groups"]] == [[0], [1]]
    assert state["param_groups"][1]["lr"] == 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s["param_groups"][0]["params"].append(2), "groups of .2. parameters"),
        (lambda s: s["param_groups"][0].update(beta=1), "no hyperparameter 'beta'"),
        (lambda s: s["param_groups"][0].update(lr=-1), "lr=-1 must not be negative"),
        (lambda s: s["state"].update({"7.exp_avg": 0}), "'7.exp_avg' belongs to none of the 1"),
        (lambda s: s["state"].update({"fc.step": 0}), "'fc.step' belongs to none"),
        (lambda s: s["state"].pop("0.exp_avg"), "the state of parameter 0 must be step and"),
        (lambda s: s["state"].pop("0.step"), "the state of parameter 0 must be step and"),
        (lambda s: s["state"].update({"0.exp_avg": np.zeros(3)}), "the state of parameter 0"),
        (lambda s: s["state"].update({"0.momentum_buffer": np.zeros(2)}), "the state of parameter"),
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(change, message):
    p = parameter(1.0, 2.0)
    adam = optim.Adam([p])
    step(adam, p, 1.0, 2.0)
    before, broken = adam.state_dict(), adam.state_dict()
    broken["param_groups"][0]["lr"] = 7.0
    change(broken)
    with pytest.raises(UserError, match=message):
        adam.load_state_dict(broken)
    after = adam.state_dict()
    assert after["param_groups"] == before["param_groups"]
    assert list(after["state"]) == list(before["state"])
    for name, array in before["state"].items():
        assert_close(after["state"][name], array)


def test_a_new_kind_of_optimizer_must_say_how():
    p = parameter(1.0)
    plain = optim.Optimizer([p], {"lr": 1.0})
    with pytest.raises(NotImplementedError):
        step(plain, p, 1.0)
