"""Vector code for two rows of pixels at a time: products of query and key, and their transposes.

Two query rows that lie one displacement apart meet the same key rows. So a vector of key pixels,
which is seldom aligned and therefore costs two loads, is loaded once and used twice, and the
multipliers rather than the loads set the pace. All sums of a call stay in registers.

Addresses and steps are integers in bytes and are not checked.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from kernels.jit import LANES

# Displacements and channels whose sums are held in registers, in two rows.
DISPLACEMENTS = 9 if LANES == 16 else 5
CHANNELS = 8 if LANES == 16 else 4

_FLOAT = ir.FloatType()
_WORD = ir.IntType(64)
_VECTOR = ir.VectorType(_FLOAT, LANES)
_FUSED = ("contract",)


def _place(builder, address):
    return builder.inttoptr(address, _VECTOR.as_pointer())


def _load(builder, address):
    return builder.load(_place(builder, address), align=4)


def _store(builder, value, address):
    builder.store(value, _place(builder, address), align=4)


def _multiply_add(builder, a, b, c):
    return builder.fadd(builder.fmul(a, b, flags=_FUSED), c, flags=_FUSED)


def _steps(builder, address, step, count):
    """address, address + step, ..: ``count`` of them."""
    found = [address]
    for _ in range(count - 1):
        found.append(builder.add(found[-1], step))
    return found


def _broadcast(builder, scalar):
    lane = ir.IntType(32)
    single = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), scalar, lane(0))
    zeros = ir.Constant(ir.VectorType(lane, LANES), [0] * LANES)
    return builder.shuffle_vector(single, ir.Constant(_VECTOR, ir.Undefined), zeros)


def _correlate(count: int):
    """The intrinsic that finds ``count`` displacements."""

    @intrinsic
    def correlate(
        typing,
        upper,
        lower,
        key,
        key_step,
        channel_step,
        channels,
        scale,
        out_up,
        step_up,
        out_low,
        step_low,
    ):
        """Sums over channels of query * key for LANES pixels of two rows.

        Args:
            upper, lower: the two query rows at the first pixel.
            key: at the first pixel's first displacement.
            key_step: from one displacement to the next.
            channel_step: from one channel to the next, query and key alike.
            scale: of the sums.
            out_up, out_low: where LANES sums of the first displacement go; step_up, step_low: to
                the next.
        """

        def generate(context, builder, signature, arguments):
            upper, lower, key, key_step, channel_step, channels, scale = arguments[:7]
            zero = ir.Constant(_VECTOR, [0.0] * LANES)
            sums = [cgutils.alloca_once(builder, _VECTOR) for _ in range(2 * count)]
            for slot in sums:
                builder.store(zero, slot)
            with cgutils.for_range(builder, channels, intp=_WORD) as loop:
                offset = builder.mul(loop.index, channel_step)
                rows = [_load(builder, builder.add(row, offset)) for row in (upper, lower)]
                places = _steps(builder, builder.add(key, offset), key_step, count)
                for i, place in enumerate(places):
                    other = _load(builder, place)
                    for j, own in enumerate(rows):
                        slot = sums[2 * i + j]
                        total = _multiply_add(builder, own, other, builder.load(slot))
                        builder.store(total, slot)
            factor = _broadcast(builder, scale)
            for j, (base, step) in enumerate((arguments[7:9], arguments[9:])):
                for i, place in enumerate(_steps(builder, base, step, count)):
                    _store(builder, builder.fmul(builder.load(sums[2 * i + j]), factor), place)
            return context.get_dummy_value()

        words = [types.intp] * 6
        return types.void(*words, types.float32, *[types.intp] * 4), generate

    return correlate


correlate3, correlate5, correlate7, correlate9 = (_correlate(count) for count in (3, 5, 7, 9))


@intrinsic
def gather_products(
    typing,
    upper,
    lower,
    weight_step,
    source,
    source_step,
    channel_step,
    count,
    sums_up,
    sums_low,
    step,
):
    """sums[c] += sum over ``count`` displacements of weight * source[c], LANES pixels of two rows.

    Args:
        upper, lower: the rows' weights at the first displacement; ``weight_step`` to the next.
        source: first channel at the first displacement; ``source_step`` to the next displacement,
            ``channel_step`` to the next of CHANNELS channels.
        sums_up, sums_low: the rows' sums of the first channel; ``step`` to the next.
    """

    def generate(context, builder, signature, arguments):
        upper, lower, weight_step, source, source_step, channel_step, count = arguments[:7]
        places = [_steps(builder, base, arguments[9], CHANNELS) for base in arguments[7:9]]
        slots = [[cgutils.alloca_once(builder, _VECTOR) for _ in row] for row in places]
        for row, held in zip(places, slots, strict=True):
            for place, slot in zip(row, held, strict=True):
                builder.store(_load(builder, place), slot)
        with cgutils.for_range(builder, count, intp=_WORD) as loop:
            offset = builder.mul(loop.index, weight_step)
            weights = [_load(builder, builder.add(row, offset)) for row in (upper, lower)]
            start = builder.add(source, builder.mul(loop.index, source_step))
            for i, place in enumerate(_steps(builder, start, channel_step, CHANNELS)):
                other = _load(builder, place)
                for weight, held in zip(weights, slots, strict=True):
                    total = _multiply_add(builder, weight, other, builder.load(held[i]))
                    builder.store(total, held[i])
        for row, held in zip(places, slots, strict=True):
            for place, slot in zip(row, held, strict=True):
                _store(builder, builder.load(slot), place)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 10), generate
