"""Schedules of the learning rate, worked by hand."""

import math

import pytest

from tinyvid import nn, optim
from tinyvid.errors import UserError


def optimizer(*lrs):
    return optim.SGD([{"params": [nn.Parameter([0.0])], "lr": lr} for lr in lrs])


def rates(schedule, steps):
    """Return the first group's rate at first and after each of the steps."""
    found = [schedule.get_last_lr()[0]]
    for _ in range(steps):
        schedule.step()
        found.append(schedule.optimizer.param_groups[0]["lr"])
    return found


HALF = math.sqrt(0.5)


@pytest.mark.parametrize(
    ("make", "want"),
    [
        (lambda o: optim.StepLR(o, 2), [8, 8, 0.8, 0.8, 0.08]),
        (lambda o: optim.StepLR(o, 1, gamma=0.5), [8, 4, 2, 1]),
        # 4 (1 + cos(π k / 4)), and up again
        (
            lambda o: optim.CosineAnnealingLR(o, 4),
            [8, 4 + 4 * HALF, 4, 4 - 4 * HALF, 0, 4 - 4 * HALF],
        ),
        (lambda o: optim.CosineAnnealingLR(o, 2, eta_min=2), [8, 5, 2]),
        (lambda o: optim.LinearWarmup(o, 4), [2, 4, 6, 8, 8, 8]),
        (lambda o: optim.LinearWarmup(o, 1), [8, 8]),
        # two steps up to 8; then 1 + 3.5 (1 + cos(π (k - 2) / 2)) down to 1, and 1 from there on
        (lambda o: optim.WarmupCosine(o, 2, 4, eta_min=1), [4, 8, 8, 4.5, 1, 1, 1]),
        (lambda o: optim.WarmupCosine(o, 0, 2), [8, 4, 0, 0]),
    ],
)
def test_rates(make, want):
    schedule = make(optimizer(8.0))
    assert rates(schedule, len(want) - 1) == pytest.approx(want, abs=1e-12)
    # A run resumed anywhere has the very same rates.
    for at in range(len(want)):
        first = make(optimizer(8.0))
        rates(first, at)
        second = make(optimizer(3.0))
        second.load_state_dict(first.state_dict())
        rest = len(want) - 1 - at
        assert rates(second, rest) == rates(first, rest)


def test_every_group_keeps_its_own_rate():
    o = optimizer(1.0, 0.1)
    schedule = optim.StepLR(o, 1)
    schedule.step()
    assert schedule.get_last_lr() == pytest.approx([0.1, 0.01])
    assert schedule.state_dict() == {"last_epoch": 1, "base_lrs": [1.0, 0.1]}
    with pytest.raises(UserError, match="2 parameter groups was saved, the optimiser has 1"):
        optim.StepLR(optimizer(1.0), 1).load_state_dict(schedule.state_dict())


def test_what_is_refused():
    for make in (
        lambda o: optim.StepLR(o, 0),
        lambda o: optim.CosineAnnealingLR(o, 0),
        lambda o: optim.LinearWarmup(o, 0),
    ):
        with pytest.raises(UserError, match="must be at least 1"):
            make(optimizer(1.0))
    for warmup in (-1, 5):
        with pytest.raises(UserError, match=f"warmup_steps={warmup}"):
            optim.WarmupCosine(optimizer(1.0), warmup, 5)
    with pytest.raises(NotImplementedError):
        optim.Schedule(optimizer(1.0))


def test_agrees_with_pytorch():
    torch = pytest.importorskip("torch")
    for name, arguments in (("StepLR", (3, 0.3)), ("CosineAnnealingLR", (7, 0.01))):
        theirs_o = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
        theirs = getattr(torch.optim.lr_scheduler, name)(theirs_o, *arguments)
        ours = getattr(optim, name)(optimizer(0.5), *arguments)
        for _ in range(20):
            assert ours.get_last_lr() == pytest.approx(theirs.get_last_lr(), rel=1e-9, abs=1e-12)
            theirs_o.step()
            theirs.step()
            ours.step()
