"""A P codec that starts from the intra codec codes the prediction error as an I frame is coded."""

import torch

from codec.config import ModelConfig
from codec.entropy.coders import RateEstimate
from codec.entropy.gains import interpolate_knots
from codec.inter import ReferenceState
from codec.models import export
from codec.training.checkpoint import load_weights
from codec.training.warm_start import inter_from_intra
from codec.video_codec import VideoCodec

from ..conftest import debug_config


def codec_with_a_decoder_alike(seed: int = 0) -> VideoCodec:
    torch.manual_seed(seed)
    base = debug_config()
    # The P codec's 1x1 parameter layer and its one block fewer at 1/8 are the only differences.
    inter = base.inter.model_copy(update={"parameter_kernel": 3})
    codec = VideoCodec(ModelConfig(name="debug", intra=base.intra, inter=inter)).eval()
    with torch.no_grad():
        for parameter in codec.intra.decoder.coarse_body[1].parameters():
            parameter.zero_()  # the block that the P codec has not
    inter_from_intra(codec)
    codec.update()
    return codec


def test_prediction_error_is_coded_as_a_picture():
    codec = codec_with_a_decoder_alike()
    with torch.no_grad():
        # No motion, and a grey reference: the error is the zero-centred frame itself.
        for parameter in codec.inter.motion.decoder.parameters():
            parameter.zero_()
    frame = torch.rand(1, 3, 64, 64)
    quality = torch.tensor([40.0])
    grey = ReferenceState(torch.full((1, 3, 64, 64), 0.5))
    with torch.inference_mode():
        intra_coder, inter_coder = RateEstimate(), RateEstimate()
        intra = codec.intra(frame, intra_coder, quality, (4, 4))
        inter = codec.code_inter(frame, grey, inter_coder, quality, (4, 4)).frame
    assert torch.allclose(intra, inter, atol=1e-4)
    assert abs(intra_coder.bits["intra"] - inter_coder.bits["residual"]) < 1.0


def test_what_only_a_p_frame_has_begins_without_influence():
    codec = codec_with_a_decoder_alike()
    state = codec.inter.state_dict()
    joined = state["latent.parameter_net.0.weight"]
    temporal = codec.config.inter.temporal
    assert not joined[:, :temporal].any() and joined[:, temporal:].any()
    hidden = state["latent.scale_path.hidden.weight"]
    width = codec.config.inter.scale_width
    assert hidden[:, :width].any() and not hidden[:, width:].any()
    assert not state["encoder.fine_context.weight"].any()


def test_another_range_of_lambdas_keeps_what_each_lambda_does(tmp_path):
    """A parent's index 40 is a child's index 32 where the child's range lies an octave higher."""
    settings = debug_config("history").model_copy(update={"lambda_min": 32.0, "lambda_max": 8192.0})
    parent = VideoCodec(settings)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, table in parent.named_parameters():
            if name.endswith(("log_gain", "offset")):
                table.copy_(torch.linspace(-1, 1, 8)[:, None] * torch.rand(table.shape[1]))
    export(parent, tmp_path / "parent.safetensors", {})
    raised = settings.model_copy(update={"lambda_min": 64.0, "lambda_max": 16384.0})
    child = VideoCodec(raised)
    assert load_weights(tmp_path / "parent.safetensors", child) == []
    octave = torch.tensor(63 / 8)
    for old, new in ((20.0, 20 - octave), (60.0, 60 - octave)):
        for part in ("intra", "inter"):
            gains = (getattr(c, part).latent.gain for c in (parent, child))
            one, other = (g(torch.tensor([q])) for g, q in zip(gains, (old, new), strict=True))
            torch.testing.assert_close(one, other, rtol=2e-3, atol=2e-3)  # stored in half precision
        for path in ("scale_path", "history"):
            tables = (getattr(c.inter.latent, path).offset for c in (parent, child))
            one, other = (
                interpolate_knots(table, torch.tensor([q]))
                for table, q in zip(tables, (old, new), strict=True)
            )
            torch.testing.assert_close(one, other, rtol=2e-3, atol=2e-3)
    assert child.lambda_of(torch.tensor(0)) == 64


def test_a_wider_codec_begins_as_its_parent(tmp_path):
    """With more latent channels the parent's symbols are the first and the picture is the same."""
    settings = debug_config()
    torch.manual_seed(0)
    parent = VideoCodec(settings).eval()
    export(parent, tmp_path / "parent.safetensors", {}, half=False)
    wide = settings.model_copy(
        update={
            part: getattr(settings, part).model_copy(update={"latent": 24})
            for part in ("intra", "inter")
        }
    )
    child = VideoCodec(wide).eval()
    missing = load_weights(tmp_path / "parent.safetensors", child)
    assert "intra.encoder.leave.weight" in missing
    assert load_weights(tmp_path / "parent.safetensors", child, widen=True) == []
    x, level = torch.rand(1, 3, 64, 96), torch.tensor([40.0])
    with torch.no_grad():
        y, wider = (codec.intra.encoder(x - 0.5, level) for codec in (parent, child))
        torch.testing.assert_close(wider[:, : y.shape[1]], y)
        assert wider.shape[1] == 24 and wider[:, 16:].abs().max() == 0
        one, _ = parent.intra.decoder(y, level)
        other, _ = child.intra.decoder(wider, level)
        torch.testing.assert_close(one, other)
