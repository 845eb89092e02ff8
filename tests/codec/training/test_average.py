"""The average of two models, as scripts/average_models.py makes it of files."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from codec.errors import ConfigError
from codec.models import export, load
from codec.training.average import between

from ..conftest import debug_config, loud_codec

SCRIPT = Path(__file__).parents[3] / "scripts" / "average_models.py"


@pytest.fixture(scope="module")
def pair():
    return [loud_codec(debug_config("mixture"), seed=seed) for seed in (1, 2)]


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_parameters_lie_between(pair, share):
    first, second = (dict(codec.named_parameters()) for codec in pair)
    for name, value in between(*pair, share).named_parameters():
        if name.endswith("quantiles"):
            continue  # found of the density when its table is built
        torch.testing.assert_close(value, torch.lerp(first[name], second[name], share))


def test_tables_are_the_averages_own(pair):
    average = between(*pair, 0.5)
    kept = {name: value.clone() for name, value in average.state_dict().items()}
    average.update()
    assert all(torch.equal(value, kept[name]) for name, value in average.state_dict().items())
    tables = [name for name in kept if name.endswith("_quantized_cdf")]
    first = pair[0].state_dict()
    assert any(
        kept[name].shape != first[name].shape or not torch.equal(kept[name], first[name])
        for name in tables
    )


def test_what_was_averaged_stays_as_it_was(pair):
    before = {name: value.clone() for name, value in pair[0].state_dict().items()}
    between(*pair, 0.5)
    assert all(torch.equal(value, before[name]) for name, value in pair[0].state_dict().items())


def test_other_models_have_no_average(pair):
    with pytest.raises(ConfigError, match="different configurations"):
        between(pair[0], loud_codec(debug_config()), 0.5)


def test_the_script(pair, tmp_path):
    paths = [tmp_path / f"{n}.safetensors" for n in range(2)]
    digests = [export(c, p, {"steps": 7}) for c, p in zip(pair, paths, strict=True)]
    out = tmp_path / "out.safetensors"
    command = [sys.executable, SCRIPT, *paths, "--share", "0.25", "-o", out]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    model = load(out)
    assert model.digest.hex() in done.stdout
    assert model.card["average"]["of"] == [digest.hex() for digest in digests]
    assert model.card["average"]["share"] == 0.25 and model.card["steps"] == 7
    expected = between(*(load(path).codec for path in paths), 0.25)
    for name, value in model.codec.named_parameters():
        torch.testing.assert_close(value, expected.get_parameter(name).half().float())
    refused = subprocess.run(
        [*command, "--share", "1.5"], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert refused.returncode == 2 and "not between 0 and 1" in refused.stderr
