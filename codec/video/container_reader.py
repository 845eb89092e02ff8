"""Anything that FFmpeg reads, through PyAV: exact time stamps, colour tags, rotation and flips."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from codec.errors import VideoError
from codec.video.format import Frame, VideoFormat
from codec.video.pixel_formats import PlanePlan, is_full_by_habit, plan_for, planes_of
from codec.video.signalling import matrix_of, range_of
from codec.video.source import VideoReader, warn_broken, warn_unheeded
from codec.video.timing import (
    LONGEST_REORDER,
    constant_rate,
    presentation_times,
    resample,
    resampled_count,
    whole_beginning,
)

if TYPE_CHECKING:
    import av

_REORDER = 64  # packets to look at beyond the wanted frames; B frames come out of order
_LIST_DEMUXERS = {"tty", "concat", "hls", "dash", "lavfi", "image2"}  # draw text, open other files


@dataclass(frozen=True)
class _Pose:
    """How a stored frame becomes upright: transposed, then mirrored."""

    transposed: bool = False
    left_right: bool = False
    upside_down: bool = False

    def shown(self, plane: np.ndarray) -> np.ndarray:
        """The plane upright, a view."""
        plane = plane.T if self.transposed else plane
        return plane[:: -1 if self.upside_down else 1, :: -1 if self.left_right else 1]


@dataclass(frozen=True)
class _Clock:
    """What the time stamps of a file's packets say, in seconds."""

    rate: Fraction  # frames per second; the mean where it varies
    constant: bool
    first: Fraction
    last: Fraction
    count: int  # frames
    whole: int | None = None  # frames before the gaps at the end of a file that was cut off
    broken: bool = False  # whether a packet is not whole, so that frames are missing or guessed


def open_container(
    path: Path,
    *,
    matrix: str | None = None,
    range: str | None = None,
    frames: int | None = None,
    resample_fps: Fraction | None = None,
) -> VideoReader:
    """Frames of the first video stream of a file.

    matrix, range: instead of what the stream says. frames: how many are wanted, so that no more
    time stamps are looked at. resample_fps: makes the rate constant, by nearest times; without it
    a variable frame rate is refused. Rotations by quarter turns and mirrorings are applied, as
    ffmpeg does. Raises VideoError.
    """
    name = str(path)
    clock = _read_clock(path, None if resample_fps is not None else frames)
    if resample_fps is None and clock.whole is not None:
        raise VideoError(
            f"{name} lacks frames near its end, it may be cut off: give frames={clock.whole} to "
            "read what stands before, or resample_fps to fill the gaps"
        )
    if resample_fps is None and not clock.constant:
        raise VideoError(
            f"{name} has a variable frame rate (about {float(clock.rate):.3f} frames/s): "
            "give resample_fps to make it constant"
        )
    container, stream = _open(path)
    decoded = _decode(container, stream, name)
    try:
        first = next(decoded, None)
        if first is None:
            raise VideoError(f"{name} holds no frame that can be decoded: check the file")
        plan = plan_for(first.format, name)
        pose = _pose_of(first, name)
        fps = resample_fps or clock.rate
        format = _format_of(first, plan, pose, fps, name, matrix, range)
        if clock.broken:
            warn_broken(name)
        warn_unheeded(name, first.interlaced_frame, stream.sample_aspect_ratio)
    except BaseException:
        container.close()
        raise
    kept: Iterator[av.VideoFrame] = chain((first,), decoded)
    count = clock.count
    if resample_fps is not None:
        last_duration = 1 / clock.rate
        kept = resample(_timed(kept, clock), resample_fps, last_duration)
        count = resampled_count(clock.first, clock.last, resample_fps, last_duration)
    kind = first.format.name
    planes = (_planes(frame, kind, plan, pose, format, name) for frame in kept)
    return VideoReader(name, format, planes, frame_count=count, close=container.close)


def _open(path: Path) -> tuple[av.container.InputContainer, av.VideoStream]:
    import av

    try:
        container = av.open(f"file:{path}", options={"protocol_whitelist": "file"})
    except (av.FFmpegError, OSError, ValueError) as exc:
        raise VideoError(f"{path} is not a video that FFmpeg can read: check the file") from exc
    kind = container.format.name
    pictures = [
        stream
        for stream in container.streams.video
        if not stream.disposition & stream.disposition.attached_pic  # the cover of a song
    ]
    if _LIST_DEMUXERS & set(kind.split(",")):
        container.close()
        raise VideoError(f"{path} is text or a list of files, not a video: give a video file")
    if not pictures:
        container.close()
        raise VideoError(f"{path} holds no video stream: give a file with video in it")
    if pictures[0].codec_context is None:
        container.close()
        raise VideoError(f"{path}: this FFmpeg has no decoder for its video: convert it first")
    pictures[0].thread_type = "AUTO"
    return container, pictures[0]


def _read_clock(path: Path, frames: int | None) -> _Clock:
    """The times of a file's packets, from demuxing alone; of the first `frames` where given."""
    import av

    container, stream = _open(path)
    with container:
        hints = [stream.average_rate, stream.guessed_rate, stream.base_rate]
        tick = Fraction(stream.time_base) if stream.time_base else Fraction(1, 90000)
        wanted = None if frames is None else frames + _REORDER
        try:
            packets = (one for one in container.demux(stream) if one.size and not one.is_discard)
            looked_at = [(one.pts, one.dts, one.is_corrupt) for one in islice(packets, wanted)]
        except av.FFmpegError as exc:
            raise VideoError(f"{path} is damaged and cannot be read to its end") from exc
    stamps = [(pts, dts) for pts, dts, _ in looked_at]
    count = len(stamps) if frames is None else min(len(stamps), frames)
    times = presentation_times(stamps, tick)[:frames]
    broken = any(corrupt for _, _, corrupt in looked_at[: count + LONGEST_REORDER])
    named = next((Fraction(rate) for rate in hints if rate), Fraction(25))
    if len(times) < 2 or times[-1] == times[0]:
        # One frame, or an elementary stream without time stamps: the rate is what is named.
        return _Clock(named, True, Fraction(0), (count - 1) / named, count, broken=broken)
    rate = constant_rate(times, hints, tick)
    mean = (len(times) - 1) / (times[-1] - times[0])
    to_the_end = len(stamps) == count
    whole = whole_beginning(times, hints, tick) if to_the_end and rate is None else None
    return _Clock(rate or mean, rate is not None, times[0], times[-1], count, whole, broken)


def _decode(
    container: av.container.InputContainer, stream: av.VideoStream, name: str
) -> Iterator[av.VideoFrame]:
    import av

    index = 0
    try:
        for frame in container.decode(stream):
            yield frame
            index += 1
    except av.FFmpegError as exc:
        raise VideoError(f"{name} is damaged: frame {index} cannot be decoded") from exc


def _timed(
    frames: Iterator[av.VideoFrame], clock: _Clock
) -> Iterator[tuple[Fraction, av.VideoFrame]]:
    """(seconds, frame); a frame without a time stamp follows the one before at the mean rate."""
    time = clock.first - 1 / clock.rate
    for frame in frames:
        if frame.pts is None:
            time = time + 1 / clock.rate
        else:
            time = frame.pts * Fraction(frame.time_base)
        yield time, frame


def _format_of(
    frame: av.VideoFrame,
    plan: PlanePlan,
    pose: _Pose,
    fps: Fraction,
    name: str,
    matrix: str | None,
    range: str | None,
) -> VideoFormat:
    width, height = frame.width, frame.height
    if pose.transposed:
        width, height = height, width
    if plan.chroma == "rgb":
        return VideoFormat(width, height, fps, "rgb", plan.bit_depth, "bt709", "full")
    kind = frame.format.name
    said = frame.color_range
    if not said and is_full_by_habit(kind):
        said = 2
    return VideoFormat(
        width,
        height,
        fps,
        plan.chroma,
        plan.bit_depth,
        matrix_of(frame.colorspace, width, height, name, matrix),
        range_of(said, kind, range),
    )


def _pose_of(frame: av.VideoFrame, name: str) -> _Pose:
    """What the frame's display matrix says; upright without one."""
    said = frame.side_data.get("DISPLAYMATRIX")
    if said is None:
        return _Pose()
    if abs(frame.rotation - 90 * round(frame.rotation / 90)) > 1:
        raise VideoError(
            f"{name} is to be shown turned by {frame.rotation} degrees: only quarter turns are "
            "applied, turn it with ffmpeg first"
        )
    # The pixel at (x, y) is shown at (a x + c y, b x + d y).
    (a, b, _), (c, d, _), _ = np.frombuffer(said, np.int32).reshape(3, 3).tolist()
    if abs(b) > abs(a):
        return _Pose(True, c < 0, b < 0)
    return _Pose(False, a < 0, d < 0)


def _planes(
    frame: av.VideoFrame, kind: str, plan: PlanePlan, pose: _Pose, format: VideoFormat, name: str
) -> Frame:
    planes = planes_of(frame, plan) if frame.format.name == kind else ()
    if pose != _Pose():
        planes = tuple(np.ascontiguousarray(pose.shown(plane)) for plane in planes)
    shapes = tuple(plane.shape for plane in planes)
    if shapes != format.plane_shapes():
        raise VideoError(
            f"{name} changes its size or pixel format on the way (to {frame.width}x{frame.height} "
            f"{frame.format.name}): cut it where it changes"
        )
    return planes
