"""Numbers in compiled loops: reading and writing bfloat16, powers of two.

numba knows no bfloat16 and does not let a loop look at a float's bits; each of these functions is
one or a few machine instructions and vectorises with the loop round it.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

_FLOAT = ir.FloatType()
_INT32 = ir.IntType(32)
_INT16 = ir.IntType(16)


@intrinsic
def from_storage(typing, x):
    """float32 of a stored number: a float32, or the int16 that holds a bfloat16's bits."""

    def generate(context, builder, signature, arguments):
        if x == types.float32:
            return arguments[0]
        bits = builder.shl(builder.zext(arguments[0], _INT32), ir.Constant(_INT32, 16))
        return builder.bitcast(bits, _FLOAT)

    return types.float32(x), generate


@intrinsic
def to_storage(typing, x, like):
    """A float32 as it is stored in an array that holds ``like``: float32, or bfloat16's bits.

    bfloat16 rounds to nearest, ties to even, as torch does; NaN stays NaN.
    """

    def generate(context, builder, signature, arguments):
        if like == types.float32:
            return arguments[0]
        bits = builder.bitcast(arguments[0], _INT32)
        high = builder.lshr(bits, ir.Constant(_INT32, 16))
        odd = builder.and_(high, ir.Constant(_INT32, 1))
        rounded = builder.add(bits, builder.add(odd, ir.Constant(_INT32, 0x7FFF)))
        rounded = builder.lshr(rounded, ir.Constant(_INT32, 16))
        # Rounding could carry a NaN's bits over into infinity.
        quiet = builder.or_(high, ir.Constant(_INT32, 0x40))
        is_nan = builder.fcmp_unordered("uno", arguments[0], arguments[0])
        return builder.trunc(builder.select(is_nan, quiet, rounded), _INT16)

    stored = types.float32 if like == types.float32 else types.int16
    return stored(types.float32, like), generate


@intrinsic
def power_of_two(typing, n):
    """2^n for a whole float32 n in -126 .. 127."""

    def generate(context, builder, signature, arguments):
        whole = builder.fptosi(arguments[0], _INT32)
        biased = builder.add(whole, ir.Constant(_INT32, 127))
        return builder.bitcast(builder.shl(biased, ir.Constant(_INT32, 23)), _FLOAT)

    return types.float32(types.float32), generate


@intrinsic
def larger(typing, a, b):
    """The larger of two float32; either may come back where one is NaN.

    That freedom is what lets the compiler vectorise a running maximum.
    """

    def generate(context, builder, signature, arguments):
        free = ("nnan", "nsz")
        above = builder.fcmp_ordered(">", *arguments, flags=free)
        return builder.select(above, *arguments, flags=free)

    return types.float32(types.float32, types.float32), generate
