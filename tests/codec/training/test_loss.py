"""The loss: MS-SSIM keeps its precision, and flows are compared where the pyramid has them."""

import pytest
import torch

from codec.config import Stage, load_experiment
from codec.entropy.coders import RateModel
from codec.training.data import Batch
from codec.training.loss import MS_SSIM_SCALE, clip_loss, distortion_of, draw_quality, flow_loss
from codec.training.run import TrainingRun
from codec.training.validate import validate
from codec.video_codec import VideoCodec

from ..conftest import CONFIGS, debug_config, loud_codec

COUNTED = {
    "motion_d": (),
    "motion_rd": ("motion", "motion_hyper"),
    "recon_d": (),
    "recon_rd": ("residual", "residual_hyper"),
    "all": ("motion", "motion_hyper", "residual", "residual_hyper"),
}


@pytest.mark.parametrize("train", ["inter", "all"])
@pytest.mark.parametrize("loss", COUNTED)
def test_the_loss_is_what_its_stage_says_it_is(loss, train):
    """Made again of the figures that are logged: one sample, an I frame and a P frame."""
    pattern = {"pattern.intra": 5, "pattern.inter": [-4]}
    overrides = [f"model.{key}={value}" for key, value in pattern.items()]
    settings = load_experiment(CONFIGS / "debug.yaml", [*overrides, "training.balance=0.5"])
    codec = loud_codec(settings.model)
    stage = Stage(name="a", steps=1, frames=2, loss=loss, train=(train,))
    clip = torch.rand(1, 2, 3, 64, 128)
    with torch.no_grad():
        found = clip_loss(codec, Batch(clip), torch.tensor([40.0]), stage, settings.training)
    errors = {kind: 10 ** (-float(value) / 10) for kind, value in found.psnr.items()}
    bpp = {part: float(value) for part, value in found.bpp.items()}
    assert all(value > 0 for value in bpp.values())
    if loss.startswith("motion"):
        error = (errors["warp"] + errors["flow"]) / 2
    else:
        error = errors["inter"]
    terms = [float(codec.lambda_of(36)) * error + sum(bpp[part] for part in COUNTED[loss])]
    if train == "all":
        terms.append(float(codec.lambda_of(45)) * errors["intra"] + bpp["intra"])
    middle = (settings.model.lambda_min * settings.model.lambda_max) ** 0.5
    balance = (middle / float(codec.lambda_of(40))) ** 0.5
    assert float(found.loss) == pytest.approx(balance * sum(terms) / len(terms), rel=1e-4)


def test_rates_and_errors_are_means_over_samples_and_frames():
    """Bits a pixel of the clip's own size; of two P frames the mean."""
    settings = load_experiment(CONFIGS / "debug.yaml", [])
    codec = loud_codec(debug_config())
    stage = Stage(name="a", steps=1, frames=3)
    batch = Batch(torch.rand(2, 3, 3, 64, 128))
    coders = []

    class Kept(RateModel):
        def __init__(self, rand_like):
            super().__init__(rand_like)
            coders.append(self)

    with torch.no_grad():
        found = clip_loss(
            codec, batch, torch.tensor([20.0, 50.0]), stage, settings.training, model=Kept
        )
    of_intra, *of_inter = [coder.bits for coder in coders]
    pixels = 64 * 128
    intra = sum(of_intra.values()).mean() / pixels
    assert float(found.bpp.pop("intra")) == pytest.approx(float(intra.detach()))
    assert set(found.bpp) == set(COUNTED["all"])
    for part, value in found.bpp.items():
        bits = torch.stack([bits[part] for bits in of_inter])  # [frames, samples]
        assert bits.shape == (2, 2)
        assert float(value) == pytest.approx(float(bits.mean()) / pixels)


def test_a_batch_covers_the_range_of_qualities():
    torch.manual_seed(1)
    drawn = torch.stack([draw_quality(4) for _ in range(400)])
    assert torch.equal(drawn, drawn.floor())
    for place in range(4):  # a quarter of the range each, all of it
        assert set(drawn[:, place].tolist()) == set(range(16 * place, 16 * place + 16))


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
