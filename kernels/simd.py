"""Vectors of 16 numbers for Numba, and operators on them: `store(y, j, a + 2.0 * load(x, i))`.

As those of `tinyvid.kernels.lanes`, but as many numbers for each scalar type, so that the layout of
what is transformed does not depend on it. LLVM divides them among the registers that there are: 16
float32 are one register of AVX-512, two of AVX2, four of SSE and of NEON.
"""

from __future__ import annotations

import operator
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import lower_builtin

from tinyvid.kernels.lanes import Vector, intrinsic, multiply_add, rectified, store

__all__ = ["LANES", "load", "multiply_add", "rectified", "spread", "store", "turn", "zeros_of"]

LANES = 16


@intrinsic
def load(typing: Any, array: Any, index: Any) -> Any:
    """Return the vector array[index : index + LANES]."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        at = _address(context, builder, array, *args)
        vector = context.get_value_type(sig.return_type)
        loaded = builder.load(builder.bitcast(at, vector.as_pointer()))
        loaded.align = array.dtype.bitwidth // 8
        return loaded

    return Vector(array.dtype, LANES)(array, types.intp), generate


@intrinsic
def spread(typing: Any, array: Any, index: Any) -> Any:
    """Return a vector whose every number is array[index]."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _filled(builder, builder.load(_address(context, builder, array, *args)))

    return Vector(array.dtype, LANES)(array, types.intp), generate


@intrinsic
def zeros_of(typing: Any, array: Any) -> Any:
    """Return a vector of zeros, of the dtype of the array."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return ir.Constant(context.get_value_type(sig.return_type), [0.0] * LANES)

    return Vector(array.dtype, LANES)(array), generate


@intrinsic
def turn(typing: Any, out: Any, o: Any, array: Any, index: Any, step: Any) -> Any:
    """Transpose a square: out[o + j * LANES + i] = array[index + i * step + j], i and j < LANES."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        out_type, index_type, array_type = sig.args[0], sig.args[1], sig.args[2]
        vector = context.get_value_type(Vector(array.dtype, LANES))
        align = array.dtype.bitwidth // 8

        def at(base: Any, step: Any, i: int) -> Any:
            return builder.add(base, builder.mul(step, context.get_constant(index_type, i)))

        rows = []
        for i in range(LANES):
            place = _address(context, builder, array_type, args[2], at(args[3], args[4], i))
            rows.append(builder.load(builder.bitcast(place, vector.as_pointer())))
            rows[i].align = align
        # Blocks of two by two change places, those off the diagonal: of 8, then 4, 2 and 1 numbers.
        size = LANES // 2
        while size:
            low = [j if not j & size else LANES + j - size for j in range(LANES)]
            high = [j + size if not j & size else LANES + j for j in range(LANES)]
            for i in (i for i in range(LANES) if not i & size):
                a, b = rows[i], rows[i + size]
                rows[i], rows[i + size] = (
                    builder.shuffle_vector(a, b, _numbers(mask)) for mask in (low, high)
                )
            size //= 2
        lanes = context.get_constant(index_type, LANES)
        for j, row in enumerate(rows):
            place = _address(context, builder, out_type, args[0], at(args[1], lanes, j))
            stored = builder.store(row, builder.bitcast(place, vector.as_pointer()))
            stored.align = align
        return context.get_dummy_value()

    return types.void(out, types.intp, array, types.intp, types.intp), generate


def _numbers(mask: list[int]) -> Any:
    return ir.Constant(ir.VectorType(ir.IntType(32), len(mask)), mask)


def _address(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    data = cgutils.create_struct_proxy(array_type)(context, builder, value=array).data
    return builder.gep(data, [index])


def _filled(builder: Any, scalar: Any) -> Any:
    none = ir.Constant(ir.VectorType(scalar.type, LANES), ir.Undefined)
    first = builder.insert_element(none, scalar, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(first, none, zeros)


def _of_two_vectors(self: Any, args: Any, _: Any) -> Any:
    if len(args) == 2 and isinstance(args[0], Vector) and args[0] == args[1]:
        return signature(args[0], *args)
    return None


def _of_a_number_and_a_vector(self: Any, args: Any, _: Any) -> Any:
    if len(args) == 2 and isinstance(args[0], types.Float) and isinstance(args[1], Vector):
        return signature(args[1], types.float64, args[1])
    return None


def _lowered(instruction: str) -> Any:
    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        a, b = args
        if not isinstance(sig.args[0], Vector):
            a = _filled(builder, context.cast(builder, a, types.float64, sig.return_type.scalar))
        return getattr(builder, instruction)(a, b)

    return generate


# a + b and a - b of two vectors, and number * a.
for _operator, _instruction, _first, _typing in (
    (operator.add, "fadd", Vector, _of_two_vectors),
    (operator.sub, "fsub", Vector, _of_two_vectors),
    (operator.mul, "fmul", types.Float, _of_a_number_and_a_vector),
):
    infer_global(_operator)(type("_Typing", (AbstractTemplate,), {"generic": _typing}))
    lower_builtin(_operator, _first, Vector)(_lowered(_instruction))
