"""Begin a wider codec from a narrower one: its new latents learn what the old ones leave.

python scripts/widen_model.py configs/lite_gpu.yaml PARENT.safetensors -o widened.safetensors
    --data clips [--steps 320] [key.path=value ...]

The intra codec learns wholly, of the P codec what is new alone. The file is for ``training.init``.
"""

import argparse
import json
import tempfile
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from codec.config import Stage, load_experiment
from codec.training.checkpoint import load_weights
from codec.training.data import Batch
from codec.training.loss import clip_loss, draw_quality
from codec.training.new_latents import (
    PARTS,
    NewLatents,
    begin_densities,
    latent_channels,
    only_new,
)
from codec.training.run import TrainingRun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config")
    parser.add_argument("parent", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="key.path=value")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--data", help="folder of video clips, for what the config has")
    parser.add_argument("--steps", type=int, default=320)
    parser.add_argument("--lr", type=float, default=1e-3)
    options = parser.parse_intermixed_args()

    overrides = ["training.init=null", *options.overrides]
    if options.data:
        overrides.append(f"training.data.paths={json.dumps([options.data])}")
    experiment = load_experiment(options.config, overrides)
    stage = Stage(name="widen", steps=options.steps, frames=3, loss="all", searched=0.5)
    training = experiment.training.model_copy(update={"stages": (stage,)})
    experiment = experiment.model_copy(update={"training": training})
    try:
        stored = safe_open(options.parent, "pt")
    except (SafetensorError, OSError) as error:
        parser.error(f"{options.parent}: cannot be read as weights ({error})")
    with tempfile.TemporaryDirectory() as folder, stored:
        run = TrainingRun(experiment, Path(folder) / "run")  # its cache lies beside it
        codec = run.codec
        load_weights(options.parent, codec, widen=True)
        names = list(stored.keys())
        shapes = {name: stored.get_slice(name).get_shape() for name in names}
        if f"{PARTS['intra']}.scale_path.offset" not in shapes:
            raise SystemExit(f"{options.parent}: has no exact scale path, which new latents need")
        old = {part: shapes[f"{path}.scale_path.offset"][1] for part, path in PARTS.items()}
        squares = teach(run, stage, old, only_new(codec, shapes, free="intra."), options.lr)
    begin_densities(codec, old, squares)
    save_file(
        {k: v.detach().half().cpu().contiguous() for k, v in codec.named_parameters()}, options.out
    )
    print(f"{options.out}: {latent_channels(codec)} latent channels where there were {old}")


def teach(
    run: TrainingRun,
    stage: Stage,
    old: dict[str, int],
    learning: list[torch.nn.Parameter],
    peak: float,
) -> dict[str, torch.Tensor]:
    """Take the steps; returns the new channels' mean squared residuals at the best quality."""
    optimizer = torch.optim.Adam(learning)
    squares: dict[str, list[torch.Tensor]] = {}
    best: dict[str, list[torch.Tensor]] = {}
    run.codec.train()
    for step in range(stage.steps):
        torch.manual_seed(step)
        for group in optimizer.param_groups:
            group["lr"] = peak * min(1.0, (step + 1) / 20) * (1 - 0.8 * step / stage.steps)
        batch = Batch(*(t if t is None else t.to(run.device) for t in run.batch(step)))
        # Where bits are worth most: the lower half of the qualities has no use for noise.
        quality = (32 + draw_quality(len(batch.clip)) // 2).to(run.device)
        squares.clear()
        priced = step >= stage.steps * 2 // 5
        model = partial(NewLatents, old=old, squares=squares, priced=priced)
        outcome = clip_loss(run.codec, batch, quality, stage, run.config, model=model)
        optimizer.zero_grad(set_to_none=True)
        outcome.loss.backward()
        torch.nn.utils.clip_grad_norm_(learning, run.config.clip_norm)
        optimizer.step()
        if step >= stage.steps * 7 // 10:  # the last sample has the best quality
            for part, values in squares.items():
                best.setdefault(part, []).extend(each[-1] for each in values)
        if (step + 1) % 20 == 0:
            bpp = " ".join(f"{part} {value:.4f}" for part, value in outcome.bpp.items())
            psnr = " ".join(f"{kind} {value:.2f}" for kind, value in outcome.psnr.items())
            sizes = " ".join(
                f"{part} {torch.stack([v.mean() for v in values]).mean().sqrt():.3f}"
                for part, values in squares.items()
            )
            print(
                f"{step + 1}/{stage.steps} loss {outcome.loss:.4f} bpp {bpp} dB {psnr} new {sizes}",
                flush=True,
            )
    return {part: torch.stack(values).mean(0) for part, values in best.items()}


if __name__ == "__main__":
    main()
