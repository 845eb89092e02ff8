"""The conditions of a measurement: when, on what machine, with which versions, by which command."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import sys
from datetime import datetime, timezone
from importlib import metadata, util
from pathlib import Path

PACKAGES = (
    "lvc-lgmc",
    "torch",
    "compressai",
    "numpy",
    "av",
    "imageio-ffmpeg",
    "bjontegaard",
    "pytorch-msssim",
)
"""Distributions whose versions stand in result files."""

Machine = dict[str, str | int | float | None]
"""A machine as ``machine`` describes it."""


def now() -> str:
    """The time as ISO 8601 in UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def machine() -> Machine:
    """cpu (model name), cores (available to this process), memory_gib, gpu (name or None), system.

    Nothing that names the machine itself: result files are published.
    """
    return {
        "cpu": _cpu_model(),
        "cores": available_cores(),
        "memory_gib": _memory_gib(),
        "gpu": _gpu(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def available_cores() -> int:
    """CPU cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@functools.cache
def versions() -> dict[str, str]:
    """Version of Python and of each of ``PACKAGES`` that is installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


@functools.cache
def code_digest(*modules: str, without: tuple[str, ...] = ()) -> str:
    """SHA-256 of the Python sources of modules and packages, sub-packages included.

    without: names of folders to leave out. Part of a cached point's key: the same weights in
    changed code are another codec. A module that is not there counts as empty.
    """
    digest = hashlib.sha256()
    for name in modules:
        spec = util.find_spec(name)
        if spec is None:
            continue
        folders = spec.submodule_search_locations
        roots = [Path(folder) for folder in folders] if folders else [Path(spec.origin)]
        for root in roots:
            files = sorted(root.rglob("*.py")) if root.is_dir() else [root]
            for file in files:
                place = file.relative_to(root).as_posix() if root.is_dir() else file.name
                if any(part in without for part in place.split("/")[:-1]):
                    continue
                digest.update(f"{name}/{place}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()


def command_line() -> list[str]:
    """The words of the running command, the program without its folder."""
    program = Path(sys.argv[0])
    if program.name == "__main__.py":  # python -m lgmc
        program = program.parent
    return [program.name, *sys.argv[1:]]


def peak_memory_mib(pid: int | None = None) -> float | None:
    """The most main memory that a process has held so far, in MiB; our own when pid is None.

    None where the system does not tell (it is Linux's VmHWM) or the process has ended.
    """
    try:
        for line in Path(f"/proc/{pid or 'self'}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    except (OSError, ValueError, IndexError):
        pass
    return None


def forget_peak_memory() -> bool:
    """Start the peak of our own process anew; False where the system does not let us."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return " ".join(line.split(":", 1)[1].split())
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):
        return None


def _gpu() -> str | None:
    torch = sys.modules.get("torch")  # never imported just to be asked
    return torch.cuda.get_device_name(0) if torch and torch.cuda.is_available() else None
