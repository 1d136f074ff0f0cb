"""Clients side by side on one device: threads that stay for a whole run, a lane each, taking turns to launch."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import TypeVar

import torch

from stages.algorithms.graphs import Baton, CudaLane, Lane
from stages.clock import TURN, Clock, collecting

Given = TypeVar("Given")
Made = TypeVar("Made")


class Slots:
    """As many turns at a time as there are lanes; each is the same whatever the others do."""

    def __init__(self, lanes: Sequence[Lane]):
        self._threads = ThreadPoolExecutor(len(lanes), "slot", self._settle)
        self._here, self._lanes = threading.local(), SimpleQueue[Lane]()
        for lane in lanes:
            self._lanes.put(lane)

    def each(self, turn: Callable[[Given], Made], several: Sequence[Given]) -> Iterator[tuple[Made, dict[str, float]]]:
        """What `turn` makes of each, in their order, and the seconds that it spent by phase."""

        def timed(given: Given) -> tuple[Made, dict[str, float]]:
            lane, clock = self._here.lane, Clock()
            with lane.turn(), collecting(clock), clock.phase(TURN):
                return turn(given), clock.seconds

        return self._threads.map(timed, several)

    def close(self) -> None:
        """End the threads, after the turns that have begun."""
        self._threads.shutdown(cancel_futures=True)

    def _settle(self) -> None:
        """A thread keeps its lane: libraries hold work space for each pair of the two."""
        self._here.lane = self._lanes.get()


def on_gpu(device: torch.device, count: int) -> Slots:
    baton = Baton()
    return Slots([CudaLane(device, baton) for _ in range(count)])
