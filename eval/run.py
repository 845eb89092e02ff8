"""An evaluation: every codec at every level on every sequence, to points, files and BD-rates.

A point is a real file, decoded from that file, measured on the decoded planes. One that fails is
reported and the others go on; one that was measured before is taken from the cache.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from codec.errors import ConfigError, LgmcError
from codec.video.ffmpeg import find_ffmpeg
from eval import QPS, QUALITIES, conditions
from eval.anchors import AV1_QPS, Anchor, ReferenceAnchor, make_anchor
from eval.anchors.program import ffmpeg_version
from eval.bdrate import BD_METRICS
from eval.cache import PointCache
from eval.codec_under_test import CodecUnderTest, FrameClock, frames_per_second
from eval.compare import Comparison, compare
from eval.filter_metrics import FilterMetrics, check_filters
from eval.metrics import average, measure
from eval.published import PublishedCurve, PublishedCurves, PublishedTable, load_published
from eval.results import (
    FORMAT,
    Conditions,
    Failure,
    PerFrame,
    RdPoint,
    RdResults,
    ResultsError,
    SequenceInfo,
    bits_per_pixel,
    kilobits_per_second,
    save_csv,
    save_results,
    write_text,
)
from eval.sequences import Sequence, find_sequences
from eval.testsets.prepared import read_prepared


@dataclass
class Evaluation:
    """What an evaluation gave: results per codec (models first), comparisons, files written."""

    results: list[RdResults]
    comparisons: list[Comparison] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)

    @property
    def failures(self) -> list[tuple[str, Failure]]:
        """(codec, failure) of every point that could not be measured."""
        return [(one.codec, failure) for one in self.results for failure in one.failures]


def evaluate(
    sequences: str | Path | list[Sequence],
    *,
    models: list[str] | tuple[str, ...] = (),
    anchors: list[str] | tuple[str, ...] = (),
    qualities: tuple[int, ...] = QUALITIES,
    qps: tuple[int, ...] = QPS,
    av1_qps: tuple[int, ...] = AV1_QPS,
    frames: int | None = None,
    intra_period: int = 32,
    out: str | Path,
    force: bool = False,
    device: str = "cpu",
    reader_options: dict[str, Any] | None = None,
    jobs: int | None = None,
    command: list[str] | None = None,
    published: tuple[str, ...] = (),
    metrics: tuple[str, ...] = (),
    report: Callable[[str], None] = lambda line: None,
) -> Evaluation:
    """Measure models and anchors on the same frames and write everything to the folder ``out``.

    sequences: a path as ``find_sequences`` takes it, or its result. models: names or weight files.
    anchors: names of ``eval.anchors.ANCHORS`` and ``REFERENCES``. qualities: indices 0..63 of the
    models; qps of the anchors; av1_qps: quantizers 0..63 of SVT-AV1 and libaom, whose scale is
    another. frames: the first so many of each clip, None for all. force: measure anew what is
    cached. reader_options: how raw files are read. jobs: anchors' points at once, all cores when
    None; models run alone, after them, with all threads. published: names of figures to draw beside
    ours, as ``eval.published`` has them. metrics: "vmaf", "xpsnr", besides what is always measured.
    report: given a line per point.

    Writes CODEC.json per codec, points.csv, bdrate.json, rd_METRIC.png and .svg, and points/ (the
    cache). Raises LgmcError for what stops the whole: no sequence, an unknown anchor or model, a
    folder that cannot be written. A failure of one point ends up in its codec's results.
    """
    if not models and not anchors:
        raise ConfigError("nothing to evaluate: give a model or an anchor")
    _check_levels(qualities if models else (), 63, "quality")
    _check_levels(qps if anchors else (), 51, "qp")
    _check_levels(av1_qps if anchors else (), 63, "qp of AV1")
    quoted = [load_published(name) for name in published]
    if metrics:
        check_filters(metrics, find_ffmpeg())
    out = Path(out)
    cache = PointCache(_made(out / "points"))
    if not isinstance(sequences, list):
        sequences = find_sequences(sequences, frames=frames, **(reader_options or {}))
    run = partial(_point, intra_period=intra_period, cache=cache, force=force, metrics=metrics)
    anchor_codecs = [make_anchor(name, intra_period) for name in anchors]
    model_codecs = _models(models, intra_period, device)
    measured: dict[str, list[RdPoint | Failure]] = {}
    model_tasks = [
        (codec, s, level) for codec in model_codecs for s in sequences for level in qualities
    ]
    anchor_tasks = [
        (codec, s, level)
        for s in sequences
        for codec in anchor_codecs
        for level in (av1_qps if codec.is_av1 else qps)
    ]
    with closing(_anchor_points(anchor_tasks, run, jobs)) as anchor_points:
        model_points = ((codec, run(codec, one, level)) for codec, one, level in model_tasks)
        for codec, point in chain(anchor_points, model_points):
            report(_line(codec, point))
            measured.setdefault(codec.name, []).append(point)
    shared = {"frames": frames, "intra_period": intra_period, "command": command}
    results = [
        _results(codec, sequences, measured[codec.name], device=where, **shared)
        for codecs, where in ((model_codecs, device), (anchor_codecs, "cpu"))
        for codec in codecs
    ]
    evaluation = Evaluation(results, _comparisons(results, len(model_codecs)))
    evaluation.files = _write(evaluation, out, quoted)
    return evaluation


def _check_levels(levels: tuple[int, ...], top: int, name: str) -> None:
    for level in levels:
        if not 0 <= level <= top:
            raise ConfigError(f"a {name} is 0..{top}, not {level}")
    if len(set(levels)) != len(levels):
        raise ConfigError(f"the same {name} is given twice: {', '.join(map(str, levels))}")


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise ResultsError(
            f"the folder {folder.parent} cannot be made ({exc.strerror or exc}): "
            "choose another with --out"
        ) from exc
    return folder


def _models(models: Iterable[str | Path], intra_period: int, device: str) -> list[CodecUnderTest]:
    if not models:
        return []
    from eval.learned import Model  # torch and the codec, only when there is a model to run

    codecs = [Model(name, intra_period, device) for name in models]
    names = [codec.name for codec in codecs]
    for codec in codecs:
        if names.count(codec.name) > 1:  # two trainings of one configuration
            codec.name = f"{codec.name}-{codec.identity()['weights'][:8]}"
    return codecs


def _anchor_points(
    tasks: list[tuple[Anchor | ReferenceAnchor, Sequence, int]],
    run: Callable[..., RdPoint | Failure],
    jobs: int | None,
) -> Iterator[tuple[Anchor | ReferenceAnchor, RdPoint | Failure]]:
    """Every point of the anchors as it is done, several at a time; ends at once if stopped."""
    with ThreadPoolExecutor(jobs or conditions.available_cores()) as pool:
        futures = {pool.submit(run, *task): task[0] for task in tasks}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for anchor, *_ in tasks:
                anchor.abort()
            raise


def _point(
    codec: CodecUnderTest,
    sequence: Sequence,
    level: int,
    *,
    intra_period: int,
    cache: PointCache,
    force: bool,
    metrics: tuple[str, ...],
) -> RdPoint | Failure:
    """Measure one point, or take it from the cache."""
    key = {
        "format": FORMAT,
        "input": sequence.digest,
        "codec": codec.identity(),
        "level": level,
        "intra_period": intra_period,
        "measured_by": conditions.code_digest("eval.metrics", "codec.video"),
        "versions": conditions.versions(),
        "machine": [conditions.machine()[name] for name in ("cpu", "cores")],  # for the times
    }
    if metrics:  # not otherwise: what was measured without them stays valid
        parts = (*sorted(metrics), ffmpeg_version(find_ffmpeg()))
        key["filters"] = [*parts, conditions.code_digest("eval.filter_metrics")]
    point = None if force else cache.load(key)
    if point is not None:
        # the clip may go by another name now: the cache knows it by its pixels
        return point.model_copy(update={"sequence": sequence.name})
    try:
        point = _measure(codec, sequence, level, metrics)
    except LgmcError as exc:
        return Failure(sequence=sequence.name, level=level, error=str(exc))
    except Exception as exc:  # a fault of one codec must not lose the points of the others
        error = f"{type(exc).__name__}: {' '.join(str(exc).split())}"
        return Failure(sequence=sequence.name, level=level, error=error)
    cache.store(key, point)
    return point


def _measure(
    codec: CodecUnderTest, sequence: Sequence, level: int, metrics: tuple[str, ...]
) -> RdPoint:
    info = sequence.format
    with tempfile.TemporaryDirectory(prefix="lgmc-eval-") as folder:
        target = Path(folder) / f"{sequence.name}{codec.extension}"
        encoded = codec.encode(sequence, level, target)
        size = target.stat().st_size
        clock = FrameClock()
        decoded = clock.over(codec.decode(target, sequence))
        filters = FilterMetrics(metrics, info, find_ffmpeg()) if metrics else None
        with sequence.open() as originals, filters or nullcontext():
            if filters is None:
                rows = measure(originals, decoded, info)
            else:
                rows = measure(originals, decoded, info, also=filters.add)
                for name, values in filters.values().items():
                    for row, value in zip(rows, values, strict=True):
                        row[name] = value
    return RdPoint(
        sequence=sequence.name,
        level=level,
        frames=sequence.frames,
        bytes=size,
        bpp=bits_per_pixel(size, info.width, info.height, sequence.frames),
        kbps=kilobits_per_second(size, sequence.frames, info.fps),
        metrics=average(rows),
        encode_seconds=encoded.seconds,
        decode_seconds=clock.seconds,
        encode_fps=frames_per_second(sequence.frames, encoded.seconds, encoded.first_frame_seconds),
        decode_fps=frames_per_second(sequence.frames, clock.seconds, clock.first),
        encode_peak_mib=encoded.peak_memory_mib,
        measured=conditions.now(),
        arguments=encoded.arguments,
        per_frame=PerFrame(
            metrics={name: [row[name] for row in rows] for name in rows[0]},
            bytes=encoded.frame_bytes,
            types=encoded.frame_types,
        ),
    )


def _line(codec: CodecUnderTest, point: RdPoint | Failure) -> str:
    what = f"{codec.name} {codec.parameter} {point.level} on {point.sequence}"
    if isinstance(point, Failure):
        return f"{what}: failed: {point.error}"
    return f"{what}: {point.bpp:.4f} bpp, {point.metrics['psnr_rgb']:.2f} dB RGB ({point.measured})"


def _results(
    codec: CodecUnderTest,
    sequences: list[Sequence],
    measured: list[RdPoint | Failure],
    *,
    frames: int | None,
    intra_period: int,
    device: str,
    command: list[str] | None,
) -> RdResults:
    order = [sequence.name for sequence in sequences]
    ordered = sorted(measured, key=lambda one: (order.index(one.sequence), one.level))
    return RdResults(
        codec=codec.name,
        parameter=codec.parameter,
        conditions=Conditions(
            date=conditions.now(),
            command=conditions.command_line() if command is None else command,
            machine=conditions.machine(),
            versions=conditions.versions(),
            frames=frames,
            intra_period=intra_period,
            device=device,
            codec=codec.identity(),
            prepared=_preparation(sequences),
        ),
        sequences=[_info(sequence) for sequence in sequences],
        points=[one for one in ordered if isinstance(one, RdPoint)],
        failures=[one for one in ordered if isinstance(one, Failure)],
    )


def _preparation(sequences: list[Sequence]) -> dict[str, str] | None:
    """The recipe of the sequences' folder, where all of them come from one."""
    folders = {sequence.path.parent for sequence in sequences if sequence.path.is_dir()}
    prepared = read_prepared(folders.pop()) if len(folders) == 1 else None
    return prepared.conditions() if prepared else None


def _info(sequence: Sequence) -> SequenceInfo:
    video = sequence.format
    return SequenceInfo(
        name=sequence.name,
        digest=sequence.digest,
        width=video.width,
        height=video.height,
        fps=str(video.fps),
        frames=sequence.frames,
        chroma=video.chroma,
        bit_depth=video.bit_depth,
        matrix=video.matrix,
        range=video.range,
    )


def _comparisons(results: list[RdResults], models: int) -> list[Comparison]:
    """Every model against every anchor, by every BD metric that some sequence has."""
    comparisons = []
    for anchor in results[models:]:
        for model in results[:models]:
            for metric in BD_METRICS:
                if any(
                    one.curve(info.name, metric)
                    for one in (anchor, model)
                    for info in one.sequences
                ):
                    comparisons.append(compare(anchor, model, metric))
    return comparisons


def _write(
    evaluation: Evaluation, out: Path, quoted: list[PublishedTable | PublishedCurves]
) -> list[Path]:
    from eval.plot import PLOTTED, plot_rd

    files = []
    for one in evaluation.results:
        files.append(out / f"{one.codec}.json")
        save_results(one, files[-1])
    files.append(out / "points.csv")
    save_csv(evaluation.results, files[-1])
    if evaluation.comparisons:
        files.append(out / "bdrate.json")
        content = {
            "conditions": evaluation.results[0].conditions.model_dump(mode="json"),
            "comparisons": [one.to_json() for one in evaluation.comparisons],
        }
        write_text(files[-1], json.dumps(content, indent=1, allow_nan=False) + "\n")
    for metric in PLOTTED:
        curves = [one.curve(i.name, metric) for one in evaluation.results for i in one.sequences]
        if any(curves):
            target = out / f"rd_{metric}"
            beside = _curves_of(quoted, metric)
            files += plot_rd(evaluation.results, target, metric=metric, quoted=beside)
    return files


def _curves_of(quoted: list[PublishedTable | PublishedCurves], metric: str) -> list[PublishedCurve]:
    curves = [one for one in quoted if isinstance(one, PublishedCurves) and one.metric == metric]
    return [curve for one in curves for curve in one.curves]
