"""`paper` with `local` compensation is DCVC-TCM: a golden frame of the official network."""

from pathlib import Path

import numpy as np
import pytest
import torch

from codec.config import IntraConfig
from codec.entropy.coders import RateEstimate
from codec.errors import ModelError
from codec.inter import ReferenceState
from codec.models.import_dcvc import load_inter, map_state, tcm_config
from codec.video_codec import FrameCoder, VideoCodec

DATA = Path(__file__).parent / "data"
SMALL_INTRA = IntraConfig(
    channels=(8, 8), latent=8, hyper=8, hyper_widths=(8, 8), hyper_out=8, parameter_widths=(8,)
)


def official_state() -> dict[str, torch.Tensor]:
    """Weights by the recipe of the golden frame, in the order of the official checkpoint."""
    rng = np.random.default_rng(6)
    state = {}
    for line in (DATA / "dcvc_tcm_state.txt").read_text().splitlines():
        if line.startswith("#") or not line.strip():
            continue
        name, text = line.split(" ", 1)
        shape = tuple(int(n) for n in text.strip("() ").split(",") if n.strip())
        if name.endswith(".beta"):
            value = 1 + 0.2 * rng.random(shape)
        elif name.endswith(".gamma"):
            value = np.sqrt(0.1 * np.eye(shape[0]) + 2.0**-36) + 0.02 * rng.random(shape)
        elif name.startswith("bit_estimator_"):
            value = 0.5 * rng.standard_normal(shape)
        elif len(shape) == 4:
            value = rng.standard_normal(shape) * np.sqrt(1.5 / np.prod(shape[1:]))
        else:
            value = 0.05 * rng.standard_normal(shape)
        state[name] = torch.from_numpy(value.astype(np.float32))
    return state


@pytest.fixture(scope="module")
def golden():
    with np.load(DATA / "dcvc_tcm_golden.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


@pytest.fixture(scope="module")
def codec():
    codec = VideoCodec(tcm_config(SMALL_INTRA)).eval()
    load_inter(codec, official_state(), "recipe")
    return codec


class Recorder(RateEstimate):
    """Keeps the symbols, their indices and priors, under the part's name."""

    def __init__(self):
        super().__init__(convention="dcvc")
        self.seen = {}

    def code(self, residual, index, prior, part):
        symbols = super().code(residual, index, prior, part)
        self.seen[part] = (residual, symbols, index, prior)
        return symbols


@pytest.fixture(scope="module")
def coded(codec, golden):
    state = ReferenceState(golden["reference"][None], golden["reference_feature"][None])
    coder = Recorder()
    with torch.inference_mode():
        out = codec.code_inter(
            golden["current"][None], state, coder, torch.zeros(1), codec.latent_size(64, 64)
        )
    return out, coder


def close(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    return bool((ours[0] - theirs).abs().max() <= 1e-4 * theirs.abs().max())


def test_size_is_the_papers(codec):
    learned = sum(
        p.numel() for name, p in codec.inter.named_parameters() if not name.endswith("quantiles")
    )
    # The paper's table counts the two factorised priors in too.
    assert learned == sum(t.numel() for t in official_state().values())


def test_pictures_and_contexts(coded, golden):
    out, _ = coded
    assert close(out.estimated_flow, golden["estimated_flow"])
    assert close(out.flow, golden["decoded_flow"])
    assert close(out.warped_frame, golden["warped_frame"])
    for number, context in enumerate(out.contexts, start=1):
        assert close(context, golden[f"context{number}"])
    assert close(out.frame, golden["frame"])
    assert close(out.state.feature, golden["feature"])


@pytest.mark.parametrize(
    ("part", "y", "mean"), [("motion", "mv_y", "mv_mean"), ("residual", "y", "y_mean")]
)
def test_symbols(coded, golden, part, y, mean):
    _, coder = coded
    residual, symbols, index, prior = coder.seen[part]
    assert torch.equal(symbols[0], torch.round(golden[y] - golden[mean]))
    assert close(residual, golden[y] - golden[mean])
    scale = prior.scale(index)
    assert close(scale, golden[mean.replace("mean", "scale")].clamp(min=1e-5))


@pytest.mark.parametrize(("part", "z"), [("motion_hyper", "mv_z"), ("residual_hyper", "z")])
def test_hyper_symbols(coded, golden, part, z):
    _, coder = coded
    residual, symbols, _, _ = coder.seen[part]
    assert torch.equal(symbols[0], torch.round(golden[z]))
    assert close(residual, golden[z])


@pytest.mark.parametrize(
    ("part", "bits"),
    [
        ("motion", "bit_mv_y"),
        ("motion_hyper", "bit_mv_z"),
        ("residual", "bit_y"),
        ("residual_hyper", "bit_z"),
    ],
)
def test_rate(coded, golden, part, bits):
    _, coder = coded
    assert coder.bits[part] == pytest.approx(float(golden[bits]), rel=1e-4)


def test_module_prefix_and_loss_buffers_are_accepted():
    state = {f"module.{name}": value for name, value in official_state().items()}
    state["module.ms_ssim_loss.gaussian_filter.weight"] = torch.zeros(3)
    assert map_state(state).keys() == map_state(official_state()).keys()


def test_another_model_is_refused(codec):
    state = official_state()
    state.pop("mv_encoder.0.bias")
    with pytest.raises(ModelError, match="lacks motion.encoder.0.bias"):
        load_inter(codec, state, "file.pth")
    with pytest.raises(ModelError, match="no parameter of a DCVC-TCM"):
        map_state({"g_a.0.weight": torch.zeros(1)})


def test_imported_checkpoint_is_a_whole_model(tmp_path):
    """Written as the official training writes it, imported, exported, loaded: same numbers."""
    from codec.models import export, load
    from codec.models.import_dcvc import import_checkpoint

    from ..conftest import debug_config, loud_codec

    export(loud_codec(debug_config()), tmp_path / "intra.safetensors", {})
    checkpoint = tmp_path / "official.pth.tar"
    torch.save({"state_dict": {f"module.{k}": v for k, v in official_state().items()}}, checkpoint)
    imported = import_checkpoint(checkpoint, tmp_path / "intra.safetensors")
    export(imported, tmp_path / "tcm.safetensors", {}, half=False)
    loaded = load(tmp_path / "tcm.safetensors").codec
    frame = torch.rand(1, 3, 64, 64)
    coder = FrameCoder(loaded, 64, 64), FrameCoder(loaded, 64, 64)
    for intra in (True, False):
        payload, shown = coder[0].encode(frame, intra, 20)
        assert torch.equal(coder[1].decode(payload, intra, 20)[0], shown)
    own = imported.inter.state_dict()
    assert all(torch.equal(own[k], v) for k, v in map_state(official_state()).items())


@pytest.mark.parametrize("content", [b"", b"no checkpoint", bytes(2000), None])
def test_what_is_no_checkpoint_is_refused(tmp_path, content):
    from codec.models.import_dcvc import import_checkpoint

    path = tmp_path / "x.pth"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        import_checkpoint(path)
    assert "\n" not in str(caught.value) and "weights_only" not in str(caught.value)
