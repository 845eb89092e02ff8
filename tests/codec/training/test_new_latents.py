"""New latent channels of a wider codec: silent at first, then given a voice."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from codec.entropy.coders import RateModel
from codec.models import export
from codec.training.checkpoint import load_weights
from codec.training.new_latents import NewLatents, begin_densities, latent_channels, only_new
from codec.video_codec import FrameCoder, VideoCodec

from ..conftest import debug_config

ROOT = Path(__file__).parents[3]


@pytest.fixture
def family(tmp_path):
    """A parent, a child that is wider in all latents and in its motion codec, the parent's file."""
    torch.manual_seed(0)
    settings = debug_config()
    parent = VideoCodec(settings).eval()
    path = tmp_path / "parent.safetensors"
    export(parent, path, {}, half=False)
    motion = settings.inter.motion.model_copy(update={"latent": 11, "channels": 12})
    wide = settings.model_copy(
        update={
            "intra": settings.intra.model_copy(update={"latent": 21}),
            "inter": settings.inter.model_copy(update={"latent": 24, "motion": motion}),
        }
    )
    child = VideoCodec(wide).eval()
    assert load_weights(path, child, widen=True) == []
    return parent, child, path


def test_a_child_codes_as_its_parent_until_it_has_learned(family):
    parent, child, _ = family
    parent.update()
    child.update()
    frames = torch.rand(3, 1, 3, 50, 71, generator=torch.Generator().manual_seed(1))
    coders = [FrameCoder(codec, 50, 71) for codec in (parent, child)]
    for number, frame in enumerate(frames):
        (bits, decoded), (more, alike) = (c.estimate(frame, number == 0, 40) for c in coders)
        torch.testing.assert_close(alike, decoded, rtol=0, atol=1e-5)
        for part, value in bits.items():
            assert value <= more[part] < 1.005 * value, part


def test_what_is_not_new_is_coded_as_ever():
    prior = VideoCodec(debug_config()).intra.prior
    generator = torch.Generator().manual_seed(2)
    residual = torch.randn(2, 7, 3, 5, generator=generator) * 3
    index = torch.rand(2, 7, 3, 5, generator=generator) * 20
    rand = torch.full_like
    plain = RateModel(lambda x: rand(x, 0.3))
    expected = plain.code(residual[:, :4], index[:, :4], prior, "intra")
    for priced in (False, True):
        squares = {}
        coder = NewLatents(lambda x: rand(x, 0.3), {"intra": 4}, squares, priced)
        symbols = coder.code(residual, index, prior, "intra")
        new = residual[:, 4:]
        assert torch.equal(symbols[:, :4], expected)
        assert torch.equal(symbols[:, 4:], torch.round(new) if priced else new)
        price = (0.5 * torch.log2(1 + 12 * new**2)).sum((1, 2, 3)) if priced else 0
        torch.testing.assert_close(coder.bits["intra"], plain.bits["intra"] + price)
        torch.testing.assert_close(squares["intra"][0], new.square().mean((2, 3)))
        assert torch.equal(coder.code(residual, index, prior, "other")[:, :4], expected)
        assert "other" not in squares  # a part that is not named has nothing new


def test_rounding_passes_the_gradient():
    prior = VideoCodec(debug_config()).intra.prior
    residual = torch.full((1, 3, 2, 2), 0.3, requires_grad=True)
    coder = NewLatents(torch.rand_like, {"intra": 0}, {}, priced=True)
    coder.code(residual, torch.zeros(1, 3, 2, 2), prior, "intra").sum().backward()
    assert torch.equal(residual.grad, torch.ones_like(residual))


def test_only_what_is_new_learns(family):
    _, child, path = family
    with safe_open(path, "pt") as stored:
        shapes = {name: stored.get_slice(name).get_shape() for name in stored.keys()}  # noqa: SIM118
    learning = {id(p) for p in only_new(child, shapes, free="intra.")}
    sum(p.square().sum() + p.sum() for p in child.parameters() if id(p) in learning).backward()
    for name, parameter in child.named_parameters():
        if name.endswith("quantiles"):
            assert not parameter.requires_grad
        elif name.startswith("intra."):
            assert parameter.grad is not None, name
        elif list(parameter.shape) == shapes[name]:
            assert not parameter.requires_grad, name
        else:
            old = tuple(slice(0, side) for side in shapes[name])
            assert parameter.grad[old].abs().max() == 0, name
            new = torch.ones_like(parameter, dtype=torch.bool)
            new[old] = False
            assert (parameter.grad[new] != 0).all(), name


def test_a_layer_of_another_form_learns_wholly(family):
    _, child, path = family
    name = "inter.latent.parameter_net.2.weight"  # 1x1 here
    with safe_open(path, "pt") as stored:
        shapes = {key: stored.get_slice(key).get_shape() for key in stored.keys()}  # noqa: SIM118
    shapes[name] = [*shapes[name][:2], 3, 3]
    only_new(child, shapes, free="intra.")
    parameter = child.get_parameter(name)
    parameter.sum().backward()
    assert (parameter.grad == 1).all()


def test_densities_begin_at_the_residuals_size(family):
    parent, child, _ = family
    old = latent_channels(parent)
    assert latent_channels(child) == {"intra": 21, "residual": 24, "motion": 11}
    before = {k: v.clone() for k, v in child.state_dict().items()}
    squares = {"residual": torch.tensor([4.0, 0.25, 1e-6, 9.0, 1.0, 1.0, 1.0, 1.0])}
    begin_densities(child, old, squares)
    changed = [k for k, v in child.state_dict().items() if not torch.equal(v, before[k])]
    assert changed == ["inter.latent.scale_path.offset"]
    offset, first = child.inter.latent.scale_path.offset, old["residual"]
    assert torch.equal(offset[:, :first], before[changed[0]][:, :first])
    scales = child.inter.prior.scale(offset[:, first:])
    torch.testing.assert_close(scales[-1, :4], torch.tensor([2.0, 0.5, 0.35, 3.0]))
    # Half a decade of lambda lower the steps are wider, and a residual has fewer of them.
    gains = torch.exp(child.inter.latent.gain.log_gain[:, first])
    torch.testing.assert_close(scales[-2, 0], 2.0 * gains[-2] / gains[-1])
    assert (offset[:, first:] >= 2).all()


def test_the_script_makes_weights_to_begin_from(family, tmp_path):
    """Three steps on invented clips, in a process of its own; what it writes is taken by name."""
    from codec.config import load_experiment

    parent, _, path = family
    config = tmp_path / "wide.yaml"
    config.write_text(
        f"base: {ROOT}/configs/debug.yaml\n"
        "model: {intra: {latent: 21}, inter: {latent: 24, motion: {latent: 11}}}\n"
        "training: {data: {synthetic: true, crop: 64, batch: 2}}\n"
    )
    out = tmp_path / "widened.safetensors"
    command = [sys.executable, ROOT / "scripts" / "widen_model.py", config, path, "-o", out]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "--steps", "3"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    child = VideoCodec(load_experiment(config).model)
    assert load_weights(out, child) == []
    own, tensors = parent.state_dict(), load_file(out)
    kept = "inter.encoder.leave.weight"
    torch.testing.assert_close(tensors[kept].float()[:16], own[kept], rtol=1e-3, atol=1e-4)
    assert tensors[kept][16:].abs().max() > 0
    assert tensors["inter.latent.scale_path.offset"][-1, 16:].min() >= 8  # coded from the start
