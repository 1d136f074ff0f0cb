"""Clients in this process: on a CPU one after the other, on a GPU several at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from stages.algorithms.contract import ClientState
from stages.artifacts.schemas import EVALUATED
from stages.clock import side_by_side
from stages.engines import clients
from stages.engines.clients import Answer
from stages.engines.federation import Federation
from stages.engines.shelf import Shelf
from stages.engines.slots import Slots, on_gpu


class InProcess:
    """A pool that trains the states it is given, in place. Images stay on the device; models too, unless offloaded."""

    def __init__(self, federation: Federation, states: list[ClientState] | Shelf, slots: Slots | None = None):
        self.federation, self.states, self._slots = federation, states, slots

    def train(self, rounds: int, joined: list[int], download: Any) -> dict[int, Answer]:
        """Raises Diverged at the first client whose loss is not finite."""
        shares = self.federation.shares["train"]

        def answer(client: int) -> Answer:
            with self._present(client, rounds + 1) as state:
                return clients.train(self.federation, client, state, shares[client], rounds, download)

        answers = {}
        for client, answers[client] in self._each(answer, joined):
            clients.check_finite(answers[client].metrics, f"Client {client}", rounds)
        return {client: answers[client] for client in joined}

    def _each(self, answer: Callable[[int], Answer], joined: list[int]) -> Iterator[tuple[int, Answer]]:
        """Clients and their answers: in order, or with several in flight, the longest turn first."""
        if self._slots is None:
            yield from ((client, answer(client)) for client in joined)
            return
        with side_by_side("local training") as turns:
            for client, done, seconds in self._slots.each(answer, joined, self._launches):
                turns.append(seconds)
                yield client, done

    def _launches(self, client: int) -> int:
        """About how many kernels a client's turn launches, which decides how long it takes on a GPU."""
        model = self.states.model(client) if isinstance(self.states, Shelf) else self.states[client].model
        return len(self.federation.shares["train"][client].labels) * len(list(model.parameters()))

    def evaluate(self, rounds: int, chosen: list[int], download: Any) -> dict[str, Tensor]:
        def measured(client: int) -> dict[str, Tensor]:
            shares = {split: self.federation.shares[split][client] for split in EVALUATED}
            with self._present(client) as state:
                return clients.evaluated(self.federation, state, shares, download)

        found = [measured(client) for client in chosen]
        return {name: torch.stack([one[name] for one in found]).cpu() for name in found[0]}

    def traffic(self) -> dict[str, list[int]]:
        return {}

    def collect(self) -> None:
        """The states are already here."""

    def close(self) -> None:
        if self._slots is not None:
            self._slots.close()

    @contextmanager
    def _present(self, client: int, rounds: int | None = None) -> Iterator[ClientState]:
        """The client's state with its model on the device, for one turn, after which it has trained for so many `rounds`."""
        if isinstance(self.states, Shelf):
            with self.states.taken(client, rounds) as state:
                yield state
            return
        state = self.states[client]
        waiting = next(state.model.parameters()).device
        state.model.to(self.federation.device)
        try:
            yield state
        finally:
            state.model.to(waiting)


def in_process(federation: Federation, states: list[ClientState] | Shelf) -> InProcess:
    """The pool for a device: on a GPU several clients train at a time, or one with `deterministic`."""
    settings, device = federation.settings, federation.device
    if device.type != "cuda":
        return InProcess(federation, states)
    count = 1 if settings.deterministic else min(settings.in_flight, federation.clients)
    return InProcess(federation, states, on_gpu(device, count))
