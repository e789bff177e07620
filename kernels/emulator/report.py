"""From what the access checker keeps (findings.h) to findings in words, with lines of the source.

The checker knows places by addresses in the compiled code; lines.py finds the lines.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from tinyvid.kernels.emulator.found import (
    UNINITIALISED,
    Finding,
    LineCount,
    Triple,
    merge,
    merge_counts,
    roots,
)
from tinyvid.kernels.emulator.lines import NOWHERE, Place, frames_of

_READ, _WRITE, _STRONG = 0, 1, 2  # findings.h
_SPACES = ("global", "constant", "shared")  # hooks.h


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
    if f.bytes <= 8 and f.offset % max(f.bytes, 1) == 0:
        what = f"element {f.offset // max(f.bytes, 1)} of {_named(f)}"
        what += f" (byte {f.offset} of {f.size})"
    else:  # of a vector; its elements may be anything
        what = f"bytes {f.offset} to {f.offset + f.bytes - 1} of {_named(f)}"
        what += f" ({f.size} bytes)"
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


def _named(f: Finding) -> str:
    """Return the memory's name, marked as one: an array may be called `shared`."""
    return f"{f.space} array `{f.array}`" if f.array else f"{f.space} memory"


def _beyond(f: Finding) -> str:
    if not f.space:
        return "where the kernel has no memory at all"
    element = ""
    if f.bytes in (4, 8) and f.offset % f.bytes == f.size % f.bytes == 0:
        element = f": element {f.offset // f.bytes} of {f.size // f.bytes}"
    if f.offset < 0:
        return f"at byte {f.offset}, before the start of {_named(f)} ({f.size} bytes){element}"
    return f"at byte {f.offset} of {_named(f)}, which has {f.size}{element}"


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
