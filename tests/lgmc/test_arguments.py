"""Arguments that make no sense are argparse errors (exit 2) before anything heavy is imported."""

import argparse
import subprocess
import sys
from fractions import Fraction

import pytest

from codec.errors import ConfigError
from lgmc.main import VERBS, build_parser, main


def parse(*words):
    return build_parser().parse_args(words)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "VERB"),
        (("transcode", "a"), "invalid choice"),
        (("encode", "a.mp4"), "OUT.lgmc"),
        (("encode", "a.mp4", "b.lgmc", "--quality", "64"), "64 is not 0..63"),
        (("encode", "a.mp4", "b.lgmc", "--quality", "best"), "not a whole number"),
        (
            ("encode", "a.mp4", "b.lgmc", "--effort", "1001"),
            "0..1000, or two such as 20+10, not '1001'",
        ),
        (("eval", "--sequences", "a", "--out", "b", "--efforts", "0,0"), "holds a number twice"),
        (("encode", "a.mp4", "b.lgmc", "--frames", "0"), "0 is not 1 or more"),
        (("encode", "a.mp4", "b.lgmc", "--intra-period", "-1"), "not 0..65535"),
        (("encode", "a.yuv", "b.lgmc", "--size", "416"), "not a size such as"),
        (("encode", "a.yuv", "b.lgmc", "--size", "0x5"), "side below 1"),
        (("encode", "a.yuv", "b.lgmc", "--fps", "0"), "not above 0"),
        (("encode", "a.yuv", "b.lgmc", "--fps", "1/0"), "not a frame rate"),
        (("encode", "a.yuv", "b.lgmc", "--pix-fmt", "rgb24"), "invalid choice"),
        (("encode", "a.yuv", "b.lgmc", "--bitrate", "fast"), "not a bit rate such as 800k"),
        (("encode", "a.yuv", "b.lgmc", "--bitrate", "0"), "not a bit rate"),
        (("encode", "a.yuv", "b.lgmc", "--bitrate", "5m"), "not a bit rate"),
        (("encode", "a.yuv", "b.lgmc", "--max-bitrate", "-5k"), "expected one argument"),
        (("encode", "a.yuv", "b.lgmc", "--buffer", "0"), "not above 0"),
        (("encode", "a.yuv", "b.lgmc", "--buffer", "long"), "not a number of seconds"),
        (("encode", "a.yuv", "b.lgmc", "--bit-rate", "500k"), "unrecognized"),
        (("decode", "a.lgmc"), "OUT"),
        (("decode", "a.lgmc", "b.y4m", "--threads", "0"), "0 is not 1 or more"),
    ],
)
def test_wrong_arguments(words, says, capsys):
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    assert says in capsys.readouterr().err


def test_what_the_arguments_become():
    args = parse("encode", "a.yuv", "b.lgmc", "--size", "416x240", "--fps", "30000/1001")
    assert (args.size, args.fps) == ((416, 240), Fraction(30000, 1001))
    assert (args.model, args.quality, args.intra_period) == ("lite", 32, 32)
    assert parse("encode", "a", "b", "--fps", "29.97").fps == Fraction(2997, 100)
    assert parse("encode", "a", "b", "--fps", "23.976").fps == Fraction(2997, 125)


@pytest.mark.parametrize(
    ("text", "bits"),
    [("800k", 800e3), ("1.5M", 1.5e6), ("5K", 5e3), (".2M", 2e5), ("64000", 64e3), ("2G", 2e9)],
)
def test_bit_rates_are_read_as_ffmpeg_reads_them(text, bits):
    assert parse("encode", "a", "b", "--bitrate", text).bitrate == pytest.approx(bits)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb, capsys):
    with pytest.raises(SystemExit) as caught:
        main([verb, "--help"])
    assert caught.value.code == 0
    assert len(capsys.readouterr().out) > 200


def test_version_names_what_results_depend_on(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert out.startswith("lgmc ") and "torch 2" in out and "compressai 1" in out


def test_help_imports_nothing_heavy():
    heavy = "{'torch', 'compressai', 'av', 'numpy', 'pandas', 'matplotlib', 'tqdm'}"
    program = (
        "import sys, lgmc.main; lgmc.main.build_parser().format_help(); "
        f"sys.exit(', '.join({heavy} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_device_has_no_number_on_a_cluster():
    from lgmc.arguments import apply_machine

    there = argparse.Namespace(device="cuda:1", threads=None)
    with pytest.raises(ConfigError, match="on a cluster the device is cpu or cuda, not cuda:1"):
        apply_machine(there, here=False)
    apply_machine(argparse.Namespace(device="cuda", threads=None), here=False)  # GPU here or not
