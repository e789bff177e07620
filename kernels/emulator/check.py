"""Running launches under the access checker, in every order and with both kinds of copies.

>>> report = check(lambda: module.get_function("scale")((4,), (128,), (x, y)))
>>> print(*report.findings, sep="\\n")
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from tinyvid.kernels.emulator.found import (
    UNINITIALISED,
    Finding,
    LineCount,
    merge,
    merge_counts,
    roots,
)
from tinyvid.kernels.emulator.module import KernelFault, Launched
from tinyvid.kernels.emulator.settings import COPIES, SCHEDULES, options


@dataclass
class Report:
    """What was found in some launches.

    Attributes:
        findings: one for each kind, line and array. An uninitialised read is left out where another
            finding explains it: of the same array, or of an earlier launch of the same run, which
            may have left out what it should have written.
        counts: what each line's accesses cost, in one of the runs.
        launches: how many there were, runs in other orders included.
        cut_short: how many runs a fault has ended.
    """

    findings: list[Finding] = field(default_factory=list)
    counts: list[LineCount] = field(default_factory=list)
    launches: int = 0
    cut_short: int = 0
    _doubtful: bool = field(default=False, repr=False)  # something was found in this run
    _run: int = field(default=0, repr=False)  # its number

    def begin_run(self) -> None:
        """Take the launches that follow for independent of those before."""
        self._doubtful = False
        self._run += 1

    def add(self, launched: Launched) -> None:
        """Add what one launch has shown, as `Options.watch`."""
        found = launched.findings
        if self._doubtful:
            found = [f for f in found if f.kind != UNINITIALISED or f.space != "global"]
        self._doubtful |= bool(found)
        found = [replace(f, runs=frozenset([self._run])) for f in found]
        self.findings = roots(merge([*self.findings, *found]))
        self.counts = merge_counts([*self.counts, *launched.counts])
        self.launches += 1


def check(
    run: Callable[[], object],
    schedules: Sequence[str] = SCHEDULES,
    copies: Sequence[str] = COPIES,
    seed: int = 1,
    count_lines: bool = True,
    report: Report | None = None,
) -> Report:
    """Call `run` once for each schedule and kind of copies, and collect what the checker finds.

    Args:
        run: makes launches on the emulator. Where one meets a fault, the rest of it is left out.
        schedules, copies, seed: see `settings.Options`.
        count_lines: count what lines cost, in the first of the calls.
        report: where to add what is found; a new one by default.
    """
    report = Report() if report is None else report
    for schedule in schedules:
        for landing in copies:
            first = (schedule, landing) == (schedules[0], copies[0])
            settings = options(
                checked=True,
                schedule=schedule,
                seed=seed,
                copies=landing,
                count_lines=count_lines and first,
                watch=report.add,
            )
            report.begin_run()
            with settings:
                try:
                    run()
                except KernelFault:  # it is among the findings
                    report.cut_short += 1
    return report
