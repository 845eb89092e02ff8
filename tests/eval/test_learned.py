"""Our own model through the evaluation: the debug configuration, real streams, real decoding."""

import json
from pathlib import Path

import pytest

from codec.config import load_experiment
from codec.errors import ConfigError, ModelError
from codec.video.reader import open_reader
from codec.video.synthetic import write_synthetic
from eval.learned import Model
from eval.metrics import average, measure
from eval.results import load_results
from eval.run import evaluate
from eval.sequences import find_sequences

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A model file of the debug configuration with the weights it starts from."""
    import torch

    from codec.models import export
    from codec.video_codec import VideoCodec

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "debug.safetensors"
    export(VideoCodec(load_experiment(ROOT / "configs" / "debug.yaml").model), path, card={})
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "pan.y4m"
    write_synthetic("pan", path, 70, 50, 3)
    return path


def test_a_point_is_the_file_and_its_own_decoding(weights, clip, tmp_path):
    import codec

    evaluation = evaluate(clip, models=[weights], qualities=(32,), intra_period=2, out=tmp_path)
    (results,) = evaluation.results
    (point,) = results.points
    report = codec.encode(
        clip, tmp_path / "s.lgmc", model=weights, quality=32, intra_period=2, digests=False
    )
    assert point.bytes == report.bytes == (tmp_path / "s.lgmc").stat().st_size
    assert point.per_frame.types == ["I", "P", "I"]
    assert sum(point.per_frame.bytes) < point.bytes
    decoding = codec.decode(tmp_path / "s.lgmc", model=weights)
    with open_reader(clip) as original, decoding:
        rows = measure(original, decoding, original.format)
    # a second run of the float network may differ in the last digits, no more
    assert point.metrics["psnr_rgb"] == pytest.approx(average(rows)["psnr_rgb"], abs=0.01)
    assert point.decode_fps > 0 and point.encode_fps > 0
    assert results.conditions.codec["weights"] == codec.load(weights).digest.hex()
    assert load_results(tmp_path / f"{results.codec}.json") == results


def test_model_and_anchor_side_by_side_through_the_command(weights, clip, tmp_path, capsys):
    from lgmc.main import main

    words = ["eval", "--model", str(weights), "--anchors", "x265-medium", "--sequences", str(clip)]
    words += ["--out", str(tmp_path), "--frames", "2", "--qualities", "0,21,42,63"]
    assert main(words) == 0
    printed = capsys.readouterr()
    assert "BD-rate of debug against x265-medium, psnr_rgb, pchip" in printed.out
    assert printed.err.count("quality") == 4 and printed.err.count(" qp ") == 4
    comparisons = json.loads((tmp_path / "bdrate.json").read_text())["comparisons"]
    assert {one["metric"] for one in comparisons} == {"psnr_rgb", "psnr_y", "psnr_yuv611"}
    for one in comparisons:  # untrained: a figure or the reason why there is none
        (value,) = one["sequences"].values()
        assert "error" in value or value["overlap"] > 0
    codecs = {load_results(tmp_path / f"{name}.json").codec for name in ("debug", "x265-medium")}
    assert codecs == {"debug", "x265-medium"}


def test_the_identity_follows_weights_and_device(weights):
    identity = Model(weights).identity()
    assert identity["model"] == "debug"
    assert set(identity) == {"model", "weights", "code", "device"}


def test_refusals(weights, clip, tmp_path):
    with pytest.raises(ModelError, match="no model"):
        evaluate(clip, models=["none-such"], out=tmp_path)
    with pytest.raises(ConfigError, match="a quality is 0..63, not 64"):
        evaluate(clip, models=[weights], qualities=(64,), out=tmp_path)
    with pytest.raises(ConfigError, match="a quality is 0..63"):
        Model(weights).encode(find_sequences(clip)[0], 64, tmp_path / "s.lgmc")
