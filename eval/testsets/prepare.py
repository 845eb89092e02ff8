"""Frames as PNG by a recipe with a name: how Y'CbCr became RGB moves PSNR by more than 1 dB."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from codec.errors import ConfigError, VideoError
from eval.testsets import find_sequence
from eval.testsets.prepared import FILE, Prepared, PreparedSequence, read_prepared

RECIPES = {
    "tcm-bt601": "FFmpeg's own conversion of untagged planes, BT.601, as the README of DCVC-TCM",
    "bt709": "BT.709 through codec.video.colour, 8-bit RGB rounded to nearest",
}
"""What a recipe's name means."""


def prepare(
    source: str | Path,
    out: str | Path,
    recipe: str,
    *,
    frames: int | None = None,
    reader_options: dict[str, Any] | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> Prepared:
    """Make a folder of PNG frames in ``out`` of every clip at ``source``.

    source: a video file or a folder of them. recipe: a key of ``RECIPES``. frames: the first so
    many. reader_options: how raw files are read; what the name of a test sequence tells (size,
    rate, format) need not be given. prepared.json in ``out`` keeps recipe, rates and sources, for
    ``lgmc eval``. Clips that are there already, by the same recipe and length, are left as they
    are. Raises ConfigError for another recipe than the folder's, VideoError for what fails.
    """
    if recipe not in RECIPES:
        raise ConfigError(f"there is no recipe {recipe!r}: choose from {', '.join(RECIPES)}")
    from eval.sequences import find_clips

    out = Path(out)
    prepared = read_prepared(out) or Prepared(recipe=recipe, ffmpeg=_version(recipe))
    if prepared.recipe != recipe:
        raise ConfigError(f"{out} holds frames by {prepared.recipe}: choose another folder")
    out.mkdir(parents=True, exist_ok=True)
    for clip, name in find_clips(Path(source)):
        done = prepared.sequences.get(name)
        if done is not None and (out / name).is_dir() and done.limit == frames:
            report(f"{name}: there already, {done.frames} frames")
            continue
        options = {**_known(clip), **(reader_options or {})}
        prepared.sequences[name] = _prepare(clip, out / name, recipe, frames, options)
        _write(prepared, out)  # after each: a run that is stopped goes on where it was
        report(f"{name}: {prepared.sequences[name].frames} frames")
    return prepared


def _known(clip: Path) -> dict[str, Any]:
    """How a raw file of a test sequence is read."""
    found = find_sequence(clip.stem)
    if found is None or clip.suffix.lower() != ".yuv":
        return {}
    test_set, sequence = found
    depth = "10le" if test_set.bit_depth == 10 else ""
    size = (sequence.width, sequence.height)
    return {"size": size, "fps": sequence.fps, "pix_fmt": f"yuv{test_set.chroma}p{depth}"}


def _prepare(
    clip: Path, target: Path, recipe: str, frames: int | None, options: dict[str, Any]
) -> PreparedSequence:
    from codec.video.reader import open_reader

    if target.exists():
        raise VideoError(f"{target} exists already: take it away or choose another folder")
    matrix = {} if recipe == "tcm-bt601" else {"matrix": "bt709"}
    with open_reader(clip, frames=frames, **{**options, **matrix}) as reader:
        count = _by_ffmpeg(reader, target) if recipe == "tcm-bt601" else _by_ours(reader, target)
        fps = str(reader.format.fps)
    found = find_sequence(clip.stem if clip.is_file() else clip.name)
    test_set = found[0].name if found else None
    return PreparedSequence(
        fps=fps, frames=count, limit=frames, source=clip.name, test_set=test_set
    )


def _by_ours(reader, target: Path) -> int:
    from codec.video.writer import open_writer

    with open_writer(f"{target}/", reader.format) as writer:
        for frame in reader:
            writer.write(frame)
    return writer.frames_written


def _by_ffmpeg(reader, target: Path) -> int:
    """The command of DCVC-TCM's README, raw planes on stdin; the folder appears whole or not."""
    from codec.video.ffmpeg import find_ffmpeg
    from eval.anchors.pixels import raw_input
    from eval.anchors.program import QUIET, Runner

    if reader.format.chroma == "rgb":
        raise VideoError(f"{reader.name} is RGB already: there is nothing to convert")
    source = [
        word for name, value in raw_input(reader.format).items() for word in (f"-{name}", value)
    ]
    count = 0

    def counted() -> Iterator:
        nonlocal count
        for frame in reader:
            count += 1
            yield frame

    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
        made = Path(folder) / "frames"
        made.mkdir()
        words = [find_ffmpeg(), *QUIET, *source, "-i", "pipe:0", "-pix_fmt", "rgb24"]
        words += ["-fps_mode", "passthrough", "-f", "image2", str(made / "im%05d.png")]
        Runner("FFmpeg").feed(words, counted(), f"converting {target.name}")
        made.rename(target)
    return count


def _version(recipe: str) -> str | None:
    if recipe != "tcm-bt601":
        return None
    from codec.video.ffmpeg import find_ffmpeg
    from eval.anchors.program import ffmpeg_version

    return ffmpeg_version(find_ffmpeg())


def _write(prepared: Prepared, out: Path) -> None:
    from eval.results import write_text

    write_text(out / FILE, json.dumps(prepared.model_dump(mode="json"), indent=1) + "\n")
