"""The README's table of speeds, written from the runs in `benchmarks/results`.

    tinyvid bench conv3d --out benchmarks/results     measure, and keep the files
    python benchmarks/tables.py                       print the table
    python benchmarks/tables.py --write               write it into the README, between its markers
    python benchmarks/tables.py --check               fail if the README's is not of these runs

Where the README has no markers, there is no table, and nothing to check.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

from tinyvid.bench.machine import line
from tinyvid.bench.results import OURS, PEER, Measured, Results, figure, read, speed, told
from tinyvid.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
README, RESULTS = ROOT / "README.md", ROOT / "benchmarks" / "results"
BEGIN, END = "<!-- benchmarks: written by a script -->", "<!-- end of benchmarks -->"


def table(runs: Iterable[Results]) -> str:
    """Return a table for each machine: ours beside the first peer, with the ratio's interval."""
    parts: dict[str, list[str]] = {}
    for run in runs:
        rows = [_row(one) for one in run.measured if one.first(OURS) and one.first(PEER)]
        if rows:
            about = f"{line(run.machine)}; `{run.command}`, {run.when[:10]}:"
            parts.setdefault(about, []).extend(rows)
    header = [
        "| what | ours | ms | peer | ms | ours is so many times as fast |",
        "| --- | --- | ---: | --- | ---: | --- |",
    ]
    return "\n\n".join("\n".join([about, "", *header, *rows]) for about, rows in parts.items())


def _row(one: Measured) -> str:
    ours, peer = one.first(OURS), one.first(PEER)
    assert ours is not None
    assert peer is not None
    times = [figure(each.median * 1e3) for each in (ours, peer)]
    name = f"{one.op} {one.pass_} {one.case}, {one.shapes}"
    ratio = told(speed(ours, peer))
    return f"| {name} | {ours.name} | {times[0]} | {peer.name} | {times[1]} | {ratio} |"


def runs(folder: Path = RESULTS) -> list[Results]:
    """Return the runs that are kept in a folder, by name."""
    return [read(path) for path in sorted(folder.glob("*.json"))]


def split(readme: Path) -> tuple[str, str, str] | None:
    """Return what stands before, between and after the markers; None where there are none."""
    text = readme.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    inside, end, after = rest.partition(END)
    return (before, inside, after) if begin and end else None


def write(found: list[Results], readme: Path = README) -> None:
    """Put the table between the markers.

    Raises:
        UserError: there are no markers, or no runs.
    """
    parts = split(readme)
    if parts is None:
        raise UserError(f"{readme} has no place for it: put {BEGIN} and {END} where it belongs")
    if not found:
        raise UserError(f"no runs are kept in {RESULTS}: tinyvid bench conv3d --out {RESULTS}")
    before, _, after = parts
    readme.write_text(f"{before}{BEGIN}\n\n{table(found)}\n\n{END}{after}", encoding="utf-8")


def stale(found: list[Results], readme: Path = README) -> bool:
    """Return whether the README has a table that is not of these runs."""
    parts = split(readme)
    return parts is not None and parts[1].strip() != table(found)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    try:
        found = runs()
        if args.write:
            write(found)
        elif not args.check:
            print(table(found) or f"no runs are kept in {RESULTS}")
        if args.check and stale(found):
            raise UserError(f"{README} is stale: run python benchmarks/tables.py --write")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
