"""Clients in this process, one after the other: every model and image stays on the device between rounds."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from stages.algorithms.contract import ClientState
from stages.engines import clients
from stages.engines.clients import Answer
from stages.engines.federation import Federation


class InProcess:
    """A fleet that trains the very states it is given."""

    def __init__(self, federation: Federation, states: list[ClientState]):
        self.federation, self.states = federation, states

    def train(self, rounds: int, joined: list[int], download: Any) -> dict[int, Answer]:
        """Raises Diverged at the first client whose loss is not finite."""
        shares, answers = self.federation.shares["train"], {}
        for client in joined:
            answers[client] = clients.train(
                self.federation, client, self.states[client], shares[client], rounds, download
            )
            clients.check_finite(answers[client].metrics, f"Client {client}", rounds)
        return answers

    def evaluate(self, rounds: int, download: Any) -> dict[str, Tensor]:
        def hits(split: str) -> Tensor:
            pairs = zip(self.states, self.federation.shares[split], strict=True)
            return torch.stack([clients.right(self.federation, state, share, download) for state, share in pairs]).cpu()

        return {split: hits(split) for split in ("test", "validation")}

    def traffic(self) -> dict[str, list[int]]:
        return {}

    def collect(self) -> None:
        """Nothing to bring here."""

    def close(self) -> None:
        """Nothing to end."""
