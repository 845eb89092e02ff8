"""docs/protocol.md names the metrics, the limits and what the anchors are given."""

from pathlib import Path

from eval.anchors import ANCHORS, AV1_QPS, REFERENCES
from eval.bdrate import MIN_OVERLAP, WARN_OVERLAP
from eval.metrics import EXTRA_METRICS, METRICS, PSNR_CAP
from eval.published import published_names

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "protocol.md").read_text(encoding="utf-8")


def test_metrics_limits_and_options_are_those_of_the_code():
    assert all(f"`{metric}`" in TEXT for metric in (*METRICS, *EXTRA_METRICS))
    assert f"{PSNR_CAP:.0f} dB" in TEXT
    assert f"{MIN_OVERLAP:.0%}".replace("%", " %") in TEXT
    assert f"{WARN_OVERLAP:.0%}".replace("%", " %") in TEXT
    for kind in ANCHORS.values():
        assert f"    {kind.name:14} {kind.command('QP', 32)}\n" in TEXT
    for kind in REFERENCES.values():
        assert f"`{kind.name}`" in TEXT and f"`{kind.configuration}`" in TEXT
    assert f"default {','.join(map(str, AV1_QPS))}" in TEXT
    assert all(f"`{name}`" in TEXT for name in published_names())
