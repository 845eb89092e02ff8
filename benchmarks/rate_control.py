"""How well rate control meets a rate, and what it costs in quality, on real clips.

    python -m benchmarks.rate_control CLIPS --rates 400k,1M --json rate_control.json
    python -m benchmarks.rate_control CLIPS --curves

Each clip is encoded at each rate in one pass and in two. PSNR (RGB, dB, mean of frames) is compared
with that of constant quality at the same rate: between the two neighbouring quality indices whose
rates lie round the target, along log(rate). With --json, what is there already is not coded
again; with --document the table is put into docs/rate_control.md.

--curves measures what ``codec/rate/model.py`` starts from: log2 of bits over the quality index.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import statistics
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.kernel_tables import between
from codec.bitstream.packets import frame_packet_bytes
from codec.frame_encoder import RANS_END_BYTES
from codec.rate import RateTarget, bits_per_second

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "rate_control.md"
BEGIN = "<!-- rate control: begin (python -m benchmarks.rate_control --document) -->"
END = "<!-- rate control: end -->"
CURVE_QUALITIES = (12, 24, 36, 48, 60)
CURVE_FRAMES, CURVE_PERIOD = 17, 8
FIXED_BYTES = frame_packet_bytes(RANS_END_BYTES, digests=False)


@dataclass(frozen=True)
class Coded:
    """One clip, encoded once.

    Attributes:
        bitrate: of the whole file, bits a second.
        psnr: RGB, dB, mean of frames.
        qualities: of the frames.
        peak: the fullest the buffer was, of its size; None without one.
        recoded: frames coded again; misses: what the encoder said of its target.
    """

    bitrate: float
    psnr: float
    qualities: list[int]
    peak: float | None
    recoded: int
    misses: list[str]


class Clips:
    """Encodes, and remembers in a JSON file what it encoded."""

    def __init__(self, model: str, frames: int | None, store: Path | None):
        from codec import models

        self.model = models.load(model)
        self.frames = frames
        self._store = store
        digest = self.model.digest.hex()
        self._done: dict[str, Any] = {"model": digest}
        if store is not None and store.exists():
            found = json.loads(store.read_text())
            if found["model"] == digest:
                self._done = found

    def encode(self, clip: Path, quality: int, rate: RateTarget | None = None) -> Coded:
        """One encoding, measured on what the encoder says that a decoder shows."""
        key = f"{clip.name}, {self.frames or 'all'} frames, quality {quality}"
        if rate is not None:
            asked = {name: value for name, value in asdict(rate).items() if value}
            key += f", {json.dumps(asked)}, controller {controller_digest()}"
        if key not in self._done:
            self._done[key] = asdict(self._encode(clip, quality, rate))
            if self._store is not None:
                self._store.write_text(json.dumps(self._done, indent=1))
        return Coded(**self._done[key])

    def _encode(self, clip: Path, quality: int, rate: RateTarget | None) -> Coded:
        from codec.session import encode
        from codec.video import open_reader
        from eval.metrics import psnr_rgb, rgb8

        with tempfile.TemporaryDirectory() as folder:
            recon = Path(folder) / "recon.y4m"
            report = encode(
                clip,
                Path(folder) / "s.lgmc",
                model=self.model,
                quality=quality,
                frames=self.frames,
                rate=rate,
                recon=recon,
                digests=False,
            )
            with open_reader(clip) as one, open_reader(recon) as other:
                psnr = statistics.mean(
                    psnr_rgb(rgb8(a, one.format), rgb8(b, other.format))
                    for b, a in zip(other, one, strict=False)
                )
        outcome = report.outcome
        return Coded(
            8 * report.bytes * report.fps / len(report.frames),
            psnr,
            [frame["quality"] for frame in report.frames],
            outcome and outcome.peak,
            outcome.recoded if outcome else 0,
            list(outcome.misses) if outcome else [],
        )


def controller_digest() -> str:
    """Names the sources of the rate control: other ones are measured anew."""
    digest = hashlib.blake2b(digest_size=4)
    for path in sorted((ROOT / "codec" / "rate").glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def spread(qualities: list[int], period: int, phases: int) -> tuple[float, int]:
    """Standard deviation and range of quality among frames of one kind, over all kinds."""
    kinds: dict[int, list[int]] = {}
    for number, quality in enumerate(qualities):
        since = number % period
        kinds.setdefault(1 + (since - 1) % phases if since else 0, []).append(quality)
    deviations = [q - statistics.mean(one) for one in kinds.values() for q in one]
    deviation = math.sqrt(statistics.mean(d * d for d in deviations))
    return deviation, max(max(one) - min(one) for one in kinds.values())


def constant_psnr(clips: Clips, clip: Path, bitrate: float, guess: int) -> float:
    """PSNR that constant quality has at a rate, along the line of its two nearest indices."""
    quality = min(max(guess, 0), 62)
    while True:
        low, high = clips.encode(clip, quality), clips.encode(clip, quality + 1)
        if low.bitrate > bitrate and quality > 0:
            quality -= 1
        elif high.bitrate < bitrate and quality < 62:
            quality += 1
        else:
            break
    position = math.log(bitrate / low.bitrate) / math.log(high.bitrate / low.bitrate)
    return low.psnr + position * (high.psnr - low.psnr)


def rows(clips: Clips, paths: Iterable[Path], rates: list[float]) -> Iterable[list[str]]:
    """The lines of the table, as they are measured."""
    pattern = clips.model.codec.config.pattern
    for path in paths:
        for rate in rates:
            for two_pass in (False, True):
                target = RateTarget(bitrate=rate, two_pass=two_pass)
                coded = clips.encode(path, 32, target)
                deviation, reach = spread(coded.qualities, 32, len(pattern.inter))
                guess = round(statistics.mean(coded.qualities))
                psnr = constant_psnr(clips, path, coded.bitrate, guess)
                yield [
                    path.stem.split("_")[0],
                    f"{rate / 1000:.0f}",
                    "two" if two_pass else "one",
                    f"{coded.bitrate / 1000:.1f}",
                    f"{100 * (coded.bitrate / rate - 1):+.1f} %",
                    "none" if coded.peak is None else f"{100 * coded.peak:.0f} %",
                    str(coded.recoded),
                    f"{deviation:.1f}",
                    str(reach),
                    f"{coded.psnr:.2f}",
                    f"{coded.psnr - psnr:+.2f}",
                ]


HEAD = [
    "clip",
    "target, kbit/s",
    "passes",
    "reached",
    "off by",
    "fullest buffer",
    "coded again",
    "quality, deviation",
    "quality, range",
    "PSNR RGB, dB",
    "against constant quality",
]


def curves(clips: Clips, paths: Iterable[Path]) -> list[str]:
    """Slope, bend and start of I and P frames by least squares, an offset for each clip and kind.

    The lowest indices are left out: there the offsets of the pattern vanish, and what a P frame
    takes is what its reference lacked.
    """
    import numpy as np

    from codec.session import encode
    from codec.video import open_reader

    phases = len(clips.model.codec.config.pattern.inter)
    found: dict[str, list[tuple[tuple, int, float]]] = {"I": [], "P": []}
    for path in paths:
        with open_reader(path) as reader:
            pixels = reader.format.width * reader.format.height
        for quality in CURVE_QUALITIES:
            with tempfile.TemporaryDirectory() as folder:
                report = encode(
                    path,
                    Path(folder) / "s.lgmc",
                    model=clips.model,
                    quality=quality,
                    frames=CURVE_FRAMES,
                    intra_period=CURVE_PERIOD,
                    digests=False,
                )
            for frame in report.frames:
                phase = (frame["index"] % CURVE_PERIOD - 1) % phases
                kind = (path.name, phase if frame["type"] == "P" else -1)
                bits = math.log2(8 * (frame["bytes"] - FIXED_BYTES) / pixels)
                found[frame["type"]].append((kind, frame["quality"], bits))
    lines = []
    for name, points in found.items():
        offsets = {kind: n for n, kind in enumerate(dict.fromkeys(p[0] for p in points))}
        system = np.zeros((len(points), len(offsets) + 2))
        for row, (kind, level, _) in enumerate(points):
            system[row, offsets[kind]] = 1
            system[row, -2:] = level, -level * level / 2
        bits = np.array([p[2] for p in points])
        solution = np.linalg.lstsq(system, bits, rcond=None)[0]
        error = math.sqrt(np.mean((system @ solution - bits) ** 2))
        *starts, slope, bend = solution
        lines.append(
            f"{name}: start {np.mean(starts):.2f} ({min(starts):.2f} .. {max(starts):.2f}), "
            f"slope {slope:.4f}, bend {bend:.5f}, rms error {error:.2f}, all log2"
        )
    return lines


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips", nargs="+", type=Path, metavar="CLIP")
    parser.add_argument("--model", default="lite", metavar="NAME|FILE")
    parser.add_argument("--rates", default="400k,1M", help="bits a second, default 400k,1M")
    parser.add_argument("--frames", type=int, metavar="N", help="of each clip, default all")
    parser.add_argument("--json", type=Path, metavar="FILE", help="what was encoded so far")
    parser.add_argument("--curves", action="store_true", help="measure the controller's prior")
    parser.add_argument("--document", action="store_true", help=f"put the table into {PAGE.name}")
    options = parser.parse_args(arguments)
    clips = Clips(options.model, options.frames, options.json)
    if options.curves:
        print("\n".join(curves(clips, options.clips)))
        return 0
    lines = ["| " + " | ".join(HEAD) + " |", "|" + "---|" * len(HEAD)]
    rates = [bits_per_second(rate) for rate in options.rates.split(",")]
    print("\n".join(lines), flush=True)
    for row in rows(clips, options.clips, rates):
        lines.append("| " + " | ".join(row) + " |")
        print(lines[-1], flush=True)
    if options.document:
        PAGE.write_text(between(PAGE.read_text(), BEGIN, END, "\n".join(lines)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
