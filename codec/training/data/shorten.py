"""The beginnings of all clips of a folder, as they were compressed, so that the whole fits.

Training data that has to travel, to a machine lent for half an hour, is worth more as the first
part of every clip than as some clips whole. Packets are copied, nothing is coded again.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import av

from codec.errors import ConfigError, VideoError
from codec.training.data.sources import Source

_LEAST_FRAMES = 2
_TRIES = 6
_MARGIN = 0.98  # of what is left after a try that came out too large


class Shortened(NamedTuple):
    """What was written: counts of clips and frames, bytes, and the frames that there were."""

    clips: int
    frames: int
    frames_before: int
    size: int


def shorten(
    sources: Sequence[Source],
    out: Path,
    size: int,
    report: Callable[[str], None] = lambda line: None,
) -> Shortened:
    """Write the same share of every clip's video to ``out``, together at most ``size`` bytes.

    Args:
        sources: video files of different names; a folder of frames cannot be shortened.
        out: a folder that is not there yet or empty; its files keep their names.
        report: given a line per clip.

    Raises:
        ConfigError: a source is no video file, two have one name, ``out`` holds something, or
            ``size`` does not hold two frames of each clip.
        VideoError: a clip has no video or cannot be copied.
    """
    _check(sources, out)
    clips = [_Clip(source) for source in sources]
    share = min(1.0, size / max(1, sum(clip.file_size for clip in clips)))
    try:
        for _ in range(_TRIES):
            out.mkdir(parents=True, exist_ok=True)
            kept = [clip.copy(out / clip.path.name, share) for clip in clips]
            total = sum((out / clip.path.name).stat().st_size for clip in clips)
            if total <= size:
                for clip, frames in zip(clips, kept, strict=True):
                    report(f"{clip.path.name}: {frames} of {clip.frames} frames")
                before = sum(clip.frames for clip in clips)
                return Shortened(len(clips), sum(kept), before, total)
            share *= _MARGIN * size / total
        raise ConfigError(
            f"{size / 1e6:g} MB do not hold {_LEAST_FRAMES} frames of each of {len(clips)} clips: "
            "name fewer clips or allow more"
        )
    except BaseException:  # an interrupt too: a part of the clips is of no use
        for clip in clips:
            (out / clip.path.name).unlink(missing_ok=True)
        raise


def _check(sources: Sequence[Source], out: Path) -> None:
    folders = [one.name for one in sources if one.files]
    if folders:
        raise ConfigError(f"{folders[0]} is a folder of frames: only video files can be shortened")
    names = [one.path.name for one in sources]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise ConfigError(f"two clips are called {twice}: give one of them another name")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} holds something already: name a new folder")


class _Clip:
    """A video file, and the numbers of packets after which no frame before is missing."""

    def __init__(self, source: Source) -> None:
        self.path = source.path
        self.file_size = self.path.stat().st_size
        try:
            with av.open(str(self.path)) as container:
                stream = _video(container, self.path)
                seen = [(p.pts, p.size) for p in container.demux(stream) if p.size]
        except (av.error.FFmpegError, OSError) as error:
            raise VideoError(f"{self.path} cannot be read ({error})") from None
        if not seen:
            raise VideoError(f"{self.path} holds no video")
        times = [pts if pts is not None else i for i, (pts, _) in enumerate(seen)]
        self.frames = len(seen)
        self._sizes = [size for _, size in seen]
        self._ends = _ends(times)

    def copy(self, target: Path, share: float) -> int:
        """Write about ``share`` of the video, at least two frames; how many it has."""
        allowed, taken = share * sum(self._sizes), 0
        end = min((one for one in self._ends if one >= _LEAST_FRAMES), default=self.frames)
        for number, size in enumerate(self._sizes, 1):
            taken += size
            if taken <= allowed and number in self._ends:
                end = max(end, number)
        try:
            with av.open(str(self.path)) as container, av.open(str(target), "w") as output:
                stream = _video(container, self.path)
                copied = output.add_stream_from_template(stream)
                packets = (packet for packet in container.demux(stream) if packet.size)
                for _, packet in zip(range(end), packets, strict=False):
                    packet.stream = copied
                    output.mux(packet)
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise VideoError(f"{self.path} cannot be copied to {target} ({error})") from None
        return end


def _video(container: av.container.InputContainer, path: Path) -> av.video.stream.VideoStream:
    if not container.streams.video:
        raise VideoError(f"{path} holds no video")
    return container.streams.video[0]


def _ends(times: list[int]) -> set[int]:
    """Numbers of packets, in their order, after which no earlier frame is still to come."""
    ends = set()
    latest, rest = float("-inf"), list(times)
    for i in range(len(rest) - 2, -1, -1):
        rest[i] = min(rest[i], rest[i + 1])  # the earliest from here on
    for number, time in enumerate(times, 1):
        latest = max(latest, time)
        if number == len(times) or latest < rest[number]:
            ends.add(number)
    return ends
