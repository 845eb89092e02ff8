"""A tiny model with random weights, a clip and a stream of it, for the command's tests."""

from pathlib import Path

import pytest

from lgmc.main import main

DEBUG = Path(__file__).parents[2] / "configs" / "debug.yaml"
WIDTH, HEIGHT, FRAMES = 70, 50, 6


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> str:
    import torch

    from codec.config import load_experiment
    from codec.models import export
    from codec.video_codec import VideoCodec

    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("model") / "debug.safetensors"
    export(VideoCodec(load_experiment(DEBUG).model), path, {})
    return str(path)


@pytest.fixture(scope="session")
def clip(tmp_path_factory) -> str:
    from codec.video.synthetic import write_synthetic

    path = tmp_path_factory.mktemp("clip") / "clip.y4m"
    write_synthetic("pan", path, WIDTH, HEIGHT, FRAMES)
    return str(path)


@pytest.fixture(scope="session")
def recon(stream) -> Path:
    """The encoder's own reconstruction of ``stream``."""
    return Path(stream).with_name("recon.y4m")


@pytest.fixture(scope="session")
def stream(tmp_path_factory, clip, model) -> str:
    folder = tmp_path_factory.mktemp("stream")
    path = folder / "clip.lgmc"
    words = [clip, str(path), "--model", model, "--intra-period", "4"]
    assert main(["encode", *words, "--recon", str(folder / "recon.y4m")]) == 0
    return str(path)


@pytest.fixture
def refuses(tmp_path, monkeypatch, capsys):
    """Runs a command in an empty folder and expects one line and nothing left behind."""
    monkeypatch.chdir(tmp_path)

    def check(words: list[str], says: str) -> None:
        before = _contents(tmp_path)
        capsys.readouterr()
        assert main(words) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("lgmc: ") and err.count("\n") == 1, err
        assert says in err
        assert _contents(tmp_path) == before

    return check


def _contents(folder: Path) -> dict[str, bytes | None]:
    paths = sorted(folder.rglob("*"))
    return {str(path): path.read_bytes() if path.is_file() else None for path in paths}
