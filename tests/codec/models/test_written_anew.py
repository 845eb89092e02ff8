"""A model file that is written anew, with another card, stays the same model."""

import json

from codec.models import export, store

from ..conftest import debug_config, loud_codec


def test_it_keeps_its_digest(tmp_path):
    path, again = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    export(loud_codec(debug_config()), path, {})
    tensors, config, _, _ = store.read_model(path)
    # As a version wrote it that knew fewer keys.
    older = json.loads(config.model_dump_json())
    del older["inter"]["entropy"]["passes"], older["intra"]["entropy"]["pass_width"]
    text = json.dumps(older)
    digest = store.save_model(path, tensors, text, {})
    tensors, config, _, read = store.read_model(path)
    assert read == digest
    assert store.save_model(again, tensors, store.read_metadata(path)["config"], {"n": 1}) == digest
    assert store.read_model(again)[2:] == ({"n": 1}, digest)
    assert store.save_model(again, tensors, config, {}) != digest
