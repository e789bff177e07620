"""Every CPU variant of convolution on many shapes, and what the choice between them costs.

    python benchmarks/bench_variants.py                 measure, and keep the files in results/
    python benchmarks/bench_variants.py --op conv2d     one operation only; the others stay
    python benchmarks/bench_variants.py --check         judge the choice by the files that are kept

A kernel runs the variant that it expects to be the fastest (`tinyvid.kernels.cost`). Its loss on a
shape is the median time of that variant over the least of all of them. A test holds the losses to
`MEAN` and `WORST`, and fails where a variant is there that was not measured.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import typer

from tinyvid.bench.machine import describe, kind
from tinyvid.bench.problems import Task, work_of
from tinyvid.bench.results import Measured, Results, read
from tinyvid.bench.run import Settings, measure
from tinyvid.checking.problems import PROBLEMS
from tinyvid.cli.bench_show import running
from tinyvid.errors import UserError
from tinyvid.kernels import Kernel, kernels
from tinyvid.kernels.conv3d.cases import ConvCase

RESULTS = Path(__file__).resolve().parent / "results"
NAME = "variants"
# The operations, and their passes whose arguments are made of nothing but random numbers.
OPS = {
    "conv3d": ("fprop", "dgrad", "wgrad"),
    "conv2d": ("fprop", "dgrad", "wgrad"),
    "conv3d_relu_max_pool": ("fprop",),
}
MEAN, WORST = 1.1, 2.0  # the largest losses: geometric mean over all shapes, and of any one
MOST = 12 * 10**9  # products of a shape of four clips
RANDOM = 14  # random shapes of conv3d, beside the layers of networks


def cases(op: str) -> list[Any]:
    """Return the cases of an operation: layers of networks, small ones of C3D with four clips."""
    known, _ = PROBLEMS[op]
    found = [case for case in known if case.large]
    c3d = [case for case in found if case.name.startswith("c3d") and case.x[0] == 1]
    four = [replace(case, name=f"{case.name}, N = 4", x=(4, *case.x[1:])) for case in c3d]
    found += [case for case in four if case.geometry.macs < MOST]
    return found + (_random_cases() if op == "conv3d" else [])


def _random_cases() -> list[ConvCase]:
    """Return shapes of all kinds, the same ones always, of a million to three billion products."""
    rng = random.Random(5)
    filters = [(3, 3, 3)] * 5 + [(1, 1, 1), (1, 3, 3), (3, 1, 1), (2, 5, 5), (1, 7, 7)]
    found: list[ConvCase] = []
    while len(found) < RANDOM:
        channels = [rng.choice((1, 3, 8, 12, 20, 32, 48, 64, 100, 128, 256)) for _ in range(2)]
        side = rng.choice((5, 7, 9, 14, 16, 20, 28, 32, 45))
        x = (rng.choice((1, 2, 4, 8)), channels[0], rng.choice((1, 2, 3, 4, 8, 16)), side, side)
        window = rng.choice(filters)
        stride = rng.choice(((1, 1, 1),) * 4 + ((1, 2, 2), (2, 2, 2)))
        padding = tuple(size // 2 for size in window)
        name = f"random {len(found) + 1}"
        case = ConvCase(name, x, (channels[1], channels[0], *window), stride, padding, large=True)
        if 10**6 <= case.geometry.macs <= 3 * 10**9:
            found.append(case)
    return found


def candidates(kernel: Kernel, args: tuple[Any, ...]) -> list[str]:
    """Return the variants to time: all of the CPU that take these arguments, the chosen one first.

    Variants whose results are coarser, and the reference, run only where they are asked for.
    """
    fitting = [
        v.name
        for v in kernel.variants.values()
        if v.target == "cpu" and v.rounds is None and (v.unfit is None or v.unfit(*args) is None)
    ]
    chosen = kernel.select(*args).name
    return [chosen, *(name for name in fitting if name != chosen)]


def problems(op: str, array: Any) -> Iterator[tuple[Kernel, Any, tuple[Any, ...]]]:
    """Yield each kernel of an operation with each case and its arguments, made by `array`."""
    make = PROBLEMS[op][1]
    for case in cases(op):
        for kernel in (k for k in kernels() if k.op == op and k.pass_ in OPS[op]):
            yield kernel, case, make(case).call(kernel.pass_, array)


def measure_all(ops: list[str], seconds: float, folder: Path) -> None:
    """Measure the operations, and write the files after each shape."""
    rng = np.random.default_rng()
    with running(NAME, "cpu", [], folder) as show:
        path = folder / f"{NAME}.json"
        if path.exists():
            show.results.measured += [m for m in read(path).measured if m.op not in ops]
        for op in ops:
            for kernel, case, args in problems(op, lambda *s: rng.standard_normal(s, np.float32)):
                task = Task(kernel, case, args, work_of(kernel, case, args))
                names = candidates(kernel, args)
                if names != ["reference"]:
                    show(measure(task, Settings(variants=tuple(names), seconds=seconds)))
                    show.results.write(folder, NAME)


# ---- judging what is kept ------------------------------------------------------------------------


@dataclass(frozen=True)
class Choice:
    """What a kernel chooses on a shape: the variant, the fastest one, and their times' quotient."""

    what: str
    chosen: str
    best: str
    loss: float


def choices(results: Results) -> tuple[list[Choice], list[str]]:
    """Return what is chosen on each shape, and what is missing in the results, in words."""
    measured = {(m.op, m.pass_, m.case): m for m in results.measured}
    found, missing = [], []
    for op in OPS:
        for kernel, case, args in problems(op, _unwritten):
            what = f"{kernel.name} {case.name}"
            names = candidates(kernel, args)
            if names == ["reference"]:
                continue
            of = measured.get((op, kernel.pass_, case.name))
            known = {line.name for line in of.lines if line.fault is None} if of else set()
            lacking = [name for name in names if name not in known]
            if of is None or lacking:
                missing.append(f"{what}: {', '.join(lacking or names)}")
            else:
                found.append(_choice(what, names[0], of))
    return found, missing


def _choice(what: str, chosen: str, of: Measured) -> Choice:
    times = {line.name: line.median for line in of.timed}
    best = min(times, key=lambda name: times[name])
    return Choice(what, chosen, best, times.get(chosen, math.inf) / times[best])


def _unwritten(*shape: int) -> np.ndarray:
    """Return an array that nothing is written to, so that it takes no memory."""
    return np.empty(shape, np.float32)


def faults(results: Results) -> list[str]:
    """Return what is wrong with the choice, or with the results, a sentence each."""
    found, missing = choices(results)
    said = [f"not measured: {what}" for what in missing]
    said += [
        f"{one.what}: {one.chosen} takes {one.loss:.2f} times as long as {one.best}"
        for one in found
        if one.loss > WORST
    ]
    mean = geometric_mean([one.loss for one in found])
    if mean > MEAN:
        said.append(f"the choices take {mean:.3f} times as long as the best, at most {MEAN:g}")
    return said


def geometric_mean(values: list[float]) -> float:
    """Return the n-th root of the product of n values; 1 of none."""
    return math.exp(sum(map(math.log, values)) / len(values)) if values else 1.0


def check(folder: Path) -> bool:
    """Print the choices by the files in a folder and those inside it; tell whether all is well."""
    well = True
    for path in sorted(folder.rglob(f"{NAME}.json")):
        results = read(path)
        found, _ = choices(results)
        print(f"{path}: {len(found)} choices")
        for one in sorted(found, key=lambda one: -one.loss):
            better = "" if one.loss == 1 else f"  {one.best} is faster"
            print(f"  {one.loss:5.2f}  {one.what:50} {one.chosen}{better}")
        print(f"  {geometric_mean([one.loss for one in found]):5.3f}  geometric mean")
        for fault in faults(results):
            print(f"  {fault}")
            well = False
    return well


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--op", action="append", choices=OPS)
    parser.add_argument("--seconds", type=float, default=1.0, help="limit of each shape and pass")
    parser.add_argument("--out", type=Path, help="folder; by default that of this machine's kind")
    args = parser.parse_args()
    try:
        if args.check:
            raise SystemExit(0 if check(args.out or RESULTS) else 1)
        measure_all(args.op or list(OPS), args.seconds, args.out or RESULTS / kind(describe()))
    except typer.Exit as end:  # a variant was wrong, as has been printed
        raise SystemExit(end.exit_code) from None
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
