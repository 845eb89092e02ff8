"""A row of small GPU kernels launched as one."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


class Graphed:
    """A function of tensors that is replayed as one CUDA graph where they lie on a GPU.

    Launched one by one, hundreds of small kernels take as long as their launches. A graph is for
    inputs of one shape: it is captured at the first call, and anew when others come. Elsewhere, and
    while a capture is under way already, the function is called as it is.

    Args:
        function: of tensors, without gradients; which kernels it launches may depend on the shapes
            of its inputs alone.
    """

    def __init__(self, function: Callable[..., Sequence[Tensor]]):
        self._function = function
        self._forget()

    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        """The function's tensors, the caller's own."""
        if inputs[0].device.type != "cuda" or torch.cuda.is_current_stream_capturing():
            return list(self._function(*inputs))
        key = tuple((x.shape, x.stride(), x.dtype, x.device) for x in inputs)
        with torch.inference_mode():
            if key != self._key:
                self._capture(inputs)
                self._key = key
            for own, value in zip(self._inputs, inputs, strict=True):
                own.copy_(value)
            self._graph.replay()
            return [x.clone() for x in self._outputs]

    def __deepcopy__(self, memo: dict) -> "Graphed":
        return Graphed(self._function)  # a graph belongs to the memory it was captured on

    def _forget(self) -> None:
        self._key: tuple | None = None
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: list[Tensor] = []
        self._outputs: Sequence[Tensor] = ()

    def _capture(self, inputs: Sequence[Tensor]) -> None:
        self._forget()
        self._inputs = [x.clone() for x in inputs]
        current, stream = torch.cuda.current_stream(), torch.cuda.Stream()
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            for _ in range(2):  # kernels are compiled and algorithms chosen before the capture
                self._function(*self._inputs)
        current.wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._outputs = self._function(*self._inputs)
        self._graph = graph
