"""Vector code between products and results: scores mixed, the best kept, places computed.

For compiled kernels only, like vectors.py.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from kernels.jit import LANES
from kernels.vectors import (
    _BITS,
    _BYTES,
    _FLOAT,
    _HELD,
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


def _masked_load(builder, address, mask, kind=_VECTOR):
    """Lanes of a vector at an address, 0 where the mask is not set (nothing is read there)."""
    kinds = [kind.as_pointer(), _INT, mask.type, kind]
    name = "f32" if kind is _VECTOR else "i32"
    load = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(kind, kinds), f"llvm.masked.load.v{LANES}{name}.p0"
    )
    zero = ir.Constant(kind, [0] * LANES)
    return builder.call(load, [_at(builder, address, kind), ir.Constant(_INT, 4), mask, zero])


def _every(builder, value, kind=_VECTOR):
    """A constant, or a scalar, in all lanes."""
    if isinstance(value, (int, float)):
        return ir.Constant(kind, [value] * LANES)
    return _broadcast(builder, value, kind)


def _along_axis(builder, own, offset, step, size, clamp):
    """One axis of LANES positions: (pixel, the next one, fraction, sign of the derivative).

    As ``turn`` in naive.reflect: reflected once, then clamped; NaN counts as 0.
    """
    zero, one = _every(builder, 0.0), _every(builder, 1.0)
    last_pixel = builder.sub(builder.trunc(size, _INT), ir.Constant(_INT, 1))
    last = _broadcast(builder, builder.sitofp(last_pixel, _FLOAT))
    own, step = (_broadcast(builder, builder.sitofp(x, _FLOAT)) for x in (own, step))

    def select(a, relation, b, yes, no):
        return builder.select(builder.fcmp_ordered(relation, a, b), yes, no)

    def within(x):
        return select(x, ">", zero, select(x, "<", last, x, last), zero)

    position = builder.fadd(own, offset)
    inside = _broadcast(builder, builder.trunc(clamp, ir.IntType(1)), _BITS)
    position = builder.select(inside, within(position), position)
    position = builder.fadd(position, step)
    position = select(position, "ord", position, position, zero)
    beyond = select(position, ">", last, builder.fsub(builder.fadd(last, last), position), position)
    turned = select(position, "<", zero, builder.fneg(position), beyond)
    minus = _every(builder, -1.0)
    sign = select(position, "<", zero, minus, select(position, ">", last, minus, one))
    sign = select(turned, "<", zero, zero, select(turned, ">", last, zero, sign))
    position = within(turned)
    low = builder.fptosi(position, _INDICES)
    following = builder.add(low, _every(builder, 1, _INDICES))
    end = _broadcast(builder, last_pixel, _INDICES)
    following = builder.select(builder.icmp_signed("<", following, end), following, end)
    return low, following, builder.fsub(position, builder.sitofp(low, _VECTOR)), sign


PLACES = (
    *("left", "right", "top", "bottom", "reference", "fx", "fy", "sign_x", "sign_y"),
    *("a", "b", "c", "d", "weight_a", "weight_b", "weight_c", "weight_d"),
)
"""What ``positions`` writes for each position, LANES of a kind beside each other."""


@intrinsic
def positions(typing, offsets, coefficients, sizes, own_x, own_y, step_x, step_y, out, box):
    """Where positions lie among the pixels of an image, and what their corners weigh.

    Args:
        offsets: [count][components], (dx, dy) or (reference, dx, dy).
        coefficients: [count], or 0 for ones; a position whose coefficient is 0 is left out.
        sizes: int64 [7]: count, components, width, height, references, 1 to clamp positions before
            the step, the only reference to list or -1.
        own_x, own_y: what offsets are relative to. step_x, step_y: added afterwards.
        out: [groups of LANES][len(PLACES)][LANES] float32 or int32. The corners a, b, c, d are top
            left, top right, bottom left, bottom right; where they stand in a list is left to
            ``list_corners``. A position that is left out has the rows -1.
        box: int32 [2]: least and largest y; least > largest where there is none.
    """

    def codegen(context, builder, signature, arguments):
        offsets, coefficients, sizes, own_x, own_y, step_x, step_y, out, box = arguments
        count, parts, width, height, references, clamp, only = (
            _load(builder, sizes, _WORD, 8 * i) for i in range(7)
        )
        lanes = ir.Constant(_INDICES, list(range(LANES)))
        huge = (1 << 31) - 1
        ends = [
            cgutils.alloca_once_value(builder, _every(builder, value, _INDICES))
            for value in (huge, -huge)
        ]
        whole = builder.udiv(builder.add(count, _word(LANES - 1)), _word(LANES))
        several = builder.icmp_signed("==", parts, _word(3))
        picked = [cgutils.alloca_once(builder, _VECTOR) for _ in range(3)]

        def pick(start, left, number):
            """Take positions' components apart: into ``picked`` as (dx, dy, reference)."""
            loaded = []
            for i in range(number):
                inside = builder.icmp_signed(
                    "<",
                    ir.Constant(_INDICES, [lane + LANES * i for lane in range(LANES)]),
                    _broadcast(builder, builder.mul(left, ir.Constant(_INT, number)), _INDICES),
                )
                loaded.append(_masked_load(builder, builder.add(start, _word(i * _BYTES)), inside))
            for i in range(number):
                wanted = [number * lane + i for lane in range(LANES)]
                taken = _shuffle(
                    builder, *loaded[:2], [place if place < 2 * LANES else 0 for place in wanted]
                )
                if number == 3:
                    beyond = [
                        lane if place < 2 * LANES else place - LANES
                        for lane, place in enumerate(wanted)
                    ]
                    taken = _shuffle(builder, taken, loaded[2], beyond)
                builder.store(taken, picked[(i - 1) % 3 if number == 3 else i])

        builder.store(_every(builder, 0.0), picked[2])
        with cgutils.for_range(builder, whole, intp=_WORD) as loop:
            first = builder.mul(loop.index, _word(LANES))
            left = builder.trunc(builder.sub(count, first), _INT)
            used = builder.icmp_signed("<", lanes, _broadcast(builder, left, _INDICES))
            start = builder.add(offsets, builder.mul(builder.mul(first, parts), _word(4)))
            with builder.if_else(several, likely=False) as (three, two):
                with three:
                    pick(start, left, 3)
                with two:
                    pick(start, left, 2)
            dx, dy, r = (builder.load(slot) for slot in picked)
            x0, x1, fx, sign_x = _along_axis(builder, own_x, dx, step_x, width, clamp)
            y0, y1, fy, sign_y = _along_axis(builder, own_y, dy, step_y, height, clamp)
            r = builder.fptosi(r, _INDICES)
            last = _broadcast(
                builder, builder.trunc(builder.sub(references, _word(1)), _INT), _INDICES
            )
            zero = _every(builder, 0, _INDICES)
            r = builder.select(builder.icmp_signed("<", r, last), r, last)
            r = builder.select(builder.icmp_signed(">", r, zero), r, zero)
            mine = builder.icmp_signed(
                "==", r, _broadcast(builder, builder.trunc(only, _INT), _INDICES)
            )
            all_of_them = builder.icmp_signed("<", only, _word(0))
            mine = builder.or_(mine, _broadcast(builder, all_of_them, _BITS))
            used = builder.and_(used, mine)
            weight = cgutils.alloca_once_value(builder, _every(builder, 1.0))
            with builder.if_then(builder.icmp_unsigned("!=", coefficients, _word(0))):
                place = builder.add(coefficients, builder.mul(first, _word(4)))
                builder.store(_masked_load(builder, place, used), weight)
            weight = builder.load(weight)
            used = builder.and_(used, builder.fcmp_unordered("!=", weight, _every(builder, 0.0)))
            for slot, value, relation in zip(ends, (y0, y1), "<>", strict=True):
                best = builder.load(slot)
                better = builder.and_(used, builder.icmp_signed(relation, value, best))
                builder.store(builder.select(better, value, best), slot)
            none = _every(builder, -1, _INDICES)
            one = _every(builder, 1.0)
            gx, gy = builder.fsub(one, fx), builder.fsub(one, fy)
            above, below = builder.fmul(weight, gy), builder.fmul(weight, fy)
            weights = [builder.fmul(level, share) for level in (above, below) for share in (gx, fx)]
            values = [
                x0,
                x1,
                builder.select(used, y0, none),
                builder.select(used, y1, none),
                r,
                fx,
                fy,
                sign_x,
                sign_y,
                *[None] * 4,
                *weights,
            ]
            target = builder.add(out, builder.mul(loop.index, _word(len(PLACES) * _BYTES)))
            for i, value in enumerate(values):
                if value is not None:
                    _store(builder, value, target, i * _BYTES)
        for i, slot in enumerate(ends):
            name = f"llvm.vector.reduce.{('smin', 'smax')[i]}.v{LANES}i32"
            reduce = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(_INT, [_INDICES]), name
            )
            _store(builder, builder.call(reduce, [builder.load(slot)]), box, 4 * i)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 9), codegen


def _field(name: str) -> int:
    """Where ``positions`` writes a kind of numbers, in bytes."""
    return PLACES.index(name) * _BYTES


_CORNERS = tuple(
    zip("abcd", ("top", "top", "bottom", "bottom"), ("left", "right") * 2, strict=True)
)


def _list_lanes(context, builder, signature, arguments):
    """``list_corners`` for any CPU: one corner after the other."""
    kept, groups, reference, row, pixel, low, high, table, weights = arguments
    count = cgutils.alloca_once_value(builder, _word(0))
    lanes = builder.mul(groups, _word(LANES))
    for name, level, side in _CORNERS:
        with cgutils.for_range(builder, lanes, intp=_WORD) as loop:
            group = builder.udiv(loop.index, _word(LANES))
            lane = builder.mul(builder.urem(loop.index, _word(LANES)), _word(4))
            place = builder.mul(group, _word(len(PLACES) * _BYTES))
            place = builder.add(kept, builder.add(place, lane))

            def number(field, place=place):
                return builder.sext(_load(builder, place, _INT, _field(field)), _WORD)

            y = number(level)
            inside = builder.and_(
                builder.icmp_signed("<=", low, y), builder.icmp_signed("<", y, high)
            )
            with builder.if_then(inside):
                n = builder.load(count)
                offset = builder.add(builder.mul(y, row), builder.mul(number(side), pixel))
                offset = builder.add(offset, builder.mul(number("reference"), reference))
                entry = builder.add(table, builder.mul(n, _word(8)))
                builder.store(offset, _at(builder, entry, _WORD), align=8)
                weight = _load(builder, place, _FLOAT, _field(f"weight_{name}"))
                _store(builder, weight, builder.add(weights, builder.mul(n, _word(4))))
                _store(builder, builder.trunc(n, _INT), place, _field(name))
                builder.store(builder.add(n, _word(1)), count)
    return builder.load(count)


def _list_vectors(context, builder, signature, arguments):
    """``list_corners`` for CPUs that can move chosen lanes of 16 together."""
    kept, groups, reference, row, pixel, low, high, table, weights = arguments
    half = ir.VectorType(_WORD, LANES // 2)
    halves = [list(range(first, first + LANES // 2)) for first in (0, LANES // 2)]

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
        return _shuffle(builder, single, single, [0] * half.count)

    reference, row, pixel = (spread_out(step) for step in (reference, row, pixel))
    low, high = (_broadcast(builder, builder.trunc(x, _INT), _INDICES) for x in (low, high))
    iota = ir.Constant(_INDICES, list(range(LANES)))
    count = cgutils.alloca_once_value(builder, _word(0))
    with cgutils.for_range(builder, groups, intp=_WORD) as loop:
        place = builder.add(kept, builder.mul(loop.index, _word(len(PLACES) * _BYTES)))

        def offsets(field, step):
            numbers = _load(builder, place, _INDICES, _field(field))
            parts = [_shuffle(builder, numbers, numbers, lanes) for lanes in halves]
            return [builder.mul(builder.sext(part, half), step) for part in parts]

        start = offsets("reference", reference)
        parts = {side: offsets(side, pixel) for side in ("left", "right")}
        for level in ("top", "bottom"):
            pairs = zip(start, offsets(level, row), strict=True)
            parts[level] = [builder.add(a, b) for a, b in pairs]
        for name, level, side in _CORNERS:
            y = _load(builder, place, _INDICES, _field(level))
            inside = builder.and_(
                builder.icmp_signed("<=", low, y), builder.icmp_signed("<", y, high)
            )
            n = builder.load(count)
            weight = chosen(
                "compress",
                _VECTOR,
                _load(builder, place, _VECTOR, _field(f"weight_{name}")),
                inside,
            )
            _store(builder, weight, builder.add(weights, builder.mul(n, _word(4))))
            numbers = _broadcast(builder, builder.trunc(n, _INT), _INDICES)
            numbers = chosen("expand", _INDICES, builder.add(iota, numbers), inside)
            _store(builder, numbers, place, _field(name))
            for lanes, a, b in zip(halves, parts[level], parts[side], strict=True):
                some = _shuffle(builder, inside, inside, lanes)
                listed = chosen("compress", half, builder.add(a, b), some)
                _store(builder, listed, builder.add(table, builder.mul(n, _word(8))))
                bits = builder.zext(builder.bitcast(some, ir.IntType(LANES // 2)), _WORD)
                n = builder.add(n, builder.ctpop(bits))
            builder.store(n, count)
    return builder.load(count)


@intrinsic
def list_corners(typing, kept, groups, reference, row, pixel, low, high, table, weights):
    """List the corners of positions in the rows low .. high - 1 of an image: how many there are.

    Positions of a query may share corners, and list them more than once: to find out takes longer
    than to read a pixel again.

    Args:
        kept: [groups][len(PLACES)][LANES] of ``positions``; a, b, c, d receive each listed corner's
            place in the list.
        reference, row, pixel: the image's steps in bytes.
        table: int64, receives where the corners' pixels are; weights: float32.

    Writes up to LANES entries beyond the list's end.
    """
    return types.intp(*[types.intp] * 9), _list_vectors if LANES == 16 else _list_lanes
