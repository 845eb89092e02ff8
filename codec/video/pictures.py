"""The first frames of a video as pictures."""

import os
from itertools import islice

from torch import Tensor

from codec.video.colour import frame_to_rgb
from codec.video.reader import open_reader


def first_pictures(path: str | os.PathLike, count: int) -> list[Tensor]:
    """At most ``count`` frames of a video, [1, 3, H, W] RGB in [0, 1]; errors as open_reader's."""
    with open_reader(path) as reader:
        frames = islice(reader, count)
        return [frame_to_rgb(frame, reader.format).clamp(0, 1) for frame in frames]
