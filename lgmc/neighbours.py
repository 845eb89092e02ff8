"""Is it our ``codec``, ``eval`` and ``kernels`` that Python finds?

The names are short, and another published package installs a top-level ``kernels``. In one
environment the two hide or overwrite each other, and what follows is an ImportError that no one
understands; so the command looks before it starts.
"""

from __future__ import annotations

from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from codec.errors import ConfigError

OURS = Path(__file__).resolve().parent.parent
NAMES = ("codec", "eval", "kernels")


def check_neighbours(home: Path = OURS, names: tuple[str, ...] = NAMES) -> None:
    """Raise ConfigError when one of ``names`` is found elsewhere than beside this package.

    Args:
        home: the folder that holds our packages. A name that it does not hold is not looked for.
    """
    for name in names:
        if not (home / name).is_dir():
            continue
        spec = find_spec(name)
        found = spec.origin if spec else None
        places = (spec.submodule_search_locations if spec else None) or ()
        if home / name not in [Path(place).resolve() for place in places]:
            _complain(name, f"hides ours: Python finds {found or list(places)}", home)
        if _other_distribution(name, home):
            _complain(name, "was installed over ours", home)


def _other_distribution(name: str, home: Path) -> bool:
    """A distribution called ``name`` put its package into the folder that holds ours."""
    try:
        found = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return Path(str(found.locate_file(""))).resolve() == home


def _complain(name: str, how: str, home: Path) -> None:
    raise ConfigError(
        f"another project's package `{name}` {how} (ours lies in {home}); "
        "install lvc-lgmc in an environment of its own"
    )
