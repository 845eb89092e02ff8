"""A validator of the part of JSON Schema that pydantic writes for our models.

No package of the tests brings one. A keyword that it does not know fails, so nothing goes by
unchecked.
"""

from __future__ import annotations

from typing import Any

ANNOTATIONS = {"$schema", "$defs", "title", "description", "default", "unit", "unknowable"}
TYPES = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "null": type(None),
}


def problems(value: Any, schema: dict[str, Any], root: dict[str, Any], at: str = "$") -> list[str]:
    """What of ``value`` is not as ``schema`` says, a sentence each; empty where it is valid."""
    if "$ref" in schema:
        schema = root["$defs"][schema["$ref"].removeprefix("#/$defs/")]
    found = []
    for keyword, wanted in schema.items():
        if keyword in ANNOTATIONS:
            continue
        if keyword == "anyOf":
            if all(problems(value, one, root, at) for one in wanted):
                found.append(f"{at}: {value!r} is none of {wanted}")
        elif keyword == "type":
            if not isinstance(value, TYPES[wanted]) or isinstance(value, bool):
                found.append(f"{at}: {value!r} is no {wanted}")
        elif keyword == "const":
            found += [] if value == wanted else [f"{at}: {value!r} is not {wanted!r}"]
        elif keyword == "enum":
            found += [] if value in wanted else [f"{at}: {value!r} is not in {wanted}"]
        elif keyword == "minimum":
            found += [f"{at}: {value} < {wanted}"] if _number(value) and value < wanted else []
        elif keyword == "exclusiveMinimum":
            found += [f"{at}: {value} <= {wanted}"] if _number(value) and value <= wanted else []
        elif keyword == "items":
            entries = enumerate(value) if isinstance(value, list) else ()
            for index, entry in entries:
                found += problems(entry, wanted, root, f"{at}[{index}]")
        elif keyword == "required":
            lacking = set(wanted) - set(value) if isinstance(value, dict) else ()
            found += [f"{at}: {name} is missing" for name in sorted(lacking)]
        elif keyword in ("properties", "additionalProperties"):
            continue  # below, together
        else:
            raise AssertionError(f"the validator does not know {keyword!r}")
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        others = schema.get("additionalProperties", True)
        for name, entry in value.items():
            if name in properties:
                found += problems(entry, properties[name], root, f"{at}.{name}")
            elif others is False:
                found.append(f"{at}: {name} is not a field")
            elif others is not True:
                found += problems(entry, others, root, f"{at}.{name}")
    return found


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
