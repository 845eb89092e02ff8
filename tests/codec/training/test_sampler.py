"""What a step is cut from: the same as ever without augmentation, and what that adds to it."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from codec.config import AugmentConfig
from codec.training.data import CachedClip, ClipSampler, Cut
from codec.training.data.shots import Shot
from codec.training.data.shrink import shrink
from codec.video.format import VideoFormat

SCALED, FAST = AugmentConfig(scale=1), AugmentConfig(rate=1)


def numbered(name: str, frames: int, size=(48, 40), **options) -> CachedClip:
    """A grey clip whose frames get brighter by two codes one by one."""
    form = VideoFormat(*size, Fraction(25))
    planes = np.full((frames, form.frame_bytes), 128)
    luma = np.random.default_rng(1).integers(30, 90, size[0] * size[1])
    planes[:, : luma.size] = luma + 2 * np.arange(frames)[:, None]
    return CachedClip(name, planes.astype(np.uint8), form, **options)


def test_without_augmentation_cuts_are_those_of_earlier_versions():
    """Seen with the version before shots and augmentation: runs go on with the same samples."""
    sampler = ClipSampler([numbered("a", 40), numbered("bb", 31)], 3)
    assert sampler.draw(0, 2, 5, 32) == [
        Cut(1, 2, 0, 4, (False, False, True)),
        Cut(0, 15, 6, 8, (True, False, True)),
    ]
    assert sampler.draw(7, 2, 5, 32) == [
        Cut(1, 18, 8, 10, (False, False, False)),
        Cut(1, 6, 2, 12, (False, False, True)),
    ]


def test_shrinking_is_the_mean_over_areas():
    picture = torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    halves = picture.view(2, 3, 3, 2, 3, 2).mean((3, 5))
    assert torch.allclose(shrink(picture, 3), halves, atol=1e-6)
    fine = picture.repeat_interleave(4, 2).repeat_interleave(4, 3)  # 24 pixels, 6 of each 4
    assert torch.allclose(shrink(fine, 4), fine.view(2, 3, 4, 6, 4, 6).mean((3, 5)), atol=1e-6)
    odd = shrink(picture, 4)  # a pixel covers one and a half
    first = (picture[..., 0, 0] + 0.5 * (picture[..., 0, 1] + picture[..., 1, 0])) / 2.25
    assert torch.allclose(odd[..., 0, 0], first + 0.25 * picture[..., 1, 1] / 2.25, atol=1e-6)


def test_scaled_samples_are_cut_larger_and_made_smaller():
    sampler = ClipSampler([numbered("a", 9, (96, 80)), numbered("b", 9, (200, 160))], 3, SCALED)
    sides = set()
    for step in range(40):
        cuts = sampler.draw(step, 4, 3, 64)
        batch = sampler.read(cuts, 3, 64)
        assert batch.shape == (4, 3, 3, 64, 64)
        for cut, sample in zip(cuts, batch, strict=True):
            clip, side = sampler.clips[cut.clip], cut.side or 64
            sides.add(side)
            assert side % 2 == 0 and 64 <= side <= min(128, clip.height)
            assert cut.top + side <= clip.height and cut.left + side <= clip.width
            whole = clip.read(cut.start, 3, cut.top, cut.left, side)
            assert torch.allclose(sample.mean((1, 2, 3)).sort()[0], whole.mean((1, 2, 3)).sort()[0])
    assert min(sides) < 70 and max(sides) > 120


def test_rate_takes_every_second_or_third_frame():
    sampler = ClipSampler([numbered("a", 40, shots=(Shot(0, 20), Shot(25, 9)))], 3, FAST)
    steps = set()
    for step in range(60):
        (cut,) = sampler.draw(step, 1, 4, 32)
        assert cut.every in (2, 3)
        last = cut.start + 3 * cut.every
        assert last < 20 or (25 <= cut.start and last < 34)
        brightness = sampler.read([cut], 4, 32)[0].mean((1, 2, 3)).diff().abs()
        steps.add(round(float(brightness.mean()) * 219 / 2))
        assert torch.allclose(brightness, brightness.mean().expand(3), atol=1e-4)
    assert steps == {2, 3}


def test_rate_is_what_the_shot_has_room_for():
    sampler = ClipSampler([numbered("a", 8)], 3, FAST)
    assert {cut.every for step in range(20) for cut in sampler.draw(step, 1, 4, 32)} == {2}
    assert {cut.every for step in range(20) for cut in sampler.draw(step, 1, 5, 32)} == {1}


def test_augmented_chains_go_on_where_they_were():
    augment = AugmentConfig(scale=0.5, rate=0.5)
    sampler = ClipSampler([numbered("a", 60, (96, 80))], 3, augment)
    links = [sampler.link(0, done, batch=4, frames=3, crop=48, chain=6) for done in range(12)]
    for before, after in zip(links, links[1:], strict=False):
        for sample in torch.nonzero(~after.begins)[:, 0]:
            assert torch.equal(after.clip[sample, 0], before.clip[sample, -1])


@pytest.mark.parametrize("augment", [SCALED, FAST, AugmentConfig(scale=0.3, rate=0.3)])
def test_augmentation_depends_on_seed_and_step_alone(augment):
    clips = [numbered("a", 40, (96, 80)), numbered("bb", 31, (80, 96))]
    one, other = ClipSampler(clips, 4, augment), ClipSampler(clips, 4, augment)
    one.batch(0, 2, 3, 64)  # what was drawn before makes no difference
    assert torch.equal(one.batch(5, 2, 3, 64), other.batch(5, 2, 3, 64))
    assert not torch.equal(
        one.batch(5, 2, 3, 64), ClipSampler(clips, 5, augment).batch(5, 2, 3, 64)
    )


def test_in_epochs_every_clip_comes_once():
    clips = [numbered(f"{number}", 5) for number in range(7)] + [numbered("short", 2)]
    sampler = ClipSampler(clips, 3, order="epochs")
    order = [cut.clip for step in range(7) for cut in sampler.draw(step, 3, 4, 32)]
    epochs = [order[first : first + 7] for first in (0, 7, 14)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    again = ClipSampler(clips, 3, order="epochs")
    assert [cut.clip for cut in again.draw(4, 3, 4, 32)] == order[12:15]
    assert [cut.clip for s in range(7) for cut in ClipSampler(clips, 4).draw(s, 3, 4, 32)] != order
