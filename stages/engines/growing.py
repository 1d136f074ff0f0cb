"""How many processes train the clients if the user has not said: decided after the first round."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from stages.algorithms.contract import ClientState
from stages.engines.clients import Answer
from stages.engines.federation import Federation, Missing
from stages.engines.local import InProcess
from stages.engines.rounds import ClientPool
from stages.engines.workers import Workers
from stages.errors import UserError

WORTH = 20.0  # seconds of training left that justify worker processes, which take a few seconds to start
WORKER_BYTES = 1 << 30  # of free memory per process, mostly for libraries and activations


class Growing:
    """A pool in this process that moves into `count` worker processes if the run is long enough to justify them.

    The result is the same either way, bit for bit.
    """

    def __init__(self, federation: Federation, states: list[ClientState], count: int, tell: Callable[[str], None]):
        self._federation, self._states, self._count, self._tell = federation, states, count, tell
        self._pool: ClientPool = InProcess(federation, states)

    def train(self, rounds: int, joined: list[int], download: Any) -> Mapping[int, Answer | Missing]:
        begun = time.perf_counter()
        answers = self._pool.train(rounds, joined, download)
        left = self._federation.settings.rounds - rounds - 1
        if self._count > 1 and (time.perf_counter() - begun) * left > WORTH:
            self._grow()
        return answers

    def _grow(self) -> None:
        count, self._count = self._count, 1
        try:
            self._pool = Workers(self._federation, self._states, count)
        except UserError:  # the models can't be sent to other processes
            return
        self._tell(f"Training continues in {count} processes, one per core; `workers` sets their number.")

    def evaluate(self, rounds: int, chosen: list[int], download: Any) -> dict[str, Tensor]:
        return self._pool.evaluate(rounds, chosen, download)

    def traffic(self) -> Mapping[str, list[int]]:
        return self._pool.traffic()

    def collect(self) -> None:
        self._pool.collect()

    def close(self) -> None:
        self._pool.close()


def worthwhile(clients: int, threads: int) -> int:
    """As many processes as there are cores for their threads and memory for their work, but no more than clients."""
    return max(1, min(clients, cores() // threads, free_memory() // WORKER_BYTES))


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_memory() -> int:
    """Bytes of memory available to processes, as Linux estimates it; elsewhere all memory."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 1 << 40
