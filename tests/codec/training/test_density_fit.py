"""Fitting densities: what is counted, what a fit saves, and that nothing else of a codec moves."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from codec.entropy.coders import RateEstimate
from codec.entropy.priors import ConditionalPrior
from codec.models import export, load
from codec.session import decode_to_file, encode
from codec.training.density_fit import Counted, bits, fit, with_mixtures
from codec.video.synthetic import write_synthetic
from codec.video_codec import FrameCoder

from ..conftest import debug_config, loud_codec

ROOT = Path(__file__).parents[3]


def frames(count: int) -> torch.Tensor:
    return torch.rand(count, 1, 3, 50, 71, generator=torch.Generator().manual_seed(1))


def coded(codec, coder, count: int = 3) -> list[torch.Tensor]:
    by_frame = FrameCoder(codec, 50, 71)
    return [by_frame.code(f, not i, 40, coder) for i, f in enumerate(frames(count))]


@pytest.mark.parametrize("variant", ["local", "mixture", "two passes"])
def test_what_is_counted_costs_what_the_estimate_says(variant):
    codec = loud_codec(debug_config(variant), loud=2.0)
    counter, estimate = Counted(), RateEstimate()
    for one, other in zip(coded(codec, counter), coded(codec, estimate), strict=True):
        assert torch.equal(one, other)
    priors = {"intra": codec.intra.prior, "motion": codec.inter.prior}
    priors["residual"] = codec.inter.prior
    assert set(counter.counts) == set(priors)
    for part, prior in priors.items():
        found = float(bits(prior, counter.counts[part]).detach())
        assert found == pytest.approx(estimate.bits[part], rel=1e-5)


def test_a_fit_saves_what_the_symbols_allow_and_every_count_weighs_alike():
    torch.manual_seed(0)
    gaussian = ConditionalPrior()

    def drawn(elements: int, louder: float) -> torch.Tensor:
        """Half of the symbols are ``louder`` times as loud as the others."""
        index = torch.randint(20, 60, (1, 1, 100, elements // 100))
        loud = 1 + (louder - 1) * (torch.rand(index.shape) < 0.5)
        power = (1 + louder**2) / 2
        counter = Counted()
        residual = torch.randn(index.shape) * gaussian.scale(index) * loud / power**0.5
        counter.code(residual, index, gaussian, "y")
        return counter.counts["y"]

    def fitted(*counts: torch.Tensor) -> ConditionalPrior:
        prior = ConditionalPrior("mixture").requires_grad_(False)
        fit(prior, list(counts), steps=150)
        assert not prior.model.shape.requires_grad
        return prior

    few, other, many = drawn(20_000, 3), drawn(50_000, 3), drawn(400_000, 1)
    alone, alike, summed = fitted(few), fitted(few, many), fitted(few + many)
    for counts in (few, other):
        assert 0.95 < float(bits(alone, counts) / bits(gaussian, counts)) < 0.985
    gain = [float(1 - bits(prior, few) / bits(gaussian, few)) for prior in (alone, alike, summed)]
    assert gain[0] > gain[1] > 2 * gain[2]


def test_a_codec_with_mixtures_is_the_same_codec():
    codec = loud_codec(debug_config("all"))
    mixed = with_mixtures(codec)
    mixed.update()
    for one, other in zip(coded(codec, RateEstimate()), coded(mixed, RateEstimate()), strict=True):
        assert torch.equal(one, other)
    new = set(mixed.state_dict()) - set(codec.state_dict())
    assert new == {"intra.prior.model.shape", "inter.prior.model.shape"}


def test_the_script_writes_a_model_that_codes_in_fewer_bits(tmp_path):
    clips = tmp_path / "clips"
    clips.mkdir()
    for seed, kind in enumerate(("pan", "zoom", "pan")):
        write_synthetic(kind, clips / f"{seed}.y4m", 96, 64, 3, seed=seed)
    # A loud random codec's symbols are no Gaussian's.
    codec = loud_codec(debug_config(), loud=2.0, scale_offset=20.0)
    export(codec, tmp_path / "gaussian.safetensors", {})
    command = [sys.executable, ROOT / "scripts" / "fit_densities.py", "gaussian.safetensors"]
    options = ["-o", "fitted.safetensors", "--data", clips, "--frames", "2", "--held-out", "1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, *options, "--qualities", "0", "40"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    before, after = (load(tmp_path / f"{name}.safetensors") for name in ("gaussian", "fitted"))
    assert after.card["densities"]["from"] == before.digest.hex()
    assert after.card["densities"]["clips"] == 2
    old, new = (load_file(tmp_path / f"{name}.safetensors") for name in ("gaussian", "fitted"))
    moved = {k for k in new if k not in old or not torch.equal(new[k], old[k])}
    kinds = {name.split(".")[-1] for name in moved}
    assert kinds == {"shape", "_quantized_cdf", "_cdf_length", "_offset"}
    sizes = []
    for model in (before, after):
        report = encode(clips / "2.y4m", tmp_path / "s.lgmc", model=model, quality=40)
        sizes.append(report.bytes)
        stream, shown = tmp_path / "s.lgmc", tmp_path / "s.y4m"
        assert decode_to_file(stream, shown, model=model, verify=True).verified
    assert sizes[1] < sizes[0]
