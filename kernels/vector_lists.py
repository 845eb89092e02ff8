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
    _LETTERS,
    _VECTOR,
    _WORD,
    _at,
    _broadcast,
    _load,
    _multiply_add,
    _shuffle,
    _store,
    _word,
)


def _take_bits(context, builder, signature, arguments):
    """``take_cells`` for any CPU: one cell after the other."""
    cells, left, top, _, start, row, pixel, table, weights, slots = arguments
    empty = ir.Constant(_VECTOR, [-0.0] * LANES)
    nothing = ir.Constant(_INDICES, [-(1 << 31)] * LANES)
    start = builder.add(start, builder.add(builder.mul(top, row), builder.mul(left, pixel)))
    fifteen = _word(15)
    # The words of 64 cells that hold numbers, one after the other: the loop over their bits is
    # then a single one, whose end the CPU foresees best.
    pairs = cgutils.alloca_once(builder, ir.ArrayType(_WORD, 10))
    pairs = builder.ptrtoint(pairs, _WORD)
    total, held_words = _word(0), _word(0)
    for word in range(4):
        bits = _word(0)
        for i in range(64 // LANES):
            place = word * 256 + i * _BYTES
            held = _load(builder, cells, _INDICES, place)
            filled = builder.icmp_signed("!=", held, nothing)
            filled = builder.zext(builder.bitcast(filled, ir.IntType(LANES)), _WORD)
            bits = builder.or_(bits, builder.shl(filled, _word(LANES * i)))
        total = builder.add(total, builder.ctpop(bits))
        entry = builder.add(pairs, builder.mul(held_words, _word(16)))
        builder.store(bits, _at(builder, entry, _WORD), align=8)
        entry = builder.add(entry, _word(8))
        builder.store(_word(64 * word), _at(builder, entry, _WORD), align=8)
        some = builder.icmp_unsigned("!=", bits, _word(0))
        held_words = builder.add(held_words, builder.zext(some, _WORD))
    current = cgutils.alloca_once_value(builder, _load(builder, pairs, _WORD))
    pair = cgutils.alloca_once_value(builder, pairs)
    with cgutils.for_range(builder, total, intp=_WORD) as loop:
        bits, at = builder.load(current), builder.load(pair)
        bit = builder.cttz(bits, ir.Constant(ir.IntType(1), 1))
        cell = builder.add(_load(builder, at, _WORD, 8), bit)
        bits = builder.and_(bits, builder.sub(bits, _word(1)))
        done = builder.icmp_unsigned("==", bits, _word(0))
        following = builder.add(at, builder.select(done, _word(16), _word(0)))
        builder.store(following, pair)
        after = _load(builder, following, _WORD)
        builder.store(builder.select(done, after, bits), current)
        dx = builder.and_(builder.sub(cell, left), fifteen)
        dy = builder.and_(builder.sub(builder.lshr(cell, _word(4)), top), fifteen)
        place = builder.add(builder.mul(dy, row), builder.mul(dx, pixel))
        entry = builder.add(table, builder.mul(loop.index, _word(8)))
        builder.store(builder.add(start, place), _at(builder, entry, _WORD), align=8)
        value = _load(builder, builder.add(cells, builder.mul(cell, _word(4))), _FLOAT)
        _store(builder, value, builder.add(weights, builder.mul(loop.index, _word(4))))
        slot = builder.add(slots, builder.mul(cell, _word(4)))
        _store(builder, builder.trunc(loop.index, _INT), slot)
    for i in range(256 // LANES):
        _store(builder, empty, cells, i * _BYTES)
    return total


def _take_rows(context, builder, signature, arguments):
    """``take_cells`` for CPUs that can move chosen lanes of 16 together: a row at a time."""
    cells, left, top, bottom, start, row, pixel, table, weights, slots = arguments
    half = ir.VectorType(_WORD, 8)

    def chosen(operation, kind, value, mask):
        name = f"llvm.x86.avx512.mask.{operation}.v{kind.count}{_LETTERS[kind.element]}"
        move = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(kind, [kind, kind, mask.type]), name
        )
        return builder.call(move, [value, ir.Constant(kind, [0] * kind.count), mask])

    def spread_out(scalar):
        single = builder.insert_element(
            ir.Constant(half, ir.Undefined), scalar, ir.Constant(_INT, 0)
        )
        return _shuffle(builder, single, single, [0] * 8)

    fifteen = spread_out(_word(15))
    columns = []
    for first in (0, 8):
        lanes = ir.Constant(half, list(range(first, first + 8)))
        dx = builder.and_(builder.sub(lanes, spread_out(left)), fifteen)
        columns.append(builder.add(builder.mul(dx, spread_out(pixel)), spread_out(start)))
    left_at = builder.mul(left, pixel)
    iota = ir.Constant(_INDICES, list(range(LANES)))
    count = cgutils.alloca_once_value(builder, _word(0))
    rows = builder.add(builder.sub(bottom, top), _word(1))
    with cgutils.for_range(builder, rows, intp=_WORD) as loop:
        y = builder.add(top, loop.index)
        at = builder.mul(builder.and_(y, _word(15)), _word(64))
        place = builder.add(cells, at)
        held = _load(builder, place)
        nothing = ir.Constant(_INDICES, [-(1 << 31)] * LANES)
        filled = builder.icmp_signed("!=", builder.bitcast(held, _INDICES), nothing)
        n = builder.load(count)
        _store(
            builder,
            chosen("compress", _VECTOR, held, filled),
            builder.add(weights, builder.mul(n, _word(4))),
        )
        numbers = _broadcast(builder, builder.trunc(n, _INT), _INDICES)
        numbers = chosen("expand", _INDICES, builder.add(iota, numbers), filled)
        _store(builder, numbers, builder.add(slots, at))
        line = spread_out(builder.add(builder.mul(y, row), left_at))
        for first, column in zip((0, 8), columns, strict=True):
            lanes = list(range(first, first + 8))
            some = _shuffle(builder, filled, filled, lanes)
            offsets = chosen("compress", half, builder.add(column, line), some)
            _store(builder, offsets, builder.add(table, builder.mul(n, _word(8))))
            bits = builder.zext(builder.bitcast(some, ir.IntType(8)), _WORD)
            n = builder.add(n, builder.ctpop(bits))
        builder.store(n, count)
        _store(builder, ir.Constant(_VECTOR, [-0.0] * LANES), place)
    return builder.load(count)


@intrinsic
def take_cells(typing, cells, left, top, bottom, start, row, pixel, table, weights, slots):
    """List the cells of a square that hold a number, and empty them: how many there are.

    Args:
        cells: [16][16] float32; -0.0 is an empty one. Cell (y & 15, x & 15) belongs to the pixel
            (y, x), top <= y <= bottom < top + 16, left <= x < left + 16.
        start, row, pixel: pixel (y, x) is at start + y * row + x * pixel, which goes to ``table``
            (int64); the number goes to ``weights``.
        slots: int32 [256]: receives each listed cell's place in the list.

    Writes up to 16 numbers beyond the list's end.
    """

    return types.intp(*[types.intp] * 10), _take_rows if LANES == 16 else _take_bits


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
