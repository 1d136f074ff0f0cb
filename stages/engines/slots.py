"""Clients side by side on one device: threads that last for a whole run, each with its own lane, take turns to launch kernels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event
from typing import TypeVar

import torch

from stages.algorithms.common.cuda_graphs import Baton, CudaLane, Lane
from stages.clock import TURN, Clock, collecting

Made = TypeVar("Made")


class Slots:
    """Runs as many clients' turns at a time as there are lanes; a turn does not depend on the others.

    A client keeps its slot: libraries spend seconds on tuning for a network, and keep the results per thread.
    """

    def __init__(self, lanes: Sequence[Lane]):
        self._lanes = lanes
        self._threads = [ThreadPoolExecutor(1, f"slot {number}") for number in range(len(lanes))]
        self._load = [0.0] * len(lanes)
        self._slot: dict[int, int] = {}  # of each client that has had a turn

    def each(
        self, turn: Callable[[int], Made], clients: Sequence[int], cost: Callable[[int], float]
    ) -> Iterator[tuple[int, Made, dict[str, float]]]:
        """Each client, the longest turn first, with the result of its `turn` and its seconds by phase."""
        order = sorted(clients, key=cost, reverse=True)

        def timed(client: int, in_line: Event) -> tuple[int, Made, dict[str, float]]:
            clock, lane = Clock(), self._lanes[self._slot[client]]
            lane.line_up()
            in_line.set()
            with lane.turn(), collecting(clock), clock.phase(TURN):
                return client, turn(client), clock.seconds

        for client in order:
            if client not in self._slot:
                self._slot[client] = min(range(len(self._lanes)), key=self._load.__getitem__)
                self._load[self._slot[client]] += cost(client)
        begun = list[Future[tuple[int, Made, dict[str, float]]]]()
        try:
            busy = set[int]()
            for client in order:
                slot, in_line = self._slot[client], Event()
                begun.append(self._threads[slot].submit(timed, client, in_line))
                if slot not in busy:  # threads that start at once would line up in any order
                    in_line.wait()
                busy.add(slot)
            yield from (future.result() for future in begun)
        finally:
            for future in begun:
                future.cancel()

    def close(self) -> None:
        """End the threads, after the turns that have started."""
        for thread in self._threads:
            thread.shutdown(cancel_futures=True)


def on_gpu(device: torch.device, count: int) -> Slots:
    baton = Baton()
    return Slots([CudaLane(device, baton) for _ in range(count)])
