"""Clips for training: video files, folders of frames and Vimeo-90k, cut to random crops.

What a step sees depends on the seed and the step's number alone, so a resumed run sees what the
uninterrupted one would have seen.
"""

from codec.training.data.clips import CachedClip, Clip, FolderClip
from codec.training.data.sampler import Batch, ClipSampler, Cut
from codec.training.data.sources import find_clips, split

__all__ = [
    "Batch",
    "CachedClip",
    "Clip",
    "ClipSampler",
    "Cut",
    "FolderClip",
    "find_clips",
    "split",
]
