"""Compiling without a GPU: caches, messages, and what the assembler's log says."""

import sys

import pytest

from tinyvid.errors import UserError
from tinyvid.kernels.inspection import compile as compiling
from tinyvid.kernels.inspection.compile import compile_file
from tinyvid.kernels.inspection.resources import resources

KERNEL = '#include "size.cuh"\nextern "C" __global__ void f(float* y) { y[0] = SIZE; }\n'


@pytest.fixture
def source(toolchain, tmp_path, monkeypatch):
    """A kernel and the header it includes, and caches with nothing in them."""
    monkeypatch.setattr(compiling, "_compiled", {})
    monkeypatch.setenv("TINYVID_CACHE", str(tmp_path / "cache"))
    (tmp_path / "size.cuh").write_text("#define SIZE 4\n")
    (tmp_path / "f.cu").write_text(KERNEL)
    return tmp_path / "f.cu"


@pytest.fixture
def no_compiler(monkeypatch):
    """Return a function after which nothing can be compiled, as in a new process."""

    def forbid():
        monkeypatch.setattr(compiling, "_compiled", {})
        monkeypatch.setattr(compiling, "_compile", None)

    return forbid


def test_machine_code_and_ptx_are_of_the_architecture(source):
    for arch in ("sm_80", "sm_100"):
        compiled = compile_file(source, arch)
        assert compiled.cubin.startswith(b"\x7fELF")
        assert f".target {arch}" in compiled.ptx
        assert f"'f' for '{arch}'" in compiled.log


def test_constants_are_defined_by_value_or_by_name(source):
    source.write_text(
        '#ifdef FLAG\nextern "C" __global__ void f(TYPE* y) { y[0] = sizeof(TYPE); }\n#endif\n'
    )
    assert "TYPE" not in compile_file(source, "sm_80", {"FLAG": True, "TYPE": "double"}).ptx
    assert list(resources(compile_file(source, "sm_80", {"FLAG": True, "TYPE": "float"}))) == ["f"]
    assert list(resources(compile_file(source, "sm_80"))) == []


def test_an_empty_log_is_not_written_into_a_constant_of_python(toolchain):
    """Python keeps one object for each single byte, and an empty log is a single zero."""
    from cuda.bindings import nvrtc

    program = compiling._call(nvrtc.nvrtcCreateProgram, b"", b"f.cu", 0, None, None)
    nvrtc.nvrtcCompileProgram(program, 0, [])
    assert compiling._call(nvrtc.nvrtcGetProgramLogSize, program) == 1
    text = compiling._text(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog, program)
    nvrtc.nvrtcDestroyProgram(program)
    assert text == ""
    assert [n for n in range(256) if bytes([n])[0] != n] == []


def test_it_is_compiled_as_cupy_compiles(source):
    source.write_text('extern "C" __global__ void f(float* y) { y[0] *= y[1]; }\n')
    assert "mul.ftz.f32" in compile_file(source, "sm_80").ptx


def test_a_second_process_reads_what_the_first_compiled(source, no_compiler):
    first = compile_file(source, "sm_80", {"A": 1})
    assert compile_file(source, "sm_80", {"A": 1}) is first
    no_compiler()
    second = compile_file(source, "sm_80", {"A": 1})
    assert second is not first
    assert (second.cubin, second.ptx, second.log) == (first.cubin, first.ptx, first.log)
    with pytest.raises(TypeError):  # another constant is another result
        compile_file(source, "sm_80", {"A": 2})


def test_a_changed_header_is_compiled_anew(source):
    first = compile_file(source, "sm_80")
    (source.parent / "size.cuh").write_text("#define SIZE 5\n")
    second = compile_file(source, "sm_80")
    assert first.key != second.key
    assert first.ptx != second.ptx


def test_another_version_of_the_compiler_compiles_anew(source, monkeypatch):
    first = compile_file(source, "sm_80")
    monkeypatch.setattr(compiling, "nvrtc_version", lambda: "99.9")
    assert compile_file(source, "sm_80").key != first.key


def test_a_cache_cut_off_is_compiled_anew(source, monkeypatch):
    first = compile_file(source, "sm_80")
    (stored,) = (source.parent / "cache").rglob("*.json")
    stored.write_text(stored.read_text()[:100])
    monkeypatch.setattr(compiling, "_compiled", {})
    assert compile_file(source, "sm_80").cubin == first.cubin


def test_an_error_names_file_and_line_with_the_compilers_words(source):
    source.write_text("\n" + KERNEL.replace("SIZE", "undeclared"))
    with pytest.raises(UserError, match="does not compile for sm_80") as caught:
        compile_file(source, "sm_80")
    assert f'{source}(3): error: identifier "undeclared" is undefined' in str(caught.value)
    assert "ptxas info" not in str(caught.value)


def test_an_error_in_a_header_names_the_header(source):
    (source.parent / "size.cuh").write_text("#define SIZE 4\nint broken = ;\n")
    with pytest.raises(UserError, match=r"size\.cuh\(2\): error"):
        compile_file(source, "sm_80")


def test_a_file_that_is_not_there_is_named(toolchain, tmp_path):
    with pytest.raises(UserError, match=r"none\.cu: cannot be read: No such file"):
        compile_file(tmp_path / "none.cu", "sm_80")


def test_an_unknown_architecture_is_told_with_those_there_are(source):
    with pytest.raises(UserError, match=r"'sm_79'; it does for .*sm_80"):
        compile_file(source, "sm_79")


def test_a_missing_kernel_is_told_with_those_there_are(inspected):
    with pytest.raises(UserError, match=r"no kernel 'spiled'.*Did you mean 'spilled'"):
        inspected("spiled")


def test_without_nvrtc_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    compiling._nvrtc.cache_clear()
    compiling.nvrtc_version.cache_clear()
    try:
        with pytest.raises(UserError, match=r"pip install 'tinyvid\[inspect\]'") as caught:
            compiling.nvrtc_version()
        assert "\n" not in str(caught.value)
        assert not compiling.is_available()
    finally:
        compiling._nvrtc.cache_clear()


def test_without_nvdisasm_one_sentence_says_what_to_install(monkeypatch):
    from tinyvid.kernels.inspection import sass

    monkeypatch.setitem(sys.modules, "cuda.pathfinder", None)
    monkeypatch.setattr("shutil.which", lambda name: None)
    sass.nvdisasm.cache_clear()
    try:
        with pytest.raises(UserError, match=r"nvdisasm: pip install 'tinyvid\[inspect\]'"):
            sass.nvdisasm()
    finally:
        sass.nvdisasm.cache_clear()


def test_resources_tell_spills_from_arrays(inspected):
    spilled = inspected("spilled").resources
    assert spilled.registers <= 32
    assert spilled.spill_stores > 0
    assert spilled.spills == spilled.spill_stores + spilled.spill_loads
    many = inspected("many_registers").resources
    assert many.registers > 96
    assert many.spills == many.stack == 0
    indexed = inspected("indexed").resources
    assert indexed.spills == 0
    assert indexed.stack == 64 * 4


def test_resources_count_shared_memory_and_bounds(inspected):
    assert inspected("shared_memory").resources.shared == 8 * 128 * 4
    assert inspected("shared_memory", dynamic_shared=100).shared == 8 * 128 * 4 + 100
    assert inspected("many_registers").threads == 128
    assert inspected("spilled").resources.max_threads == 1024
    assert inspected("shared_memory").resources.max_threads is None
    assert inspected("shared_memory", threads=512).threads == 512


def test_an_instance_of_a_template_is_found_by_its_expression(inspected):
    facts = inspected("scaled<float, 4>")
    assert facts.kernel == "scaled<float, 4>"
    assert facts.threads == 64


@pytest.mark.parametrize(
    "file", sorted(compiling.KERNELS.glob("*/*.cu")), ids=lambda f: f"{f.parent.name}/{f.stem}"
)
def test_every_kernel_compiles_without_options(toolchain, file):
    """As `nvcc -cubin FILE.cu` has it: profilers and other tools know nothing of our sizes."""
    assert f".entry {file.parent.name}_" in compile_file(file, "sm_80").ptx
