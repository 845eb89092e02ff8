"""The rate-distortion loss of a clip: lambda * distortion + bits per pixel, by stage.

=========  ==========================================  ====================================
loss       distortion                                  rate
=========  ==========================================  ====================================
flow       end-point error against known motion        none
motion_d   of the frames warped by flow and coded flow none
motion_rd  the same                                    motion
recon_d    of the decoded frame                        none
recon_rd   of the decoded frame                        residual
all        of the decoded frame                        motion and residual
=========  ==========================================  ====================================

The schedule is DCVC-TCM's (papers.md section 2). MSE is of RGB in [0, 1].
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from codec.config import Stage, TrainingConfig
from codec.entropy.coders import RateModel
from codec.entropy.gains import QUALITIES
from codec.flow import to_full_size
from codec.inter import GivenMotion, ReferenceState
from codec.layers import warp
from codec.training.data import Batch
from codec.training.rows import Rows
from codec.training.search import searched_motion
from codec.video_codec import VideoCodec

MOTION_PARTS = ("motion", "motion_hyper")
RESIDUAL_PARTS = ("residual", "residual_hyper")

MS_SSIM_SCALE = 20.0  # 1 - MS-SSIM is about so many times the squared error, which lambda is for
MS_SSIM_SIDE = 161  # least side of a picture that has five scales


@dataclass
class ClipLoss:
    """What a step logs.

    Attributes:
        loss: scalar, differentiable.
        bpp: mean bits per pixel and P frame (I frame for ``intra``) by part; for the flow stage
            the end-point error in pixels.
        psnr: dB of the mean squared error, I and P frames apart: ``intra``, ``inter``, ``warp``.
        state: that the last frame left, with gradients.

    All but the last are scalar tensors on the codec's device: reading one waits for the device.
    Of some rows of a batch they are the share of the whole's, and those of all rows add up to it.
    """

    loss: Tensor
    bpp: dict[str, Tensor]
    psnr: dict[str, Tensor]
    state: ReferenceState | None = None


def draw_quality(batch: int) -> Tensor:
    """Random quality indices [B] from the CPU's global generator; every batch covers the range."""
    strata = (torch.arange(batch) + torch.rand(batch)) / batch
    return torch.floor(strata * QUALITIES).clamp(max=QUALITIES - 1)


def clip_loss(
    codec: VideoCodec,
    batch: Batch,
    quality: Tensor,
    stage: Stage,
    training: TrainingConfig,
    carried: ReferenceState | None = None,
    rows: Rows | None = None,
    model: Callable[[Callable[[Tensor], Tensor]], RateModel] = RateModel,
) -> ClipLoss:
    """Code clips with the RateModel and sum up their loss.

    Args:
        batch: its clips [B, T, 3, H, W] are RGB in [0, 1]; sides divide by the codec's multiple.
        quality: [B] indices of the videos; each frame's follows from the model's pattern.
        carried: what the step before decoded of the first frames, for the samples that go on from
            there; their first frames are still coded as I frames, for those to learn.
        rows: that the clips are of a step's batch; None: all of it.
        model: makes the coder of each frame.
    """
    clip = batch.clip
    samples, frames, _, height, width = clip.shape
    rows = rows or Rows.all(samples)
    pixels = height * width
    weight = codec.lambda_of(quality)  # [B]
    # At the optimum the loss grows about as the square root of lambda; dividing by that lets
    # all rates count alike.
    middle = (codec.config.lambda_min * codec.config.lambda_max) ** 0.5
    balance = (middle / weight) ** training.balance
    size = codec.latent_size(height, width)
    distortion = distortion_of(training.distortion)

    terms: list[Tensor] = []
    bits: dict[str, list[Tensor]] = {}
    errors: dict[str, list[Tensor]] = {}
    with torch.set_grad_enabled(stage.trains_intra):
        coder = model(rows.rand_like)
        level = codec.frame_quality(quality, 0)
        decoded = codec.intra(_nhwc(clip[:, 0]), coder, level, size)
        errors.setdefault("intra", []).append(_mse(decoded, clip[:, 0]))
        bits["intra"] = [sum(coder.bits.values()) / pixels]
        if stage.trains_intra:
            terms.append(
                codec.lambda_of(level) * distortion(decoded, clip[:, 0]) + bits["intra"][0]
            )
        state = codec.intra_state(decoded)
        if carried is not None:
            state = carried.or_begin(batch.begins, state)

    given: list[GivenMotion | None] = [None] * (frames - 1)
    if stage.searched and codec.inter.refine is not None:
        given = searched_motion(codec.inter, clip, stage.searched, rows)

    code = _recomputed if training.checkpointing else _code_inter
    make = partial(model, rows.rand_like)
    for t in range(1, frames):
        level = codec.frame_quality(quality, t)
        frame = _nhwc(clip[:, t])
        coded = code(codec, frame, state, level, size, given[t - 1], stage, distortion, make)
        terms.append(coded.loss)
        for part, value in coded.bpp.items():
            bits.setdefault(part, []).append(value)
        for kind, value in coded.errors.items():
            errors.setdefault(kind, []).append(value)
        state = coded.state if stage.cascade else coded.state.detach()

    loss = torch.stack([(balance * term).mean() for term in terms]).mean()
    return ClipLoss(
        loss * rows.share,
        {p: torch.stack(values).detach().mean() * rows.share for p, values in bits.items()},
        {kind: _psnr(torch.stack(values)) * rows.share for kind, values in errors.items()},
        state,
    )


class _CodedFrame(NamedTuple):
    """A P frame: its loss [B], bits per pixel and squared errors [B] by name, what it leaves."""

    loss: Tensor
    bpp: dict[str, Tensor]
    errors: dict[str, Tensor]
    state: ReferenceState


def _code_inter(
    codec: VideoCodec,
    frame: Tensor,
    state: ReferenceState,
    level: Tensor,
    size: tuple[int, int],
    motion: GivenMotion | None,
    stage: Stage,
    distortion: Callable[[Tensor, Tensor], Tensor],
    model: Callable[[], RateModel],
) -> _CodedFrame:
    pixels = frame.shape[-2] * frame.shape[-1]
    coder = model()
    weight = codec.lambda_of(level)
    if stage.loss in ("motion_d", "motion_rd"):
        estimated, flow, _ = codec.inter.code_motion(frame, state, coder, level, size, motion)
        top = codec.config.inter.flow.top
        guess = warp(state.frame, to_full_size(estimated, top))
        warped = warp(state.frame, to_full_size(flow, top))
        term = weight * (distortion(warped, frame) + distortion(guess, frame)) / 2
        errors = {"flow": _mse(guess, frame), "warp": _mse(warped, frame)}
        next_state = codec.intra_state(frame)
    else:
        out = codec.code_inter(frame, state, coder, level, size, motion)
        term = weight * distortion(out.frame, frame)
        errors = {"warp": _mse(out.warped_frame, frame), "inter": _mse(out.frame, frame)}
        next_state = out.state
    rate = {part: value / pixels for part, value in coder.bits.items()}
    counted = {"motion_rd": MOTION_PARTS, "recon_rd": RESIDUAL_PARTS}.get(stage.loss, ())
    if stage.loss == "all":
        counted = MOTION_PARTS + RESIDUAL_PARTS
    return _CodedFrame(term + sum(rate[part] for part in counted), rate, errors, next_state)


def _recomputed(*arguments: Any) -> _CodedFrame:
    """As :func:`_code_inter`, which is called again in the backward pass, with the same draws."""
    return checkpoint(_code_inter, *arguments, use_reentrant=False)


def flow_loss(codec: VideoCodec, batch: Batch, rows: Rows | None = None) -> ClipLoss:
    """End-point error against known motion, summed over the levels of the flow net's pyramid.

    Logged as PSNR: ``flow``, of the previous frame warped by the estimate. ``rows`` as of
    :func:`clip_loss`.
    """
    rows = rows or Rows.all(len(batch.clip))
    count = batch.visible.sum() if batch.seen is None else batch.seen  # of the whole batch
    reference, current = _nhwc(batch.clip[:, 0]), _nhwc(batch.clip[:, 1])
    flows = codec.inter.flow.pyramid(current, reference)
    loss = current.new_zeros(())
    for halvings, flow in enumerate(reversed(flows)):
        factor = codec.config.inter.flow.top * 2**halvings
        # Where a side does not divide the last cells are partial ones, as in the net's pyramid.
        truth = F.avg_pool2d(batch.flow, factor, ceil_mode=True) / factor
        visible = F.avg_pool2d(batch.visible[:, None], factor, ceil_mode=True)
        error = torch.sqrt((flow - truth).square().sum(1, keepdim=True) + 1e-4)
        loss = loss + (error * visible).sum() / (count / factor**2).clamp(min=1) * factor**0.5
    with torch.no_grad():
        full = to_full_size(flows[-1], codec.config.inter.flow.top)
        warped = warp(reference, full)
        error = (full - batch.flow).square().sum(1).sqrt()
        epe = (error * batch.visible).sum() / count.clamp(min=1)
    psnr = _psnr(_mse(warped, current)) * rows.share
    return ClipLoss(loss, {"end_point_error": epe}, {"flow": psnr})


def distortion_of(kind: str) -> Callable[[Tensor, Tensor], Tensor]:
    """The function of (decoded, frame), [B, 3, H, W] in [0, 1], that lambda weighs: [B].

    For ``mse`` the mean squared error, for ``ms-ssim`` 1 - MS-SSIM over MS_SSIM_SCALE.
    """
    if kind == "mse":
        return _mse

    def one_minus_ms_ssim(decoded: Tensor, frame: Tensor) -> Tensor:
        from pytorch_msssim import ms_ssim

        # Its variances are small differences of filtered squares, which half precision cannot hold.
        with torch.autocast(decoded.device.type, enabled=False):
            x, y = decoded.float().clamp(0, 1), frame.float()
            similarity = ms_ssim(x, y, data_range=1.0, size_average=False)
        return (1 - similarity) / MS_SSIM_SCALE

    return one_minus_ms_ssim


def _mse(decoded: Tensor, frame: Tensor) -> Tensor:
    return F.mse_loss(decoded.float(), frame, reduction="none").flatten(1).mean(1)  # [B]


def _psnr(mse: Tensor) -> Tensor:
    return (-10 * torch.log10(mse.detach().clamp(min=1e-10))).mean()


def _nhwc(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)
