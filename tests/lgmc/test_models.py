"""`lgmc models`: what ships, one model's card, and what cannot be imported."""

import json

import pytest

from lgmc.main import main


def test_list(capsys):
    from codec.models import available

    assert main(["models", "--json"]) == 0
    models = json.loads(capsys.readouterr().out)
    assert [model["name"] for model in models] == list(available())
    assert main(["models"]) == 0
    out = capsys.readouterr().out
    assert all(model["name"] in out and model["digest"] in out for model in models)


def test_show(model, capsys):
    assert main(["models", "show", model]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["name"], shown["card"]) == ("debug", {})
    assert len(shown["digest"]) == 32


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["show", "nonsense"], "nonsense"),
        (["show", "none.safetensors"], "no such model file"),
        (["import", "none.pth", "out.bin"], ".safetensors"),
        (["import", "none.pth", "out.safetensors"], "none.pth"),
        (["import", "text.pth", "out.safetensors"], "text.pth"),
    ],
)
def test_bad_input(words, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.pth").write_text("no checkpoint\n")
    assert main(["models", *words]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("lgmc: ") and says in err and err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["text.pth"]
