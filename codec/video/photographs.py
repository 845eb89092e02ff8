"""The photographs that scikit-image carries inside its wheel, as textures to make clips from.

The files are read straight from the installed package: scikit-image's own loaders may ask the
network for what is missing, and importing it takes longer than reading the files does.
"""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from codec.errors import VideoError

# The order is part of what a seed means: append, never reorder.
PHOTOGRAPHS = (
    "astronaut.png",
    "coffee.png",
    "chelsea.png",
    "motorcycle_left.png",
    "rocket.jpg",
    "ihc.png",
    "camera.png",
    "brick.png",
    "grass.png",
    "gravel.png",
    "coins.png",
)

# The grey ones are tinted, so that chroma moves in every clip: RGB of what was white.
_TINTS = {
    "camera.png": (1.00, 0.96, 0.90),
    "brick.png": (1.00, 0.72, 0.58),
    "grass.png": (0.72, 0.98, 0.52),
    "gravel.png": (0.86, 0.92, 1.00),
    "coins.png": (1.00, 0.88, 0.60),
}


def photograph_path(name: str) -> Path:
    """Where the photograph `name` (one of PHOTOGRAPHS) lies; VideoError where it is not there."""
    spec = importlib.util.find_spec("skimage")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / "data" / name
        if path.is_file():
            return path
    raise VideoError(
        f"{name} is not in the installed scikit-image: reinstall it (pip install scikit-image)"
    )


@lru_cache(maxsize=len(PHOTOGRAPHS))
def photograph(name: str) -> Tensor:
    """One photograph as float32 RGB in [0, 255], shape [1, 3, H, W]; sides of 300 to 741 pixels."""
    from PIL import Image

    with Image.open(photograph_path(name)) as image:
        rgb = np.asarray(image.convert("RGB"), dtype=np.float32)  # [H, W, 3]
    rgb = rgb * np.asarray(_TINTS.get(name, (1.0, 1.0, 1.0)), dtype=np.float32)
    return torch.from_numpy(rgb).permute(2, 0, 1).unsqueeze(0).contiguous()


def texture(name: str, spacing: float) -> Tensor:
    """The photograph low-passed for sampling every `spacing` of its pixels, [1, 3, H, W].

    A Gaussian takes away what would alias at that spacing, and enough of the rest that bilinear
    sampling looks the same at every sub-pixel phase. The spacing is rounded up to a step of
    2 ** 0.25, so that few versions of each photograph are ever made and all can be kept.
    """
    return _low_passed(name, int(np.ceil(4 * np.log2(max(spacing, 1.0)) - 1e-6)))


@lru_cache(maxsize=32)  # about 4 MB each
def _low_passed(name: str, quarter_octaves: int) -> Tensor:
    sigma = 0.45 * 2.0 ** (quarter_octaves / 4)  # photograph pixels
    radius = int(np.ceil(3 * sigma))
    taps = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma) ** 2)
    taps = (taps / taps.sum()).float()
    image = F.pad(photograph(name).transpose(0, 1), (radius,) * 4, mode="reflect")  # [3, 1, H, W]
    image = F.conv2d(image, taps.view(1, 1, 1, -1))
    image = F.conv2d(image, taps.view(1, 1, -1, 1))
    return image.transpose(0, 1).contiguous()  # [1, 3, H, W]
