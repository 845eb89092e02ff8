"""The JSON Schema of result files, their document, and files that are written."""

import copy
import json
from pathlib import Path

import pytest

from eval.results import load_results, save_results
from eval.results_schema import RECORDS, field_tables, results_schema
from lgmc.main import main

from .json_schema import problems

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "results_format.md"
SCHEMA = results_schema()


@pytest.mark.parametrize("record", RECORDS)
def test_every_field_is_described(record):
    for name, field in record.model_fields.items():
        assert field.description, f"{record.__name__}.{name}"
    written = SCHEMA if record.__name__ == "RdResults" else SCHEMA["$defs"][record.__name__]
    assert set(written["properties"]) == set(record.model_fields)
    assert all("description" in one for one in written["properties"].values())


def test_every_record_is_in_the_schema_and_no_other():
    assert set(SCHEMA["$defs"]) == {record.__name__ for record in RECORDS} - {"RdResults"}


def test_the_document_holds_the_tables_of_the_models():
    begin, end = "<!-- lgmc results schema --tables -->\n", "<!-- end of the tables -->"
    text = DOCUMENT.read_text(encoding="utf-8")
    assert text[text.index(begin) + len(begin) : text.index(end)] == field_tables()


def test_quantities_have_units():
    """A field that is a number says of what, unless it only counts levels."""
    for record in [SCHEMA, *SCHEMA["$defs"].values()]:
        for name, field in record["properties"].items():
            kinds = {one.get("type") for one in field.get("anyOf", [field])}
            if kinds & {"integer", "number"} and name != "level":
                assert field.get("unit"), f"{record['title']}.{name}"


def test_the_command_prints_both(capsys):
    assert main(["results", "schema"]) == 0
    assert json.loads(capsys.readouterr().out) == SCHEMA
    assert main(["results", "schema", "--tables"]) == 0
    assert capsys.readouterr().out == field_tables() + "\n"


def _written(results, path):
    save_results(results, path)
    return json.loads(path.read_text())


def test_written_files_are_valid(results, tmp_path):
    for one in results:
        assert problems(_written(one, tmp_path / "one.json"), SCHEMA, SCHEMA) == []


CHANGES = {
    "a size that is text": lambda c: c["points"][0].update(bytes="many"),
    "a size of 0": lambda c: c["points"][0].update(bytes=0),
    "a rate of 0": lambda c: c["points"][0].update(bpp=0.0),
    "a field more": lambda c: c["points"][0].update(extra=1),
    "a field less": lambda c: c["sequences"][0].pop("digest"),
    "an unknown parameter": lambda c: c.update(parameter="crf"),
    "another format": lambda c: c.update(format="lgmc-rd/2"),
    "a depth of 12": lambda c: c["sequences"][0].update(bit_depth=12),
    "a metric that is text": lambda c: c["points"][0]["metrics"].update(psnr_y="x"),
    "a B frame": lambda c: c["points"][0]["per_frame"]["types"].__setitem__(0, "B"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_the_schema_refuses_our_reader_refuses(change, results, tmp_path):
    """And the validator here can fail."""
    content = copy.deepcopy(_written(results[0], tmp_path / "one.json"))
    CHANGES[change](content)
    assert problems(content, SCHEMA, SCHEMA)
    path = tmp_path / "changed.json"
    path.write_text(json.dumps(content))
    with pytest.raises(Exception, match="not a"):
        load_results(path)


NULLS = {
    "conditions of the file": lambda c: c.update(conditions=None),
    "digest of a sequence": lambda c: c["sequences"][0].update(digest=None),
    "bytes of a point": lambda c: c["points"][0].update(bytes=None),
    "arguments of a point": lambda c: c["points"][0].update(arguments=None),
}


@pytest.mark.parametrize("name", NULLS)
def test_only_imported_files_may_not_know(name, results, tmp_path):
    content = _written(results[0], tmp_path / "one.json")
    NULLS[name](content)
    path = tmp_path / "changed.json"
    path.write_text(json.dumps(content))
    with pytest.raises(Exception, match=f"{name} is null, which only an imported file may have"):
        load_results(path)
    content["imported"] = {"format": "dcvc", "files": {}, "description": "", "notes": []}
    path.write_text(json.dumps(content))
    load_results(path)
