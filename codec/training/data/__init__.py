"""Clips for training: video files, folders of frames, Vimeo-90k and shards, cut to random crops.

What a step sees depends on the seed and the step's number alone, so a resumed run sees what the
uninterrupted one would have seen.
"""

from codec.training.data.clips import CachedClip, Clip, FolderClip
from codec.training.data.load import Clips, find_clips, load_clips, split
from codec.training.data.sampler import Batch, ClipSampler, Cut
from codec.training.data.shots import Report

__all__ = [
    "Batch",
    "CachedClip",
    "Clip",
    "ClipSampler",
    "Clips",
    "Cut",
    "FolderClip",
    "Report",
    "find_clips",
    "load_clips",
    "split",
]
