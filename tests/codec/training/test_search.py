"""Which motion a stage with ``searched`` learns to code."""

import torch

from codec.entropy.coders import RateModel
from codec.motion_refine import refined
from codec.training.search import searched_motion

from ..conftest import debug_config, loud_codec
from ..test_motion_refine import moved


def clips() -> torch.Tensor:
    """Two clips of three frames that move by (16, 8) and back."""
    current, reference = moved(64, 96, 16, 8)
    one = torch.stack((reference, current, reference), 1)
    return torch.cat((one, one.flip(4)))


def test_the_share_of_pairs_that_is_searched():
    inter = loud_codec(debug_config("refined")).inter
    torch.manual_seed(0)
    for share, count in ((0.25, 1), (0.5, 2), (1.0, 4)):
        given = searched_motion(inter, clips(), share)
        assert len(given) == 2
        assert sum(int(each.taken.sum()) for each in given) == count
        for each in given:
            assert not each.flow[~each.taken].any()


def test_each_pair_has_one_of_its_own_flows():
    inter = loud_codec(debug_config("refined")).inter
    clip = clips()
    nothing = torch.zeros(1, 2, 32, 48)
    torch.manual_seed(0)
    seen = set()
    for _ in range(6):
        for t, given in enumerate(searched_motion(inter, clip, 1.0)):
            for sample in range(2):
                pair = clip[sample, t + 1][None], clip[sample, t][None]
                choices = refined(*pair, nothing, inter.flow.top, inter.refine)
                errors = [(given.flow[sample] - flow[0]).abs().max() for flow in choices]
                assert min(errors) < 1e-4
                seen.add(min(range(len(errors)), key=errors.__getitem__))
    assert seen == set(range(len(inter.refine.stiffness)))


def test_given_motion_is_what_is_coded_and_only_where_it_is_taken():
    codec = loud_codec(debug_config("refined"))
    clip = clips()
    quality = torch.tensor([30.0, 40.0])
    state = codec.code_intra(clip[:, 0], RateModel(), quality, (4, 6))
    given = searched_motion(codec.inter, clip[:, :2], 0.5)[0]
    flow, _, _ = codec.inter.code_motion(clip[:, 1], state, RateModel(), quality, (4, 6), given)
    net = codec.inter.flow(clip[:, 1], state.frame)
    taken = int(given.taken.nonzero())
    assert torch.equal(flow[taken], given.flow[taken])
    assert torch.equal(flow[1 - taken], net[1 - taken])
    flow[1 - taken].sum().backward()  # the flow net goes on learning from its own
    assert any(p.grad is not None and p.grad.any() for p in codec.inter.flow.parameters())
