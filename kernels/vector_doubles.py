"""Vector code for sums in float64.

For compiled kernels only, like vectors.py. A vector here is of LANES / 2 numbers.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from kernels.jit import LANES
from kernels.vectors import _FLOAT, _INT, _WORD, _at, _load, _multiply_add, _word

DOUBLES = LANES // 2
_DOUBLE = ir.DoubleType()
_WIDE = ir.VectorType(_DOUBLE, DOUBLES)
_NARROW = ir.VectorType(_FLOAT, DOUBLES)
_HELD = (6, 2, 1)  # vectors of sums in registers at a time


@intrinsic
def add_rows(typing, table, values, count, base, out, vectors):
    """out += the sum of values[i] * row i, i < count, rows of float32 at base + table[i] (int64).

    ``values`` and ``out`` are float64; ``vectors`` of DOUBLES numbers each are added to.
    """

    def codegen(context, builder, signature, arguments):
        table, values, count, base, out, vectors = arguments

        def add(first, held):
            """To ``held`` vectors from the one on whose number is ``first``."""
            rows = builder.add(base, builder.mul(first, _word(4 * DOUBLES)))
            place = builder.add(out, builder.mul(first, _word(8 * DOUBLES)))
            places = [builder.add(place, _word(8 * DOUBLES * i)) for i in range(held)]
            sums = [cgutils.alloca_once(builder, _WIDE) for _ in range(held)]
            for slot, at in zip(sums, places, strict=True):
                builder.store(builder.load(_at(builder, at, _WIDE), align=8), slot)
            with cgutils.for_range(builder, count, intp=_WORD) as loop:
                step = builder.mul(loop.index, _word(8))
                value = builder.load(_at(builder, builder.add(values, step), _DOUBLE), align=8)
                row = builder.add(rows, _load(builder, builder.add(table, step), _WORD))
                value = _everywhere(builder, value)
                for i, slot in enumerate(sums):
                    weights = _load(builder, row, _NARROW, 4 * DOUBLES * i)
                    weights = builder.fpext(weights, _WIDE)
                    builder.store(_multiply_add(builder, value, weights, builder.load(slot)), slot)
            for slot, at in zip(sums, places, strict=True):
                builder.store(builder.load(slot), _at(builder, at, _WIDE), align=8)

        done = _word(0)
        for held in _HELD:
            groups = builder.udiv(builder.sub(vectors, done), _word(held))
            with cgutils.for_range(builder, groups, intp=_WORD) as loop:
                add(builder.add(done, builder.mul(loop.index, _word(held))), held)
            done = builder.add(done, builder.mul(groups, _word(held)))
        return context.get_dummy_value()

    return types.void(*[types.intp] * 6), codegen


def _everywhere(builder, number):
    """A vector of one float64."""
    none = ir.Constant(_WIDE, ir.Undefined)
    single = builder.insert_element(none, number, ir.Constant(_INT, 0))
    lanes = ir.Constant(ir.VectorType(_INT, DOUBLES), [0] * DOUBLES)
    return builder.shuffle_vector(single, none, lanes)
