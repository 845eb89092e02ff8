"""Fitting what z is expected to be: pictures stay, bits fall, and the script does all of it."""

import os
import subprocess
import sys

import pytest
import torch

from codec.entropy.coders import RateEstimate
from codec.models import export, load
from codec.session import decode, encode
from codec.training.hyper_history_fit import bits, coded, fit, latents, with_history
from codec.video.synthetic import write_synthetic
from codec.video_codec import FrameCoder

from ..conftest import debug_config, loud_codec
from .test_density_fit import ROOT


def pictures(count: int, seed: int = 1) -> list[torch.Tensor]:
    """A still with noise: what one frame's z says, the next one's says nearly."""
    still = torch.rand(1, 3, 50, 71, generator=torch.Generator().manual_seed(0))
    draw = torch.Generator().manual_seed(seed)
    return [(still + 0.02 * torch.randn(still.shape, generator=draw)) for _ in range(count)]


@pytest.fixture(scope="module")
def codec():
    made = loud_codec(debug_config("mixture"), loud=2.0)
    with torch.no_grad():
        for latent in (made.inter.latent, made.inter.motion.latent):
            latent.hyper_encoder[-1].weight *= 4
    return made


def test_a_history_changes_no_picture(codec):
    expecting = with_history(codec, 8)
    expecting.update()
    for one, other in zip(latents(codec).values(), latents(expecting).values(), strict=True):
        assert one.history is None and other.history is not None
    by_frame = [FrameCoder(each, 50, 71) for each in (codec, expecting)]
    for number, picture in enumerate(pictures(4)):
        shown, other = (each.code(picture, not number, 40, RateEstimate()) for each in by_frame)
        assert torch.equal(shown, other)


@torch.no_grad()
def test_what_is_coded_costs_what_the_estimate_says(codec):
    for each in (codec, with_history(codec, 8)):
        each.update()
        expecting = with_history(each, 8)
        group = coded(expecting, pictures(5), 40)
        coder, told = FrameCoder(each, 50, 71), {part: 0.0 for part in latents(each)}
        rest = 0.0
        for number, picture in enumerate(pictures(4)):
            estimate = RateEstimate()
            coder.code(picture, not number, each.frame_quality(40, number), estimate)
            for part in told:
                told[part] += estimate.bits[f"{part}_hyper"]
            rest += sum(v for k, v in estimate.bits.items() if not k.endswith("_hyper"))
        assert group.bits == pytest.approx(rest, rel=1e-5)
        for part, latent in latents(each).items():
            assert float(bits(latent, part, group, exact=True)) == pytest.approx(told[part], 1e-5)


def test_a_fit_takes_bits_away_and_goes_on_from_there(codec):
    expecting = with_history(codec, 8)
    group, other = (coded(expecting, pictures(7, seed), 40) for seed in (1, 2))
    for part, latent in latents(expecting).items():
        before = float(bits(latents(codec)[part], part, other).detach())
        fit(latent, part, [group], 300)
        latent.update()
        after = float(bits(latent, part, other, exact=True).detach())
        assert after < 0.9 * before
        again = latents(with_history(expecting))[part]
        assert float(bits(again, part, other, exact=True)) == after
        assert not any(one.requires_grad for one in latent.parameters())


def test_the_script_writes_a_model_of_the_same_pictures(tmp_path, codec):
    clips = tmp_path / "clips"
    clips.mkdir()
    for seed, kind in enumerate(("pan", "zoom", "pan")):
        write_synthetic(kind, clips / f"{seed}.y4m", 96, 64, 5, seed=seed)
    export(codec, tmp_path / "plain.safetensors", {})
    options = ["--frames", "4", "--each", "2", "--held-out", "1", "--steps", "40", "--width", "8"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def run(*more: str) -> str:
        script = ROOT / "scripts" / "fit_hyper_history.py"
        command = [sys.executable, script, "plain.safetensors", *options, *more]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    told = run("-o", "fitted.safetensors", "--data", "clips", "--symbols", "symbols.pt")
    assert told.count("% of all") == 4
    again = run("-o", "again.safetensors", "--symbols", "symbols.pt")
    assert again.splitlines()[:-1] == told.splitlines()[3:-1]
    plain, fitted, other = (
        load(tmp_path / f"{name}.safetensors") for name in ("plain", "fitted", "again")
    )
    assert fitted.digest == other.digest != plain.digest
    assert fitted.card["hyper_history"]["from"] == plain.digest.hex()
    assert fitted.card["hyper_history"]["clips"] == 2
    shown = []
    for model in (plain, fitted):
        stream = tmp_path / f"{model.digest.hex()}.lgmc"
        encode(clips / "0.y4m", stream, model=model, quality=40)
        with decode(stream, model=model, verify=True) as frames:
            shown.append([[plane.copy() for plane in frame] for frame in frames])
    for one, other in zip(*shown, strict=True):
        assert all((a == b).all() for a, b in zip(one, other, strict=True))
