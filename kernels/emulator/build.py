"""Building: from a kernel file to a shared library that module.py loads.

    kernel.cu --preprocessor--> text --source.py--> C++ --compiler--> kernel.so
                                                                          |
                   fibre.cpp runtime.cpp memory.cpp ... --compiler--> objects (once)

A build is kept under a hash of all that it depends on: the preprocessed text, the emulator's own
files, the compiler and its options. So a changed include makes a new build, and a changed comment
does not. It is built aside and renamed: another process sees a whole library or none.
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tinyvid.errors import UserError, nearest
from tinyvid.kernels import cache
from tinyvid.kernels.emulator import headers, lines
from tinyvid.kernels.emulator.source import Source, translate

HERE = Path(__file__).parent
RUNTIME = ("fibre", "runtime", "memory", "tensor_core", "crash", "launch")  # crash.cpp: fibre first
CHECKER = ("checker",)

COMMON = ("-std=c++17", "-fPIC", "-fvisibility=hidden", "-w", "-pthread")
# So that a large array on the stack cannot step over the page that guards its end.
STACK = ("-fstack-clash-protection",)
LINES = "-gdwarf-4"  # addr2line of binutils 2.40 mistakes the files of version 5
# A GPU's compiler contracts a * b + c to one rounding too, and reads a float4 through a float*.
KERNEL = (
    *(*STACK, "-O3", "-ffp-contract=fast", "-fno-math-errno", "-fno-strict-aliasing"),
    *("-g1", LINES),
)
FRAMES = "-fno-omit-frame-pointer"  # the checker follows them to say who called
# Every access of the kernel becomes a call into the checker; so that one access stays one call,
# loops are not vectorised, and a float4 is not split into its members. A vector type at an odd
# address is reported by the second sanitizer.
CHECKED = (
    *(*STACK, "-O1", "-ffp-contract=fast", "-fno-math-errno", "-fno-strict-aliasing"),
    *("-fno-tree-sra", FRAMES, "-g", LINES),
    *("-fsanitize=thread", "-fsanitize=alignment", "-DEMULATOR_CHECKED"),
    # Volatile accesses are told apart; the beginning and end of a function are of no interest.
    *("--param", "tsan-distinguish-volatile=1"),
    *("--param", "tsan-instrument-func-entry-exit=0"),
)


@dataclass(frozen=True)
class Build:
    """A built kernel file: the library, and what the text says that the library does not."""

    library: Path
    source: Source
    names: tuple[str, ...]  # of the kernels in the library's table, in its order


@functools.cache
def compiler() -> str:
    """Return the C++ compiler: `$CXX`, or the first of c++, g++ and clang++ that is there.

    Raises:
        UserError: there is none.
    """
    wanted = os.environ.get("CXX")
    for name in [wanted] if wanted else ["c++", "g++", "clang++"]:
        found = shutil.which(name)
        if found:
            return found
    which = f"$CXX names {wanted!r}, which is not there" if wanted else "there is none here"
    raise UserError(
        f"the emulator needs a C++17 compiler and {which}; install one (Debian and Ubuntu: "
        "apt install g++; Fedora: dnf install gcc-c++; macOS: xcode-select --install)"
    )


@functools.cache
def _gcc_version() -> int:
    """Return the version of GCC, 0 where the compiler is another."""
    says = _run([compiler(), "--version"], f"{compiler()} fails")
    if "Free Software Foundation" not in says:
        return 0
    return int(_run([compiler(), "-dumpversion"], f"{compiler()} fails").partition(".")[0])


@functools.cache
def machine() -> tuple[str, ...]:
    """Return what builds for this machine depend on: compiler, processor, and its option."""
    path = Path(compiler()).resolve()
    stat = path.stat()
    processor = ""
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next((x for x in lines if x.startswith(("flags", "Features"))), "")
    return (str(path), str(stat.st_size), str(stat.st_mtime_ns), platform.machine(), processor)


def build(
    file: str | Path,
    constants: Mapping[str, object] | None = None,
    name_expressions: Sequence[str] = (),
    checked: bool = False,
    include: Sequence[str | Path] = (),
) -> Build:
    """Compile a kernel file for the emulator, or return the build that is there.

    Args:
        file: CUDA C++.
        constants: names to define before its first line, with their values (`-Dname=value`).
        name_expressions: instances of template kernels, such as `scale<float, 4>`.
        checked: with the access checker.
        include: folders in which included files are looked for, after the file's own.

    Raises:
        UserError: the file is not there or does not compile (the message has the compiler's,
            with the file's own lines), has no such kernel, there is no compiler (for a checked
            build: no GCC), or the cache cannot be written.
    """
    source = read(file, constants, include)
    names = [k.name for k in source.kernels.values() if k.exported and not k.template]
    for name in name_expressions:
        if source.kernel(name) is None:
            raise no_kernel(file, name, source.kernels)
        if name not in names:
            names.append(name)
    main = _main(source, names)
    if checked and _gcc_version() < 11:
        raise UserError(
            f"the access checker needs GCC 11 or newer, which {compiler()} is not: install g++ and "
            "set CXX=g++"
        )
    options = [*COMMON, *(CHECKED if checked else [*KERNEL, *_native()]), *_extra()]
    key = _hash([*machine(), *options, main, *_emulator_files()])
    library = cache.folder("emulator") / f"{Path(file).stem}-{key}.so"
    if not library.exists():
        objects = runtime(checked)
        with tempfile.TemporaryDirectory(dir=library.parent) as folder:
            (Path(folder) / "kernel.cpp").write_text(main)
            compile_ = [compiler(), "-c", *options, "-I", str(HERE), "kernel.cpp"]
            _run([*compile_, "-o", "kernel.o"], f"{file} does not compile", folder)
            link = [compiler(), "-shared", "-pthread", "kernel.o", *map(str, objects)]
            _run([*link, "-o", "kernel.so"], f"{file} cannot be linked", folder)
            os.replace(Path(folder) / "kernel.so", library)
    return Build(library, source, tuple(names))


def read(
    file: str | Path,
    constants: Mapping[str, object] | None = None,
    include: Sequence[str | Path] = (),
) -> Source:
    """Return the text of a kernel file as C++, and what it defines; arguments as for `build`.

    Included files are looked for beside the file that names them, in `include`, and in the folder
    of common.cuh and ptx.cuh.

    Raises:
        UserError: the file or one that it includes is not there, or it cannot be emulated.
    """
    path = Path(file).resolve()
    if not path.is_file():
        raise UserError(f"{file}: no such file")
    defines = [f"-D{name}={_text(value)}" for name, value in (constants or {}).items()]
    folders = [f"-I{Path(folder).resolve()}" for folder in [*include, HERE.parent]]
    command = [compiler(), "-E", "-x", "c++", "-std=c++17", "-nostdinc", *folders]
    command += ["-idirafter", str(headers.folder()), *defines, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        says = headers.missing(done.stderr)
        raise UserError(says or f"{file} cannot be preprocessed:\n{done.stderr.strip()}")
    return translate(done.stdout)


def no_kernel(file: str | Path, name: str, known: Iterable[str]) -> UserError:
    """Return the error of a kernel that is not there."""
    has = ", ".join(known) or "none"
    near = nearest(name, known)
    return UserError(f"{lines.shown(str(file))} has no kernel {name!r}. It has {has}.{near}")


def runtime(checked: bool) -> list[Path]:
    """Return the runtime's objects, compiled now if there are none for these sources."""
    options = [*COMMON, "-O3", *_native(), *_extra()]
    options += ["-DEMULATOR_CHECKED", FRAMES] if checked else []
    files = RUNTIME + CHECKER if checked else RUNTIME
    key = _hash([*machine(), *options, *_emulator_files()])
    folder = cache.folder("emulator") / f"runtime-{key}"
    if not folder.is_dir():
        with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
            made = Path(temporary) / "objects"
            made.mkdir()
            command = [compiler(), "-c", *options]
            with ThreadPoolExecutor() as pool:
                list(pool.map(lambda name: _compile(command, name, made), files))
            try:
                os.rename(made, folder)
            except OSError:
                if not folder.is_dir():  # else another process was quicker
                    raise
    return [folder / f"{name}.o" for name in files]


def _compile(command: Sequence[str], name: str, folder: Path) -> None:
    failure = "the emulator's runtime does not compile"
    _run([*command, str(HERE / f"{name}.cpp"), "-o", f"{name}.o"], failure, folder)


def _main(source: Source, names: Sequence[str]) -> str:
    """Return the translation unit of a kernel file: its text, and the tables of export.h."""
    kernels = []
    for name in names:
        known = source.kernel(name)
        assert known is not None  # `build` has looked
        bounds = "0" if known.template else known.most_threads
        scope = "" if "::" in name.partition("<")[0] else known.scope
        kernels.append(f'::emulator::kernel("{name}", {scope}{name}, {bounds}),')
    variables = [
        f'::emulator::variable("{name}", {name}, {str(constant).lower()}),'
        for name, constant in source.variables.items()
    ]
    return "\n".join(
        [
            '#include "device.h"',
            "namespace {",
            source.text,
            "}  // namespace",
            '# 1 "the table of kernels"',
            *_table("Kernel", "emulator_kernels", kernels),
            *_table("Variable", "emulator_variables", variables),
            "",
        ]
    )


def _table(kind: str, name: str, rows: Sequence[str]) -> list[str]:
    return [
        f"static const ::emulator::{kind} {name}_table[] = {{{' '.join(rows)} {{}}}};",
        'extern "C" __attribute__((visibility("default")))',
        f"const ::emulator::{kind}* {name}(int* count) {{",
        f"  *count = {len(rows)};",
        f"  return {name}_table;",
        "}",
    ]


def _native() -> list[str]:
    return [] if platform.machine() == "arm64" else ["-march=native"]


def _extra() -> list[str]:
    """Options from outside, such as -DEMULATOR_UCONTEXT."""
    return shlex.split(os.environ.get("TINYVID_EMULATOR_FLAGS", ""))


def _text(value: object) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)


def _emulator_files() -> list[str]:
    files = sorted(HERE.glob("*.h")) + sorted(HERE.glob("*.cpp"))
    return [path.read_text() for path in files]


def _hash(parts: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:20]


def _run(command: Sequence[str], failure: str, folder: str | Path | None = None) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"{failure}:\n{done.stderr.strip()}")
    return done.stdout
