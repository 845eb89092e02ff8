"""What the tests of codec.video share: random frames, and videos of any kind made with PyAV."""

from fractions import Fraction

import numpy as np
import pytest

from codec.video.format import VideoFormat


@pytest.fixture
def random_frames():
    """random_frames(format, count, seed=0): frames of uniform noise over all codes."""

    def make(format: VideoFormat, count: int, seed: int = 0):
        rng = np.random.default_rng(seed)
        return [
            tuple(
                rng.integers(0, format.max_value + 1, shape).astype(format.dtype)
                for shape in format.plane_shapes()
            )
            for _ in range(count)
        ]

    return make


@pytest.fixture
def same_frames():
    """same_frames(a, b): whether two lists of frames are equal in every sample."""

    def compare(first, second):
        return len(first) == len(second) and all(
            np.array_equal(a, b) and a.dtype == b.dtype
            for one, other in zip(first, second, strict=True)
            for a, b in zip(one, other, strict=True)
        )

    return compare


@pytest.fixture
def make_video():
    """make_video(path, levels, ...): a small video whose frame i has all samples of its first plane
    at levels[i], written by PyAV without any code of codec.video."""

    def make(
        path,
        levels,
        *,
        pts=None,
        time_base=Fraction(1, 24),
        rate=24,
        encoder="ffv1",
        pix_fmt="yuv420p",
        size=(64, 48),
        muxer=None,
        rotation=None,
        tags=(),
        dtype=np.uint8,
    ):
        import av

        with av.open(str(path), "w", format=muxer) as container:
            stream = container.add_stream(encoder, rate=rate)
            context = stream.codec_context
            context.width, context.height = size
            context.pix_fmt = pix_fmt
            context.time_base = time_base
            if rotation is not None:
                stream.set_display_rotation(rotation)
            for name, value in tags:
                setattr(context, name, value)
            for index, level in enumerate(levels):
                frame = av.VideoFrame(*size, pix_fmt)
                for number, plane in enumerate(frame.planes):
                    view = np.frombuffer(plane, dtype)
                    view[:] = level if number == 0 else 120
                for name, value in tags:
                    setattr(frame, name, value)
                frame.pts = index if pts is None else pts[index]
                frame.time_base = time_base
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return path

    return make
