"""The benchmarks of compensation measure what they say, on clips with known motion."""

import json

import pytest
import torch

from benchmarks import compensation, known_motion
from codec.models import export
from codec.video.synthetic import write_synthetic
from codec.video_codec import FrameCoder

from ..codec.conftest import debug_config, loud_codec


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "clips" / "pan.y4m"
    path.parent.mkdir()
    write_synthetic("pan", path, 96, 64, 3)
    return path


@pytest.mark.parametrize(
    "variant, ways", [("local", 2), ("refined", 2), ("shifted", 3), ("all", 3)]
)
def test_every_way_is_measured(variant, ways, clip, tmp_path, capsys):
    model = tmp_path / "model.safetensors"
    export(loud_codec(debug_config(variant)), model, {})
    figures = tmp_path / "figures.json"
    arguments = [str(clip.parent), "--model", str(model), "--json", str(figures)]
    assert compensation.main(arguments) == 0
    [(name, one)] = json.loads(figures.read_text()).items()
    assert name == "pan"
    assert list(one["psnr"]) == list(one["features"]) == list(compensation.WAYS[:ways])
    # Without a search the encoder codes the net's motion.
    same = one["psnr"]["local"] == one["psnr"]["searched"]
    assert same == (variant != "refined")
    assert "pan" in capsys.readouterr().out


def test_with_effort_the_motion_is_another(clip, tmp_path):
    model, figures = tmp_path / "model.safetensors", tmp_path / "figures.json"
    export(loud_codec(debug_config()), model, {})
    arguments = [str(clip.parent), "--model", str(model), "--json", str(figures)]
    assert compensation.main([*arguments, "--effort", "3+2"]) == 0
    [one] = json.loads(figures.read_text()).values()
    assert one["psnr"]["local"] != one["psnr"]["searched"]


def test_an_exact_motion_has_no_error(monkeypatch):
    """Coded motion that is the true one brings over picture and features but for the rim."""
    codec = loud_codec(debug_config())
    frame = torch.rand(1, 3, 64, 96)
    coder = FrameCoder(codec, 64, 96)
    with torch.inference_mode():
        coder.code(frame, True, 32, _estimate())
        still = torch.zeros(1, 2, 32, 48)
        monkeypatch.setattr(codec.inter.motion, "forward", lambda *_: (still, None))
        found = compensation.ways(
            codec, coder.state.frame, coder.state, torch.tensor([32.0]), coder.size
        )
        wanted = codec.inter.compensation.extract(coder.state.frame, None)
    for picture, features in found.values():
        torch.testing.assert_close(picture, coder.state.frame, atol=1e-5, rtol=0)
        for one, other in zip(features, wanted, strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def _estimate():
    from codec.entropy.coders import RateEstimate

    return RateEstimate()


def test_models_on_known_motion(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(known_motion, "SIZE", (96, 64))
    models = []
    for seed in (0, 1):
        path = tmp_path / f"m{seed}.safetensors"
        export(loud_codec(debug_config(), seed), path, {})
        models.append(str(path))
    arguments = [*models, "--frames", "2", "--out", str(tmp_path / "out")]
    assert known_motion.main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(known_motion.KINDS)
    for kind, line in zip(sorted(known_motion.KINDS), lines, strict=True):
        assert kind in line
