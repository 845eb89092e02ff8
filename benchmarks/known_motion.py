"""What models make of motion that is known: a pan, a zoom, and a leap beyond a flow net's reach.

    python -m benchmarks.known_motion MODEL MODEL... --out FOLDER

Photographs are moved in clips of 832x480 (:mod:`codec.video.synthetic`); each model encodes them to
real streams at five rates. Printed is the BD-rate of every other model against the first one, clip
by clip. In ``leap`` an object moves by 67 to 75 pixels a frame.
"""

import argparse
import sys
from pathlib import Path

KINDS = ("pan", "zoom", "leap")
SIZE = (832, 480)


def make_clips(folder: Path, frames: int) -> Path:
    """The clips as y4m, made where they are not there yet."""
    from codec.video.synthetic import write_synthetic

    folder.mkdir(parents=True, exist_ok=True)
    for kind in KINDS:
        path = folder / f"{kind}_{SIZE[0]}x{SIZE[1]}_{frames}.y4m"
        if not path.exists():
            write_synthetic(kind, path, *SIZE, frames)
    return folder


def main(arguments: list[str] | None = None) -> int:
    from eval.compare import compare
    from eval.run import evaluate

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", metavar="MODEL", help="names or files, anchor first")
    parser.add_argument("--frames", type=int, default=17, help="of each clip, default 17")
    parser.add_argument("--out", type=Path, required=True, help="clips and results go here")
    options = parser.parse_args(arguments)
    clips = make_clips(options.out / "clips", options.frames)
    done = evaluate(
        clips,
        models=options.models,
        out=options.out,
        report=lambda line: print(line, file=sys.stderr, flush=True),
    )
    first, *others = done.results
    for other in others:
        comparison = compare(first, other, "psnr_rgb")
        for sequence, delta in comparison.deltas.items():
            said = delta if isinstance(delta, str) else f"{delta.rate_percent:+.2f} %"
            print(f"{other.codec} against {first.codec}, {sequence}: {said}")
    return 1 if done.failures else 0


if __name__ == "__main__":
    sys.exit(main())
