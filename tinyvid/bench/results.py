"""What a run measured: kept as JSON, shown as CSV and Markdown, compared with another run."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tinyvid.bench.machine import line
from tinyvid.bench.statistics import Interval, median_interval, quotient, spread, verdict
from tinyvid.errors import UserError

FORMAT = 1
OURS, PEER = "ours", "peer"
UNKNOWN = Interval(0.0, math.nan, math.inf)


@dataclass
class Line:
    """One contestant.

    Attributes:
        name: of the variant or the peer. role: `ours` or `peer`. arithmetic: as of a peer.
        seconds: of one call, in each round; empty where the result was wrong.
        fault: what was wrong, or why it could not be timed.
        note: why it does not take this task, or anything else there is to say.
    """

    name: str
    role: str
    seconds: list[float] = field(default_factory=list)
    fault: str | None = None
    arithmetic: str = "float32"
    note: str = ""

    @property
    def median(self) -> float:
        return float(np.median(self.seconds))


@dataclass
class Measured:
    """All contestants of a task, timed in the same rounds; the first is compared with all others.

    Attributes:
        op, pass_, case: what was timed. shapes: in words.
        flops, moved: operations, and bytes that must be moved; 0 where they are not known.
        checked: what results were compared with, in words.
        label: what it is called in a table; or empty.
        goals: how many times as fast as each of some peers ours is meant to be, by their names.
        within: the seconds that ours is meant to take at most; 0 where nothing is meant.
        clocks: of a GPU, before and after; see `gpu.clocks`.
    """

    op: str
    pass_: str
    case: str
    shapes: str
    flops: int
    moved: int
    checked: str
    lines: list[Line] = field(default_factory=list)
    label: str = ""
    goals: dict[str, float] = field(default_factory=dict)
    within: float = 0.0
    clocks: list[dict[str, Any]] = field(default_factory=list)

    @property
    def timed(self) -> list[Line]:
        """Those with times."""
        return [one for one in self.lines if one.seconds]

    def first(self, role: str) -> Line | None:
        """Return the first of a role that was timed."""
        return next((one for one in self.timed if one.role == role), None)

    def pairs(self) -> Iterator[tuple[Line, Line, Line]]:
        """Yield (where to show it, ours, the peer): the first one with each of the others."""
        if not self.timed:
            return
        first, *others = self.timed
        for other in others:
            if first.role == OURS:
                yield other, first, other
            else:
                yield other, other, first

    @property
    def slowed(self) -> list[str]:
        """What slowed the GPU down, in words."""
        return list(dict.fromkeys(why for seen in self.clocks for why in seen["slowed down by"]))

    def reached(self) -> list[tuple[str, str]]:
        """Return (goal, what became of it) for each goal: `met`, `missed` or `cannot tell`.

        It is met or missed if the whole interval lies on one side of it. A peer that was not timed
        leaves it open.
        """
        ours = self.first(OURS)
        found = []
        for name, goal in self.goals.items():
            peer = next((line for line in self.timed if line.name == name), None)
            known = speed(ours, peer) if ours and peer else UNKNOWN
            found.append((f"≥ {goal:g}× {name}", _beside(known, goal)))
        if self.within:
            known = median_interval(self.within / np.array(ours.seconds)) if ours else UNKNOWN
            found.append((f"≤ {self.within * 1e6:g} µs", _beside(known, 1.0)))
        return found


def _beside(value: Interval, goal: float) -> str:
    if value.low >= goal:
        return "met"
    return "missed" if value.high < goal else "cannot tell"


def speed(ours: Line, other: Line) -> Interval:
    """Return how many times as fast ours is, from the ratios within each round."""
    return median_interval(np.array(other.seconds) / np.array(ours.seconds))


@dataclass
class Results:
    """A run.

    Attributes:
        command: what was typed. when: the moment it began, ISO 8601, UTC.
        machine: see `machine.describe`. notes: warnings, and peers that were skipped.
        gflops, gbps: the ceilings; 0 where none were measured.
    """

    command: str
    when: str
    machine: dict[str, Any]
    notes: list[str]
    gflops: float = 0.0
    gbps: float = 0.0
    measured: list[Measured] = field(default_factory=list)

    def bound(self, of: Measured) -> float:
        """Return the least seconds that the ceilings allow; 0 where they are not known."""
        times = [of.flops / self.gflops / 1e9] if self.gflops else []
        times += [of.moved / self.gbps / 1e9] if self.gbps else []
        return max(times, default=0.0)

    def rows(self) -> list[dict[str, Any]]:
        """Return a row of plain values for each contestant, for CSV and Markdown."""
        found = []
        for one in self.measured:
            ratios = {id(at): (ours, peer) for at, ours, peer in one.pairs()}
            for each in one.lines:
                row: dict[str, Any] = {
                    "op": one.op,
                    "pass": one.pass_,
                    "case": one.case,
                    "who": each.name,
                    "role": each.role,
                    "arithmetic": each.arithmetic,
                }
                row |= self._figures(one, each)
                if id(each) in ratios:
                    found_speed = speed(*ratios[id(each)])
                    row |= {
                        "ours/peer": found_speed.middle,
                        "low": found_speed.low,
                        "high": found_speed.high,
                        "ours is": verdict(found_speed),
                    }
                row["fault"] = each.fault or ""
                found.append(row)
        return found

    def _figures(self, one: Measured, each: Line) -> dict[str, Any]:
        if not each.seconds:
            return {}
        low, high = np.quantile(each.seconds, (0.25, 0.75)) * 1e3
        found = {
            "ms": each.median * 1e3,
            "quartile 1": float(low),
            "quartile 3": float(high),
            "rounds": len(each.seconds),
        }
        if one.flops:
            found["GFLOP/s"] = one.flops / each.median / 1e9
        if one.moved:
            found["GB/s"] = one.moved / each.median / 1e9
        if self.bound(one):
            found["of ceiling"] = self.bound(one) / each.median
        return found

    def write(self, folder: Path, name: str) -> list[Path]:
        """Write `<name>.json`, `.csv` and `.md` into a folder, and return their paths."""
        folder.mkdir(parents=True, exist_ok=True)
        texts = {"json": self.json(), "csv": self.csv(), "md": self.markdown()}
        paths = [folder / f"{name}.{ending}" for ending in texts]
        for path, text in zip(paths, texts.values(), strict=True):
            path.write_text(text, encoding="utf-8")
        return paths

    def json(self) -> str:
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1, ensure_ascii=False) + "\n"

    def csv(self) -> str:
        rows, out = self.rows(), io.StringIO()
        names = list(dict.fromkeys(name for row in rows for name in row))
        writer = csv.DictWriter(out, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return out.getvalue()

    def markdown(self) -> str:
        """Return the table, with the machine, the command and what results were checked by."""
        header = ("op", "pass", "case", "who", "ms", "GFLOP/s", "GB/s", "of ceiling", "ours/peer")
        lines = ["| " + " | ".join(header) + " |", "| --- " * 4 + "| ---: " * 5 + "|"]
        for row in self.rows():
            cells = [str(row[name]) for name in header[:4]]
            cells += [_cell(row, name) for name in header[4:]]
            lines.append("| " + " | ".join(cells) + " |")
        ceilings = f"Ceilings: {self.gflops:.0f} GFLOP/s, {self.gbps:.1f} GB/s.\n" * bool(self.gbps)
        checks = sorted({one.checked for one in self.measured})
        checked = "".join(f"Results compared with {how}.\n" for how in checks)
        notes = "".join(f"Note: {note}.\n" for note in self.notes)
        about = f"{line(self.machine)}.\n{ceilings}{checked}{notes}"
        return f"`{self.command}`, {self.when}\n\n{about}\n" + "\n".join(lines) + "\n"


def _cell(row: dict[str, Any], name: str) -> str:
    if name == "ms" and row["fault"]:
        return f"failed: {row['fault']}"
    if name not in row:
        return ""
    if name == "ours/peer":
        return told(Interval(row["low"], row[name], row["high"]))
    if name == "ms" and row[name] < 0.1:
        return f"{row[name]:.2g}"
    return f"{row[name]:.0%}" if name == "of ceiling" else figure(row[name])


def figure(value: float) -> str:
    """Return a number to about three digits, and to two places at most."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def told(ratio: Interval) -> str:
    """Return a ratio with its interval and what it says."""
    if not math.isfinite(ratio.high):
        return f"{figure(ratio.middle)} cannot tell: too few rounds"
    return f"{ends(ratio)} {verdict(ratio)}"


def ends(ratio: Interval) -> str:
    """Return a ratio with its interval."""
    return f"{figure(ratio.middle)} ({figure(ratio.low)}–{figure(ratio.high)})"


def read(path: Path) -> Results:
    """Return the results in a JSON file.

    Raises:
        UserError: it is not there, or not a file of results.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found.pop("format") != FORMAT:
            raise UserError(f"{path} was written by another version of tinyvid: measure anew")
        measured = [
            Measured(**{**one, "lines": [Line(**each) for each in one["lines"]]})
            for one in found.pop("measured")
        ]
        return Results(**found, measured=measured)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} is not a file of results of `tinyvid bench --out`") from error


@dataclass(frozen=True)
class Change:
    """What became of one of ours from one run to another.

    Attributes:
        what: op, pass, case and, unless it is the preferred one, the variant.
        through: the peer whose times in both runs take out what the machine did; or empty.
        speed: that of the second run, as a multiple of the first's.
    """

    what: str
    through: str
    speed: Interval

    @property
    def verdict(self) -> str:
        return verdict(self.speed)


def compare(before: Results, after: Results) -> tuple[list[Change], list[str]]:
    """Return the changes of what both runs measured, and what to bear in mind.

    Where both timed the same peer beside ours, ours is measured by it, so that a machine that was
    busier in one of the runs does not show. Otherwise by the times themselves.
    """
    notes = []
    for what in ("processor", "gpu", "threads", "environment"):
        if before.machine.get(what) != after.machine.get(what):
            notes.append(f"the {what} differs: {before.machine[what]}, then {after.machine[what]}")
    versions = [run.machine["versions"].get("torch") for run in (before, after)]
    if versions[0] != versions[1]:
        notes.append(f"PyTorch differs: {versions[0]}, then {versions[1]}")
    old = {(m.op, m.pass_, m.case, m.shapes): m for m in before.measured}
    changes: list[Change] = []
    for one in after.measured:
        past = old.get((one.op, one.pass_, one.case, one.shapes))
        changes += _changes(past, one) if past else []
    return changes, notes


def _changes(before: Measured, after: Measured) -> Iterator[Change]:
    peers = [[x.name for x in run.timed if x.role == PEER] for run in (before, after)]
    through = next((name for name in peers[1] if name in peers[0]), "")
    preferred = [run.first(OURS) for run in (before, after)]
    for new in (x for x in after.timed if x.role == OURS):
        same = [x for x in before.timed if x.role == OURS and x.name == new.name]
        old = same[0] if same else preferred[0] if new is preferred[1] else None
        if old is None:
            continue
        sides = ((_line(before, through), old), (_line(after, through), new))
        if through:
            a, b = (speed(ours, peer) for peer, ours in sides)
        else:
            a, b = (median_interval(1 / np.array(ours.seconds)) for _, ours in sides)
        name = new.name if old.name == new.name else f"{old.name} → {new.name}"
        what = f"{after.op} {after.pass_} {after.case} {name}"
        yield Change(what, through, quotient(b, a))


def _line(run: Measured, name: str) -> Any:
    return next((x for x in run.timed if x.name == name), None)


def noisy(of: Measured, limit: float = 0.2) -> bool:
    """Return whether times varied so much that only ratios mean anything."""
    return any(spread(one.seconds) > limit for one in of.timed)
