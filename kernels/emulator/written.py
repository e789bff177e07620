"""Launches written down: how `tinyvid kernels check` learns what to launch.

A kernel file can carry its launches, one a line, in comments:

    // check: saxpy grid=4 block=256 a=2.5 x=[1000] y=[1000]:zeros n=1000

First the kernel, then sizes, then a value for each parameter. `grid` and `block` have up to three
sizes (`grid=4,2`); `shared` is the bytes of dynamic shared memory, `cooperative=1` lets blocks meet
at `grid_sync()`, and `-Dname=value` defines a macro. An instance of a template is named with its
arguments, in quotes where they hold spaces.

A number is written as it is; an array as `[sizes]`, which takes its type from the parameter, or
`type[sizes]`, and after a colon what it holds: `random` (of floats standard normal, of integers
0 to 9), `arange`, `empty` (of floats: a read of it before a write is a finding), or a number. A
type has C's name or NumPy's: `int` is `int32`, `float` is `float32`, `double` is `float64`.
Without one, what a kernel may only read is random, the rest empty. `@name` is the array that an
earlier line of the file gave the parameter of that name, and `null` no array.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tinyvid.errors import UserError, nearest
from tinyvid.kernels import launch
from tinyvid.kernels.emulator import build, native
from tinyvid.kernels.emulator.module import KernelFault, Module

_ARRAY = re.compile(r"(?P<dtype>\w*)\[(?P<sizes>[\d,x\s]*)\](?::(?P<fill>.+))?$")
_WORDS = ("grid", "block", "shared", "cooperative")
# C's names of types, as CUDA sizes them; the others are NumPy's.
_C_TYPES = {
    "char": "int8",
    "uchar": "uint8",
    "short": "int16",
    "ushort": "uint16",
    "half": "float16",
    "int": "int32",
    "uint": "uint32",
    "unsigned": "uint32",
    "long": "int64",
    "ulong": "uint64",
    "longlong": "int64",
    "ulonglong": "uint64",
    "size_t": "uint64",
    "float": "float32",
    "double": "float64",
}


@dataclass
class Written:
    """One launch, as it is written down.

    Attributes:
        where: the place that messages name. kernel: its name.
        grid, block: sizes. shared: bytes of dynamic shared memory.
        arguments: parameter -> value, as text. defines: macros.
    """

    where: str
    kernel: str
    grid: tuple[int, ...] = (1,)
    block: tuple[int, ...] = (1,)
    shared: int = 0
    cooperative: bool = False
    arguments: dict[str, str] = field(default_factory=dict)
    defines: dict[str, str] = field(default_factory=dict)


def in_file(file: str | Path) -> list[Written]:
    """Return the launches in a file's comments.

    Raises:
        UserError: the file is not there, or a comment makes no sense.
    """
    try:
        rows = Path(file).read_text(errors="replace").splitlines()
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}") from error
    found = []
    for number, row in enumerate(rows, 1):
        comment = re.match(r"\s*(?://|\*)\s*check:\s*(.*?)\s*(?:\*/)?$", row)
        if comment:
            where = f"{file}:{number}"
            try:
                words = shlex.split(comment.group(1))
            except ValueError as error:
                raise UserError(f"{where}: {error}") from None
            found.append(parse(words, where))
    return found


def parse(words: Iterable[str], where: str) -> Written:
    """Return the launch that the words describe; `where` is named in messages.

    Raises:
        UserError: they make no sense.
    """
    kernel, *rest = [*words] or [""]
    if not kernel or "=" in kernel:
        raise UserError(f"{where}: name the kernel first: saxpy grid=4 block=256 x=[1000] n=1000")
    written = Written(where, kernel)
    for word in rest:
        key, equals, value = word.removeprefix("-D").partition("=")
        if word.startswith("-D"):
            written.defines[key] = value if equals else "1"
        elif not equals or not value:
            raise UserError(f"{where}: {word!r} is not of the form name=value")
        elif key in ("grid", "block"):
            setattr(written, key, _sizes(value, key, where))
        elif key in ("shared", "cooperative"):
            if not value.isdigit():
                raise UserError(f"{where}: {word}: it must be a whole number")
            setattr(written, key, int(value) if key == "shared" else value != "0")
        else:
            written.arguments[key] = value
    return written


def _sizes(text: str, name: str, where: str) -> tuple[int, ...]:
    parts = [part.strip() for part in re.split("[,x]", text)]
    if not all(part.isdigit() for part in parts):
        raise UserError(f"{where}: {name}={text}: give whole numbers, such as {name}=4 or 4,2,1")
    return tuple(map(int, parts))


class Runner:
    """Makes the launches of one kernel file, in order.

    Args:
        file: CUDA C++. launches: to make. seed: of the arrays' random numbers.

    Attributes:
        unwritten: where an array that was empty still has elements that no kernel has written,
            `kernel: name` -> (how many, of how many).
        left_out: the places of launches that were not made in some run, since they share an array
            with one that a fault has ended.

    Raises:
        UserError: the file does not compile, or a launch does not fit its kernels.
    """

    def __init__(self, file: str | Path, launches: Iterable[Written], seed: int = 0):
        launches = list(launches)
        names = [written.kernel for written in launches]  # a GPU would want extern "C"
        self._launches = [(written, self._module(file, written, names)) for written in launches]
        self._seed = seed
        self.unwritten: dict[str, tuple[int, int]] = {}
        self.left_out: dict[str, None] = {}  # in order
        self._arguments()  # finds what is wrong before anything runs

    def __call__(self) -> None:
        """Make the launches on new arrays. After a fault those go on that it does not touch."""
        self.unwritten = {}
        lost: set[int] = set()  # arrays, by identity: of launches that did not end
        for (written, module), args in zip(self._launches, self._arguments(), strict=True):
            arrays = {id(arg) for arg in args if isinstance(arg, np.ndarray)}
            if lost & arrays:
                lost |= arrays
                self.left_out[f"{written.where}: {written.kernel}"] = None
                continue
            function = module.get_function(written.kernel)
            try:
                function(written.grid, written.block, args, shared_mem=written.shared)
            except KernelFault:  # `watch` has been told
                lost |= arrays
        for place, array in self._empty.items():
            missing = int(np.count_nonzero(_unset(array)))
            if missing:
                self.unwritten[place] = missing, array.size

    @staticmethod
    def _module(file: str | Path, written: Written, names: list[str]) -> Module:
        """Return the module of a launch, with all `names` that its macros leave in the file."""
        source = build.read(file, written.defines)
        if source.kernel(written.kernel) is None:
            raise build.no_kernel(file, written.kernel, source.kernels)
        there = [name for name in dict.fromkeys(names) if source.kernel(name)]
        return launch.load(file, written.defines, "emulator", there, written.cooperative)

    def _arguments(self) -> list[list[Any]]:
        """Return the arguments of each launch."""
        rng = np.random.default_rng(self._seed)
        self._empty: dict[str, np.ndarray] = {}
        before: dict[str, Any] = {}
        arguments = []
        for written, module in self._launches:
            parameters = module.get_function(written.kernel).parameters
            _check_names(written, [name for name, _ in parameters])
            args = []
            for name, parameter in parameters:
                place = f"{written.where}: {name}={written.arguments[name]}"
                value = _value(place, written.arguments[name], parameter, before, rng)
                if isinstance(value, _Empty):
                    value = value.array
                    self._empty[f"{written.kernel}: {name}"] = value
                before[name] = value
                args.append(value)
            arguments.append(args)
        return arguments


def _check_names(written: Written, names: list[str]) -> None:
    takes = f"{written.kernel}({', '.join(names)})"
    for name in written.arguments:
        if name not in names:
            raise UserError(
                f"{written.where}: {takes} has no parameter {name!r}."
                f"{nearest(name, [*names, *_WORDS])}"
            )
    missing = [name for name in names if name not in written.arguments]
    if missing:
        raise UserError(f"{written.where}: {takes}: give a value for {', '.join(missing)}")


@dataclass
class _Empty:
    array: np.ndarray


def _value(
    place: str,
    text: str,
    parameter: native.Parameter,
    before: dict[str, Any],
    rng: np.random.Generator,
) -> Any:
    kind = parameter.kind.decode()
    if kind != "p":
        return _number(place, text, kind, parameter.bytes)
    if text == "null":
        return None
    if text.startswith("@"):
        if text[1:] not in before:
            known = ", ".join(before) or "none"
            raise UserError(f"{place}: no earlier parameter of that name; there are {known}")
        return before[text[1:]]
    form = _ARRAY.match(text)
    if form is None:
        raise UserError(
            f"{place}: it is a pointer: write an array, such as [1000], float32[10,20]:zeros or "
            "[8]:arange"
        )
    dtype = _dtype(place, form["dtype"], parameter)
    shape = _sizes(form["sizes"], "size", place)
    fill = form["fill"] or ("random" if parameter.read_only else "empty")
    if fill == "empty":
        return _Empty(launch.empty(shape, dtype, "emulator"))
    return _filled(place, shape, dtype, fill, rng)


def _dtype(place: str, text: str, parameter: native.Parameter) -> np.dtype:
    kind, size = parameter.element.decode(), parameter.element_bytes
    if not text:
        if kind not in "iuf":
            raise UserError(f"{place}: say of what type it is, such as float32[1000]")
        return np.dtype(f"{kind}{size}")
    try:
        dtype = np.dtype(_C_TYPES.get(text, text))
    except TypeError:
        dtype = None
    if dtype is None or dtype.kind not in "biuf":
        known = [*_C_TYPES, "int32", "int64", "uint8", "float16", "float32", "float64"]
        raise UserError(
            f"{place}: {text!r} is no type of numbers, such as float or float32."
            f"{nearest(text, known)}"
        )
    return dtype


def _filled(
    place: str, shape: tuple[int, ...], dtype: np.dtype, fill: str, rng: np.random.Generator
) -> np.ndarray:
    if fill == "random":
        values = rng.standard_normal(shape) if dtype.kind == "f" else rng.integers(0, 10, shape)
        return values.astype(dtype)
    if fill == "arange":
        return np.arange(int(np.prod(shape))).reshape(shape).astype(dtype)
    number = {"zeros": "0", "ones": "1"}.get(fill, fill)
    try:
        return np.full(shape, float(number) if dtype.kind == "f" else int(number)).astype(dtype)
    except ValueError:
        known = ("random", "zeros", "ones", "arange", "empty")
        raise UserError(
            f"{place}: an array can hold {', '.join(known)} or a number, not {fill!r}."
            f"{nearest(fill, known)}"
        ) from None


def _number(place: str, text: str, kind: str, size: int) -> Any:
    if kind == "s":
        raise UserError(f"{place}: a struct cannot be written here; launch it from Python (--with)")
    try:
        if kind == "f":
            return np.dtype(f"f{size}").type(float(text.removesuffix("f")))
        return {"true": 1, "false": 0}[text] if text in ("true", "false") else int(text, 0)
    except ValueError:
        what = "a number" if kind == "f" else "a whole number"
        raise UserError(f"{place}: it must be {what}") from None


def _unset(array: np.ndarray) -> np.ndarray:
    """Return which elements still are as `launch.empty` left them."""
    return (array.reshape(-1, 1).view(np.uint8) == 0xFF).all(axis=1)
