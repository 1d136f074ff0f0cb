"""Local training: every client on its own images alone, the yardstick that a federation must beat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from stages.algorithms.common.batches import Batches
from stages.algorithms.common.sgd import SGD, LossAndMetrics
from stages.algorithms.contract import Algorithm, ClientState, Metrics, PairSource, Task
from stages.randomness import Rng
from stages.settings import Settings


@dataclass(frozen=True)
class Hyper(Settings):
    """Local training has none of its own."""


def init(hyper: Hyper, task: Task, rng: Rng) -> tuple[None, Task]:
    return None, task


def client_update(
    hyper: Hyper, shared: Task, client: ClientState, download: None, batches: Batches, rng: Rng
) -> tuple[None, Metrics]:
    model = client.model.train()

    def objective(x: Tensor, y: Tensor) -> LossAndMetrics:
        loss = F.cross_entropy(model(x), y)
        return loss, {"loss": loss}

    return None, SGD(shared.lr, model).minimise(objective, batches.steps(rng))


def server_update(
    hyper: Hyper, shared: Task, state: None, uploads: Mapping[int, None], pairs: PairSource | None, rng: Rng
) -> tuple[None, None, Metrics]:
    return None, None, {}


def predict(hyper: Hyper, shared: Task, client: ClientState, download: None, x: Tensor) -> Tensor:
    return client.model(x)


ALGORITHM = Algorithm("local", "no federation", Hyper, None, init, client_update, server_update, predict)
