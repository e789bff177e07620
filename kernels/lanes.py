"""Vectors of neighbouring numbers in registers, for Numba's compiled functions.

A compiler vectorises the innermost loop, and keeps what that loop sums up in memory. Where sums
shall stay in registers while a loop outside runs over what is summed, vectors must be named. Here
they are values like any other: `a = multiply_add(spread(x, i), load(w, j), a)` reads one number
of x and eight of w, and adds their eight products to a; with AVX-512, sixteen. Sums of the same
element are taken in the same order whatever the width.

No function checks its index: the caller makes sure that what it names lies inside the array.
A multiply-add may be rounded once or twice, as the processor has it; else numbers, NaN and
infinity are treated as NumPy does.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import config, extending, types
from numba.core import cgutils
from numba.core.codegen import get_host_cpu_features
from numba.extending import models, register_model

intrinsic: Any = extending.intrinsic  # what it makes is called otherwise than what it is put on


def _widest(features: str) -> int:
    """Return the bytes of a vector, given LLVM's names of what a processor has: `+avx2,-sse4a`.

    A register of AVX-512 where there is one; else of AVX2, of which a processor without it makes
    several of its own.
    """
    return 64 if "+avx512f" in features.split(",") else 32


_asked = vars(config)["CPU_FEATURES"]  # NUMBA_CPU_FEATURES, for which Numba compiles if it is set
BYTES = _widest(get_host_cpu_features() if _asked is None else _asked)


class Vector(types.Type):
    """The Numba type of a vector of numbers of a scalar type: of `BYTES`, or as many as given."""

    def __init__(self, scalar: types.Type, lanes: int | None = None):
        self.scalar = scalar
        self.lanes = lanes or lanes_of(scalar)
        super().__init__(name=f"Vector({scalar}, {self.lanes})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, fe_type: Vector):
        scalar = ir.FloatType() if fe_type.scalar == types.float32 else ir.DoubleType()
        super().__init__(manager, fe_type, ir.VectorType(scalar, fe_type.lanes))


def lanes_of(scalar: Any) -> int:
    """Return how many numbers of a type a vector holds."""
    return BYTES // (scalar.bitwidth // 8)


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    data = cgutils.create_struct_proxy(array_type)(context, builder, value=array).data
    return builder.gep(data, [index])


def _element_bytes(array: Any) -> int:
    return array.dtype.bitwidth // 8


@intrinsic
def load(typing: Any, array: Any, index: Any) -> Any:
    """Return the vector that begins at `array[index]`, of an array of one axis."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = _pointer(context, builder, array, *args)
        vector = context.get_value_type(signature.return_type)
        loaded = builder.load(builder.bitcast(pointer, vector.as_pointer()))
        loaded.align = _element_bytes(array)
        return loaded

    return Vector(array.dtype)(array, types.intp), generate


@intrinsic
def store(typing: Any, array: Any, index: Any, value: Any) -> Any:
    """Write a vector to `array[index]` and what follows it."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = _pointer(context, builder, array, *args[:2])
        stored = builder.store(args[2], builder.bitcast(pointer, args[2].type.as_pointer()))
        stored.align = _element_bytes(array)
        return context.get_dummy_value()

    return types.none(array, types.intp, value), generate


@intrinsic
def spread(typing: Any, array: Any, index: Any) -> Any:
    """Return a vector whose numbers are all `array[index]`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        number = builder.load(_pointer(context, builder, array, *args))
        vector = context.get_value_type(signature.return_type)
        first = builder.insert_element(
            ir.Constant(vector, ir.Undefined), number, ir.Constant(ir.IntType(32), 0)
        )
        same = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [0] * vector.count)
        return builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), same)

    return Vector(array.dtype)(array, types.intp), generate


@intrinsic
def count(typing: Any, array: Any) -> Any:
    """Return how many numbers of an array a vector holds."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return context.get_constant(types.intp, lanes_of(array.dtype))

    return types.intp(array), generate


@intrinsic
def multiply_add(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """Return a * b + c."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        product = builder.fmul(args[0], args[1], flags=("contract",))
        return builder.fadd(product, args[2], flags=("contract",))

    return a(a, a, a), generate


@intrinsic
def rectified(typing: Any, a: Any) -> Any:
    """Return 0 in place of what is less than 0."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        zero = ir.Constant(args[0].type, [0.0] * args[0].type.count)
        return builder.select(builder.fcmp_ordered("<", args[0], zero), zero, args[0])

    return a(a), generate


@intrinsic
def where_larger(typing: Any, a: Any, b: Any, yes: Any, no: Any) -> Any:
    """Return `yes` where a > b or a is NaN, and `no` elsewhere."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        larger = builder.fcmp_ordered(">", args[0], args[1])
        nan = builder.fcmp_unordered("uno", args[0], args[0])
        return builder.select(builder.or_(larger, nan), args[2], args[3])

    return a(a, a, a, a), generate
