"""How near each stage of compensation comes to the frame, on real clips.

    python -m benchmarks.compensation CLIPS --model lite --frames 16

Frames are coded in a loop as a stream has them. For every P frame the reference is brought over by

    local     the flow net's motion, coded                     (DCVC-TCM)
    searched  the motion that the encoder took, coded          (motion.refine)
    shifted   that, and the search of both sides round it      (the stage `shifted`)

and compared with the original: the picture itself (PSNR, dB, RGB), and the features that the
extractor makes of pictures (mean squared error over that of no motion, all scales together).
"""

import argparse
import json
import math
import sys
from itertools import islice
from pathlib import Path
from typing import Any

WAYS = ("local", "searched", "shifted")


def main(arguments: list[str] | None = None) -> int:
    import torch

    from codec import models
    from eval.sequences import find_sequences

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips", help="a clip or a folder of them")
    parser.add_argument("--model", default="lite", metavar="NAME|FILE")
    parser.add_argument("--quality", type=int, default=32, metavar="0..63")
    parser.add_argument("--frames", type=int, default=16, metavar="N", help="of each clip")
    parser.add_argument("--effort", default="0", metavar="STEPS[+STEPS]", help="of the encoder")
    parser.add_argument("--json", type=Path, metavar="FILE", help="figures of each clip")
    options = parser.parse_args(arguments)
    codec = models.load(options.model).codec
    figures = {}
    print(f"{'clip':<32}" + "".join(f"{way:>10}" for way in WAYS) + "   dB of the warped frame")
    print(" " * 32 + "".join(f"{way:>10}" for way in WAYS) + "   warped features, of no motion's")
    with torch.no_grad():
        for sequence in find_sequences(options.clips, frames=options.frames):
            one = measure(codec, sequence, options.quality, options.frames, options.effort)
            figures[sequence.name] = one
            line = "".join(f"{one['psnr'].get(way, float('nan')):10.2f}" for way in WAYS)
            print(f"{sequence.name:<32}{line}")
            line = "".join(f"{one['features'].get(way, float('nan')):10.3f}" for way in WAYS)
            print(" " * 32 + line, flush=True)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))
    return 0


def measure(
    codec: Any, sequence: Any, quality: int, frames: int, effort: int | str = 0
) -> dict[str, dict[str, float]]:
    """``psnr`` and ``features`` by way, means over the P frames."""
    import torch

    from codec.effort import Effort, FrameEffort
    from codec.entropy.coders import RateEstimate
    from codec.video.colour import frame_to_rgb
    from codec.video_codec import Following, FrameCoder

    psnr: dict[str, list[float]] = {}
    features: dict[str, list[float]] = {}
    with sequence.open() as reader:
        tries = Effort.of(effort)
        coder = FrameCoder(codec, reader.format.height, reader.format.width, tries)
        pictures = [
            frame_to_rgb(planes, reader.format).clamp(0, 1) for planes in islice(reader, frames)
        ]
        for number, frame in enumerate(pictures):
            before = coder.state
            level = codec.frame_quality(quality, number)
            following = None
            if number + 1 < len(pictures):
                after = codec.frame_quality(quality, number + 1)
                following = Following(pictures[number + 1], after)
            coder.code(frame, number == 0, level, RateEstimate(), following)
            if number == 0:
                continue
            padded = codec.pad(frame)
            quality_of = torch.tensor([float(level)])
            shown = FrameEffort(tries, frame.shape[-2:])
            found = ways(codec, padded, before, quality_of, coder.size, shown)
            wanted = codec.inter.compensation.extract(padded, None)
            still = _error(codec.inter.compensation.extract(before.frame, None), wanted)
            for way, (picture, contexts) in found.items():
                psnr.setdefault(way, []).append(-10 * math.log10(_error([picture], [padded])))
                features.setdefault(way, []).append(_error(contexts, wanted) / still)
    return {
        "psnr": {way: sum(values) / len(values) for way, values in psnr.items()},
        "features": {way: sum(values) / len(values) for way, values in features.items()},
    }


def ways(
    codec: Any, frame: Any, state: Any, quality: Any, size: tuple[int, int], effort: Any = None
) -> dict:
    """The reference's picture and features brought over, by way.

    Features are those of pictures at each scale, so that they can be compared with the frame's own.
    """
    from codec.entropy.coders import RateEstimate
    from codec.flow import to_full_size
    from codec.layers import warp
    from eval.explain import followed, found_by
    from kernels import gather

    inter = codec.inter
    stages, top = inter.compensation, inter.flow.top
    references = stages.extract(state.frame, None)
    estimated = inter.flow(frame, state.frame)
    coded = RateEstimate(), inter.prior, quality, size
    by_net, _ = inter.motion(estimated, *coded, state.motion_past)
    coder = RateEstimate()
    _, taken, _ = inter.code_motion(frame, state, coder, quality, size, effort=effort)
    out = {}
    for way, flow in (("local", by_net), ("searched", taken)):
        picture = warp(state.frame, to_full_size(flow, top))
        out[way] = picture, stages.local(references, stages.flows(flow))
    if not stages.shifted:
        return out
    own = stages.extract(state.frame, state.feature)  # what the stage searches in a stream
    flows, full = stages.flows(taken), to_full_size(taken, top)
    local = stages.local(own, flows)
    picture, contexts = out["searched"][0], list(out["searched"][1])
    for name, stage in stages.shifted.items():
        scale = int(name)
        around = flows[scale][:, None]
        weights, offsets = stage.matches(local[scale], own[scale][:, None], around)
        value = references[scale][:, None]
        contexts[scale] = gather(value, weights, offsets, heads=stage.config.heads)
        picture = followed(state.frame, full, found_by(weights, offsets, around).shift)
    return {**out, "shifted": (picture, contexts)}


def _error(found: list, wanted: list) -> float:
    """Mean squared error, summed over the scales."""
    return max(
        sum(float((a - b).square().mean()) for a, b in zip(found, wanted, strict=True)), 1e-10
    )


if __name__ == "__main__":
    sys.exit(main())
