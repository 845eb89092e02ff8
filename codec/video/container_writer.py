"""Writing .mp4 to look at (H.264) and .mkv to keep (FFV1, lossless), through PyAV."""

from __future__ import annotations

from typing import BinaryIO

from codec.errors import VideoError
from codec.video.format import Frame, VideoFormat
from codec.video.pixel_formats import fill_planes
from codec.video.signalling import MATRIX_TAGS, RANGE_TAGS

# kind -> (FFmpeg's muxer, encoder, options). crf 10 cannot be told from the original by eye.
_KINDS = {
    ".mp4": ("mp4", "libx264", {"crf": "10", "preset": "veryfast"}),
    ".mkv": ("matroska", "ffv1", {"level": "3", "slicecrc": "1"}),
}
_MAX_RATE_TERM = 2**31 - 1  # of FFmpeg's ratios
_SLICED_SIDE = 128  # pixels; FFV1 refuses slices of a few pixels, and threads gain nothing there


class ContainerSink:
    """Encodes frames into a seekable binary stream; the caller owns the stream."""

    def __init__(self, stream: BinaryIO, format: VideoFormat, kind: str) -> None:
        import av

        muxer, encoder, options = _KINDS[kind]
        if max(format.fps.as_integer_ratio()) > _MAX_RATE_TERM:
            raise VideoError(
                f"{format.fps} frames/s cannot be said in {kind}, whose terms end at "
                f"{_MAX_RATE_TERM}: write .y4m"
            )
        self._format = format
        # FFV1 takes 8-bit R'G'B' as packed bytes only.
        self._pix_fmt = "bgr0" if format.pix_fmt == "gbrp" else format.pix_fmt
        self._index = 0
        if encoder == "ffv1" and min(format.width, format.height) >= _SLICED_SIDE:
            options = {**options, "slices": "4"}
        self._container = av.open(stream, "w", format=muxer)
        self._stream = self._container.add_stream(encoder, rate=format.fps, options=options)
        context = self._stream.codec_context
        context.width, context.height = format.width, format.height
        context.pix_fmt = self._pix_fmt
        context.time_base = 1 / format.fps
        context.thread_type = "AUTO"
        context.color_range = RANGE_TAGS[format.range]
        if format.chroma != "rgb":
            context.colorspace, context.color_primaries, context.color_trc = MATRIX_TAGS[
                format.matrix
            ]

    def write(self, frame: Frame) -> None:
        import av

        picture = av.VideoFrame(self._format.width, self._format.height, self._format.pix_fmt)
        fill_planes(picture, frame, self._format.chroma == "rgb")
        picture.color_range = RANGE_TAGS[self._format.range]
        if self._pix_fmt != self._format.pix_fmt:
            picture = picture.reformat(format=self._pix_fmt)
        picture.pts = self._index
        picture.time_base = 1 / self._format.fps
        self._index += 1
        self._container.mux(self._stream.encode(picture))

    def finish(self) -> None:
        self._container.mux(self._stream.encode(None))
        self._container.close()

    def discard(self) -> None:
        """Give the encoder back without caring for what it still holds."""
        try:
            self._container.close()
        except Exception:  # the trailer of a file that is thrown away
            pass
