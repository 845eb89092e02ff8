"""Vector code for images that lie plane by plane: LANES neighbouring queries of a row, one a lane.

For compiled kernels only, like vectors.py. A query's displacement is where its window begins, in
whole pixels, relative to the query itself. Neighbours with the same displacement need key pixels
that are neighbours too, so that one vector of each key plane serves all of them; no sum runs across
the lanes, and nothing is transposed.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from kernels.jit import LANES
from kernels.vector_scores import _every, _masked_load
from kernels.vectors import (
    _BITS,
    _BYTES,
    _FLOAT,
    _INDICES,
    _INT,
    _VECTOR,
    _WORD,
    _broadcast,
    _load,
    _multiply_add,
    _prefetch,
    _store,
    _word,
)

# Sums held in registers: rows of queries times displacements. CPUs with narrow vectors have half
# as many registers.
ROWS, _MOST = (4, 6) if LANES == 16 else (2, 4)

PLACED = (
    *("centre_x", "centre_y", "first_x", "first_y", "fx", "fy"),
    *("low_x", "high_x", "low_y", "high_y", "left", "top", "used"),
)
"""What ``place_windows`` writes, LANES of a kind beside each other. ``fx``, ``fy``: the fractions
of positions. ``low_x`` .. ``high_y``: as ``bounds`` in vector_scores.mix_dots. ``left``, ``top``:
the displacement. ``used``: -1 for a lane that has a query, else 0."""


def _call(builder, name, kind, *values):
    """An LLVM intrinsic whose operands and result are of one kind."""
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(kind, [kind] * len(values)), name
    )
    return builder.call(function, values)


def _place_axis(builder, own, flow, size, window):
    """(centre, fraction, low, high, displacement) of windows along one axis; cpu_search.place,
    within."""
    half = builder.sdiv(builder.sub(window, ir.Constant(_INT, 1)), ir.Constant(_INT, 2))
    half, window = (_broadcast(builder, value, _INDICES) for value in (half, window))
    last = builder.sub(size, ir.Constant(_INT, 1))
    whole_last = _broadcast(builder, last, _INDICES)
    last = _broadcast(builder, builder.sitofp(last, _FLOAT))
    zero, none = _every(builder, 0.0), _every(builder, 0, _INDICES)

    def select(a, relation, b, yes, no):
        return builder.select(builder.fcmp_ordered(relation, a, b), yes, no)

    centre = builder.fadd(builder.sitofp(own, _VECTOR), flow)
    centre = select(centre, "ord", centre, centre, zero)
    beyond = select(centre, ">", last, builder.fsub(builder.fadd(last, last), centre), centre)
    centre = select(centre, "<", zero, builder.fneg(centre), beyond)
    centre = select(centre, ">", zero, select(centre, "<", last, centre, last), zero)
    start = builder.fsub(centre, builder.sitofp(half, _VECTOR))
    floor = _call(builder, f"llvm.floor.v{LANES}f32", _VECTOR, start)
    first = builder.fptosi(floor, _INDICES)
    # Steps j of the window are inside where centre + (j - half) is, in float32: it has the sign
    # of the exact sum, but may be rounded down to the last pixel.
    pixel = builder.fptosi(centre, _INDICES)

    def least(a, b):
        return builder.select(builder.icmp_signed("<", a, b), a, b)

    low = builder.sub(half, pixel)
    low = least(builder.select(builder.icmp_signed(">", low, none), low, none), window)
    end = builder.sub(whole_last, pixel)  # of j - half
    reached = builder.fadd(centre, builder.sitofp(end, _VECTOR))
    more = builder.zext(builder.fcmp_ordered("<=", reached, last), _INDICES)
    high = least(builder.add(builder.add(end, half), more), window)
    return centre, builder.fsub(start, floor), low, high, builder.sub(first, own)


@intrinsic
def place_windows(typing, flow, plane, count, x, y, width, height, window, integer, out):
    """Where the windows of the queries (x, y) .. (x + count - 1, y) lie, count <= LANES.

    Args:
        flow: address of the first query's x component; that of y is ``plane`` bytes further.
        width, height: of the image. window: candidates per axis.
        integer: 1: the flow is rounded first.
        out: [len(PLACED)][LANES] float32 or int32; see ``PLACED``.
    """

    def codegen(context, builder, signature, arguments):
        flow, plane, count, x, y, width, height, window, integer, out = arguments
        count, x, y, width, height, window = (
            builder.trunc(value, _INT) for value in (count, x, y, width, height, window)
        )
        lanes = ir.Constant(_INDICES, list(range(LANES)))
        used = builder.icmp_signed("<", lanes, _broadcast(builder, count, _INDICES))
        rounds = _broadcast(builder, builder.trunc(integer, ir.IntType(1)), _BITS)
        own_x = builder.add(lanes, _broadcast(builder, x, _INDICES))
        own_y = _broadcast(builder, y, _INDICES)
        axes = []
        for address, own, size in ((flow, own_x, width), (builder.add(flow, plane), own_y, height)):
            moved = _masked_load(builder, address, used)
            rounded = _call(builder, f"llvm.rint.v{LANES}f32", _VECTOR, moved)
            moved = builder.select(rounds, rounded, moved)
            axes.append(_place_axis(builder, own, moved, size, window))
        centres, fractions, lows, highs, displacements = zip(*axes, strict=True)
        half = builder.sdiv(builder.sub(window, ir.Constant(_INT, 1)), ir.Constant(_INT, 2))
        first = _broadcast(builder, builder.fneg(builder.sitofp(half, _FLOAT)))
        values = [
            *(*centres, first, first, *fractions),
            *(lows[0], highs[0], lows[1], highs[1], *displacements),
            builder.sext(used, _INDICES),
        ]
        for i, value in enumerate(values):
            _store(builder, value, out, i * _BYTES)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 10), codegen


@intrinsic
def bound_windows(typing, placed, box):
    """box, int32 [4] = the least and largest ``left`` and ``top`` of the lanes ``used``.

    The least are larger than the largest where no lane is used.
    """

    def codegen(context, builder, signature, arguments):
        placed, box = arguments
        left, top, used = (
            _load(builder, placed, _INDICES, PLACED.index(name) * _BYTES)
            for name in ("left", "top", "used")
        )
        used = builder.icmp_signed("!=", used, _every(builder, 0, _INDICES))
        huge = 1 << 30
        for i, value in enumerate((left, left, top, top)):
            nothing = _every(builder, -huge if i % 2 else huge, _INDICES)
            name = f"llvm.vector.reduce.{('smin', 'smax')[i % 2]}.v{LANES}i32"
            reduce = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(_INT, [_INDICES]), name
            )
            found = builder.call(reduce, [builder.select(used, value, nothing)])
            _store(builder, found, box, 4 * i)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), codegen


def _emit_copy(half: bool):
    """Code for ``copy_row`` and ``widen_row``."""
    narrow = ir.IntType(16)

    def codegen(context, builder, signature, arguments):
        source, target, count = arguments
        size = 2 if half else 4

        def some(first, lanes):
            place = builder.add(source, builder.mul(first, _word(size)))
            if half:
                kind = ir.VectorType(_INT, lanes)
                value = _load(builder, place, ir.VectorType(narrow, lanes))
                shift = ir.Constant(kind, [16] * lanes)
                value = builder.shl(builder.zext(value, kind), shift)
            else:
                value = _load(builder, place, ir.VectorType(_INT, lanes))
            _store(builder, value, builder.add(target, builder.mul(first, _word(4))))

        whole = builder.udiv(count, _word(LANES))
        with cgutils.for_range(builder, whole, intp=_WORD) as loop:
            some(builder.mul(loop.index, _word(LANES)), LANES)
        done = builder.mul(whole, _word(LANES))
        with cgutils.for_range(builder, builder.sub(count, done), intp=_WORD) as loop:
            some(builder.add(done, loop.index), 1)
        return context.get_dummy_value()

    return codegen


@intrinsic
def copy_row(typing, source, target, count):
    """Copy ``count`` float32 numbers, and read no others."""
    return types.void(*[types.intp] * 3), _emit_copy(half=False)


@intrinsic
def widen_row(typing, source, target, count):
    """As ``copy_row``, from bfloat16 to float32."""
    return types.void(*[types.intp] * 3), _emit_copy(half=True)


@intrinsic
def fetch(typing, address, step, count):
    """Ask for ``count`` cache lines, ``step`` bytes apart, valid or not."""

    def codegen(context, builder, signature, arguments):
        address, step, count = arguments
        with cgutils.for_range(builder, count, intp=_WORD) as loop:
            _prefetch(builder, builder.add(address, builder.mul(loop.index, step)))
        return context.get_dummy_value()

    return types.void(*[types.intp] * 3), codegen


@intrinsic
def row_products(typing, queries, rows, keys, step, following, channels, columns, out, out_step):
    """out[row][j] = sum over channels of the queries' numbers * those of the key pixels, by lane.

    Lane n of ``columns`` sums meets the key pixels n, n + 1, .. of a row.

    Args:
        queries: [channels][ROWS][LANES] float32; the first of ``rows`` <= ROWS rows of them.
        keys: the key's first plane at the pixel of lane 0; planes are ``step`` bytes apart.
        following: likewise, which pixels will be asked for next.
        out: [rows][columns][LANES], rows ``out_step`` bytes apart.
    """

    def codegen(context, builder, signature, arguments):
        queries, rows, keys, step, following, channels, columns, out, out_step = arguments

        def some(held, wide, first):
            """The sums of ``wide`` displacements from the first one on."""
            offset = builder.mul(first, _word(4))
            start, ahead = builder.add(keys, offset), builder.sub(following, keys)
            sums = [
                [cgutils.alloca_once(builder, _VECTOR) for _ in range(wide)] for _ in range(held)
            ]
            for slot in sum(sums, []):
                builder.store(ir.Constant(_VECTOR, [0.0] * LANES), slot)
            with cgutils.for_range(builder, channels, intp=_WORD) as loop:
                place = builder.add(queries, builder.mul(loop.index, _word(ROWS * _BYTES)))
                own = [_load(builder, place, offset=row * _BYTES) for row in range(held)]
                pixels = builder.add(start, builder.mul(loop.index, step))
                _prefetch(builder, builder.add(pixels, ahead))
                for j in range(wide):
                    other = _load(builder, pixels, offset=4 * j)
                    for row in range(held):
                        total = builder.load(sums[row][j])
                        total = _multiply_add(builder, own[row], other, total)
                        builder.store(total, sums[row][j])
                _prefetch(builder, builder.add(builder.add(pixels, ahead), _word(_BYTES)))
            target = builder.add(out, builder.mul(first, _word(_BYTES)))
            for row in range(held):
                for j in range(wide):
                    _store(builder, builder.load(sums[row][j]), target, j * _BYTES)
                target = builder.add(target, out_step)

        # As few passes over the channels as registers allow, all of nearly the same width.
        passes = builder.udiv(builder.add(columns, _word(_MOST - 1)), _word(_MOST))
        wide = builder.udiv(columns, passes)
        wider = builder.urem(columns, passes)  # so many passes have one displacement more
        first = cgutils.alloca_once_value(builder, _word(0))
        with cgutils.for_range(builder, passes, intp=_WORD) as loop:
            more = builder.zext(builder.icmp_unsigned("<", loop.index, wider), _WORD)
            number = builder.add(wide, more)
            end = builder.append_basic_block("summed")
            kind = builder.add(builder.mul(rows, _word(_MOST + 1)), number)
            nothing = builder.append_basic_block("nothing")
            switch = builder.switch(kind, nothing)
            builder.position_at_end(nothing)
            builder.branch(end)
            for held in range(1, ROWS + 1):
                for width in range(1, _MOST + 1):
                    block = builder.append_basic_block(f"sums_{held}_{width}")
                    switch.add_case(_word(held * (_MOST + 1) + width), block)
                    builder.position_at_end(block)
                    some(held, width, builder.load(first))
                    builder.branch(end)
            builder.position_at_end(end)
            builder.store(builder.add(builder.load(first), number), first)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 9), codegen


def _shifted(builder, bits, lanes):
    """Which lanes move by so many places."""
    masked = builder.and_(lanes, _every(builder, bits, _INDICES))
    return builder.icmp_signed("!=", masked, _every(builder, 0, _INDICES))


@intrinsic
def mix_windows(typing, sums, placed, left, top, columns, rows, window, out):
    """Ranks of all candidates from products that lanes have at displacements of their own.

    Args:
        sums: [rows][columns][LANES], of the displacements left .. and top ..; overwritten.
        placed: see ``PLACED``; each lane used has its window + 1 rows and columns among them,
            at most 7 from the first one.
        out: [window * window][LANES]: candidates outside the image rank -inf; lanes that are not
            used keep what they have.
    """

    def codegen(context, builder, signature, arguments):
        sums, placed, left, top, columns, rows, window, out = arguments
        field = {
            name: _load(builder, placed, _VECTOR if name in ("fx", "fy") else _INDICES, i * _BYTES)
            for i, name in enumerate(PLACED)
            if i >= 4
        }
        one = ir.Constant(_VECTOR, [1.0] * LANES)
        fx, fy = field["fx"], field["fy"]
        gx, gy = builder.fsub(one, fx), builder.fsub(one, fy)
        used = builder.icmp_signed("!=", field["used"], _every(builder, 0, _INDICES))
        zero = _every(builder, 0, _INDICES)

        def beyond(name, first):
            first = _broadcast(builder, builder.trunc(first, _INT), _INDICES)
            return builder.select(used, builder.sub(field[name], first), zero)

        def at(row, column, width):
            number = builder.add(builder.mul(row, width), column)
            return builder.add(sums, builder.mul(number, _word(_BYTES)))

        def within(step, low, high):
            step = _broadcast(builder, builder.trunc(step, _INT), _INDICES)
            reached = builder.icmp_signed("<=", field[low], step)
            return builder.and_(reached, builder.icmp_signed("<", step, field[high]))

        def move(lanes, step, lines, length, bits):
            """Move what lanes have by ``bits`` lines of ``step`` vectors towards the front."""
            moves = _shifted(builder, bits, lanes)
            some = builder.bitcast(moves, ir.IntType(LANES))
            some = builder.icmp_unsigned("!=", some, ir.Constant(ir.IntType(LANES), 0))
            with builder.if_then(some):
                distance = builder.mul(step, _word(bits * _BYTES))
                count = builder.mul(builder.sub(lines, _word(bits)), length)
                with cgutils.for_range(builder, count, intp=_WORD) as loop:
                    place = builder.add(sums, builder.mul(loop.index, _word(_BYTES)))
                    there = _load(builder, builder.add(place, distance))
                    _store(builder, builder.select(moves, there, _load(builder, place)), place)

        def mix(first, second, low, high):
            return _multiply_add(builder, second, high, builder.fmul(first, low))

        # Each lane's displacement in binary: 4 and 2, which few need, move first; the last place
        # is taken while mixing. Moving by columns takes all rows as one: what comes over from the
        # next row is beyond a lane's own columns.
        across, down = beyond("left", left), beyond("top", top)
        cells = builder.mul(rows, columns)
        for bits in (4, 2):
            move(across, _word(1), cells, _word(1), bits)
        odd = _shifted(builder, 1, across)
        held = cgutils.alloca_once(builder, _VECTOR)
        last = cgutils.alloca_once(builder, _VECTOR)
        with cgutils.for_range(builder, rows, intp=_WORD) as row:
            first, second = (_load(builder, at(row.index, _word(i), columns)) for i in range(2))
            builder.store(builder.select(odd, second, first), held)
            builder.store(second, last)
            with cgutils.for_range(builder, window, intp=_WORD) as column:
                place = at(row.index, column.index, columns)
                there = _load(builder, place, offset=2 * _BYTES)
                value = builder.select(odd, there, builder.load(last))
                _store(builder, mix(builder.load(held), value, gx, fx), place)
                builder.store(value, held)
                builder.store(there, last)
        for bits in (4, 2):
            move(down, columns, rows, columns, bits)
        odd = _shifted(builder, 1, down)
        lowest = ir.Constant(_VECTOR, [float("-inf")] * LANES)
        step = builder.mul(columns, _word(_BYTES))
        with cgutils.for_range(builder, window, intp=_WORD) as column:
            in_columns = within(column.index, "low_x", "high_x")
            place = at(_word(0), column.index, columns)
            first = _load(builder, place)
            second = _load(builder, builder.add(place, step))
            builder.store(builder.select(odd, second, first), held)
            builder.store(second, last)
            with cgutils.for_range(builder, window, intp=_WORD) as row:
                place = at(builder.add(row.index, _word(2)), column.index, columns)
                there = _load(builder, place)
                value = builder.select(odd, there, builder.load(last))
                mixed = mix(builder.load(held), value, gy, fy)
                builder.store(value, held)
                builder.store(there, last)
                inside = builder.and_(in_columns, within(row.index, "low_y", "high_y"))
                number = builder.add(builder.mul(row.index, window), column.index)
                target = builder.add(out, builder.mul(number, _word(_BYTES)))
                mixed = builder.select(inside, mixed, lowest)
                mixed = builder.select(used, mixed, _load(builder, target))
                _store(builder, mixed, target)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 8), codegen
