"""Average two models of which the second learned on from the first (docs/training.md).

python scripts/average_models.py FIRST SECOND --share 0.35 -o average.safetensors

FIRST, SECOND: names or model files. What the average is worth has to be measured: on clips that
neither learned from.
"""

import argparse
from pathlib import Path

from codec.models import export, load
from codec.training.average import between


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("first")
    parser.add_argument("second")
    parser.add_argument("--share", type=float, default=0.5, help="of the second (default 0.5)")
    parser.add_argument("-o", "--out", type=Path, required=True)
    options = parser.parse_args()
    if not 0 <= options.share <= 1:
        parser.error(f"--share {options.share} is not between 0 and 1")

    first, second = load(options.first), load(options.second)
    codec = between(first.codec, second.codec, options.share)
    # Of how the second came about, but for what was measured of it.
    card = {k: v for k, v in second.card.items() if k not in ("results", "validation")}
    card["average"] = {
        "of": [first.digest.hex(), second.digest.hex()],
        "share": options.share,
        "first": {k: v for k, v in first.card.items() if k not in ("results", "validation")},
    }
    print(f"{options.out}: weights {export(codec, options.out, card).hex()}")


if __name__ == "__main__":
    main()
