"""Which pictures of a folder are up to date: drawing them takes longer than all the rest of a run
that measures nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from eval.results import write_text


class Drawn:
    """A record, in the file ``record``, of what each picture in ``folder`` was drawn from.

    A damaged or missing record means that everything is drawn anew, and so does a picture that is
    not there; one that somebody changed is not noticed.
    """

    def __init__(self, folder: Path, record: Path) -> None:
        self._folder, self._record = folder, record
        try:
            known = json.loads(record.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            known = None
        self._known: dict[str, object] = known if isinstance(known, dict) else {}

    def files(self, name: str, digest: str, draw: Callable[[], list[Path]]) -> list[Path]:
        """The files of picture ``name``, drawn by ``draw`` unless ``digest`` is what they are of.

        Raises what ``draw`` raises, ResultsError where the record cannot be written.
        """
        known = self._known.get(name)
        if isinstance(known, dict) and known.get("digest") == digest:
            files = [self._folder / str(file) for file in known.get("files", [])]
            if files and all(file.is_file() for file in files):
                return files
        files = draw()
        self._known[name] = {"digest": digest, "files": [file.name for file in files]}
        write_text(self._record, json.dumps(self._known, indent=1) + "\n")
        return files
