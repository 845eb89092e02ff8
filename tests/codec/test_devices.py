"""A stream made on one device decodes on another. Runs where there is a GPU."""

import numpy as np
import pytest
import torch

from codec.graphed import Graphed
from codec.models import available, load
from codec.motion_refine import refined
from codec.session import decode, encode
from codec.video.synthetic import write_synthetic

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")


def luma(stream, model):
    with decode(stream, model=model, device=str(next(model.codec.parameters()).device)) as frames:
        return np.stack([planes[0].astype(float) for planes in frames])


def test_a_graph_gives_what_the_function_gives():
    """For inputs of the same shape, others, and the first again."""
    graphed = Graphed(lambda x, y: (x @ y, x.sum(0)))
    for size in (64, 64, 48, 64):
        inputs = torch.rand(2, size, size, device="cuda")
        product, total = graphed(*inputs)
        kept = product.clone()
        graphed(*torch.rand(2, size, size, device="cuda"))
        assert torch.equal(product, kept), "what was given belongs to the caller"
        torch.testing.assert_close(product, inputs[0] @ inputs[1])
        torch.testing.assert_close(total, inputs[0].sum(0))


def test_the_search_for_motion_is_the_same_in_a_graph():
    inter = load("lite", "cuda").codec.inter
    current, reference = torch.rand(2, 1, 3, 96, 128, device="cuda").unbind(0)
    estimated = torch.zeros(1, 2, 48, 64, device="cuda")
    plain = refined(current, reference, estimated, inter.flow.top, inter.refine)
    for _ in range(2):
        found = inter.search(current, reference, estimated)
        for flow, expected in zip(found, plain, strict=True):
            torch.testing.assert_close(flow, expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("name", sorted(available()))
@pytest.mark.parametrize("encoder, decoder", [("cpu", "cuda"), ("cuda", "cpu")])
@pytest.mark.parametrize("quality", [8, 40, 63])
def test_streams_cross_from_device_to_device(name, encoder, decoder, quality, tmp_path):
    check_crossing(name, encoder, decoder, tmp_path, quality=quality)


@pytest.mark.parametrize("effort", ["3", "3+4"])
@pytest.mark.parametrize("encoder, decoder", [("cpu", "cuda"), ("cuda", "cpu")])
def test_so_do_those_of_an_encoder_that_tries(encoder, decoder, effort, tmp_path):
    check_crossing("lite", encoder, decoder, tmp_path, effort=effort)


def check_crossing(name, encoder, decoder, folder, **options):
    clip, stream = folder / "clip.y4m", folder / "s.lgmc"
    write_synthetic("mixed", clip, 416, 240, 10, seed=5)
    model = load(name, encoder)
    encode(clip, stream, model=model, device=encoder, **options)
    there, here = luma(stream, load(name, decoder)), luma(stream, model)
    # One symbol read wrongly makes noise of the rest of its frame and of all that follow: tens of
    # grey levels. Rounding of the means moves a sample by a level here and there.
    error = there - here
    assert np.abs(error).max() <= 4
    assert np.sqrt(np.mean(error**2)) < 0.3
