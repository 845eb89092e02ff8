"""Which matrix and range a video has, from what its container and stream say."""

from __future__ import annotations

from codec.errors import VideoError
from codec.video.format import MATRICES, RANGES, check_choice

# H.273 matrix coefficients. FCC (4) differs from BT.601 by 0.004 at most and is treated as it.
_MATRIX_CODES = {1: "bt709", 4: "bt601", 5: "bt601", 6: "bt601"}
_UNKNOWN_CODES = (0, 2, 3)  # identity on planes that are Y'CbCr, unspecified, reserved
_CODE_NAMES = {
    7: "SMPTE 240M",
    8: "YCgCo",
    9: "BT.2020",
    10: "BT.2020 constant luminance",
    14: "ICtCp",
}
# Tags to write, as (matrix, primaries, transfer) of H.273.
MATRIX_TAGS = {"bt601": (6, 6, 6), "bt709": (1, 1, 1)}
RANGE_TAGS = {"limited": 1, "full": 2}


def matrix_by_size(width: int, height: int) -> str:
    """The matrix of a video that names none: "bt709" from 1280 columns or above 576 lines, "bt601"
    below, which is the rule of mpv and what standard definition means."""
    return "bt709" if width >= 1280 or height > 576 else "bt601"


def matrix_of(code: int, width: int, height: int, name: str, override: str | None = None) -> str:
    """The matrix by H.273 code, by size where the code says nothing; `override` wins.

    Raises VideoError for matrices that are neither BT.601's nor BT.709's."""
    if override is not None:
        check_choice("matrix", override, MATRICES)
        return override
    if code in _UNKNOWN_CODES:
        return matrix_by_size(width, height)
    if code not in _MATRIX_CODES:
        raise VideoError(
            f"{name} uses the matrix {_CODE_NAMES.get(code, code)}, which is not converted here; "
            "convert it to BT.709 first, or give matrix=bt709 to take its planes as that"
        )
    return _MATRIX_CODES[code]


def range_of(code: int, pix_fmt: str, override: str | None = None) -> str:
    """The range by FFmpeg's code (1 limited, 2 full); "limited" where neither it nor a yuvj pixel
    format says otherwise; `override` wins."""
    if override is not None:
        check_choice("range", override, RANGES)
        return override
    return "full" if code == 2 or pix_fmt.startswith("yuvj") else "limited"
