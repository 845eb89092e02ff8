"""Images with the channels of a pixel beside each other, as the CPU paths read them.

A dot product of two pixels then reads whole vectors. float32 images that lie so already
(channels_last with whole vectors per head) are read in place; others are copied, the channels of
each head padded with zeros to whole vectors, bfloat16 widened on the way.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from kernels import pages
from kernels.jit import LANES, compiled, padded, part, pieces, run
from kernels.vector_lists import get_float, get_half, put_float
from kernels.vectors import transpose, transpose_half, transpose_plane


class Layout(NamedTuple):
    """Where an image's numbers are: an address and steps in bytes, as compiled code takes it."""

    address: int
    reference: int  # step from one reference to the next
    row: int
    pixel: int
    head: int
    vectors: int  # per head


class Planes(NamedTuple):
    """An image [C, H, W] whose rows a kernel packs itself, one at a time; see ``pack_row``."""

    address: int  # 0 where the image can be read as a Layout
    half: int
    channel: int
    row: int


_PAGE = 4096  # bytes; rows that lie whole pages apart compete for the same places in the cache
NO_PLANES = Planes(0, 0, 0, 0)
NOTHING = Layout(0, 0, 0, 0, 0, 0)


@part
def pack_row(source, half, channel, width, heads, depth, target, pixel, head):
    """Copy a row [C, W] (channels ``channel`` bytes apart) to [W, heads, padded depth]."""
    size = 2 if half else 4
    wide, deep = width // LANES * LANES, depth // LANES * LANES
    for h in range(heads):
        planes, out = source + h * depth * channel, target + h * head
        # Along the row first: the CPU's prefetching follows as many planes as a vector has lanes.
        for c in range(0, deep, LANES):
            for x in range(0, wide, LANES):
                start = planes + c * channel + x * size
                if half:
                    transpose_half(start, channel, out + x * pixel + 4 * c, pixel)
                else:
                    transpose_plane(start, channel, out + x * pixel + 4 * c, pixel)
        for c in range(depth):
            for x in range(wide if c < deep else 0, width):
                start = planes + c * channel + x * size
                value = get_half(start) if half else get_float(start)
                put_float(out + x * pixel + 4 * c, value)


@compiled
def _pack_rows(start, stop, planes, reference, height, width, heads, depth, layout):
    for item in range(start, stop):
        r, y = item // height, item % height
        source = planes.address + r * reference + y * planes.row
        target = layout.address + r * layout.reference + y * layout.row
        pack_row(
            source,
            planes.half,
            planes.channel,
            width,
            heads,
            depth,
            target,
            layout.pixel,
            layout.head,
        )


@part
def unpack_row(source, pixel, head, heads, depth, width, target, channel):
    """Copy a row [W, heads, padded depth] to [C, W] float32, channels ``channel`` bytes apart."""
    wide, deep = width // LANES * LANES, depth // LANES * LANES
    for h in range(heads):
        planes, start = target + h * depth * channel, source + h * head
        for c in range(0, deep, LANES):
            for x in range(0, wide, LANES):
                transpose(start + x * pixel + 4 * c, pixel, planes + c * channel + 4 * x, channel)
        for c in range(depth):
            for x in range(wide if c < deep else 0, width):
                put_float(planes + c * channel + 4 * x, get_float(start + x * pixel + 4 * c))


def direct(image: Tensor, heads: int) -> Layout | None:
    """The layout of an image [R, C, H, W] that can be read in place, else None."""
    depth = image.shape[1] // heads
    if image.dtype != torch.float32 or depth % LANES or image.stride(1) != 1:
        return None
    reference, _, row, pixel = (4 * step for step in image.stride())
    return Layout(image.data_ptr(), reference, row, pixel, 4 * depth, depth // LANES)


def room_for(
    references: int, channels: int, height: int, width: int, heads: int
) -> tuple[Layout, Tensor]:
    """Memory, of any content, for an image [R, C, H, W] that is packed, and its layout."""
    wide = padded(channels // heads)
    pixel = 4 * heads * wide
    row = pixel * width
    if row % _PAGE == 0:
        row += pixel
    room = pages.empty(references * height * row // 4)
    layout = Layout(room.data_ptr(), row * height, row, pixel, 4 * wide, wide // LANES)
    return layout, room


def pack(image: Tensor, heads: int) -> tuple[Layout, object]:
    """The layout of an image [R, C, H, W], and what must be kept as long as it is used."""
    layout = direct(image, heads)
    if layout is not None:
        return layout, image
    references, channels, height, width = image.shape
    depth = channels // heads
    layout, room = room_for(references, channels, height, width, heads)
    if layout.head != 4 * depth:
        room.zero_()
    if image.stride(3) == 1:
        step = [image.element_size() * s for s in image.stride()]
        planes = Planes(image.data_ptr(), int(image.dtype == torch.bfloat16), step[1], step[2])
        arguments = (planes, step[0], height, width, heads, depth, layout)
        run(_pack_rows, references * height, *arguments, chunk=pieces(references * height))
    else:
        shape = (references, height, width, heads, depth)
        steps = [step // 4 for step in (layout.reference, layout.row, layout.pixel, layout.head)]
        target = room.as_strided(shape, (*steps, 1))
        target.copy_(image.permute(0, 2, 3, 1).unflatten(3, (heads, depth)))
    return layout, room


def rows_of(image: Tensor, heads: int) -> tuple[Layout, Planes, Tensor]:
    """How a kernel reads an image [C, H, W] row by row: in place, or packing each row itself.

    A Layout with a true address stands for itself; else Planes says where the rows to pack are and
    the Layout has the steps within the kernel's own row.
    """
    layout = direct(image[None], heads)
    if layout is not None:
        return layout, NO_PLANES, image
    if image.stride(2) != 1:
        image = image.contiguous()
    channels, _, width = image.shape
    wide = padded(channels // heads)
    pixel = 4 * heads * wide
    layout = Layout(0, 0, pixel * width, pixel, 4 * wide, wide // LANES)
    size = image.element_size()
    half = int(image.dtype == torch.bfloat16)
    planes = Planes(image.data_ptr(), half, size * image.stride(0), size * image.stride(1))
    return layout, planes, image


@part
def own_row(layout, planes, y, width, heads, depth, buffer):
    """The address of row y: in the image, or packed into ``buffer`` (an address; zeros before)."""
    if planes.address == 0:
        return layout.address + y * layout.row
    source = planes.address + y * planes.row
    pack_row(
        source, planes.half, planes.channel, width, heads, depth, buffer, layout.pixel, layout.head
    )
    return buffer


@part
def row_bytes(layout, planes):
    """What ``own_row`` needs for its buffer."""
    return layout.row if planes.address else 0
