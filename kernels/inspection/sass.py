"""The machine code of a kernel (SASS), read from what `nvdisasm` prints of a cubin."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import threading
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache

from tinyvid.errors import UserError
from tinyvid.kernels.cache import folder
from tinyvid.kernels.inspection.compile import INSTALL, Compiled, keep

# Kinds of instructions, by the beginning of the opcode; the first that fits counts. Addresses
# and conditions are worked out by "integer"; the uniform datapath (U...) by kinds of the same name.
KINDS = {
    "move": ("MOV", "UMOV", "IMAD.MOV", "CS2R", "S2R", "S2UR", "R2UR", "UR2R", "UMOV", "VOTEU.MOV"),
    "HMMA": ("HMMA", "HGMMA", "UTCHMMA", "QMMA", "OMMA", "DMMA", "IMMA", "UTCQMMA"),
    "FFMA": ("FFMA",),
    "DFMA": ("DFMA",),
    "LDSM": ("LDSM",),
    "LDS": ("LDS",),
    "STS": ("STS", "STSM"),
    "LDGSTS": ("LDGSTS", "UBLKCP", "UTMALDG"),
    "LDG": ("LDG", "LD."),
    "STG": ("STG", "ST."),
    "local": ("LDL", "STL"),
    "constant": ("LDC", "ULDC", "LDCU"),
    "atomic": ("ATOM", "RED"),
    "barrier": ("BAR", "UCGABAR", "SYNCS"),
    "wait": ("DEPBAR", "LDGDEPBAR", "WARPSYNC", "MEMBAR", "ERRBAR", "CCTL", "FENCE", "ARRIVES"),
    "branch": (
        *("BRA", "BRX", "JMP", "JMX", "CALL", "RET", "EXIT", "BSSY", "BSYNC", "BREAK", "BMOV"),
        *("KILL", "NANOSLEEP", "YIELD", "BPT"),
    ),
    "shuffle": ("SHFL", "VOTE", "MATCH", "REDUX", "UVOTE"),
    "convert": ("F2F", "I2F", "F2I", "F2FP", "I2I", "FRND", "I2FP", "F2IP", "UI2F", "UF2F"),
    "special": ("MUFU",),
    "float": ("FADD", "FMUL", "FMNMX", "FSEL", "FSETP", "FSET", "FCHK", "HFMA2", "HADD2", "HMUL2"),
    "double": ("DADD", "DMUL", "DSETP", "DMNMX"),
    "nothing": ("NOP",),
    "integer": ("",),
}
WIDTHS = ("256", "128", "64", "U16", "S16", "U8", "S8")  # bits of a load, where not 32

_LABEL = re.compile(r"^(\S+):$")
_LINE = re.compile(r'^\s*//## File "([^"]*)", line (\d+)')
_parsed: dict[str, dict[str, Function]] = {}
_locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)  # one a compiled file

_INSTRUCTION = re.compile(r"^\s*/\*([0-9a-f]+)\*/\s+(?:(@!?U?P\w+)\s+)?([A-Z][\w.]*)\s*(.*?)\s*;")
_TARGET = re.compile(r"`\(([^)]+)\)")
_INTEGER_DIVISION = re.compile(r"_(?:div|rem)_[us]\d")


@dataclass(frozen=True)
class Instruction:
    """One instruction.

    Attributes:
        address: in bytes from the beginning of the function.
        predicate: such as `@!P0`, or empty.
        opcode: with its modifiers, such as `LDG.E.128`. operands: the rest.
        file, line: where it comes from, or empty and 0.
    """

    address: int
    predicate: str
    opcode: str
    operands: str
    file: str
    line: int

    @cached_property
    def kind(self) -> str:
        """Its kind, a key of `KINDS`."""
        # A common way to write a constant into a register.
        if self.opcode.startswith("HFMA2") and "-RZ, RZ" in self.operands:
            return "move"
        return _kind(self.opcode)

    @property
    def width(self) -> int:
        """Bits that a load or a store moves for each thread."""
        for modifier in self.opcode.split(".")[1:]:
            if modifier in WIDTHS:
                return int(modifier.strip("US"))
        return 32

    @property
    def target(self) -> str | None:
        """The label that a branch or a call names."""
        found = _TARGET.search(self.operands)
        return found[1] if found else None

    @property
    def always_leaves(self) -> bool:
        """Whether what follows it is never run next."""
        base = self.opcode.split(".")[0]
        if base in ("EXIT", "RET", "JMP", "JMX", "BRX", "KILL"):
            return not self.predicate
        # A condition stands before the branch, or as a further operand: BRA.U !UP0, `(.L_x_1)
        return base == "BRA" and not self.predicate and self.operands.startswith("`(")


@lru_cache(maxsize=1024)
def _kind(opcode: str) -> str:
    base = opcode.split(".")[0]
    for kind, starts in KINDS.items():
        for start in starts:
            if start == base or ("." in start and opcode.startswith(start)):
                return kind
    for start in ("FFMA", "DFMA", "ATOM", "WARPSYNC"):  # FFMA2, ATOMG, ATOMS, ...
        if base.startswith(start):
            return {"ATOM": "atomic", "WARPSYNC": "wait"}.get(start, start)
    return "integer"


@dataclass(frozen=True)
class Function:
    """The code of one kernel: its instructions in order, and the address of each label."""

    name: str
    instructions: tuple[Instruction, ...]
    labels: dict[str, int]


def functions(compiled: Compiled) -> dict[str, Function]:
    """Return the kernels of a compiled file, by symbol, with the source line of each instruction.

    Raises:
        UserError: nvdisasm is not installed.
    """
    with _locks[compiled.key]:
        if compiled.key not in _parsed:
            stored = folder("nvrtc") / f"{compiled.key}.sass"
            try:
                text = stored.read_text()
            except OSError:
                text = _disassemble(compiled.cubin)
                keep(stored, text)
            _parsed[compiled.key] = parse(text)
        return _parsed[compiled.key]


def _disassemble(cubin: bytes) -> str:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [nvdisasm(), "--print-code", "--print-line-info", file.name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"nvdisasm failed: {done.stderr.strip()}")
    return done.stdout


@lru_cache(maxsize=1)
def nvdisasm() -> str:
    """Return the path of the disassembler. Raises UserError where it is not installed."""
    found = None
    try:
        from cuda.pathfinder import find_nvidia_binary_utility

        found = find_nvidia_binary_utility("nvdisasm")
    except ImportError:
        pass
    found = found or shutil.which("nvdisasm")
    if found is None:
        raise UserError(f"reading compiled kernels needs NVIDIA's nvdisasm: {INSTALL}")
    return found


def parse(text: str) -> dict[str, Function]:
    """Return the functions in a listing of nvdisasm, by symbol."""
    found: dict[str, Function] = {}
    for section in re.split(r"^(?=\.text\.\S+:$)", text, flags=re.MULTILINE)[1:]:
        function = _parse_function(section)
        found[function.name] = function
    return found


def _parse_function(section: str) -> Function:
    """Read one function: a label, an instruction, or a source line in each row."""
    first, *rows = section.splitlines()
    instructions: list[Instruction] = []
    labels: dict[str, int] = {}
    waiting: list[str] = []  # labels of the next instruction
    file, line = "", 0
    for row in rows:
        if at := _INSTRUCTION.match(row):
            address = int(at[1], 16)
            labels.update(dict.fromkeys(waiting, address))
            waiting = []
            instructions.append(Instruction(address, at[2] or "", at[3], at[4], file, line))
        elif label := _LABEL.match(row):
            waiting.append(label[1])
        elif source := _LINE.match(row):
            file, line = source[1], int(source[2])
    name = first.removeprefix(".text.").removesuffix(":")
    return Function(name, tuple(instructions), labels)


def counts(instructions: Iterable[Instruction]) -> Counter[str]:
    """Return how many instructions there are of each kind."""
    return Counter(i.kind for i in instructions)


def widths(instructions: Iterable[Instruction], kind: str) -> Counter[int]:
    """Return how many instructions of a kind move so many bits."""
    return Counter(i.width for i in instructions if i.kind == kind)


def integer_divisions(instructions: Iterable[Instruction]) -> list[Instruction]:
    """Return an instruction for each division (or remainder) by an integer that varies.

    32 bits divide by way of a reciprocal of a float, converted with rounding upwards, which
    nothing else does; 64 bits call a routine. A constant divisor needs neither.
    """
    return [
        i
        for i in instructions
        if re.match(r"I2F\b.*\.RP\b", i.opcode)
        or (i.opcode.startswith("CALL") and _INTEGER_DIVISION.search(i.operands))
    ]
