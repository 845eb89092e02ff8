"""encode, decode and inspect on a real stream of a tiny model, in process and in new processes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lgmc.main import main
from lgmc.neighbours import OURS

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(OURS), "OMP_NUM_THREADS": "1"}
PATIENCE = 120  # seconds until a process that should have ended is a failure


def lgmc(*words, **options):
    command = [sys.executable, "-m", "lgmc", *words]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, check=False, **options)


def answer(capsys, *words):
    assert main([*words, "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return json.loads(out)


def test_decode_to_a_file(stream, recon, model, tmp_path, capsys):
    target = tmp_path / "out.y4m"
    assert main(["decode", stream, str(target), "--model", model, "--verify"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert f"{target}: 6 frames of 70x50" in out and "every digest right" in out
    assert target.read_bytes() == recon.read_bytes()


def test_new_processes_give_the_encoder_s_bytes_through_pipes(stream, recon, clip, model, tmp_path):
    """y4m in by standard input; the stream in by standard input and y4m out by standard output."""
    with open(clip, "rb") as source:
        words = ["-", "piped.lgmc", "--model", model, "--intra-period", "4"]
        done = lgmc("encode", *words, stdin=source, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with open(tmp_path / "piped.lgmc", "rb") as source:
        done = lgmc("decode", "-", "-", "--model", model, stdin=source)
    assert done.returncode == 0, done.stderr
    assert done.stdout == recon.read_bytes()


def test_encode_json(clip, model, tmp_path, capsys):
    target = tmp_path / "a.lgmc"
    words = ["encode", clip, str(target), "--model", model, "--frames", "3", "--quality", "5"]
    report = answer(capsys, *words)
    assert report["bytes"] == target.stat().st_size
    assert [frame["type"] for frame in report["frames"]] == ["I", "P", "P"]
    assert [frame["quality"] for frame in report["frames"]] == [5, 5, 5]
    assert (report["width"], report["height"], report["fps"]) == (70, 50, 24)


def test_encode_says_what_it_made(clip, model, tmp_path, capsys):
    target = tmp_path / "a.lgmc"
    assert main(["encode", clip, str(target), "--model", model, "--frames", "1"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert f"{target}: 1 frame of 70x50, {target.stat().st_size:,} bytes" in out


def test_no_digests(clip, model, tmp_path, capsys):
    target = str(tmp_path / "a.lgmc")
    words = ["encode", clip, target, "--model", model, "--frames", "2", "--no-digests"]
    assert main(words) == 0
    capsys.readouterr()
    report = answer(capsys, "inspect", target, "--no-parts")
    assert report["bytes_by_use"]["digest"] == 0
    assert main(["decode", target, str(tmp_path / "a.y4m"), "--model", model, "--verify"]) == 1
    assert "digest" in capsys.readouterr().err


def test_inspect_counts_every_byte_and_every_part(stream, model, capsys):
    report = answer(capsys, "inspect", stream, "--model", model)
    assert sum(report["bytes_by_use"].values()) == report["bytes"] == os.path.getsize(stream)
    assert [frame["type"] for frame in report["frames"]] == list("IPPPIP")
    assert all(set(frame["parts"]) for frame in report["frames"])
    bits = sum(report["bits_by_part"].values())
    payload = 8 * report["bytes_by_use"]["payload"]
    # rANS ends every frame with two words of 32 bits; the rest is the rounding of the tables.
    assert abs(payload - bits) < 0.02 * payload + 64 * len(report["frames"])
    assert main(["inspect", stream, "--model", model, "--frames"]) == 0
    out = capsys.readouterr().out
    assert all(part in out for part in report["bits_by_part"])


def test_inspect_without_the_model_still_counts_bytes(stream, capsys):
    assert main(["inspect", stream]) == 0
    out = capsys.readouterr().out
    assert "the whole file" in out and "no bits per part" in out


@pytest.mark.parametrize("whole", [1, 3, 5])
def test_partial_keeps_the_whole_frames(stream, recon, model, tmp_path, capsys, whole):
    report = answer(capsys, "inspect", stream, "--no-parts")
    frame = report["frames"][whole]
    cut = tmp_path / "cut.lgmc"
    cut.write_bytes(Path(stream).read_bytes()[: frame["offset"] + frame["bytes"] // 2])
    target = tmp_path / "out.y4m"
    assert main(["decode", str(cut), str(target), "--model", model, "--partial"]) == 0
    out, err = capsys.readouterr()
    assert f"{whole} frame" in out and "cut off" in err and err.count("\n") == 1
    whole_bytes = target.read_bytes()
    assert recon.read_bytes()[: len(whole_bytes)] == whole_bytes
    assert whole_bytes.count(b"FRAME\n") >= whole


@pytest.fixture
def encoding(clip, model, tmp_path):
    """A process in the midst of encoding: it has the first frames and waits for more."""
    words = ["encode", "-", "out.lgmc", "--model", model, "--recon", "recon.y4m"]
    process = subprocess.Popen(
        [sys.executable, "-m", "lgmc", *words],
        env=ENVIRONMENT,
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdin.write(Path(clip).read_bytes()[:-100])
    process.stdin.flush()
    until = time.monotonic() + PATIENCE
    while not _written(tmp_path):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < until, "no temporary file appeared"
        time.sleep(0.05)
    yield process
    process.kill()
    process.communicate()


def _written(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.stat().st_size]


def test_a_killed_encode_leaves_nothing_under_the_final_names(encoding, tmp_path):
    encoding.kill()
    assert encoding.wait(PATIENCE) == -signal.SIGKILL
    assert not {"out.lgmc", "recon.y4m"} & {path.name for path in tmp_path.iterdir()}


def test_a_stopped_encode_leaves_nothing_at_all(encoding, tmp_path):
    encoding.send_signal(signal.SIGTERM)
    assert encoding.wait(PATIENCE) == 143
    assert encoding.stderr.read() == b"lgmc: stopped\n"
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_goes_away(stream, model):
    process = subprocess.Popen(
        [sys.executable, "-m", "lgmc", "decode", stream, "-", "--model", model],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.close()
    assert process.wait(PATIENCE) == 141
    assert process.stderr.read() == b""
