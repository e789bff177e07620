"""One task: every contestant's result is checked, all are timed in turn, and checked again."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from tinyvid.bench.gpu import captured, clocks
from tinyvid.bench.peers import Contestant, Peer, Unfit
from tinyvid.bench.problems import Arrays, Expectation, Task
from tinyvid.bench.results import OURS, PEER, Line, Measured
from tinyvid.bench.timing import TOO_SLOW, Timer, interleave, processor_timer
from tinyvid.device import check_device, to_device
from tinyvid.errors import UserError
from tinyvid.kernels import Kernel, Variant
from tinyvid.kernels.registry import TARGETS
from tinyvid.trace import size_text

SMALL = 1e-4  # seconds on a GPU, below which Python's launch of a call would count


@dataclass(frozen=True)
class Settings:
    """How a task is run.

    Attributes:
        device: `cpu` or `cuda`; on the emulator, results can be checked, and nothing timed.
        variants: names of those to run; by default the preferred one. ladder: all that fit, each
            compared with the first peer, instead of the preferred one with each of them.
        peers: to compare with. seconds: the limit of a task; see `interleave`.
        check_only: time nothing. timer: how calls are timed.
    """

    device: str = "cpu"
    variants: tuple[str, ...] = ()
    ladder: bool = False
    peers: tuple[Peer, ...] = ()
    seconds: float = 20.0
    check_only: bool = False
    timer: Timer = processor_timer

    def __post_init__(self) -> None:
        check_device(self.device)
        if self.device == "emulator" and not self.check_only:
            raise UserError(
                "times on the emulator mean nothing: it runs a kernel's threads one after the "
                "other. Time on --device cpu or cuda, or check results only, with --check"
            )


@dataclass
class _Entry:
    """A contestant at work: its line in the results, what it must give, and its last result."""

    line: Line
    contestant: Contestant
    expected: Expectation
    last: Any = field(default=None, repr=False)

    def __call__(self) -> None:
        self.last = None  # so that its memory can be used again
        self.last = self.contestant.run()

    def shorten(self, timer: Timer) -> None:
        """Where a call is so short that to launch it takes longer, time a CUDA graph of it."""
        captured = self.contestant.captured
        if captured is None or timer(self, 3) / 3 > SMALL:
            return
        try:
            replay = captured(self.contestant.run)
        except Exception as error:  # a library may do what no graph can hold
            self.line.note = f"not as a graph: {error}"
        else:
            self.contestant = replace(self.contestant, run=replay)
            self.line.note = "replayed as a graph"

    def check(self) -> None:
        """Note what is wrong with the last result, and let go of it."""
        try:
            results = self.contestant.host(self.last)
            self.line.fault = self.expected.fault(results, self.contestant.arithmetic)
        finally:
            self.last = None


def measure(task: Task, settings: Settings) -> Measured:
    """Check and time all contestants of a task; see `race`."""
    expected = task.expectation()
    measured = Measured(
        task.kernel.op,
        task.kernel.pass_,
        task.case.name,
        shapes(task.case),
        task.work.flops,
        task.work.bytes,
        expected.how,
    )
    return race(measured, _contestants(task, settings, expected), settings)


Prepare = Callable[[], tuple[Contestant, Expectation]]


def race(
    measured: Measured, contestants: Iterable[tuple[str, str, Prepare]], settings: Settings
) -> Measured:
    """Check and time contestants, and add their lines to what is measured.

    One whose result is wrong, before or after, or that fails, has a fault and no times.

    Args:
        contestants: (name, role, how to prepare it), the one that the others are compared with
            first.
    """
    entries = []
    for name, role, prepare in contestants:
        line = Line(name, role)
        measured.lines.append(line)
        try:
            entry = _Entry(line, *prepare())
            line.arithmetic = entry.contestant.arithmetic
            entry()
            entry.check()
        except Unfit as reason:
            line.note = f"does not take this: {reason}"
            continue
        except UserError as reason:
            line.note, line.fault = (str(reason), None) if settings.ladder else ("", str(reason))
            continue
        except Exception as error:  # the fault of one shall not hide the others
            line.fault = f"{type(error).__name__}: {error}"
        if line.fault is None:
            entries.append(entry)
    if settings.check_only or not entries:
        return measured
    for entry in entries:
        entry.shorten(settings.timer)
    watch = clocks if settings.device == "cuda" else dict
    before = watch()
    times = interleave(
        {entry.line.name: entry for entry in entries}, settings.seconds, settings.timer
    )
    measured.clocks = [seen for seen in (before, watch()) if seen]
    for entry in entries:
        entry.check()
        taken = times[entry.line.name].tolist()
        if entry.line.fault is None:
            entry.line.seconds = taken
            entry.line.note = entry.line.note if taken else TOO_SLOW
        else:
            entry.line.fault = f"right at first, but after timing: {entry.line.fault}"
    return measured


def _contestants(
    task: Task, settings: Settings, expected: Expectation
) -> list[tuple[str, str, Prepare]]:
    """Return (name, role, how to prepare it); the one that all are compared with comes first."""
    ours: list[tuple[str, str, Prepare]] = []
    args = _placed(task, settings.device)
    for variant in variants(task.kernel, settings, args):
        ours.append((variant.name, OURS, _ours(task, variant, args, settings.device, expected)))
    peers: list[tuple[str, str, Prepare]] = [
        (one.name, PEER, partial(_theirs, one, task, settings.device, expected))
        for peer in settings.peers
        for one in _ways(peer, task, settings.device)
    ]
    return peers[:1] + ours if settings.ladder else ours + peers


def variants(kernel: Kernel, settings: Settings, args: tuple) -> list[Variant]:
    """Return the variants to run of a kernel: those asked for, all that fit, or the preferred one.

    Raises:
        UserError: one asked for does not run on the device, or none takes this.
    """
    targets = TARGETS[settings.device]
    here = {v.name: v for v in kernel.variants.values() if v.target in targets}
    if settings.variants:
        for name in settings.variants:
            if name in kernel.variants and name not in here:
                raise UserError(
                    f"{kernel.name}: {name!r} does not run on device {settings.device!r}"
                )
        return [here[name] for name in settings.variants if name in here]
    if settings.ladder:
        fitting = [v for v in here.values() if v.unfit is None or v.unfit(*args) is None]
        return [v for v in fitting if v.dtypes is None or "float32" in v.dtypes]
    return [kernel.select(*args, device=settings.device)]


def _ways(peer: Peer, task: Task, device: str) -> list[Peer]:
    """Return the peers that take part in a peer's place; itself if it has no others."""
    if peer.ways is None:
        return [peer]
    try:
        return peer.ways(peer, task, device)
    except Exception as error:  # is told when it is prepared
        return [replace(peer, prepare=partial(_raise, error))]


def _raise(error: Exception, *_: Any) -> Any:
    raise error


def _theirs(
    peer: Peer, task: Task, device: str, expected: Expectation
) -> tuple[Contestant, Expectation]:
    return peer.prepare(task, device), expected


def _ours(task: Task, variant: Variant, args: tuple, device: str, expected: Expectation) -> Prepare:
    def prepare() -> tuple[Contestant, Expectation]:
        why = variant.unfit(*args) if variant.unfit is not None else None
        if why:
            raise Unfit(why)
        exact = task.expectation(variant.rounds) if variant.rounds else expected
        graph = captured if device == "cuda" else None
        run = partial(variant.run, *args, device=device)
        return Contestant(run, _host, captured=graph), exact

    return prepare


def _host(results: Any) -> Arrays:
    every = results if isinstance(results, tuple) else (results,)
    return tuple(np.asarray(to_device(y, "cpu")) for y in every)


def _placed(task: Task, device: str) -> tuple:
    """Return the arguments on the device, as they come in a network: channels-last in memory."""
    conv = task.kernel.op.startswith("conv")
    filters = {1} if conv and task.kernel.pass_ != "wgrad" else set()
    placed = []
    for place, a in enumerate(task.args):
        if isinstance(a, np.ndarray) and a.dtype != np.int64:  # lengths stay where they are
            inside = a.ndim > 3 and place not in filters
            a = channels_last(a, device) if inside else to_device(a, device)
        placed.append(a)
    return tuple(placed)


def channels_last(a: np.ndarray, device: str = "cpu") -> Any:
    """Return `N C ...` as a view of a new array `N ... C`."""
    inner = to_device(np.ascontiguousarray(np.moveaxis(a, 1, -1)), device)
    return inner.transpose(0, a.ndim - 1, *range(1, a.ndim - 1))


def shapes(case: Any) -> str:
    """Return the sizes of a case: of x and the filter or window, an LSTM's, or of frames."""
    if hasattr(case, "frames"):
        return f"frames {size_text(case.frames)}"
    if not hasattr(case, "x"):
        return f"N {case.batch}, L {case.steps}, I {case.inputs}, H {case.hidden}"
    over = ("w", case.w) if hasattr(case, "w") else ("window", case.window)
    return ", ".join(f"{name} {size_text(size)}" for name, size in (("x", case.x), over))
