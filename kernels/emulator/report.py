"""What the access checker found in a launch, in words, with the lines of the kernel's own file.

The checker (checker.cpp) keeps a finding with addresses in the compiled code; lines.py finds the
lines.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from tinyvid.kernels.emulator.lines import NOWHERE, Place, frames_of

_READ, _WRITE, _STRONG = 0, 1, 2  # findings.h
_SPACES = ("global", "constant", "shared")  # hooks.h
UNINITIALISED = "uninitialised read"
MOST_TOLD = 20  # findings in the text of an error

Triple = tuple[int, int, int]


# ---- what is found -----------------------------------------------------------------------------


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
        count: how many accesses were found at this line.
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
    def sentence(self) -> str:
        """What a person reads, but for the calls that led there."""
        times = f" ({self.count} times)" if self.count > 1 else ""
        who = f"{self.kernel}, block {self.block}, thread {self.thread}"
        # What an access does is said of the thread; the runtime's words are a sentence.
        does = f" {self.text}" if self.action else f": {self.text}"
        return f"{self.place}: {self.kind}: {who}{does}{times}"

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
    """Return the findings with those of one kind, line and array made one, their counts added.

    Two lines that race, or where threads wait for each other, are one finding, whichever of them
    comes first; the calls that led to the other end are known from where it comes second.
    """
    kept: dict[tuple, Finding] = {}
    for finding in findings:
        ends = {(p.file, p.line) for p in (finding.place, finding.other_place) if p}
        if finding.kind not in ("race", "divergent barrier", "divergent collective"):
            ends = {(finding.file, finding.line)}
        key = (finding.kind, finding.kernel, finding.array, frozenset(ends))
        if key in kept:
            first = _with_other_end(kept[key], finding)
            kept[key] = replace(first, count=first.count + finding.count)
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


# ---- from the checker ----------------------------------------------------------------------------


class _End(ctypes.Structure):  # findings.h: End
    _fields_ = [
        ("thread", ctypes.c_int64),
        ("block", ctypes.c_int64),
        ("warp", ctypes.c_int64),
        ("use", ctypes.c_int32),
        ("line", ctypes.c_int32),
        ("file", ctypes.c_char_p),
        ("address", ctypes.c_uint64),
    ]


class _Finding(ctypes.Structure):  # findings.h: Finding
    _fields_ = [
        ("kind", ctypes.c_char * 32),
        ("text", ctypes.c_char * 400),
        ("array", ctypes.c_char * 80),
        ("space", ctypes.c_int32),
        ("bytes", ctypes.c_int32),
        ("offset", ctypes.c_int64),
        ("size", ctypes.c_int64),
        ("count", ctypes.c_int64),
        ("here", _End),
        ("other", _End),
        ("callers", ctypes.c_uint64 * 24),
    ]


class _Line(ctypes.Structure):  # checker.cpp: LineOut
    _fields_ = [
        ("file", ctypes.c_char_p),
        ("address", ctypes.c_uint64),
        *[
            (name, ctypes.c_int64)
            for name in ("line", "shared", "write", "bytes", "requests", "moved", "fewest")
        ],
    ]


class Checker:
    """The checker in a loaded checked build.

    Args:
        library: as ctypes loaded it. path: its file, which has the debug lines.
    """

    def __init__(self, library: ctypes.CDLL, path: str | Path):
        self._library, self._path = library, str(path)

    def options(self, count_lines: bool = False, most: int = 1000) -> None:
        """Count what lines cost in the launches that follow; keep at most so many findings."""
        self._library.checker_options(int(count_lines), most)

    def take_findings(self, kernel: str, grid: Triple, block: Triple) -> list[Finding]:
        """Return what was found since the last call: in launches of this kernel and these sizes."""
        count = self._library.checker_finding_count()
        if not count:
            return []
        raw = (_Finding * count)()
        self._library.checker_take_findings(raw)
        ends = [end for f in raw for end in (f.here, f.other)]
        called = [[address - 1 for address in f.callers if address] for f in raw]
        frames_of(self._path, {a for chain in called for a in chain} | _addresses(ends))
        found = merge(
            _finding(
                f,
                kernel,
                grid,
                block,
                self._place(f.here) or NOWHERE,
                self._place(f.other),
                self._chain(chain),
            )
            for f, chain in zip(raw, called, strict=True)
        )
        return roots(found)

    def take_counts(self) -> list[LineCount]:
        """Return what lines have cost since the last call."""
        count = self._library.checker_line_count()
        raw = (_Line * count)()
        self._library.checker_take_lines(raw)
        frames_of(self._path, _addresses(raw))
        return merge_counts(
            LineCount(
                self._place(r) or NOWHERE,
                "shared" if r.shared else "global",
                "write" if r.write else "read",
                r.bytes,
                r.requests,
                r.moved,
                r.fewest,
            )
            for r in raw
            if r.requests
        )

    def _place(self, end: _End | _Line) -> Place | None:
        if end.file:
            return Place(os.path.normpath(end.file.decode()), end.line)
        if not end.address:
            return None
        frames = frames_of(self._path, [end.address - 1])[end.address - 1]
        return frames[0] if frames else NOWHERE

    def _chain(self, addresses: Sequence[int]) -> list[Place]:
        """Return the places on a stack, innermost first."""
        frames = frames_of(self._path, addresses)
        return [place for address in addresses for place in frames[address]]


def _addresses(ends: Iterable[_End | _Line]) -> set[int]:
    # A return address is that of the next instruction, which may be of the next line.
    return {end.address - 1 for end in ends if not end.file and end.address}


# ---- in words ----------------------------------------------------------------------------------


def _index(number: int, size: Triple) -> Triple:
    return number % size[0], number // size[0] % size[1], number // size[0] // size[1]


def _action(use: int) -> str:
    return "updates" if use == _WRITE | _STRONG else "writes" if use & _WRITE else "reads"


def _finding(
    raw: _Finding,
    kernel: str,
    grid: Triple,
    block: Triple,
    place: Place,
    other_place: Place | None,
    stack: Sequence[Place],
) -> Finding:
    here, other = raw.here, raw.other
    # The access is told with its own place; what is above it on the stack called it.
    at = [(p.file, p.line) for p in stack]
    own = (place.file, place.line)
    callers = stack[at.index(own) + 1 :] if own in at else stack
    finding = Finding(
        kind=raw.kind.decode(),
        kernel=kernel,
        place=place,
        callers=tuple(caller for caller, _ in groupby(callers)),
        block=_index(here.block, grid),
        thread=_index(here.thread, block),
        text=raw.text.decode(errors="replace"),
        other_place=other_place,
        count=raw.count,
    )
    if finding.text:  # the runtime's own words
        return finding
    finding = replace(
        finding,
        action=_action(here.use),
        array=raw.array.decode(errors="replace"),
        space=_SPACES[raw.space] if raw.space >= 0 else "",
        offset=raw.offset,
        bytes=raw.bytes,
        size=raw.size,
        other_block=_index(other.block, grid) if other.block >= 0 else None,
        other_thread=_index(other.thread, block) if other.thread >= 0 else None,
        other_action=_action(other.use) if other_place else "",
    )
    return replace(finding, text=_sentence(finding, other.warp))


def _sentence(f: Finding, other_warp: int) -> str:
    what = f"{f.space} {f.array or 'memory'}"
    if f.bytes <= 8 and f.offset % max(f.bytes, 1) == 0:
        what += f" element {f.offset // max(f.bytes, 1)} (byte {f.offset} of {f.size})"
    else:  # of a vector; its elements may be anything
        what += f" bytes {f.offset} to {f.offset + f.bytes - 1} of {f.size}"
    if f.kind == "out of bounds":
        return f"{f.action} {f.bytes} bytes {_beyond(f)}"
    if f.kind == UNINITIALISED:
        return f"reads {what}, which nothing has written"
    if f.kind == "misaligned access":
        return f"{f.action} {f.bytes} bytes at an address that is no multiple of {f.bytes}: {what}"
    if f.kind == "write to constant memory":
        return f"writes {what}"
    who = _other(f, other_warp)
    if f.kind == "race":
        return f"{f.action} {what}, which {who} {f.other_action}{_at(f)}; nothing orders the two"
    if f.kind == "copy not waited for":
        return (
            f"{f.action} {what}, which a cp.async of {who}{_at(f)} may be writing still: its "
            "cp_async_wait has not been reached"
        )
    if f.kind == "source changed during copy":
        return f"copies {what} with cp.async, and {who} writes it{_at(f)} before the copy's wait"
    return f"{f.action} {what}"


def _beyond(f: Finding) -> str:
    if not f.space:
        return "where the kernel has no memory at all"
    name = f"{f.space} {f.array}" if f.array else f"{f.space} memory"
    element = ""
    if f.bytes in (4, 8) and f.offset % f.bytes == f.size % f.bytes == 0:
        element = f": element {f.offset // f.bytes} of {f.size // f.bytes}"
    if f.offset < 0:
        return f"at byte {f.offset}, before the start of {name} ({f.size} bytes){element}"
    return f"at byte {f.offset} of {name}, which has {f.size}{element}"


def _other(f: Finding, warp: int) -> str:
    if f.other_thread == f.thread and f.other_block == f.block:
        return "the same thread"
    if f.other_thread is not None:
        who = f"thread {f.other_thread}"
    elif warp >= 0:
        who = f"a thread of warp {warp}"
    else:
        who = "a thread"
    if f.other_block is not None and f.other_block != f.block:
        return f"{who} of block {f.other_block}"
    return who


def _at(f: Finding) -> str:
    if f.other_place is None or not f.other_place.line:
        return ""
    if f.other_place.file == f.place.file:
        same = " too" if f.other_place.line == f.place.line and f.kind == "race" else ""
        return f" in line {f.other_place.line}{same}"
    return f" in {f.other_place}"
