"""Another project's package of one of our names is named, not tripped over."""

import sys

import pytest

from codec.errors import ConfigError
from lgmc.neighbours import NAMES, check_neighbours


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Makes FOLDER/shadowed_name a package; FOLDER first on the path when asked."""

    def make(folder: str, *, first_on_path: bool):
        home = tmp_path / folder
        (home / "shadowed_name").mkdir(parents=True)
        (home / "shadowed_name" / "__init__.py").touch()
        if first_on_path:
            monkeypatch.syspath_prepend(home)
        return home

    return make


def test_our_own_packages_pass():
    check_neighbours()
    assert {"codec", "eval", "kernels"} == set(NAMES)
    assert "codec" in sys.modules


def test_ours_found_beside_us(package):
    check_neighbours(package("ours", first_on_path=True), ("shadowed_name",))


def test_another_package_in_front_is_named(package):
    ours = package("ours", first_on_path=True)
    other = package("other", first_on_path=True)
    with pytest.raises(ConfigError, match="shadowed_name.*environment of its own") as caught:
        check_neighbours(ours, ("shadowed_name",))
    assert str(other) in str(caught.value)


def test_a_distribution_of_that_name_in_our_folder_is_named(package):
    ours = package("ours", first_on_path=True)
    info = ours / "shadowed_name-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shadowed_name\nVersion: 1.0\n")
    with pytest.raises(ConfigError, match="installed over ours"):
        check_neighbours(ours, ("shadowed_name",))


def test_a_name_that_we_do_not_have_is_not_looked_for(tmp_path):
    check_neighbours(tmp_path, ("shadowed_name",))
