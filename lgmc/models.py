"""List the models that ship, show one, or import a published checkpoint.

lgmc models                    lists those that ship
lgmc models show NAME|FILE     card and configuration of one
lgmc models import FILE OUT    makes OUT.safetensors of an official DCVC-TCM checkpoint
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from codec.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="the list as JSON on standard output")
    parser.set_defaults(action=_list)
    actions = parser.add_subparsers(metavar="ACTION")
    show = actions.add_parser("show", help="card and configuration of one, as JSON")
    show.add_argument("name", metavar="NAME|FILE")
    show.set_defaults(action=_show)
    imports = actions.add_parser("import", help="bring an official DCVC-TCM checkpoint over")
    imports.add_argument("checkpoint", metavar="FILE", help="the published P-frame checkpoint")
    imports.add_argument("target", metavar="OUT", help="the .safetensors file to write")
    imports.add_argument(
        "--intra", default="lite", metavar="NAME|FILE", help="whose I-frame codec (default lite)"
    )
    imports.set_defaults(action=_import)


def run(args: argparse.Namespace) -> int:
    args.action(args)
    return 0


def _list(args: argparse.Namespace) -> None:
    from codec.models import available, describe

    models = [describe(name) for name in available()]
    if args.json:
        print(json.dumps(models, indent=2))
        return
    if not models:
        print("no model ships with this copy; train one with train_codec.py, then --model FILE")
        return
    row = "{:<12} {:>12}  {:<32}  {}"
    print(row.format("name", "bytes", "weights", "compensation"))
    for model in models:
        stages = ", ".join(model["stages"]) + ("  (default)" if model["default"] else "")
        print(row.format(model["name"], f"{model['bytes']:,}", model["digest"], stages))


def _show(args: argparse.Namespace) -> None:
    from codec.models import describe

    print(json.dumps(describe(args.name), indent=2))


def _import(args: argparse.Namespace) -> None:
    target = Path(args.target)
    if target.suffix != ".safetensors":
        raise ConfigError(f"{target} does not end in .safetensors, as model files do")
    from codec.models import export
    from codec.models.import_dcvc import import_checkpoint

    codec = import_checkpoint(args.checkpoint, args.intra)
    card = {"imported_from": Path(args.checkpoint).name, "intra_from": Path(args.intra).name}
    digest = export(codec, target, card, half=False)
    print(f"{target}: {target.stat().st_size:,} bytes, weights {digest.hex()}")
