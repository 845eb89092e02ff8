"""torch.compile for training: the transforms of frames and features alone.

What is coded in exact integers, and all that leads there from what a decoder knows, stays as it is
written; so does every copy of the codec that validates or is exported.
"""

from torch import nn

from codec.video_codec import VideoCodec


def compile_transforms(codec: VideoCodec, backend: str = "inductor") -> list[nn.Module]:
    """Compile encoders, decoders, feature extraction and fusion in place; returns them.

    Names of parameters stay. They are compiled when they are first called, for each size of frame
    once.

    Args:
        backend: of torch.compile.
    """
    intra, inter = codec.intra, codec.inter
    transforms = [intra.encoder, intra.decoder, inter.encoder, inter.decoder]
    transforms += [inter.compensation.extract, inter.compensation.fusion]
    for module in transforms:
        module.compile(backend=backend)
    return transforms
