"""What the project holds its operators to, judged from the measured rows."""

from benchmarks.registry import Figure

SEARCH_PEERS = ("grid_sample", "unfold+matmul", "warp+sampler")
FORWARD_LIMIT = ">= 60"
TRAINING_LIMIT = ">= 40"
HELD_TO_PEERS = (*SEARCH_PEERS, "five lines", "sdpa")


def held_to(
    device: str,
    rows: list[dict],
    ceilings: dict[str, float],
    apart: dict[str, float],
    small: dict[str, dict[tuple[int, int], float]],
    growth: dict[tuple[str, str], tuple[float, float, float]] | None = None,
) -> list[Figure]:
    """Figures with limits; on a GPU there are no limits but that nothing was refused.

    Args:
        device: ``"cpu"`` or ``"cuda"``.
        rows, ceilings: as measured. apart, small, growth: of ``kernels.top_k_apart``,
            ``small_images`` and ``linear_growth``.
    """
    figures = [_refused(rows)]
    if device == "cuda":
        figures += [
            Figure("copy, bytes read and written", ceilings["copy_gbps"], "GB/s"),
            Figure("matrix product, float32", ceilings["float32_tflops"], "TFLOP/s"),
            Figure("matrix product, bfloat16", ceilings["bfloat16_tflops"], "TFLOP/s"),
        ]
        return figures
    figures += _lost_peers(rows)
    return figures + _search(rows) + _apart(apart) + _linear(rows, growth or {}) + _small(small)


def _refused(rows: list[dict]) -> Figure:
    wrong = [row for row in rows if row["error"] and row["ours"]]
    return Figure("our back ends refused by the gate", len(wrong), "", limit="<= 0")


def _lost_peers(rows: list[dict]) -> list[Figure]:
    """Fails where a peer has no numbers: the limits that it sets are not among the figures."""
    lost = [row for row in rows if row["error"] and row["backend"] in HELD_TO_PEERS]
    name = "peers that ours are held to, without numbers"
    return [Figure(name, len(lost), "", limit="<= 0")] if lost else []


def _ours(rows: list[dict], operator: str) -> list[dict]:
    return [
        row
        for row in rows
        if row["operator"] == operator
        and row["ours"]
        and row["dtype"] == "float32"
        and row["forward_ms"] is not None
    ]


def _peer(rows: list[dict], ours: dict, name: str) -> dict | None:
    for row in rows:
        if all(row[key] == ours[key] for key in ("operator", "case", "dtype", "device")):
            if row["backend"] == name:
                return row
    return None


def _speedup(label: str, row: dict, key: str, peer: str, limit: str) -> Figure:
    low, high = row[f"{key}_range"][peer]
    return Figure(f"{label}: over {peer}", row[key][peer], "x", low, high, limit)


def _search(rows: list[dict]) -> list[Figure]:
    figures = []
    for row in _ours(rows, "shifted_search"):
        for peer in row["speedup_over"]:
            limit = FORWARD_LIMIT if peer in SEARCH_PEERS else ""
            figures.append(_speedup("search", row, "speedup_over", peer, limit))
        figures += _memory("search", rows, row, "extra_bytes")
    for row in _ours(rows, "shifted_attention"):
        for peer in row["training_speedup_over"]:
            limit = TRAINING_LIMIT if peer in SEARCH_PEERS else ""
            figures.append(
                _speedup("attention, both ways", row, "training_speedup_over", peer, limit)
            )
        figures += _memory("attention, both ways", rows, row, "training_extra_bytes")
    return figures


def _memory(label: str, rows: list[dict], ours: dict, key: str) -> list[Figure]:
    if ours[key] is None:
        return []
    figures = [Figure(f"{label}: extra memory", ours[key] / 2**20, "MiB")]
    unfold = _peer(rows, ours, "unfold+matmul")
    if unfold and unfold[key]:
        share = 100 * ours[key] / unfold[key]
        figures.append(Figure(f"{label}: of unfold's memory", share, "%", limit="<= 2"))
    return figures


def _apart(apart: dict[str, float]) -> list[Figure]:
    """The products' share of the FMA peak: by their own time, and by the whole search's.

    The limit is on the products' own time where that was measured: the same products without
    interpolation and lists of the best. Where it was not, it is on the whole time.
    """
    if not apart:
        return []
    peak, whole = apart["fma_gflops"], apart["top9_ms"]
    figures = [Figure("FMA peak, measured", peak, "GFLOP/s")]
    if "products_ms" in apart:
        own = apart["products_ms"]
        figures += [
            Figure("search: products alone", own, "ms"),
            _share("search: products' share of the peak in their own time", apart, own, ">= 40"),
        ]
    figures += [
        _share(
            "search: products' share of the peak in the whole time, top-k included",
            apart,
            whole,
            "" if "products_ms" in apart else ">= 40",
        ),
        Figure("search: whole", whole, "ms"),
        Figure("search: top 9 over the best alone", whole - apart["top1_ms"], "ms"),
        Figure("torch.topk alone on such scores", apart["torch_topk_ms"], "ms"),
    ]
    return figures


def _share(name: str, apart: dict[str, float], milliseconds: float, limit: str) -> Figure:
    rate = apart["operations"] / milliseconds / 1e6  # GFLOP/s
    return Figure(name, 100 * rate / apart["fma_gflops"], "%", limit=limit)


def _linear(
    rows: list[dict], growth: dict[tuple[str, str], tuple[float, float, float]]
) -> list[Figure]:
    found = _ours(rows, "linear_attention")
    figures = []
    for (case, label), (median, low, high) in growth.items():
        name = f"linear {case.split()[0]}: time over a quarter, {label}"
        figures.append(Figure(name, median, "x", low, high, "<= 4.2"))
    for row in found:
        for key, label in (
            ("speedup_over", "forward"),
            ("training_speedup_over", "both ways"),
        ):
            name = f"linear {_side(row)}, {label}"
            if "five lines" in row[key]:
                figures.append(_speedup(name, row, key, "five lines", ">= 1"))
            if "sdpa" in row[key]:
                figures.append(_speedup(name, row, key, "sdpa", ">= 10"))
    largest = max(found, key=_pixels, default=None)
    if largest and largest["extra_bytes"] is not None:
        one_input = largest["bytes"] / 4  # query, key, value and the output are of one size
        for key, label in (("extra_bytes", "forward"), ("training_extra_bytes", "both ways")):
            name = f"linear {_side(largest)}, {label}: memory of an input"
            figures.append(Figure(name, 100 * largest[key] / one_input, "%", limit="<= 10"))
    return figures


def _small(small: dict[str, dict[tuple[int, int], float]]) -> list[Figure]:
    """The default call over the five lines at the size where it is least ahead."""
    figures = []
    for key, by_size in small.items():
        least = min(by_size, key=by_size.get)
        name = f"linear up to {_times(max(by_size))}, as called, {key}: least, at {_times(least)}"
        value, most = by_size[least], max(by_size.values())
        figures.append(Figure(name, value, "x", value, most, ">= 1"))
    return figures


def _times(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _side(row: dict) -> str:
    return row["case"].split()[0]


def _pixels(row: dict) -> int:
    _, height, width = _side(row).split("x")
    return int(height) * int(width)
