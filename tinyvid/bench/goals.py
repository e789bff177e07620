"""What tinyvid is meant to reach on two cores beside PyTorch, a row of a table each.

The goals were set from PyTorch's times on such a machine (float32, medians). Every row is measured
by itself, ours and the peers in turn, and checked before and after.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from tinyvid.bench.networks import measure_network
from tinyvid.bench.results import OURS, Line, Measured
from tinyvid.bench.run import Settings
from tinyvid.bench.tape import measure_tape
from tinyvid.bench.whole import measure_whole, whole
from tinyvid.errors import UserError, nearest

NCDHW, CHANNELS_LAST = "torch", "torch/channels_last"


@dataclass(frozen=True)
class Goal:
    """A row.

    Attributes:
        name: what to ask for it by. label: what it is, for the table.
        run: measures it, given settings.
        over: how many times as fast as a peer ours is meant to be, by the peer's name.
        within: the seconds that ours is meant to take at most; 0 where nothing is meant.
        seconds: the limit of its timing: slow ones need more for their least rounds.
    """

    name: str
    label: str
    run: Callable[[Settings], Measured]
    over: Mapping[str, float] = field(default_factory=dict)
    within: float = 0.0
    seconds: float = 8.0

    def measure(self, settings: Settings, seconds: float | None = None) -> Measured:
        """Measure the row; `seconds` is the limit, by default its own.

        What fails has a fault, and does not keep the other rows from being measured.
        """
        try:
            measured = self.run(replace(settings, seconds=seconds or self.seconds))
        except Exception as error:
            failed = Line("tinyvid", OURS, fault=f"{type(error).__name__}: {error}")
            measured = Measured("goal", "", self.name, "", 0, 0, "nothing", [failed])
        measured.label, measured.goals, measured.within = self.label, dict(self.over), self.within
        return measured


def _operation(op: str, case: str, batch: int | None, backward: bool) -> Callable:
    return lambda settings: measure_whole(whole(op, case, backward, batch), settings)


def _pair(
    name: str, label: str, op: str, case: str, batch: int | None, forward: Mapping, both: Mapping
) -> list[Goal]:
    """Return the rows of an operation: forward, and forward with backward."""
    return [
        Goal(name, f"{label}, forward", _operation(op, case, batch, False), forward),
        Goal(
            f"{name}-backward",
            f"{label}, forward and backward",
            _operation(op, case, batch, True),
            both,
        ),
    ]


def _conv(number: str, channels: str, size: str, forward: float, both: float) -> list[Goal]:
    label = f"C3D conv{number} ({channels}, {size}), N = 4"
    name, case = f"conv{number}", f"c3d_conv{number}"
    return _pair(name, label, "conv3d", case, 4, {NCDHW: forward}, {NCDHW: both})


def _network(
    name: str, label: str, model: str, pass_: str, batch: int, over: float, seconds: float = 8.0
) -> Goal:
    def run(settings: Settings) -> Measured:
        with_peer = any(peer.name == NCDHW for peer in settings.peers)
        return measure_network(model, pass_, batch, settings.seconds, with_peer, settings.timer)

    return Goal(name, label, run, {NCDHW: over}, seconds=seconds)


GOALS = [
    Goal(
        "conv1",
        "C3D conv1 (3→64, 16×112²), N = 4, forward",
        _operation("conv3d", "c3d_conv1", 4, False),
        {NCDHW: 4},
    ),
    Goal(
        "conv1-relu-pool1",
        "C3D conv1, ReLU and pool1 as one, N = 4, forward",
        _operation("conv3d_relu_max_pool", "c3d conv1", 4, False),
        {NCDHW: 7},
    ),
    *_conv("2", "64→128", "16×56²", 2.5, 2),
    *_conv("3a", "128→256", "8×28²", 2, 2),
    *_conv("4a", "256→512", "4×14²", 1.5, 1.5),
    *_conv("5", "512→512", "2×7²", 1, 2),
    _network("c3d", "C3D, N = 4, forward", "c3d", "forward", 4, 2.5, 16),
    _network("c3d-step", "C3D, N = 4, training step", "c3d", "step", 4, 2, 30),
    _network("c3d-one-clip", "C3D, N = 1, forward, same weights", "c3d", "forward", 1, 2),
    _network(
        "worked-3d",
        "worked example's 3-D CNN (3×20×64×64), N = 16, training step",
        *("worked_slow_fusion", "step", 16, 5),
    ),
    _network(
        "worked-early",
        "worked example's early fusion, N = 16, training step",
        *("worked_early_fusion", "step", 16, 2),
    ),
    *_pair(
        *("pool1", "max pool 1×2×2 on 64×16×112², N = 4", "max_pool3d", "c3d pool1", 4),
        {NCDHW: 8, CHANNELS_LAST: 2},
        {NCDHW: 5, CHANNELS_LAST: 2},
    ),
    *_pair(
        *("lstm", "LSTM 512→512, N = 32, 16 steps", "lstm", "cnn features", None),
        {NCDHW: 1.2},
        {NCDHW: 1.2},
    ),
    Goal(
        "tape",
        "one operation on four numbers, forward and backward",
        measure_tape,
        within=4e-6,
    ),
]


def chosen(only: list[str] | None) -> list[Goal]:
    """Return the goals of these names; all by default.

    Raises:
        UserError: there is no such goal; the message names the nearest.
    """
    names = {goal.name: goal for goal in GOALS}
    for name in only or ():
        if name not in names:
            hint = nearest(name, names)
            raise UserError(f"--only {name}: no such goal.{hint} There are: {', '.join(names)}.")
    return [names[name] for name in only] if only else GOALS
