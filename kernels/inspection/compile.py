"""Compile CUDA C++ with NVRTC, which needs neither a GPU nor a driver."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import tempfile
import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tinyvid.errors import UserError, nearest
from tinyvid.kernels.cache import folder

KERNELS = Path(__file__).resolve().parents[1]  # the folder that `#include <...>` starts from
INSTALL = "pip install 'tinyvid[inspect]'"
FORMAT = 1  # part of every key: raise it when what is stored changes

# What CuPy (14) adds by itself to the options of a `RawModule`: so what is looked at here is the
# machine code that runs on a GPU. Results below 1.2e-38 become 0 there.
CUPY = ("-ftz=true", "--device-as-default-execution-space")

_INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', re.MULTILINE)
_compiled: dict[str, Compiled] = {}
_locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)  # one a key


@dataclass(frozen=True)
class Compiled:
    """A file of CUDA C++, compiled for one architecture.

    Attributes:
        file, arch: what was compiled, and for what, such as `sm_80`.
        version: of NVRTC, such as `13.5`.
        cubin, ptx: machine code as an ELF file, and the text it was assembled from.
        log: what the compiler and, kernel by kernel, the assembler said.
        names: the symbol of each name expression that was asked for.
        key: hash of everything that the result depends on.
    """

    file: Path
    arch: str
    version: str
    cubin: bytes
    ptx: str
    log: str
    names: Mapping[str, str]
    key: str


def compile_file(
    file: str | Path,
    arch: str,
    constants: Mapping[str, Any] | None = None,
    names: Sequence[str] = (),
    options: Sequence[str] = (),
) -> Compiled:
    """Compile a file; the result is kept in memory and on disk, by content.

    Args:
        file: CUDA C++; includes are looked for beside it and in the folder of the kernels.
        arch: such as `sm_80`.
        constants: macros to define, as -D does; True defines a bare name.
        names: name expressions such as `scale<float, 4>`: templates to instantiate.
        options: further options of NVRTC, such as `--maxrregcount=32`.

    Raises:
        UserError: the file cannot be read, does not compile (with the compiler's message), the
            architecture does not exist, or NVRTC is not installed.
    """
    path = Path(file).resolve()
    nvrtc, version = _nvrtc(), nvrtc_version()
    _check_arch(arch, nvrtc)
    flags = [
        f"-arch={arch}",
        "-std=c++17",
        *CUPY,
        "-lineinfo",
        "--ptxas-options=-v",
        f"-I{path.parent}",
        f"-I{KERNELS}",
        *(f"-D{k}" if v is True else f"-D{k}={v}" for k, v in (constants or {}).items()),
        *options,
    ]
    texts = sources(path)
    key = hashlib.sha256(
        repr((FORMAT, version, flags, list(names), sorted(texts.items()))).encode()
    ).hexdigest()[:32]
    with _locks[key]:
        if key not in _compiled:
            stored = folder("nvrtc") / f"{key}.json"
            found = _read(stored, path, arch, version, key)
            if found is None:
                found = _compile(nvrtc, path, texts[str(path)], arch, version, key, flags, names)
                _write(stored, found)
            _compiled[key] = found
        return _compiled[key]


@cache
def nvrtc_version() -> str:
    """Return NVRTC's version, such as `13.5`. Raises UserError where it is not installed."""
    _, major, minor = _nvrtc().nvrtcVersion()
    return f"{major}.{minor}"


def is_available() -> bool:
    """Return whether NVRTC is installed."""
    try:
        nvrtc_version()
    except UserError:
        return False
    return True


@cache
def _nvrtc() -> Any:
    """Return the binding, with the library loaded."""
    try:
        from cuda.bindings import nvrtc

        nvrtc.nvrtcVersion()
    except Exception as error:  # no binding, no library, or one too old for the other
        raise UserError(f"compiling CUDA C++ needs NVIDIA's NVRTC: {INSTALL}") from error
    return nvrtc


def _check_arch(arch: str, nvrtc: Any) -> None:
    known = [f"sm_{number}" for number in nvrtc.nvrtcGetSupportedArchs()[1]]
    if arch.rstrip("af") not in known:
        raise UserError(
            f"NVRTC {nvrtc_version()} does not compile for {arch!r}; it does for "
            f"{', '.join(known)}.{nearest(arch, known)}"
        )


def sources(path: Path, include: Sequence[Path] = ()) -> dict[str, str]:
    """Return the text of the file and of all that it includes, by path.

    Includes are looked for beside the file that has them, then in `include`.

    An include within an `#if` counts too: better a file too many in the key than one too few.
    """
    texts: dict[str, str] = {}
    todo = [path]
    while todo:
        file = todo.pop()
        if str(file) in texts:
            continue
        try:
            texts[str(file)] = file.read_text()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text"
            raise UserError(f"{file}: cannot be read: {reason}") from error
        for name in _INCLUDE.findall(texts[str(file)]):
            folders = (file.parent, path.parent, *include, KERNELS)
            places = [folder / name for folder in folders]
            todo += [place.resolve() for place in places if place.is_file()][:1]
    return texts


def _compile(
    nvrtc: Any,
    path: Path,
    text: str,
    arch: str,
    version: str,
    key: str,
    flags: list[str],
    names: Sequence[str],
) -> Compiled:
    # The program is called by its path, so that messages and line numbers point to the file.
    program = _call(nvrtc.nvrtcCreateProgram, text.encode(), str(path).encode(), 0, None, None)
    try:
        for name in names:
            _call(nvrtc.nvrtcAddNameExpression, program, name.encode())
        (result,) = nvrtc.nvrtcCompileProgram(program, len(flags), [f.encode() for f in flags])
        log = _text(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog, program)
        if int(result):
            raise UserError(f"{path} does not compile for {arch}:\n{_errors(log)}")
        return Compiled(
            path,
            arch,
            version,
            _bytes(nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN, program),
            _text(nvrtc.nvrtcGetPTXSize, nvrtc.nvrtcGetPTX, program),
            log,
            MappingProxyType(
                {n: _call(nvrtc.nvrtcGetLoweredName, program, n.encode()).decode() for n in names}
            ),
            key,
        )
    finally:
        nvrtc.nvrtcDestroyProgram(program)


def _errors(log: str) -> str:
    """Return the compiler's messages, without what the assembler says when all goes well."""
    lines = [line for line in log.splitlines() if not line.startswith(("ptxas info", "ptxas  "))]
    return "\n".join(lines).strip()


def _call(function: Any, *args: Any) -> Any:
    result, *values = function(*args)
    if int(result):
        raise RuntimeError(f"{function.__name__}: {result.name}")
    return values[0] if values else None


def _bytes(size: Any, get: Any, program: Any) -> bytes:
    # Never into `bytes`: Python keeps one object for each single byte, so that an empty log, of
    # size 1, would turn every b" " of the process into a zero.
    buffer = bytearray(_call(size, program))
    _call(get, program, buffer)
    return bytes(buffer)


def _text(size: Any, get: Any, program: Any) -> str:
    return _bytes(size, get, program).rstrip(b"\0").decode(errors="replace")


def _read(stored: Path, path: Path, arch: str, version: str, key: str) -> Compiled | None:
    try:
        values = json.loads(stored.read_text())
        cubin, names = base64.b64decode(values["cubin"]), MappingProxyType(values["names"])
        return Compiled(path, arch, version, cubin, values["ptx"], values["log"], names, key)
    except (OSError, ValueError, KeyError):  # not there, or cut off by a full disk
        return None


def _write(stored: Path, found: Compiled) -> None:
    values = {
        "cubin": base64.b64encode(found.cubin).decode(),
        "ptx": found.ptx,
        "log": found.log,
        "names": dict(found.names),
    }
    keep(stored, json.dumps(values))


def keep(stored: Path, text: str) -> None:
    """Write a file aside and rename it, so that another process sees all of it or nothing."""
    handle, aside = tempfile.mkstemp(dir=stored.parent, suffix=".part")
    with os.fdopen(handle, "w") as out:
        out.write(text)
    os.replace(aside, stored)
