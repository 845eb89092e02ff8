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
_BYTES = 4 * LANES  # of a vector
_UNROLL = 4  # vectors of channels held in registers at a time
_HELD = 10  # the longest list of best candidates that is kept in registers
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
    """out += the sum of weights[i] * pixel i, i < count, pixels at base + table[i] (int64)."""

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

            pairs = builder.udiv(count, _word(2))
            with cgutils.for_range(builder, pairs, intp=_WORD) as loop:
                first = builder.mul(loop.index, _word(2))
                add(first, sums[0])
                add(builder.add(first, _word(1)), sums[1])
            with cgutils.if_likely(builder, builder.trunc(count, ir.IntType(1))):
                add(builder.sub(count, _word(1)), sums[0])
            for i in range(held):
                total = builder.fadd(builder.load(sums[0][i]), builder.load(sums[1][i]))
                _store(builder, total, place, i * _BYTES)

        _over_channels(builder, vectors, body)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 6), codegen


@intrinsic
def spread(typing, table, weights, count, base, source, vectors):
    """pixel i += weights[i] * source, i < count, pixels at base + table[i] (int64)."""

    def codegen(context, builder, signature, arguments):
        table, weights, count, base, source, vectors = arguments

        def body(offset, held):
            start, pixels = builder.add(source, offset), builder.add(base, offset)
            own = [_load(builder, start, offset=i * _BYTES) for i in range(held)]
            with cgutils.for_range(builder, count, intp=_WORD) as loop:
                weight = builder.add(weights, builder.mul(loop.index, _word(4)))
                weight = _broadcast(builder, _load(builder, weight, _FLOAT))
                pixel = builder.add(table, builder.mul(loop.index, _word(8)))
                pixel = builder.add(pixels, _load(builder, pixel, _WORD))
                for i in range(held):
                    other = _load(builder, pixel, offset=i * _BYTES)
                    _store(
                        builder, _multiply_add(builder, weight, own[i], other), pixel, i * _BYTES
                    )

        _over_channels(builder, vectors, body)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 6), codegen


def _emit_transpose(half: bool):
    """Code for ``transpose`` and ``transpose_half``."""

    def codegen(context, builder, signature, arguments):
        source, source_step, target, target_step = arguments
        rows = []
        for _ in range(LANES):
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
def transpose_half(typing, source, source_step, target, target_step):
    """As ``transpose``, from bfloat16 to float32."""
    return types.void(*[types.intp] * 4), _emit_transpose(half=True)


def _emit_mixture(distance: bool):
    """Code for ``mix_dots`` and ``mix_distances``."""

    def codegen(context, builder, signature, arguments):
        grid, apart, fractions, bounds, window, span = arguments
        one = ir.Constant(_VECTOR, [1.0] * LANES)
        fx, fy = (_load(builder, fractions, offset=i * _BYTES) for i in range(2))
        gx, gy = builder.fsub(one, fx), builder.fsub(one, fy)
        ends = [_load(builder, bounds, _INDICES, i * _BYTES) for i in range(4)]

        def at(row, column, width):
            number = builder.add(builder.mul(row, width), column)
            return builder.add(grid, builder.mul(number, _word(_BYTES)))

        def mix(first, second, low, high, target):
            value = builder.fmul(_load(builder, first), low)
            value = _multiply_add(builder, _load(builder, second), high, value)
            if target is not None:
                _store(builder, value, target)
            return value

        def within(step, low, high):
            step = _broadcast(builder, builder.trunc(step, _INT), _INDICES)
            reached = builder.icmp_signed("<=", low, step)
            return builder.and_(reached, builder.icmp_signed("<", step, high))

        with cgutils.for_range(builder, span, intp=_WORD) as row:
            with cgutils.for_range(builder, window, intp=_WORD) as column:
                place = at(row.index, column.index, span)
                mix(place, builder.add(place, _word(_BYTES)), gx, fx, place)
        step = builder.mul(span, _word(_BYTES))
        with cgutils.for_range(builder, window, intp=_WORD) as row:
            in_rows = within(row.index, *ends[2:])
            with cgutils.for_range(builder, window, intp=_WORD) as column:
                place = at(row.index, column.index, span)
                value = mix(place, builder.add(place, step), gy, fy, None)
                target = at(row.index, column.index, window)
                if distance:
                    less = builder.add(apart, builder.sub(target, grid))
                    value = builder.fsub(_load(builder, less), value)
                inside = builder.and_(in_rows, within(column.index, *ends[:2]))
                lowest = ir.Constant(_VECTOR, [float("-inf")] * LANES)
                _store(builder, builder.select(inside, value, lowest), target)
        return context.get_dummy_value()

    return codegen


@intrinsic
def mix_dots(typing, grid, apart, fractions, bounds, window, span):
    """Ranks of all candidates from the products at whole pixels, LANES queries side by side.

    Args:
        grid: [span * span][LANES]; overwritten with the ranks [window * window][LANES].
        apart: not used.
        fractions: [2][LANES], of x and y.
        bounds: int32 [4][LANES]: candidates outside low_x <= column < high_x or low_y <= row <
            high_y rank -inf.
    """
    return types.void(*[types.intp] * 6), _emit_mixture(distance=False)


@intrinsic
def mix_distances(typing, grid, apart, fractions, bounds, window, span):
    """As ``mix_dots`` for squared distances, negated, so that larger is better.

    |q - k(p)|^2 is the mixture of the corners' distances less ``apart`` [window * window][LANES],
    what the corners lie apart: see cpu_search.py.
    """
    return types.void(*[types.intp] * 6), _emit_mixture(distance=True)


@intrinsic
def apart_row(typing, out, fx, fy, across, down, diagonal, step):
    """out[j] = what the four corners of candidate j lie apart, for LANES j.

    ``across``, ``down`` and ``diagonal`` are rows of the squared differences of neighbouring key
    pixels, rows standing ``step`` bytes apart.
    """

    def codegen(context, builder, signature, arguments):
        out, fx, fy, across, down, diagonal, step = arguments
        fx, fy = _broadcast(builder, fx), _broadcast(builder, fy)
        one = ir.Constant(_VECTOR, [1.0] * LANES)
        gx, gy = builder.fsub(one, fx), builder.fsub(one, fy)
        multiply, add = builder.fmul, builder.fadd

        def pair(first, second, g, f):  # g^2 * first + f^2 * second
            return add(multiply(multiply(g, g), first), multiply(multiply(f, f), second))

        below = builder.add(across, step)
        level = pair(_load(builder, across), _load(builder, below), gy, fy)
        upright = pair(_load(builder, down), _load(builder, down, offset=4), gx, fx)
        x, y = multiply(fx, gx), multiply(fy, gy)
        apart = add(
            add(multiply(x, level), multiply(y, upright)),
            multiply(multiply(x, y), _load(builder, diagonal)),
        )
        _store(builder, apart, out)
        return context.get_dummy_value()

    numbers = [types.intp, types.float32, types.float32, *[types.intp] * 4]
    return types.void(*numbers), codegen


@intrinsic
def keep_best(typing, candidates, count, first, best, indices, kept):
    """Put candidates into lists of the best ones, LANES lists side by side.

    Args:
        candidates: [count][LANES] float32; candidate i has the index first + i.
        best: [kept][LANES] float32, each lane's list, largest first; NaN marks an empty place.
        indices: [kept][LANES] int32. Of equals the one that came first stands first.
    """

    def codegen(context, builder, signature, arguments):
        candidates, count, first, best, indices, kept = arguments
        end = builder.append_basic_block("kept")
        general = builder.append_basic_block("long")
        switch = builder.switch(kept, general)
        for length in range(1, _HELD + 1):
            block = builder.append_basic_block(f"kept_{length}")
            switch.add_case(_word(length), block)
            builder.position_at_end(block)
            _keep_in_registers(builder, candidates, count, first, best, indices, length)
            builder.branch(end)
        builder.position_at_end(general)
        _keep_in_memory(builder, candidates, count, first, best, indices, kept)
        builder.branch(end)
        builder.position_at_end(end)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 6), codegen


def _each_entering(builder, candidates, count, first, worst, insert):
    """Emit insert(value, index) for the candidates that beat the worst kept one in any lane."""
    with cgutils.for_range(builder, count, intp=_WORD) as loop:
        value = _load(builder, builder.add(candidates, builder.mul(loop.index, _word(_BYTES))))
        # Unordered: whatever is compared with an empty place is larger.
        enters = builder.fcmp_unordered(">", value, worst())
        any_lane = builder.bitcast(enters, ir.IntType(LANES))
        some = builder.icmp_unsigned("!=", any_lane, ir.Constant(ir.IntType(LANES), 0))
        with builder.if_then(some):
            index = builder.trunc(builder.add(first, loop.index), _INT)
            insert(value, _broadcast(builder, index, _INDICES))


def _keep_in_registers(builder, candidates, count, first, best, indices, length: int):
    """``keep_best`` for a short list: it stays in registers throughout."""
    scores = [cgutils.alloca_once(builder, _VECTOR) for _ in range(length)]
    numbers = [cgutils.alloca_once(builder, _INDICES) for _ in range(length)]
    for k in range(length):
        builder.store(_load(builder, best, offset=k * _BYTES), scores[k])
        builder.store(_load(builder, indices, _INDICES, offset=k * _BYTES), numbers[k])

    def insert(value, index):
        old = [builder.load(slot) for slot in scores]
        old_numbers = [builder.load(slot) for slot in numbers]
        wins = [builder.fcmp_unordered(">", value, score) for score in old]
        for k in range(length):
            shifted, shifted_number = value, index
            if k:
                shifted = builder.select(wins[k - 1], old[k - 1], value)
                shifted_number = builder.select(wins[k - 1], old_numbers[k - 1], index)
            builder.store(builder.select(wins[k], shifted, old[k]), scores[k])
            builder.store(builder.select(wins[k], shifted_number, old_numbers[k]), numbers[k])

    _each_entering(builder, candidates, count, first, lambda: builder.load(scores[-1]), insert)
    for k in range(length):
        _store(builder, builder.load(scores[k]), best, k * _BYTES)
        _store(builder, builder.load(numbers[k]), indices, k * _BYTES)


def _keep_in_memory(builder, candidates, count, first, best, indices, kept):
    """``keep_best`` for lists of any length."""
    last = builder.add(best, builder.mul(builder.sub(kept, _word(1)), _word(_BYTES)))

    def insert(value, index):
        _insert(builder, value, index, best, indices, kept)

    _each_entering(builder, candidates, count, first, lambda: _load(builder, last), insert)


def _insert(builder, value, index, best, indices, kept):
    """Move the places below the new value down by one, from the last to the first."""
    above = [cgutils.alloca_once(builder, kind) for kind in (_VECTOR, _INDICES)]
    beats = cgutils.alloca_once(builder, ir.VectorType(ir.IntType(1), LANES))
    # The loop carries the values before the new one; start with what precedes the first place.
    builder.store(value, above[0])
    builder.store(index, above[1])
    builder.store(ir.Constant(beats.type.pointee, [0] * LANES), beats)
    with cgutils.for_range(builder, kept, intp=_WORD) as loop:
        offset = builder.mul(loop.index, _word(_BYTES))
        score_place, index_place = builder.add(best, offset), builder.add(indices, offset)
        score, number = _load(builder, score_place), _load(builder, index_place, _INDICES)
        wins = builder.fcmp_unordered(">", value, score)
        earlier = builder.load(beats)
        shifted = builder.select(earlier, builder.load(above[0]), value)
        shifted_index = builder.select(earlier, builder.load(above[1]), index)
        _store(builder, builder.select(wins, shifted, score), score_place)
        _store(builder, builder.select(wins, shifted_index, number), index_place)
        builder.store(score, above[0])
        builder.store(number, above[1])
        builder.store(wins, beats)


@intrinsic
def offsets_of(typing, indices, places, kept, window, stride, own, reference, out):
    """The offsets of the candidates in LANES lists, relative to their queries.

    Args:
        indices: int32 [kept][LANES], the candidates' numbers within the window.
        places: [4][LANES]: centre x, y, first step x, y.
        own: [2][LANES]: the queries' x, y.
        reference: what stands in front of (dx, dy), or -1 for nothing.
        out: [kept][2 or 3][LANES].
    """

    def codegen(context, builder, signature, arguments):
        indices, places, kept, window, stride, own, reference, out = arguments
        place = [_load(builder, places, offset=i * _BYTES) for i in range(4)]
        own = [_load(builder, own, offset=i * _BYTES) for i in range(2)]
        width = _broadcast(builder, builder.sitofp(window, _FLOAT))
        share = builder.fdiv(ir.Constant(_VECTOR, [1.0] * LANES), width)
        stride = _broadcast(builder, stride)
        frame = _broadcast(builder, builder.sitofp(reference, _FLOAT))
        several = builder.icmp_signed(">=", reference, _word(0))
        size = builder.select(several, _word(3 * _BYTES), _word(2 * _BYTES))
        with cgutils.for_range(builder, kept, intp=_WORD) as loop:
            index = builder.add(indices, builder.mul(loop.index, _word(_BYTES)))
            index = builder.sitofp(_load(builder, index, _INDICES), _VECTOR)
            middle = builder.fadd(index, ir.Constant(_VECTOR, [0.5] * LANES))
            row = builder.fptosi(builder.fmul(middle, share), _INDICES)
            row = builder.sitofp(row, _VECTOR)
            column = builder.fsub(index, builder.fmul(row, width))
            end = builder.add(out, builder.mul(builder.add(loop.index, _word(1)), size))
            for axis, step in enumerate((column, row)):
                step = builder.fmul(stride, builder.fadd(place[2 + axis], step))
                value = builder.fsub(builder.fadd(place[axis], step), own[axis])
                _store(builder, value, end, (axis - 2) * _BYTES)
            with cgutils.if_unlikely(builder, several):
                _store(builder, frame, end, -3 * _BYTES)
        return context.get_dummy_value()

    numbers = [*[types.intp] * 4, types.float32, *[types.intp] * 3]
    return types.void(*numbers), codegen


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
        store = builder.module.declare_intrinsic(
            "llvm.masked.store", kinds[:2], ir.FunctionType(ir.VoidType(), kinds)
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
get_int = _getter(_INT, types.int32, "The int32 at an address.")
put_float = _putter(types.float32, "Write a float32 to an address.")
put_word = _putter(types.int64, "Write an int64 to an address.")


@intrinsic
def get_half(typing, address):
    """The bfloat16 at an address, as float32."""

    def codegen(context, builder, signature, arguments):
        wide = builder.zext(_load(builder, arguments[0], ir.IntType(16)), _INT)
        return builder.bitcast(builder.shl(wide, ir.Constant(_INT, 16)), _FLOAT)

    return types.float32(types.intp), codegen


@intrinsic
def exponentials(typing, numbers, vectors):
    """numbers[i] = exp(numbers[i]) in place, to 2 units in the last place; 0 below -87."""

    def codegen(context, builder, signature, arguments):
        numbers, vectors = arguments

        def every(value):
            return ir.Constant(_VECTOR, [value] * LANES)

        with cgutils.for_range(builder, vectors, intp=_WORD) as loop:
            place = builder.add(numbers, builder.mul(loop.index, _word(_BYTES)))
            x = _load(builder, place)
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
            result = builder.fmul(total, builder.bitcast(power, _VECTOR))
            _store(builder, builder.select(tiny, every(0.0), result), place)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), codegen
