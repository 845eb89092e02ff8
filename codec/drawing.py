"""Fields and bits as colours: what `lgmc explain` and the pictures of a training run draw alike."""

import numpy as np


def flow_colours(flow: np.ndarray, longest: float | None = None) -> np.ndarray:
    """A field [2, H, W] as RGB [H, W, 3] in 0..1: hue by direction, white where nothing moves.

    ``longest``: the length drawn in full colour, that of the field's longest vector by default.
    """
    from matplotlib.colors import hsv_to_rgb

    length = np.hypot(*flow)
    longest = longest or max(float(length.max()), 1e-6)
    hue = np.arctan2(flow[1], flow[0]) / (2 * np.pi) % 1.0
    strength = np.clip(length / longest, 0, 1)
    return hsv_to_rgb(np.stack((hue, strength, np.ones_like(hue)), -1))


def colour_wheel(side: int) -> np.ndarray:
    """The colours of all directions on a disc, white around it: RGB [side, side, 3] in 0..1."""
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    colours = flow_colours(np.stack((x, y)), 1.0)
    colours[np.hypot(x, y) > 1] = 1.0
    return colours


def over_pixels(values: np.ndarray, size: tuple[int, int], part: str) -> np.ndarray:
    """Bits of a latent's places [h, w] spread evenly over the pixels that each stands for.

    Args:
        values: bits of each place.
        size: (H, W) of the frame.
        part: the latent's name; a place of a hyper latent stands for 64 x 64 pixels, others for
            16 x 16. The shape alone would not tell them apart in frames of few pixels.

    Returns:
        Bits a pixel [H, W].
    """
    height, width = size
    step = 64 if part.endswith("_hyper") else 16
    return np.repeat(np.repeat(values / step**2, step, 0), step, 1)[:height, :width]


def heat(values: np.ndarray, top: float | None = None) -> np.ndarray:
    """Numbers [H, W] from 0 as RGB [H, W, 3] in 0..1: dark is 0, yellow ``top`` (their maximum)."""
    from matplotlib import colormaps

    top = top or max(float(values.max()), 1e-12)
    return colormaps["viridis"](np.clip(values / top, 0, 1))[..., :3]
