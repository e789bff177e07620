"""Print what is known of compiled kernels: registers, spills, occupancy, the main loop.

No GPU and no driver is needed.
"""

from __future__ import annotations

import argparse
import sys

from tinyvid.errors import UserError
from tinyvid.kernels.inspection.compile import compile_file, nvrtc_version
from tinyvid.kernels.inspection.facts import Facts, inspect
from tinyvid.kernels.inspection.resources import kernel_symbol, resources

ARCHS = ("sm_80", "sm_90", "sm_100")


def main() -> None:
    """Run the command."""
    args = _parser().parse_args()
    try:
        _print(args)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m tinyvid.kernels.inspection", description=__doc__)
    parser.add_argument("file", help="CUDA C++, such as kernels/conv3d/tiled.cu")
    parser.add_argument("--kernel", action="append", help="default: every kernel of the file")
    parser.add_argument("--arch", action="append", help=f"default: {', '.join(ARCHS)}")
    parser.add_argument(
        "-D", action="append", default=[], metavar="NAME[=VALUE]", help="define a macro"
    )
    parser.add_argument(
        "--case", help="take the sizes of a case of 3-D convolution, such as c3d_conv3b"
    )
    parser.add_argument("--block", type=int, help="threads; default: those of __launch_bounds__")
    parser.add_argument("--shared", type=int, default=0, help="bytes of dynamic shared memory")
    parser.add_argument("--code", action="store_true", help="list the main loop's instructions")
    return parser


def _print(args: argparse.Namespace) -> None:
    constants: dict[str, object] = {}
    if args.case:
        constants |= _sizes(args.case)
    for macro in args.D:
        name, equals, value = macro.partition("=")
        constants[name] = value if equals else True
    print(f"NVRTC {nvrtc_version()}")
    for arch in args.arch or ARCHS:
        names = tuple(name for name in args.kernel or () if "<" in name)
        compiled = compile_file(args.file, arch, constants, names)
        for kernel in args.kernel or resources(compiled):
            kernel_symbol(compiled, kernel)
            facts = inspect(args.file, kernel, arch, constants, args.block, args.shared, names)
            print("\n" + text(facts))
            if args.code:
                _print_code(facts)


def text(facts: Facts) -> str:
    """Return a few lines that tell the facts."""
    used, held, loop = facts.resources, facts.occupancy, facts.loop
    spills = "no spills"
    if used.spills:
        spills = f"spills {used.spill_stores} bytes stored, {used.spill_loads} loaded"
    taken = f"{used.registers} registers, {spills}, {used.stack} bytes of local memory"
    filled = f"occupancy {held.share:.0%}: {held.blocks} blocks, {held.warps} warps"
    what = "main loop" if loop.repeats else "no loop; all of it"
    where = f"lines {loop.lines[0]}-{loop.lines[1]}" if loop.lines[1] else "no line known"
    kinds = ", ".join(f"{n} {kind}" for kind, n in sorted(loop.kinds.items(), key=lambda k: -k[1]))
    rows = [
        f"{facts.kernel}  {facts.arch}, {facts.threads} threads a block",
        f"  {taken}, {facts.shared} bytes of shared memory",
        f"  {filled}; limited by {' and '.join(held.limiters)}",
        f"  {what}: {loop.size} instructions, {loop.ffma_share:.1%} FFMA or DFMA, {where}",
        f"    {kinds}",
    ]
    for what, bits in (("global loads", loop.load_bits), ("shared loads", loop.shared_bits)):
        if bits:
            widths = ", ".join(f"{n} of {b} bits" for b, n in sorted(bits.items(), reverse=True))
            rows.append(f"    {what}: {widths}")
    if facts.local:
        most = sorted(facts.local.items(), key=lambda line: -line[1])
        rows.append(f"    local memory: {', '.join(f'{n} at {place}' for place, n in most)}")
    if loop.stages:
        rows.append(f"    asynchronous copies: at least {loop.stages} stages")
    if loop.divisions:
        rows.append(f"    integer divisions: {', '.join(loop.divisions)}")
    return "\n".join(rows)


def _print_code(facts: Facts) -> None:
    before = ("", 0)
    for i in facts.loop.code:
        if (i.file, i.line) != before:
            before = (i.file, i.line)
            print(f"  {i.file}:{i.line}")
        print(f"    {i.address:05x} {i.predicate:>4} {i.opcode} {i.operands}")


def _sizes(name: str) -> dict[str, object]:
    """Return the macros that compile a kernel of 3-D convolution for the sizes of a case."""
    from tinyvid.errors import nearest
    from tinyvid.kernels.conv3d.cases import CASES
    from tinyvid.kernels.conv3d.cuda import members

    cases = {case.name: case for case in CASES}
    if name not in cases:
        raise UserError(f"no case is called {name!r}.{nearest(name, cases)}")
    sizes = {f"GEOMETRY_{member}": n for member, n in members(cases[name].geometry).items()}
    return {"GEOMETRY_CONSTANTS": True, **sizes}


if __name__ == "__main__":
    main()
