"""Configurations: bases, overrides, and errors that name what was meant."""

from pathlib import Path

import pytest

from codec.config import load_experiment
from codec.errors import ConfigError

CONFIGS = Path(__file__).parents[2] / "configs"
SHIFTED = ["model.inter.compensation=[local, shifted]"]
GLOBAL = ["model.inter.compensation=[local, global]"]


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda p: p.stem)
def test_every_config_is_valid(path):
    experiment = load_experiment(path)
    assert experiment.name == path.stem


def test_own_keys_lie_over_the_bases(tmp_path):
    (tmp_path / "a.yaml").write_text("training: {seed: 1, clip_norm: 2.0}\n")
    (tmp_path / "b.yaml").write_text("base: a.yaml\ntraining: {seed: 5}\n")
    experiment = load_experiment(tmp_path / "b.yaml", ["training.data.crop=128"])
    assert experiment.name == "b"
    assert experiment.training.seed == 5
    assert experiment.training.clip_norm == 2.0
    assert experiment.training.data.crop == 128


def test_overrides_reach_into_lists():
    experiment = load_experiment(CONFIGS / "debug.yaml", ["training.stages.1.steps=77"])
    assert experiment.training.stages[1].steps == 77


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["training.sede=3"], "unknown key 'training.sede'; the nearest key is 'seed'"),
        (["model.inter.motion.laten=3"], "the nearest key is 'latent'"),
        (["training.stages.0.step=3"], "the nearest key is 'steps'"),
        (["training.stages.9.steps=3"], "not an index below 4"),
        (["training.seed"], "key.path=value"),
        (["training.seed=x"], "training.seed"),
        (["training.seed.deep=1"], "holds a value"),
        (["model.lambda_min=-1"], "greater than 0"),
        (["model.lambda_min=9999"], "lambda_max must not be below"),
        (["training.stages.0.loss=all_of_it"], "loss"),
        (["model.inter.latent=0"], "greater than 0"),
        (["model.intra.scale_width=0"], "greater than 0"),
        (["model.inter.flow.kernel=4"], "must be odd"),
        (["model.inter.shifted.window=4"], "must be odd"),
        (["model.inter.shifted.topk=26"], "at most the 25 candidates"),
        (["model.inter.shifted.heads=3"], "a multiple of its 3 heads"),
        (["model.inter.channels=[8]"], "channels of family lite are two"),
        (["model.intra.entropy.scale_min=64"], "scale_max must be above scale_min"),
        (["model.intra.latent=7", "model.intra.entropy.passes=2"], "an even number, not 7"),
        (["model.inter.latent=7", "model.inter.entropy.passes=2"], "an even number, not 7"),
        (["model.inter.compensation=[]"], "must have local in it"),
        (["model.inter.compensation=[global]"], "must have local in it"),
        (["model.inter.compensation=[local, local]"], "no stage twice"),
        ([*SHIFTED, "model.inter.shifted.scales=[2]"], "shifted.scales must be of 0..1"),
        ([*GLOBAL, "model.inter.global_attention.scales=[-1]"], "must be of 0..1"),
        ([*GLOBAL, "model.inter.global_attention.heads=5"], "heads must divide"),
        (
            [*GLOBAL, "model.inter.global_attention={heads: 5, query: coder}"],
            "heads must divide 16",
        ),
    ],
)
def test_mistakes_are_one_line_that_helps(overrides, says):
    with pytest.raises(ConfigError) as caught:
        load_experiment(CONFIGS / "debug.yaml", overrides)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: [1", "is not YAML"),
        ("- 1", "must hold keys"),
        ("base: c.yaml", "own base"),
        ("base: 5", "another"),
    ],
)
def test_bad_files(tmp_path, text, says):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=says):
        load_experiment(path)


def test_missing_file(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load_experiment(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("train", "loss", "named"),
    [
        ("[]", "all", "intra, inter, all"),
        ("[recon]", "motion_d", "all, entropy, flow, inter, intra, motion"),
        ("[intra, motion]", "flow", "all, flow, inter"),
    ],
)
def test_a_stage_of_which_nothing_learns_is_refused_before_it_begins(train, loss, named):
    rows = f"training.stages=[{{name: a, frames: 2, steps: 1, train: {train}, loss: {loss}}}]"
    with pytest.raises(ConfigError, match=f"nothing that learns from loss {loss}: .* {named}$"):
        load_experiment(CONFIGS / "debug.yaml", [rows])
