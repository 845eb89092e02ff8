"""Give a model an expectation of P frames' z from the frames before: no other weight moves.

python scripts/fit_hyper_history.py MODEL -o fitted.safetensors --data clips [--frames 32]
    [--each 4] [--effort 20+10] [--held-out 4] [--steps 4000] [--symbols symbols.pt]

MODEL: a name or a model file. Each clip is coded at qualities spread over the range, others for
each clip, and what is coded is all that the fit looks at. It is kept in --symbols, and a second run
begins with that file instead of the clips. What the fit is worth is told on the last clips, which
it does not see. Takes half a second a frame on one core without an effort, and minutes for the fit.
"""

import argparse
from pathlib import Path

import torch

from codec.effort import Effort
from codec.entropy.gains import QUALITIES
from codec.models import export, load
from codec.training.hyper_history_fit import Coded, bits, coded, fit, latents, with_history
from codec.video.pictures import first_pictures
from codec.video_codec import VideoCodec


def groups_of(codec: VideoCodec, options: argparse.Namespace) -> dict[str, list[Coded]]:
    """What every clip of the folder is coded as, by its name."""
    clips = sorted(path for path in options.data.iterdir() if path.is_file())
    found = {}
    for number, clip in enumerate(clips):
        pictures = first_pictures(clip, options.frames + 1)
        if len(pictures) < 4:
            raise SystemExit(f"{clip}: an I and two P frames to code, and one more, are needed")
        step = QUALITIES // options.each
        qualities = [(7 * number) % step + step * part for part in range(options.each)]
        found[clip.name] = [coded(codec, pictures, each, options.effort) for each in qualities]
        print(f"{number + 1}/{len(clips)} {clip.name}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, help="folder of video clips")
    parser.add_argument("--frames", type=int, default=32, help="of each clip, 3 or more")
    parser.add_argument("--each", type=int, default=4, help="qualities of each clip")
    parser.add_argument("--effort", type=Effort.of, default=Effort())
    parser.add_argument("--held-out", type=int, default=4, help="clips that the fit is told on")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--width", type=int, default=48, help="hidden channels")
    parser.add_argument("--symbols", type=Path, help="where what was coded is kept")
    options = parser.parse_args()

    torch.manual_seed(0)
    model = load(options.model)
    codec = with_history(model.codec, options.width)
    if options.symbols is not None and options.symbols.exists():
        found = torch.load(options.symbols, weights_only=True)
        found = {name: [Coded(**each) for each in some] for name, some in found.items()}
    elif options.data is None:
        parser.error("--data: name a folder of clips, or --symbols of an earlier run")
    else:
        found = groups_of(codec, options)
        if options.symbols is not None:
            plain = {name: [vars(each) for each in some] for name, some in found.items()}
            torch.save(plain, options.symbols)
    names = sorted(found)
    if len(names) <= options.held_out:
        parser.error(f"{len(names)} clips; more than --held-out are needed")
    learned, told = names[: -options.held_out or None], names[len(names) - options.held_out :]
    for part, latent in latents(codec).items():
        fit(latent, part, [group for name in learned for group in found[name]], options.steps)
        latent.update()
        before = latents(model.codec)[part]
        for group in (group for name in told for group in found[name]):
            now = float(bits(latent, part, group, exact=True))
            was = float(bits(before, part, group, exact=True))
            level = float(group.qualities.mean())
            of_z, of_all = 100 * (now / was - 1), 100 * (now - was) / (group.bits + was)
            print(f"{part}, quality {level:.0f}: {of_z:+.1f} % of z's bits, {of_all:+.2f} % of all")
    card = {key: value for key, value in model.card.items() if key != "results"}
    card["hyper_history"] = {
        "clips": len(learned),
        "groups": sum(len(found[name]) for name in learned),
        "steps": options.steps,
        "from": model.digest.hex(),
    }
    print(f"{options.out}: weights {export(codec, options.out, card).hex()}")


if __name__ == "__main__":
    main()
