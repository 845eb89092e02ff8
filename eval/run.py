"""An evaluation: every codec at every level on every sequence, to points, files and BD-rates.

A point is a real file, decoded from that file, measured on the decoded planes. One that fails is
reported and the others go on; one that was measured before is taken from the cache.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from codec.effort import Effort
from codec.errors import ConfigError
from codec.video.ffmpeg import find_ffmpeg
from eval import QPS, QUALITIES, conditions
from eval.anchors import AV1_QPS, make_anchor
from eval.bdrate import BD_METRICS
from eval.cache import PointCache
from eval.codec_under_test import CodecUnderTest
from eval.compare import Comparison, compare, same_frames
from eval.conditions import Machine
from eval.drawn import Drawn
from eval.filter_metrics import check_filters
from eval.outside import Outside
from eval.point import PointTask, is_anchor, place
from eval.pool import LocalPool, Outcome, Pool
from eval.published import PublishedCurve, PublishedCurves, PublishedTable, load_published
from eval.report.folder import SUMMARY, is_under_test, load_folder
from eval.results import (
    Conditions,
    Failure,
    RdPoint,
    RdResults,
    ResultsError,
    SequenceInfo,
    load_results,
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
    codecs: list[str] | tuple[str, ...] = (),
    qualities: tuple[int, ...] = QUALITIES,
    efforts: tuple[int | str | Effort, ...] = (0,),
    qps: tuple[int, ...] = QPS,
    av1_qps: tuple[int, ...] = AV1_QPS,
    frames: int | None = None,
    intra_period: int = 32,
    out: str | Path,
    force: bool = False,
    device: str = "cpu",
    reader_options: dict[str, Any] | None = None,
    pool: Pool | None = None,
    command: list[str] | None = None,
    published: tuple[str, ...] = (),
    metrics: tuple[str, ...] = (),
    report: Callable[[str], None] = lambda line: None,
) -> Evaluation:
    """Measure models and anchors on the same frames and write everything to the folder ``out``.

    sequences: a path as ``find_sequences`` takes it, or its result. models: names or weight files.
    anchors: names of ``eval.anchors.ANCHORS`` and ``REFERENCES``. codecs: others' ones as
    "FILE.py:CLASS", see ``eval.outside``, each at its own levels. qualities: indices 0..63 of the
    models; efforts: of their encoders, each a codec of its own; qps of the anchors; av1_qps:
    quantizers 0..63 of SVT-AV1 and libaom, whose scale is another. frames: the first so many of
    each clip, None for all. force: measure anew what is cached. reader_options: how raw files are
    read. pool: who measures, as many of the anchors' points at once as there are cores when None;
    models run after them, one point at a time. published: names of figures to draw beside
    ours, as ``eval.published`` has them. metrics: "vmaf", "xpsnr", besides what is always measured.
    report: given a line per point.

    Writes CODEC.json per codec and points/ (the cache); of these and of the result files that
    ``out`` held before also points.csv, bdrate.json, rd_METRIC.png and .svg. Raises LgmcError for
    what stops the whole: no sequence, an unknown anchor or model, a model given twice, a folder
    that cannot be written. A failure of one point ends up in its codec's results, and so does a
    clip that cannot be read, where others can.
    """
    if not models and not anchors and not codecs:
        raise ConfigError("nothing to evaluate: give a model, a codec or an anchor")
    _check_levels(qualities if models else (), 63, "quality")
    tried = tuple(map(Effort.of, efforts))
    _check_different(tried if models else (), "effort")
    _check_levels(qps if anchors else (), 51, "qp")
    _check_levels(av1_qps if anchors else (), 63, "qp of AV1")
    quoted = [load_published(name) for name in published]
    if metrics:
        check_filters(metrics, find_ffmpeg())
    pool = pool or LocalPool()
    anchor_codecs = [make_anchor(name, intra_period) for name in anchors]
    out = Path(out)
    model_codecs = _models(models, tried, intra_period, device, pool.measures_here, out)
    outside_codecs = [Outside(spec, intra_period) for spec in codecs]
    tested = [*model_codecs, *outside_codecs]
    _check_different(tuple(one.name for one in (*tested, *anchor_codecs)), "codec")
    unreadable: dict[str, str] = {}
    if not isinstance(sequences, list):
        options = reader_options or {}
        sequences = find_sequences(sequences, frames=frames, unreadable=unreadable, **options)
    cache = PointCache(_made(out / "points"))
    tested_tasks = [
        PointTask(codec, s, level, intra_period, metrics)
        for codec in tested
        for s in sequences
        for level in (codec.levels if isinstance(codec, Outside) else qualities)
    ]
    anchor_tasks = [
        PointTask(codec, s, level, intra_period, metrics)
        for s in sequences
        for codec in anchor_codecs
        for level in (av1_qps if codec.is_av1 else qps)
    ]
    machines = pool.prepare([*anchor_tasks, *tested_tasks])
    measured: dict[str, list[tuple[RdPoint | Failure, Machine | None]]] = {}
    for tasks, alone in ((anchor_tasks, False), (tested_tasks, True)):
        done = _points(tasks, pool, machines, alone=alone, cache=cache, force=force)
        with closing(done) as points:
            for task, point, machine in points:
                report(_line(task.codec, point))
                measured.setdefault(task.codec.name, []).append((point, machine))
    shared = {"frames": frames, "intra_period": intra_period, "command": command}
    shared["machine"] = machines[0]
    results = [
        _with_failures(_results(codec, sequences, measured[codec.name], **shared), unreadable)
        for codec in (*tested, *anchor_codecs)
    ]
    evaluation = Evaluation(results, _comparisons(results, len(tested)))
    for one in results:
        evaluation.files.append(out / f"{one.codec}.json")
        save_results(one, evaluation.files[-1])
    evaluation.files += _summaries(_with_earlier(results, out, report), out, quoted)
    return evaluation


def _check_levels(levels: tuple[int, ...], top: int, name: str) -> None:
    for level in levels:
        if not 0 <= level <= top:
            raise ConfigError(f"{_an(name)} is 0..{top}, not {level}")
    _check_different(levels, name)


def _check_different(values: tuple[Any, ...], name: str) -> None:
    if len(set(values)) != len(values):
        raise ConfigError(f"the same {name} is given twice: {', '.join(map(str, values))}")


def _an(name: str) -> str:
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise ResultsError(
            f"the folder {folder.parent} cannot be made ({exc.strerror or exc}): "
            "choose another with --out"
        ) from exc
    return folder


def _models(
    models: Iterable[str | Path],
    efforts: tuple[Effort, ...],
    intra_period: int,
    device: str,
    here: bool,
    out: Path,
) -> list[CodecUnderTest]:
    """Every model at every effort; the digest is part of a name that another model has.

    Two trainings of one configuration have one name, in one run or in two that share ``out``.
    """
    if not models:
        return []
    from eval.learned import Model  # torch and the codec, only when there is a model to run

    codecs = [
        Model(name, intra_period, device, here, effort) for name in models for effort in efforts
    ]
    names = [codec.name for codec in codecs]
    for codec in codecs:
        weights = codec.identity()["weights"]
        if names.count(codec.name) > 1 or _of_other_weights(out / f"{codec.name}.json", weights):
            codec.name = f"{codec.name}-{weights[:8]}"
    _check_different(tuple(codec.name for codec in codecs), "model")
    return codecs


def _of_other_weights(file: Path, weights: str) -> bool:
    """Whether the results there are of another model, and would be lost."""
    try:
        return load_results(file).conditions.codec.get("weights") != weights
    except ResultsError:
        return False


def _points(
    tasks: list[PointTask],
    pool: Pool,
    machines: list[Machine],
    *,
    alone: bool,
    cache: PointCache,
    force: bool,
) -> Iterator[Outcome]:
    """Every task once: the cached ones, then as they are done.

    Nobody else reads or writes the cache, so a task that a worker had to do again counts once.
    """
    left, keys = [], {}
    for task in tasks:
        keys[task] = task.decided_by()
        found = None if force else _cached(task, keys[task], machines, pool, cache)
        if found is None:
            left.append(task)
        else:
            yield task, *found
    with closing(pool.run(left, alone=alone)) as outcomes:
        for task, point, machine in outcomes:
            if isinstance(point, RdPoint):
                cache.store(_placed(keys[task], machine, pool), point)
            yield task, point, machine


def _cached(
    task: PointTask, key: dict[str, Any], machines: list[Machine], pool: Pool, cache: PointCache
) -> tuple[RdPoint, Machine] | None:
    """The point as one of the machines measured it before."""
    for machine in machines:
        point = cache.load(_placed(key, machine, pool))
        if point is not None:
            # the clip may go by another name now: the cache knows it by its pixels
            return point.model_copy(update={"sequence": task.sequence.name}), machine
    return None


def _placed(key: dict[str, Any], machine: Machine, pool: Pool) -> dict[str, Any]:
    """The whole key of a point: what decides it, and what its times."""
    threads = None if is_anchor(key["codec"]) else pool.threads(machine)
    return {**key, "machine": place(machine, key["codec"], threads)}


def _line(codec: CodecUnderTest, point: RdPoint | Failure) -> str:
    what = f"{codec.name} {codec.parameter} {point.level} on {point.sequence}"
    if isinstance(point, Failure):
        return f"{what}: failed: {point.error}"
    return f"{what}: {point.bpp:.4f} bpp, {point.metrics['psnr_rgb']:.2f} dB RGB ({point.measured})"


def _results(
    codec: CodecUnderTest,
    sequences: list[Sequence],
    measured: list[tuple[RdPoint | Failure, Machine | None]],
    *,
    machine: Machine,
    frames: int | None,
    intra_period: int,
    command: list[str] | None,
) -> RdResults:
    order, identity = [sequence.name for sequence in sequences], codec.identity()
    machine, points = _marked(codec, measured, machine)
    ordered = sorted(points, key=lambda one: (order.index(one.sequence), one.level))
    return RdResults(
        codec=codec.name,
        parameter=codec.parameter,
        conditions=Conditions(
            date=conditions.now(),
            command=conditions.command_line() if command is None else command,
            machine=machine,
            versions=conditions.versions(),
            frames=frames,
            intra_period=intra_period,
            device=identity.get("device", "cpu"),
            codec=identity,
            prepared=_preparation(sequences),
        ),
        sequences=[_info(sequence) for sequence in sequences],
        points=[one for one in ordered if isinstance(one, RdPoint)],
        failures=[one for one in ordered if isinstance(one, Failure)],
    )


def _with_failures(results: RdResults, unreadable: dict[str, str]) -> RdResults:
    """The results, every level failed on each clip that could not be read."""
    levels = sorted({one.level for one in (*results.points, *results.failures)})
    failures = [
        Failure(sequence=name, level=level, error=error)
        for name, error in unreadable.items()
        for level in levels
    ]
    return results.model_copy(update={"failures": [*results.failures, *failures]})


def _marked(
    codec: CodecUnderTest,
    measured: list[tuple[RdPoint | Failure, Machine | None]],
    machine: Machine,
) -> tuple[Machine, list[RdPoint | Failure]]:
    """The machine of most points (``machine`` when there is none), and points with the others'."""
    identity = codec.identity()
    places = [place(where, identity) for one, where in measured if isinstance(one, RdPoint)]
    if places:
        most = Counter(map(tuple, places)).most_common(1)[0][0]
        machine = next(
            where for _, where in measured if where and tuple(place(where, identity)) == most
        )
    here = place(machine, identity)
    return machine, [
        one.model_copy(update={"machine": None if place(where, identity) == here else where})
        if isinstance(one, RdPoint)
        else one
        for one, where in measured
    ]


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


def _comparisons(results: list[RdResults], tested: int) -> list[Comparison]:
    """Every codec under test, the first so many, against every anchor.

    By every metric that one of them has; results that share no sequence are not compared.
    """
    return [
        compare(anchor, model, metric)
        for anchor in results[tested:]
        for model in results[:tested]
        if any(anchor.sequence(info.name) for info in model.sequences)
        for metric in BD_METRICS
        if any(one.curve(i.name, metric) for one in (anchor, model) for i in one.sequences)
    ]


def _with_earlier(
    results: list[RdResults], out: Path, report: Callable[[str], None]
) -> list[RdResults]:
    """The results and, after them, those of other codecs that an earlier run left in the folder.

    Left out, and reported, is what cannot be read and what is of other frames under the same name.
    """
    together, names = list(results), {one.codec for one in results}
    loaded, _, problems = load_folder(out, without=[f"{name}.json" for name in names])
    for problem in problems:
        report(problem)
    for file, one in loaded.items():
        if one.codec in names:
            continue
        if clash := _of_other_frames(one, together):
            report(f"{file} is of other frames of {clash}: it is not in points.csv and the plots")
        else:
            together.append(one)
            names.add(one.codec)
    return together


def _of_other_frames(results: RdResults, others: list[RdResults]) -> str | None:
    """The first sequence that goes by the name of another video in the others."""
    for info in results.sequences:
        for other in others:
            same = other.sequence(info.name)
            if same is not None and not same_frames(info, same):
                return info.name
    return None


def _summaries(
    results: list[RdResults], out: Path, quoted: list[PublishedTable | PublishedCurves]
) -> list[Path]:
    """Table, comparisons and plots of all results; those that nothing is left for are removed."""
    from eval.plot import PLOTTED, plot_rd, rd_digest

    files = [out / "points.csv"]
    save_csv(results, files[0])
    tested = [one for one in results if is_under_test(one)]
    anchors = [one for one in results if not is_under_test(one)]
    comparisons = _comparisons([*tested, *anchors], len(tested))
    if comparisons:
        files.append(out / SUMMARY)
        content = {
            "conditions": results[0].conditions.model_dump(mode="json"),
            "comparisons": [one.to_json() for one in comparisons],
        }
        write_text(files[-1], json.dumps(content, indent=1, allow_nan=False) + "\n")
    else:
        (out / SUMMARY).unlink(missing_ok=True)
    drawn = Drawn(out, out / "points" / "drawn")
    for metric in PLOTTED:
        name, beside = f"rd_{metric}", _curves_of(quoted, metric)
        if any(one.curve(i.name, metric) for one in results for i in one.sequences):
            draw = partial(plot_rd, results, out / name, metric=metric, quoted=beside)
            files += drawn.files(name, rd_digest(results, metric, beside), draw)
        else:
            for suffix in (".png", ".svg"):
                (out / f"{name}{suffix}").unlink(missing_ok=True)
    return files


def _curves_of(quoted: list[PublishedTable | PublishedCurves], metric: str) -> list[PublishedCurve]:
    curves = [one for one in quoted if isinstance(one, PublishedCurves) and one.metric == metric]
    return [curve for one in curves for curve in one.curves]
