"""What TensorBoard is shown of a clip is what the codec makes of it."""

import numpy as np
import pytest
import torch

from codec.config import load_experiment
from codec.training.data import find_clips
from codec.training.look import FRAMES, QUALITY, look
from codec.training.validate import middle_square
from codec.video_codec import FrameCoder

from ..conftest import CONFIGS, debug_config, loud_codec


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    data = load_experiment(CONFIGS / "debug.yaml").training.data
    return find_clips(data, tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def codec():
    return loud_codec(debug_config("refined"))


class Short:
    """A clip of fewer frames."""

    def __init__(self, clip, frames: int):
        self.name, self.frames = clip.name, frames
        self.height, self.width = clip.height, clip.width
        self.read = clip.read


def test_pictures_and_bits_are_those_of_the_estimate(codec, clips):
    seen = look(codec, clips, size=100)
    first = min(clips, key=lambda clip: clip.name)
    video = middle_square(first, FRAMES, 100)
    coder = FrameCoder(codec, 100, 100)
    for t, frame in enumerate(video):
        level = codec.frame_quality(QUALITY, t)
        bits, decoded = coder.estimate(frame[None], t == 0, level)
    expected = decoded[0].permute(1, 2, 0).numpy()
    assert set(seen.pictures) == {
        "frame",
        "reconstruction",
        "flow",
        "bits_motion",
        "bits_residual",
    }
    assert all(picture.shape == (100, 100, 3) for picture in seen.pictures.values())
    assert all(0 <= p.min() and p.max() <= 1 for p in seen.pictures.values())
    assert np.array_equal(seen.pictures["reconstruction"], expected)
    assert np.array_equal(seen.pictures["frame"], video[-1].permute(1, 2, 0).numpy())
    assert seen.figures["longest_flow"] > 0
    # A block costs at least the mean of all and at most everything.
    blocks = (112 / 16) ** 2
    assert bits["motion"] / blocks <= seen.figures["dearest_block_motion"] <= bits["motion"] * 1.5


def test_symbols_and_scales_are_those_of_all_frames(codec, clips):
    seen = look(codec, clips, size=96)
    latents = {"intra": 1, "motion": FRAMES - 1, "residual": FRAMES - 1}
    assert set(seen.symbols) == {part + end for part in latents for end in ("", "_hyper")}
    assert set(seen.scales) == set(latents)
    channels = {"intra": 16, "motion": 8, "residual": 16}
    for part, frames in latents.items():
        count = frames * channels[part] * (96 // 16) ** 2
        assert seen.scales[part].size == count
        assert seen.symbols[part].size == pytest.approx(count * seen.figures[f"coded_share_{part}"])
        assert np.array_equal(seen.symbols[part], np.round(seen.symbols[part]))
        assert np.log2(0.11) - 1e-4 <= seen.scales[part].min()
        assert seen.scales[part].max() <= np.log2(64) + 1e-4
        assert seen.figures[f"coded_share_{part}_hyper"] == 1.0
    assert any(np.abs(symbols).max() > 1 for symbols in seen.symbols.values())


def test_a_clip_of_one_frame_has_no_motion(codec, clips):
    seen = look(codec, [Short(clips[0], 1)])
    assert set(seen.pictures) == {"frame", "reconstruction", "bits_intra"}
    assert "longest_flow" not in seen.figures
    assert set(seen.symbols) == {"intra", "intra_hyper"}


def test_nothing_of_the_training_is_touched(clips):
    codec = loud_codec(debug_config()).train()
    before = {name: value.clone() for name, value in codec.state_dict().items()}
    torch.manual_seed(5)
    draws = torch.get_rng_state()
    look(codec, clips, size=64)
    assert codec.training
    assert torch.equal(torch.get_rng_state(), draws)
    after = codec.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
