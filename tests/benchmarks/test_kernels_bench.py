"""The plumbing of `lgmc bench kernels`, at sizes that take no time; no test here asserts a time."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from benchmarks import (
    alignment,
    kernel_cases,
    kernel_gate,
    kernel_memory,
    kernel_picture,
    kernel_tables,
    machine_peak,
    peers,
    timing,
)
from benchmarks import kernels as suite
from benchmarks.kernel_figures import held_to
from benchmarks.registry import load
from benchmarks.timing import Times, interleaved, ratios
from kernels import shifted_search
from lgmc.main import main

SIZE = (22, 26)
LINEAR = [(6, 8), (12, 16)]


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(kernel_cases, "CPU_SEARCH", [SIZE])
    monkeypatch.setattr(kernel_cases, "CPU_LINEAR", LINEAR)
    monkeypatch.setattr(kernel_cases, "CPU_CORRELATION", [SIZE])
    monkeypatch.setattr(kernel_cases, "SMALL_LINEAR", [(2, 3), (4, 4)])
    monkeypatch.setattr(kernel_cases, "SMALL", (13, 16))
    monkeypatch.setattr(kernel_cases, "LARGE", (17, 35))
    monkeypatch.setattr(kernel_cases, "WINDOW", 5)
    monkeypatch.setattr(suite, "ROUNDS", 2)
    monkeypatch.setattr(timing, "BLOCK_SECONDS", {"cpu": 0.0})


@pytest.fixture
def naive(monkeypatch):
    """The naive back end in the place of ours: nothing is compiled."""
    monkeypatch.setattr(kernel_cases, "our_backend", lambda device: "naive")


def search_case():
    return kernel_cases.search_case("cpu", "float32", SIZE, True)


def test_rows_and_figures_of_a_whole_run(small, naive, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(suite, "extra_bytes", lambda *_: {"forward": 1 << 20, "training": 2 << 20})
    monkeypatch.setattr(suite, "top_k_apart", lambda: {})
    monkeypatch.setattr(suite, "measure_ceilings", lambda device: {"fma_gflops": 100.0})
    path = tmp_path / "bench.json"
    assert main(["bench", "kernels", "--threads", "1", "--json", str(path)]) == 0
    report = json.loads(path.read_text())
    rows = report["rows"]["kernels"]
    assert {"operator", "case", "backend", "device", "dtype", "forward_ms"} <= set(rows[0])
    assert {"backward_ms", "extra_bytes", "speedup_over"} <= set(rows[0])
    assert {row["operator"] for row in rows} == {
        "shifted_search",
        "shifted_attention",
        "linear_attention",
        "correlation",
    }
    assert all(row["error"] == "" and row["forward_ms"] > 0 for row in rows)
    first = rows[0]
    assert {"grid_sample", "unfold+matmul"} <= set(first["speedup_over"])
    peer = next(row for row in rows if row["backend"] == "grid_sample")
    assert peer["speedup_over"] == {}
    figures = {figure["name"]: figure for figure in report["figures"]["kernels"]}
    assert figures["search: over grid_sample"]["limit"] == ">= 60"
    assert figures["search: of unfold's memory"]["value"] == 100
    assert figures["linear 64x12x16: time over a quarter, forward"]["limit"] == "<= 4.2"
    assert any("as called, both ways" in name for name in figures)
    assert report["versions"]["numba"]
    assert "grid_sample" in capsys.readouterr().out


@pytest.mark.parametrize("make", [kernel_cases.search_case, kernel_cases.attention_case])
def test_peers_pass_the_gate(make):
    case = make("cpu", "float32", SIZE, True)
    for contender in case.contenders[1:]:
        assert kernel_gate.refusal(case, contender) is None, contender.name


def test_other_peers_pass_the_gate():
    for case in (
        kernel_cases.linear_case("cpu", "float32", LINEAR[0], True),
        kernel_cases.correlation_case("cpu", "float32", SIZE, True),
    ):
        for contender in case.contenders[1:]:
            assert kernel_gate.refusal(case, contender) is None, contender.name


def test_natten_is_our_attention_with_the_whole_window():
    if not peers.installed("natten"):
        pytest.skip("natten is not installed")
    case = kernel_cases.attention_case("cpu", "float32", SIZE, True)
    assert kernel_gate.refusal(case, kernel_cases.natten_contender()) is None


@pytest.mark.parametrize("what", ["result", "gradient", "shape"])
def test_a_wrong_contender_is_refused(what):
    case = kernel_cases.linear_case("cpu", "float32", LINEAR[0], False)
    right = case.reference

    def call(x):
        out = right.call(x)
        if what == "result":
            return out + 0.01
        if what == "shape":
            return out[..., :-1]
        return out + (x["key"] - x["key"].detach()) * 0.1  # its value is right, its gradient not

    wrong = replace(right, call=call, result=lambda x: (call(x),))
    assert what in (kernel_gate.refusal(case, wrong) or "") or what == "result"
    assert kernel_gate.refusal(case, wrong) is not None
    assert kernel_gate.refusal(case, right) is None


def wrong_at(case, size, what):
    """The case's reference, but for one value of the images of one size."""

    def call(x):
        out = case.reference.call(x)
        if tuple(out.shape[2:]) == size:
            out[0, 0, 0, 0] += what
        return out

    return replace(case.reference, call=call, result=lambda x: (call(x),))


def test_one_wrong_value_is_enough(small):
    case = kernel_cases.linear_case("cpu", "float32", LINEAR[0], False)
    assert kernel_gate.refusal(case, wrong_at(case, kernel_cases.SMALL, 0.0)) is None
    why = kernel_gate.refusal(case, wrong_at(case, kernel_cases.SMALL, 1.0))
    assert "output: one off by 1, more than" in why


def test_ours_pass_a_larger_gate_as_well(small):
    case = kernel_cases.linear_case("cpu", "float32", LINEAR[0], False)
    wrong = wrong_at(case, kernel_cases.LARGE, 1.0)
    assert "output: one off" in kernel_gate.refusal(case, wrong)
    assert kernel_gate.refusal(case, replace(wrong, ours=False)) is None


def test_the_larger_gate_goes_where_the_timed_sizes_go():
    """Several parts of a head, and tiles of queries that are searched group by group."""
    from kernels.linear_attention import cpu as linear
    from kernels.shifted_search import cpu
    from kernels.shifted_search.cpu_planes import groups_of_tiles
    from kernels.shifted_search.options import SearchOptions
    from kernels.vector_planes import ROWS

    size, options = kernel_cases.LARGE, SearchOptions(9, 9)
    x = kernel_cases.search_case("cpu", "float32", size, False).make(*size, "torn")
    query, key, flow = x["query"], x["key"], x["flow"]
    assert linear._parts(linear._rows(query)) > 1
    search = cpu._search(query, key[:, None], options, 0)
    assert cpu._smooth_planes(query[0], key, flow, options, search) is not None
    sampled = (flow.data_ptr(), 4 * size[0] * size[1], 1, search)
    groups, tiles = groups_of_tiles(0, -(-size[0] // ROWS), *sampled)
    assert groups > tiles > 1


def test_calls_beside_the_cases_pass_the_gate(small, naive, monkeypatch):
    assert suite.refused_calls() == []
    called = kernel_cases.default_linear()

    def wrong(x):
        return called.call(x) + (x["query"].shape[2] == 4)  # at the second size

    broken = replace(called, call=wrong, result=lambda x: (wrong(x),))
    monkeypatch.setattr(kernel_cases, "default_linear", lambda: broken)
    (row,) = suite.refused_calls()
    assert row["case"].startswith("64x4x4") and row["error"].startswith("not timed: output")
    (figure,) = held_to("cpu", [row], {}, {}, {})
    assert figure.holds is False


def test_a_refused_contender_has_no_time(small, naive, monkeypatch):
    monkeypatch.setattr(suite, "extra_bytes", lambda *_: {"forward": 0, "training": 0})

    def broken(case, contender):
        return "wrong on purpose" if contender.name == "grid_sample" else None

    monkeypatch.setattr(suite, "refusal", broken)
    rows = {row["backend"]: row for row in suite.case_rows(search_case(), {"fma_gflops": 1.0})}
    assert rows["grid_sample"]["error"] == "not timed: wrong on purpose"
    assert rows["grid_sample"]["forward_ms"] is None
    assert "grid_sample" not in rows["naive"]["speedup_over"]
    assert rows["naive"]["forward_ms"] > 0
    assert "wrong on purpose" in kernel_tables.text_table(list(rows.values()))


def test_a_refused_back_end_fails_the_command(small, naive, monkeypatch, capsys):
    monkeypatch.setattr(suite, "measure_ceilings", lambda device: {"fma_gflops": 100.0})
    monkeypatch.setattr(suite, "cases", lambda device: [search_case()])
    monkeypatch.setattr(suite, "extra_bytes", lambda *_: {"forward": 0, "training": 0})
    monkeypatch.setattr(suite, "refusal", lambda case, c: "it is wrong" if c.ours else None)
    assert main(["bench", "kernels", "--threads", "1"]) == 1
    captured = capsys.readouterr()
    assert "it is wrong" in captured.err and "held to <= 0: NO" in captured.out


def test_without_a_gpu_cuda_is_refused(capsys):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert main(["bench", "kernels", "--device", "cuda"]) == 1
    assert "no CUDA device" in capsys.readouterr().err


def test_calls_are_interleaved_and_counted():
    order = []
    calls = {
        "a": (lambda: order.append("a"), None),
        "b": (lambda: order.append("b") or 3, lambda got: order.append(got)),
    }
    # A block repeats a quick call; one repeat is enough to see the order.
    times = interleaved(calls, 2, "cpu", warm_up=0)
    assert len(times["a"].forward) == len(times["b"].backward) == 2
    assert times["a"].backward == []
    squeezed = [x for i, x in enumerate(order) if i == 0 or order[i - 1] != x]
    letters = [x for x in squeezed if x != 3]
    assert "".join(sorted(set(letters))) == "ab" and order.count(3) == order.count("b")
    blocks = "".join(x for i, x in enumerate(letters) if i == 0 or letters[i - 1] != x)
    assert blocks == "abab"


def test_ratios_are_taken_round_by_round():
    assert ratios([2.0, 9.0, 8.0], [1.0, 3.0, 2.0]) == (3.0, 2.0, 4.0)
    assert Times([1.0, 2.0], [0.5, 0.25]).total == [1.5, 2.25]


def test_memory_is_a_peak_beyond_inputs_and_outputs(small, monkeypatch):
    case = kernel_cases.correlation_case("cpu", "float32", (96, 128), True)
    monkeypatch.setattr(kernel_cases, "CPU_CORRELATION", [(96, 128)])
    products = next(c for c in case.contenders if c.name == "shifted products")
    found = kernel_memory.extra_bytes(case, products, 1)
    if found["forward"] is None:
        pytest.skip("no /proc/self/clear_refs here")
    # Held at the peak besides the output: the maps before they are stacked (4 MB), or the padded
    # key and one product (3 MB each).
    output = 81 * 96 * 128 * 4
    assert 0.9 * output < found["forward"] < 5 * output


def test_memory_that_cannot_be_measured_is_an_error(small, naive, monkeypatch):
    if not kernel_memory.CLEAR.exists():
        pytest.skip("no /proc/self/clear_refs here")
    failed = SimpleNamespace(returncode=1, stdout="", stderr="Traceback\nMemoryError: too much\n")
    monkeypatch.setattr(kernel_memory.subprocess, "run", lambda *_, **__: failed)
    monkeypatch.setattr(suite, "refusal", lambda *_: None)
    rows = suite.case_rows(search_case(), {"fma_gflops": 1.0})
    assert all("exit status 1: MemoryError: too much" in row["error"] for row in rows)
    ours, lost = held_to("cpu", rows, {}, {}, {})
    assert ours.value == 1 and ours.holds is False
    assert lost.value >= 2 and lost.holds is False


def test_a_smooth_flow_is_as_strong_as_it_says():
    generator = torch.Generator().manual_seed(0)
    flow = kernel_cases.smooth_flow(40, 60, "smooth", generator)
    assert flow.shape == (1, 2, 40, 60) and 1 < flow.abs().mean() < 5
    assert (flow[..., 1:] - flow[..., :-1]).abs().max() < 1
    assert not kernel_cases.smooth_flow(4, 5, "zero", generator).any()


def test_the_sampler_peer_orders_its_window_by_rows():
    if not peers.installed("spatial_correlation_sampler"):
        pytest.skip("spatial-correlation-sampler is not installed")
    query, key = torch.zeros(1, 1, 7, 7), torch.zeros(1, 1, 7, 7)
    query[..., 3, 3], key[..., 2, 4] = 1, 1  # one row up, one column right
    volume = peers.sampler_correlation(query, key, 3)
    assert volume[0, :, 3, 3].argmax() == 2


def test_tables_go_between_the_marks_of_the_document():
    report = {
        "date": "2026-01-02T00:00:00+00:00",
        "machine": {"cpu": "a CPU", "gpu": None, "cores": 2},
        "versions": {"python": "3.11", "torch": "2"},
        "command": ["lgmc", "bench", "kernels"],
        "options": {"device": "cpu"},
        "figures": {"kernels": []},
        "rows": {"kernels": []},
    }
    text = f"above\n{kernel_tables.BEGIN}\nbygone\n{kernel_tables.END}\nbelow\n"
    filled = kernel_tables.fill(text, [report])
    assert "bygone" not in filled and "### a CPU, 2026-01-02" in filled
    assert filled.startswith("above\n") and filled.endswith("below\n")
    assert kernel_tables.fill(filled, [report]) == filled
    document = kernel_tables.DOCUMENT.read_text(encoding="utf-8")
    assert kernel_tables.BEGIN in document and kernel_tables.END in document


def test_the_picture_shows_what_the_search_finds(tmp_path):
    vector, key = kernel_picture.scene()
    whole, left, top = kernel_picture.integer_scores(vector, key)
    scores = kernel_picture.interpolated(whole)
    best, _ = kernel_picture.direct(vector, key)
    torch.testing.assert_close(
        scores.flatten().topk(kernel_picture.TOPK).values.double(), best, atol=1e-5, rtol=0
    )
    assert (left, top) == (7, 3)
    kernel_picture.draw(tmp_path / "p.png")
    assert (tmp_path / "p.png").stat().st_size > 10_000


def test_alignment_corrects_a_wrong_flow():
    """A pan of (3, -2), a flow that says (1, 0): the search finds the rest, windows of 1 do not."""
    torch.manual_seed(1)
    world = torch.nn.functional.interpolate(torch.rand(1, 3, 24, 24), scale_factor=2)
    clean = [world[:, :, 10 + 2 * t : 40 + 2 * t, 12 - 3 * t : 42 - 3 * t] for t in range(3)]

    def net(current, reference):
        t, other = (next(i for i, x in enumerate(seen) if x is y) for y in (current, reference))
        pan = torch.tensor([3.0, -2.0]) * (other - t)
        wrong = pan + torch.tensor([-2.0, 2.0])
        return wrong[None, :, None, None].expand(1, 2, 30, 30).contiguous()

    seen = []
    original = alignment.noisy

    def remember(frames, sigma):
        seen.extend(original(frames, sigma))
        return seen

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alignment, "noisy", remember)
        found = alignment.align_clip(clean, net, (1, 5), 2.0)
    assert found[5] > found[1] + 10


def test_a_patch_as_channels_is_a_patch():
    """The search that the experiment runs is the operator's own with patch 3, borders too."""
    torch.manual_seed(2)
    current, reference = torch.rand(1, 3, 17, 22), torch.rand(1, 3, 17, 22)
    flow = 3 * torch.randn(1, 2, 17, 22)
    _, offsets = shifted_search(
        current.double(), reference.double(), flow.double(), window=5, topk=1, patch=3, metric="l2"
    )
    found = alignment.aligned(current.double(), reference.double(), flow.double(), 5)
    torch.testing.assert_close(found, offsets[:, 0, :, :, 0].movedim(-1, 1))


def test_neighbours_at_the_ends():
    assert [alignment.neighbours(t, 4) for t in range(4)] == [(1, 2), (2, 0), (3, 1), (2, 1)]


def test_alignment_tables_and_plot(tmp_path):
    found = {"DIS": {"a": {1: 30.0, 3: 32.0}, "b": {1: 20.0, 3: 24.0}}}
    text = alignment.table(found)
    assert "| mean | 25.00 | +3.00 |" in text
    alignment.plot(found, tmp_path / "a.png", 15.0)
    assert (tmp_path / "a.png").stat().st_size > 5000


def test_the_share_of_the_peak_has_top_k_in_its_time(small, naive):
    apart = suite.top_k_apart()
    assert set(apart) == {"top9_ms", "top1_ms", "torch_topk_ms", "fma_gflops", "operations"}
    assert apart["operations"] == 2 * 64 * 6 * 6 * SIZE[0] * SIZE[1]
    given = {"top9_ms": 4.0, "top1_ms": 3.0, "torch_topk_ms": 9.0, "fma_gflops": 200.0}
    given["operations"] = 3e8  # 75 GFLOP/s in the whole time

    def figures(apart):
        return {figure.name: figure for figure in held_to("cpu", [], {}, apart, {})}

    whole = "search: products' share of the peak in the whole time, top-k included"
    own = "search: products' share of the peak in their own time"
    found = figures(given)
    assert found[whole].value == pytest.approx(37.5) and found[whole].holds is False
    assert found["search: top 9 over the best alone"].value == 1
    found = figures({**given, "products_ms": 3.0})  # 100 GFLOP/s
    assert found[own].value == pytest.approx(50) and found[own].holds
    assert found[whole].value == pytest.approx(37.5) and found[whole].holds is None


def test_small_images_are_called_without_a_back_end(small):
    found = suite.small_images()
    assert {key: set(by_size) for key, by_size in found.items()} == {
        "forward": {(2, 3), (4, 4)},
        "both ways": {(2, 3), (4, 4)},
    }
    given = {"forward": {(2, 3): 1.5, (4, 4): 0.9}}
    (_, figure) = held_to("cpu", [], {}, {}, given)
    assert figure.name == "linear up to 4x4, as called, forward: least, at 4x4"
    assert (figure.value, figure.low, figure.high, figure.holds) == (0.9, 0.9, 1.5, False)


def test_the_fma_peak_grows_with_the_work():
    burst, lanes = machine_peak._fma_burst()
    assert lanes in (4, 8, 16)
    # x <- 0.999 x + 0.001 runs to 1 in each chain; the burst adds one lane of each.
    assert burst(20_000) == pytest.approx(machine_peak.CHAINS, rel=1e-3)
    assert machine_peak.fma_gflops(1, 0.01) > 0


def test_the_suite_is_registered():
    assert load("kernels") is suite.BENCHMARK
