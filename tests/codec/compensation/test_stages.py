"""The stages of compensation: nothing before training, what they say they do afterwards."""

import pytest
import torch

from codec.compensation.global_attention import GlobalAttention
from codec.compensation.pipeline import Compensation, Older
from codec.compensation.shifted_refine import ShiftedRefinement
from codec.config import InterConfig, ShiftedConfig, load_experiment
from codec.layers import warp
from kernels import linear_attention


def config(family: str = "lite", **changes) -> InterConfig:
    small = {"channels": (16, 16), "contexts": (8, 12)} if family == "lite" else {"channels": (8,)}
    top = {"flow": {"top": 2 if family == "lite" else 1}}
    return InterConfig.model_validate({"family": family, **small, **top, **changes})


def picture(height: int, width: int, seed: int = 0, channels: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, channels, height // 4 + 2, width // 4 + 2, generator=generator)
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")


@pytest.mark.parametrize("family", ["lite", "tcm"])
def test_stages_change_nothing_before_training(family):
    everything = ["local", "shifted", "global"]
    shifted = {"scales": (0, 1), "width": 8, "references": 2}
    torch.manual_seed(1)
    plain = Compensation(config(family)).eval()
    torch.manual_seed(1)
    full = Compensation(config(family, compensation=everything, shifted=shifted)).eval()
    full.load_state_dict(plain.state_dict(), strict=False)
    frame = picture(64, 96)
    flow = 3 * torch.randn(1, 2, 64 // plain.top, 96 // plain.top)
    with torch.no_grad():
        expected = plain(frame, None, flow)
        older = Older(expected.references, flow)
        got = full(frame, None, flow, older)
    for ours, theirs in zip(got.scales, expected.scales, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)


def test_the_search_mends_a_disturbed_flow():
    """With keys that are the features themselves the best match is where the flow should point."""
    stage = ShiftedRefinement(12, ShiftedConfig(width=12, window=7, topk=1))
    with torch.no_grad():
        for layer in (stage.query, stage.key, stage.value):
            layer.weight.copy_(torch.eye(12)[:, :, None, None])
            layer.bias.zero_()
        stage.fuse.weight.zero_()
        for channel in range(12):
            stage.fuse.weight[channel, channel, 0, 0] = -1.0  # take the context away again
            stage.fuse.weight[channel, 12 + channel, 0, 0] = 1.0
        reference = picture(40, 56, seed=3, channels=12)
        # Vectors of one length: the largest inner product is that with the vector itself.
        reference = torch.nn.functional.normalize(reference - 0.5, dim=1)
        flow = torch.tensor([4.0, -3.0]).view(1, 2, 1, 1).expand(1, 2, 40, 56)
        truth = warp(reference, flow)
        wrong = flow + torch.tensor([2.0, 1.0]).view(1, 2, 1, 1)
        found = stage(truth, reference[:, None], wrong[:, None])
    inside = (..., slice(8, -8), slice(8, -8))
    assert torch.allclose(found[inside], truth[inside], atol=1e-5)
    assert not torch.allclose(warp(reference, wrong)[inside], truth[inside], atol=0.05)


def test_a_reference_two_frames_back_is_reached_by_both_flows():
    seen = {}

    class Spy(torch.nn.Module):
        def forward(self, context, references, flows):
            seen["flows"], seen["frames"] = flows, references.shape[1]
            return context

    stages = Compensation(config(compensation=["local", "shifted"], shifted={"references": 2}))
    stages.shifted["1"] = Spy()
    now = torch.tensor([4.0, 2.0]).view(1, 2, 1, 1).expand(1, 2, 32, 48)
    then = torch.tensor([-8.0, 6.0]).view(1, 2, 1, 1).expand(1, 2, 32, 48)
    frame = picture(64, 96)
    with torch.no_grad():
        older = Older(stages(frame, None, now).references, then)
        stages(frame, None, now, older)
    assert seen["frames"] == 2
    # At 1/8 of the frame, the flow being coded at 1/2: a quarter of each vector.
    assert torch.allclose(seen["flows"][0, 0, :, 4, 6], torch.tensor([1.0, 0.5]))
    assert torch.allclose(seen["flows"][0, 1, :, 4, 6], torch.tensor([-1.0, 2.0]))


@pytest.mark.parametrize("tiles", [(1, 2), (5, 7)])
def test_more_of_the_same_picture_gives_the_same_summary(tiles):
    """Keys are normalised over pixels: a mean, which a larger picture does not dilute."""
    torch.manual_seed(2)
    key, value = torch.randn(1, 8, 32, 32), torch.randn(1, 8, 32, 32)
    query = torch.randn(1, 8, 5, 9)
    small = linear_attention(query, key, value, heads=2)
    large = linear_attention(query, key.repeat(1, 1, *tiles), value.repeat(1, 1, *tiles), heads=2)
    assert torch.allclose(small, large, atol=1e-5)


def test_the_block_is_the_same_at_256_and_at_1080p():
    torch.manual_seed(3)
    block = GlobalAttention(8, 8, 2).eval()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.normal_(0, 0.4)
        x = picture(32, 32, channels=8)  # 256 pixels at 1/8
        tiled = x.repeat(1, 1, 4, 8)  # about 1080p at 1/8
        small, large = block(x, x), block(tiled, tiled)
    # Away from the rim, where zero padding is seen; what it adds to the mean is small.
    inside = (..., slice(4, 28), slice(4, 28))
    scale = (small - x)[inside].abs().max()
    assert (small[inside] - large[inside]).abs().max() < 0.05 * scale


def test_heads_must_divide_the_channels():
    with pytest.raises(ValueError, match="heads"):
        GlobalAttention(8, 8, 3)(torch.zeros(1, 8, 4, 4), torch.zeros(1, 8, 4, 4))


@pytest.mark.parametrize(
    "variant",
    [f"{size}_{stages}" for size in ("lite", "paper") for stages in ("global", "shifted", "all")]
    + ["lite_coder", "lite_refine"],
)
def test_ablation_configs_differ_by_their_stages_alone(variant):
    folder = "configs/ablation"
    base = load_experiment(f"{folder}/{variant.split('_')[0]}_local.yaml")
    variant = load_experiment(f"{folder}/{variant}.yaml")
    assert variant.training == base.training
    one, other = (e.model.model_dump(exclude={"name"}) for e in (base, variant))
    for model in (one, other):
        model["inter"].pop("compensation")
        model["inter"]["global_attention"].pop("query")
        # The encoder's part of Shifted-NLS goes with the decoder's.
        searches = model["inter"]["motion"].pop("refine") is not None
    assert one == other
    stages = variant.model.inter.compensation
    assert stages[0] == "local"
    assert searches == ("shifted" in stages or "refine" in variant.name)
