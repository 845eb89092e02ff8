"""Put a trained model into codec/models, its evaluation results in its card.

python scripts/ship_model.py runs/lite/model.safetensors lite
    [--results results/lite.json results/lite-effort20.json] [--note "..."]
"""

import argparse
import json
import tempfile
from pathlib import Path

from codec.models import store

SHIPPED = Path(store.__file__).parent
LIMIT = 12_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="an exported model file")
    parser.add_argument("name", help="the name it ships under; its configuration must have it")
    parser.add_argument(
        "--results",
        type=Path,
        nargs="+",
        default=[],
        help="the JSONs that lgmc eval wrote for it, one for each effort",
    )
    parser.add_argument("--note", help="what a user should know of the training")
    options = parser.parse_args()

    tensors, config, card, digest = store.read_model(options.model)
    if config.name != options.name:
        raise SystemExit(f"the model is named {config.name!r}, not {options.name!r}")
    card["results"] = [point for path in options.results for point in _summary(path, digest)]
    if options.note:
        card["note"] = options.note
    target = SHIPPED / f"{options.name}.safetensors.xz"
    # Keys that this version has added to configurations would make another model of it.
    text = store.read_metadata(options.model)["config"]
    with tempfile.TemporaryDirectory(dir=SHIPPED) as folder:
        written = Path(folder) / target.name
        store.save_model(written, tensors, text, card)
        size = written.stat().st_size
        if size > LIMIT:
            raise SystemExit(f"{size} bytes is over the limit of {LIMIT}")
        written.replace(target)
    target.with_suffix("").unlink(missing_ok=True)  # as it shipped before, not compressed
    print(f"{target.name}: {size:,} bytes, weights {digest.hex()}")


def _summary(path: Path, digest: bytes) -> list[dict]:
    """The points of a result file in short: sequence, effort, quality, rate, PSNR."""
    results = json.loads(path.read_text())
    codec = results["conditions"]["codec"]
    if codec["weights"] != digest.hex():
        raise SystemExit(f"{path} was measured with other weights: {codec['weights']}")
    return [
        {
            "sequence": p["sequence"],
            "effort": codec.get("effort", "0"),
            "quality": p["level"],
            "bpp": round(p["bpp"], 5),
            "psnr_rgb": round(p["metrics"]["psnr_rgb"], 3),
        }
        for p in results["points"]
    ]


if __name__ == "__main__":
    main()
