"""Our own model through the evaluation: the debug configuration, real streams, real decoding."""

import json
import pickle
from pathlib import Path

import pytest

from codec.config import load_experiment
from codec.effort import Effort
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
    assert point.encode_peak_mib > 50 and point.decode_peak_mib > 50  # torch alone is more
    assert results.conditions.codec["weights"] == codec.load(weights).digest.hex()
    assert load_results(tmp_path / f"{results.codec}.json") == results


def test_bits_by_part_are_those_that_inspect_tells(weights, clip, tmp_path):
    from codec.session import account

    (results,) = evaluate(clip, models=[weights], qualities=(32,), out=tmp_path).results
    (point,) = results.points
    bits = point.per_frame.bits
    assert set(bits) == {
        *("intra", "intra_hyper", "motion", "motion_hyper", "residual", "residual_hyper")
    }
    assert bits["motion"][0] == bits["residual"][0] == bits["intra"][1] == 0.0
    Model(weights).encode(find_sequences(clip)[0], 32, tmp_path / "s.lgmc")
    for number, parts in enumerate(account(tmp_path / "s.lgmc", model=weights)):
        for name, value in parts.items():
            # a second run of the float network may round a symbol the other way, no more
            assert bits[name][number] == pytest.approx(value, rel=0.02, abs=16)
        # what is no symbol is rANS's end and the packet's head and checksum
        frame = sum(values[number] for values in bits.values())
        assert 0 < 8 * point.per_frame.bytes[number] - frame < 8 * 32


def test_an_effort_is_a_codec_of_its_own(weights, clip, tmp_path):
    evaluation = evaluate(clip, models=[weights], qualities=(32,), efforts=(0, 2), out=tmp_path)
    plain, tried = evaluation.results
    assert (plain.codec, tried.codec) == ("debug", "debug-effort2")
    assert "effort" not in plain.conditions.codec
    assert tried.conditions.codec["effort"] == "2"
    assert "--effort 2" in " ".join(tried.points[0].arguments)
    motion = [one.points[0].per_frame.bits["motion"] for one in (plain, tried)]
    assert sum(motion[1]) < sum(motion[0])
    again = pickle.loads(pickle.dumps(Model(weights, effort=2)))
    assert (again.name, again.effort, again.delay) == ("debug-effort2", Effort(2), 0)
    with pytest.raises(ConfigError, match="the effort must be a whole number of 0..1000, or two"):
        evaluate(clip, models=[weights], efforts=(1001,), out=tmp_path)
    with pytest.raises(ConfigError, match="the same effort is given twice: 2, 2"):
        evaluate(clip, models=[weights], efforts=(2, "2+0"), out=tmp_path)


def test_an_effort_that_looks_ahead(weights, clip, tmp_path):
    (tried,) = evaluate(
        clip, models=[weights], qualities=(32,), efforts=("2+3",), out=tmp_path
    ).results
    assert tried.codec == "debug-effort2+3" and (tmp_path / "debug-effort2+3.json").is_file()
    assert tried.conditions.codec["effort"] == "2+3"
    words = tried.points[0].arguments
    assert words[words.index("--effort") + 1] == "2+3"
    assert Model(weights, effort="2+3").delay == 1


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


def test_a_point_of_another_number_of_threads_is_measured_again(weights, clip, tmp_path):
    import torch

    common = {"models": [weights], "qualities": (32,), "frames": 1, "out": tmp_path}
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 1):
            torch.set_num_threads(threads)
            (point,) = evaluate(clip, **common).results[0].points
            assert point.arguments[-2:] == ["--threads", str(threads)]
    finally:
        torch.set_num_threads(before)
    assert len(list((tmp_path / "points").glob("*.json"))) == 2


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
