import pytest

from codec.models import export

from ..codec.conftest import debug_config, loud_codec


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    """A tiny model's file."""
    path = tmp_path_factory.mktemp("model") / "debug.safetensors"
    export(loud_codec(debug_config()), path, {})
    return str(path)
