"""Explaining a frame: the figures are those of the stream, and every picture is drawn."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from codec.config import load_experiment
from codec.errors import ConfigError
from codec.models import export, load
from codec.session import account, encode
from codec.video.synthetic import write_synthetic
from codec.video_codec import VideoCodec
from eval.explain import explain
from eval.explain_plot import draw
from lgmc.main import main

DEBUG = Path(__file__).parents[2] / "configs" / "debug.yaml"
STAGES = ("compensation=[local, shifted, global]", "shifted.references=2", "shifted.scales=[0, 1]")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A model with every stage, a clip and its stream: frames I P P I P."""
    folder = tmp_path_factory.mktemp("explain")
    torch.manual_seed(4)
    codec = VideoCodec(load_experiment(DEBUG, [f"model.inter.{s}" for s in STAGES]).model).eval()
    with torch.no_grad():
        for latent in (codec.intra.latent, codec.inter.latent, codec.inter.motion.latent):
            latent.gain.log_gain += 3.0
    export(codec, folder / "m.safetensors", {})
    write_synthetic("pan", folder / "clip.y4m", 72, 50, 5, seed=1)
    model = load(folder / "m.safetensors")
    encode(folder / "clip.y4m", folder / "s.lgmc", model=model, quality=40, intra_period=3)
    return folder


def test_what_is_explained_is_what_the_stream_holds(place):
    model = load(place / "m.safetensors")
    seen = explain(place / "s.lgmc", 2, model=model, original=place / "clip.y4m")
    parts = list(account(place / "s.lgmc", model=model))[2]
    assert set(seen.bits) == {name for name, bits in parts.items() if bits}
    for name, bits in seen.bits.items():
        assert bits.shape == (50, 72)
        assert bits.sum() <= parts[name] * 1.0001  # latents reach beyond the picture's edge
        assert bits.sum() > 0.4 * parts[name]
    assert list(seen.errors) == ["reference", "local", "shifted", "decoded"]
    assert seen.flow.shape == (2, 50, 72) and seen.decoded.shape == (50, 72, 3)
    assert set(seen.searches) == {0, 1} and set(seen.attention) == {1}
    for search in seen.searches.values():
        # A window of 5 about the flow; near the border its middle is reflected.
        assert (np.abs(search.places) <= 2.001).all(1).mean() > 0.9
        assert search.weights.sum() == pytest.approx(search.weights.size / 4, rel=1e-4)
        assert 0 <= search.older <= 1
    assert seen.attention[1].sum((1, 2)) == pytest.approx(1.0, rel=1e-4)


def test_every_panel_is_drawn(place, tmp_path):
    model = load(place / "m.safetensors")
    files = draw(explain(place / "s.lgmc", 1, model=model), tmp_path / "out")
    names = {file.stem for file in files}
    assert {"explain", "flow", "shift_0", "matches_1", "attention_1", "bits_motion"} <= names
    assert {"error_local", "error_shifted"} <= names and "original" not in names
    for file in files:
        with Image.open(file) as image:
            assert len(set(image.convert("L").tobytes())) > 8, file.name


def test_the_command_says_what_it_found(place, tmp_path, capsys):
    arguments = ["explain", str(place / "s.lgmc"), "--model", str(place / "m.safetensors")]
    arguments += ["--frame", "4", "--original", str(place / "clip.y4m"), "--json"]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["frame"] == 4 and found["compared_with"] == "original"
    assert set(found["psnr"]) == {"reference", "local", "shifted", "decoded"}
    assert all(Path(file).is_file() for file in found["files"])


@pytest.mark.parametrize(
    ("frame", "says"), [(3, "is an I frame"), (5, "no frame 5"), (90, "no frame 90")]
)
def test_frames_that_cannot_be_explained(place, frame, says):
    with pytest.raises(ConfigError, match=says):
        explain(place / "s.lgmc", frame, model=load(place / "m.safetensors"))


def test_the_original_must_be_of_the_streams_size(place):
    write_synthetic("pan", place / "other.y4m", 64, 64, 3, seed=1)
    with pytest.raises(ConfigError, match="64x64"):
        model = load(place / "m.safetensors")
        explain(place / "s.lgmc", 1, model=model, original=place / "other.y4m")
