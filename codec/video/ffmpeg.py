"""Where the FFmpeg program is: for pipes and for the anchors of an evaluation."""

from __future__ import annotations

import os
import shutil

from codec.errors import VideoError


def find_ffmpeg() -> str:
    """The path of an FFmpeg program: $FFMPEG, else imageio-ffmpeg's, else the system's.

    Raises VideoError if $FFMPEG is set and names no program, or if there is none at all.
    """
    named = os.environ.get("FFMPEG")
    if named:
        found = shutil.which(named)
        if found is None:
            raise VideoError(f"FFMPEG is set to {named}, which is no program: mend or unset it")
        return found
    try:
        import imageio_ffmpeg

        return imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError):
        found = shutil.which("ffmpeg")
    if found is None:
        raise VideoError("no FFmpeg: pip install imageio-ffmpeg, or set FFMPEG to the program")
    return found
