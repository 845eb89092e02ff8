"""What a run says while it trains: on the terminal, in metrics.jsonl, to TensorBoard."""

import json
import os
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from codec.training.in_use import give_up, take, this_machine
from codec.training.look import Look
from codec.training.loss import ClipLoss


class Log:
    """Lines on the terminal, metrics.jsonl and TensorBoard.

    Holds the run's folder from when it is made to when it is left.

    Args:
        folder: the run's.
        step: the step that the run goes on from; what was logged of later ones is dropped.

    Raises:
        TrainingError: another process trains in the folder.
    """

    def __init__(self, folder: Path, step: int):
        from torch.utils.tensorboard import SummaryWriter

        self._path = folder / "metrics.jsonl"
        self._file = open(self._path, "a", encoding="utf-8")
        take(self._file)
        self._drop_after(step)
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)
        self._seconds = self._waited = 0.0
        self._steps = self._clips = 0

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *_: object) -> None:
        give_up(self._file)
        self._file.close()
        self._board.close()

    def count(self, seconds: float, waited: float, clips: int) -> None:
        """A step of so many seconds, of which it waited for its batch of so many clips."""
        self._seconds += seconds
        self._waited += waited
        self._steps += 1
        self._clips += clips

    def step(
        self, step: int, end: int, stage: str, lr: float, outcome: ClipLoss, skipped: int
    ) -> None:
        rate = self._steps / max(self._seconds, 1e-9)
        data = self._waited / max(self._seconds, 1e-9)
        record = {
            "step": step,
            "stage": stage,
            "loss": float(outcome.loss),
            "lr": lr,
            "bpp": {part: float(value) for part, value in outcome.bpp.items()},
            "psnr": {part: float(value) for part, value in outcome.psnr.items()},
            "steps_per_second": rate,
            "data_share": data,
            "clips_per_second": self._clips / max(self._seconds, 1e-9),
            "skipped": skipped,
        }
        self._write(record)
        for group in ("bpp", "psnr"):
            for name, value in record[group].items():
                self._board.add_scalar(f"{group}/{name}", value, step)
        for name in ("loss", "lr", "steps_per_second", "data_share", "clips_per_second"):
            self._board.add_scalar(name, record[name], step)
        self._seconds = self._waited = 0.0
        self._steps = self._clips = 0
        bpp = " ".join(f"{k} {v:.4f}" for k, v in record["bpp"].items())
        psnr = " ".join(f"{k} {v:.2f}" for k, v in record["psnr"].items())
        print(
            f"{step}/{end} {stage} | loss {record['loss']:.4f} | bpp {bpp} | dB {psnr} | "
            f"{rate:.2f} it/s, data {100 * data:.0f} %, left {(end - step) / rate / 60:.0f} min",
            flush=True,
        )

    def validation(self, step: int, result: dict[str, float]) -> None:
        self._write({"step": step, "validation": result})
        for name, value in result.items():
            self._board.add_scalar(f"validation/{name}", value, step)
        points = " ".join(
            f"q{q} I {result[f'q{q}/I/bpp']:.3f}/{result[f'q{q}/I/psnr']:.2f}"
            f" P {result[f'q{q}/P/bpp']:.3f}/{result[f'q{q}/P/psnr']:.2f}"
            for q in (8, 24, 40, 56)
            if f"q{q}/P/bpp" in result
        )
        print(f"{step} validation | loss {result['loss']:.5f} | bpp/dB {points}", flush=True)

    def look(self, step: int, seen: Look) -> None:
        """Pictures and histograms, for TensorBoard alone."""
        for name, picture in seen.pictures.items():
            shades = np.round(255 * picture).astype(np.uint8)
            self._board.add_image(f"look/{name}", shades, step, dataformats="HWC")
        for name, value in seen.figures.items():
            self._board.add_scalar(f"look/{name}", value, step)
        for group, parts in (("symbols", seen.symbols), ("log2_scale", seen.scales)):
            for part, values in parts.items():
                if values.size:
                    self._board.add_histogram(f"{group}/{part}", values, step)

    def event(self, kind: str, **values: Any) -> None:
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        where = this_machine() if kind == "start" else {}
        self._write({"event": kind, "time": now, **where, **values})

    def _write(self, record: dict[str, Any]) -> None:
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()

    def _drop_after(self, step: int) -> None:
        """Forget what a killed run logged after its last checkpoint: it is computed again."""
        end = 0
        with open(self._path, "rb") as lines:
            for line in lines:
                try:
                    later = json.loads(line).get("step", 0) > step
                except ValueError:
                    later = True  # the line that was being written when the run was killed
                if later:
                    break
                end += len(line)
        os.truncate(self._path, end)  # what is kept is not written anew


class NoLog:
    """Stands for the log in a process that leaves it to another: hears all and says nothing."""

    def __enter__(self) -> "NoLog":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def count(self, *_: Any) -> None:
        return None

    def event(self, *_: Any, **__: Any) -> None:
        return None

    step = validation = look = count
