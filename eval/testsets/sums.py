"""Lists of checksums that come with test sets, as md5sum, sha256sum and BSD's md5 write them.

The owners of most sets publish no digests on a page, but archives hold lists of them, and whoever
keeps a set may write one.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from codec.errors import VideoError

_ALGORITHMS = {32: "md5", 40: "sha1", 64: "sha256"}  # by hexadecimal digits
_HEX = r"(?P<hex>[0-9a-fA-F]{32}|[0-9a-fA-F]{40}|[0-9a-fA-F]{64})"
_LINES = (
    re.compile(rf"\\?{_HEX}\s+[ *]?(?P<name>.+)"),
    re.compile(rf"(?:MD5|SHA1|SHA256) ?\((?P<name>.+)\) ?= ?{_HEX}"),
    re.compile(_HEX),
)
_LIST = re.compile(r"(?i)(.*sums?(\.txt)?|.*[._-](md5|sha1|sha256)(sums?)?(\.txt)?)")
_ENDING = re.compile(r"(?i)([._-](yuv|rgb|y4m|mp4|mkv))?[._-](md5|sha1|sha256)(\.txt)?$")
_LARGEST_LIST = 1 << 20


@dataclass(frozen=True)
class Sum:
    """A checksum that a list states. algorithm: "md5", "sha1" or "sha256"; listed_in: the list."""

    algorithm: str
    value: str
    listed_in: Path

    def check(self, path: Path) -> str | None:
        """What is wrong with the file, None where it has this checksum.

        Raises VideoError where it cannot be read.
        """
        digest = hashlib.new(self.algorithm)
        try:
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        except OSError as exc:
            raise VideoError(f"{path} cannot be read ({exc.strerror or exc})") from None
        if digest.hexdigest() == self.value:
            return None
        return (
            f"has not the {self.algorithm.upper()} that {self.listed_in.name} states: "
            "fetch it again"
        )


def find_sums(folder: Path) -> dict[str, Sum]:
    """Checksums by file name in lower case, of the lists in ``folder`` down to two folders below.

    A list of a lone checksum is that of the clip whose name it has ("Clip.md5", "Clip_yuv.md5",
    "Clip_md5.txt"): then the name stands without a suffix. What is no list is passed over.
    """
    found: dict[str, Sum] = {}
    for depth in ("*", "*/*", "*/*/*"):
        for path in sorted(folder.glob(depth)):
            if path.is_file() and _LIST.fullmatch(path.name):
                for name, one in _read(path).items():
                    found.setdefault(name, one)
    return found


def _read(path: Path) -> dict[str, Sum]:
    try:
        if path.stat().st_size > _LARGEST_LIST:
            return {}
        lines = path.read_text("utf-8", errors="strict").splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    sums = {}
    for line in filter(None, map(str.strip, lines)):
        match = next((m for pattern in _LINES if (m := pattern.fullmatch(line))), None)
        if match is None:
            continue
        value = match["hex"].lower()
        stated = match.groupdict().get("name")
        name = Path(stated.replace("\\", "/")).name if stated else _ENDING.sub("", path.name)
        sums[name.lower()] = Sum(_ALGORITHMS[len(value)], value, path)
    return sums
