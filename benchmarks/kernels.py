"""The operators of ``kernels/``: time, memory, and how far they are ahead of what exists.

Before a case is timed, our back end and every peer are held against the naive one (kernel_gate);
who fails is not timed and the row says why. Times are of interleaved rounds, ratios are taken round
by round, figures are medians. On a GPU the same cases run with the card's measured copy and product
rates beside them:

    python -m benchmarks.kernels --device cuda --json kernels.json

needs torch, triton and numpy alone, and prints one table.
"""

import argparse
import functools
import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from benchmarks import kernel_cases, machine_peak
from benchmarks.kernel_cases import Case, Contender, cases
from benchmarks.kernel_figures import held_to
from benchmarks.kernel_gate import refusal, refusal_at
from benchmarks.kernel_memory import extra_bytes
from benchmarks.registry import Benchmark, Measured
from benchmarks.timing import Pair, Times, interleaved, ratios

ROUNDS = 5
GROWTH_ROUNDS = 9
CASE_SECONDS = {"cpu": 45.0, "cuda": 1.0}
"""No further round of a case begins after this long; the forward and the training have it each."""


def gate(options: dict) -> None:
    """That the device is there. Each case has a gate of its own, just before it is timed."""
    from codec.errors import ConfigError

    if options.get("device") == "cuda" and not torch.cuda.is_available():
        raise ConfigError("bench: --device cuda, but torch sees no CUDA device")


def measure(options: dict) -> Measured:
    """Rows and figures of all cases on a device (options: device, threads)."""
    device = options.get("device") or "cpu"
    threads_before = torch.get_num_threads()
    torch.set_num_threads(options.get("threads") or threads_before)
    try:
        ceilings = measure_ceilings(device)
        rows = []
        for case in cases(device):
            started = time.perf_counter()
            found = case_rows(case, ceilings)
            _tell(case, found, time.perf_counter() - started)
            rows += found
        refused = refused_calls() if device == "cpu" else []
        rows += refused
        apart = top_k_apart() if device == "cpu" and not (rows[0]["error"] or refused) else {}
        small = small_images() if device == "cpu" and not refused else {}
        growth = linear_growth(cases(device)) if device == "cpu" else {}
        return Measured(held_to(device, rows, ceilings, apart, small, growth), rows, ceilings)
    finally:
        torch.set_num_threads(threads_before)


BENCHMARK = Benchmark(
    gate, measure, packages=("numba", "triton", "spatial-correlation-sampler", "natten")
)


def measure_ceilings(device: str) -> dict[str, float]:
    """What the machine can do, measured before the cases: see ``machine_peak``."""
    if device == "cuda":
        return {
            "copy_gbps": machine_peak.gpu_copy_gbps(),
            "float32_tflops": machine_peak.gpu_matmul_tflops("float32"),
            "bfloat16_tflops": machine_peak.gpu_matmul_tflops("bfloat16"),
        }
    return {"fma_gflops": machine_peak.fma_gflops(torch.get_num_threads())}


def case_rows(case: Case, ceilings: dict[str, float]) -> list[dict]:
    """One row for each contender: gate, memory, then times."""
    rows = {c.name: _row(case, c) for c in case.contenders}
    sound = []
    for contender in case.contenders:
        why = _guarded(lambda c=contender: refusal(case, c))
        if isinstance(why, str):
            rows[contender.name]["error"] = f"not timed: {why}"
        else:
            sound.append(contender)
    for contender in list(sound):
        extra = _guarded(lambda c=contender: extra_bytes(case, c, torch.get_num_threads()))
        if isinstance(extra, str):
            rows[contender.name]["error"] = f"not timed: {extra}"
            sound.remove(contender)
        else:
            rows[contender.name]["extra_bytes"] = extra["forward"]
            rows[contender.name]["training_extra_bytes"] = extra["training"]
    if sound:
        why = _guarded(lambda: _fill_times(case, sound, rows))
        for contender in sound if isinstance(why, str) else ():
            rows[contender.name]["error"] = f"not timed: {why}"
    for row in rows.values():
        _fill_shares(row, ceilings)
    return list(rows.values())


def refused_calls() -> list[dict]:
    """Rows of the calls that are timed beside the cases and that the gate refuses.

    The search for the best alone, and linear attention as one calls it, at each of its sizes.
    """
    best = kernel_cases.search_case("cpu", "float32", kernel_cases.CPU_SEARCH[0], False, 1)
    checks = [(best, c, lambda c=c: refusal(best, c)) for c in best.contenders]
    called = kernel_cases.default_linear()
    for size in kernel_cases.SMALL_LINEAR:
        case = kernel_cases.linear_case("cpu", "float32", size, False)
        check = functools.partial(refusal_at, case, called, size, "smooth")
        checks.append((case, called, check))
    rows = []
    for case, contender, check in checks:
        why = _guarded(check)
        if isinstance(why, str):
            row = _row(case, contender)
            rows.append({**row, "case": f"{case.name}, apart", "error": f"not timed: {why}"})
            _tell(case, rows[-1:], 0.0)
    return rows


def _row(case: Case, contender: Contender) -> dict:
    return {
        "operator": case.operator,
        "case": case.name,
        "backend": contender.name,
        "ours": contender.ours,
        "device": case.device,
        "dtype": case.dtype,
        "forward_ms": None,
        "backward_ms": None,
        "training_ms": None,
        "extra_bytes": None,
        "training_extra_bytes": None,
        "operations": case.work.operations,
        "bytes": case.work.bytes,
        "backward_operations": case.work.backward_operations,
        "backward_bytes": case.work.backward_bytes,
        "speedup_over": {},
        "training_speedup_over": {},
        "error": "",
    }


def _guarded(call: Callable) -> object:
    """The call's answer, or one line of text where it fails: the other contenders go on."""
    try:
        return call()
    except Exception as error:  # a compiler's error, out of memory, a package's own
        first = (str(error).strip() or "no message").splitlines()[0]
        why = f"{type(error).__name__}: {first[:160]}"
    # Here and not above: there the error still holds the tensors of the call.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return why


def _tell(case: Case, rows: list[dict], seconds: float) -> None:
    """One line of progress on stderr; a run that is cut short leaves these."""
    parts = []
    for row in rows:
        if row["error"]:
            parts.append(f"{row['backend']} {row['error']}")
        else:
            parts.append(f"{row['backend']} {row['forward_ms']:.3g} + {row['backward_ms']:.3g} ms")
    print(f"{case.key} ({seconds:.0f} s): {'; '.join(parts)}", file=sys.stderr, flush=True)


def forward_calls(case: Case, contenders: list[Contender]) -> dict[str, Pair]:
    """Timed calls without gradients, by contender."""
    inputs = case.inputs()

    def call(contender: Contender) -> Pair:
        def run() -> object:
            with torch.no_grad():
                return contender.call(inputs)

        return run, None

    return {c.name: call(c) for c in contenders}


def training_calls(case: Case, contenders: list[Contender]) -> dict[str, Pair]:
    """Timed calls with gradients to every input that the contender has one for."""
    leaves = {name: x.requires_grad_() for name, x in case.inputs().items()}

    def call(contender: Contender) -> Pair:
        with torch.no_grad():
            weights = torch.ones_like(contender.call(leaves))

        def backward(out: Tensor) -> object:
            return torch.autograd.grad(out, list(leaves.values()), weights, allow_unused=True)

        return lambda: contender.call(leaves), backward

    return {c.name: call(c) for c in contenders}


def _fill_times(case: Case, contenders: list[Contender], rows: dict[str, dict]) -> None:
    without, with_gradients = forward_calls(case, contenders), training_calls(case, contenders)
    seconds = CASE_SECONDS[case.device]
    forward = interleaved(without, ROUNDS, case.device, seconds=seconds)
    training = interleaved(with_gradients, ROUNDS, case.device, seconds=seconds)
    for name in without:
        row = rows[name]
        row["forward_ms"] = statistics.median(forward[name].forward)
        row["forward_range_ms"] = [min(forward[name].forward), max(forward[name].forward)]
        row["backward_ms"] = statistics.median(training[name].backward)
        row["training_ms"] = statistics.median(training[name].total)
        row["rounds"] = [len(forward[name].forward), len(training[name].forward)]
    for ours in contenders:
        if ours.ours:
            _fill_speedups(rows[ours.name], forward, "speedup_over")
            _fill_speedups(rows[ours.name], training, "training_speedup_over")


def _fill_speedups(row: dict, times: dict[str, Times], key: str) -> None:
    """peer -> median ratio, and its range beside it."""
    for name, peer in times.items():
        if name != row["backend"]:
            median, low, high = ratios(peer.total, times[row["backend"]].total)
            row[key][name] = median
            row.setdefault(f"{key}_range", {})[name] = [low, high]


def _fill_shares(row: dict, ceilings: dict[str, float]) -> None:
    """Shares of the measured ceilings that the least work reaches in the measured time."""
    if row["error"]:
        return
    for prefix, milliseconds in (("", row["forward_ms"]), ("backward_", row["backward_ms"])):
        operations = row[f"{prefix}operations"] / milliseconds / 1e6  # 10^9 a second
        if row["device"] == "cuda":
            moved = row[f"{prefix}bytes"] / milliseconds / 1e6
            top = 1000 * ceilings[f"{row['dtype']}_tflops"]
            row[f"{prefix}share_of_copy"] = moved / ceilings["copy_gbps"]
            row[f"{prefix}share_of_matmul"] = operations / top
        else:
            row[f"{prefix}share_of_fma"] = operations / ceilings["fma_gflops"]


def top_k_apart() -> dict[str, float]:
    """The headline search with its top 9 and with the best alone, the FMA peak between the rounds.

    Returns:
        top9_ms, top1_ms; torch_topk_ms: torch.topk alone on a volume of such scores; products_ms:
        the search's products alone, where the back end offers to measure them; fma_gflops;
        operations of the search.
    """
    size = kernel_cases.CPU_SEARCH[0]
    nine, one = (
        kernel_cases.search_case("cpu", "float32", size, False, topk)
        for topk in (kernel_cases.TOPK, 1)
    )
    volume = torch.randn(1, kernel_cases.WINDOW**2, *size)
    calls = {
        "top9_ms": next(iter(forward_calls(nine, list(nine.contenders)).values())),
        "top1_ms": next(iter(forward_calls(one, list(one.contenders)).values())),
        "torch_topk_ms": (lambda: torch.topk(volume, kernel_cases.TOPK, dim=1), None),
    }
    found: dict[str, list[float]] = {name: [] for name in (*calls, "fma_gflops")}
    products = _products(nine)
    if products is not None:
        found["products_ms"] = []
    for _ in range(ROUNDS):
        if products is not None:
            found["products_ms"].append(1000 * products())
        found["fma_gflops"].append(machine_peak.fma_gflops(torch.get_num_threads(), 0.1))
        for name, times in interleaved(calls, 1, "cpu").items():
            found[name] += times.forward
    medians = {name: statistics.median(values) for name, values in found.items()}
    return {**medians, "operations": nine.work.operations}


def small_images() -> dict[str, dict[tuple[int, int], float]]:
    """Linear attention as one calls it, no back end named, over the five lines of torch.

    The rows of the table are of the compiled back end; for small images a call takes another way.

    Returns:
        "forward" and "both ways": size -> how many times as fast, the median of the rounds.
    """
    found: dict[str, dict[tuple[int, int], float]] = {"forward": {}, "both ways": {}}
    for size in kernel_cases.SMALL_LINEAR:
        case = kernel_cases.linear_case("cpu", "float32", size, True)
        five = next(c for c in case.contenders if c.name == "five lines")
        contenders = [kernel_cases.default_linear(), five]
        for key, calls in (("forward", forward_calls), ("both ways", training_calls)):
            times = interleaved(calls(case, contenders), 6 * ROUNDS, "cpu")
            ours, theirs = (times[c.name].total for c in contenders)
            found[key][size] = ratios(theirs, ours)[0]
    return found


def linear_growth(found: list[Case]) -> dict[tuple[str, str], tuple[float, float, float]]:
    """Linear attention's time over that at a quarter of the pixels, both sizes in turn.

    The rows' times would be of minutes apart, and what else the machine does in between would be
    in the ratio.

    Returns:
        (name of the larger case, "forward" or "both ways") -> median, lowest, highest of rounds.
    """
    found = [c for c in found if c.operator == "linear_attention" and c.dtype == "float32"]
    growth = {}
    for large in found:
        for small in found:
            if math.prod(large.size) != 4 * math.prod(small.size):
                continue
            for label, calls in (("forward", forward_calls), ("both ways", training_calls)):
                pair = {}
                for case in (small, large):
                    ours = [c for c in case.contenders if c.ours]
                    pair[case.name] = next(iter(calls(case, ours).values()))
                times = interleaved(pair, GROWTH_ROUNDS, "cpu")
                growth[large.name, label] = ratios(times[large.name].total, times[small.name].total)
    return growth


def _products(case: Case) -> Callable[[], float] | None:
    """Seconds of the products of a search, or None where no one can tell."""
    if kernel_cases.our_backend(case.device) != "cpu":
        return None
    from kernels.shifted_search import cpu

    seconds = getattr(cpu, "products_seconds", None)
    if seconds is None:
        return None
    x, repeats = case.inputs(), 10
    return lambda: seconds(x["query"], x["key"], x["flow"], kernel_cases.WINDOW, repeats)


def main() -> None:
    from benchmarks import runner

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, metavar="N")
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    report = runner.run(["kernels"], {"device": args.device, "threads": args.threads})
    if args.json:
        runner.save(report, Path(args.json))
    print(json.dumps(report["machine"]), json.dumps(report["versions"]), sep="\n")
    print(runner.describe(report))


if __name__ == "__main__":
    main()
