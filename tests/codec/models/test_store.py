"""Model files, compressed and not: what was written is read, what is damaged is said."""

import lzma
import shutil

import pytest
import safetensors.torch
import torch

from codec.errors import ModelError
from codec.models import describe, export, load, store
from codec.training.checkpoint import load_weights
from codec.video_codec import VideoCodec

from ..conftest import debug_config, loud_codec


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder, codec = tmp_path_factory.mktemp("models"), loud_codec(debug_config())
    paths = [folder / f"a{suffix}" for suffix in store.SUFFIXES]
    assert len({export(codec, path, {"n": 1}) for path in paths}) == 1
    return paths


def test_a_compressed_file_is_that_file_compressed(files):
    plain, compressed = files
    content = lzma.decompress(compressed.read_bytes())  # its metadata may stand in another order
    assert len(content) == plain.stat().st_size
    stored, expected = safetensors.torch.load(content), safetensors.torch.load_file(plain)
    assert stored.keys() == expected.keys()
    assert all(torch.equal(stored[name], value) for name, value in expected.items())
    assert compressed.stat().st_size < plain.stat().st_size


def test_both_hold_the_same_model(files):
    (tensors, *others), (again, *same) = map(store.read_model, files)
    assert others == same and tensors.keys() == again.keys()
    assert all(torch.equal(value, again[name]) for name, value in tensors.items())
    first, second = map(load, files)
    assert first.digest == second.digest and first.card == second.card == {"n": 1}


def test_both_are_described_by_their_start_alone(files, tmp_path):
    first, second = map(describe, files)
    for about, path in ((first, files[0]), (second, files[1])):
        assert about.pop("file") == path.name and about.pop("bytes") == path.stat().st_size
    assert first == second
    header = lzma.open(files[1]).read(8)
    start = tmp_path / "start.safetensors.xz"
    content = lzma.open(files[1]).read()[: 8 + int.from_bytes(header, "little")]
    start.write_bytes(lzma.compress(content))  # and nothing behind
    assert store.read_header(start) == store.read_header(files[1])


def test_training_begins_from_either(files):
    children = []
    for path in files:
        torch.manual_seed(1)
        children.append(VideoCodec(debug_config()))
        assert load_weights(path, children[-1]) == []
    states = [child.state_dict() for child in children]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


@pytest.mark.parametrize("which", [0, 1], ids=store.SUFFIXES)
@pytest.mark.parametrize("damage", ["cut", "changed", "empty", "other"])
def test_damage_is_an_error_of_ours(files, which, damage, tmp_path):
    path = tmp_path / files[which].name
    content = bytearray(files[which].read_bytes())
    if damage == "cut":
        del content[-len(content) // 3 :]
    elif damage == "changed":
        content[len(content) // 2] ^= 1
    elif damage == "empty":
        content.clear()
    else:
        content[:] = b"no model at all, but text\n" * 40
    path.write_bytes(content)
    with pytest.raises(ModelError, match=path.name):
        store.read_model(path)


def test_a_compressed_text_is_no_model(tmp_path):
    path = tmp_path / "a.safetensors.xz"
    for text in (b"", b"12345678", b"\x05\0\0\0\0\0\0\0null!", b"\x04\0\0\0\0\0\0\0null"):
        path.write_bytes(lzma.compress(text))
        with pytest.raises(ModelError, match="not a model file"):
            store.read_metadata(path)


def test_no_such_file(tmp_path):
    for suffix in store.SUFFIXES:
        with pytest.raises(ModelError, match="no such model file"):
            store.read_model(tmp_path / f"a{suffix}")


def test_a_plain_file_under_the_other_name(files, tmp_path):
    shutil.copy(files[0], tmp_path / "a.safetensors.xz")
    with pytest.raises(ModelError, match="not a model file"):
        store.read_model(tmp_path / "a.safetensors.xz")
