"""What the access checker finds: findings, what lines cost, and how many become one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from tinyvid.kernels.emulator.lines import Place

UNINITIALISED = "uninitialised read"
MOST_TOLD = 20  # findings in the text of an error

Triple = tuple[int, int, int]


@dataclass(frozen=True)
class Finding:
    """One fault of a kernel; `str()` is the sentence that a person reads.

    Attributes:
        kind: "race", "out of bounds", "uninitialised read", "copy not waited for", "source changed
            during copy", "misaligned access", "write to constant memory", or a kind that the
            runtime names: "undefined shuffle", "divergent barrier", "divergent collective", "too
            much shared memory"...
        kernel: the kernel's name. place: where the access stands. callers: from where that
            function was called, innermost first.
        block, thread: who made it, as (x, y, z).
        action: "reads", "writes" or "updates" (an atomic); empty for a fault of the runtime.
        array, space: the memory's name, and "shared", "global" or "constant". Both are empty
            where no array is near.
        offset, bytes, size: where the access begins, counted in bytes from the start of the array,
            and how many it covers; the size of the array.
        other_place, other_block, other_thread, other_action: the other end of a race, as far
            as it is known; else None and "". other_callers: likewise. Where threads wait for each
            other in two places, other_place is the second.
        text: what is wrong, without place, block and thread.
        count: how many accesses were found at this line. runs: in which runs, where one thing was
            run in several orders; else empty.
    """

    kind: str
    kernel: str
    place: Place
    block: Triple
    thread: Triple
    text: str
    action: str = ""
    array: str = ""
    space: str = ""
    offset: int = 0
    bytes: int = 0
    size: int = 0
    other_place: Place | None = None
    other_block: Triple | None = None
    other_thread: Triple | None = None
    other_action: str = ""
    callers: tuple[Place, ...] = ()
    other_callers: tuple[Place, ...] = ()
    count: int = 1
    runs: frozenset[int] = frozenset()

    @property
    def file(self) -> str:
        return self.place.file

    @property
    def line(self) -> int:
        return self.place.line

    @property
    def other_line(self) -> int | None:
        return self.other_place.line if self.other_place else None

    @property
    def key(self) -> tuple:
        """What is the same of all findings that are told as one: kind, kernel, array and lines."""
        ends = {(self.file, self.line)}
        if self.other_place and self.kind in ("race", "divergent barrier", "divergent collective"):
            ends.add((self.other_place.file, self.other_place.line))
        return self.kind, self.kernel, self.array, frozenset(ends)

    @property
    def sentence(self) -> str:
        """What a person reads, but for the calls that led there."""
        times = f" ({self.count} times{self._runs})" if self.count > 1 else ""
        who = f"{self.kernel}, block {self.block}, thread {self.thread}"
        # What an access does is said of the thread; the runtime's words are a sentence.
        does = f" {self.text}" if self.action else f": {self.text}"
        return f"{self.place}: {self.kind}: {who}{does}{times}"

    @property
    def _runs(self) -> str:
        return f" in {len(self.runs)} runs" if len(self.runs) > 1 else ""

    def __str__(self) -> str:
        callers = f" [called from {', '.join(map(str, self.callers))}]" if self.callers else ""
        return self.sentence + callers


@dataclass(frozen=True)
class LineCount:
    """What the accesses of one line to one kind of memory cost.

    Attributes:
        place: the line. space: "shared" or "global". access: "read" or "write".
        bytes: of one thread's access.
        requests: how many instructions of whole warps.
        moved: wavefronts of shared memory, or 32-byte sectors of global memory.
        fewest: how few would have done for these widths and active lanes. Of shared memory, one
            wavefront for each 128 bytes' worth of lanes; of global memory, as many sectors as
            the distinct bytes fill.

    Atomics are not counted, and of a loop in which a warp's lanes never meet, the first 8192 turns.
    """

    place: Place
    space: str
    access: str
    bytes: int
    requests: int
    moved: int
    fewest: int

    @property
    def ratio(self) -> float:
        """How many times the fewest: 1 is perfect."""
        return self.moved / self.fewest


class AccessError(RuntimeError):
    """A checked launch has findings; they are in `findings`, and the message tells the first."""

    def __init__(self, findings: Sequence[Finding]):
        self.findings = list(findings)
        lines = [str(finding) for finding in self.findings[:MOST_TOLD]]
        if len(self.findings) > MOST_TOLD:
            lines.append(f"and {len(self.findings) - MOST_TOLD} more")
        super().__init__("\n".join(lines))


def merge(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings with those of one kind, line and array made one, all counts added.

    Two lines that race, or where threads wait for each other, are one finding, whichever of them
    comes first; the calls that led to the other end are known from where it comes second.
    """
    kept: dict[tuple, Finding] = {}
    for finding in findings:
        key = finding.key
        if key in kept:
            first = _with_other_end(kept[key], finding)
            kept[key] = replace(
                first, count=first.count + finding.count, runs=first.runs | finding.runs
            )
        else:
            kept[key] = finding
    return list(kept.values())


def roots(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings without the uninitialised reads that others explain.

    Where threads race for an array, or a write that was meant for it went elsewhere, elements are
    read before they are written: one fault, not two.
    """
    found = list(findings)
    reads = [f for f in found if f.kind == UNINITIALISED]
    spoilt = {(f.kernel, f.array) for f in found if _leaves_unwritten(f)}
    kept = []
    for finding in found:
        if finding.kind == UNINITIALISED and (finding.kernel, finding.array) in spoilt:
            continue
        for read in reads if _leaves_unwritten(finding) else []:
            finding = _with_other_end(finding, read)
        kept.append(finding)
    return kept


def _leaves_unwritten(f: Finding) -> bool:
    if f.kind == "out of bounds":
        return f.action != "reads"
    return f.kind in ("race", "copy not waited for")


def _with_other_end(finding: Finding, other: Finding) -> Finding:
    """Return a finding with the calls that led to its other end, where `other` is about that."""
    if finding.other_callers or finding.other_place != other.place:
        return finding
    return replace(finding, other_callers=other.callers)


def merge_counts(counts: Iterable[LineCount]) -> list[LineCount]:
    """Return the counts with those of one line, memory, access and width added up, by line."""
    kept: dict[tuple, LineCount] = {}
    for c in counts:
        key = (c.place.file, c.place.line, c.space, c.access, c.bytes)
        if key in kept:
            k = kept[key]
            kept[key] = replace(
                k,
                requests=k.requests + c.requests,
                moved=k.moved + c.moved,
                fewest=k.fewest + c.fewest,
            )
        else:
            kept[key] = c
    return [kept[key] for key in sorted(kept)]
