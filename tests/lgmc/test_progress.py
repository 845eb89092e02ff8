"""A bar on a terminal, sparse plain lines elsewhere, nothing on standard output."""

import io

import lgmc.progress
from lgmc.progress import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_plain_lines_are_sparse(monkeypatch):
    now = 100.0
    monkeypatch.setattr(lgmc.progress.time, "monotonic", lambda: now)
    out = io.StringIO()
    with Progress("encode", out) as progress:
        for done in range(1, 41):
            now += 0.5
            progress(done, 40)
    assert out.getvalue().splitlines() == [
        "encode: 10 of 40 frames, 2.00 a second",
        "encode: 20 of 40 frames, 2.00 a second",
        "encode: 30 of 40 frames, 2.00 a second",
        "encode: 40 of 40 frames, 2.00 a second",
    ]


def test_a_stream_of_unknown_length(monkeypatch):
    now = 0.0
    monkeypatch.setattr(lgmc.progress.time, "monotonic", lambda: now)
    out = io.StringIO()
    with Progress("decode", out) as progress:
        now = 6.0
        progress(3)
    assert out.getvalue() == "decode: 3 frames, 0.50 a second\n"


def test_a_bar_on_a_terminal(capsys):
    out = Terminal()
    with Progress("encode", out) as progress:
        for done in (1, 2, 3):
            progress(done, 3)
    assert "encode" in out.getvalue() and "\r" in out.getvalue()
    assert capsys.readouterr() == ("", "")
