"""The certificate of the kernels: what is checked of each, what it compiles to, what bounds it.

    python -m tinyvid.kernels.certificate             print the certificate as it is written down
    python -m tinyvid.kernels.certificate --write     run every check anew and write it down;
                                                      with --variant, those of one variant
    python -m tinyvid.kernels.certificate --compile   compile anew and write down the facts
    python -m tinyvid.kernels.certificate --check     fail if it is stale or a budget is broken
    python -m tinyvid.kernels.certificate --budgets   compile only, and tell the budgets broken

It stands in `kernels/README.md`, between markers. `--check` compiles, but runs no kernel: it makes
sure that each takes the cases it took, and passed when the certificate was written. That they
pass still is for the tests to say, which run them; or for `--check --run`.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import textwrap
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from tinyvid.errors import UserError, nearest
from tinyvid.kernels.inspection.budget import limits, violations
from tinyvid.kernels.inspection.compile import KERNELS, nvrtc_version
from tinyvid.kernels.inspection.facts import Facts, inspect
from tinyvid.kernels.inspection.program import Program, programs
from tinyvid.kernels.inspection.roofline import GPUS, bound
from tinyvid.kernels.registry import TARGETS, Kernel, Variant, kernels

README = KERNELS / "README.md"
BEGIN, END = "<!-- certificate: written by a script -->", "<!-- end of certificate -->"
ARCHS = ("sm_80", "sm_90", "sm_100")
NONE, FAILED = "–", "NO"
_ERRORS = ("largest error", "error / √n")

CHECKED, COMPILED, BOUNDS = "What is checked", "What it compiles to", "What the hardware allows"
_ABOUT = {
    CHECKED: (
        "Largest error: the largest difference from the reference in float64, of float32 results, "
        "relative to the largest element; at most {float32:g} agrees, and where operands are "
        "rounded to TF32 or bf16, at most {rounded:g} from the reference of operands rounded "
        "alike. Error / √n: the largest difference of sums of n products of unit variance, divided "
        "by √n; CUDA's agrees if it is at most {root:g}, too. First and second derivatives in "
        "float64 against differences; memory accesses under the emulator's checker, in six "
        "schedules. `numba/*` run in Numba's simulator, on small cases."
    ),
    COMPILED: (
        "By NVRTC {version}, in float32 for the sizes of the layer named below. Kinds of "
        "instructions in the main loop, or in the whole kernel where it has none. Kept: whether "
        "the machine code keeps within the limits. That kernels with limits beside that on spills "
        "have no bank conflicts is counted on the emulator, by the tests."
    ),
    BOUNDS: (
        "Upper bounds from vendors' peaks: each array moved once, and the operations of the "
        "definition. No GPU was timed."
    ),
}


@dataclass(frozen=True)
class Table:
    """A table of the certificate; the cells are text."""

    title: str
    about: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


# ---- what is checked -----------------------------------------------------------------------------


def checked_table(run: bool, only: str | None = None, op: str | None = None) -> Table:
    """Return a row for each variant of each pass.

    Args:
        run: run the checks; else only count the cases, and leave the other cells empty.
        only: a variant or a target; op: an operation; all by default.
    """
    from tinyvid.checking.suite import AGREEMENT, PER_ROOT, ROUNDED_AGREEMENT

    header = ("op", "pass", "variant", "cases", *_ERRORS, "agrees", "gradient", "accesses")
    rows = []
    for kernel in kernels():
        for variant in kernel.variants.values():
            if _wanted(variant.name, only) and op in (None, kernel.op):
                cells = _run(kernel, variant) if run else (_cases(kernel, variant), *[""] * 5)
                rows.append((kernel.op, kernel.pass_, variant.name, *cells))
    most = {"float32": AGREEMENT["float32"], "rounded": ROUNDED_AGREEMENT, "root": PER_ROOT}
    return Table(CHECKED, _ABOUT[CHECKED].format(**most), header, tuple(rows))


def _cases(kernel: Kernel, variant: Variant) -> str:
    from tinyvid.checking.races import arguments

    return str(len(arguments(kernel, variant)))


def _run(kernel: Kernel, variant: Variant) -> tuple[str, ...]:
    if sys.stderr.isatty():
        print(f"{kernel.name} {variant.name}", file=sys.stderr)
    from tinyvid.checking.races import check_accesses
    from tinyvid.checking.suite import jobs

    cuda = variant.target == "cuda"
    device = "cpu" if variant.target in TARGETS["cpu"] else "emulator"
    rows = [job.run() for job in jobs(kernel.name, variant.name, device)]
    single = next(row for row in rows if row.dtype == "float32")
    differentiated = [row.passed for row in rows if row.gradient is not None]
    return (
        str(single.cases),
        *(NONE if e is None else f"{e:.1e}" for e in (single.agreement, single.per_root)),
        _yes(single.passed),
        _yes(all(differentiated)) if differentiated else NONE,
        _yes(not check_accesses(kernel, variant)) if cuda else NONE,
    )


def _yes(good: bool) -> str:
    return "yes" if good else FAILED


# ---- what it compiles to -------------------------------------------------------------------------


def facts_of(found: Sequence[Program], archs: Sequence[str] = ARCHS) -> list[Facts]:
    """Return the facts of each program on each architecture, in this order.

    Raises:
        UserError: one does not compile, or the tools are not installed.
    """

    def one(job: tuple[Program, str]) -> Facts:
        program, arch = job
        return inspect(
            KERNELS / program.file,
            program.kernel,
            arch,
            program.constants,
            program.block,
            program.dynamic_shared,
            (program.kernel,) if "<" in program.kernel else (),
        )

    # The compiler lets other threads run meanwhile.
    with ThreadPoolExecutor(max_workers=2) as pool:
        return list(pool.map(one, [(program, arch) for program in found for arch in archs]))


def compiled_table(found: Sequence[Program]) -> Table:
    """Return a row for each program and architecture."""
    header = (
        *("variant", "pass", "kernel", "on", "registers", "spilled bytes", "shared bytes"),
        *("occupancy", "limited by", "main loop", "limits", "kept"),
    )
    rows = []
    for program, facts in zip(_each(found), facts_of(found), strict=True):
        used, held = facts.resources, facts.occupancy
        rows.append(
            (
                f"{program.op} {program.variant}",
                program.pass_,
                program.kernel.removeprefix(f"{program.op}_"),
                facts.arch,
                str(used.registers),
                str(used.spills),
                str(facts.shared),
                f"{held.share:.0%}, {held.blocks} × {facts.threads} threads",
                ", ".join(held.limiters),
                _loop(facts),
                ", ".join(limits(program.budget, facts.arch)),
                _yes(not violations(facts, program.budget)),
            )
        )
    about = _ABOUT[COMPILED].format(version=nvrtc_version())
    return Table(COMPILED, about, header, tuple(rows))


def _each(found: Iterable[Program]) -> list[Program]:
    return [program for program in found for _ in ARCHS]


def _loop(facts: Facts) -> str:
    kinds = sorted(facts.loop.kinds.items(), key=lambda kind: (-kind[1], kind[0]))
    told = ", ".join(f"{count} {kind}" for kind, count in kinds)
    return f"{facts.loop.size}{'' if facts.loop.repeats else ' (no loop)'}: {told}"


def broken_budgets(found: Sequence[Program], archs: Sequence[str] | None = None) -> list[str]:
    """Return a sentence for each limit that a program does not keep to, by default on `ARCHS`."""
    archs = archs or ARCHS
    every = facts_of(found, archs)
    each = [program for program in found for _ in archs]
    return [
        f"{program.op} {program.pass_} {program.variant}: {sentence}"
        for program, facts in zip(each, every, strict=True)
        for sentence in violations(facts, program.budget)
    ]


# ---- what the hardware allows --------------------------------------------------------------------


def bounds_table(found: Iterable[Program]) -> Table:
    """Return a row for each variant and layer: at most so fast, for at least so long.

    Passes that must do the same share a row.
    """
    header = ("variant", "pass", "layer", "arithmetic", "FLOP/byte", *(gpu.name for gpu in GPUS))
    passes: dict[tuple[str, ...], list[str]] = {}
    for program in found:
        work, arithmetic = program.work, program.arithmetic
        if work is None:
            continue
        saved = f", {program.saving:g} times fewer" if program.saving != 1 else ""
        bounds = [bound(work, gpu, arithmetic, program.saving) for gpu in GPUS]
        row = (
            f"{program.op} {program.variant}",
            program.layer,
            arithmetic + saved,
            f"{work.intensity:{'.0f' if work.intensity >= 10 else '.2g'}}",
            *(f"≤ {b.tflops:.3g} TFLOP/s, ≥ {_micro(b.seconds)} µs: {b.by}" for b in bounds),
        )
        passes.setdefault(row, []).append(program.pass_)
    rows = tuple((row[0], ", ".join(names), *row[1:]) for row, names in passes.items())
    sources = "; ".join(f"{gpu.name}: {gpu.source}" for gpu in GPUS)
    return Table(BOUNDS, f"{_ABOUT[BOUNDS]} {sources}.", header, rows)


def _micro(seconds: float) -> str:
    return f"{seconds * 1e6:{'.0f' if seconds >= 1e-5 else '.2g'}}"


# ---- in writing ----------------------------------------------------------------------------------


def certificate(run: bool, only: str | None = None, op: str | None = None) -> list[Table]:
    """Return the tables of the certificate, of all variants or of one variant, target or operation.

    Raises:
        UserError: there is no such variant or operation, or a compiler is missing.
    """
    _check_known(only, op)
    found = [p for p in programs() if _wanted(p.variant, only) and op in (None, p.op)]
    tables = [checked_table(run, only, op)]
    if found:
        tables += [compiled_table(found), bounds_table(found)]
    return tables


def markdown(tables: Iterable[Table]) -> str:
    """Return the tables as Markdown."""
    parts = []
    for table in tables:
        rows = [table.header, ("---",) * len(table.header), *table.rows]
        lines = ["| " + " | ".join(row) + " |" for row in rows]
        about = textwrap.fill(table.about, 100, break_on_hyphens=False)
        parts.append(f"### {table.title}\n\n{about}\n\n" + "\n".join(lines))
    return "\n\n".join(parts)


def read(only: str | None = None, readme: Path = README, op: str | None = None) -> list[Table]:
    """Return the certificate as it is written down, of all or one variant, target or operation.

    Raises:
        UserError: the file has no certificate, or there is no such variant or operation.
    """
    _check_known(only, op)
    tables = []
    for part in _split(readme)[1].split("### ")[1:]:
        title, about, *body = (block.strip() for block in part.split("\n\n", 2))
        lines = body[0].splitlines()
        header, _, *rows = [tuple(c.strip() for c in line.strip("|").split("|")) for line in lines]
        about, variant = " ".join(about.split()), header.index("variant")
        rows = [row for row in rows if _wanted(row[variant].split(" ")[-1], only)]
        # Where there is no column of operations, they stand before the variant.
        of = header.index("op") if "op" in header else variant
        rows = [row for row in rows if op in (None, row[of].split(" ")[0])]
        tables.append(Table(title, about, header, tuple(rows)))
    return tables


def write(tables: Iterable[Table], readme: Path = README) -> None:
    """Put the tables in the place of those that are written down."""
    before, _, after = _split(readme)
    readme.write_text(f"{before}{BEGIN}\n\n{markdown(tables)}\n\n{END}{after}")


def filled(every: Table, *sources: Table) -> Table:
    """Return a table of checks with each row from the first source that has it.

    A row that none has counts as failed, until its checks are run.
    """
    known: dict[str, tuple[str, ...]] = {}
    for source in sources:
        if source.header != every.header:
            continue
        for row in source.rows:
            known.setdefault(_key(source, row), row)
    unknown = (NONE, NONE, *(FAILED,) * 3)
    rows = (known.get(_key(every, row), (*row[:4], *unknown)) for row in every.rows)
    return replace(every, rows=tuple(rows))


def _split(readme: Path) -> tuple[str, str, str]:
    text = readme.read_text()
    before, begin, rest = text.partition(BEGIN)
    inside, end, after = rest.partition(END)
    if not begin or not end:
        raise UserError(f"{readme} has no certificate: put {BEGIN} and {END} where it belongs")
    return before, inside, after


# ---- whether it still holds ----------------------------------------------------------------------

# The columns that tell a row from others.
KEYS = ("op", "variant", "pass", "kernel", "on", "layer")


def stale(written: Sequence[Table], now: Sequence[Table]) -> list[str]:
    """Return what is written down but is not so, a sentence each.

    Empty cells of `now` are not compared; nor are errors, whose digits depend on the
    machine, nor what another version of the compiler made.
    """
    old, new = ({table.title: table for table in tables} for tables in (written, now))
    found = []
    for title in {**old, **new}:
        if title not in old or title not in new:
            found.append(f"{title}: the table is {'missing' if title in new else 'too many'}")
        elif _version(old[title]) == _version(new[title]):
            found += _differences(old[title], new[title])
    for table in written:
        failed = [_key(table, row) for row in table.rows if FAILED in row]
        found += [
            f"{table.title}: {key} failed, or was not checked, when this was written"
            for key in failed
        ]
    return found


def _version(table: Table) -> str | None:
    """Return the version of the compiler that a table is of."""
    found = re.search(r"NVRTC (\S+),", table.about)
    return found[1] if found else None


def _differences(old: Table, new: Table) -> list[str]:
    if (old.header, old.about) != (new.header, new.about):
        return [f"{new.title}: the heading has changed"]
    before, after = ({_key(table, row): row for row in table.rows} for table in (old, new))
    found = [f"{old.title}: {key} is written down, but gone" for key in before if key not in after]
    found += [f"{old.title}: {key} is not written down" for key in after if key not in before]
    for key in before.keys() & after.keys():
        for name, was, now in zip(old.header, before[key], after[key], strict=True):
            if now not in ("", was) and name not in _ERRORS:
                found.append(f"{old.title}: {key} has {name} {now!r}; written down is {was!r}")
    return found


def _key(table: Table, row: tuple[str, ...]) -> str:
    cells = dict(zip(table.header, row, strict=True))
    return " ".join(cells[name] for name in KEYS if name in cells)


def _check_known(variant: str | None, op: str | None = None) -> None:
    ops = list(dict.fromkeys(kernel.op for kernel in kernels()))
    if op is not None and op not in ops:
        raise UserError(
            f"no operation with kernels is called {op!r}; there is {', '.join(ops)}."
            f"{nearest(op, ops)}"
        )
    names = [name for kernel in kernels() for name in kernel.variants]
    known = list(dict.fromkeys([*names, *(name.partition("/")[0] for name in names)]))
    if variant is not None and variant not in known:
        raise UserError(
            f"no variant is called {variant!r}; there is {', '.join(known)}."
            f"{nearest(variant, known)}"
        )


def _wanted(variant: str, only: str | None) -> bool:
    return only in (None, variant, variant.partition("/")[0])


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser("python -m tinyvid.kernels.certificate", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    for option in ("write", "compile", "check", "run", "budgets"):
        parser.add_argument(f"--{option}", action="store_true")
    parser.add_argument("--variant", help="of --write, --budgets: a variant or a target")
    args = parser.parse_args()
    if args.write or args.run:  # `numba/*` are checked in a simulator, on before Numba is imported
        os.environ["NUMBA_ENABLE_CUDASIM"] = "1"
    try:
        _check_known(args.variant)
        faults = _do(args)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    for fault in faults:
        print(fault, file=sys.stderr)
    raise SystemExit(1 if faults else 0)


def _do(args: argparse.Namespace) -> list[str]:
    if args.budgets:
        return broken_budgets([p for p in programs() if _wanted(p.variant, args.variant)])
    if args.write or args.compile:
        checks, *facts = certificate(run=False)
        sources = [table for table in read() if table.title == CHECKED]
        if args.write:
            sources.insert(0, checked_table(True, args.variant))
        write([filled(checks, *sources), *facts])
    if args.check:
        now = certificate(run=args.run)
        return stale(read(), now) + broken_budgets(programs())
    if not args.write and not args.compile:
        print(markdown(read()))
    return []


if __name__ == "__main__":
    main()
