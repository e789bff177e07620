"""What `tinyvid kernels check` launches: of comments, of options, of a Python file, of our own."""

from __future__ import annotations

import runpy
import textwrap
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from tinyvid.errors import UserError, nearest

if TYPE_CHECKING:
    from tinyvid.kernels.emulator.written import Runner

_T = TypeVar("_T")


@dataclass
class Planned:
    """What to launch of a file, under names, and what there is to say of it afterwards."""

    launches: list[tuple[str, Callable[[], object]]]
    unwritten: Callable[[], list[str]] = list  # of arrays: worth saying where nothing is found
    left_out: Callable[[], list[str]] = list  # of launches


@contextmanager
def planned(
    file: Path, words: list[str] | None, define: list[str], script: Path | None, only: str
) -> Iterator[Planned]:
    """Yield what to launch of a kernel file.

    Args:
        file: CUDA C++. words: of a launch in the options, else None. define: macros, `N=5`.
        script: a Python file that makes the launches, or None.
        only: launches to choose, by name.

    Raises:
        UserError: it cannot be launched so.
    """
    from tinyvid.kernels import files, launch
    from tinyvid.kernels.emulator import options
    from tinyvid.kernels.emulator.written import Runner, in_file, parse

    if not file.is_file():
        raise UserError(f"{file}: no such file")
    defines = [f"-D{text}" for text in define]
    written = [parse([*words, *defines], "the options")] if words else in_file(file)
    original = files.original_of(file)
    with options(checked=True):
        if script is not None:
            if only:
                raise UserError("--only: what --with launches has no names to choose from")
            yield Planned([(script.name, _run_of(script, file, define))])
        elif written:
            for one in written:
                one.defines.update(_macro(text) for text in define)
            written = _named(written, [one.kernel for one in written], only, file)
            runner = Runner(file, written)
            name = ", ".join(one.kernel for one in written)
            yield Planned([(name, runner)], partial(_unwritten, runner), partial(_left_out, runner))
        elif original is not None:
            with launch.stand_in(original, file):
                launches = list(files.launches_of(original))
                yield Planned(_named(launches, [name for name, _ in launches], only, file))
        else:
            raise UserError(
                f"{file}: nothing says how to launch it; write above its kernel, for example\n"
                "  // check: saxpy grid=4 block=256 a=2.5 x=[1000] y=[1000]:zeros n=1000\n"
                "or use --kernel and --arg, or --with a Python file"
            )


def _named(launches: list[_T], names: list[str], wanted: str, file: Path) -> list[_T]:
    """Return the launches of that name, or else those whose names hold it."""
    for fits in (str.__eq__, str.__contains__):
        chosen = [one for one, name in zip(launches, names, strict=True) if fits(name, wanted)]
        if chosen:
            return chosen
    known = list(dict.fromkeys(names))
    # Lines break between names, not within.
    listed = textwrap.fill(", ".join(name.replace(" ", "\0") for name in known), 96)
    listed = textwrap.indent(listed.replace("\0", " "), "  ")
    raise UserError(
        f"{file}: no launch is named {wanted!r}.{nearest(wanted, known)} There are\n{listed}"
    )


def _macro(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name.isidentifier():
        raise UserError(f"--define {text}: write NAME or NAME=value")
    return name, value if equals else "1"


def _unwritten(runner: Runner) -> list[str]:
    return [
        f"{place}: {missing} of {size} elements were never written"
        for place, (missing, size) in runner.unwritten.items()
    ]


def _left_out(runner: Runner) -> list[str]:
    return [
        f"{place} was not launched, for it shares an array with a launch that came to no end"
        for place in runner.left_out
    ]


# ---- launches of a Python file -----------------------------------------------------------------


def _run_of(script: Path, file: Path, define: list[str]) -> Callable[[], None]:
    """Return what calls a script's `launch` with the module of a kernel file."""
    from tinyvid.kernels import launch
    from tinyvid.kernels.emulator import build

    if not script.is_file():
        raise UserError(f"{script}: no such file")
    with _errors_of(script):
        function = runpy.run_path(str(script)).get("launch")
    if not callable(function):
        raise UserError(f"{script}: it must define launch(module), which makes the launches")
    macros = dict(_macro(text) for text in define)
    # A GPU would want those that are not extern "C" named, too.
    kernels = build.read(file, macros).kernels.values()
    names = [one.scope + one.name for one in kernels if not (one.template or one.exported)]
    module = launch.load(file, macros, "emulator", names)

    def run() -> None:
        with _errors_of(script):
            function(module)

    return run


@contextmanager
def _errors_of(script: Path) -> Iterator[None]:
    """Tell what a script raises in one sentence, with its line."""
    from tinyvid.kernels.emulator import KernelFault

    try:
        yield
    except KernelFault:
        raise
    except (Exception, SystemExit) as error:
        if isinstance(error, SyntaxError):
            rows = [error.lineno]
        else:
            trace = traceback.extract_tb(error.__traceback__)
            rows = [row.lineno for row in trace if row.filename == str(script)]
        where = f"{script}:{rows[-1]}" if rows else str(script)
        kind = "" if isinstance(error, UserError) else type(error).__name__
        raise UserError(": ".join(filter(None, (where, kind, str(error))))) from error
