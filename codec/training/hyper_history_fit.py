"""Fitting what P frames' z is expected to be to the symbols that a codec codes, all else as it is.

Nothing but the densities of z moves, so pictures and all other symbols stay what they are, and a
step needs no video: it takes seconds where training takes hours.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from codec.config import ModelConfig
from codec.effort import NO_EFFORT, Effort
from codec.entropy.coders import RateEstimate
from codec.entropy.latent import LatentCodec
from codec.video_codec import Following, FrameCoder, VideoCodec

_LEAST = 2.0**-17


@dataclass(frozen=True)
class Coded:
    """The P frames of one group of pictures, as they were coded.

    Attributes:
        qualities: [T], of each.
        hypers: by part, [T, N, h, w], int16: the symbols of z.
        bits: of everything but z.
    """

    qualities: Tensor
    hypers: dict[str, Tensor]
    bits: float


def latents(codec: VideoCodec) -> dict[str, LatentCodec]:
    """Those whose z has a history, by part."""
    return {"motion": codec.inter.motion.latent, "residual": codec.inter.latent}


def with_history(codec: VideoCodec, width: int = 48) -> VideoCodec:
    """The same codec, its P frames' z expected from the frames before: as yet, badly.

    width: hidden channels, where the codec has no such histories yet.
    """
    values = codec.config.model_dump()
    entropy = values["inter"]["entropy"]
    replaced: tuple[str, ...] = ()
    if not entropy["hyper_history"]:
        entropy |= {"hyper_history": True, "history_width": width}
        replaced = ("inter.latent.z_prior.", "inter.motion.latent.z_prior.")
    made = VideoCodec(ModelConfig.model_validate(values))
    kept = {k: v for k, v in codec.state_dict().items() if not k.startswith(replaced)}
    made.load_state_dict({**made.state_dict(), **kept})
    return made.eval().requires_grad_(False)


@torch.no_grad()
def coded(
    codec: VideoCodec, pictures: list[Tensor], quality: int, effort: Effort = NO_EFFORT
) -> Coded:
    """Code pictures [1, 3, H, W], the first as an I frame; the last is only looked ahead to.

    Args:
        codec: with histories.
        quality: of the video.
    """
    coder = FrameCoder(codec, *pictures[0].shape[-2:], effort)
    qualities, bits = [], 0.0
    found: dict[str, list[Tensor]] = {part: [] for part in latents(codec)}
    for number, picture in enumerate(pictures[:-1]):
        estimate = RateEstimate()
        following = Following(pictures[number + 1], codec.frame_quality(quality, number + 1))
        level = codec.frame_quality(quality, number)
        coder.code(picture, number == 0, level, estimate, following)
        bits += sum(v for part, v in estimate.bits.items() if not part.endswith("_hyper"))
        if number:
            qualities.append(level)
            state = coder.state
            for part, hypers in (("motion", state.motion_hypers), ("residual", state.hypers)):
                channels = latents(codec)[part].history.channels
                found[part].append(hypers[0, :channels].to(torch.int16))
    stacked = {part: torch.stack(each) for part, each in found.items()}
    return Coded(torch.tensor(qualities, dtype=torch.float32), stacked, bits)


def bits(latent: LatentCodec, part: str, group: Coded, exact: bool = False) -> Tensor:
    """Of z of all frames of a group, by the densities as they stand; as a stream has it: exact."""
    z = group.hypers[part].float()
    if latent.history is None:
        index = latent.z_prior.index(*z.shape[:1], *z.shape[-2:], z.device)
        return -torch.log2(latent.z_prior.likelihood(z, index).clamp(min=_LEAST)).sum()
    hypers = None
    before = []
    for frame in z[:-1, None]:
        hypers = latent.history.joined(frame, hypers)
        before.append(hypers)
    hypers = torch.cat((torch.zeros_like(before[0]), *before))
    known = hypers, group.qualities, z.shape[-2:]
    history, prior = latent.history, latent.z_prior
    shifted = (
        prior.about_eighths(*history.exact(*known)) if exact else prior.about(*history(*known))
    )
    likelihood = prior.likelihood((z - shifted.whole) * shifted.sign, shifted.index)
    return -torch.log2(likelihood.clamp(min=_LEAST)).sum()


def fit(
    latent: LatentCodec, part: str, groups: list[Coded], steps: int, rate: float = 4e-3
) -> None:
    """Let a latent's history and the shape of its z's densities learn from coded groups.

    Each weighs what it takes of its stream: what is to fall is the rate in per cent.
    """
    learned = nn.ModuleList((latent.history, latent.z_prior)).requires_grad_(True)
    optimizer = torch.optim.Adam(learned.parameters(), rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    order = torch.Generator().manual_seed(0)
    for _ in range(steps):
        group = groups[int(torch.randint(len(groups), (), generator=order))]
        optimizer.zero_grad()
        (bits(latent, part, group) / group.bits).backward()
        nn.utils.clip_grad_norm_(learned.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    learned.requires_grad_(False)
