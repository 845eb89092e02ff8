"""What the machine can do at best, measured: multiply-adds on a CPU; copies, products on a GPU.

The CPU's peak is of a loop that only multiplies and adds in registers, with as many chains as hide
the unit's latency, on every thread. It is built when it is first asked for, by the same compiler
(LLVM, through numba) as the kernels.
"""

import functools
import statistics
import time
from concurrent.futures import ThreadPoolExecutor

CHAINS = 12
"""Independent sums in registers: 4 cycles of latency times 2 units ask for 8; 20 are spilt."""
STEPS = 2_000_000


def fma_gflops(threads: int, seconds: float = 0.3) -> float:
    """Float32 multiply-adds as 10^9 operations/s (two each), the median of repeated bursts."""
    burst, lanes = _fma_burst()
    operations = 2.0 * STEPS * CHAINS * lanes * threads
    rates = []
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(burst, [1000] * threads))
        stop = time.perf_counter() + seconds
        while not rates or time.perf_counter() < stop:
            started = time.perf_counter()
            list(pool.map(burst, [STEPS] * threads))
            rates.append(operations / (time.perf_counter() - started) / 1e9)
    return statistics.median(rates)


@functools.cache
def _fma_burst():
    """(nogil function of the number of steps, lanes of a vector)."""
    import numba
    from llvmlite import binding, ir
    from numba.core import cgutils, types
    from numba.extending import intrinsic

    features = binding.get_host_cpu_features()
    lanes = 16 if features.get("avx512f") else 8 if features.get("avx2") else 4
    floats = ir.VectorType(ir.FloatType(), lanes)

    @intrinsic
    def bursts(typing_context, steps):
        def build(context, builder, signature, arguments):
            kind = ir.FunctionType(floats, [floats] * 3)
            name = f"llvm.fma.v{lanes}f32"
            fma = cgutils.get_or_insert_function(builder.module, kind, name)
            splat = [ir.Constant(floats, [x] * lanes) for x in (0.999, 1e-3)]
            entry, loop = builder.block, builder.append_basic_block("fma")
            after = builder.append_basic_block("after")
            builder.branch(loop)
            builder.position_at_end(loop)
            count = builder.phi(arguments[0].type)
            count.add_incoming(arguments[0], entry)
            sums = [builder.phi(floats) for _ in range(CHAINS)]
            for i, total in enumerate(sums):
                total.add_incoming(ir.Constant(floats, [float(i)] * lanes), entry)
                total.add_incoming(builder.call(fma, [total, *splat]), loop)
            left = builder.sub(count, ir.Constant(count.type, 1))
            count.add_incoming(left, loop)
            done = builder.icmp_signed("<=", left, ir.Constant(left.type, 0))
            builder.cbranch(done, after, loop)
            builder.position_at_end(after)
            total = sums[0]
            for other in sums[1:]:
                total = builder.fadd(total, other)
            return builder.extract_element(total, ir.Constant(ir.IntType(32), 0))

        return types.float32(types.int64), build

    @numba.njit(nogil=True)
    def burst(steps):
        return bursts(numba.int64(steps))

    burst(1)
    return burst, lanes


def gpu_copy_gbps() -> float:
    """Bytes read and written by a device-to-device copy of 1 GiB, in 10^9/s."""
    import torch

    source = torch.empty(1 << 30, dtype=torch.uint8, device="cuda").random_()
    target = torch.empty_like(source)
    return 2 * source.numel() / 1e6 / _gpu_ms(lambda: target.copy_(source))


def gpu_matmul_tflops(dtype_name: str, size: int = 8192) -> float:
    """Operations/s of a square product of random matrices, in 10^12; float32 without TF32."""
    import torch

    dtype = getattr(torch, dtype_name)
    if dtype == torch.float32:
        size //= 2
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        a, b = (torch.randn(size, size, device="cuda", dtype=dtype) for _ in range(2))
        out = torch.empty_like(a)
        return 2 * size**3 / 1e9 / _gpu_ms(lambda: torch.mm(a, b, out=out))
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def _gpu_ms(call, repeats: int = 10) -> float:
    import torch

    for _ in range(3):
        call()
    times = []
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times)
