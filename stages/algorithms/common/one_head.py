"""What LG-FedAvg, FedGen and FedGH have in common: all clients come to have the same head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from stages.algorithms.common.records import tensors
from stages.algorithms.common.weights import Weights, called_with
from stages.algorithms.contract import ClientState, Hyperparameters, Task
from stages.errors import UserError
from stages.models.split import SplitModel
from stages.randomness import Rng, seeded
from stages.settings import setting


@dataclass(frozen=True)
class Hyper(Hyperparameters):
    first_head: str = setting(
        "common", "The head that clients start from: one for all, or one each.", choices=("common", "own"),
        source="common: papers; own: the public library until January 2024",
    )  # fmt: skip


@dataclass(frozen=True)
class Shared:
    task: Task
    head: Weights | None  # that all start from; None if each starts from its own


@dataclass(frozen=True)
class Download:
    head: Weights


class HasHead(Protocol):
    """What has a head for the clients: what is shared holds the one that all start from, a download the newest."""

    @property
    def head(self) -> Weights | None: ...


def drawn(task: Task, rng: Rng) -> nn.Linear:
    with seeded(rng.seed("head")):
        return nn.Linear(task.feature_dim, task.classes).to(task.device)


def first(hyper: Hyper, task: Task, rng: Rng) -> Weights | None:
    return drawn(task, rng).state_dict() if hyper.first_head == "common" else None


def newest(shared: HasHead, download: HasHead | None) -> Weights | None:
    """The head sent last; before there is one, the head that all start from, or None for a client's own."""
    return shared.head if download is None else download.head


def take(client: ClientState, shared: HasHead, download: HasHead | None) -> None:
    """Replace the client's head by the newest one."""
    head = newest(shared, download)
    if head is not None:
        client.model.head.load_state_dict(head)


def predict(hyper: Hyper, shared: HasHead, client: ClientState, download: HasHead | None, x: Tensor) -> Tensor:
    """Logits of the client's features under the newest head."""
    return called_with(client.model.head, newest(shared, download) or {}, client.model.features(x))


def check(hyper: Hyper, task: Task, models: Sequence[SplitModel]) -> None:
    """Raises UserError unless every client's head is the same linear layer, feature_dim -> classes."""
    shapes = {"weight": (task.classes, task.feature_dim), "bias": (task.classes,)}
    for client, model in enumerate(models):
        if {name: tuple(tensor.shape) for name, tensor in tensors(model.head).items()} != shapes:
            raise UserError(
                f"All clients share one head, a linear layer {task.feature_dim} -> {task.classes}, and "
                f"client {client}'s is another; choose models with equal heads, such as the group HtFE8."
            )
