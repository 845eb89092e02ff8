"""Video files are decoded once, into a memory-mapped file of their own integer planes.

Crops become RGB by the same function that encoding uses.
"""

import hashlib
import json
import os
import threading
from pathlib import Path

import numpy as np

from codec.errors import ConfigError, VideoError
from codec.training.data.clips import CachedClip
from codec.training.data.measures import load_or_measure
from codec.video.format import VideoFormat
from codec.video.reader import open_reader

_PARTS, _PART_BYTES = 16, 1 << 16  # of a file, which its key is made of


def cached(file: Path, cache: Path, look: bool = True) -> CachedClip:
    """The decoded planes of a video file, from the cache or decoded into it now.

    Args:
        look: measure its frames too, or take what was measured before.

    Raises:
        ConfigError: the file cannot be decoded to its end.
    """
    key = _key(file)
    planes, note = cache / f"{key}.planes", cache / f"{key}.json"
    if not (planes.exists() and note.exists()):
        decode_into(file, planes, note)
    form = VideoFormat(**json.loads(note.read_text()))
    rows = np.memmap(planes, np.uint8, "r").reshape(-1, form.frame_bytes)
    measures = load_or_measure(planes, rows, form) if look else None
    return CachedClip(file.name, rows, form, measures)


def _key(file: Path) -> str:
    """Names a video by its name, size, time and some of its bytes: a copy elsewhere has the same.

    Raw clips of one size, made in one second, differ in their bytes alone.
    """
    stat = file.stat()
    total = hashlib.sha256(f"{file.name}:{stat.st_size}:{int(stat.st_mtime)}".encode())
    with open(file, "rb") as content:
        for part in range(_PARTS):
            content.seek(stat.st_size * part // _PARTS)
            total.update(content.read(_PART_BYTES))
    return total.hexdigest()[:24]


def decode_into(file: Path, planes: Path, note: Path) -> None:
    """Append frame after frame to a file of raw planes, which gets its name when it is whole.

    Raises:
        ConfigError: the video cannot be decoded to its end.
    """
    planes.parent.mkdir(parents=True, exist_ok=True)
    temporary = planes.with_suffix(f".{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        with open_reader(file) as reader, open(temporary, "wb") as out:
            for frame in reader:
                for plane in frame:
                    out.write(plane.tobytes())
            form = reader.format
        if not temporary.stat().st_size:
            raise VideoError(f"{file} holds no frame")
        note.write_text(json.dumps({**vars(form), "fps": str(form.fps)}))
        os.replace(temporary, planes)
    except VideoError as error:
        raise ConfigError(f"training data: {error}") from None
    finally:
        temporary.unlink(missing_ok=True)
