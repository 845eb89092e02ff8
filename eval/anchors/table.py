"""Every anchor with its exact arguments, and the names that stand for several.

Two things differ from a bare command line, both in the anchor's favour and both measured in
docs/protocol.md: the text messages (SEI) in which x264 and x265 describe themselves are removed,
and x264 runs one thread, since ``-tune zerolatency`` would cut every picture into slices.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from codec.errors import ConfigError
from codec.video.format import VideoFormat

AV1_QPS = (22, 32, 42, 52)
"""Quantizers (0..63) of the AV1 encoders unless others are asked for: a quantizer of AV1 is finer
than the same qp of HEVC, and these reach about the qualities of qp 22 to 37 there."""

ENDLESS_AV1 = 9999
"""Frames between the intra frames of an AV1 stream that shall have only the first."""


@dataclass(frozen=True)
class AnchorKind:
    """One row of the table.

    arguments: FFmpeg's words from the encoder to the container, {qp} and {gop} left open. gop,
    endless: what stands for {gop} with an intra period ({period}), and with only the first frame
    intra. low_delay: pictures are coded in the order in which they are shown. min_qp, max_qp: of
    its scale. qp_per_bit: added to the qp for each bit of depth above 8, where the encoder does not
    do so itself. chromas, bit_depths: what the encoder takes; 8-bit video goes into a 10-bit
    encoder scaled up.
    """

    name: str
    encoder: str
    extension: str
    arguments: str
    gop: str
    endless: str
    low_delay: bool = True
    min_qp: int = 0
    max_qp: int = 51
    qp_per_bit: int = 0
    chromas: tuple[str, ...] = ("420", "444", "rgb")
    bit_depths: tuple[int, ...] = (8, 10)

    @property
    def container(self) -> str:
        """FFmpeg's name of the raw stream."""
        return {".264": "h264", ".265": "hevc", ".266": "vvc", ".obu": "obu"}[self.extension]

    @property
    def is_av1(self) -> bool:
        """Whether its levels are quantizers of AV1, 0..63, and not qps of HEVC's scale."""
        return self.extension == ".obu"

    def check_qp(self, qp: int) -> None:
        """Raise ConfigError for a qp that is not of its scale."""
        if not self.min_qp <= qp <= self.max_qp:
            raise ConfigError(f"a qp of {self.name} is {self.min_qp}..{self.max_qp}, not {qp}")

    def coded_qp(self, qp: int, depth: int) -> int:
        """What the encoder is told for ``qp`` at so many bits a sample."""
        return qp + self.qp_per_bit * (depth - 8)

    def command(self, qp: int | str, intra_period: int) -> str:
        """The arguments of one point as a line; intra period 0: only the first frame is intra."""
        gop = self.gop.format(period=intra_period) if intra_period else self.endless
        return f"-c:v {self.encoder} {self.arguments.format(qp=qp, gop=gop)} -f {self.container}"

    def encoder_options(self, qp: int | str, intra_period: int) -> dict[str, str]:
        """FFmpeg's output options of one point by name, in order."""
        words = shlex.split(self.command(qp, intra_period))
        return {name[1:]: value for name, value in zip(words[::2], words[1::2], strict=True)}

    def coded_depth(self, video_format: VideoFormat) -> int:
        """Bits a sample of what the encoder is given. Raises ConfigError for what it never takes"""
        if video_format.chroma not in self.chromas:
            raise ConfigError(
                f"{self.name} codes 4:2:0 only and this video is {video_format}: leave it out, "
                "or give the video as 4:2:0"
            )
        fitting = [depth for depth in self.bit_depths if depth >= video_format.bit_depth]
        return min(fitting)


_X26X_GOP = "keyint={period}:min-keyint={period}:scenecut=0"


def _x264(name: str, preset: str, order: str, low_delay: bool = True) -> AnchorKind:
    arguments = f"-preset {preset} {order}-qp {{qp}} -x264-params {{gop}}:threads=1"
    arguments += " -bsf:v filter_units=remove_types=6"
    endless = "keyint=infinite:scenecut=0"
    # its qp 0 is the finest step of the depth: at 10 bit qp 44 has the step of qp 32 at 8 bit
    return AnchorKind(
        name, "libx264", ".264", arguments, _X26X_GOP, endless, low_delay, qp_per_bit=6
    )


def _x265(name: str, preset: str, order: str, gop: str = "", low_delay: bool = True) -> AnchorKind:
    # pools=1, one worker thread: the same bits as with many, wavefronts included
    arguments = f"-preset {preset} {order}-x265-params qp={{qp}}:{{gop}}{gop}:pools=1"
    arguments += ":log-level=error -bsf:v filter_units=remove_types=39-40"
    endless = "keyint=-1:scenecut=0"
    return AnchorKind(name, "libx265", ".265", arguments, _X26X_GOP, endless, low_delay)


def _svtav1(name: str, structure: int) -> AnchorKind:
    # pred-struct 1: low delay, 2: random access; FFmpeg takes qp 0 for none given
    return AnchorKind(
        name,
        "libsvtav1",
        ".obu",
        f"-preset 4 -qp {{qp}} -g {{gop}} -svtav1-params pred-struct={structure}:scd=0:lp=1",
        "{period}",
        str(ENDLESS_AV1),
        low_delay=structure == 1,
        min_qp=1,
        max_qp=63,
        chromas=("420",),
    )


def _libaom(name: str, lag: int) -> AnchorKind:
    # with no bit rate (-b:v 0), crf is libaom's quantizer and does not depend on the frame rate
    return AnchorKind(
        name,
        "libaom-av1",
        ".obu",
        f"-cpu-used 3 -crf {{qp}} -b:v 0 -g {{gop}} -keyint_min {{gop}} -lag-in-frames {lag}"
        " -threads 1 -row-mt 0",
        "{period}",
        str(ENDLESS_AV1),
        low_delay=lag == 0,
        max_qp=63,
    )


def _vvenc(name: str, order: str, low_delay: bool) -> AnchorKind:
    # qpa 0: VVenC would vary the qp for the eye's sake, and a fixed qp is to be fixed
    return AnchorKind(
        name,
        "libvvenc",
        ".266",
        f"-preset medium -qp {{qp}} -qpa 0 -vvenc-params intraperiod={{gop}}:{order}"
        ":accessunitdelimiter=0:threads=1",
        "{period}",
        "-1",
        low_delay,
        max_qp=63,
        chromas=("420",),
        bit_depths=(10,),
    )


_ZERO_LATENCY = "-tune zerolatency "

ANCHORS: dict[str, AnchorKind] = {
    kind.name: kind
    for kind in (
        _x264("x264-medium", "medium", _ZERO_LATENCY),
        _x264("x264-veryslow", "veryslow", _ZERO_LATENCY),
        _x264("x264-ra", "veryslow", "", low_delay=False),
        _x265("x265-medium", "medium", _ZERO_LATENCY),
        _x265("x265-veryslow", "veryslow", _ZERO_LATENCY),
        _x265("x265-ra", "veryslow", "", ":open-gop=0:frame-threads=1", low_delay=False),
        _svtav1("svtav1-ld", 1),
        _svtav1("svtav1-ra", 2),
        _libaom("libaom-ld", 0),
        _libaom("libaom-ra", 19),
        _vvenc("vvenc-ld", "picreordering=0:gopsize=8:decodingrefreshtype=none", True),
        _vvenc("vvenc-ra", "poc0idr=1:decodingrefreshtype=idr", False),
    )
}
"""Every anchor that FFmpeg runs, by name."""

FAMILIES: dict[str, tuple[str, ...]] = {
    "x264": ("x264-medium", "x264-veryslow"),
    "x265": ("x265-medium", "x265-veryslow"),
    "svtav1": ("svtav1-ld", "svtav1-ra"),
    "libaom": ("libaom-ld", "libaom-ra"),
    "vvenc": ("vvenc-ld", "vvenc-ra"),
    "hm": ("hm-ld", "hm-ra"),
    "vtm": ("vtm-ld", "vtm-ra"),
    "ld": tuple(name for name, kind in ANCHORS.items() if kind.low_delay),
    "ra": tuple(name for name, kind in ANCHORS.items() if not kind.low_delay),
    "all": tuple(ANCHORS),
    "none": (),
}
"""Names that stand for several anchors. x264 and x265 are their two low-delay presets; all is what
FFmpeg runs, so without HM and VTM."""


def anchor_names(text: str) -> list[str]:
    """ "x264,x265-veryslow" -> the names of anchors in the order given, each once.

    Raises ConfigError for an unknown name.
    """
    single = [*ANCHORS, *FAMILIES["hm"], *FAMILIES["vtm"]]
    names: list[str] = []
    for word in (part.strip() for part in text.split(",")):
        if word and word not in FAMILIES and word not in single:
            known = ", ".join([*FAMILIES, *single])
            raise ConfigError(f"there is no anchor {word!r}: choose from {known}")
        names.extend(FAMILIES.get(word, (word,) if word else ()))
    return list(dict.fromkeys(names))
