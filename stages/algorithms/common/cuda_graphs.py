"""Steps as CUDA graphs, several clients' at a time: with batches of ten images, launching kernels takes nearly all the time.

A graph is one launch. It runs on a `Lane`, which keeps a stream, the memory of its graphs and its own random numbers for a
whole run. Threads with a lane each take turns to launch, handing on a `Baton`, so that no capture overlaps another thread's
work and the order of launches never affects a result.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor

from stages import torch_private

Step = Callable[..., None]
Replay = Callable[[], object]
Shapes = tuple[torch.Size, ...]

WARM_UP = 1  # eager steps before a lane's first capture of a kind of step, in which libraries choose their kernels
AHEAD = 48  # replays that wait for the device while other lanes capture; the 65th of a stream would block its thread

_refused: set[Hashable] = set()  # kinds of steps of this process that can't be captured
_reasons: list[str] = []  # not reported yet

_here = threading.local()  # .lane: the one this thread has its turn on; .own: for a thread that takes turns with nobody


class Refused(RuntimeError):
    """A step that can't be captured, because something in it waits for the device."""


class Baton:
    """Held by the one thread that may launch, and handed on in the order in which the others asked for it."""

    def __init__(self) -> None:
        self._lock, self._waiting, self._held = threading.Lock(), deque[threading.Lock](), False

    @property
    def wanted(self) -> bool:
        return bool(self._waiting)

    def line_up(self) -> threading.Lock:
        """A place in the line: the baton is this thread's as soon as it acquires the lock."""
        with self._lock:
            if self._held:
                return self._join()
            self._held = True
            return threading.Lock()

    def give(self) -> None:
        with self._lock:
            self._held = bool(self._waiting)
            if self._waiting:
                self._waiting.popleft().release()

    def hand_on(self) -> None:
        """Let every waiting thread go first."""
        with self._lock:
            mine = self._join()
            self._waiting.popleft().release()
        mine.acquire()

    def _join(self) -> threading.Lock:
        mine = threading.Lock()
        mine.acquire()
        self._waiting.append(mine)
        return mine


class Lane:
    """Where one thread launches. This base class is for a CPU, where whatever is launched is done at once."""

    def __init__(self, baton: Baton):
        self._baton = baton
        self._place: threading.Lock | None = None
        self._random: Tensor | None = None  # state of the CPU's generator as this lane left it
        self.captured: set[Hashable] = set()  # kinds of steps and the shapes of their inputs

    def line_up(self) -> None:
        """Take a place in the line for this thread's next turn."""
        self._place = self._baton.line_up()

    @contextmanager
    def turn(self) -> Iterator[Lane]:
        """Within the block only this thread launches, on this lane; during `hand_on` and `wait` others do."""
        self._random = None
        self._take()
        _here.lane = self
        try:
            with self.launching():
                yield self
        finally:
            _here.lane = None
            self._give()

    def hand_on(self) -> None:
        """Let waiting threads launch something, too."""
        if self._baton.wanted:
            self.leave()
            self._baton.hand_on()
            self.enter()

    def wait(self) -> None:
        """Wait until everything launched on this lane is done."""
        self._give()
        try:
            self.synchronise()
        finally:
            self._take()

    def _take(self) -> None:
        place, self._place = self._place or self._baton.line_up(), None
        place.acquire()
        self.enter()

    def _give(self) -> None:
        self.leave()
        self._baton.give()

    def enter(self) -> None:
        """Random numbers are this lane's from here on."""
        self._outer = torch.get_rng_state()
        if self._random is not None:
            torch.set_rng_state(self._random)

    def leave(self) -> None:
        self._random = torch.get_rng_state()
        torch.set_rng_state(self._outer)

    @contextmanager
    def launching(self) -> Iterator[None]:
        """Within the block, work goes to this lane."""
        yield

    def capture(self, work: Replay) -> Replay:
        """Record what `work` launches. If that is impossible, raises Refused and leaves the lane as it was."""
        return work

    def synchronise(self) -> None: ...


class CudaLane(Lane):
    """A GPU's stream, with one memory pool for all the graphs that it ever captures."""

    def __init__(self, device: torch.device, baton: Baton):
        super().__init__(baton)
        self._device, self._stream = device, torch.cuda.Stream(device)
        self._default = torch.cuda.default_generators[self._stream.device_index]
        self._shared = self._default.graphsafe_get_state()
        self._own = torch.Generator(device)
        self._touched = torch.zeros(1, device=device)
        self._open_pool()

    def _open_pool(self) -> None:
        """A memory pool lives as long as a graph in it, so a first, almost empty graph is kept for good."""
        self._pool = torch.cuda.graph_pool_handle()
        with torch.cuda.stream(self._stream):
            self._keeper = self._recorded(lambda: self._touched.add_(1))

    def enter(self) -> None:
        super().enter()
        self._default.graphsafe_set_state(self._own)

    def leave(self) -> None:
        self._default.graphsafe_set_state(self._shared)
        super().leave()

    @contextmanager
    def launching(self) -> Iterator[None]:
        self._stream.wait_stream(torch.cuda.default_stream(self._device))
        with torch.cuda.stream(self._stream):
            yield
            self.wait()

    def synchronise(self) -> None:
        self._stream.synchronize()

    def capture(self, work: Replay) -> Replay:
        before = self._own.get_state()
        try:
            return self._recorded(work).replay
        except RuntimeError as error:
            self._recover(before)
            raise Refused(str(error.__context__ or error).splitlines()[0]) from error

    def _recorded(self, work: Replay) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        with torch_private.capturing(graph, self._pool):
            work()
        return graph

    def _recover(self, random: Tensor) -> None:
        """Take a new pool and generator: before PyTorch 2.12 a broken capture leaves the old ones waiting for its end.

        Raises the device's own RuntimeError if the device no longer computes.
        """
        torch_private.abandon(self._pool, self._stream.device_index)
        self._own = torch.Generator(self._device)
        self._own.set_state(random)
        self._default.graphsafe_set_state(self._own)
        self._open_pool()
        torch.rand(1, device=self._device)
        self._stream.synchronize()
        self._own.set_state(random)


class Replayed:
    """A step captured once for every combination of input shapes, and replayed on tensors of its own from then on.

    Every call is one real step: the first of each shape is run eagerly unless its kind has been captured on this lane, and a
    capture computes nothing. A step that can't be captured stays eager, and so do all steps of its kind. Other lanes launch
    after every replay but the first AHEAD.
    """

    def __init__(self, step: Step, lane: Lane, kind: Hashable):
        self._step, self._lane, self._kind = step, lane, kind
        self._replays = 0
        self._eager: dict[Shapes, int] = {}
        self._captured: dict[Shapes, tuple[tuple[Tensor, ...], Replay]] = {}

    def __call__(self, *given: Tensor) -> None:
        shapes = tuple(tensor.shape for tensor in given)
        if shapes not in self._captured and not self._capture(shapes, given):
            self._eager[shapes] = self._eager.get(shapes, 0) + 1
            self._step(*given)
            return
        inputs, replay = self._captured[shapes]
        for own, new in zip(inputs, given, strict=True):
            own.copy_(new)
        replay()
        self._replays += 1
        if self._replays > AHEAD:
            self._lane.hand_on()

    def _capture(self, shapes: Shapes, given: tuple[Tensor, ...]) -> bool:
        """Capture the step for these shapes if libraries know it; returns whether there is a graph now."""
        warmed_up, known = self._eager.get(shapes, 0) >= WARM_UP, (self._kind, shapes) in self._lane.captured
        if not (warmed_up or known) or self._kind in _refused:
            return False
        inputs = tuple(tensor.clone() for tensor in given)
        try:
            self._captured[shapes] = inputs, self._lane.capture(lambda: self._step(*inputs))
        except Refused as refused:
            self._lane.captured.discard((self._kind, shapes))
            if warmed_up:
                _refused.add(self._kind)
                _reasons.append(str(refused))
            return False
        self._lane.captured.add((self._kind, shapes))
        return True

    def forget(self) -> None:
        """Release the graphs. Before PyTorch 2.12 this must not overlap another thread's capture either."""
        self._captured.clear()


@contextmanager
def replayable(step: Step, device: torch.device, kind: Hashable) -> Iterator[Step]:
    """The step to call within this block: on a GPU captured, on a CPU the step itself. When it ends, all steps are done.

    The lane is the one this thread has its turn on, else one of its own. `kind` is equal for steps that can all be captured,
    or none of them.
    """
    lane: Lane | None = getattr(_here, "lane", None)
    if lane is None and device.type != "cuda":
        yield step
        return
    with nullcontext(lane) if lane else own_lane(device).turn() as lane:
        replayed = Replayed(step, lane, kind)
        try:
            yield replayed
            lane.wait()
        finally:
            replayed.forget()


def refusals() -> list[str]:
    """Why steps could not be captured since the last call, once for each kind of step."""
    reasons = _reasons.copy()
    _reasons.clear()
    return reasons


def own_lane(device: torch.device) -> Lane:
    """The lane of a thread that takes turns with nobody."""
    lanes: dict[torch.device, Lane] = vars(_here).setdefault("own", {})
    if device not in lanes:
        lanes[device] = CudaLane(device, Baton())
    return lanes[device]
