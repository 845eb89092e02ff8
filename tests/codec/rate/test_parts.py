"""Targets, the bucket and the model of bits, each by itself."""

import math
import subprocess
import sys

import pytest

from codec.bitstream import header
from codec.errors import ConfigError
from codec.rate import CodedFrame, FrameOrder, RateTarget, bits_per_second, order
from codec.rate.bucket import START, LeakyBucket
from codec.rate.model import INTER, INTRA, MAX_SURPRISE, OWN, RateModel

ORDER = FrameOrder(4, 2, lambda base, since: base)
PIXELS = 96 * 64


@pytest.mark.parametrize("text", ["", "k", "5m", "1e6", "-5k", "0k", "5kb", "1.2.3", "inf"])
def test_what_is_no_bit_rate(text):
    with pytest.raises(ConfigError, match="not a bit rate such as"):
        bits_per_second(text)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({}, "needs a bit rate"),
        ({"buffer": 2.0}, "needs a bit rate"),
        ({"bitrate": 0.0}, "must be above 0"),
        ({"bitrate": math.nan}, "must be above 0"),
        ({"bitrate": "800k"}, "must be a number"),
        ({"bitrate": 1e6, "buffer": -1.0}, "must be above 0"),
        ({"bitrate": 1e6, "max_bitrate": 9e5}, "below the average"),
        ({"max_bitrate": 1e6, "two_pass": True}, "give --bitrate"),
    ],
)
def test_targets_that_make_no_sense(values, says):
    with pytest.raises(ConfigError, match=says):
        RateTarget(**values)


def test_which_buffer_a_target_has():
    assert RateTarget(bitrate=8e5).buffer_bits == 8e5
    assert RateTarget(bitrate=8e5, max_bitrate=1e6, buffer=2.0).buffer_bits == 2e6
    assert RateTarget(max_bitrate=1e6).drain == 1e6
    assert RateTarget(bitrate=8e5, two_pass=True).buffer_bits is None
    assert RateTarget(bitrate=8e5, two_pass=True, buffer=0.5).buffer_bits == 4e5


def test_the_bucket_fills_drains_and_stops_at_empty():
    bucket = LeakyBucket(1000.0, 300.0)
    assert bucket.room == (1 - START) * 1000
    bucket.pour(500)
    assert (bucket.peak, bucket.level) == (600, 300)
    bucket.pour(0)
    bucket.pour(0)
    assert (bucket.peak, bucket.level) == (600, 0)
    bucket.pour(1200)
    assert bucket.peak == 1200 and bucket.room == 1000 - 900


def test_the_curves_rise_to_the_end():
    for curve in (INTRA, INTER):
        values = [curve(level) for level in range(order.MAX_QUALITY + 1)]
        assert values == sorted(values) and values[0] == 0


def test_the_range_of_quality_is_the_bitstreams():
    assert order.MAX_QUALITY == header.MAX_QUALITY


def test_the_first_frame_of_a_kind_is_believed_and_later_ones_smoothed():
    model = RateModel(ORDER, PIXELS, fixed=100)
    model.learn(0, 20, 5000)
    assert model.bits(0, 20) == pytest.approx(5000)
    model.learn(4, 20, 100 + 4900 * 2)
    assert model.bits(0, 20) == pytest.approx(100 + 4900 * 2**OWN)
    # The first P frame speaks for both kinds, and not for I frames.
    model.learn(1, 10, 1100)
    assert model.bits(1, 10) == pytest.approx(model.bits(2, 10)) == pytest.approx(1100)
    model.learn(2, 10, 600)
    assert model.bits(2, 10) == pytest.approx(600) and model.bits(1, 10) < 1100


def test_a_flash_teaches_little():
    model = RateModel(ORDER, PIXELS)
    for number in (1, 2):
        model.learn(number, 10, 1000)
    model.learn(3, 10, 1000 * 2**10)
    assert model.bits(3, 10) == pytest.approx(1000 * 2 ** (OWN * MAX_SURPRISE))


def test_a_first_pass_says_each_frames_bits():
    bits = [9000, 1000, 1500, 3000, 9500, 800]
    model = RateModel(ORDER, PIXELS, 100, [CodedFrame(30, size) for size in bits])
    assert [model.bits(n, 30) for n in range(6)] == pytest.approx(bits)
    assert list(model.sequence(1, 5, 30)) == pytest.approx(bits[1:5])
    assert model.total(1, 5, 30) == pytest.approx(sum(bits[1:5]))
    assert model.total(1, 5, 35) == pytest.approx(sum(model.sequence(1, 5, 35)))
    assert model.bits(0, 29) < 9000 < model.bits(0, 31)


def test_a_lower_level_is_lower_and_fits_by_the_curve():
    model = RateModel(ORDER, PIXELS, 100)
    assert model.lower(1, 30, 5000, 4990) == 29
    lower = model.lower(1, 30, 5000, 2600)
    assert 0 < lower < 29
    assert 4900 * 2 ** (INTER(lower) - INTER(30)) <= 2500
    assert 4900 * 2 ** (INTER(lower + 1) - INTER(30)) > 2500
    assert model.lower(1, 30, 5000, 50) == 0
    assert model.lower(1, 1, 5000, 5000) == 0


def test_nothing_heavy_is_imported():
    program = (
        "import sys, codec.rate; "
        "sys.exit(', '.join({'torch', 'numpy', 'compressai'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
