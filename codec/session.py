"""A whole video: reader -> video codec -> container, and back.

One frame is read, coded and written at a time, so of the pictures memory holds a few, however long
the video is. What grows with it is a line about each frame in the report.
"""

import json
import operator
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from codec.bitstream.container import ContainerReader, ContainerWriter
from codec.bitstream.header import MAX_INTRA_PERIOD, MAX_QUALITY, SequenceHeader
from codec.bitstream.packets import Packet, PacketType, frame_digest
from codec.effort import Effort
from codec.entropy.coders import StreamDecoder
from codec.errors import BitstreamError, ConfigError, LgmcError, ModelError
from codec.frame_encoder import FrameEncoder
from codec.models import Model, available, load
from codec.rate import Outcome, RateTarget
from codec.standard_input import standard_input
from codec.video.colour import rgb_to_frame
from codec.video.format import Frame, VideoFormat
from codec.video.reader import VideoReader, check_frames, open_reader
from codec.video.target import FileTarget, check_not_itself
from codec.video.writer import open_writer
from codec.video_codec import FrameCoder, VideoCodec

Progress = Callable[[int, int | None], None]
ModelLike = str | Path | Model


@dataclass
class EncodeReport:
    """What was encoded.

    Attributes:
        model, quality, intra_period: as the stream's header states them.
        width, height, fps: of the video.
        bytes: of the file, everything included.
        seconds: from the first frame to the last, model loading not counted, every pass counted.
        coding_seconds: of these, spent in the network and the entropy coder.
        frames: per frame ``index``, ``type`` ("I" or "P"), ``quality``, ``bytes`` (of its packet).
        outcome: what came of the rate that was asked for; None where none was.
    """

    model: str
    quality: int
    intra_period: int
    width: int
    height: int
    fps: float
    bytes: int = 0
    seconds: float = 0.0
    coding_seconds: float = 0.0
    frames: list[dict[str, Any]] = field(default_factory=list)
    outcome: Outcome | None = None

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2)


@dataclass
class DecodeReport:
    """What was decoded. ``damage`` is the error that ended a partial decoding, or None."""

    width: int
    height: int
    fps: float
    frames: int
    seconds: float
    coding_seconds: float
    verified: bool
    damage: LgmcError | None = None

    def to_json(self) -> str:
        values = {**vars(self), "damage": str(self.damage) if self.damage else None}
        return json.dumps(values, indent=2)


def encode(
    source: str | os.PathLike | Iterable[np.ndarray],
    target: str | os.PathLike,
    *,
    model: ModelLike = "lite",
    quality: int = 32,
    intra_period: int = 32,
    rate: RateTarget | None = None,
    effort: int | str | Effort = 0,
    frames: int | None = None,
    recon: str | os.PathLike | None = None,
    digests: bool = True,
    device: str = "cpu",
    progress: Progress | None = None,
    **reader_options: Any,
) -> EncodeReport:
    """Encode a video to a .lgmc file, which appears under its name when it is whole.

    Args:
        source: what open_reader takes, or an iterable of uint8 RGB frames [3, H, W] (then ``fps``
            may be given, 25 if not).
        target: the stream.
        model: a name, a model file, or what ``codec.load`` returned.
        quality: 0 (smallest) .. 63 (best).
        intra_period: frames from one I frame to the next; 0: only the first is one.
        rate: bit rates to meet, by the quality of each frame (docs/rate_control.md). ``quality`` is
            then where the search for it begins, or the most where no average is asked for. A rate
            that cannot be met is no error: the report's ``outcome`` says so.
        effort: steps of gradient descent, 0..MAX_EFFORT, by which each P frame's motion is made
            cheaper before it is coded; as text such as ``"20+10"``, or as an ``Effort``, also those
            by which each frame's residual is, looking one frame ahead. The stream is an ordinary
            one.
        frames: encode the first so many.
        recon: where to write the pictures that a decoder will give.
        digests: write 8 bytes a frame by which a decoder can check its pictures.
        device: "cpu" or "cuda", for a model that is yet to be loaded; a loaded one stays where it
            is.
        progress: called after every frame with (done, total or None).
        reader_options: of open_reader; for frames from memory only ``fps``.

    Raises:
        LgmcError: one line that says what is wrong with the video, the stream, the model or an
            argument. What ``progress`` or the iterable of frames raises comes through as it is.
    """
    quality = _in_range("quality", quality, MAX_QUALITY)
    intra_period = _in_range("intra period", intra_period, MAX_INTRA_PERIOD)
    effort = Effort.of(effort)
    with ExitStack() as stack:
        reader = stack.enter_context(_reader(source, frames, reader_options))
        check_not_itself(source, target, "the stream")
        if recon is not None:
            check_not_itself(source, recon, "the recon")
            if os.path.realpath(recon) == os.path.realpath(target):
                raise ConfigError(f"{recon} is the stream's name too: give another for the recon")
        if rate is not None and rate.two_pass:
            _check_readable_twice(source)
        loaded = _loaded(model, device)
        form = reader.format
        header = SequenceHeader(
            width=form.width,
            height=form.height,
            fps=form.fps,
            chroma=form.chroma,
            bit_depth=form.bit_depth,
            matrix=form.matrix,
            range=form.range,
            model=loaded.name,
            weights_digest=loaded.digest,
            quality=quality,
            intra_period=intra_period,
            frame_count=None,
            digests=digests,
        )
        report = EncodeReport(
            loaded.name, quality, intra_period, form.width, form.height, float(form.fps)
        )
        stream = stack.enter_context(_whole_file(target))
        with _writing(target):
            writer = ContainerWriter(stream, header)
        shown = stack.enter_context(open_writer(recon, form)) if recon is not None else None
        coder = FrameEncoder(loaded.codec, header, effort)
        started = time.perf_counter()
        sequence: Iterable[Frame] = reader
        if rate is not None and rate.two_pass:
            progress, of_first = _two_passes(progress)
            with _reader(source, frames, reader_options) as first:
                coder.first_pass(_counted(first, of_first))
        if rate is not None:
            sequence = coder.control(rate, reader, reader.frame_count)
        for number, (frame, following) in enumerate(coder.followed(sequence)):
            coded = coder.encode(number, frame, following)
            report.coding_seconds = coder.seconds
            seen = digests or shown is not None
            planes = rgb_to_frame(coded.picture, form) if seen else None
            packet = Packet(
                PacketType.INTRA if coded.intra else PacketType.INTER,
                coded.stream,
                coded.quality,
                frame_digest(planes) if digests else None,
            )
            with _writing(target):
                placement = writer.write(packet)
            if shown is not None:
                shown.write(planes)
            report.frames.append(
                {
                    "index": number,
                    "type": "I" if coded.intra else "P",
                    "quality": coded.quality,
                    "bytes": placement.total_bytes,
                }
            )
            report.seconds = time.perf_counter() - started
            if progress is not None:
                progress(number + 1, reader.frame_count)
        with _writing(target):
            writer.close()
        report.bytes = writer.offset
        report.outcome = coder.outcome(8 * writer.offset)
    return report


def _two_passes(progress: Progress | None) -> tuple[Progress | None, Progress | None]:
    """Progress of the second pass and of the first, each counted as half of the work."""
    if progress is None:
        return None, None
    first_done = 0

    def first(done: int, total: int | None) -> None:
        nonlocal first_done
        first_done = done
        progress(done, total and 2 * total)

    def second(done: int, total: int | None) -> None:
        progress(first_done + done, 2 * first_done)

    return second, first


def _counted(reader: VideoReader, progress: Progress | None) -> Iterator[Frame]:
    """The reader's frames; ``progress`` is told when the next one is asked for."""
    for number, frame in enumerate(reader):
        yield frame
        if progress is not None:
            progress(number + 1, reader.frame_count)


def _check_readable_twice(source: Any) -> None:
    if not isinstance(source, (str, os.PathLike)) or not (
        os.path.isfile(source) or os.path.isdir(source)
    ):
        raise ConfigError(
            "two passes read the video twice: name a file or a folder, or leave out --two-pass"
        )


class Decoding:
    """The frames of a stream, decoded as they are asked for.

    Iterating yields three integer planes a frame. :attr:`format` and :attr:`header` are known
    from the start; :attr:`damage` is set where a partial decoding ended early.
    """

    def __init__(
        self,
        source: str | os.PathLike,
        model: ModelLike | None,
        device: str,
        partial: bool,
        verify: bool,
        account: bool = False,
    ):
        self._file = _open_stream(source)
        try:
            self._reader = ContainerReader(self._file, partial=partial, name=str(source))
            self.header = self._reader.header
            self.format = VideoFormat(
                self.header.width,
                self.header.height,
                self.header.fps,
                self.header.chroma,
                self.header.bit_depth,
                self.header.matrix,
                self.header.range,
            )
            if verify and not self.header.digests:
                raise BitstreamError(f"{source} has no digests to verify: it was made without them")
            self._model = _model_of(self.header, model, device)
        except BaseException:
            self.close()
            raise
        self._verify = verify
        self._account = account
        self.coding_seconds = 0.0
        self._coder: StreamDecoder | None = None
        self._frames = self._decode()

    @property
    def damage(self) -> LgmcError | None:
        return self._reader.damage

    @property
    def parts(self) -> dict[str, float]:
        """Bits by part of the frame that was given last; empty without ``account``.

        Reckoned when it is asked for, so that decoding takes no longer.
        """
        return dict(self._coder.bits) if self._coder else {}

    def __iter__(self) -> Iterator[Frame]:
        return self

    def __next__(self) -> Frame:
        return next(self._frames)

    @property
    def codec(self) -> VideoCodec:
        """The stream's model."""
        return self._model.codec

    def packets(self) -> Iterator[Packet]:
        """The frames as they are stored, checked but not decoded: for who decodes by himself."""
        with self._file:
            yield from self._reader

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> "Decoding":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _decode(self) -> Iterator[Frame]:
        coder = FrameCoder(self._model.codec, self.format.height, self.format.width)
        with self._file:
            for number, packet in enumerate(self._reader):
                begun = time.perf_counter()
                decoded, self._coder = coder.decode(
                    packet.payload,
                    packet.type is PacketType.INTRA,
                    packet.quality,
                    self._account,
                )
                self.coding_seconds += time.perf_counter() - begun
                planes = rgb_to_frame(decoded, self.format)
                if self._verify and frame_digest(planes) != packet.digest:
                    raise BitstreamError(
                        f"frame {number} is not bit for bit the encoder's picture: the stream is "
                        "whole, but float arithmetic here differs from the encoder's; decode "
                        "without --verify, or on the kind of machine that encoded it and with as "
                        "many threads (OMP_NUM_THREADS)"
                    )
                yield planes


def decode(
    source: str | os.PathLike,
    *,
    model: ModelLike | None = None,
    device: str = "cpu",
    partial: bool = False,
    verify: bool = False,
    account: bool = False,
) -> Decoding:
    """Decode a .lgmc stream frame by frame.

    Args:
        source: a file, or "-" for standard input.
        model: where the stream's model is not one that ships.
        device: "cpu" or "cuda", for a model that is yet to be loaded.
        partial: end quietly at the last whole frame before a damage.
        verify: check every frame against the stream's digests.
        account: remember what tells the bits by part (``Decoding.parts``).

    Returns:
        An iterator over frames (three integer planes) with ``format`` and ``damage``.

    Raises:
        BitstreamError, ModelError: one line that says what is wrong.
    """
    return Decoding(source, model, device, partial, verify, account)


def decode_to_file(
    source: str | os.PathLike,
    target: str | os.PathLike,
    *,
    model: ModelLike | None = None,
    device: str = "cpu",
    partial: bool = False,
    verify: bool = False,
    progress: Progress | None = None,
) -> DecodeReport:
    """Decode a stream into a video file, a folder of PNG or "-" (see open_writer).

    The target appears under its name when it is whole. Arguments and errors as :func:`decode`.
    """
    check_not_itself(source, target, "the video")
    with decode(source, model=model, device=device, partial=partial, verify=verify) as frames:
        form = frames.format
        started = time.perf_counter()
        done = 0
        writer = None
        with ExitStack() as stack:
            for planes in frames:
                if writer is None:
                    writer = stack.enter_context(open_writer(target, form))
                writer.write(planes)
                done += 1
                if progress is not None:
                    progress(done, frames.header.frame_count)
            if writer is None:
                raise frames.damage or BitstreamError(f"{source} holds no frame")
        seconds = time.perf_counter() - started
        return DecodeReport(
            form.width,
            form.height,
            float(form.fps),
            done,
            seconds,
            frames.coding_seconds,
            verify,
            frames.damage,
        )


def account(
    source: str | os.PathLike,
    *,
    model: ModelLike | None = None,
    device: str = "cpu",
    partial: bool = False,
    progress: Progress | None = None,
) -> Iterator[dict[str, float]]:
    """Bits by part of each frame (motion, motion_hyper, residual, ...), by the tables that coded
    them. They add up to the frame's rANS stream but for its end state of 8 bytes."""
    with Decoding(source, model, device, partial, verify=False, account=True) as frames:
        for number, _ in enumerate(frames):
            yield frames.parts
            if progress is not None:
                progress(number + 1, frames.header.frame_count)


def _loaded(model: ModelLike, device: str) -> Model:
    if isinstance(model, Model):
        return model
    if not isinstance(model, str | os.PathLike):
        raise ModelError(
            f"a {type(model).__name__} is no model that a stream can name: give a name, a file as "
            "codec.models.export writes it, or what codec.load returned"
        )
    return load(model, device)


def _model_of(header: SequenceHeader, model: ModelLike | None, device: str) -> Model:
    """The model that a stream needs, checked by its digest."""
    if model is None:
        if header.model not in available():
            raise ModelError(
                f"the stream was made with the model {header.model!r}, which does not ship with "
                "this version: name its file with --model"
            )
        model = header.model
    loaded = _loaded(model, device)
    if loaded.digest != header.weights_digest:
        raise ModelError(
            f"the stream was made with other weights of {header.model!r} (digest "
            f"{header.weights_digest.hex()[:12]}) than {loaded.name!r} here has "
            f"({loaded.digest.hex()[:12]}): name the right file with --model"
        )
    return loaded


@contextmanager
def _whole_file(target: str | os.PathLike) -> Iterator[BinaryIO]:
    """A file under a temporary name, renamed when the block ends well, removed when it does not."""
    with _writing(target):
        file = FileTarget(Path(target), overwrite=True)
    try:
        yield file.stream
        with _writing(target):
            file.commit()
    except BaseException:
        file.discard()
        raise


@contextmanager
def _writing(target: str | os.PathLike) -> Iterator[None]:
    """Turns what the system says while the stream is written into one line about it."""
    try:
        yield
    except OSError as error:
        raise LgmcError(
            f"{target} cannot be written ({error.strerror or error}): choose another place"
        ) from None


def _open_stream(source: str | os.PathLike) -> BinaryIO:
    if os.fspath(source) == "-":
        return standard_input("a .lgmc stream", BitstreamError)
    try:
        return open(source, "rb")
    except FileNotFoundError:
        raise BitstreamError(f"{source}: no such file; name a .lgmc stream") from None
    except OSError as error:
        raise BitstreamError(f"{source} cannot be read ({error.strerror})") from None


def _in_range(what: str, value: Any, top: int) -> int:
    try:
        number = -1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = -1
    if not 0 <= number <= top:
        raise ConfigError(f"the {what} must be a whole number of 0..{top}, not {value!r}")
    return number


def _reader(source: Any, frames: int | None, options: dict[str, Any]) -> VideoReader:
    if isinstance(source, (str, os.PathLike)):
        return open_reader(source, frames=frames, **options)
    unfit = sorted(options.keys() - {"fps"})
    if unfit:
        raise ConfigError(f"frames from memory have no {', '.join(unfit)}: give no more than fps")
    if not isinstance(source, Iterable):
        raise ConfigError(f"the source must be a file's name or frames, not {source!r}")
    check_frames(frames)
    return _from_arrays(iter(source), frames, **options)


def _from_arrays(
    arrays: Iterator[np.ndarray], frames: int | None, fps: Fraction | int | float | str = 25
) -> VideoReader:
    """A reader over uint8 RGB arrays [3, H, W]; the first one fixes the size."""
    from itertools import chain, islice

    first = next(arrays, None)
    if first is None:
        raise ConfigError("there are no frames to encode")
    first = np.asarray(first)
    if first.ndim != 3 or first.shape[0] != 3 or first.dtype != np.uint8:
        raise ConfigError(
            f"frames must be uint8 arrays [3, height, width], not {first.dtype} {first.shape}"
        )
    form = VideoFormat(first.shape[2], first.shape[1], fps, chroma="rgb")

    def planes() -> Iterator[Frame]:
        for array in islice(chain([first], arrays), frames):
            # Copies: frames wait to be coded, while the caller may fill his array with the next.
            frame = tuple(np.array(plane, order="C") for plane in np.atleast_1d(array))
            form.check_frame(frame)
            yield frame

    return VideoReader("frames", form, planes())
