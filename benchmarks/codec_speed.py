"""The codec from file to file: operations, frames a second, memory, and where the time goes.

Every timed job runs in a process of its own with the machine's threads, on a clip with known motion
in .y4m; the model is loaded before the clock starts. Times are of the whole of it: reading,
colour, network, entropy coding, container and writing.
"""

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.registry import Benchmark, Figure
from codec.errors import LgmcError

SMALL = (416, 240)
LARGE = (1920, 1080)
SMALL_FRAMES = 33
LARGE_FRAMES = 4
RUNS = 3


def gate(options: dict) -> None:
    """The decoder's pictures are the encoder's, and the estimate is the stream's size."""
    from codec import models, session

    with tempfile.TemporaryDirectory() as folder:
        clip = _clip(Path(folder), SMALL, 3)
        model = models.load(options["model"])
        stream, recon = Path(folder) / "s.lgmc", Path(folder) / "recon.y4m"
        session.encode(clip, stream, model=model, recon=recon)
        session.decode_to_file(stream, Path(folder) / "out.y4m", model=model, verify=True)
        if (Path(folder) / "out.y4m").read_bytes() != recon.read_bytes():
            raise LgmcError(
                "bench: decoding does not give the encoder's pictures; nothing is timed"
            )


def measure(options: dict) -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        return _operations(options) + _speed(Path(folder), options) + _large(Path(folder), options)


BENCHMARK = Benchmark(gate, measure)


def _clip(folder: Path, size: tuple[int, int], frames: int) -> Path:
    """A 4:2:0 clip with motion of several layers, through an RGB one of known motion."""
    from codec.video import VideoFormat, open_writer
    from codec.video.synthetic import synthetic_clip

    path = folder / f"{size[0]}x{size[1]}.y4m"
    if not path.exists():
        clip = synthetic_clip("layers", *size, frames)
        form = VideoFormat(*size, clip.format.fps)
        with open_writer(path, form) as writer:
            for frame in clip.frames(form):
                writer.write(frame)
    return path


def _operations(options: dict) -> list[Figure]:
    """kMAC per pixel of a P frame, and parameters."""
    from codec import models
    from eval.complexity import operations_per_pixel

    codec = models.load(options["model"]).codec
    encoder, decoder = operations_per_pixel(codec, *SMALL)
    parameters = sum(p.numel() for p in codec.parameters()) / 1e6
    return [
        Figure("P frame, encoder", encoder, "kMAC/pixel", limit="<= 120"),
        Figure("P frame, decoder", decoder, "kMAC/pixel", limit="<= 80"),
        Figure("parameters", parameters, "million"),
    ]


def _device(options: dict) -> str:
    return options.get("device") or "cpu"


def _speed(folder: Path, options: dict) -> list[Figure]:
    clip = _clip(folder, SMALL, SMALL_FRAMES)
    jobs = [_job(clip, options) for _ in range(RUNS)]
    name = f"{SMALL[0]}x{SMALL[1]}"

    def figure(label: str, key: str, unit: str, limit: str = "") -> Figure:
        values = [job[key] for job in jobs]
        limit = limit if _device(options) == "cpu" else ""  # what is held to is said of two cores
        return Figure(label, statistics.median(values), unit, min(values), max(values), limit)

    return [
        figure(f"encode {name}", "encode_fps", "frames/s", ">= 9"),
        figure(f"decode {name}", "decode_fps", "frames/s", ">= 15"),
        figure("of decoding: entropy coding and files", "decode_overhead", "%", "<= 10"),
        figure("of decoding: entropy coding", "decode_entropy", "%"),
        figure("of decoding: files and colour", "decode_files", "%"),
    ]


def _large(folder: Path, options: dict) -> list[Figure]:
    job = _job(_clip(folder, LARGE, LARGE_FRAMES), options)
    return [
        Figure("encode a P frame 1920x1080", job["p_seconds"], "s", limit="<= 3"),
        Figure("decode a P frame 1920x1080", job["p_decode_seconds"], "s"),
        Figure("resident, encoding 1920x1080", job["encode_gib"], "GiB", limit="<= 4"),
    ]


def _job(clip: Path, options: dict) -> dict[str, float]:
    """One encode and one decode in a new process."""
    command = [sys.executable, "-m", "benchmarks.codec_speed", str(clip), str(options["model"])]
    command.append(_device(options))
    if options.get("threads"):
        command.append(str(options["threads"]))
    root = Path(__file__).parents[1]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, check=False)
    if done.returncode:
        raise LgmcError(f"bench: the timed process failed: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout)


def _timed_job(clip: str, model_name: str, device: str, threads: int | None) -> dict[str, float]:
    import torch

    from codec import models, session, video_codec
    from codec.entropy.coders import StreamDecoder
    from codec.memory import keep_freed_memory

    keep_freed_memory()  # as the command does
    if threads:
        torch.set_num_threads(threads)
    model = models.load(model_name, device)
    entropy = [0.0]

    class TimedDecoder(StreamDecoder):
        def __init__(self, *arguments):
            started = time.perf_counter()
            super().__init__(*arguments)
            entropy[0] += time.perf_counter() - started

        def code(self, *arguments):
            started = time.perf_counter()
            symbols = super().code(*arguments)
            entropy[0] += time.perf_counter() - started
            return symbols

    with tempfile.TemporaryDirectory() as folder:
        stream, shown = Path(folder) / "s.lgmc", Path(folder) / "out.y4m"
        session.encode(clip, stream, model=model, device=device, frames=2)  # warm-up of the kernels
        stamps: list[float] = []
        encoded = session.encode(
            clip,
            stream,
            model=model,
            device=device,
            progress=lambda *_: stamps.append(time.perf_counter()),
        )
        encode_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        session.decode_to_file(stream, shown, model=model, device=device)
        shown = shown.with_stem("again")  # to free a replaced file's pages is no part of decoding
        video_codec.StreamDecoder = TimedDecoder
        decode_stamps: list[float] = []
        decoded = session.decode_to_file(
            stream,
            shown,
            model=model,
            device=device,
            progress=lambda *_: decode_stamps.append(time.perf_counter()),
        )
    frames = len(encoded.frames)
    files = decoded.seconds - decoded.coding_seconds
    return {
        "encode_fps": frames / encoded.seconds,
        "decode_fps": frames / decoded.seconds,
        "decode_overhead": 100 * (files + entropy[0]) / decoded.seconds,
        "decode_entropy": 100 * entropy[0] / decoded.seconds,
        "decode_files": 100 * files / decoded.seconds,
        "p_seconds": statistics.median(b - a for a, b in zip(stamps, stamps[1:], strict=False)),
        "p_decode_seconds": statistics.median(
            b - a for a, b in zip(decode_stamps, decode_stamps[1:], strict=False)
        ),
        "encode_gib": encode_gib,
    }


if __name__ == "__main__":
    _threads = int(sys.argv[4]) if len(sys.argv) > 4 else None
    print(json.dumps(_timed_job(*sys.argv[1:4], _threads)))
