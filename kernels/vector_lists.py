"""Vector code for lists of places and weights, for memory, and for the softmax.

For compiled kernels only, like vectors.py.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from kernels.jit import LANES
from kernels.vectors import (
    _BYTES,
    _FLOAT,
    _INDICES,
    _INT,
    _VECTOR,
    _WORD,
    _at,
    _broadcast,
    _load,
    _multiply_add,
    _store,
    _word,
)


@intrinsic
def pad_list(typing, table, weights, count):
    """Repeat the first pixel with weight 0 behind the end of a list, LANES times."""

    def codegen(context, builder, signature, arguments):
        table, weights, count = arguments
        first = _load(builder, table, _WORD)
        end = builder.add(table, builder.mul(count, _word(8)))
        for i in range(LANES):
            place = builder.add(end, _word(8 * i))
            builder.store(first, _at(builder, place, _WORD), align=8)
        place = builder.add(weights, builder.mul(count, _word(4)))
        _store(builder, ir.Constant(_VECTOR, [0.0] * LANES), place)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 3), codegen


@intrinsic
def clear(typing, address, size):
    """Write zeros to ``size`` bytes, whole vectors."""

    def codegen(context, builder, signature, arguments):
        address, size = arguments
        zero = ir.Constant(_VECTOR, [0.0] * LANES)
        with cgutils.for_range(builder, builder.udiv(size, _word(_BYTES)), intp=_WORD) as loop:
            at = builder.mul(loop.index, _word(_BYTES))
            _store(builder, zero, builder.add(address, at))
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), codegen


@intrinsic
def fill(typing, address, number, vectors):
    """Write a float32 to all lanes of ``vectors`` vectors.

    A loop over the lanes would be turned into slow scattered stores.
    """

    def codegen(context, builder, signature, arguments):
        address, number, vectors = arguments
        number = _broadcast(builder, number)
        with cgutils.for_range(builder, vectors, intp=_WORD) as loop:
            at = builder.mul(loop.index, _word(_BYTES))
            _store(builder, number, builder.add(address, at))
        return context.get_dummy_value()

    return types.void(types.intp, types.float32, types.intp), codegen


@intrinsic
def copy(typing, source, target, count):
    """Copy ``count`` float32 numbers; reads whole vectors."""

    def codegen(context, builder, signature, arguments):
        source, target, count = arguments
        whole = builder.udiv(count, _word(LANES))
        with cgutils.for_range(builder, whole, intp=_WORD) as loop:
            at = builder.mul(loop.index, _word(_BYTES))
            _store(builder, _load(builder, builder.add(source, at)), builder.add(target, at))
        done = builder.mul(whole, _word(LANES))
        rest = builder.trunc(builder.sub(count, done), _INT)
        at = builder.mul(done, _word(4))
        lanes = ir.Constant(_INDICES, list(range(LANES)))
        mask = builder.icmp_signed("<", lanes, _broadcast(builder, rest, _INDICES))
        place = _at(builder, builder.add(target, at), _VECTOR)
        kinds = [_VECTOR, _VECTOR.as_pointer(), _INT, ir.VectorType(ir.IntType(1), LANES)]
        store = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(ir.VoidType(), kinds),
            f"llvm.masked.store.v{LANES}f32.p0",
        )
        value = _load(builder, builder.add(source, at))
        builder.call(store, [value, place, ir.Constant(_INT, 4), mask])
        return context.get_dummy_value()

    return types.void(*[types.intp] * 3), codegen


def _getter(kind, numba_kind, doc: str):
    """An intrinsic that reads one number from an address."""

    def get(typing, address):
        def codegen(context, builder, signature, arguments):
            return _load(builder, arguments[0], kind)

        return numba_kind(types.intp), codegen

    get.__doc__ = doc
    return intrinsic(get)


def _putter(numba_kind, doc: str):
    """An intrinsic that writes one number to an address."""

    def put(typing, address, value):
        def codegen(context, builder, signature, arguments):
            _store(builder, arguments[1], arguments[0])
            return context.get_dummy_value()

        return types.void(types.intp, numba_kind), codegen

    put.__doc__ = doc
    return intrinsic(put)


get_float = _getter(_FLOAT, types.float32, "The float32 at an address.")
get_word = _getter(_WORD, types.int64, "The int64 at an address.")
get_int = _getter(_INT, types.int32, "The int32 at an address.")
put_float = _putter(types.float32, "Write a float32 to an address.")
put_int = _putter(types.int32, "Write an int32 to an address.")
put_word = _putter(types.int64, "Write an int64 to an address.")


@intrinsic
def get_half(typing, address):
    """The bfloat16 at an address, as float32."""

    def codegen(context, builder, signature, arguments):
        wide = builder.zext(_load(builder, arguments[0], ir.IntType(16)), _INT)
        return builder.bitcast(builder.shl(wide, ir.Constant(_INT, 16)), _FLOAT)

    return types.float32(types.intp), codegen


def _exponential(builder, x):
    """exp(x) to 2 units in the last place; 0 below -87."""

    def every(value):
        return ir.Constant(_VECTOR, [value] * LANES)

    tiny = builder.fcmp_ordered("<", x, every(-87.0))
    x = builder.select(tiny, every(-87.0), x)
    # exp(x) = 2^n exp(r), |r| <= log(2) / 2; log(2) in two parts keeps r exact. Adding and
    # taking away 1.5 * 2^23 rounds to a whole number.
    magic = every(12582912.0)
    shifted = builder.fadd(builder.fmul(x, every(1.4426950408889634)), magic)
    n = builder.fsub(shifted, magic)
    r = _multiply_add(builder, n, every(-0.693145751953125), x)
    r = _multiply_add(builder, n, every(-1.428606765330187e-06), r)
    total = every(1.0 / 720)
    for coefficient in (1.0 / 120, 1.0 / 24, 1.0 / 6, 0.5, 1.0, 1.0):
        total = _multiply_add(builder, total, r, every(coefficient))
    power = builder.fptosi(n, _INDICES)
    power = builder.add(power, ir.Constant(_INDICES, [127] * LANES))
    power = builder.shl(power, ir.Constant(_INDICES, [23] * LANES))
    return builder.select(tiny, every(0.0), builder.fmul(total, builder.bitcast(power, _VECTOR)))


@intrinsic
def exponentials(typing, numbers, vectors):
    """numbers[i] = exp(numbers[i]) in place, to 2 units in the last place; 0 below -87."""

    def codegen(context, builder, signature, arguments):
        numbers, vectors = arguments
        with cgutils.for_range(builder, vectors, intp=_WORD) as loop:
            place = builder.add(numbers, builder.mul(loop.index, _word(_BYTES)))
            _store(builder, _exponential(builder, _load(builder, place)), place)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), codegen


@intrinsic
def softmax_lists(typing, numbers, count, scale):
    """softmax of scale * number over ``count`` vectors, lane by lane, in place.

    Infinite numbers weigh 0, all of them if need be. naive.softmax.
    """

    def codegen(context, builder, signature, arguments):
        numbers, count, scale = arguments
        scale = _broadcast(builder, scale)
        lowest = ir.Constant(_VECTOR, [float("-inf")] * LANES)
        zero = ir.Constant(_VECTOR, [0.0] * LANES)
        highest = cgutils.alloca_once_value(builder, lowest)
        total = cgutils.alloca_once_value(builder, zero)

        def each(body):
            with cgutils.for_range(builder, count, intp=_WORD) as loop:
                place = builder.add(numbers, builder.mul(loop.index, _word(_BYTES)))
                _store(builder, body(_load(builder, place)), place)

        def signed(value):
            bits = builder.bitcast(value, _INDICES)
            bits = builder.and_(bits, ir.Constant(_INDICES, [0x7FFFFFFF] * LANES))
            infinite = builder.icmp_unsigned(
                "==", bits, ir.Constant(_INDICES, [0x7F800000] * LANES)
            )
            value = builder.select(infinite, lowest, builder.fmul(value, scale))
            top = builder.load(highest)
            above = builder.fcmp_ordered(">", value, top)
            builder.store(builder.select(above, value, top), highest)
            return value

        def raised(value):
            value = _exponential(builder, builder.fsub(value, builder.load(shift)))
            builder.store(builder.fadd(builder.load(total), value), total)
            return value

        each(signed)
        top = builder.load(highest)
        none = builder.fcmp_ordered("==", top, lowest)
        shift = cgutils.alloca_once_value(builder, builder.select(none, zero, top))
        each(raised)
        sums = builder.load(total)
        one = ir.Constant(_VECTOR, [1.0] * LANES)
        some = builder.fcmp_unordered(">", sums, zero)
        share = builder.select(some, builder.fdiv(one, sums), zero)
        each(lambda value: builder.fmul(value, share))
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.float32), codegen
