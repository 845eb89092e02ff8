"""Vector code for the CPU paths, as LLVM instructions: what the compiler does not find in plain
loops.

LLVM vectorises loops over channels, but neither sums across the lanes of many accumulators nor
keeps sixteen of them in registers. The functions here can be called from compiled kernels
(jit.compiled) only. Addresses are plain integers, counted in bytes, need no alignment, and are not
checked. ``vectors`` is a number of channels divided by jit.LANES. They take whatever vector width
the CPU has, down to 4 lanes.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from kernels.jit import LANES

_FLOAT = ir.FloatType()
_INT = ir.IntType(32)
_WORD = ir.IntType(64)
_VECTOR = ir.VectorType(_FLOAT, LANES)
_INDICES = ir.VectorType(_INT, LANES)
_LETTERS = {_FLOAT: "f32", _INT: "i32", _WORD: "i64"}
_BITS = ir.VectorType(ir.IntType(1), LANES)
_BYTES = 4 * LANES  # of a vector
_UNROLL = 4  # vectors of channels held in registers at a time
_HELD = 10  # the longest list of best candidates that is kept in registers
_AHEAD = 128  # bytes: two cache lines
_FUSED = ("contract",)


def _word(value: int) -> ir.Constant:
    return ir.Constant(_WORD, value)


def _at(builder, address, kind):
    return builder.inttoptr(address, kind.as_pointer())


def _load(builder, address, kind=_VECTOR, offset: int = 0):
    if offset:
        address = builder.add(address, _word(offset))
    align = 8 if kind is _WORD else 4
    return builder.load(_at(builder, address, kind), align=align)


def _store(builder, value, address, offset: int = 0):
    if offset:
        address = builder.add(address, _word(offset))
    builder.store(value, _at(builder, address, value.type), align=4)


def _shuffle(builder, a, b, lanes):
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_INT, len(lanes)), list(lanes)))


def _broadcast(builder, scalar, kind=_VECTOR):
    single = builder.insert_element(ir.Constant(kind, ir.Undefined), scalar, ir.Constant(_INT, 0))
    return _shuffle(builder, single, ir.Constant(kind, ir.Undefined), [0] * LANES)


def _multiply_add(builder, a, b, c):
    """a * b + c, fused where the CPU can."""
    return builder.fadd(builder.fmul(a, b, flags=_FUSED), c, flags=_FUSED)


def _add_across(builder, parts):
    """One vector whose lane i is the sum of the lanes of parts[i]: a transposition that adds.

    Each step joins parts whose numbers differ in one bit: a blend and one permutation for a pair,
    where two permutations are the usual way; permutations are what CPUs have fewest units for.
    """
    steps = [1 << bit for bit in range(LANES.bit_length() - 1)]
    # Halves first, where a single instruction permutes two registers.
    parts = dict(enumerate(parts))
    for step in sorted(steps, key=lambda step: (step != LANES // 2, step != 2, -step)):
        kept = [LANES * bool(lane & step) + lane for lane in range(LANES)]
        moved = [place ^ step for place in kept]
        parts = {
            i: builder.fadd(
                _shuffle(builder, part, parts[i + step], kept),
                _shuffle(builder, part, parts[i + step], moved),
            )
            for i, part in parts.items()
            if not i & step
        }
    return parts[0]


def _add_four(builder, parts):
    """A vector of 4 whose lane i is the sum of the lanes of parts[i]."""
    for step in (2, 1):
        kept = [LANES * bool(lane & step) + lane for lane in range(LANES)]
        moved = [place ^ step for place in kept]
        half = len(parts) // 2
        parts = [
            builder.fadd(_shuffle(builder, a, b, kept), _shuffle(builder, a, b, moved))
            for a, b in zip(parts[:half], parts[half:], strict=True)
        ]
    total, lanes = parts[0], LANES
    while lanes > 4:
        lanes //= 2
        low, high = list(range(lanes)), list(range(lanes, 2 * lanes))
        total = builder.fadd(
            _shuffle(builder, total, total, low), _shuffle(builder, total, total, high)
        )
    return total


def _over_channels(builder, vectors, body):
    """Emit body(byte offset, number of vectors) for all channels: fours, then ones."""
    fours = builder.udiv(vectors, _word(_UNROLL))
    with cgutils.for_range(builder, fours, intp=_WORD) as loop:
        body(builder.mul(loop.index, _word(_UNROLL * _BYTES)), _UNROLL)
    done = builder.mul(fours, _word(_UNROLL))
    with cgutils.for_range(builder, builder.sub(vectors, done), intp=_WORD) as loop:
        body(builder.mul(builder.add(done, loop.index), _word(_BYTES)), 1)


def _emit_products(difference: bool):
    """Code for ``dots`` and ``distances``."""

    def codegen(context, builder, signature, arguments):
        query, base, table, out, count, vectors = arguments

        def some(first, number, across):
            """The products with ``number`` pixels from the first one on."""
            pixels = builder.add(table, builder.mul(first, _word(8)))
            sums = [cgutils.alloca_once(builder, _VECTOR) for _ in range(number)]
            for slot in sums:
                builder.store(ir.Constant(_VECTOR, [0.0] * LANES), slot)

            def body(offset, held):
                start = builder.add(query, offset)
                own = [_load(builder, start, offset=i * _BYTES) for i in range(held)]
                keys = builder.add(base, offset)
                for lane, slot in enumerate(sums):
                    pixel = builder.add(keys, _load(builder, pixels, _WORD, 8 * lane))
                    total = builder.load(slot)
                    for i in range(held):
                        other = _load(builder, pixel, offset=i * _BYTES)
                        if difference:
                            delta = builder.fsub(own[i], other)
                            total = _multiply_add(builder, delta, delta, total)
                        else:
                            total = _multiply_add(builder, own[i], other, total)
                    builder.store(total, slot)

            _over_channels(builder, vectors, body)
            place = builder.add(out, builder.mul(first, _word(4)))
            _store(builder, across(builder, [builder.load(slot) for slot in sums]), place)

        groups = builder.udiv(count, _word(LANES))
        with cgutils.for_range(builder, groups, intp=_WORD) as loop:
            some(builder.mul(loop.index, _word(LANES)), LANES, _add_across)
        done = builder.mul(groups, _word(LANES))
        rest = builder.udiv(builder.add(builder.sub(count, done), _word(3)), _word(4))
        with cgutils.for_range(builder, rest, intp=_WORD) as loop:
            some(builder.add(done, builder.mul(loop.index, _word(4))), 4, _add_four)
        return context.get_dummy_value()

    return codegen


@intrinsic
def dots(typing, query, base, table, out, count, vectors):
    """out[i] = sum over channels of query * pixel i, i < count, pixels at base + table[i] (int64).

    Reads the table, and writes out, up to the next multiple of 4.
    """
    return types.void(*[types.intp] * 6), _emit_products(difference=False)


@intrinsic
def distances(typing, query, base, table, out, count, vectors):
    """As ``dots``, but out[i] = sum of (query - pixel i)^2."""
    return types.void(*[types.intp] * 6), _emit_products(difference=True)


@intrinsic
def weighted_sum(typing, table, weights, count, base, out, vectors):
    """out += the sum of weights[i] * pixel i, i < count, pixels at base + table[i] (int64).

    Reads the list up to the next multiple of 4: see ``pad_list``.
    """

    def codegen(context, builder, signature, arguments):
        table, weights, count, base, out, vectors = arguments

        def body(offset, held):
            place, pixels = builder.add(out, offset), builder.add(base, offset)
            # Two sets of sums, so that one addition need not wait for the one before.
            sums = [[cgutils.alloca_once(builder, _VECTOR) for _ in range(held)] for _ in range(2)]
            for i in range(held):
                builder.store(_load(builder, place, offset=i * _BYTES), sums[0][i])
                builder.store(ir.Constant(_VECTOR, [0.0] * LANES), sums[1][i])

            def add(index, slots):
                weight = builder.add(weights, builder.mul(index, _word(4)))
                weight = _broadcast(builder, _load(builder, weight, _FLOAT))
                pixel = builder.add(table, builder.mul(index, _word(8)))
                pixel = builder.add(pixels, _load(builder, pixel, _WORD))
                for i, slot in enumerate(slots):
                    other = _load(builder, pixel, offset=i * _BYTES)
                    builder.store(_multiply_add(builder, weight, other, builder.load(slot)), slot)

            fours = builder.udiv(builder.add(count, _word(3)), _word(4))
            with cgutils.for_range(builder, fours, intp=_WORD) as loop:
                first = builder.mul(loop.index, _word(4))
                for i in range(4):
                    add(builder.add(first, _word(i)), sums[i % 2])
            for i in range(held):
                total = builder.fadd(builder.load(sums[0][i]), builder.load(sums[1][i]))
                _store(builder, total, place, i * _BYTES)

        _over_channels(builder, vectors, body)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 6), codegen


@intrinsic
def spread(typing, table, weights, count, base, source, vectors):
    """pixel i += weights[i] * source, i < count, pixels at base + table[i] (int64).

    Reads the list, and adds, up to the next multiple of 4: see ``pad_list``.
    """

    def codegen(context, builder, signature, arguments):
        table, weights, count, base, source, vectors = arguments

        def body(offset, held):
            start, pixels = builder.add(source, offset), builder.add(base, offset)
            own = [_load(builder, start, offset=i * _BYTES) for i in range(held)]

            def add(index):
                weight = builder.add(weights, builder.mul(index, _word(4)))
                weight = _broadcast(builder, _load(builder, weight, _FLOAT))
                pixel = builder.add(table, builder.mul(index, _word(8)))
                pixel = builder.add(pixels, _load(builder, pixel, _WORD))
                for i in range(held):
                    other = _load(builder, pixel, offset=i * _BYTES)
                    _store(
                        builder, _multiply_add(builder, weight, own[i], other), pixel, i * _BYTES
                    )

            fours = builder.udiv(builder.add(count, _word(3)), _word(4))
            with cgutils.for_range(builder, fours, intp=_WORD) as loop:
                first = builder.mul(loop.index, _word(4))
                for i in range(4):
                    add(builder.add(first, _word(i)))

        _over_channels(builder, vectors, body)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 6), codegen


def _prefetch(builder, address):
    """Ask for the cache line at an address, valid or not."""
    pointer = ir.IntType(8).as_pointer()
    kinds = [pointer, _INT, _INT, _INT]
    fetch = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(ir.VoidType(), kinds), "llvm.prefetch.p0"
    )
    for_reading, keep, data = (ir.Constant(_INT, value) for value in (0, 3, 1))
    builder.call(fetch, [builder.inttoptr(address, pointer), for_reading, keep, data])


def _emit_transpose(half: bool, ahead: int = 0):
    """Code for ``transpose`` and the like; ``ahead``: bytes to fetch in advance."""

    def codegen(context, builder, signature, arguments):
        source, source_step, target, target_step = arguments
        rows = []
        for _ in range(LANES):
            if ahead:
                _prefetch(builder, builder.add(source, _word(ahead)))
            if half:
                narrow = _load(builder, source, ir.VectorType(ir.IntType(16), LANES))
                wide = builder.zext(narrow, _INDICES)
                shift = ir.Constant(_INDICES, [16] * LANES)
                rows.append(builder.bitcast(builder.shl(wide, shift), _VECTOR))
            else:
                rows.append(_load(builder, source))
            source = builder.add(source, source_step)
        low = [lane // 2 + (lane % 2) * LANES for lane in range(LANES)]
        high = [lane + LANES // 2 for lane in low]
        for _ in range(LANES.bit_length() - 1):
            pairs = zip(rows[: LANES // 2], rows[LANES // 2 :], strict=True)
            rows = [_shuffle(builder, a, b, lanes) for a, b in pairs for lanes in (low, high)]
        for row in rows:
            _store(builder, row, target)
            target = builder.add(target, target_step)
        return context.get_dummy_value()

    return codegen


@intrinsic
def transpose(typing, source, source_step, target, target_step):
    """Transpose LANES x LANES float32; rows stand source_step, target_step bytes apart."""
    return types.void(*[types.intp] * 4), _emit_transpose(half=False)


@intrinsic
def transpose_plane(typing, source, source_step, target, target_step):
    """As ``transpose``, from rows far apart that are read from left to right.

    They are more than the CPU's own prefetching can follow.
    """
    return types.void(*[types.intp] * 4), _emit_transpose(half=False, ahead=_AHEAD)


@intrinsic
def transpose_half(typing, source, source_step, target, target_step):
    """As ``transpose_plane``, from bfloat16 to float32."""
    return types.void(*[types.intp] * 4), _emit_transpose(half=True, ahead=_AHEAD)
