"""`lgmc inspect` on streams made by hand: every byte has a use, damage is shown and is an error."""

import io
import json
import re
from fractions import Fraction

import pytest

from codec.bitstream import ContainerWriter, Packet, PacketType, SequenceHeader
from lgmc.main import main

HEADER = SequenceHeader(
    width=64,
    height=48,
    fps=Fraction(25),
    chroma="420",
    bit_depth=8,
    matrix="bt709",
    range="limited",
    model="some-model",
    weights_digest=bytes(range(16)),
    quality=20,
    intra_period=4,
)


def stream(frames: int = 6) -> bytes:
    out = io.BytesIO()
    with ContainerWriter(out, HEADER) as writer:
        for i in range(frames):
            kind = PacketType.INTRA if i % 4 == 0 else PacketType.INTER
            writer.write(Packet(kind, bytes(100 if i % 4 == 0 else 10), 20 + i, bytes(8)))
    return out.getvalue()


@pytest.fixture
def file(tmp_path):
    def make(data: bytes) -> str:
        path = tmp_path / "a.lgmc"
        path.write_bytes(data)
        return str(path)

    return make


def inspect_json(path, capsys):
    code = main(["inspect", path, "--no-parts", "--json"])
    out, err = capsys.readouterr()
    return code, json.loads(out), err


def test_every_byte_has_a_use(file, capsys):
    data = stream()
    code, report, err = inspect_json(file(data), capsys)
    assert (code, err) == (0, "")
    assert report["bytes"] == len(data) == sum(report["bytes_by_use"].values())
    assert report["bytes_by_use"]["payload"] == 2 * 100 + 4 * 10
    assert report["bytes_by_use"]["digest"] == 6 * 8
    assert report["bytes_by_use"]["quality"] == 6
    assert report["bytes_by_use"]["unread"] == 0
    assert [frame["type"] for frame in report["frames"]] == list("IPPPIP")
    assert [frame["quality"] for frame in report["frames"]] == [20, 21, 22, 23, 24, 25]
    offsets = [frame["offset"] for frame in report["frames"]]
    assert all(data[o] == ord(f["type"]) for o, f in zip(offsets, report["frames"], strict=True))
    assert report["bits_per_pixel"] == pytest.approx(8 * len(data) / (64 * 48 * 6))
    assert report["kbit_per_second"] == pytest.approx(8 * len(data) * 25 / 6 / 1000)
    assert report["header"]["model"] == "some-model"
    assert report["header"]["frame_count"] == 6
    assert report["damage"] is None


def test_text(file, capsys):
    data = stream()
    assert main(["inspect", file(data), "--no-parts", "--frames"]) == 0
    out = capsys.readouterr().out
    assert f"{len(data):,} bytes" in out
    assert "64x48, 4:2:0 8 bit, bt709 limited range" in out
    assert "6 frames at 25 a second, 0.24 s" in out
    assert "2 I frames, 115 bytes each" in out
    assert "100.0%  the whole file" in out
    assert len(re.findall(r"^ +\d+ +[IP] +\d+ +\d+ +\d+$", out, re.MULTILINE)) == 6


@pytest.mark.parametrize("cut", [1, 30, 200])
def test_a_cut_stream_is_shown_and_is_an_error(file, capsys, cut):
    data = stream()[:-cut]
    code, report, err = inspect_json(file(data), capsys)
    assert code == 1
    assert report["bytes"] == len(data) == sum(report["bytes_by_use"].values())
    assert "cut off" in report["damage"] and err == f"lgmc: {report['damage']}\n"


def test_what_is_after_a_damage_is_counted(file, capsys):
    data = bytearray(stream())
    data[250] ^= 4
    code, report, err = inspect_json(file(bytes(data)), capsys)
    assert code == 1
    assert report["bytes_by_use"]["unread"] > 0
    assert sum(report["bytes_by_use"].values()) == len(data)
    assert "--partial" in err and err.count("\n") == 1


def test_standard_input(monkeypatch, capsys):
    class Pipe(io.BytesIO):
        def seekable(self):
            return False

    class Standard:
        buffer = Pipe(stream())

    monkeypatch.setattr("sys.stdin", Standard)
    code, report, _ = inspect_json("-", capsys)
    assert code == 0
    assert sum(report["bytes_by_use"].values()) == report["bytes"] == len(stream())


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is empty"),
        (b"just some text, no video\n", "not a .lgmc stream"),
        (stream()[:20], "ends inside its sequence header"),
        (b"LGMC\x02" + stream()[5:], "version 2, and this program reads version 1"),
    ],
)
def test_what_is_no_stream(file, capsys, data, says):
    path = file(data)
    assert main(["inspect", path]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"lgmc: {path} ") and says in err and err.count("\n") == 1


def test_no_file_and_a_folder(tmp_path, capsys):
    assert main(["inspect", str(tmp_path / "none.lgmc")]) == 1
    assert "no such file" in capsys.readouterr().err
    assert main(["inspect", str(tmp_path)]) == 1
    assert "this is a folder" in capsys.readouterr().err
