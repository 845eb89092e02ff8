"""The format of result files for programs, as JSON Schema, and for people, as tables.

Both are made from the models of ``eval.results``; docs/results_format.md holds the tables.
"""

from __future__ import annotations

import re
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema

from eval.results import (
    FORMAT,
    Conditions,
    Failure,
    Imported,
    PerFrame,
    RdPoint,
    RdResults,
    SequenceInfo,
    is_unknowable,
)

RECORDS = (RdResults, Conditions, SequenceInfo, RdPoint, PerFrame, Failure, Imported)
"""Every model of the format, the whole file first."""


def results_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of a result file; ``unit`` and ``unknowable`` are our annotations.

    It says what each field may hold, not what holds between fields (``bpp`` against ``bytes``,
    lengths of the lists per frame, unique names, nulls only where ``imported`` is not null):
    ``eval.results.load_results`` checks that too.
    """
    schema = RdResults.model_json_schema()
    return {"$schema": GenerateJsonSchema.schema_dialect, **schema, "title": FORMAT}


def field_tables() -> str:
    """One Markdown table per record: field, type, unit, meaning."""
    return "\n".join(_table(record) for record in RECORDS)


def _table(record: type[BaseModel]) -> str:
    lines = [
        f"### {record.__name__}",
        "",
        " ".join((record.__doc__ or "").split()),
        "",
        "| field | type | unit | what |",
        "|---|---|---|---|",
    ]
    for name, field in record.model_fields.items():
        unit = (field.json_schema_extra or {}).get("unit", "")
        what = field.description + ("; may be unknown" if is_unknowable(field) else "")
        lines.append(f"| `{name}` | {_type(field)} | {unit} | {what} |")
    return "\n".join(lines) + "\n"


def _type(field: FieldInfo) -> str:
    """The annotation as it is written in Python, without the modules' names."""
    annotation = field.annotation
    plain = isinstance(annotation, type) and not get_args(annotation)
    text = annotation.__name__ if plain else str(annotation)
    text = re.sub(r"\b(typing|eval\.results)\.", "", text)
    text = re.sub(r"Optional\[(.*)\]", r"\1 | None", text)
    text = re.sub(
        r"Literal\[([^\]]*)\]", lambda m: m[1].replace("'", '"').replace(", ", " | "), text
    )
    return "`" + text.replace("None", "null").replace("|", "\\|") + "`"
