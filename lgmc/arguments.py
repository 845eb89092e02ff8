"""Arguments that several verbs share, with the checks that need no codec."""

from __future__ import annotations

import argparse
from fractions import Fraction
from typing import TYPE_CHECKING

from codec.effort import NO_EFFORT, Effort
from codec.errors import ConfigError

if TYPE_CHECKING:
    from codec.rate import RateTarget

PIX_FMTS = ("yuv420p", "yuv444p", "yuv420p10le", "yuv444p10le")


def integer(low: int, high: int | None = None):
    """An argparse type: a whole number in ``low``..``high``."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
        if value < low or (high is not None and value > high):
            wanted = f"{low} or more" if high is None else f"{low}..{high}"
            raise argparse.ArgumentTypeError(f"{value} is not {wanted}")
        return value

    return parse


def effort(text: str) -> Effort:
    """An argparse type: ``20`` or ``20+10``."""
    try:
        return Effort.of(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def size(text: str) -> tuple[int, int]:
    """An argparse type: ``416x240`` -> (416, 240)."""
    try:
        width, height = (int(part) for part in text.lower().split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 416x240") from None
    if width < 1 or height < 1:
        raise argparse.ArgumentTypeError(f"{text!r} has a side below 1")
    return width, height


def rate(text: str) -> Fraction:
    """An argparse type: ``25``, ``23.976`` or ``30000/1001`` frames a second."""
    try:
        value = Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a frame rate such as 25 or 30000/1001"
        ) from None
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not above 0")
    return value.limit_denominator(1001) if "." in text else value


def bitrate(text: str) -> float:
    """An argparse type: ``800k``, ``1.5M`` or ``1200000`` bits a second."""
    from codec.rate import bits_per_second

    try:
        return bits_per_second(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def seconds(text: str) -> float:
    """An argparse type: a duration above 0."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds") from None
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} s is not above 0")
    return value


def add_coding(parser: argparse.ArgumentParser) -> None:
    """--quality, --intra-period, --frames."""
    parser.add_argument(
        "--quality",
        type=integer(0, 63),
        default=32,
        metavar="0..63",
        help="quality index: 0 smallest file, 63 best picture (default 32)",
    )
    parser.add_argument(
        "--intra-period",
        type=integer(0, 65535),
        default=32,
        metavar="N",
        help="an I frame every N frames; 0: only the first (default 32)",
    )
    parser.add_argument(
        "--frames", type=integer(1), metavar="N", help="only the first N frames of the input"
    )


def add_effort(parser: argparse.ArgumentParser) -> None:
    """--effort."""
    parser.add_argument(
        "--effort",
        type=effort,
        default=NO_EFFORT,
        metavar="STEPS[+STEPS]",
        help="steps of gradient descent that make each frame's motion cheaper: with 20 a file is "
        "some 5 %% smaller and takes 3 times as long; after a + those that make its residual "
        "cheaper, for which each frame waits for the next: with 20+10 a file is some 15 %% smaller "
        "and takes 25 times as long (default 0)",
    )


def add_rate(parser: argparse.ArgumentParser) -> None:
    """--bitrate, --max-bitrate, --buffer, --two-pass."""
    group = parser.add_argument_group(
        "meeting a bit rate",
        "R is in bits a second, such as 800k or 1.5M. Where it cannot be met, the stream is "
        "whole all the same, a line says by how much, and the exit code is 3.",
    )
    group.add_argument(
        "--bitrate",
        type=bitrate,
        metavar="R",
        help="average of the file; --quality is where the search begins",
    )
    group.add_argument(
        "--max-bitrate",
        type=bitrate,
        metavar="R",
        help="drain the buffer at this rate (default --bitrate, and no buffer in two passes); "
        "without --bitrate, --quality is kept unless the buffer forbids",
    )
    group.add_argument(
        "--buffer",
        type=seconds,
        metavar="SECONDS",
        help="size of the buffer that no frame may overflow (default 1)",
    )
    group.add_argument(
        "--two-pass",
        action="store_true",
        help="code the video twice, for an even quality at the average --bitrate",
    )


def rate_target(args: argparse.Namespace) -> RateTarget | None:
    """What ``add_rate`` asks for, None where that is nothing.

    Raises:
        ConfigError: two of its options do not go together.
    """
    from codec.rate import RateTarget

    given = (args.bitrate, args.max_bitrate, args.buffer, args.two_pass)
    return RateTarget(*given) if any(given) else None


def add_reading(parser: argparse.ArgumentParser) -> None:
    """How to read the input: what a raw file does not say, and what to override."""
    group = parser.add_argument_group("reading the input")
    group.add_argument("--size", type=size, metavar="WxH", help="size of a raw .yuv")
    group.add_argument(
        "--fps", type=rate, metavar="F", help="frames a second of a raw .yuv or of images"
    )
    group.add_argument("--pix-fmt", choices=PIX_FMTS, help="pixel format of a raw .yuv")
    group.add_argument(
        "--matrix", choices=("bt601", "bt709"), help="colour matrix, where the input's is not right"
    )
    group.add_argument(
        "--range", choices=("limited", "full"), help="sample range, where the input's is not right"
    )
    group.add_argument(
        "--resample-fps",
        type=rate,
        metavar="F",
        help="bring a video of variable frame rate to F frames a second",
    )


def reader_options(args: argparse.Namespace) -> dict[str, object]:
    """Those of ``add_reading`` that were given, by the names of ``codec.video.open_reader``."""
    names = ("size", "fps", "pix_fmt", "matrix", "range", "resample_fps")
    return {name: getattr(args, name) for name in names if getattr(args, name) is not None}


def add_machine(parser: argparse.ArgumentParser) -> None:
    """--device, --threads."""
    parser.add_argument(
        "--device", default="cpu", metavar="NAME", help="cpu, cuda or cuda:N (default cpu)"
    )
    parser.add_argument(
        "--threads", type=integer(1), metavar="N", help="CPU threads (default: one a core)"
    )


def apply_machine(args: argparse.Namespace, here: bool = True) -> None:
    """Set the threads and check the device; imports torch.

    here: whether it is this machine that will compute. Elsewhere a device has no number: which GPU
    a task gets is not ours to say.
    """
    import torch

    if args.threads is not None:
        torch.set_num_threads(args.threads)
    kind, _, number = args.device.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdigit()):
        raise ConfigError(f"device {args.device!r} is not known; use cpu, cuda or cuda:N")
    if not here and number:
        raise ConfigError(f"on a cluster the device is cpu or cuda, not {args.device}")
    if here and kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise ConfigError(f"there is no device {args.device} here; use --device cpu")
