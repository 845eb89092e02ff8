"""What an installation holds, the pins, and the order in which the packages import one another."""

import ast
import os
import sys
from fnmatch import fnmatch
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
PYTHONS = ("3.10", "3.11", "3.12")

# Higher imports lower, never the other way and never a neighbour.
PACKAGES = {"lgmc": 4, "train_codec": 4, "benchmarks": 3, "eval": 2, "codec": 1, "kernels": 0}
# The same inside codec, by module or folder.
ROOMS = {
    "session": 9,
    "training": 9,
    "models": 8,
    "frame_encoder": 8,
    "video_codec": 7,
    "inter": 6,
    "intra": 6,
    "tcm": 5,
    "lite": 5,
    "motion": 4,
    "motion_descent": 5,
    "coding_descent": 5,
    "latent_descent": 4,
    "motion_refine": 4,
    "motion_variational": 3,
    "compensation": 4,
    "entropy": 3,
    "flow": 3,
    "flow_correlation": 3,
    "layers": 2,
    "bitstream": 2,
    "video": 2,
    "config": 1,
    "effort": 1,
    "drawing": 0,
    "graphed": 0,
    "rate": 1,
    "memory": 0,
    "standard_input": 1,
    "errors": 0,
}
# Distributions whose module has another name.
DISTRIBUTIONS = {
    "yaml": "pyyaml",
    "PIL": "pillow",
    "skimage": "scikit-image",
    "ffmpeg": "ffmpeg-python",
    "cv2": "opencv-python-headless",
    "llvmlite": "numba",  # which brings it
    "triton": "torch",  # comes with torch where it can run
}


def sources() -> list[Path]:
    """Every Python file that is part of the product."""
    found = sorted(ROOT.glob("*.py"))
    for package in PACKAGES:
        found += sorted((ROOT / package).rglob("*.py"))
    return found


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def imports(path: Path) -> list[str]:
    """Full names of the modules that a file imports, at any depth of its code."""
    names = []
    package = module_name(path).split(".")[: None if path.name == "__init__.py" else -1]
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            base = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                names.append(inner if is_module(inner) else base)
    return names


def pins(python: str) -> dict[str, Requirement]:
    """constraints.txt as one Python version reads it."""
    result: dict[str, Requirement] = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        requirement = Requirement(line)
        if requirement.marker and not requirement.marker.evaluate({"python_version": python}):
            continue
        name = canonicalize_name(requirement.name)
        assert name not in result, f"{name} is pinned twice for Python {python}"
        result[name] = requirement
    return result


def declared(*extras: str) -> list[Requirement]:
    lines = list(PROJECT["dependencies"])
    for extra in extras:
        lines += PROJECT["optional-dependencies"][extra]
    requirements = [Requirement(line) for line in lines]
    return [one for one in requirements if one.name != PROJECT["name"]]


@pytest.mark.parametrize("python", PYTHONS)
def test_pins_are_exact_and_within_the_ranges(python):
    pinned = pins(python)
    for name, requirement in pinned.items():
        (specifier,) = requirement.specifier
        assert specifier.operator == "==" and requirement.url is None, name
    for requirement in declared("cluster", "test", "dev"):
        if requirement.marker and not requirement.marker.evaluate({"python_version": python}):
            continue
        (pin,) = pinned[canonicalize_name(requirement.name)].specifier
        assert pin.version in requirement.specifier, f"{requirement} excludes the tested {pin}"


def test_python_versions_agree():
    supported = SpecifierSet(PROJECT["requires-python"])
    minors = [f"3.{minor}" for minor in range(8, 20)]
    assert [one for one in minors if f"{one}.0" in supported] == list(PYTHONS)
    classified = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if "Python ::" in line]
    assert classified == list(PYTHONS)
    script = (ROOT / "scripts" / "environment.sh").read_text()
    assert "(3, 10) <= sys.version_info < (3, 13)" in script


def test_versions_agree():
    try:
        installed = version(PROJECT["name"])
    except PackageNotFoundError:
        pytest.skip("lvc-lgmc is not installed in this environment")
    assert installed == PROJECT["version"]


def test_commands_are_there():
    for target in PROJECT["scripts"].values():
        module, _, function = target.partition(":")
        assert callable(getattr(import_module(module), function))
    for name in PYPROJECT["tool"]["setuptools"]["py-modules"]:
        assert (ROOT / f"{name}.py").is_file()
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_every_package_is_installed():
    include = PYPROJECT["tool"]["setuptools"]["packages"]["find"]["include"]
    modules = PYPROJECT["tool"]["setuptools"]["py-modules"]
    for path in sources():
        folder = path.parent
        if folder == ROOT:
            assert path.stem in modules, f"{path.name} is not in py-modules"
            continue
        assert (folder / "__init__.py").is_file(), f"{folder.relative_to(ROOT)} is no package"
        assert any(fnmatch(module_name(path).split(".")[0], pattern) for pattern in include)


def test_every_data_file_is_installed():
    patterns = PYPROJECT["tool"]["setuptools"]["package-data"]["*"]
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*"):
            compiled = path.parent.name == "__pycache__"  # by Python or numba
            if path.is_file() and path.suffix != ".py" and not compiled:
                assert any(fnmatch(path.name, pattern) for pattern in patterns), (
                    f"{path.relative_to(ROOT)} matches no pattern of package-data"
                )


def test_every_import_is_declared():
    names = {canonicalize_name(one.name) for one in declared("correlation", "bench", "cluster")}
    for path in sources():
        for name in imports(path):
            top = name.partition(".")[0]
            if top in sys.stdlib_module_names or top in PACKAGES:
                continue
            distribution = canonicalize_name(DISTRIBUTIONS.get(top, top))
            assert distribution in names, f"{path.relative_to(ROOT)} imports {top}: declare it"


def test_packages_import_downwards():
    for path in sources():
        own = module_name(path).partition(".")[0]
        for name in imports(path):
            other = name.partition(".")[0]
            if other in PACKAGES and other != own:
                assert PACKAGES[other] < PACKAGES[own], (
                    f"{path.relative_to(ROOT)} imports {name}, which is not below {own}"
                )


def test_rooms_of_the_codec_import_downwards():
    for path in (ROOT / "codec").rglob("*.py"):
        own = module_name(path).split(".")[1:2]
        if not own:
            continue  # codec/__init__.py offers what is in every room
        assert own[0] in ROOMS, f"say in ROOMS where codec.{own[0]} stands"
        for name in imports(path):
            package, *other = name.split(".")[:2]
            if package == "codec" and other and other != own:
                assert ROOMS[other[0]] < ROOMS[own[0]], (
                    f"{path.relative_to(ROOT)} imports {name}, which is not below {own[0]}"
                )


def test_files_stay_small():
    for path in [*sources(), *(ROOT / "tests").rglob("*.py")]:
        lines = len(path.read_text().splitlines())
        assert lines <= 700, f"{path.relative_to(ROOT)} has {lines} lines: split it"
