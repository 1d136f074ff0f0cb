"""What algorithms in which all clients come to have one head share: LG-FedAvg, FedGen, FedGH."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call

from stages.algorithms.common.records import tensors
from stages.algorithms.common.weights import Weights
from stages.algorithms.contract import ClientState, Predictor, Task
from stages.errors import UserError
from stages.models.split import SplitModel
from stages.randomness import Rng, seeded
from stages.settings import Settings, setting


@dataclass(frozen=True)
class Hyper(Settings):
    first_head: str = setting(
        "common", "The head that clients start from: one for all, or each its own.", choices=("common", "own"),
        source="common: papers; own: the public library until January 2024",
    )  # fmt: skip


@dataclass(frozen=True)
class Shared:
    task: Task
    head: Weights | None  # that all start from; None for their own


def drawn(task: Task, rng: Rng) -> nn.Linear:
    with seeded(rng.seed("head")):
        return nn.Linear(task.feature_dim, task.classes).to(task.device)


def first(hyper: Hyper, task: Task, rng: Rng) -> Weights | None:
    return drawn(task, rng).state_dict() if hyper.first_head == "common" else None


def newest(shared: Any, download: Any) -> Weights | None:
    """The head sent last; before there is one, that which all start from, or None for a client's own."""
    return shared.head if download is None else download.head


def take(client: ClientState, shared: Any, download: Any) -> None:
    """Put the newest head in the place of the client's."""
    head = newest(shared, download)
    if head is not None:
        client.model.head.load_state_dict(head)


def predict(hyper: Hyper, shared: Any, client: ClientState, download: Any, x: Tensor) -> Tensor:
    """Logits of the client's features under the newest head."""
    head = newest(shared, download)
    if head is None:
        return client.model(x)
    return functional_call(client.model.head, dict(head), (client.model.features(x),))


def predictor(hyper: Hyper, shared: Any, client: ClientState, download: Any) -> Predictor:
    head = newest(shared, download) or {}
    return Predictor(tensors={f"head.{name}": tensor for name, tensor in head.items()})


def check(algorithm: str, task: Task, models: Sequence[SplitModel]) -> None:
    """Raises UserError unless every client's head is the same linear layer, feature_dim -> classes."""
    shapes = {"weight": (task.classes, task.feature_dim), "bias": (task.classes,)}
    for client, model in enumerate(models):
        if {name: tuple(tensor.shape) for name, tensor in tensors(model.head).items()} != shapes:
            raise UserError(
                f"{algorithm} shares one head among all clients, a linear layer {task.feature_dim} -> {task.classes}, "
                f"and client {client}'s is another; choose models with equal heads, such as the group HtFE8."
            )
