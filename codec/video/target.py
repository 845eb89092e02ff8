"""Targets that appear whole or not at all: written beside under another name, renamed at last."""

from __future__ import annotations

import os
import secrets
import shutil
import stat
import sys
from pathlib import Path
from typing import Any, BinaryIO

from codec.errors import ConfigError, VideoError
from codec.video.images import is_frame_name


def check_not_itself(source: Any, target: str | os.PathLike, what: str) -> None:
    """Raise ConfigError for a target, meant for ``what``, that would replace the source or its
    folder. A source that is no path is none of either, and so is "-"."""
    if not isinstance(source, (str, os.PathLike)) or "-" in (os.fspath(source), os.fspath(target)):
        return
    if not os.path.exists(source) or not os.path.exists(target):
        return
    if os.path.samefile(source, target):
        raise ConfigError(f"{target} is the input itself: give another name for {what}")
    if os.path.samefile(os.path.dirname(os.path.realpath(source)), target):
        raise ConfigError(f"{target} is the folder of the input: give another name for {what}")


class FileTarget:
    """A file under a temporary name in the target's folder; `commit` gives it its own.

    What exists and is no regular file (a named pipe, a device) is written directly. A link stays,
    and what it leads to is replaced.
    """

    def __init__(self, path: Path, overwrite: bool) -> None:
        self._direct = path.exists() and not stat.S_ISREG(path.stat().st_mode)
        if not self._direct:
            path = _behind_link(path)
        self.path = path
        _check_parent(path)
        if path.is_dir():
            raise VideoError(f"{path} is a folder: give the name of a file in it")
        if path.exists() and not self._direct and not overwrite:
            raise VideoError(f"{path} exists already: give another name or allow overwriting")
        self._at = path if self._direct else _beside(path)
        self.stream: BinaryIO = open(self._at, "wb" if self._direct else "xb")

    def commit(self) -> None:
        self.stream.close()
        if not self._direct:
            os.replace(self._at, self.path)

    def discard(self) -> None:
        try:
            self.stream.close()
        except OSError:
            pass  # what could not be flushed is thrown away anyhow
        if not self._direct:
            self._at.unlink(missing_ok=True)


class FolderTarget:
    """A folder of pictures under a temporary name beside the target's; `commit` gives it its own.

    An existing target is replaced only if it is empty, or holds nothing but frames as we number
    them and `overwrite` is set: other pictures are never deleted. A link stays, and what it leads
    to is replaced.
    """

    def __init__(self, path: Path, overwrite: bool) -> None:
        path = _behind_link(path)
        self.path = path
        _check_parent(path)
        if path.exists():
            if os.path.samefile(path, os.curdir):
                raise VideoError(f"{path} is the folder we are in: give a new one in it")
            if not path.is_dir():
                raise VideoError(f"{path} is a file: for pictures give the name of a folder")
            held = [entry.name for entry in path.iterdir()]
            if held and not overwrite:
                raise VideoError(f"{path} is not empty: give another folder or allow overwriting")
            if not all(is_frame_name(name) for name in held):
                raise VideoError(f"{path} holds more than numbered frames: give a new folder")
        self.folder = _beside(path)
        self.folder.mkdir()

    def commit(self) -> None:
        if self.path.exists():
            old = _beside(self.path)
            os.rename(self.path, old)
            try:
                os.rename(self.folder, self.path)
            except OSError:
                os.rename(old, self.path)
                raise
            shutil.rmtree(old)
        else:
            os.rename(self.folder, self.path)

    def discard(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


class StandardOutput:
    """y4m on standard output. A reader that has gone is a BrokenPipeError, see `mute`."""

    def __init__(self) -> None:
        if sys.stdout is None or sys.stdout.closed:
            raise VideoError("standard output is closed: name a file instead")
        if sys.stdout.isatty():
            raise VideoError("standard output is a terminal: pipe it, for example into ffplay -")
        self.stream: BinaryIO = sys.stdout.buffer

    def commit(self) -> None:
        self.stream.flush()

    def discard(self) -> None:
        """What went down the pipe is gone."""

    @staticmethod
    def mute() -> None:
        """Point standard output at nothing, so that the interpreter's own flush at exit does not
        complain of the broken pipe again."""
        try:
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, sys.stdout.fileno())
            os.close(nothing)
        except (OSError, ValueError):
            pass  # standard output is no real descriptor: nothing will be flushed


def _beside(path: Path) -> Path:
    """A new hidden name in the same folder, hence on the same disk."""
    return path.with_name(f".lgmc-{secrets.token_hex(6)}.part")


def _behind_link(path: Path) -> Path:
    """What a path leads to if it is a symbolic link, else the path itself."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def _check_parent(path: Path) -> None:
    parent = path.parent
    if not parent.is_dir():
        what = "is not a folder" if parent.exists() else "does not exist: create it first"
        raise VideoError(f"{path} cannot be written: the folder {parent} {what}")
