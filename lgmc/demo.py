"""Show a whole round trip: a clip, a real bitstream, the clip again.

Without CLIP it makes one of photographs that move. It encodes it, decodes the stream in a new
process from that file alone, and checks that every picture is the encoder's, byte for byte.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from codec.errors import LgmcError
from lgmc.arguments import add_machine, apply_machine, integer
from lgmc.neighbours import OURS
from lgmc.progress import Progress
from lgmc.wording import bits_per_pixel, count, speed

KIND, WIDTH, HEIGHT, FRAMES = "layers", 416, 240, 48
COMPARED_BYTES = 1 << 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("clip", metavar="CLIP", nargs="?", help="a video of yours, instead")
    parser.add_argument("--model", default="lite", metavar="NAME|FILE", help="see `lgmc models`")
    parser.add_argument("--quality", type=integer(0, 63), default=32, metavar="0..63")
    parser.add_argument(
        "--frames", type=integer(1), default=FRAMES, metavar="N", help=f"default {FRAMES}"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("lgmc-demo"), metavar="DIR", help="default lgmc-demo"
    )
    add_machine(parser)


def run(args: argparse.Namespace) -> int:
    from codec.video.target import check_not_itself

    apply_machine(args)
    args.out.mkdir(parents=True, exist_ok=True)
    stream, recon, decoded = (args.out / n for n in ("clip.lgmc", "recon.y4m", "decoded.y4m"))
    if args.clip:
        for path in (stream, recon, decoded):
            check_not_itself(args.clip, path, "the demo's folder, --out")
    original = args.clip or _make_clip(args.out / "original.y4m", args.frames)
    try:
        encoded = _encode(original, stream, recon, args)
        seconds = _decode_elsewhere(stream, decoded, args)
        _check_identical(recon, decoded)
    finally:
        recon.unlink(missing_ok=True)
    frames = len(encoded.frames)
    print(f"decoded  {decoded}, {speed(frames, seconds)}, by a new process from that file alone")
    print("checked  every frame is the encoder's own, byte for byte")
    print(f"quality  {_describe_psnr(original, decoded, frames)}")
    print(f"\nto watch it:        ffplay {decoded}")
    print(f"to look inside:     lgmc inspect {stream}")
    print("to try your own:    lgmc encode IN.mp4 OUT.lgmc && lgmc decode OUT.lgmc OUT.mp4")
    return 0


def _make_clip(target: Path, frames: int) -> str:
    from codec.video.synthetic import write_synthetic

    length = count(frames, "frame")
    print(f"clip     {target}, {length} of {WIDTH}x{HEIGHT}: photographs that move")
    write_synthetic(KIND, target, WIDTH, HEIGHT, frames)
    return str(target)


def _encode(original: str, stream: Path, recon: Path, args: argparse.Namespace):
    from codec.session import encode

    with Progress("encode") as progress:
        report = encode(
            original,
            str(stream),
            model=args.model,
            quality=args.quality,
            frames=args.frames,
            recon=str(recon),
            device=args.device,
            progress=progress,
        )
    frames = len(report.frames)
    print(
        f"encoded  {stream}, {report.bytes:,} bytes for {count(frames, 'frame')} of "
        f"{report.width}x{report.height}, "
        f"{bits_per_pixel(report.bytes, frames, report.width, report.height)}, "
        f"{speed(frames, report.seconds)} (model {args.model}, quality {args.quality})"
    )
    return report


def _decode_elsewhere(stream: Path, decoded: Path, args: argparse.Namespace) -> float:
    """Decode in a new process, which shares nothing with us but the file. Returns its seconds."""
    command = [sys.executable, "-m", "lgmc", "decode", str(stream), str(decoded)]
    command += ["--verify", "--json", "--device", args.device]
    if args.threads is not None:
        command += ["--threads", str(args.threads)]
    if Path(args.model).exists():
        command += ["--model", args.model]
    paths = [str(OURS), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=environment, check=False
    )
    if done.returncode:
        raise LgmcError(f"the decoding process failed on {stream} (exit code {done.returncode})")
    return json.loads(done.stdout)["seconds"]


def _check_identical(recon: Path, decoded: Path) -> None:
    with open(recon, "rb") as ours, open(decoded, "rb") as theirs:
        while True:
            part = ours.read(COMPARED_BYTES)
            if part != theirs.read(COMPARED_BYTES):
                raise LgmcError(
                    f"{decoded} is not what the encoder saw; this is a fault of lgmc, please "
                    "report it with the output of `lgmc --version`"
                )
            if not part:
                return


def _describe_psnr(original: str, decoded: Path, frames: int) -> str:
    """Mean PSNR over the frames, plane by plane."""
    from codec.video import convert_frame, open_reader
    from eval.metrics import psnr_plane

    sums = [0.0] * 3
    with open_reader(original, frames=frames) as one, open_reader(str(decoded)) as other:
        for reference, picture in zip(one, other, strict=True):
            # y4m has no RGB: pictures are measured as they lie in the decoded file.
            planes = zip(convert_frame(reference, one.format, other.format), picture, strict=True)
            for i, (a, b) in enumerate(planes):
                sums[i] += psnr_plane(a, b, other.format.bit_depth)
    means = ", ".join(
        f"{name} {total / frames:.2f} dB" for name, total in zip("YUV", sums, strict=True)
    )
    return f"PSNR {means} (mean over the frames)"
