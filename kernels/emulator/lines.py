"""From addresses in a build's code to lines of the kernel's own source.

`addr2line` is asked once for all addresses of a launch, and for none twice. Lines of the emulator's
headers are left out.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tinyvid.errors import UserError

EMULATOR = Path(__file__).resolve().parent
_KNOWN: dict[str, dict[int, list[Place]]] = defaultdict(dict)  # library -> address -> frames


@dataclass(frozen=True)
class Place:
    """A line of source, and the function it stands in where that is known."""

    file: str
    line: int
    function: str = ""

    def __str__(self) -> str:
        return f"{shown(self.file)}:{self.line}" if self.line else "an unknown line"


NOWHERE = Place("?", 0)


def frames_of(library: str | Path, addresses: Iterable[int]) -> dict[int, list[Place]]:
    """Return the places of instructions, given by their distance from the library's first byte.

    Each has several where functions are inlined: its own, then the call of that function, and so
    on outwards; none where it is the emulator's own.

    Raises:
        UserError: there is no addr2line.
    """
    wanted, known = set(addresses), _KNOWN[str(library)]
    missing = sorted(wanted - known.keys())
    if missing:
        known.update(zip(missing, _ask(str(library), missing), strict=True))
    return {address: known[address] for address in wanted}


def line_of(library: str | Path, address: int) -> Place:
    """Return the line of one instruction."""
    frames = frames_of(library, [address])[address]
    return frames[0] if frames else NOWHERE


def _ask(library: str, addresses: list[int]) -> list[list[Place]]:
    program = shutil.which("addr2line") or shutil.which("llvm-addr2line")
    if program is None:
        raise UserError(
            "the access checker needs addr2line to name the lines of its findings; install it "
            "(Debian and Ubuntu: apt install binutils; Fedora: dnf install binutils)"
        )
    done = subprocess.run(
        [program, "-e", library, "-a", "-f", "-i", "-C", *map(hex, addresses)],
        capture_output=True,
        text=True,
        check=True,
    )
    # For each address a row with it, then two rows for each frame: function, file:line.
    found: list[list[Place]] = []
    rows = iter(done.stdout.splitlines())
    for row in rows:
        if row.startswith("0x") and ":" not in row:
            found.append([])
            continue
        file, _, line = next(rows, "??:0").split(" (discriminator")[0].rpartition(":")
        path = os.path.normpath(file)
        if line.isdigit() and int(line) and EMULATOR not in Path(path).parents:
            found[-1].append(Place(path, int(line), row.partition("(")[0].rpartition("::")[2]))
    return found


def shown(file: str) -> str:
    """Return a path as a person sees it: relative where that is no longer."""
    try:
        relative = os.path.relpath(file)
    except ValueError:  # another drive
        return file
    return relative if not relative.startswith(os.pardir) else file
