"""What a round works with: what stays the same from round to round, and what changes."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import torch
from torch import Tensor

from stages.algorithms.contract import AnyAlgorithm, ClientState, PairSource
from stages.engines.history import History
from stages.engines.shelf import Shelf
from stages.errors import UserError
from stages.randomness import Rng
from stages.settings import Train


class Diverged(UserError):
    """A loss, or another number of a round, is not finite."""


class Missing(IntEnum):
    """Why nothing came from a client that joined a round."""

    ABSENT = 1  # no node serves it
    LATE = 2  # it did not answer in time
    FAILED = 3  # it raised an error, or died
    REFUSED = 4  # its answer broke the rules


@dataclass(frozen=True)
class ClientData:
    """One split of one client on the device: images uint8 [n, C, H, W], labels int64 [n]."""

    images: Tensor
    labels: Tensor


@dataclass
class Federation:
    """Everything that stays the same from round to round."""

    algorithm: AnyAlgorithm
    hyper: Any
    shared: Any
    settings: Train
    rng: Rng
    device: torch.device
    classes: int
    sizes: dict[str, Tensor]  # images of every client by split, int64 [clients]
    shares: dict[str, list[ClientData]]  # by split, for the clients in this process
    pairs: PairSource | None

    @property
    def clients(self) -> int:
        return len(self.sizes["train"])


@dataclass
class State:
    """Everything that changes: what a checkpoint holds."""

    clients: list[ClientState]  # none if they are on other machines, or on a shelf
    server: Any
    shelf: Shelf | None = None
    download: Any = None  # what the server sent last
    rounds: int = 0  # done
    selected: dict[str, Tensor] = field(default_factory=dict)  # packed, of the selected round; none if it is this one
    history: History = field(default_factory=History)
