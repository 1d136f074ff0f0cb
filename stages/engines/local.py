"""Clients in this process: on a CPU one after the other, on a GPU several in flight."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from stages.algorithms.contract import ClientState
from stages.engines import clients
from stages.engines.clients import Answer
from stages.engines.federation import Federation

IN_FLIGHT = 4  # clients that train on a GPU at the same time


class InProcess:
    """A fleet that trains the very states it is given. Images stay on the device; models too, unless off-loaded."""

    def __init__(self, federation: Federation, states: list[ClientState]):
        self.federation, self.states = federation, states

    def train(self, rounds: int, joined: list[int], download: Any) -> dict[int, Answer]:
        """Raises Diverged at the first client whose loss is not finite."""
        shares = self.federation.shares["train"]

        def answer(client: int) -> Answer:
            with self._present(client) as state:
                return clients.train(self.federation, client, state, shares[client], rounds, download)

        answers = {}
        for client, answers[client] in zip(joined, self._each(answer, joined), strict=True):
            clients.check_finite(answers[client].metrics, f"Client {client}", rounds)
        return answers

    def evaluate(self, rounds: int, download: Any) -> dict[str, Tensor]:
        def measured(client: int) -> dict[str, Tensor]:
            shares = {split: self.federation.shares[split][client] for split in clients.EVALUATED}
            with self._present(client) as state:
                return clients.evaluated(self.federation, state, shares, download)

        found = [measured(client) for client in range(len(self.states))]
        return {name: torch.stack([one[name] for one in found]).cpu() for name in found[0]}

    def traffic(self) -> dict[str, list[int]]:
        return {}

    def collect(self) -> None:
        """Nothing to bring here."""

    def close(self) -> None:
        """Nothing to end."""

    @contextmanager
    def _present(self, client: int) -> Iterator[ClientState]:
        """The client's state with its model on the device, for one turn."""
        state = self.states[client]
        waiting = next(state.model.parameters()).device
        state.model.to(self.federation.device)
        try:
            yield state
        finally:
            state.model.to(waiting)

    def _each(self, answer: Callable[[int], Answer], joined: list[int]) -> Iterator[Answer]:
        """Answers in order. On a GPU a thread a client, each with a stream: while one waits, others launch.

        Clients in flight draw dropout from one generator, so who wants the same result every time has one at a time.
        """
        if self.federation.device.type == "cpu" or self.federation.settings.deterministic:
            yield from map(answer, joined)
            return
        with ThreadPoolExecutor(IN_FLIGHT) as threads:
            yield from threads.map(answer, joined)
