"""Draws the picture of docs/kernels.md: one query, its flow, its window, and the two score maps.

    python -m benchmarks.kernel_picture [docs/images/kernels_search.png]

The scores are of a real search in a small random texture; what stands in the picture is computed.
"""

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

PICTURE = Path(__file__).parents[1] / "docs" / "images" / "kernels_search.png"
SIZE = (13, 17)
QUERY = (4, 7)  # x, y
FLOW = (5.4, -1.7)
MOTION = (6.7, -0.9)  # where the match really is
WINDOW = 5
TOPK = 3
CHANNELS = 16
BLUE, ORANGE, GREEN, PINK = "#0072B2", "#D55E00", "#009E73", "#CC79A7"


def scene() -> tuple[Tensor, Tensor]:
    """(query vector [C], key [1, C, H, W]): the query is the key's sample at query + MOTION."""
    generator = torch.Generator().manual_seed(3)
    coarse = torch.randn(1, CHANNELS, SIZE[0] // 2 + 2, SIZE[1] // 2 + 2, generator=generator)
    key = F.normalize(F.interpolate(coarse, size=SIZE, mode="bicubic"), dim=1)
    x, y = QUERY[0] + MOTION[0], QUERY[1] + MOTION[1]
    grid = torch.tensor([[[[2 * x / (SIZE[1] - 1) - 1, 2 * y / (SIZE[0] - 1) - 1]]]])
    vector = F.grid_sample(key, grid, align_corners=True)[0, :, 0, 0]
    return F.normalize(vector, dim=0), key


def integer_scores(vector: Tensor, key: Tensor) -> tuple[Tensor, int, int]:
    """Dot products at the (WINDOW + 1)^2 whole positions, and the first one's x and y."""
    left = int(QUERY[0] + FLOW[0] // 1) - WINDOW // 2
    top = int(QUERY[1] + FLOW[1] // 1) - WINDOW // 2
    block = key[0, :, top : top + WINDOW + 1, left : left + WINDOW + 1]
    return torch.einsum("c,chw->hw", vector, block), left, top


def interpolated(scores: Tensor) -> Tensor:
    """The candidates' scores [WINDOW, WINDOW]: all share the flow's fraction."""
    fx, fy = FLOW[0] % 1, FLOW[1] % 1
    rows = scores[:-1] * (1 - fy) + scores[1:] * fy
    return rows[:, :-1] * (1 - fx) + rows[:, 1:] * fx


def direct(vector: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
    """The operator's own answer for this query: its topk scores [K] and offsets [K, 2]."""
    from kernels import shifted_search

    query = vector[None, :, None, None].expand(1, -1, *SIZE)
    flow = torch.tensor(FLOW)[None, :, None, None].expand(1, 2, *SIZE)
    scores, offsets = shifted_search(
        query.double(), key.double(), flow.double(), window=WINDOW, topk=TOPK, backend="naive"
    )
    return scores[0, 0, QUERY[1], QUERY[0]], offsets[0, 0, QUERY[1], QUERY[0]]


def draw(path: Path) -> None:
    from matplotlib.figure import Figure

    vector, key = scene()
    whole, left, top = integer_scores(vector, key)
    candidates = interpolated(whole)
    best, offsets = direct(vector, key)
    agreed = torch.sort(candidates.flatten(), descending=True)[0][:TOPK]
    if not torch.allclose(agreed.double(), best.double(), atol=1e-5):
        raise SystemExit("interpolated scores are not the search's; no picture is drawn")

    figure = Figure(figsize=(13, 5), layout="constrained")
    plan, integer, final = figure.subplots(1, 3, width_ratios=(1.55, 1, 1))
    _plan(plan, left, top, offsets)
    low, high = float(whole.min()), float(whole.max())
    _map(integer, whole, low, high, f"(window+1)² = {(WINDOW + 1) ** 2} dot products at pixels")
    _map(final, candidates, low, high, f"window² = {WINDOW**2} scores, interpolated; best {TOPK}")
    for rank, flat in enumerate(candidates.flatten().topk(TOPK).indices.tolist(), 1):
        y, x = divmod(flat, WINDOW)
        final.add_patch(_square(x, y, GREEN))
        final.text(x, y - 0.27, f"no. {rank}", color=BLUE, ha="center", fontsize=8, weight="bold")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100, bbox_inches="tight")


def _square(x: int, y: int, colour: str):
    from matplotlib.patches import Rectangle

    return Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, edgecolor=colour, linewidth=2.5)


def _plan(axis, left: int, top: int, offsets: Tensor) -> None:
    """The key's pixels, the query's place, the flow, the window, and what the search chose."""
    ys, xs = range(SIZE[0]), range(SIZE[1])
    axis.scatter([x for _ in ys for x in xs], [y for y in ys for _ in xs], s=6, color="0.75")
    rows, columns = range(top, top + WINDOW + 1), range(left, left + WINDOW + 1)
    axis.scatter(
        [x for _ in rows for x in columns],
        [y for y in rows for _ in columns],
        s=34,
        marker="s",
        color=BLUE,
        label="pixels whose dot products are taken",
    )
    centre = (QUERY[0] + FLOW[0], QUERY[1] + FLOW[1])
    steps = [i - WINDOW // 2 for i in range(WINDOW)]
    axis.scatter(
        [centre[0] + dx for _ in steps for dx in steps],
        [centre[1] + dy for dy in steps for _ in steps],
        s=30,
        facecolor="none",
        edgecolor=ORANGE,
        label="candidates: one fraction for all",
    )
    axis.scatter(*QUERY, s=110, marker="*", color="black", zorder=3, label="query")
    arrow = {"arrowstyle": "->", "color": ORANGE, "linewidth": 2}
    axis.annotate("", xy=centre, xytext=QUERY, arrowprops=arrow)
    middle = (QUERY[0] + 0.35 * FLOW[0], QUERY[1] + 0.35 * FLOW[1] - 0.55)
    axis.text(*middle, "flow", color=ORANGE, ha="center")
    for k, (dx, dy) in enumerate(offsets.tolist()):
        axis.scatter(
            QUERY[0] + dx,
            QUERY[1] + dy,
            s=70,
            color=GREEN,
            zorder=3,
            label=f"the best {TOPK}" if k == 0 else None,
        )
    axis.scatter(
        QUERY[0] + MOTION[0],
        QUERY[1] + MOTION[1],
        s=90,
        marker="x",
        color=PINK,
        zorder=4,
        label="where the query was taken from",
    )
    axis.set_xlim(-0.7, SIZE[1] - 0.3)
    axis.set_ylim(SIZE[0] - 0.3, -0.7)
    axis.set_aspect("equal")
    axis.set_xticks([])
    axis.set_yticks([])
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.01), fontsize=8, ncols=2, frameon=False)
    axis.set_title(f"one query, window {WINDOW}, in the key image", fontsize=11)


def _map(axis, scores: Tensor, low: float, high: float, title: str) -> None:
    axis.imshow(scores, cmap="Greys", vmin=low - 0.1 * (high - low), vmax=high + 1.2 * (high - low))
    for y, row in enumerate(scores.tolist()):
        for x, value in enumerate(row):
            axis.text(x, y + 0.06, f"{value:.2f}", ha="center", va="center", fontsize=8)
    axis.set_xticks([])
    axis.set_yticks([])
    axis.set_title(title, fontsize=11)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", nargs="?", type=Path, default=PICTURE)
    draw(parser.parse_args().path)


if __name__ == "__main__":
    main()
