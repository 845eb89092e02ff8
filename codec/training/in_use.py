"""Whether a run's folder is in use: its log is locked for as long as the process that trains lives.

The kernel holds the lock and lets go of it when the process ends, however it ends: a killed run is
seen as stopped at once, and no process id can be taken for another's. It knows the processes of one
machine, so the log's start event says which one that is (:func:`this_machine`).
"""

import fcntl
import os
import platform
import time
from pathlib import Path
from typing import IO, Any

from codec.errors import TrainingError

# Workers that load data outlive a killed trainer by up to five seconds, and its lock with them.
PATIENCE = 10.0


def this_machine() -> dict[str, Any]:
    """The process and its machine: ``pid``, ``host`` and, on Linux, the ``boot`` it runs under."""
    return {"pid": os.getpid(), "host": platform.node(), "boot": _boot()}


def is_this_machine(where: dict[str, Any]) -> bool:
    """Whether a start event was written here, before or after a restart."""
    same_boot = where.get("boot") is not None and where["boot"] == _boot()
    return same_boot or (bool(where.get("host")) and where["host"] == platform.node())


def take(log: IO[str], patience: float = PATIENCE) -> None:
    """Lock an open log until it is closed or the process ends.

    On a file system that has no locks nothing is locked, and :func:`is_taken` says so.

    Raises:
        TrainingError: another process still has it after ``patience`` seconds.
    """
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise TrainingError(
                    f"{Path(log.name).parent}: another process is training in this folder; wait "
                    "for it, stop it, or choose another --out"
                ) from None
        except OSError:
            return
        time.sleep(0.1)


def give_up(log: IO[str]) -> None:
    """Unlock, for processes too that were forked meanwhile and hold the file open."""
    try:
        fcntl.flock(log, fcntl.LOCK_UN)
    except OSError:
        pass  # a file system without locks


def is_taken(path: Path) -> bool | None:
    """Whether a process of this machine holds the log; None where that cannot be known."""
    try:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    return False


def _boot() -> str | None:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
