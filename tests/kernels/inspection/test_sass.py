"""What is read from machine code: kinds, widths, loops, divisions, stages."""

import pytest

from tinyvid.kernels.inspection.loops import loops, main_loop
from tinyvid.kernels.inspection.sass import Function, Instruction, counts, parse

ARCHS = ("sm_80", "sm_90", "sm_100")


@pytest.fixture(scope="package")
def code(toolchain, samples):
    from tinyvid.kernels.inspection.compile import compile_file
    from tinyvid.kernels.inspection.sass import functions

    def code(kernel, arch="sm_80"):
        return functions(compile_file(samples, arch, names=("scaled<float, 4>",)))[kernel]

    return code


def line_of(samples, text):
    return next(n for n, row in enumerate(samples.read_text().splitlines(), 1) if text in row)


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("kernel", ["divided_32", "remainder_32", "divided_64"])
def test_a_division_in_the_loop_is_seen(inspected, kernel, arch):
    assert inspected(kernel, arch).loop.divisions


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("kernel", ["divided_by_constant", "divided_floats", "divided_before"])
def test_what_is_no_integer_division_in_the_loop_is_not(inspected, kernel, arch):
    assert inspected(kernel, arch).loop.divisions == ()


def test_a_division_is_told_with_its_line(inspected, samples):
    line = line_of(samples, "the division")
    assert inspected("divided_32").loop.divisions == (f"samples.cu:{line}",)


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("bits", [8, 32, 64, 128])
def test_widths_of_global_loads(inspected, bits, arch):
    assert inspected(f"loads_{bits}", arch).loop.load_bits == {bits: 1}


def test_widths_of_asynchronous_copies_and_of_shared_loads(inspected):
    loop = inspected("two_stages").loop
    assert loop.load_bits == {128: 1}
    assert loop.shared_bits[128] >= 8


@pytest.mark.parametrize("arch", ARCHS)
def test_the_inner_loop_is_the_main_one(code, arch):
    function = code("nested", arch)
    inner = main_loop(function)
    assert inner.depth == 2
    assert counts(inner.instructions)["FFMA"] == 8
    (outer,) = [
        loop for loop in loops(function) if set(inner.instructions) < set(loop.instructions)
    ]
    assert outer.depth == 1
    assert counts(outer.instructions)["FFMA"] == 9
    assert counts(outer.own)["FFMA"] == 1


@pytest.mark.parametrize("arch", ARCHS)
def test_a_loop_around_copies_is_the_main_one(code, arch):
    loop = main_loop(code("around_copies", arch))
    kinds = counts(loop.instructions)
    assert loop.depth == 1
    assert kinds["FFMA"] == 16
    assert kinds["STG"] >= 1
    assert counts(loop.own)["STG"] == 0
    assert kinds["barrier"] == 1


@pytest.mark.parametrize("arch", ARCHS)
def test_the_unrolled_copy_is_the_main_one(code, arch):
    function = code("with_remainder", arch)
    assert len([loop for loop in loops(function) if len(loop.instructions) > 1]) >= 2
    assert counts(main_loop(function).instructions)["FFMA"] >= 8


@pytest.mark.parametrize("arch", ARCHS)
def test_branches_inside_belong_to_the_loop(code, arch):
    kinds = counts(main_loop(code("branching", arch)).instructions)
    assert kinds["FFMA"] == 1
    assert kinds["special"] == 1
    assert kinds["STG"] == 0


@pytest.mark.parametrize("arch", ARCHS)
def test_without_a_loop_all_of_the_code_counts(inspected, arch):
    loop = inspected("straight", arch).loop
    assert not loop.repeats
    assert loop.kinds["FFMA"] == 1
    assert loop.kinds["STG"] == 1
    assert loop.code[-1].opcode == "EXIT"


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize(
    ("kernel", "stages"), [("nested", 0), ("one_stage", 1), ("two_stages", 2), ("three_stages", 3)]
)
def test_stages_of_asynchronous_copies(inspected, kernel, stages, arch):
    assert inspected(kernel, arch).loop.stages == stages


@pytest.mark.parametrize("arch", ARCHS)
def test_matrix_products_and_how_their_fragments_are_read(inspected, arch):
    words, matrices = (
        inspected(f"product_by_{name}", arch).loop.kinds for name in ("words", "matrices")
    )
    assert words["HMMA"] == matrices["HMMA"] == 1
    assert "LDSM" not in words
    assert words["LDS"] >= 2
    assert matrices["LDSM"] == 1
    assert "LDS" not in matrices


def test_every_instruction_has_a_line_of_a_file(code, samples):
    instructions = code("divided_32").instructions
    assert {i.file for i in instructions if i.line} == {str(samples)}
    assert sum(1 for i in instructions if i.line) > len(instructions) / 2


KINDS = {
    "FFMA R1, R2, R3, R1": "FFMA",
    "FFMA2 R2, R4.F32x2, R6.F32x2, R2.F32x2": "FFMA",
    "DFMA R2, R4, R6, R2": "DFMA",
    "HMMA.1688.F32.TF32 R4, R8, R12, R4": "HMMA",
    "HFMA2.MMA R5, -RZ, RZ, 0, 0": "move",
    "HFMA2 R5, R6, R7, R5": "float",
    "IMAD.MOV.U32 R1, RZ, RZ, R2": "move",
    "IMAD.WIDE R2, R4, R3, c[0x0][0x160]": "integer",
    "LDG.E.128.CONSTANT R4, [R2.64]": "LDG",
    "LDGSTS.E.BYPASS.LTC128B.128 [R2], [R4.64]": "LDGSTS",
    "LDGDEPBAR": "wait",
    "DEPBAR.LE SB0, 0x1": "wait",
    "LDSM.16.M88.4 R4, [R2]": "LDSM",
    "LDL R1, [R1]": "local",
    "ULDC.64 UR6, c[0x0][0x118]": "constant",
    "BAR.SYNC.DEFER_BLOCKING 0x0": "barrier",
    "BRA `(.L_x_1)": "branch",
    "ATOMG.E.ADD.STRONG.GPU PT, R2, [R2.64], R5": "atomic",
    "RED.E.ADD.F32.FTZ.RN.STRONG.GPU [R2.64], R7": "atomic",
    "MUFU.RCP R2, R2": "special",
    "F2FP.BF16.F32.PACK_AB R1, R2, R3": "convert",
    "UIADD3 UR4, UR5, 0x1, URZ": "integer",
}


@pytest.mark.parametrize("text", KINDS)
def test_kinds_of_instructions(text):
    opcode, _, operands = text.partition(" ")
    assert Instruction(0, "", opcode, operands, "", 0).kind == KINDS[text]


def test_a_width_in_a_hint_to_the_cache_is_not_the_loads():
    hinted = Instruction(0, "", "LDGSTS.E.LTC128B", "[R2], [R4.64]", "", 0)
    assert hinted.width == 32
    assert Instruction(0, "", "LDS.U.128", "R4, [R2]", "", 0).width == 128
    assert Instruction(0, "", "LDG.E.S16", "R4, [R2]", "", 0).width == 16


def listing(*rows: str) -> Function:
    """A function called f, from labels and instructions."""
    address, lines = 0, [".text.f:"]
    for row in rows:
        if row.endswith(":"):
            lines.append(row)
        else:
            lines.append(f"        /*{address:04x}*/                   {row} ;")
            address += 16
    return parse("\n".join(lines) + "\n")["f"]


def test_a_block_moved_behind_the_loop_belongs_to_it():
    function = listing(
        "MOV R0, R1",
        ".L_0:",
        "@P0 BRA `(.L_2)",
        ".L_1:",
        "FFMA R0, R0, R0, R0",
        "@P1 BRA `(.L_0)",
        "EXIT",
        ".L_2:",  # a rare case, kept out of the way
        "FADD R0, R0, R1",
        "BRA `(.L_1)",
    )
    (loop,) = loops(function)
    assert [i.opcode for i in loop.instructions] == ["BRA", "FFMA", "BRA", "FADD", "BRA"]


def test_a_branch_back_into_a_loop_from_outside_is_no_loop_of_its_own():
    function = listing(
        "@P0 BRA `(.L_1)",  # two ways in: neither label is passed by every way to the other
        ".L_0:",
        "FADD R0, R0, R1",
        ".L_1:",
        "FMUL R0, R0, R1",
        "@P1 BRA `(.L_0)",
        "EXIT",
    )
    assert loops(function) == []


def test_conditions_that_stand_as_operands_are_conditions():
    function = listing(
        ".L_0:", "FFMA R0, R0, R0, R0", "BRA.U UP0, `(.L_0)", "FADD R0, R0, R0", "EXIT"
    )
    (loop,) = loops(function)
    assert len(loop.instructions) == 2
    assert not function.instructions[1].always_leaves
    assert function.instructions[3].always_leaves


def test_code_that_is_never_reached_is_in_no_loop():
    function = listing("EXIT", ".L_0:", "BRA `(.L_0)", "NOP")
    assert loops(function) == []
    assert main_loop(function) is None


def test_a_jump_by_a_table_leads_to_its_targets():
    function = listing(
        ".L_0:",
        'BRX R2 -0x10 (*"BRANCH_TARGETS .L_1,.L_2"*)',
        ".L_1:",
        "FADD R0, R0, R1",
        "BRA `(.L_0)",
        ".L_2:",
        "EXIT",
    )
    (loop,) = loops(function)
    assert [i.opcode for i in loop.instructions] == ["BRX", "FADD", "BRA"]
