"""Rate control: which quality index each frame gets, so that a stream meets a bit rate.

Pure arithmetic on frame numbers, quality indices and bits; nothing here knows of tensors or files.
``codec/session.py`` asks and reports; docs/rate_control.md explains.
"""

from codec.rate.controller import Outcome, RateController
from codec.rate.model import CodedFrame
from codec.rate.order import FrameOrder
from codec.rate.target import RateTarget, bits_per_second

__all__ = ["CodedFrame", "FrameOrder", "Outcome", "RateController", "RateTarget", "bits_per_second"]
