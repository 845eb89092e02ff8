"""An explanation as pictures: one figure of all panels, and a PNG of each."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from codec.drawing import colour_wheel, flow_colours
from eval.explain import Explanation
from eval.plot import save_figure


def draw(explanation: Explanation, folder: Path) -> list[Path]:
    """Write ``explain.png`` and one PNG a panel into ``folder``; returns the files.

    Raises ResultsError where one cannot be written.
    """
    from matplotlib.figure import Figure

    folder.mkdir(parents=True, exist_ok=True)
    panels = _panels(explanation)
    columns = 3
    rows = -(-len(panels) // columns)
    height, width = explanation.decoded.shape[:2]
    figure = Figure(figsize=(5 * columns, (5 * height / width + 0.5) * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    files = []
    for axis, (name, title, kind, content) in zip(axes, panels, strict=False):
        _show(figure, axis, title, kind, content)
        single = Figure(figsize=(7, 7 * height / width + 0.6), layout="constrained")
        _show(single, single.subplots(), title, kind, content)
        files.append(folder / f"{name}.png")
        save_figure(single, files[-1], dpi=110)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    figure.suptitle(f"frame {explanation.number}", fontsize=13)
    files.insert(0, folder / "explain.png")
    save_figure(figure, files[0], dpi=80)
    return files


def _panels(e: Explanation) -> list[tuple[str, str, str, object]]:
    """(file name, title, how to draw, content) in reading order."""
    panels: list[tuple[str, str, str, object]] = []
    if e.original is not None:
        panels.append(("original", "original", "picture", e.original))
    panels += [
        ("decoded", "decoded", "picture", e.decoded),
        ("reference", "reference: the frame before", "picture", e.reference),
        ("flow", f"decoded flow, longest {np.hypot(*e.flow).max():.1f} px", "flow", e.flow),
        ("warped", "reference warped by the flow", "picture", e.warped),
    ]
    for scale, search in e.searches.items():
        away = np.hypot(*search.shift)
        where = f"scale {scale}"
        title = f"shifted search, {where}: mean correction, longest {away.max():.2f} px"
        panels.append((f"shift_{scale}", title, "flow", search.shift))
        older = f", {search.older:.0%} of it in the older reference" if search.older else ""
        title = f"where its matches lie, {where}, by weight{older}"
        panels.append((f"matches_{scale}", title, "places", (search.places, search.weights)))
    for scale, maps in e.attention.items():
        where = "coder" if scale < 0 else f"scale {scale}"
        title = f"attention, {where}: where the {min(6, len(maps))} sharpest summaries look"
        panels.append((f"attention_{where.split()[-1]}", title, "maps", maps))
    for name, parts in (("motion", ("motion", "motion_hyper")), ("residual", None)):
        chosen = parts or tuple(p for p in e.bits if not p.startswith("motion"))
        bits = sum(e.bits[part] for part in chosen if part in e.bits)
        title = f"bits a pixel, {name}: {bits.mean():.4f} on average"
        panels.append((f"bits_{name}", title, "heat", bits))
    top = max(float(np.sqrt(error).max()) for error in e.errors.values())
    to = "original" if e.original is not None else "decoded frame"
    for stage, error in e.errors.items():
        decibels = -10 * np.log10(max(float(error.mean()), 1e-10))
        title = f"error after {stage}, to the {to}: {decibels:.2f} dB"
        panels.append((f"error_{stage}", title, "error", (np.sqrt(error), top)))
    return panels


def _show(figure, axis, title: str, kind: str, content) -> None:
    axis.set_title(title, fontsize=9)
    if kind == "places":
        _places(axis, *content)
        return
    axis.set_axis_off()
    if kind == "picture":
        axis.imshow(content)
    elif kind == "flow":
        axis.imshow(flow_colours(content))
        _wheel(axis)
    elif kind == "maps":
        axis.imshow(_mosaic(content), cmap="magma")
    elif kind == "heat":
        figure.colorbar(axis.imshow(content, cmap="viridis"), ax=axis, shrink=0.7)
    else:
        error, top = content
        figure.colorbar(axis.imshow(error, cmap="inferno", vmin=0, vmax=top), ax=axis, shrink=0.7)


def _wheel(axis) -> None:
    """The colours of directions, in the corner."""
    inset = axis.inset_axes((0.84, 0.02, 0.14, 0.14 * 1.4))
    inset.imshow(colour_wheel(64))
    inset.set_axis_off()


def _places(axis, places: np.ndarray, weights: np.ndarray) -> None:
    """A histogram over the window, in whole steps about its middle."""
    reach = max(1.0, float(np.ceil(np.abs(places).max())))
    edges = np.arange(-reach - 0.5, reach + 1)
    counts, _, _ = np.histogram2d(places[:, 1], places[:, 0], bins=(edges, edges), weights=weights)
    side = (-reach - 0.5, reach + 0.5)
    axis.imshow(counts / counts.sum(), cmap="magma", extent=(*side, side[1], side[0]))
    axis.set_xlabel("x from the flow, pixels of the scale", fontsize=8)
    axis.set_ylabel("y", fontsize=8)


def _mosaic(maps: np.ndarray) -> np.ndarray:
    """The six maps with the most to say, each scaled to its own maximum, two rows of three."""
    flat = maps.reshape(len(maps), -1)
    entropy = -(flat * np.log(flat + 1e-12)).sum(1)
    chosen = [maps[i] / maps[i].max() for i in np.argsort(entropy)[:6]]
    while len(chosen) < 6:
        chosen.append(np.zeros_like(chosen[0]))
    return np.concatenate([np.concatenate(chosen[row : row + 3], 1) for row in (0, 3)], 0)
