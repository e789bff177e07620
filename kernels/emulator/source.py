"""From CUDA C++ to C++: the changes to a kernel's text that no macro can make.

The text comes from the preprocessor, so macros are expanded, included files are in place, and
lines that start with `#` say which file and line the text is from. What is changed keeps its lines,
so that messages of the compiler and of the checker name the line that the author knows.

    __shared__ float As[16][64];      becomes a reference to memory of the running block
    extern __shared__ float more[];   likewise, to its dynamic shared memory

A `#pragma unroll` stays, and the compiler passes over it: unrolled by hand, these loops take three
times as long to compile, and run no faster, since they are vectorised no more.

Kernels, their parameters and `__device__`/`__constant__` variables are found for the table
that export.h describes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from tinyvid.errors import UserError


@dataclass
class KernelSource:
    """A `__global__` function in the text.

    Attributes:
        name: its name, without template arguments and namespaces.
        scope: the namespaces that it stands in, such as `mine::`.
        parameters: their names, in order.
        template: whether it is a template; exported: whether it is `extern "C"`.
        most_threads: the first argument of `__launch_bounds__`, as text; "0" without one.
    """

    name: str
    scope: str
    parameters: list[str]
    template: bool
    exported: bool
    most_threads: str


@dataclass
class Source:
    """A kernel file as C++, and what it defines."""

    text: str
    kernels: dict[str, KernelSource] = field(default_factory=dict)
    variables: dict[str, bool] = field(default_factory=dict)  # name -> whether it is constant

    def kernel(self, expression: str) -> KernelSource | None:
        """Return the kernel that a name is of, such as `scale`, `mine::scale` or `scale<float>`."""
        return self.kernels.get(expression.partition("<")[0].rpartition("::")[2].strip())


def translate(text: str) -> Source:
    """Return the preprocessed text of a kernel file as C++ that device.h can precede.

    Raises:
        UserError: it has inline PTX, a launch, or a `__shared__` declaration that makes no
            sense; the message names file and line.
    """
    found = re.search(r"\b(?:asm|__asm__)\b", text)
    if found:
        raise UserError(
            f"{_place(text, found.start())}: inline PTX cannot be emulated; call a function of "
            "kernels/ptx.cuh, or put it between #ifdef __CUDACC__ and #else"
        )
    found = re.search(r"<<<", _without_strings(text))
    if found:
        raise UserError(
            f"{_place(text, found.start())}: a launch, <<<...>>>, is code for the CPU, which the "
            "emulator does not run; put it between #ifdef __CUDACC__ and #endif, or into another "
            "file"
        )
    source = Source(text)
    for kernel in _kernels(text):
        source.kernels[kernel.name] = kernel
    source.variables = dict(_variables(text))
    text = re.sub(_DYNAMIC, lambda m: _dynamic(text, m), text)
    source.text = _static(text)
    return source


# ---- kernels ---------------------------------------------------------------------------------

_BEFORE = r"(?:extern\s*\"C\"\s*|static\s+|inline\s+|void\s+|__launch_bounds__\s*\([^;{}]*\)\s*)*$"


def _kernels(text: str):
    for match in re.finditer(r"\b__global__\b", text):
        before = text[max(0, match.start() - 2000) : match.start()]
        qualifiers = re.search(_BEFORE, before)
        assert qualifiers is not None  # it matches the empty string
        template = re.search(r"template\s*<[^;{}]*>\s*$", before[: qualifiers.start()])
        bounds = _bounds(qualifiers.group())
        at = match.end()
        while True:
            word = re.compile(r"\s*(\w+)\s*(\()?").match(text, at)
            if word is None:
                break  # not a function: a mention the compiler will complain about
            name, at = word.group(1), word.end()
            if not word.group(2):
                continue
            inside = text[at : _closing(text, at)]
            at += len(inside) + 1
            if name in ("__launch_bounds__", "__attribute__", "__align__"):
                bounds = _bounds(f"{name}({inside})") or bounds
                continue
            if re.compile(r"\s*\{").match(text, at):
                exported = '"C"' in qualifiers.group() or _in_extern_c(text, match.start())
                parameters = [_last_name(p) for p in _split(inside) if p.strip() != "void"]
                scope = "".join(f"{name}::" for name in _open_at(text, match.start()) if name)
                yield KernelSource(name, scope, parameters, bool(template), exported, bounds or "0")
            break


def _bounds(text: str) -> str:
    start = re.search(r"__launch_bounds__\s*\(", text)
    return _split(text[start.end() : _closing(text, start.end())])[0].strip() if start else ""


def _in_extern_c(text: str, at: int) -> bool:
    return any(
        match.end() <= at < _closing(text, match.end())
        for match in re.finditer(r'extern\s*"C"\s*\{', text)
    )


# ---- variables -------------------------------------------------------------------------------


def _variables(text: str):
    for match in re.finditer(r"\b(__constant__|__device__)\b", text):
        declaration = re.sub(
            r"__align__\s*\([^()]*\)|alignas\s*\([^()]*\)",
            "",
            text[match.end() : match.end() + 1000],
        )
        end = re.search(r"[;=({\[]", declaration)
        if end is None or end.group() == "(" or "__shared__" in declaration[: end.start()]:
            continue
        words = re.findall(r"\w+", declaration[: end.start()])
        if len(words) < 2 or "operator" in words or words[0] in ("struct", "class"):
            continue
        yield words[-1], match.group(1) == "__constant__"


# ---- shared memory ---------------------------------------------------------------------------

_ALIGN = r"(?:__align__|alignas|__attribute__)\s*\((?:[^()]|\([^()]*\))*\)"
_DYNAMIC = re.compile(
    rf"extern\s+(?:(?:volatile|{_ALIGN})\s+)*__shared__\s+((?:[^;\[\]=]|{_ALIGN})*?)"
    r"\b(\w+)\s*\[\s*\]\s*;"
)


def _dynamic(text: str, match: re.Match) -> str:
    if _at_file_scope(text, match.start()):
        raise UserError(
            f"{_place(text, match.start())}: declare extern __shared__ {match.group(2)}[] inside "
            "the kernel that uses it: at the top of a file it cannot be emulated"
        )
    aligns = re.findall(r"(?:__align__|alignas)\s*\(((?:[^()]|\([^()]*\))*)\)", match.group())
    kind = re.sub(_ALIGN, "", match.group(1)).strip()
    name = match.group(2)
    alignment = f"({aligns[0]})" if aligns else f"alignof({kind})"
    lines = "\n" * match.group().count("\n")
    return (
        f"{kind}* const {name} = static_cast<{kind}*>(::emulator::dynamic_shared("
        f'"{name}", {alignment}, ::emulator::Site::here()));{lines}'
    )


def _static(text: str) -> str:
    """Rewrite each `__shared__` declaration.

    `__shared__ float a[4], b;` becomes `typedef float a__type[4], b__type;`, and for each name
    `static SharedArray a__array = {...}; a__type& a = the running block's copy`.
    """
    parts, at = [], 0
    for match in re.finditer(r"(?:\b(?:static|volatile)\s+)*\b__shared__\b", text):
        end = _closing(text, match.end(), ";")
        declaration = text[match.end() : end]
        if _at_file_scope(text, match.start()):
            raise UserError(
                f"{_place(text, match.start())}: declare __shared__ variables inside the kernel "
                "that uses them: at the top of a file they cannot be emulated"
            )
        align = "".join(re.findall(_ALIGN, declaration)).replace("alignas", "__align__")
        pieces = _split(re.sub(_ALIGN, "", declaration))
        names = []
        for i, piece in enumerate(pieces):
            found = re.search(r"(\w+)(\s*(?:\[.*\]\s*)*)$", piece, re.DOTALL)
            if found is None or "=" in re.sub(r"\[.*\]", "", piece):
                raise UserError(
                    f"{_place(text, match.start())}: not a declaration that __shared__ can have: "
                    f"{' '.join(declaration.split())}"
                )
            names.append(found.group(1))
            pieces[i] = f"{piece[: found.start()]}{found.group(1)}__type{found.group(2)}"
        volatile = "volatile " if "volatile" in match.group() else ""
        parts += [text[at : match.start()], f"typedef {align} {volatile}{','.join(pieces)};"]
        for name in names:
            parts.append(
                f' static ::emulator::SharedArray {name}__array = {{"{name}", '
                f"sizeof({name}__type), __alignof__({name}__type), ::emulator::Site::here(), "
                f"0, 0, 0}}; {name}__type& {name} = "
                f"*static_cast<{name}__type*>(::emulator::shared_array({name}__array));"
            )
        at = end + 1
    return "".join([*parts, text[at:]])


# ---- text ------------------------------------------------------------------------------------

_OPEN, _CLOSE = "([{", ")]}"


def _closing(text: str, at: int, wanted: str = _CLOSE) -> int:
    """Return where the bracket that is open at `at` closes, or the first `wanted` outside any."""
    depth = 0
    for i in range(at, len(text)):
        if depth == 0 and text[i] in wanted:
            return i
        depth += (text[i] in _OPEN) - (text[i] in _CLOSE)
    return len(text)


def _split(text: str) -> list[str]:
    """Split at the commas that stand outside brackets and template arguments."""
    parts, depth, start = [], 0, 0
    for i, letter in enumerate(text):
        if letter == "," and depth == 0:
            parts.append(text[start:i])
            start = i + 1
        depth += (letter in _OPEN + "<") - (letter in _CLOSE + ">")
    return [*parts, text[start:]] if text.strip() else []


def _last_name(parameter: str) -> str:
    names = re.findall(r"[A-Za-z_]\w*", re.sub(r"\[.*?\]|=.*", "", parameter))
    return names[-1] if names else "?"


def _open_at(text: str, at: int) -> list[str | None]:
    """Return what is open there: a namespace's name, "" for one without or an `extern "C"`, None
    for a function or anything else."""
    found: list[str | None] = []
    for match in re.finditer(r"[{}]", text[:at]):
        if match.group() == "}":
            if found:
                found.pop()
        else:
            before = text[max(0, match.start() - 200) : match.start()]
            opens = re.search(r'(?:\bnamespace(?:\s+([\w:]+))?|extern\s*"C")\s*$', before)
            found.append(opens and (opens.group(1) or ""))
    return found


def _at_file_scope(text: str, at: int) -> bool:
    """Whether no function is open: only namespaces and `extern "C"` blocks may be."""
    return None not in _open_at(text, at)


def _without_strings(text: str) -> str:
    """Return the text, as long as before, with blanks for what stands in quotes."""
    return re.sub(r'"(?:\\.|[^"\\\n])*"', lambda m: " " * len(m.group()), text)


def _place(text: str, at: int) -> str:
    """Return `file:line` of a place in preprocessed text."""
    file, line = "?", 0
    for row in text[:at].split("\n"):
        marker = re.match(r'#\s+(\d+)\s+"(.*?)"', row)
        if marker:
            file, line = marker.group(2), int(marker.group(1)) - 1
        else:
            line += 1
    return f"{file}:{line}"
