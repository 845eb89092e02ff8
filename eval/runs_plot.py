"""Curves of training runs: the loss of the steps and of the validations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from statistics import fmean

from codec.errors import ConfigError
from codec.training.history import History
from eval.plot import COLOURS, save_figure
from eval.runs import short_names

_WINDOW = 15  # lines of the log that a smooth curve averages over, at most


def plot_runs(histories: Sequence[History], target: Path) -> None:
    """Draw runs into one picture, ``.png``, ``.svg`` or ``.pdf``.

    Above, the loss as it was logged, thin, and its running mean within a stage, bold: stages have
    losses of their own, so the axis is logarithmic. Below, where there is any, validation.

    Raises:
        ConfigError: another ending, or runs without a line to draw.
        ResultsError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    if target.suffix not in (".png", ".svg", ".pdf"):
        raise ConfigError(f"{target}: a picture's name ends in .png, .svg or .pdf")
    if not any(history.lines or history.validations for history in histories):
        raise ConfigError("nothing to draw: none of these runs has logged a step yet")
    validated = any(history.validations for history in histories)
    figure = Figure(figsize=(9, 7.2 if validated else 4.4), layout="constrained")
    axes = figure.subplots(1 + validated, 1, sharex=True, squeeze=False)[:, 0]
    names = short_names([str(history.folder) for history in histories])
    for number, (history, name) in enumerate(zip(histories, names, strict=True)):
        colour = COLOURS[number % len(COLOURS)]
        style = "-" if number < len(COLOURS) else "--"
        _training(axes[0], history, colour, style, name)
        if validated:
            _validation(axes[1], history, colour, style)
    axes[0].set_yscale("log")
    axes[0].set_ylabel("training loss")
    if validated:
        axes[1].set_ylabel("validation loss")
    axes[-1].set_xlabel("step")
    for axis in axes:
        axis.grid(True, which="major", color="#dddddd", linewidth=0.7)
        axis.set_axisbelow(True)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
        _plain_ticks(axis)
    figure.legend(loc="outside lower center", ncols=min(4, len(names)), frameon=False)
    save_figure(figure, target, dpi=120)


def _training(axis, history: History, colour: str, style: str, name: str) -> None:
    lines = [line for line in history.lines if math.isfinite(line["loss"])]
    steps, losses = [line["step"] for line in lines], [line["loss"] for line in lines]
    # Without marks a line of one point would not be seen.
    mark = "o" if len(lines) < 3 else None
    axis.plot(steps, losses, color=colour, linewidth=0.8, alpha=0.3)
    axis.plot([], [], color=colour, linestyle=style, linewidth=1.8, label=name)
    for stage in _stages(lines):
        window = max(1, min(_WINDOW, len(stage) // 4))
        smooth = [
            fmean(line["loss"] for line in stage[max(0, i - window) : i + window + 1])
            for i in range(len(stage))
        ]
        axis.plot(
            [line["step"] for line in stage],
            smooth,
            color=colour,
            linestyle=style,
            linewidth=1.8,
            marker=mark,
        )


def _stages(lines: list[dict]) -> list[list[dict]]:
    return [list(group) for _, group in groupby(lines, key=lambda line: line["stage"])]


def _validation(axis, history: History, colour: str, style: str) -> None:
    points = [
        (step, result["loss"])
        for step, result in sorted(history.validations.items())
        if isinstance(result.get("loss"), float)
    ]
    if points:
        steps, losses = zip(*points, strict=True)
        axis.plot(steps, losses, color=colour, linestyle=style, linewidth=1.4, marker="o")


def _plain_ticks(axis) -> None:
    """Numbers as they are read aloud, also between the powers of ten."""
    from matplotlib.ticker import AutoLocator, FuncFormatter, LogLocator, NullFormatter

    axis.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))
    if axis.get_yscale() == "log":
        low, high = axis.get_ylim()
        # Over less than a decade round numbers of one distance leave more to read.
        axis.yaxis.set_major_locator(
            AutoLocator() if high < 5 * low else LogLocator(subs=(1, 2, 5))
        )
        axis.yaxis.set_major_formatter(FuncFormatter(lambda loss, _: f"{loss:g}"))
        axis.yaxis.set_minor_formatter(NullFormatter())
