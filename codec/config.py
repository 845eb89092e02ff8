"""Typed configurations: models and experiments, read from YAML.

An experiment file may name a ``base``; its own keys are laid over the base's. ``key.path=value``
arguments are laid over both. An unknown key is an error that names the nearest known one.
"""

import difflib
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from codec.errors import ConfigError


class _Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class EntropyConfig(_Config):
    """Priors and tables.

    Attributes:
        distribution: of symbols at a given scale; a mixture's shape is learned.
        passes: 2: the second half of an I frame's latent and of the residual's is predicted from
            the first (entropy/second_pass.py); pass_width: hidden channels of that.
        hyper_history: whether P frames' z, of motion and residual, are expected from those of the
            last two (entropy/hyper_history.py); history_width: hidden channels of that.
    """

    scale_path: Literal["exact", "float"] = "exact"
    distribution: Literal["gaussian", "laplace", "mixture"] = "gaussian"
    scale_min: float = Field(0.11, gt=0)
    scale_max: float = Field(64.0, gt=0)
    levels: int = Field(64, ge=2, le=256)
    skip_scale: float = Field(0.0, ge=0)
    factorized_filters: tuple[PositiveInt, ...] = (3, 3, 3)
    passes: Literal[1, 2] = 1
    pass_width: int = Field(96, ge=1)
    hyper_history: bool = False
    history_width: int = Field(48, ge=1)

    @model_validator(mode="after")
    def _goes_together(self) -> "EntropyConfig":
        if self.passes == 2 and self.scale_path != "exact":
            raise ValueError("passes: 2 needs scale_path: exact")
        if self.scale_min >= self.scale_max:
            raise ValueError("scale_max must be above scale_min")
        return self

    def check_latent(self, channels: int) -> None:
        """Raise ValueError where a latent of so many channels cannot be coded so."""
        if self.passes == 2 and channels % 2:
            raise ValueError(f"passes: 2 needs a latent of an even number, not {channels}")


class IntraConfig(_Config):
    """The image codec: channels at 1/4 and 1/8, the latent at 1/16.

    Attributes:
        depth: residual blocks at each scale.
        decoder_depth: of the decoder at 1/8 and 1/4, None: ``depth`` and one more at 1/8, where it
            is cheapest.
        parameter_kernel: of the parameter net's last convolution.
    """

    channels: tuple[PositiveInt, PositiveInt] = (64, 128)
    depth: int = Field(1, ge=1, le=16)
    decoder_depth: tuple[int, int] | None = None
    latent: PositiveInt = 192
    hyper: PositiveInt = 48
    hyper_widths: tuple[PositiveInt, PositiveInt] = (64, 96)
    hyper_out: PositiveInt = 128
    parameter_widths: tuple[PositiveInt, ...] = (160,)
    parameter_kernel: Literal[1, 3] = 3
    scale_width: PositiveInt = 48
    gains: bool = True
    entropy: EntropyConfig = EntropyConfig()

    @model_validator(mode="after")
    def _latent_fits(self) -> "IntraConfig":
        self.entropy.check_latent(self.latent)
        if self.entropy.hyper_history:
            raise ValueError("an I frame has no history: hyper_history is of inter.entropy alone")
        return self


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError("must be odd")
    return value


Odd = Annotated[int, Field(ge=1), AfterValidator(_odd)]


class FlowConfig(_Config):
    """The flow net: a spatial pyramid on pixels (spynet) or on a correlation volume."""

    net: Literal["spynet", "correlation"] = "spynet"
    levels: int = Field(5, ge=1, le=8)
    widths: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (16, 24, 16, 16)
    kernel: Odd = 5
    top: Literal[1, 2] = 2


class RefineConfig(_Config):
    """The encoder's search that corrects the estimated motion, coarse to fine.

    Attributes:
        reach: candidates on a side at the coarsest level, odd. Where the shortest side has 8 to 15
            pixels there, 9 candidates reach a quarter to half of it.
        window: candidates on a side at the finer levels, odd.
        patch: pixels on a side that are compared, odd.
        penalty: mean squared difference, of values in [0, 1], that counts as much as a squared
            pixel away from where the search began.
        median: vectors on a side of the median that what was found goes through, odd.
        stiffness: what the flow is smoothed with, one flow for each; the first at coarser levels.
        edge, rounds, sweeps: of :func:`codec.motion_variational.smoothed`.
    """

    reach: Odd = 9
    window: Odd = 5
    patch: Odd = 5
    penalty: float = Field(5e-4, ge=0)
    median: Odd = 3
    stiffness: tuple[PositiveFloat, ...] = Field((0.1, 0.03), min_length=1)
    edge: float = Field(0.25, gt=0)
    rounds: int = Field(3, ge=0)
    sweeps: int = Field(10, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _other_search(cls, values: Any) -> Any:
        """Models until 2026-11-26 have settings of a search that is gone; its streams are no
        others for a decoder."""
        if isinstance(values, dict) and "least_gain" in values:
            return {}
        return values


class MotionConfig(_Config):
    """Coding of the motion.

    Attributes:
        refine: how the encoder corrects the flow net's estimate; None: it does not.
    """

    channels: PositiveInt = 64
    latent: PositiveInt = 48
    hyper: PositiveInt = 32
    hyper_widths: tuple[PositiveInt, PositiveInt] = (48, 48)
    scale_width: PositiveInt = 32
    refine: RefineConfig | None = None


class GlobalConfig(_Config):
    """Global compensation by linear cross-attention (LVC-LGMC).

    Attributes:
        scales: which contexts it joins, 0 the finest.
        heads: of the attention, equal parts of the channels there.
        query: ``context``, the warped context, which both sides and the temporal prior know; or
            ``coder``, the encoder's and decoder's own feature at their coarsest context.
    """

    scales: tuple[int, ...] = Field((1,), min_length=1)
    heads: int = Field(2, ge=1)
    query: Literal["context", "coder"] = "context"


class ShiftedConfig(_Config):
    """Refinement by a shifted non-local search round the decoded flow (Shifted-NLS).

    Attributes:
        scales: which contexts it joins, 0 the finest.
        width: channels that are compared and gathered.
        heads: of the search, equal parts of the width.
        window: candidates on a side, odd.
        topk: candidates that are gathered, of all references together.
        stride: pixels of the scale between candidates.
        references: frames that are searched, 1 or 2.
    """

    scales: tuple[int, ...] = Field((1,), min_length=1)
    width: int = Field(32, ge=4)
    heads: int = Field(1, ge=1)
    window: Odd = 5
    topk: int = Field(4, ge=1)
    stride: float = Field(1.0, gt=0)
    references: Literal[1, 2] = 1

    @model_validator(mode="after")
    def _can_be_searched(self) -> "ShiftedConfig":
        if self.width % self.heads:
            raise ValueError(f"width must be a multiple of its {self.heads} heads")
        candidates = self.references * self.window**2
        if self.topk > candidates:
            raise ValueError(f"topk must be at most the {candidates} candidates")
        return self


class InterConfig(_Config):
    """The P-frame codec.

    ``tcm`` is DCVC-TCM's architecture, features at full size; ``lite`` has none finer than 1/4.
    ``contexts``, ``temporal``, ``depth``, ``decoder_depth``, ``parameter_kernel`` and
    ``motion.channels`` are lite's alone: tcm has them as they were reported.

    Attributes:
        channels: of lite two, at 1/4 and 1/8; of tcm one.
        compensation: stages of it, local always; they run in the order local, shifted, global.
        depth: residual blocks at each scale of lite's transforms.
        decoder_depth: of its decoder at 1/8 and 1/4, None: ``depth``.
    """

    family: Literal["tcm", "lite"] = "lite"
    channels: tuple[PositiveInt, ...] = Field((64, 128), min_length=1)
    contexts: tuple[PositiveInt, PositiveInt] = (48, 64)
    latent: PositiveInt = 192
    hyper: PositiveInt = 48
    hyper_widths: tuple[PositiveInt, PositiveInt] = (64, 96)
    hyper_out: PositiveInt = 128
    temporal: PositiveInt = 64
    parameter_widths: tuple[PositiveInt, ...] = (160,)
    parameter_kernel: Literal[1, 3] = 1
    scale_width: PositiveInt = 48
    previous_symbols: bool = True
    depth: int = Field(1, ge=1, le=16)
    decoder_depth: tuple[int, int] | None = None
    flow: FlowConfig = FlowConfig()
    motion: MotionConfig = MotionConfig()
    compensation: tuple[Literal["local", "global", "shifted"], ...] = ("local",)
    global_attention: GlobalConfig = GlobalConfig()
    shifted: ShiftedConfig = ShiftedConfig()
    gains: bool = True
    entropy: EntropyConfig = EntropyConfig()

    @field_validator("compensation")
    @classmethod
    def _local_and_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if "local" not in value or len(set(value)) < len(value):
            raise ValueError("must have local in it, and no stage twice")
        return value

    @model_validator(mode="after")
    def _fits(self) -> "InterConfig":
        if self.family == "lite" and len(self.channels) != 2:
            raise ValueError("channels of family lite are two, at 1/4 and 1/8")
        self.entropy.check_latent(self.latent)
        if "shifted" in self.compensation:
            self._check_scales("shifted", self.shifted.scales)
        if "global" in self.compensation:
            self._check_attention()
        return self

    @property
    def _context_widths(self) -> tuple[int, ...]:
        """Channels of the contexts as they are compensated, fine to coarse."""
        return (self.channels[0],) * 3 if self.family == "tcm" else self.contexts

    def _check_scales(self, stage: str, scales: tuple[int, ...]) -> None:
        top = len(self._context_widths) - 1
        if not all(0 <= scale <= top for scale in scales):
            raise ValueError(f"{stage}.scales must be of 0..{top}, the contexts of {self.family}")

    def _check_attention(self) -> None:
        attention = self.global_attention
        if attention.query == "context":
            self._check_scales("global_attention", attention.scales)
            widths = [self._context_widths[scale] for scale in attention.scales]
        else:
            widths = [2 * self.channels[0] if self.family == "tcm" else self.channels[1]]
        for width in widths:
            if width % attention.heads:
                raise ValueError(f"global_attention.heads must divide {width}, the channels there")


class QualityPattern(_Config):
    """How far frames stand above or below the quality index of the video.

    A frame that others are predicted from pays for more bits than one that only a few see: the I
    frame most of all, then every few P frames one. In training each frame's lambda moves with it.

    Attributes:
        intra: added to the index of I frames.
        inter: added to that of P frames, from the first after an I frame, repeating.
    """

    intra: int = Field(0, ge=-63, le=63)
    inter: tuple[int, ...] = Field((0,), min_length=1)


class ModelConfig(_Config):
    """A whole codec: one intra and one inter codec and the rates they serve."""

    name: str = "lite"
    lambda_min: float = Field(64.0, gt=0)
    lambda_max: float = Field(4096.0, gt=0)
    pattern: QualityPattern = QualityPattern()
    intra: IntraConfig = IntraConfig()
    inter: InterConfig = InterConfig()

    @model_validator(mode="after")
    def _ordered(self) -> "ModelConfig":
        if self.lambda_max < self.lambda_min:
            raise ValueError("lambda_max must not be below lambda_min")
        return self


class FilterConfig(_Config):
    """Where decoded clips are cut and which of their shots are left out of training.

    Differences are mean absolute ones of the luma averaged over cells, in codes of 8 bit
    (:mod:`codec.training.data.measures`).

    Attributes:
        cut_difference: frames of two shots differ at least by this,
        cut_histogram: by this share of the histogram,
        cut_ratio: and in both by this many times the median of the 16 steps round them.
        still: a shot whose frames differ by less in the mean is left out.
        repeats: so is one of which more than this share of the frames repeat the frame before.
        black: frames without a cell as bright as this belong to no shot.
        shortest: frames that a shot has at least.
    """

    cut_difference: float = Field(8.0, ge=0)
    cut_histogram: float = Field(0.1, ge=0, le=1)
    cut_ratio: float = Field(2.0, ge=1)
    still: float = Field(0.2, ge=0)
    repeats: float = Field(0.15, ge=0, le=1)
    black: float = Field(24.0, ge=0)
    shortest: int = Field(4, ge=1)


class AugmentConfig(_Config):
    """Probabilities of what is done to a sample besides cropping, flips and reversing its time.

    Attributes:
        scale: that its picture is scaled down, by 1 to 2, with an area filter.
        rate: that only every second or third frame is taken, where the shot is long enough.
    """

    scale: float = Field(0.0, ge=0, le=1)
    rate: float = Field(0.0, ge=0, le=1)


class DataConfig(_Config):
    """Where clips come from: any mix of video files, frame folders, Vimeo-90k roots and shards.

    Attributes:
        filter: what is cut and left out of decoded clips; None: nothing.
        order: ``random`` draws a clip for each sample; in ``epochs`` every clip comes once in turn.
        resident: keep all clips on the device.
        workers: processes that make batches ahead; 0: the training process makes each when due.
        holdout: share of the clips that is set aside for validation.
    """

    paths: tuple[str, ...] = ()
    synthetic: bool = False
    resident: bool = False
    known_motion: Literal["photographs", "frames"] = "photographs"
    filter: FilterConfig | None = FilterConfig()
    augment: AugmentConfig = AugmentConfig()
    order: Literal["random", "epochs"] = "random"
    crop: int = Field(256, ge=64)
    batch: int = Field(4, ge=1)
    cache: str | None = None
    workers: int = Field(0, ge=0)
    holdout: float = Field(0.06, ge=0, lt=1)


Part = Literal["intra", "flow", "motion", "recon", "inter", "entropy", "second_pass", "all"]
# Parts of a model that losses reach, where that is not all of them. In a stage that trains `intra`
# or `entropy` the I frame's loss is added to all of these but `flow`; motion has no second pass.
_OF_MOTION = {"intra", "flow", "motion", "inter", "entropy", "all"}
_LEARNS = {"flow": {"flow", "inter", "all"}, "motion_d": _OF_MOTION, "motion_rd": _OF_MOTION}


class Stage(_Config):
    """One row of the schedule.

    Attributes:
        searched: share of the samples whose motion comes from the encoder's search, so that what
            codes it learns to code both; nothing in a model without ``motion.refine``.
        chain: P frames from one I frame to the next, ``frames - 1`` of them a step; the next step
            goes on from what this one decoded, without gradients across. None: each step begins
            with I frames.
    """

    name: str
    steps: int = Field(ge=1)
    frames: int = Field(ge=1)
    loss: Literal["flow", "motion_d", "motion_rd", "recon_d", "recon_rd", "all"] = "all"
    train: tuple[Part, ...] = ("all",)
    lr: float = Field(1e-4, gt=0)
    lr_end: float | None = Field(None, ge=0)
    cascade: bool = False
    inter_from_intra: bool = False
    searched: float = Field(0.0, ge=0, le=1)
    chain: int | None = None
    batch: int | None = Field(None, ge=1)
    crop: int | None = Field(None, ge=64)

    @property
    def trains_intra(self) -> bool:
        """Whether something learns from the loss of I frames."""
        return bool({"intra", "entropy", "second_pass", "all"} & set(self.train))

    @model_validator(mode="after")
    def _whole_steps(self) -> "Stage":
        learns = _LEARNS.get(self.loss, set(self.train))
        if not learns & set(self.train):
            raise ValueError(
                f"train has nothing that learns from loss {self.loss}: name one of "
                f"{', '.join(sorted(learns) or ['intra', 'inter', 'all'])}"
            )
        if self.frames == 1 and self.loss != "flow" and not self.trains_intra:
            raise ValueError("frames: 1 is an I frame, of which nothing in train learns")
        if self.chain is not None:
            if self.frames < 2 or self.chain < 1 or self.chain % (self.frames - 1):
                raise ValueError("chain must be a multiple of frames - 1")
            if self.loss in ("flow", "motion_d", "motion_rd"):
                raise ValueError("chain needs a loss that decodes frames")
        return self


class TrainingConfig(_Config):
    """The run: data, schedule, loss.

    Attributes:
        accumulate: parts that a process learns from one after another, for one step of all of
            them: less memory, the same weights.
        ema: decay of the average over the steps' weights that is validated and exported in their
            place; None: there is none.
        checkpointing: keep nothing of a P frame for the backward pass but compute it again: less
            memory, a third more time.
        compile: torch.compile the transforms of frames and features, not what is coded exactly.
        init: weights to begin with: a shipped model's name, a model file or a checkpoint's folder.
        fresh: texts; weights with one of them in their name are not taken from ``init``.
        widen: take the weights of a narrower model for the beginning of a wider one.
    """

    seed: int = 0
    distortion: Literal["mse", "ms-ssim"] = "mse"
    balance: float = Field(0.5, ge=0, le=1)
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    device: str = "cpu"
    cuda_graph: bool = False
    accumulate: int = Field(1, ge=1)
    ema: float | None = Field(None, gt=0, lt=1)
    checkpointing: bool = False
    compile: bool = False
    threads: int | None = Field(None, ge=1)
    weight_decay: float = Field(0.0, ge=0)
    clip_norm: float = Field(1.0, gt=0)
    log_every: int = Field(20, ge=1)
    checkpoint_every: int = Field(500, ge=1)
    validate_every: int = Field(1000, ge=1)
    init: str | None = None
    fresh: tuple[str, ...] = ()
    widen: bool = False
    data: DataConfig = DataConfig()
    stages: tuple[Stage, ...] = ()

    @model_validator(mode="after")
    def _can_be_captured(self) -> "TrainingConfig":
        """Micro-batches and frames computed again seed their draws anew, which no graph can hold;
        with compiled transforms it has not been tried."""
        for name in ("accumulate", "checkpointing", "compile"):
            if self.cuda_graph and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"cuda_graph cannot go with {name}: set one of them off")
        return self


class Experiment(_Config):
    """One YAML of configs/."""

    name: str
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()

    @model_validator(mode="after")
    def _chains_fit(self) -> "Experiment":
        inter = self.model.inter
        period = len(self.model.pattern.inter)
        for stage in self.training.stages:
            if stage.chain is None:
                continue
            if (stage.frames - 1) % period:
                raise ValueError(
                    f"training.stages: with a chain, frames - 1 of {stage.name} must be a multiple "
                    f"of the {period} P frames of model.pattern"
                )
            if "shifted" in inter.compensation and inter.shifted.references == 2:
                raise ValueError(
                    "training.stages: a chain cannot be trained with model.inter.shifted.references"
                    " of 2"
                )
        return self


def load_experiment(path: str | Path, overrides: list[str] | None = None) -> Experiment:
    """Read an experiment's YAML with its bases and ``key.path=value`` overrides.

    Raises:
        ConfigError: no such file, not YAML, an unknown key or a value out of range.
    """
    values = _read_with_bases(Path(path), ())
    values.setdefault("name", Path(path).stem)
    for override in overrides or []:
        _lay_override(values, override)
    return parse(Experiment, values, str(path))


def parse(kind: type[BaseModel], values: dict[str, Any], source: str) -> Any:
    """Build a config, turning pydantic's report into one line."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{source}: {_first_complaint(error, kind)}") from None


def _read_with_bases(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in seen:
        raise ConfigError(f"{path}: a config cannot be its own base")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); see configs/") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        line = " ".join(str(error).split())
        raise ConfigError(f"{path}: is not YAML: {line}") from None
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: must hold keys and values, not a {type(values).__name__}")
    base = values.pop("base", None)
    if base is None:
        return values
    if not isinstance(base, str):
        raise ConfigError(f"{path}: base must be the name of another config, not {base!r}")
    return _merge(_read_with_bases(path.parent / base, (*seen, path.resolve())), values)


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            value = _merge(merged[key], value)
        merged[key] = value
    return merged


def _lay_override(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise ConfigError(f"{override!r}: an override is written key.path=value")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"{override!r}: the value is not YAML") from None
    *parents, last = key.split(".")
    target: Any = values
    for parent in parents:
        target = _step_into(target, parent, override)
    if isinstance(target, list):
        if not last.isdigit() or int(last) >= len(target):
            raise ConfigError(f"{override!r}: {last!r} is not an index below {len(target)}")
        target[int(last)] = value
    else:
        target[last] = value


def _step_into(target: Any, key: str, override: str) -> Any:
    """The value under a key, or under an index where ``target`` is a list (stages.0.steps)."""
    if isinstance(target, list):
        if not key.isdigit() or int(key) >= len(target):
            raise ConfigError(f"{override!r}: {key!r} is not an index below {len(target)}")
        return target[int(key)]
    below = target.setdefault(key, {})
    if not isinstance(below, (dict, list)):
        raise ConfigError(f"{override!r}: {key} holds a value, not keys")
    return below


def _first_complaint(error: ValidationError, kind: type[BaseModel]) -> str:
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"])
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if problem["type"] != "extra_forbidden":
        return f"{where or 'config'}: {problem['msg']}{more}"
    unknown = str(problem["loc"][-1])
    known = _fields_at(kind, problem["loc"][:-1])
    near = difflib.get_close_matches(unknown, known, n=1, cutoff=0.0)
    hint = f"; the nearest key is {near[0]!r}" if near else ""
    return f"unknown key {where!r}{hint}{more}"


def _fields_at(kind: Any, location: tuple[Any, ...]) -> list[str]:
    for part in location:
        if isinstance(part, int):
            kind = next(a for a in kind.__args__ if isinstance(a, type))
        else:
            kind = kind.model_fields[part].annotation
        if isinstance(kind, UnionType):  # a part that may be left out
            kind = next(a for a in kind.__args__ if a is not NoneType)
    return list(kind.model_fields)
