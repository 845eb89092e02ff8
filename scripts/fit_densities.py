"""Fit the shape of a model's densities to the symbols that it codes: no weight but the priors'.

python scripts/fit_densities.py MODEL -o fitted.safetensors --data clips [--frames 8]
    [--qualities 0 16 32 48 63] [--effort 20+10] [--held-out 4]

MODEL: a name or a model file; where its densities are Gaussians the result has mixtures. Every
quality counts alike, whatever bits it takes. What the fit is worth is told on the last clips, which
it does not see.
"""

import argparse
from itertools import pairwise
from pathlib import Path

from torch import Tensor

from codec.effort import Effort
from codec.models import export, load
from codec.training.density_fit import Counted, bits, fit, with_mixtures
from codec.video.pictures import first_pictures
from codec.video_codec import Following, FrameCoder, VideoCodec


def counted(codec: VideoCodec, pictures: list[Tensor], quality: int, effort: Effort) -> dict:
    """Counts by part of all pictures but the last, which is only looked ahead to.

    The first one is an I frame.
    """
    counter = Counted()
    coder = FrameCoder(codec, *pictures[0].shape[-2:], effort)
    for number, (picture, after) in enumerate(pairwise(pictures)):
        following = Following(after, codec.frame_quality(quality, number + 1))
        coder.code(picture, number == 0, codec.frame_quality(quality, number), counter, following)
    return counter.counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder of video clips")
    parser.add_argument("--frames", type=int, default=8, help="of each clip, 2 or more")
    parser.add_argument("--qualities", type=int, nargs="+", default=[0, 16, 32, 48, 63])
    parser.add_argument("--effort", type=Effort.of, default=Effort())
    parser.add_argument("--held-out", type=int, default=4, help="clips that the fit is told on")
    options = parser.parse_args()

    model = load(options.model)
    clips = sorted(path for path in options.data.iterdir() if path.is_file())
    if len(clips) <= options.held_out:
        parser.error(f"{options.data}: {len(clips)} clips; more than --held-out are needed")
    seen: list[tuple[bool, dict]] = []
    for number, clip in enumerate(clips):
        held_out = number >= len(clips) - options.held_out
        pictures = first_pictures(clip, options.frames + 1)
        if len(pictures) < 3:
            parser.error(f"{clip}: an I and a P frame to count, and one more, are needed")
        for quality in options.qualities:
            seen.append((held_out, counted(model.codec, pictures, quality, options.effort)))
        print(f"{number + 1}/{len(clips)} {clip.name}", flush=True)

    codec = with_mixtures(model.codec)
    for name, parts in (("intra", ("intra",)), ("inter", ("motion", "residual"))):
        prior, before = getattr(codec, name).prior, getattr(model.codec, name).prior
        learned = [sum(found[part] for part in parts) for held, found in seen if not held]
        fit(prior, learned)
        rounded = [[f"{value:.2f}" for value in row] for row in prior.model.shape.tolist()]
        print(f"{name}: weight, narrow, wide {rounded}")
        for part in parts:
            told = [found[part] for held, found in seen if held]
            changes = [float(bits(prior, each) / bits(before, each)) - 1 for each in told]
            print(f"  {part}: {100 * sum(changes) / len(changes):+.2f} % bits on clips held out")
    card = {key: value for key, value in model.card.items() if key != "results"}
    card["densities"] = {
        "clips": len(clips) - options.held_out,
        "frames": options.frames,
        "qualities": options.qualities,
        "effort": str(options.effort),
        "from": model.digest.hex(),
    }
    print(f"{options.out}: weights {export(codec, options.out, card).hex()}")


if __name__ == "__main__":
    main()
