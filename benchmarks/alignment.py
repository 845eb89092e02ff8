"""Frame alignment by shifted search against plain flow (arXiv 2309.16849, its first experiment).

    python -m benchmarks.alignment CLIPS... --json alignment.json --plot alignment.png

For each clip's first frames: the frame t is to be rebuilt from its two neighbours in time. The flow
and the search see frames with noise of sigma 15 (of 255) added; a search of patch 3, l2, best one,
strides 1 round the flow corrects it; the offsets found are applied to the clean neighbour by a
bilinear warp, and the PSNR against the clean frame t is averaged over pairs. Window 1 is plain
flow. At the ends of the clip the two nearest frames of the one side are used, as in the paper's
search (temporal radius 1).

Flows: OpenCV's Farneback and DIS (opencv-python-headless; the extra ``bench``) and the flow net of
our model `lite`.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.kernel_tables import between
from codec.errors import ConfigError
from codec.layers import warp
from codec.motion_refine import patches

OPENCV = "opencv-python-headless"
BEGIN = "<!-- alignment: begin (python -m benchmarks.alignment --document) -->"
END = "<!-- alignment: end -->"
WINDOWS = (1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31, 33)
FRAMES = 10
SIGMA = 15.0
PATCH = 3

FlowNet = Callable[[Tensor, Tensor], Tensor]
"""Frames (current, reference) [1, 3, H, W] in [0, 1] -> flow [1, 2, H, W] of ``codec.flow``."""


def read_clip(path: Path, frames: int) -> list[Tensor]:
    """The first frames as [1, 3, H, W] in [0, 1], of 8-bit R'G'B'."""
    from codec.video import frame_to_rgb, open_reader

    with open_reader(path, frames=frames) as reader:
        found = []
        for frame in reader:
            rgb = frame_to_rgb(frame, reader.format).clamp(0, 1)
            found.append((rgb * 255).round() / 255)
    if len(found) < 3:
        raise ConfigError(f"{path} has {len(found)} frames; alignment takes 3 at least")
    return found


def neighbours(frame: int, frames: int) -> tuple[int, int]:
    """The two frames that ``frame`` is aligned with: beside it, or on one side at the ends."""
    if frame == 0:
        return 1, 2
    if frame == frames - 1:
        return frames - 2, frames - 3
    return frame + 1, frame - 1


def farneback() -> FlowNet:
    cv2 = _opencv()

    def flow(current: Tensor, reference: Tensor) -> Tensor:
        found = cv2.calcOpticalFlowFarneback(
            _grey(cv2, current),
            _grey(cv2, reference),
            None,
            pyr_scale=0.5,
            levels=5,
            winsize=15,
            iterations=3,
            poly_n=5,
            poly_sigma=1.1,
            flags=0,
        )
        return torch.from_numpy(found).permute(2, 0, 1)[None].contiguous()

    return flow


def dis() -> FlowNet:
    cv2 = _opencv()
    method = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    def flow(current: Tensor, reference: Tensor) -> Tensor:
        found = method.calc(_grey(cv2, current), _grey(cv2, reference), None)
        return torch.from_numpy(found).permute(2, 0, 1)[None].contiguous()

    return flow


def flow_net(model: str = "lite") -> FlowNet:
    """The flow net of one of our models, on frames padded to multiples of 64."""
    import codec
    from codec.flow import to_full_size

    net = codec.load(model).codec.inter.flow

    def flow(current: Tensor, reference: Tensor) -> Tensor:
        height, width = current.shape[2:]
        padding = (0, -width % 64, 0, -height % 64)
        frames = (
            torch.nn.functional.pad(x, padding, mode="replicate") for x in (current, reference)
        )
        found = to_full_size(net(*frames), net.top)
        return found[..., :height, :width].contiguous()

    return flow


FLOWS: dict[str, Callable[[], FlowNet]] = {
    "Farneback": farneback,
    "DIS": dis,
    "lite": flow_net,
}


def _opencv():
    try:
        import cv2
    except ImportError as error:
        raise ConfigError(
            "the flows of OpenCV need opencv-python-headless (pip install 'lvc-lgmc[bench]')"
        ) from error
    return cv2


def _grey(cv2, frame: Tensor) -> np.ndarray:
    rgb = (frame[0] * 255).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
    return cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2GRAY)


def noisy(frames: Sequence[Tensor], sigma: float, seed: int = 0) -> list[Tensor]:
    """Frames with Gaussian noise, sigma in steps of 1 / 255, not clipped."""
    generator = torch.Generator().manual_seed(seed)
    return [x + torch.randn(x.shape, generator=generator) * (sigma / 255) for x in frames]


def aligned(
    current: Tensor, reference: Tensor, flow: Tensor, window: int, patch: int = PATCH
) -> Tensor:
    """The corrected flow [1, 2, H, W] by a search in noisy frames; window 1 leaves the flow.

    The patch is channels of one pixel: the same sums as the search's own option, a fraction being
    common to a patch and interpolation being linear, in whole vectors and so quicker.
    """
    if window == 1:
        return flow
    from kernels import shifted_search

    query, key = (patches(x, patch, "reflect") for x in (current, reference))
    _, offsets = shifted_search(query, key, flow, window=window, topk=1, metric="l2")
    return offsets[:, 0, :, :, 0].permute(0, 3, 1, 2)


def psnr(frame: Tensor, other: Tensor) -> float:
    """dB of pictures in [0, 1], not rounded."""
    return -10 * torch.log10((frame - other).double().square().mean()).item()


@torch.no_grad()
def align_clip(
    clean: list[Tensor], net: FlowNet, windows: Sequence[int], sigma: float, patch: int = PATCH
) -> dict[int, float]:
    """window -> mean PSNR over the clip's pairs."""
    seen = noisy(clean, sigma)
    values: dict[int, list[float]] = {window: [] for window in windows}
    for t, frame in enumerate(clean):
        for other in neighbours(t, len(clean)):
            flow = net(seen[t], seen[other])
            for window in windows:
                offsets = aligned(seen[t], seen[other], flow, window, patch)
                values[window].append(psnr(warp(clean[other], offsets), frame))
    return {window: statistics.mean(found) for window, found in values.items()}


def measure(
    clips: Sequence[Path],
    windows: Sequence[int] = WINDOWS,
    frames: int = FRAMES,
    sigma: float = SIGMA,
    flows: Sequence[str] = tuple(FLOWS),
    patch: int = PATCH,
    progress: Callable[[str], None] = print,
) -> dict[str, dict[str, dict[int, float]]]:
    """flow -> clip -> window -> PSNR in dB."""
    found: dict[str, dict[str, dict[int, float]]] = {}
    for name in flows:
        net = FLOWS[name]()
        found[name] = {}
        for clip in clips:
            started = time.perf_counter()
            values = align_clip(read_clip(clip, frames), net, windows, sigma, patch)
            found[name][clip.stem] = values
            progress(f"{name}, {clip.stem}: {time.perf_counter() - started:.0f} s")
    return found


def means(by_clip: dict[str, dict[int, float]]) -> dict[int, float]:
    """window -> PSNR averaged over clips."""
    windows = next(iter(by_clip.values()))
    return {w: statistics.mean(values[w] for values in by_clip.values()) for w in windows}


def table(found: dict[str, dict[str, dict[int, float]]]) -> str:
    """PSNR of plain flow, then the gain over it, per clip and in the mean."""
    windows = list(next(iter(next(iter(found.values())).values())))
    lines = []
    for flow, by_clip in found.items():
        lines += [f"{flow}: dB of plain flow (window 1), then dB gained by window", ""]
        lines.append("| clip | flow | " + " | ".join(str(w) for w in windows[1:]) + " |")
        lines.append("|---|" + "---:|" * len(windows))
        for clip, values in [*by_clip.items(), ("mean", means(by_clip))]:
            gains = " | ".join(f"{values[w] - values[windows[0]]:+.2f}" for w in windows[1:])
            lines.append(f"| {clip} | {values[windows[0]]:.2f} | {gains} |")
        lines.append("")
    return "\n".join(lines)


def document(report: dict) -> str:
    """The tables of a report with what they were measured with, for docs/kernels.md."""
    versions = report["versions"]
    opencv = f", OpenCV {versions[OPENCV]}" if OPENCV in versions else ""
    command = " ".join(Path(word).name for word in report["command"])
    conditions = f"{report['date'][:10]}, `{command}`; torch {versions['torch']}{opencv}."
    return f"{conditions} First {report['frames']} frames.\n\n{table(report['psnr']).rstrip()}"


def plot(
    found: dict[str, dict[str, dict[int, float]]], path: Path, sigma: float, patch: int = PATCH
) -> None:
    """Mean PSNR over the window, a line for each flow, and each clip in grey behind."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(found) + 0.6, 3.9), layout="constrained")
    axes = figure.subplots(1, len(found), sharey=True, squeeze=False)[0]
    for axis, (flow, by_clip) in zip(axes, found.items(), strict=True):
        for values in by_clip.values():
            axis.plot(values.keys(), values.values(), color="0.75", linewidth=1)
        mean = means(by_clip)
        plain, best = mean[min(mean)], max(mean.values())
        axis.plot(mean.keys(), mean.values(), color="#0072B2", marker="o", label="mean of clips")
        axis.axhline(plain, color="#D55E00", linestyle="--", label=f"plain flow, {plain:.2f} dB")
        axis.set_title(f"{flow}: +{best - plain:.2f} dB at best", fontsize=11)
        axis.set_xlabel("window (1: plain flow)")
        axis.set_xticks([w for w in mean if w in (1, 5, 9, 13, 17, 21, 25, 29, 33)])
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8, loc="lower right")
    axes[0].set_ylabel("PSNR of the aligned clean frame, dB")
    clips = len(next(iter(found.values())))
    figure.suptitle(
        f"Alignment of {clips} clips (grey), noise of sigma {sigma:g}, patch {patch}, l2"
    )
    figure.savefig(path, dpi=110)


def main() -> None:
    from benchmarks.runner import installed
    from eval.conditions import command_line, machine, now, versions

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips", nargs="+", type=Path, help="clips, or folders of clips")
    parser.add_argument("--windows", type=int, nargs="+", default=list(WINDOWS), metavar="ODD")
    parser.add_argument("--frames", type=int, default=FRAMES, metavar="N")
    parser.add_argument("--sigma", type=float, default=SIGMA)
    parser.add_argument("--patch", type=int, default=PATCH, metavar="ODD")
    parser.add_argument("--flows", nargs="+", choices=list(FLOWS), default=list(FLOWS))
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--plot", type=Path, metavar="PNG")
    parser.add_argument("--document", type=Path, metavar="MD", help="put the tables into this file")
    args = parser.parse_args()
    clips = [
        c for path in args.clips for c in (sorted(path.iterdir()) if path.is_dir() else [path])
    ]
    windows = sorted({1, *args.windows})
    found = measure(clips, windows, args.frames, args.sigma, args.flows, args.patch)
    report = {
        "date": now(),
        "machine": machine(),
        "versions": versions() | installed([OPENCV]),
        "command": command_line(),
        "frames": args.frames,
        "sigma": args.sigma,
        "patch": args.patch,
        "psnr": found,
        "gain_db": {
            flow: max(mean.values()) - mean[1]
            for flow, mean in ((flow, means(by_clip)) for flow, by_clip in found.items())
        },
    }
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if args.plot:
        plot(found, args.plot, args.sigma, args.patch)
    if args.document:
        text = args.document.read_text(encoding="utf-8")
        filled = between(text, BEGIN, END, document(report))
        args.document.write_text(filled, encoding="utf-8")
    print(table(found))


if __name__ == "__main__":
    main()
