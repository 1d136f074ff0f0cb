"""Steps as CUDA graphs: with batches of ten images nearly all time is launches, and a graph is one launch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

Step = Callable[..., None]
Capture = Callable[[Callable[[], None]], Callable[[], None]]

WARM_UP = 3  # eager steps before a capture, in which libraries choose their kernels and take their memory


class Replayed:
    """A step captured once per shapes of its batch, and replayed on tensors of its own from then on.

    Every call is one real step: the first are run eagerly, and a capture computes nothing. A step that can't be
    captured, because its model waits for the device, stays eager.
    """

    def __init__(self, step: Step, capture: Capture):
        self._step, self._capture = step, capture
        self._eager: Counter[tuple[torch.Size, ...]] = Counter()
        self._captured: dict[tuple[torch.Size, ...], tuple[tuple[Tensor, ...], Callable[[], None]]] = {}
        self._capturable = True

    def __call__(self, *batch: Tensor) -> None:
        shapes = tuple(tensor.shape for tensor in batch)
        if shapes not in self._captured and not (self._capturable and self._ready(shapes, batch)):
            self._eager[shapes] += 1
            self._step(*batch)
            return
        inputs, replay = self._captured[shapes]
        for own, given in zip(inputs, batch, strict=True):
            own.copy_(given)
        replay()

    def _ready(self, shapes: tuple[torch.Size, ...], batch: tuple[Tensor, ...]) -> bool:
        """Capture the step for these shapes if it has been warmed up; whether there is a graph now."""
        if self._eager[shapes] < WARM_UP:
            return False
        inputs = tuple(tensor.clone() for tensor in batch)
        try:
            self._captured[shapes] = inputs, self._capture(lambda: self._step(*inputs))
        except RuntimeError:
            self._capturable = False
        return self._capturable


def captured_on_gpu(work: Callable[[], None]) -> Callable[[], None]:
    """Record what `work` launches on the current stream; other threads may go on with theirs."""
    graph = torch.cuda.CUDAGraph()
    graph.capture_begin(capture_error_mode="thread_local")
    try:
        work()
    finally:
        graph.capture_end()
    return graph.replay


@contextmanager
def replayable(step: Step, device: torch.device) -> Iterator[Step]:
    """The step to call within this block: on a GPU captured, on a stream of its own; elsewhere the step itself.

    Nothing inside waits for the device; the end does, since a graph must outlive its replays.
    """
    if device.type != "cuda":
        yield step
        return
    outer, own = torch.cuda.current_stream(device), torch.cuda.Stream(device)
    own.wait_stream(outer)
    with torch.cuda.stream(own):
        yield Replayed(step, captured_on_gpu)
        own.synchronize()
