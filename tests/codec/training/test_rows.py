"""Parts of a batch: which samples, and draws that are those of the whole."""

import pytest
import torch

from codec.motion_refine import refined
from codec.training.data import Batch
from codec.training.known_motion import move_photographs
from codec.training.loss import flow_loss
from codec.training.rows import Rows
from codec.training.search import searched_motion

from ..conftest import debug_config, loud_codec
from ..test_motion_refine import moved

LAYOUTS = [torch.contiguous_format, torch.channels_last]


@pytest.mark.parametrize("whole, parts", [(8, 2), (7, 3), (5, 5), (3, 1)])
def test_parts_are_the_whole(whole, parts):
    rows = Rows.all(whole).split(parts)
    samples = torch.arange(whole)
    assert torch.equal(torch.cat([samples[part.slice] for part in rows]), samples)
    assert sum(part.share for part in rows) == pytest.approx(1)
    sizes = [part.last - part.first for part in rows]
    assert max(sizes) - min(sizes) <= 1
    for outer in rows:
        own = samples[outer.slice]
        inner = outer.split(min(2, len(own)))
        assert torch.equal(torch.cat([own[part.within(outer)] for part in inner]), own)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(3, 4, 5), (1, 4, 5), (6, 1, 1), (2, 1, 7)])
def test_draws_are_those_of_the_whole_batch(layout, shape):
    x = torch.zeros(5, *shape).contiguous(memory_format=layout)
    torch.manual_seed(3)
    whole = torch.rand_like(x)
    after = torch.rand(1)
    for part in Rows.all(5).split(3):
        torch.manual_seed(3)
        assert torch.equal(part.rand_like(x[part.slice]), whole[part.slice])
        assert torch.equal(torch.rand(1), after)


@pytest.mark.parametrize("share", [0.1, 0.6, 1.0])
def test_pairs_that_are_searched_are_those_of_the_whole_batch(share):
    """One pair of eight, too: then most parts have none, and draw the same nevertheless."""
    inter = loud_codec(debug_config("refined")).inter
    clip = torch.rand(4, 3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(5)
    whole = searched_motion(inter, clip, share)
    after = torch.rand(1)
    assert sum(int(each.taken.sum()) for each in whole) > 0
    for part in Rows.all(4).split(3):
        torch.manual_seed(5)
        for one, all_ in zip(
            searched_motion(inter, clip[part.slice], share, part), whole, strict=True
        ):
            assert torch.equal(one.taken, all_.taken[part.slice])
            torch.testing.assert_close(one.flow, all_.flow[part.slice])
        assert torch.equal(torch.rand(1), after)


def test_the_search_of_a_sample_is_its_own():
    current, reference = moved(64, 96, 16, 8)
    config = debug_config("refined").inter.motion.refine
    nothing = torch.zeros(1, 2, 32, 48)
    alone = refined(current, reference, nothing, 2, config)
    noise = torch.rand_like(current)
    among = refined(
        torch.cat((noise, current)), torch.cat((noise.flip(2), reference)),
        nothing.expand(2, -1, -1, -1), 2, config,
    )  # fmt: skip
    for one, two in zip(alone, among, strict=True):
        torch.testing.assert_close(one[0], two[1])


def test_flow_loss_of_parts_adds_up():
    """Its mean is over the pixels that are seen in the whole batch, not over samples."""
    codec = loud_codec(debug_config("local"))
    batch = move_photographs(1, 0, 3, 64)
    batch.visible[0, :, :40] = 0
    whole = flow_loss(codec, batch)
    parts = [flow_loss(codec, batch.take(part.slice), part) for part in Rows.all(3).split(2)]
    torch.testing.assert_close(sum(part.loss for part in parts), whole.loss)
    for group in ("bpp", "psnr"):
        for name, value in getattr(whole, group).items():
            torch.testing.assert_close(sum(getattr(part, group)[name] for part in parts), value)


def test_a_batch_taken_twice_knows_the_whole():
    batch = move_photographs(1, 0, 4, 64)
    some = batch.take(slice(1, 4)).take(slice(0, 2))
    assert torch.equal(some.clip, batch.clip[1:3]) and torch.equal(some.flow, batch.flow[1:3])
    assert some.seen == batch.visible.sum()
    assert batch.take(slice(0, 4)) is batch
    assert Batch(batch.clip).take(slice(0, 2)).seen is None
