"""Pictures inside the page: lossless WebP as data URIs, cut to a window so that all of them fit."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from eval.report.pictures import FrameSet, Picture

BUDGET = 24 * 2**20
"""Bytes that the pictures of a page may take, before base64."""
WINDOWS = ((960, 544), (640, 360), (416, 240), (208, 120), (104, 60))
"""(width, height) to which larger pictures are cut, around their middle, until they fit."""


@dataclass(frozen=True)
class Album:
    """The pictures as the page holds them.

    sets: in their order. window: the largest (width, height) of a picture. data: per set and
    picture the WebP bytes. size: of all of them.
    """

    sets: list[FrameSet]
    window: tuple[int, int]
    data: list[list[bytes]]

    @property
    def size(self) -> int:
        """Bytes of all pictures, before base64."""
        return sum(len(one) for row in self.data for one in row)

    def to_json(self) -> list[dict[str, Any]]:
        """Per set what the viewer shows; the pictures under the keys of ``uris``."""
        return [_set(one, index, self.window) for index, one in enumerate(self.sets)]

    def uris(self) -> dict[str, str]:
        """Every picture as a data URI, by its key "SET-PICTURE"."""
        return {
            f"{i}-{k}": "data:image/webp;base64," + base64.b64encode(one).decode()
            for i, row in enumerate(self.data)
            for k, one in enumerate(row)
        }


def make_album(sets: Sequence[FrameSet], *, budget: int = BUDGET) -> tuple[Album, list[str]]:
    """(the album, problems): cut to the largest of ``WINDOWS`` that keeps within ``budget`` bytes.

    Where not even the smallest does, sets are left out from the end.
    """
    for window in WINDOWS:
        data, total = [], 0
        for one in sets:
            data.append([webp(middle(picture.rgb, window)) for picture in one.pictures])
            total += sum(map(len, data[-1]))
            if total > budget:
                break
        if total <= budget:
            return Album(list(sets), window, data), []
    kept = len(data) - 1
    names = ", ".join(one.sequence for one in sets[kept:])
    problem = f"no pictures of {names}: those of the page are limited to {budget / 2**20:.0f} MiB"
    return Album(list(sets[:kept]), window, data[:kept]), [problem]


def middle(rgb: np.ndarray, window: tuple[int, int]) -> np.ndarray:
    """The part of a picture [H, W, 3] around its middle, at most ``window`` (width, height)."""
    height, width = rgb.shape[:2]
    w, h = min(width, window[0]), min(height, window[1])
    left, top = (width - w) // 2, (height - h) // 2
    return rgb[top : top + h, left : left + w]


def webp(rgb: np.ndarray) -> bytes:
    """A picture [H, W, 3] uint8 as lossless WebP."""
    from PIL import Image

    data = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(rgb))
    image.save(data, "WEBP", lossless=True, quality=40, method=2)
    return data.getvalue()


def _set(one: FrameSet, index: int, window: tuple[int, int]) -> dict[str, Any]:
    height, width = middle(one.pictures[0].rgb, window).shape[:2]
    return {
        "sequence": one.sequence,
        "frame": one.frame,
        "reference": one.reference,
        "width": width,
        "height": height,
        "pictures": [_picture(p, f"{index}-{k}") for k, p in enumerate(one.pictures)],
    }


def _picture(picture: Picture, key: str) -> dict[str, Any]:
    return {
        "key": key,
        "codec": picture.codec,
        "level": picture.level,
        "bpp": picture.bpp,
        "psnr": picture.psnr,
        "frame": picture.figures,
        "remark": picture.remark,
    }
