"""The codec in three lines:

model = codec.load("lite")                                   # or a file; device="cuda"
codec.encode("in.mp4", "out.lgmc", model=model, quality=32)  # or an iterable of uint8 frames
for frame in codec.decode("out.lgmc", model=model): ...      # three integer planes each
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from codec.models import load
    from codec.session import decode, encode

__all__ = ["decode", "encode", "load"]


def __getattr__(name: str) -> Any:
    # Nothing heavy is imported before it is asked for: `lgmc --help` answers at once.
    if name in ("encode", "decode"):
        from codec import session

        return getattr(session, name)
    if name == "load":
        from codec.models import load

        return load
    raise AttributeError(f"module 'codec' has no attribute {name!r}")
