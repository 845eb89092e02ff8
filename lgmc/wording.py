"""Phrases that several verbs say alike."""

from __future__ import annotations

from fractions import Fraction


def count(number: int, what: str) -> str:
    """``1 frame``, ``2 frames``."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def bits_per_pixel(size: int, frames: int, width: int, height: int) -> str:
    """``0.1034 bit/pixel`` of a file of ``size`` bytes."""
    return f"{8 * size / (frames * width * height):.4f} bit/pixel"


def bit_rate(size: int, frames: int, fps: Fraction | float) -> str:
    """``246.9 kbit/s`` of a file of ``size`` bytes; 1 kbit = 1000 bit."""
    return f"{float(8 * size * fps / frames) / 1000:,.1f} kbit/s"


def speed(frames: int, seconds: float) -> str:
    """``9.2 frames/s``."""
    return f"{frames / seconds:.1f} frames/s"
