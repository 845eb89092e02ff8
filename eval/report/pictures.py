"""The frames of the viewer: one frame a sequence, original and decoded by every codec.

Result files hold no pictures. They are made again through the code that measured: a real file of
the frames up to the one shown (all where a codec looks ahead), decoded from that file. So it is
the frame of the whole file; its PSNR is held against the one in the results.
"""

from __future__ import annotations

import hashlib
import io
import json
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from codec.errors import LgmcError, VideoError
from eval.conditions import code_digest
from eval.metrics import frame_metrics, rgb8
from eval.report.folder import is_outside, is_under_test
from eval.report.match import matched, middle_point, reference_of
from eval.results import RdPoint, RdResults, ResultsError
from eval.sequences import Sequence as Clip
from eval.sequences import clip_paths, read_sequence

if TYPE_CHECKING:
    from codec.video.format import Frame
    from eval.codec_under_test import CodecUnderTest

TOLERANCE = 0.02
"""dB between a frame's PSNR now and in the results above which the page says they differ."""
MAKERS = ("codec", "kernels", "eval.anchors", "eval.learned", "eval.metrics")
"""Modules whose sources decide a picture and its figures."""
FIGURES = ("psnr_rgb", "psnr_y")


@dataclass(frozen=True)
class Picture:
    """One frame as 8-bit RGB.

    codec, level: None for the original. rgb: [H, W, 3] uint8. bpp, psnr: of the whole sequence, in
    the results. figures: of this frame: type ("I", "P"), bytes, psnr_rgb and psnr_y in dB. remark:
    a doubt, or None.
    """

    codec: str | None
    level: int | None
    rgb: np.ndarray
    bpp: float | None = None
    psnr: float | None = None
    figures: dict[str, Any] | None = None
    remark: str | None = None


@dataclass(frozen=True)
class FrameSet:
    """The pictures of one frame (its number from 0) of one sequence, the original first."""

    sequence: str
    frame: int
    reference: str
    pictures: list[Picture]


class Codecs:
    """The codecs behind the results, made when the first picture needs them.

    models: names or weight files to look for a model's weights in, besides its own name.
    """

    def __init__(self, models: Iterable[str] = (), device: str = "cpu") -> None:
        self._models = list(models)
        self._device = device
        self._made: dict[str, CodecUnderTest | LgmcError] = {}

    def of(self, results: RdResults) -> CodecUnderTest:
        """The codec that made ``results``. Raises LgmcError where it is not to be had here."""
        if results.codec not in self._made:
            try:
                self._made[results.codec] = self._make(results)
            except LgmcError as exc:
                self._made[results.codec] = exc
        made = self._made[results.codec]
        if isinstance(made, LgmcError):
            raise made
        return made

    def _make(self, results: RdResults) -> CodecUnderTest:
        identity, period = results.conditions.codec, results.conditions.intra_period
        if not is_under_test(results):
            from eval.anchors import make_anchor

            return make_anchor(identity.get("anchor", results.codec), period)
        if is_outside(results):
            raise ResultsError(
                f"{results.codec} is a codec from outside, which a report does not run"
            )
        from eval.learned import Model

        tried = [identity.get("model", results.codec), *self._models]
        effort = identity.get("effort", 0)
        last: LgmcError | None = None
        for name in dict.fromkeys(tried):
            try:
                model = Model(name, period, self._device, effort=effort)
            except LgmcError as exc:
                last = exc
                continue
            if model.identity()["weights"] == identity.get("weights"):
                return model
        raise last or ResultsError(
            f"the weights of {results.codec} here are not those that were measured: name their "
            "file with --model"
        )


def find_clips(
    results: Sequence[RdResults], path: str | Path, reader_options: dict[str, Any] | None = None
) -> tuple[dict[str, Clip], list[str]]:
    """(clip by sequence name, problems): what of the measured sequences lies at ``path``.

    A clip is known by its frames' digest, whatever its name. Raises VideoError where there is
    nothing at ``path``.
    """
    measured = [one for one in results if one.conditions is not None]
    wanted = {info.name: info.digest for one in measured for info in one.sequences}
    limits = {one.conditions.frames for one in measured}
    found: dict[str, Clip] = {}  # by digest
    problems = []
    for place in clip_paths(Path(path)):
        try:
            for limit in limits:
                clip = read_sequence(place, place.stem, limit, **(reader_options or {}))
                found[clip.digest] = clip
        except LgmcError as exc:
            problems.append(f"no pictures of {place.name}: {exc}")
    problems += [
        f"no pictures of {name}: no clip that was given has the measured frames"
        for name, digest in wanted.items()
        if digest not in found
    ]
    return {n: found[digest] for n, digest in wanted.items() if digest in found}, problems


def make_pictures(
    results: Sequence[RdResults],
    clips: dict[str, Clip],
    codecs: Codecs,
    *,
    cache: str | Path,
    frame: int = 8,
    quality: int | None = None,
    crop: Callable[[np.ndarray], np.ndarray] = lambda rgb: rgb,
    report: Callable[[str], None] = lambda line: None,
) -> tuple[list[FrameSet], list[str]]:
    """(a set for every clip, problems): the same frame of every codec at matched rate.

    frame: its number from 0, the last of a shorter clip. quality: the level of the reference codec
    (the first model) that the others are matched to, its middle point when None. cache: the folder
    where pictures are kept. crop: applied to every picture once it is measured. report: given a
    line per picture that is made.
    """
    sets, problems = [], []
    for name, clip in clips.items():
        try:
            reference, point = _reference(results, name, clip, quality)
        except ResultsError as exc:
            problems.append(f"no pictures of {name}: {exc}")
            continue
        number = min(frame, clip.frames - 1)
        with replace(clip, frames=number + 1).open() as reader:
            original = _picked(reader, number, number + 1)
        pictures = [Picture(None, None, crop(_rgb(original, clip)))]
        for codec, chosen in matched(results, name, reference, point).items():
            one = next(other for other in results if other.codec == codec)
            try:
                picture = _picture(one, chosen, clip, number, original, codecs, cache, report)
            except LgmcError as exc:
                problems.append(f"no picture of {codec} on {name}: {exc}")
                continue
            pictures.append(replace(picture, rgb=crop(picture.rgb)))
        sets.append(FrameSet(name, number, reference.codec, pictures))
    return sets, problems


def _reference(
    results: Sequence[RdResults], name: str, clip: Clip, quality: int | None
) -> tuple[RdResults, RdPoint]:
    same = [one for one in results if (info := one.sequence(name)) and info.digest == clip.digest]
    reference = reference_of(same, name)
    if reference is None:
        raise ResultsError("no codec has a point of it")
    points = reference.points_of(name)
    if quality is None:
        return reference, middle_point(points)
    for point in points:
        if point.level == quality:
            return reference, point
    levels = ", ".join(str(level) for level in sorted(point.level for point in points))
    raise ResultsError(f"{reference.codec} was measured at {levels}, not at {quality}")


def _picture(
    results: RdResults,
    point: RdPoint,
    clip: Clip,
    number: int,
    original: Frame,
    codecs: Codecs,
    cache: str | Path,
    report: Callable[[str], None],
) -> Picture:
    """The decoded frame from the cache, or made and kept there."""
    path = Path(cache) / f"{_key(results, point, clip, number)}.png"
    kept = _load(path)
    if kept is None:
        report(f"frame {number} of {clip.name}, {results.codec} at {point.level}")
        codec = codecs.of(results)
        decoded, figures = _decode(codec, clip, point.level, number)
        metrics = frame_metrics(original, decoded, clip.format)
        figures["identity"] = codec.identity()
        figures.update({name: metrics[name] for name in FIGURES})
        kept = _rgb(decoded, clip), figures
        _store(path, *kept)
    rgb, figures = kept
    psnr = point.metrics.get("psnr_rgb")
    remark = _remark(figures, point, number, results.conditions.codec)
    return Picture(results.codec, point.level, rgb, point.bpp, psnr, figures, remark)


def _key(results: RdResults, point: RdPoint, clip: Clip, number: int) -> str:
    """The name of a cached picture: everything that decides it."""
    decides: dict[str, Any] = {
        "input": clip.digest,
        "codec": results.conditions.codec,
        "level": point.level,
        "intra_period": results.conditions.intra_period,
        "frame": number,
        "made_by": code_digest(*MAKERS, without=("training",)),
    }
    if not is_under_test(results):
        from codec.video.ffmpeg import find_ffmpeg
        from eval.anchors.program import ffmpeg_version

        decides["ffmpeg"] = ffmpeg_version(str(find_ffmpeg()))
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def _decode(
    codec: CodecUnderTest, clip: Clip, level: int, number: int
) -> tuple[Frame, dict[str, Any]]:
    """Frame ``number`` out of a real file, with its type and bytes.

    The file holds the frames on which it depends, as far as the codec says.
    """
    needed = clip.frames if codec.delay is None else number + 1 + codec.delay
    begin = replace(clip, frames=min(needed, clip.frames))
    with tempfile.TemporaryDirectory(prefix="lgmc-report-") as folder:
        target = Path(folder) / f"frames{codec.extension}"
        encoded = codec.encode(begin, level, target)
        decoded = _picked(codec.decode(target, begin), number, begin.frames)
    figures = {
        "type": encoded.frame_types[number] if encoded.frame_types else None,
        "bytes": encoded.frame_bytes[number] if encoded.frame_bytes else None,
    }
    return decoded, figures


def _picked(frames: Iterable[Frame], number: int, expected: int) -> Frame:
    """Frame ``number`` of so many, which are all counted."""
    count, picked = 0, ()
    for frame in frames:
        if count == number:
            picked = tuple(np.array(plane) for plane in frame)
        count += 1
    if count != expected:
        raise VideoError(f"{count} frames came back where {expected} were wanted")
    return picked


def _rgb(frame: Frame, clip: Clip) -> np.ndarray:
    return np.ascontiguousarray(rgb8(frame, clip.format).transpose(1, 2, 0))  # [H, W, 3]


def _remark(
    figures: dict[str, Any], point: RdPoint, number: int, measured: dict[str, str]
) -> str | None:
    """What to say where the picture is not the one that was measured."""
    then = point.per_frame.metrics.get("psnr_rgb", [])
    now = figures["psnr_rgb"]
    if number >= len(then) or then[number] is None or abs(then[number] - now) <= TOLERANCE:
        return None
    identity = figures["identity"]
    changed = [name for name in identity if identity[name] != measured.get(name)]
    return f"made anew, the frame has {now:.2f} dB, in the results {then[number]:.2f} dB: " + (
        f"since then changed: {', '.join(changed)}"
        if changed
        else "the machine computes else, or the encoder looked further than to this frame"
    )


def _load(path: Path) -> tuple[np.ndarray, dict[str, Any]] | None:
    """A cached picture [H, W, 3] uint8 and its figures; None where absent or damaged."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            figures = json.loads(image.text["lgmc"])
            rgb = np.array(image.convert("RGB"))
    except (OSError, KeyError, ValueError, AttributeError, SyntaxError):
        return None
    known = {"type", "bytes", "identity", *FIGURES}
    return (rgb, figures) if isinstance(figures, dict) and known <= set(figures) else None


def _store(path: Path, rgb: np.ndarray, figures: dict[str, Any]) -> None:
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    about = PngInfo()
    about.add_text("lgmc", json.dumps(figures))
    data = io.BytesIO()
    Image.fromarray(rgb).save(data, "PNG", pnginfo=about, compress_level=3)
    temporary = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(data.getvalue())
        temporary.replace(path)
    except OSError as exc:
        reason = exc.strerror or exc
        raise ResultsError(f"{path} cannot be written ({reason}): free or allow it") from exc
