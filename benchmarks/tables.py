"""The tables of speeds, written from the runs in `benchmarks/results`.

    python benchmarks/tables.py --measure      measure every goal, keep the files, write the tables
    python benchmarks/tables.py                print the tables
    python benchmarks/tables.py --write        write them into the pages, between their markers
    python benchmarks/tables.py --check        fail if the pages' are not of these runs

Results stand in a folder for each kind of machine. `--measure` passes on what else is given:
`--only conv2`, `--resume`, `--seconds 20`. Where a page has no markers, there is no table, and
nothing to check.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from tinyvid.bench.machine import describe, kind, line
from tinyvid.bench.results import (
    OURS,
    PEER,
    Line,
    Measured,
    Results,
    ends,
    figure,
    read,
    speed,
    told,
)
from tinyvid.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = (ROOT / "README.md", ROOT / "benchmarks" / "README.md")
BEGIN, END = "<!-- benchmarks: written by a script -->", "<!-- end of benchmarks -->"


def table(runs: Iterable[Results]) -> str:
    """Return the tables of the runs that have a peer: of goals, or of kernels beside a peer."""
    return "\n\n".join(part for run in runs for part in (_goals(run), _kernels(run)) if part)


def about(run: Results) -> str:
    """Return what the figures of a run were taken on, and how."""
    machine = run.machine
    blas = ", ".join(machine.get("blas", ())) or "unknown"
    variables = [f"{k}={v}" for k, v in machine.get("environment", {}).items()]
    set_to = f"`{' '.join(variables)}`" if variables else "none that changes it is set"
    others = machine.get("busy")
    busy = "" if others is None else f" Other work took {others:.0%} of the machine at the start."
    return (
        f"{line(machine)}; BLAS {blas}, of its variables {set_to}. A product of large matrices "
        f"reached {run.gflops:.0f} GFLOP/s, a large copy {run.gbps:.1f} GB/s.{busy} "
        f"`{run.command}`, {run.when[:10]}:"
    )


def _goals(run: Results) -> str:
    rows = [_goal(run, one) for one in run.measured if one.goals or one.within]
    header = [
        "| float32, medians | PyTorch | ours | times as fast | of the ceiling | goal | |",
        "| --- | ---: | ---: | --- | ---: | --- | --- |",
    ]
    return "\n".join([about(run), "", *header, *rows]) if rows else ""


def _goal(run: Results, one: Measured) -> str:
    ours, peer = one.first(OURS), one.first(PEER)
    faults = [line.fault for line in one.lines if line.fault]
    reached = one.reached()
    ratios = [
        f"{ends(speed(ours, line))}{'' if line is peer else f' than {line.name}'}"
        for line in one.timed
        if ours and line.role == PEER and (line is peer or line.name in one.goals)
    ]
    bound = run.bound(one)
    cells = [
        one.label,
        _time(peer),
        _time(ours) if not faults else f"failed: {faults[0]}",
        "; ".join(ratios),
        f"{bound / ours.median:.0%}" if ours and bound else "",
        "; ".join(goal for goal, _ in reached),
        "; ".join(dict.fromkeys(said for _, said in reached)),
    ]
    return f"| {' | '.join(cells)} |"


def _time(of: Line | None) -> str:
    if of is None:
        return ""
    ms = of.median * 1e3
    return f"{figure(ms)} ms" if ms >= 0.1 else f"{figure(ms * 1e3)} µs"


def _kernels(run: Results) -> str:
    rows = [
        f"| {one.op} {one.pass_} {one.case}, {one.shapes} | {ours.name} | {_time(ours)} | "
        f"{peer.name} | {_time(peer)} | {told(speed(ours, peer))} |"
        for one in run.measured
        if not (one.goals or one.within) and (ours := one.first(OURS)) and (peer := one.first(PEER))
    ]
    header = [
        "| what | ours | time | peer | time | ours is so many times as fast |",
        "| --- | --- | ---: | --- | ---: | --- |",
    ]
    return "\n".join([about(run), "", *header, *rows]) if rows else ""


def runs(folder: Path = RESULTS) -> list[Results]:
    """Return the runs that are kept in a folder and those inside it, by name."""
    return [read(path) for path in sorted(folder.rglob("*.json"))]


def split(page: Path) -> tuple[str, str, str] | None:
    """Return what stands before, between and after the markers; None where there are none."""
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    inside, end, after = rest.partition(END)
    return (before, inside, after) if begin and end else None


def write(found: list[Results], page: Path) -> None:
    """Put the tables between the markers.

    Raises:
        UserError: there are no markers, or nothing to put there.
    """
    parts = split(page)
    if parts is None:
        raise UserError(f"{page} has no place for it: put {BEGIN} and {END} where it belongs")
    if not table(found):
        raise UserError(f"no runs are kept in {RESULTS}: python benchmarks/tables.py --measure")
    before, _, after = parts
    page.write_text(f"{before}{BEGIN}\n\n{table(found)}\n\n{END}{after}", encoding="utf-8")


def stale(found: list[Results], page: Path) -> bool:
    """Return whether a page has a table that is not of these runs."""
    parts = split(page)
    return parts is not None and parts[1].strip() != table(found)


def measure(options: list[str]) -> None:
    """Measure the goals in a process of their own, into the folder of this kind of machine.

    Raises:
        SystemExit: something failed; what it was has been printed.
    """
    folder = (RESULTS / kind(describe())).relative_to(ROOT)
    command = [sys.executable, "-m", "tinyvid", "bench", "goals", *options, "--out", str(folder)]
    code = subprocess.run(command, cwd=ROOT, check=False).returncode
    if code:
        raise SystemExit(code)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    for name in ("--measure", "--write", "--check"):
        parser.add_argument(name, action="store_true")
    args, options = parser.parse_known_args()
    if options and not args.measure:
        parser.error(f"{' '.join(options)}: only with --measure")
    try:
        if args.measure:
            measure(options)
        found = runs()
        if args.measure or args.write:
            for page in PAGES:
                write(found, page)
        elif not args.check:
            print(table(found) or f"no runs are kept in {RESULTS}")
        if args.check:
            for page in PAGES:
                if stale(found, page):
                    raise UserError(f"{page} is stale: run python benchmarks/tables.py --write")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
