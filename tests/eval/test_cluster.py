"""An evaluation on a local Ray of two workers: real processes, one of them killed on the way."""

import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from codec.config import load_experiment
from codec.errors import ConfigError, LgmcError
from codec.models import export
from codec.video.synthetic import write_synthetic
from codec.video_codec import VideoCodec
from eval import cluster, conditions, run
from eval.anchors import Anchor
from eval.point import PointTask
from eval.pool import LocalPool
from eval.results import Failure, RdPoint, load_results
from eval.run import evaluate
from eval.sequences import find_sequences

ray = pytest.importorskip("ray")

ROOT = Path(__file__).resolve().parents[2]
QPS = (22, 28, 34, 40)
ANCHOR = "x264-medium"
FAILING = 28


class Marked(Anchor):
    """x264 that notes each encode in ``folder``: a file QP-N of the worker's process id.

    ``failing`` gives no point; the first encode at ``held`` waits to be killed or interrupted, and
    notes an interrupt as a file "interrupted".
    """

    def __init__(self, folder: Path, failing: int | None = None, held: int | None = None) -> None:
        super().__init__(ANCHOR)
        self.folder, self.failing, self.held = folder, failing, held

    def __reduce__(self):
        return Marked, (self.folder, self.failing, self.held)

    def encode(self, sequence, level, target):
        begun = len(list(self.folder.glob(f"{level}-*")))
        part = self.folder / f".{level}-{begun}"
        part.write_text(str(os.getpid()))
        try:  # from the note on: who sees that may interrupt at once
            part.rename(self.folder / f"{level}-{begun}")
            if level == self.held and not begun:
                for _ in range(6000):
                    time.sleep(0.02)
        except KeyboardInterrupt:
            (self.folder / "interrupted").write_text("")
            raise
        if level == self.failing:
            raise LgmcError("as a test wants")
        return super().encode(sequence, level, target)


def begun(folder: Path) -> list[int]:
    """The qps of all encodes so far."""
    return sorted(int(path.name.partition("-")[0]) for path in folder.glob("[0-9]*-*"))


@pytest.fixture(scope="module")
def pool():
    """Two workers of one core each; ``Marked`` travels to them by value.

    They begin as what a shell starts in the background: SIGINT is ignored.
    """
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with cluster.open_cluster("local:2") as opened:
            signal.signal(signal.SIGINT, before)
            yield opened
    finally:
        signal.signal(signal.SIGINT, before)
    ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clips") / "pan.y4m"
    write_synthetic("pan", path, 64, 48, 4, seed=1)
    return path


@pytest.fixture
def marked(tmp_path, monkeypatch):
    """Put ``Marked(folder, **options)`` in the anchor's place; gives the folder of its notes."""

    def put(**options) -> Path:
        folder = tmp_path / "notes"
        folder.mkdir()
        monkeypatch.setattr(run, "make_anchor", lambda name, period: Marked(folder, **options))
        return folder

    return put


def measured(points: list[RdPoint]) -> list[dict]:
    """What two measurements of one point have in common: all but times, memory and dates."""
    differing = {"measured", "machine", "encode_peak_mib", "decode_peak_mib"}
    differing |= {f"{way}code_{what}" for way in ("en", "de") for what in ("seconds", "fps")}
    return [point.model_dump(exclude=differing) for point in points]


@pytest.fixture(scope="module")
def done(pool, clip, tmp_path_factory):
    """(results, folder) of the anchor on the clip, measured by the workers."""
    out = tmp_path_factory.mktemp("out")
    (results,) = evaluate(clip, anchors=[ANCHOR], qps=QPS, out=out, pool=pool).results
    return results, out


def test_the_points_are_those_of_the_local_pool(done, clip, tmp_path):
    there, out = done
    (here,) = evaluate(clip, anchors=[ANCHOR], qps=QPS, out=tmp_path, pool=LocalPool()).results
    assert len(there.points) == len(QPS) and not there.failures
    assert measured(here.points) == measured(there.points)
    assert here.conditions.versions == there.conditions.versions
    assert here.conditions.codec == there.conditions.codec
    assert load_results(out / f"{ANCHOR}.json") == there


def test_a_second_run_takes_everything_from_the_cache(done, pool, clip, marked):
    first, out = done
    notes = marked()
    (second,) = evaluate(clip, anchors=[ANCHOR], qps=QPS, out=out, pool=pool).results
    assert begun(notes) == []
    assert first.points == second.points
    (forced,) = evaluate(
        clip, anchors=[ANCHOR], qps=QPS[:1], out=out, pool=pool, force=True
    ).results
    assert begun(notes) == [QPS[0]]
    assert measured(forced.points) == measured(first.points[:1])


def test_a_killed_worker_loses_nothing_and_a_failure_is_reported(pool, clip, tmp_path, marked):
    notes = marked(failing=FAILING, held=34)
    killed = []

    def kill():
        note = notes / "34-0"
        while not note.exists():
            time.sleep(0.02)
        killed.append(int(note.read_text()))
        os.kill(killed[0], signal.SIGKILL)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    lines = []
    common = {"anchors": [ANCHOR], "qps": QPS, "out": tmp_path / "out", "pool": pool}
    (results,) = evaluate(clip, report=lines.append, **common).results
    thread.join(10)
    assert killed and killed[0] != os.getpid()
    assert (notes / "34-1").read_text() != str(killed[0])
    assert begun(notes) == [22, FAILING, 34, 34, 40]  # the killed one twice, the others once
    assert [point.level for point in results.points] == [22, 34, 40]
    assert results.failures == [Failure(sequence="pan", level=FAILING, error="as a test wants")]
    assert len(lines) == len(QPS)
    assert len(list((tmp_path / "out" / "points").glob("*.json"))) == 3

    (again,) = evaluate(clip, **common).results
    assert again.points == results.points
    assert begun(notes) == [22, FAILING, FAILING, 34, 34, 40]  # what failed was tried again, alone


def test_an_interrupt_reaches_the_workers_and_the_rest_is_done_later(pool, clip, tmp_path, marked):
    notes = marked(held=34)
    common = {"anchors": [ANCHOR], "qps": (34, 22), "out": tmp_path / "out", "pool": pool}

    def interrupt(line):
        while not (notes / "34-0").exists():
            time.sleep(0.02)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(clip, report=interrupt, **common)
    assert (notes / "interrupted").exists()
    assert len(list((tmp_path / "out" / "points").glob("*.json"))) == 1
    (results,) = evaluate(clip, **common).results
    assert [point.level for point in results.points] == [22, 34]
    assert begun(notes) == [22, 34, 34]


def test_a_model_runs_alone_with_the_cores_of_its_worker(pool, clip, tmp_path):
    weights = tmp_path / "debug.safetensors"
    torch.manual_seed(0)
    export(VideoCodec(load_experiment(ROOT / "configs" / "debug.yaml").model), weights, card={})
    common = {"models": [weights], "qualities": (32,), "frames": 2}
    (here,) = evaluate(clip, out=tmp_path / "here", **common).results
    (there,) = evaluate(clip, out=tmp_path / "there", pool=pool, **common).results
    assert there.points[0].bytes == here.points[0].bytes
    assert there.conditions.codec == here.conditions.codec
    assert there.conditions.machine["cores"] == min(2, conditions.available_cores())


def test_workers_that_could_not_measure_are_named_beforehand(pool, clip, tmp_path, marked):
    notes = marked()
    lost = tmp_path / "lost.y4m"
    lost.write_bytes(clip.read_bytes())
    sequences = find_sequences(lost)
    lost.unlink()
    common = {"anchors": [ANCHOR], "qps": QPS, "out": tmp_path / "out", "pool": pool}
    with pytest.raises(cluster.ClusterError, match=r"worker at \S+ does not see \S+lost\.y4m"):
        evaluate(sequences, **common)
    with pytest.raises(cluster.ClusterError, match="no GPU: say --device cpu"):
        evaluate(clip, models=["lite"], device="cuda", out=tmp_path / "out", pool=pool)
    assert begun(notes) == []


def test_a_worker_with_other_versions_refuses(pool, clip, tmp_path, monkeypatch):
    versions = {**conditions.versions(), "torch": "1.0"}  # the workers have their own
    monkeypatch.setattr(conditions, "versions", lambda: versions)
    with pytest.raises(cluster.ClusterError, match=r"has torch \S+, not 1\.0 as here: install"):
        evaluate(clip, anchors=[ANCHOR], qps=QPS, out=tmp_path, pool=pool)
    task = PointTask(Anchor(ANCHOR), find_sequences(clip)[0], 30, 32)
    ((done, failure, machine),) = pool.run([task], alone=False)
    assert done is task and machine is None
    assert "a worker has torch" in failure.error


def test_an_address_where_no_cluster_is():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # and nobody listens
        addresses = {"nowhere": "HOST:PORT", f"127.0.0.1:{free.getsockname()[1]}": "refused"}
        for address, reason in addresses.items():
            with pytest.raises(cluster.ClusterError, match=f"at '{address}' .*{reason}"):
                with cluster.open_cluster(address):
                    pass


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'lvc-lgmc\[cluster\]'"):
        with cluster.open_cluster("local"):
            pass


def test_a_clip_that_became_another_is_not_measured(clip, tmp_path):
    sequence = find_sequences(clip)[0]
    write_synthetic("pan", clip.with_name("other.y4m"), 64, 48, 4, seed=2)
    other = find_sequences(clip.with_name("other.y4m"))[0]
    with sequence.open() as reader:
        assert len(list(sequence.checked(reader))) == 4
    with other.open() as reader, pytest.raises(LgmcError, match="not the clip that was listed"):
        list(sequence.checked(reader))
