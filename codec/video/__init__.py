"""Reading and writing video, pixel formats, colour: where files and pipes become frames and back.

A frame is three integer planes; a :class:`VideoFormat` says what they mean. Importing this package
is cheap: what it offers is loaded when it is first asked for.
"""

from importlib import import_module

_HOMES = {
    "VideoFormat": "format",
    "Frame": "format",
    "open_reader": "reader",
    "VideoReader": "reader",
    "open_writer": "writer",
    "VideoWriter": "writer",
    "frame_to_rgb": "colour",
    "rgb_to_frame": "colour",
    "convert_frame": "colour",
    "find_ffmpeg": "ffmpeg",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
