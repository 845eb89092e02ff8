"""The page: templates, styles, scripts, data and pictures put together into one file."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from eval.conditions import now
from eval.plot import frame_counts, intra_periods
from eval.report.content import page_content
from eval.report.embed import Album
from eval.report.folder import Measured
from eval.results import RdResults, SequenceInfo, write_text

TEMPLATES = Path(__file__).parent
SCRIPTS = ("draw.js", "curves.js", "deltas.js", "frames.js", "viewer.js", "main.js")
"""In the order in which they are read; all of them see one another."""


def save_page(measured: Measured, path: str | Path, *, album: Album | None = None) -> int:
    """Write the report of ``measured`` and return its size in bytes.

    album: the viewer's pictures; without them the page says why there is no viewer. Raises
    ResultsError where the file cannot be written.
    """
    text = page(measured, album=album)
    write_text(path, text)
    return len(text.encode())


def page(measured: Measured, *, album: Album | None = None) -> str:
    """The report as HTML that asks nothing of any network."""
    names = ", ".join(one.codec for one in measured.results)
    parts = {
        "title": escape(f"Rate and distortion of {names}"),
        "style": (TEMPLATES / "page.css").read_text(encoding="utf-8"),
        "summary": _summary(measured),
        "remarks": _remarks(measured),
        "viewer": _viewer_words(album),
        "sequences": _sequences(measured.results),
        "conditions": "\n".join(_conditions(one) for one in measured.results),
        "data": _json(page_content(measured, album)),
        "pictures": _json({} if album is None else album.uris()),
        "script": "\n".join((TEMPLATES / one).read_text(encoding="utf-8") for one in SCRIPTS),
    }
    template = (TEMPLATES / "page.html").read_text(encoding="utf-8")
    return re.sub(r"@@(\w+)@@", lambda match: parts[match[1]], template)


def _json(content: Any) -> str:
    """JSON that may stand inside a script element."""
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def _summary(measured: Measured) -> str:
    results = measured.results
    points = sum(len(one.points) for one in results)
    count = f"{frame_counts(results)} frames"
    periods = intra_periods(results)
    return escape(
        f"{len(results)} codecs, {len(measured.sequences)} sequences of {count}, {points} points, "
        f"intra period {periods}. Report made {now()}."
    )


def _remarks(measured: Measured) -> str:
    """Problems, failed points and notes, one item each; nothing where there are none."""
    failed = [
        f"no point of {one.codec} at {failure.level} on {failure.sequence}: {failure.error}"
        for one in measured.results
        for failure in one.failures
    ]
    groups = (("Missing", [*measured.problems, *failed]), ("Notes", measured.notes))
    return "\n".join(
        f'<section class="remarks {title.lower()}"><h2>{title}</h2>{_list(sentences)}</section>'
        for title, sentences in groups
        if sentences
    )


def _viewer_words(album: Album | None) -> str:
    if album is None:
        return (
            "Result files hold no pictures: <code>lgmc report DIR --sequences CLIPS</code> makes "
            "them from the measured clips. Without them there is no viewer."
        )
    width, height = album.window
    return (
        "Each picture is a frame decoded from a real file, exact in 8-bit RGB (lossless WebP, "
        f"{album.size / 2**20:.1f} MiB in all). Pictures larger than {width}x{height} are cut to "
        "the middle, not scaled. The others are shown at their point nearest in bits per pixel."
    )


def _sequences(results: Sequence[RdResults]) -> str:
    infos: dict[str, SequenceInfo] = {}
    for one in results:
        for info in one.sequences:
            infos.setdefault(info.name, info)
    head = ("sequence", "size", "frames", "fps", "format", "matrix, range", "SHA-256")
    rows = [
        (
            info.name,
            f"{_known(info.width)}x{_known(info.height)}",
            _known(info.frames),
            _known(info.fps),
            f"{_known(info.chroma)}, {_known(info.bit_depth)} bit",
            f"{_known(info.matrix)}, {_known(info.range)}",
            _known(info.digest)[:16],
        )
        for info in infos.values()
    ]
    return _table(head, rows)


def _known(value: object) -> str:
    return "?" if value is None else str(value)


def _conditions(results: RdResults) -> str:
    rows = [*_origin(results), ("levels", _levels(results))]
    terms = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in rows)
    return f"<details><summary>{escape(results.codec)}</summary><dl>{terms}</dl></details>"


def _origin(results: RdResults) -> list[tuple[str, str]]:
    """How the figures were measured, or where they were imported from."""
    conditions, imported = results.conditions, results.imported
    if conditions is None:
        return [
            ("not measured here", f"imported from a file of {imported.format}"),
            ("files", _pairs(imported.files)),
            ("they say", imported.description or "nothing"),
            ("notes", "; ".join(imported.notes)),
        ]
    return [
        ("date", conditions.date),
        ("command", shlex.join(conditions.command)),
        ("machine", _pairs(conditions.machine)),
        ("device", conditions.device),
        ("versions", _pairs(conditions.versions)),
        ("codec", _pairs(conditions.codec)),
        *(("some points on", _pairs(machine)) for machine in _elsewhere(results)),
        ("intra period", str(conditions.intra_period)),
        ("frames", "all" if conditions.frames is None else f"the first {conditions.frames}"),
    ]


def _elsewhere(results: RdResults) -> list[dict[str, Any]]:
    """The other machines that measured points."""
    machines: list[dict[str, Any]] = []
    for point in results.points:
        if point.machine is not None and point.machine not in machines:
            machines.append(point.machine)
    return machines


def _levels(results: RdResults) -> str:
    levels = sorted({point.level for point in results.points})
    return f"{results.parameter} {', '.join(map(str, levels))}"


def _pairs(values: dict[str, Any]) -> str:
    return "; ".join(f"{name}: {'none' if v is None else v}" for name, v in values.items())


def _list(sentences: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(one)}</li>" for one in sentences) + "</ul>"


def _breakable(text: str) -> str:
    """Text that may break after an underscore: clips have long names, telephones are narrow."""
    return escape(text).replace("_", "_<wbr>")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    cells = "".join(f'<th scope="col">{escape(one)}</th>' for one in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{_breakable(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{escape(head[0])}">'
        f"<table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table></div>"
    )
