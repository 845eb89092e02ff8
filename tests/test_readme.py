"""What the README and the docs tell people to type works as it is written."""

import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str, page: str = README) -> list[str]:
    """The fenced blocks of a page in one language."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    return [text for marked, text in fenced if marked == language]


def commands() -> list[str]:
    lines = "\n".join(blocks("sh")).replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip()]


@pytest.mark.parametrize("line", [one for one in commands() if one.startswith("lgmc ")])
def test_commands_parse(line):
    from lgmc.main import build_parser

    arguments = shlex.split(line, comments=True)[1:]
    assert callable(build_parser().parse_args(arguments).run)


def test_every_verb_is_a_verb_and_the_main_ones_are_shown():
    from lgmc.main import VERBS

    shown = {line.split()[1] for line in commands() if line.startswith("lgmc ")}
    assert shown <= set(VERBS)
    assert {"encode", "decode", "inspect", "eval", "bdrate", "models"} <= shown


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"\bmake ([a-z-]+)\b", " ".join(re.findall(r"`[^`]*`", README))):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_training_commands_are_of_known_configs_and_keys():
    from codec.config import load_experiment

    lines = [shlex.split(line) for line in commands() if line.startswith("python train_codec.py")]
    assert lines
    for _, _, config, *overrides in lines:
        assert load_experiment(ROOT / config, overrides).training.data.paths == ("my-clips",)


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda page: page.name
)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links {target}"


def test_the_tree_is_the_tree():
    (tree,) = [block for block in blocks("") if "train_codec.py" in block]
    parent = ""
    for line in tree.splitlines():
        name = line.split()[0]
        if line.startswith(" "):
            name = parent + name
        else:
            parent = name
        assert (ROOT / name).exists(), f"{name} is in the README and not in the repository"


def test_the_python_examples_run(tmp_path, monkeypatch):
    from codec.video import open_reader
    from codec.video.synthetic import write_synthetic

    monkeypatch.chdir(tmp_path)
    write_synthetic("pan", "in.mp4", 96, 64, 3)
    names: dict = {}
    for example in blocks("python"):
        exec(compile(example, "README.md", "exec"), names)
    assert names["near"].shape == names["far"].shape == (1, 64, 96, 160)
    assert (tmp_path / "out.lgmc").stat().st_size > 0
    with open_reader("in.mp4") as reader:
        assert [plane.shape for plane in names["frame"]] == list(reader.format.plane_shapes())


def test_the_example_of_single_frames_runs(capsys):
    (example,) = blocks("python", (ROOT / "docs" / "extending.md").read_text())
    names: dict = {}
    exec(compile(example, "extending.md", "exec"), names)
    first, *others = capsys.readouterr().out.splitlines()
    assert "'intra'" in first and all("'residual'" in line for line in others) and len(others) == 2
    assert sum(names["estimate"].bits.values()) <= 8 * len(names["stream"])


def test_files_that_extending_names_are_there():
    page = (ROOT / "docs" / "extending.md").read_text()
    for path in re.findall(r"`([a-z_]+/[a-z_/]+(?:\.[a-z]+)?/?)`", page):
        assert (ROOT / path).exists(), path
