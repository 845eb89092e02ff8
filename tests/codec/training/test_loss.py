"""The loss: MS-SSIM keeps its precision, and flows are compared where the pyramid has them."""

import pytest
import torch

from codec.config import load_experiment
from codec.training.data import Batch
from codec.training.loss import MS_SSIM_SCALE, distortion_of, flow_loss
from codec.training.run import TrainingRun
from codec.training.validate import validate
from codec.video_codec import VideoCodec

from ..conftest import CONFIGS


@pytest.mark.parametrize("spread", [0.002, 0.01, 0.1])
def test_ms_ssim_is_not_of_half_precision(spread):
    """Its variances are differences of filtered squares, in bfloat16 noise and of either sign."""
    torch.manual_seed(0)
    frame = torch.nn.functional.interpolate(torch.rand(2, 3, 24, 24), 192, mode="bicubic").clamp(
        0, 1
    )
    decoded = (frame + spread * torch.randn_like(frame)).requires_grad_()
    found = []
    for half in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            lost = distortion_of("ms-ssim")(decoded, frame)
        found.append((lost.detach(), *torch.autograd.grad(lost.sum(), decoded)))
    (lost, gradient), (lost_half, gradient_half) = found
    assert (lost > 0).all()
    assert torch.equal(lost, lost_half) and torch.equal(gradient, gradient_half)


@pytest.mark.parametrize("side", [64, 80, 112, 176])
def test_the_exact_flow_has_no_error_at_any_crop(side, monkeypatch):
    codec = VideoCodec(load_experiment(CONFIGS / "lite.yaml").model)
    flow = torch.tensor([3.0, -1.5]).view(1, 2, 1, 1).expand(1, 2, side, side)
    net = codec.inter.flow
    sides = [side // net.top]
    for _ in net.levels[1:]:
        sides.insert(0, -(-sides[0] // 2))
    exact = [
        flow[..., :s, :s] / (net.top * 2 ** (len(sides) - 1 - number))
        for number, s in enumerate(sides)
    ]
    monkeypatch.setattr(net, "pyramid", lambda current, reference: exact)
    visible = torch.ones(1, side, side)
    outcome = flow_loss(codec, Batch(torch.rand(1, 2, 3, side, side), flow, visible))
    least = sum(0.01 * (net.top * 2**k) ** 0.5 for k in range(len(sides)))  # sqrt(1e-4) a pixel
    cells = [(s * net.top * 2**k / side) ** 2 for k, s in enumerate(reversed(sides))]
    assert float(outcome.loss) <= least * max(cells) * 1.001
    assert float(outcome.bpp["end_point_error"]) < 1e-4


def test_a_run_for_ms_ssim_learns_and_validates_by_it(tmp_path):
    overrides = [
        f"training.data.cache={tmp_path / 'cache'}",
        "training.distortion=ms-ssim",
        "training.precision=bfloat16",
        "training.data.crop=176",
        "training.data.synthetic=false",
        f"training.data.paths=[{tmp_path / 'clips'}]",
        "training.data.filter=null",
        "training.data.holdout=0.5",
        "training.stages=[{name: all, frames: 2, steps: 2, lr: 1e-3}]",
    ]
    from codec.video.synthetic import write_synthetic

    (tmp_path / "clips").mkdir()
    for kind in ("pan", "zoom"):
        write_synthetic(kind, tmp_path / "clips" / f"{kind}.y4m", width=192, height=176, frames=4)
    run = TrainingRun(load_experiment(CONFIGS / "debug.yaml", overrides), tmp_path / "run")
    result = run.train()
    assert run.learner.skipped == 0
    assert 0 < result["q24/P/ms_ssim"] < 1
    by_mse = validate(run.codec, run.held_out)
    assert "q24/P/ms_ssim" not in by_mse
    weights = [float(run.codec.lambda_of(q)) for q in (8, 24, 40, 56)]
    expected = [
        (w * (1 - result[f"q{q}/{kind}/ms_ssim"]) / MS_SSIM_SCALE + result[f"q{q}/{kind}/bpp"])
        / w**0.5
        for q, w in zip((8, 24, 40, 56), weights, strict=True)
        for kind in "IP"
    ]
    assert result["loss"] == pytest.approx(sum(expected) / 8)
