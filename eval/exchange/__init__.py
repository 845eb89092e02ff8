"""Result files of others, read and written: CompressAI's and those of DCVC and its successors.

docs/results_format.md says which field becomes which. What a file does not say stays unknown (None)
in ours, and what ours cannot say in theirs is left out and named.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from eval.exchange import compressai, dcvc
from eval.exchange.assemble import Given, assemble
from eval.exchange.foreign import CONVENTIONS, ForeignFile
from eval.results import FORMAT, RdResults, ResultsError

FORMATS = {"compressai": compressai, "dcvc": dcvc}

__all__ = ["CONVENTIONS", "FORMATS", "export_results", "import_results"]


def import_results(
    paths: Sequence[str | Path],
    *,
    sequences: Sequence[str] = (),
    dataset: str | None = None,
    codec: str | None = None,
    size: tuple[int, int] | None = None,
    fps: Fraction | None = None,
    ms_ssim: str = "auto",
) -> RdResults:
    """One codec's points from files of one foreign format, which is detected.

    sequences: of DCVC's file those to take (none: all); of CompressAI's the one that it is of.
    dataset: of DCVC's file the one to take. codec: a name to give; needed where no file says it.
    size (width, height in pixels), fps: of the sequences, where neither a file nor the registry of
    test sets knows them. ms_ssim: "linear" (0..1), "db" (-10 log10(1 - x)), or "auto" to tell by
    the values. Raises ResultsError, in one line, for what is not such a file, is ambiguous or
    contradicts itself.
    """
    files: list[ForeignFile] = []
    digests: dict[str, str] = {}
    for path in map(Path, paths):
        content, data = _read(path)
        kind = _detect(content, path)
        read = FORMATS[kind].read
        files.append(read(content, path, tuple(sequences), dataset=dataset, ms_ssim=ms_ssim))
        digests[path.name] = hashlib.sha256(data).hexdigest()
    if len(digests) != len(files):
        raise ResultsError("two of the files have the same name: rename one")
    return assemble(files, digests, Given(codec, size, fps))


def export_results(
    results: RdResults,
    to: str,
    *,
    sequence: str | None = None,
    dataset: str | None = None,
    psnr: str = "rgb",
) -> tuple[dict[str, Any], list[str]]:
    """(content of a file of format ``to``, sentences on what it cannot say).

    sequence: this one alone; None: CompressAI gets the mean over all, DCVC each of them. dataset:
    under which DCVC gets them; None: the test set that each belongs to. psnr: what DCVC's one PSNR
    is, "rgb" or "yuv" (6:1:1). Raises ResultsError where there is nothing that can be written.
    """
    if sequence is not None:
        if results.sequence(sequence) is None:
            known = ", ".join(info.name for info in results.sequences)
            raise ResultsError(f"there is no sequence {sequence!r} in it: choose from {known}")
        results = _only(results, sequence)
    if not results.points:
        raise ResultsError(f"{results.codec} has no points to export: measure it first")
    if to == "compressai":
        return compressai.write(results)
    return dcvc.write(results, dataset=dataset, psnr=psnr)


def _only(results: RdResults, sequence: str) -> RdResults:
    kept = {
        name: [one for one in getattr(results, name) if one.sequence == sequence]
        for name in ("points", "failures")
    }
    return results.model_copy(update={"sequences": [results.sequence(sequence)], **kept})


def _read(path: Path) -> tuple[Any, bytes]:
    try:
        data = path.read_bytes()
    except OSError as exc:
        reason = exc.strerror or exc
        raise ResultsError(f"{path} cannot be read ({reason}): give a result file") from None
    try:
        return json.loads(data), data
    except (ValueError, RecursionError) as exc:
        reason = " ".join(str(exc).split())
        raise ResultsError(f"{path} is not JSON ({reason}): give a result file") from None


def _detect(content: Any, path: Path) -> str:
    if isinstance(content, dict) and content.get("format") == FORMAT:
        raise ResultsError(f"{path} is one of our own result files: use it as it is")
    found = [kind for kind, module in FORMATS.items() if module.recognises(content)]
    if len(found) != 1:
        raise ResultsError(
            f"{path} is neither a result file of CompressAI (lists of bpp or bitrate and of "
            "psnr-rgb) nor of DCVC (data set, sequence, rate, then ave_all_frame_bpp)"
        )
    return found[0]
