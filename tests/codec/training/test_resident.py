"""Clips on the device give the batches that clips on the disk give."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from codec.config import AugmentConfig
from codec.errors import ConfigError
from codec.training.data import CachedClip, ClipSampler, FolderClip
from codec.training.resident import ResidentSampler
from codec.video.format import VideoFormat


def clip(name, width, height, frames, **meaning):
    form = VideoFormat(width, height, Fraction(25), **meaning)
    samples = np.random.default_rng(len(name)).integers(0, 256, (frames, form.frame_bytes))
    return CachedClip(name, samples.astype(np.uint8), form)


@pytest.mark.parametrize("frames, crop", [(1, 64), (3, 64), (4, 32)])
def test_batches_are_the_same(frames, crop):
    clips = [clip("a", 98, 67, 5), clip("bb", 65, 130, 4), clip("ccc", 80, 80, 9)]
    one, other = ClipSampler(clips, 7), ResidentSampler(clips, 7, torch.device("cpu"))
    for step in range(6):
        expected = one.batch(step, 5, frames, crop)
        assert torch.equal(expected, other.batch(step, 5, frames, crop))


def test_chains_are_the_same():
    clips = [clip("a", 98, 67, 11), clip("bb", 65, 130, 9)]
    one, other = ClipSampler(clips, 7), ResidentSampler(clips, 7, torch.device("cpu"))
    for done in range(5):
        links = [s.link(40, done, batch=3, frames=3, crop=64, chain=8) for s in (one, other)]
        for name in ("clip", "begins", "quality"):
            assert torch.equal(*(getattr(link, name) for link in links)), name


def test_other_formats_are_refused_by_name(tmp_path):
    good = clip("good", 80, 80, 3)
    device = torch.device("cpu")
    for bad in (clip("deep", 80, 80, 3, chroma="444"), FolderClip("folder", [], 80, 80)):
        with pytest.raises(ConfigError, match=bad.name):
            ResidentSampler([good, bad], 0, device)
    with pytest.raises(ConfigError, match="matrix or range"):
        ResidentSampler([good, clip("other", 80, 80, 3, matrix="bt601")], 0, device)


@pytest.mark.parametrize("augment", [{"scale": 0.5}, {"rate": 0.5}, {"scale": 0.5, "rate": 0.5}])
def test_augmented_batches_are_the_same(augment):
    clips = [clip("a", 98, 67, 15), clip("bb", 65, 130, 14), clip("ccc", 180, 150, 9)]
    augment, device = AugmentConfig(**augment), torch.device("cpu")
    one = ClipSampler(clips, 7, augment, "epochs")
    other = ResidentSampler(clips, 7, device, augment, "epochs")
    for step in range(6):
        expected, got = (s.batch(step, 5, 3, 64) for s in (one, other))
        # Scaling sums in an order that is the library's.
        assert torch.allclose(expected, got, rtol=0, atol=1e-6)
